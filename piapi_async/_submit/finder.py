"""Finds the tasks of submissions whose response was lost, in the host's own history.

Theory of operation
-------------------
*One look for all.*  A look reads the rows that were made while the lost submissions were on their
way, a hundred at a time, then each task among them that nobody has, once; then `assign` decides.
Rows may appear late, so a submission is looked for after 1, 2, 4, 8 … seconds; whatever is due waits
a second for each page of the look before.

*What is decided at the end.*  While a look reads, other submissions are answered.  So who is being
sent, and who has which task, is asked for after the last read and not before it, first of the
ledger and then in memory; and the transaction that records a task refuses one that any other
submission has.  What begins to be sent later than that made none of the tasks that were read.

*What ends it.*  A submission is given up at its deadline, after one more look; at once where the
host has no history, which is remembered for ten minutes; once two looks have shown that the host hides
the inputs of its tasks; and after one more look if the client is closed or a batch is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from .._calls.sender import Sender
from .._calls.throttle import now
from .._protocol.family import Family
from ..errors import PiAPIError
from ..tasks import TaskId
from .history import MOST_READ, History, NoHistoryError, Row
from .known_ids import KnownIds
from .peers import Peers, peers_at
from .recovery import KNOWN_CLOCK_MARGIN, UNKNOWN_CLOCK_MARGIN, Found, Lost, assign, why_never
from .searching import FIRST_PAUSE, Finding, Search, Take
from .submission import Submission, SubmissionState
from .unknown_rows import HISTORY, Records, RecoveryReport, UnknownRows

_TICK = 1e-3  # seconds by which a timer may be early


@define(eq=False, repr=False)
class Finder:
    """Looks for the lost submissions of one client; `recover` is the seconds for each, 0 for none."""

    _sender: Sender
    _origin: str
    _ledger: Records | None
    _recover: float
    _ids: KnownIds
    under_way: set[Submission]
    """The client's submissions, of which some may still be answered."""
    _peers: Peers | None = field(default=None, init=False)
    _searches: dict[str, Search] = field(factory=dict, init=False)
    _runner: asyncio.Task[None] | None = field(default=None, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _history: History = field(init=False)
    _rows: UnknownRows = field(init=False)
    _taken: OrderedDict[str, None] = field(factory=OrderedDict, init=False)
    """Tasks taken from the history: if a response names one of them, that is right and the taking was not."""

    def __attrs_post_init__(self) -> None:
        self._history = History(self._sender, self._was_answered, self._is_known)
        self._rows = UnknownRows(self._ledger, self._origin, self.can_find, self._look_safely)

    # -- for the submitter ------------------------------------------------------------------------

    def join(self) -> None:
        """Become known to the other clients of the running loop."""
        if self._peers is None:
            self._peers = peers_at(self._origin)
            self._peers.join(self)

    @property
    def has_history(self) -> bool:
        """Whether looking may be of use: it is wanted, and the host is not known to have no history."""
        return self._recover > 0 and self._history.exists

    @property
    def patience(self) -> float:
        """Seconds for which a lost submission is looked for."""
        return self._recover

    def can_find(self, family: Family[Any]) -> bool:
        """Return whether a lost task of a family can be found."""
        return family.trace is not None and self.has_history

    def note(self, task_id: TaskId) -> None:
        """Note the task of a submission of this client."""
        if self._peers is not None:
            self._peers.ids.take(task_id)

    def was_taken(self, task_id: TaskId) -> bool:
        """Return whether a task was taken from the history, and not named by a response."""
        return task_id in self._taken

    async def find(self, submission: Submission, take: Take) -> Finding:
        """Return the task of a submission whose response was lost, once it is in the history and recorded.

        Raises what `take` raises.
        """
        start = now()
        search = Search(
            _mark_of(submission),
            submission.claim.key or "",
            submission.family.name,
            lambda: self.lost_of(submission),
            take,
            submission,
            deadline=start + self._recover,
            due=min(start + FIRST_PAUSE / self._sender.clock.speed, start + self._recover),
            pause=FIRST_PAUSE / self._sender.clock.speed,
        )
        obstacle = why_never(search.lost())
        if obstacle:
            return Finding(trouble=obstacle, is_final=True)

        self._searches[search.mark] = search
        self._run_if_needed()
        try:
            return await search.finding
        finally:
            del self._searches[search.mark]
            self._wake.set()

    def hasten(self) -> None:
        """Look once more for submissions whose callers have gone, and then give them up."""
        for search in self._searches.values():
            if search.submission is not None and search.submission.send_state.abandoned:
                search.due = search.deadline = now()
        self._wake.set()

    def close(self) -> None:
        """Look once more for everything, and then give up."""
        self._closing = True
        self._history.close()
        self._rows.close()
        self._wake.set()

    async def finish(self) -> None:
        """Wait for the last look."""
        await self._rows.finish()
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)

    async def look_again(self, keys: Collection[str] | None = None) -> dict[str, Finding]:
        """Look once for the *unknown* submissions of the ledger, all of them in one pass.

        Returns what was found by key, `NOTHING` for those that were not.  With `keys`, nothing is
        done unless one of them is unknown.  Raises `LedgerError`.
        """
        return await self._rows.look_again(keys)

    async def recover(self) -> RecoveryReport:
        """Look once for every *unknown* submission of the ledger.  Raises `LedgerError`."""
        return await self._rows.recover()

    # -- the one look of all ----------------------------------------------------------------------

    def _run_if_needed(self) -> None:
        self._wake.set()
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run(), name="piapi_async recovery")

    async def _run(self) -> None:
        while self._searches:
            await self._wait_until_due()
            searches = [search for search in self._searches.values() if not search.finding.done()]
            if not searches:
                await asyncio.sleep(0)  # those who waited for them remove them
                continue

            began_at = now()
            await self._look_safely(searches)
            for search in searches:
                is_late = search.deadline <= began_at + _TICK or self._closing or not self.has_history
                if is_late or search.is_hopeless:
                    search.give_up()
                search.pause *= 2
                search.due = min(now() + search.pause, max(search.deadline, now()))
            await asyncio.sleep(0)

    async def _wait_until_due(self) -> None:
        while self._searches and not self._closing:
            searches = self._searches.values()
            due = max(min(search.due for search in searches), self._history.not_before)
            last_due = min(search.deadline for search in searches)
            seconds = min(due, last_due) - now()
            if seconds <= _TICK:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _look_safely(self, searches: Sequence[Search]) -> None:
        """Look once; whatever goes wrong with it, there may be another look."""
        trouble = ""
        try:
            complete = await self._look(searches)
        except NoHistoryError as error:
            self._history.note_none()
            trouble = f"the host shows no history: {error}"
            self._tell(logging.INFO, f"{error}: lost submissions cannot be looked for at {self._origin}")
        except PiAPIError as error:
            trouble = str(error)
            self._tell(logging.INFO, f"lost submissions could not be looked for: {error}")
        except Exception as error:  # noqa: BLE001 - a user's request may raise anything, and its like is looked for here
            trouble = repr(error)
            self._tell(logging.ERROR, "lost submissions could not be looked for", exception=error)
        else:
            if not complete:
                trouble = "some tasks in the host's history could not be read"
        for search in searches:
            search.trouble = trouble

    def _tell(self, level: int, text: str, **details: Any) -> None:  # noqa: ANN401 - attributes of log records
        self._sender.events.notice(level, text, **details)

    async def _look(self, searches: Sequence[Search]) -> bool:
        """Look once; return whether all was read that may be one's task."""
        await self._history.learn_clock()
        wanted = [search.lost() for search in searches]
        rows = await self._history.rows(wanted)
        offset = self._sender.clock.offset() or 0.0
        among = min(one.earliest for one in wanted) - offset, max(one.latest for one in wanted) - offset
        complete = await self._read(rows.values(), among)

        keys = {search.key for search in searches}
        lost, sending = await self._rows.others(keys, self._own_rows)
        known: Mapping[str, str] = {}
        if self._ledger is not None and rows:
            ids = [row.task_id for row in rows.values()]
            known = await self._ledger.known_ids(self._origin, ids, *among)

        # From here on nothing is awaited until the tasks are assigned.
        found = [
            task
            for row in rows.values()
            if (task := self._history.task_of(row)) is not None
            and row.task_id not in known
            and not self._is_known(row.task_id)
        ]
        assignment = assign(
            [*wanted, *lost, *self._looked_for_by_peers({search.mark for search in searches})],
            found,
            wanted=frozenset(one.key for one in wanted),
            sending=[*sending, *self._being_sent()],
            api_key_id=self._history.own_key_id,
        )
        hidden: list[Found] = []
        if complete and not self._history.shows_inputs:
            hidden = found
        for search, one in zip(searches, wanted, strict=True):
            search.candidates = assignment.ambiguous.get(search.mark, ())
            search.met_with(why_never(one, hidden, api_key_id=self._history.own_key_id))
        pairs = [
            (search, TaskId(assignment.taken[search.mark]))
            for search in searches
            if search.mark in assignment.taken
        ]
        if not complete:  # what could not be read may be the one, too
            proved = {one.key for one in wanted for task in found if one.nonce and task.nonce == one.nonce}
            pairs = [pair for pair in pairs if pair[0].mark in proved]
        for _, task_id in pairs:
            self._ids.take(task_id)
            self.note(task_id)
        for search, task_id in pairs:
            await self._give(search, task_id)
        return complete

    async def _give(self, search: Search, task_id: TaskId) -> None:
        try:
            taken = await search.take(task_id)
        except PiAPIError as error:
            if not search.finding.done():
                search.finding.set_exception(error)
                search.finding.exception()  # the one who waits may have gone
            return
        if taken.task_id is None:  # another process was faster, or it is no longer what it was
            return
        if taken.task_id == task_id:
            self._taken[task_id] = None
            while len(self._taken) > MOST_READ:
                self._taken.popitem(last=False)
        self._sender.counters.recovered += 1
        subject = None
        if search.submission is not None:
            subject = search.submission.subject
        self._sender.events.recovered(taken.task_id, search.family, HISTORY, key=search.key, subject=subject)
        search.settle(Finding(taken.task_id, HISTORY))

    async def _read(self, rows: Collection[Row], among: tuple[float, float]) -> bool:
        """Read the tasks of rows that nobody has; return whether all that could be known of them is known.

        `among` are the times of this machine between which they were made.
        """
        ids = [row.task_id for row in rows if self._history.is_to_read(row)]
        if self._ledger is not None and ids:
            known = await self._ledger.known_ids(self._origin, ids, *among)
            ids = [task_id for task_id in ids if task_id not in known]
        return await self._history.read(ids, rows)

    # -- whose else a task may be -----------------------------------------------------------------

    def _was_answered(self, task_id: TaskId) -> bool:
        """Return whether a response to this client has named a task."""
        return self._ids.has(task_id) and task_id not in self._taken

    def _is_known(self, task_id: TaskId) -> bool:
        """Return whether a submission of any client here has a task."""
        return self._ids.has(task_id) or (self._peers is not None and self._peers.ids.has(task_id))

    def _own_rows(self) -> set[tuple[str, str] | None]:
        """Return the ledger's rows of submissions under way here, by owner and key."""
        return {submission.row for submission in self._all_under_way()}

    def _all_under_way(self) -> Iterable[Submission]:
        if self._peers is None:
            return list(self.under_way)
        return list(self._peers.under_way())

    def _being_sent(self) -> list[Lost]:
        """Return all clients' submissions whose tasks are yet to be told by others than the history."""
        return [self.lost_of(submission) for submission in self._all_under_way() if _may_be_told(submission)]

    def _looked_for_by_peers(self, marks: set[str]) -> list[Lost]:
        searches: Iterable[Search] = (
            self._searches.values() if self._peers is None else self._peers.searches()
        )
        return [
            search.lost() for search in searches if search.mark not in marks and not search.finding.done()
        ]

    def open_searches(self) -> list[Search]:
        """Return what is looked for now."""
        return list(self._searches.values())

    # -- windows ----------------------------------------------------------------------------------

    def lost_of(self, submission: Submission) -> Lost:
        """Return a submission as it was sent, with the times at the host in which its task was made."""
        state, clock = submission.send_state, self._sender.clock
        began_at = state.began_at
        earliest, latest = clock.at(began_at), clock.at(began_at + submission.timeout)
        margin = KNOWN_CLOCK_MARGIN
        if earliest is None or latest is None:
            margin = UNKNOWN_CLOCK_MARGIN
            earliest = state.started_at or submission.queued_at
            latest = earliest + submission.timeout

        nonce = submission.expected.nonce if submission.expected is not None else ""
        return Lost(_mark_of(submission), submission.body(), earliest - margin, latest + margin, nonce)


def _may_be_told(submission: Submission) -> bool:
    """Return whether the task of a submission may be in the history, and is not looked for there."""
    if not submission.send_state.begun:
        return False
    if submission.family.trace is not None:
        return submission.state is SubmissionState.SENDING
    is_open = submission.state in {SubmissionState.SENDING, SubmissionState.LOOKING}
    return is_open and bool(submission.family.listed_as)


def _mark_of(submission: Submission) -> str:
    return f"\0{id(submission)}"  # which no key begins with
