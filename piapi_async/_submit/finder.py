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
host has no history, which is remembered for ten minutes; and after one more look if the client is
closed or a batch is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
from attrs import define, evolve, field, frozen

from .._calls.groups import in_parallel
from .._calls.sender import Sender
from .._calls.throttle import now
from .._families import FAMILIES
from .._protocol.family import Family
from ..account import GetHistory, HistoryEntry
from ..errors import APIError, AuthenticationError, ClientClosed, NotFoundError, PiAPIError
from ..ledger._recovery import OpenRow, Taken
from ..tasks import TaskId, TaskRef
from .known_ids import KnownIds
from .nonces import echoed_nonce
from .peers import Peers, peers_at
from .recovery import (
    KNOWN_CLOCK_MARGIN,
    UNKNOWN_CLOCK_MARGIN,
    Found,
    Lost,
    assign,
    body_as_sent,
)
from .submission import Submission, SubmissionState

HISTORY = "history"
"""How a task was found, as ledgers and outcomes say it."""

_FIRST_PAUSE = 1.0  # seconds until the first look; each further pause is twice as long
_LONGEST_GAP = 8.0  # seconds between two looks, however many pages the first has read
_MOST_PAGES = 100  # of one look; where there are more rows, nothing can be told
_MOST_READ = 10_000  # tasks that are remembered, so that each is read once
_READS_AT_ONCE = 8
_RANGE_GAP = 60.0  # seconds between windows that are read as one
_NO_HISTORY_FOR = 600.0  # seconds for which a host without a history is not asked again
_NO_SUCH_CALL = frozenset({404, 405, 501})
_OLDEST_PATIENCE = 150.0  # seconds that a submission of an earlier release may have taken


@frozen
class Finding:
    """What came of looking for a submission: its task, or tasks that fit and are too many."""

    task_id: TaskId | None = None
    how: str = ""
    candidates: tuple[str, ...] = ()


NOTHING = Finding()


@frozen(kw_only=True)
class RecoveryReport:
    """What a look for the *unknown* submissions of a ledger came to, by key.

    `found` has the tasks that were found, which are recorded now; `candidates` those that fit a
    submission and are too many to tell which is its own; `unknown` all keys that are unknown still.
    """

    found: Mapping[str, TaskRef] = field(factory=dict)
    candidates: Mapping[str, tuple[TaskRef, ...]] = field(factory=dict)
    unknown: tuple[str, ...] = ()


Take = Callable[[TaskId], Awaitable[Taken]]


class Records(Protocol):
    """Where submissions without a task, and the tasks of others, are on record: a ledger, or a fleet's database."""

    async def open_rows(self, origin: str, family: str) -> list[OpenRow]:
        """Return the submissions without a task of one family of a host."""
        ...

    async def known_ids(self, origin: str, ids: Sequence[TaskId]) -> dict[str, str]:
        """Return the key of each id that any submission to a host is known by."""
        ...

    async def give_unknown(self, row: OpenRow, task_id: TaskId, found: str) -> Taken:
        """Record the task of a submission that is *unknown*, unless that has changed."""
        ...


@define(eq=False)
class _Search:
    """One submission that is looked for; `lost` may change while the host's clock is not known.

    `mark` tells it from all others: two attempts of one `key` may be looked for at the same time.
    """

    mark: str
    key: str
    family: str
    lost: Callable[[], Lost]
    take: Take
    submission: Submission | None = None
    deadline: float = math.inf
    due: float = 0.0
    pause: float = _FIRST_PAUSE
    candidates: tuple[str, ...] = ()
    finding: asyncio.Future[Finding] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, finding: Finding) -> None:
        """Tell the one who waits, if anybody still does."""
        if not self.finding.done():
            self.finding.set_result(finding)


class _NoHistoryError(Exception):
    """The host has no history, or does not show it to this key."""


@frozen
class _Row:
    """A row of the history that may be a lost submission's."""

    task_id: TaskId
    created_at: float | None
    api_key_id: str


@define(eq=False)
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
    _searches: dict[str, _Search] = field(factory=dict, init=False)
    _runner: asyncio.Task[None] | None = field(default=None, init=False)
    _passes: set[asyncio.Task[None]] = field(factory=set, init=False)
    _wake: asyncio.Event = field(factory=asyncio.Event, init=False)
    _closing: bool = field(default=False, init=False)
    _not_before: float = field(default=-math.inf, init=False)
    _none_until: float = field(default=-math.inf, init=False)
    _read: OrderedDict[str, Found | None] = field(factory=OrderedDict, init=False)
    _own_key_ids: set[str] = field(factory=set, init=False)
    _taken: OrderedDict[str, None] = field(factory=OrderedDict, init=False)
    """Tasks that were taken from the history: a response that names one of them is right, and this was not."""

    # -- for the submitter ------------------------------------------------------------------------

    def join(self) -> None:
        """Become known to the other clients of the running loop."""
        if self._peers is None:
            self._peers = peers_at(self._origin)
            self._peers.join(self)

    @property
    def has_history(self) -> bool:
        """Whether looking may be of use: it is wanted, and the host is not known to have no history."""
        return self._recover > 0 and now() >= self._none_until

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
        search = _Search(
            _mark_of(submission),
            submission.claim.key or "",
            submission.family.name,
            lambda: self.lost_of(submission),
            take,
            submission,
            deadline=start + self._recover,
            due=min(start + _FIRST_PAUSE / self._sender.clock.speed, start + self._recover),
            pause=_FIRST_PAUSE / self._sender.clock.speed,
        )
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
        self._wake.set()
        for task in self._passes:
            task.cancel()

    async def finish(self) -> None:
        """Wait for the last look."""
        tasks = list(self._passes)
        if self._runner is not None:
            tasks.append(self._runner)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def look_again(self, keys: Collection[str] | None = None) -> dict[str, Finding]:
        """Look once for the *unknown* submissions of the ledger, all of them in one pass.

        Returns what was found by key, `NOTHING` for those that were not.  With `keys`, nothing is
        done unless one of them is unknown.  Raises `LedgerError`.
        """
        ledger = self._ledger
        if ledger is None or self._closing:
            return {}

        searches = []
        for family in FAMILIES.values():
            if not self.can_find(family):
                continue
            rows = await ledger.open_rows(self._origin, family.name)
            searches += [self._row_search(ledger, family.name, row) for row in rows if row.unknown]
        if not searches or not (keys is None or any(search.key in keys for search in searches)):
            return {}

        if self._closing:
            return {}
        await self._pass(searches)
        for search in searches:
            search.settle(Finding(candidates=search.candidates))
        return {search.key: search.finding.result() for search in searches if _is_good(search.finding)}

    async def _pass(self, searches: Sequence[_Search]) -> None:
        """Look once for rows of the ledger; a close ends it, as they can be looked for later."""
        task = asyncio.create_task(self._look_safely(searches), name="piapi_async recovery pass")
        self._passes.add(task)
        task.add_done_callback(self._passes.discard)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()

    async def recover(self) -> RecoveryReport:
        """Look once for every *unknown* submission of the ledger.  Raises `LedgerError`."""
        ledger = self._ledger
        if ledger is None:
            return RecoveryReport()

        families = {
            row.key: family
            for family in FAMILIES
            for row in await ledger.open_rows(self._origin, family)
            if row.unknown
        }
        findings = await self.look_again()
        found, candidates, unknown = {}, {}, []
        for key, family in families.items():
            finding = findings.get(key, NOTHING)
            if finding.task_id is not None:
                found[key] = TaskRef(self._origin, family, finding.task_id)
                continue
            unknown.append(key)
            if finding.candidates:
                candidates[key] = refs_of(self._origin, family, finding.candidates)
        return RecoveryReport(found=found, candidates=candidates, unknown=tuple(unknown))

    def _row_search(self, ledger: Records, family: str, row: OpenRow) -> _Search:
        async def take(task_id: TaskId) -> Taken:
            return await ledger.give_unknown(row, task_id, HISTORY)

        return _Search(row.key, row.key, family, lambda: self._lost_of_row(row), take)

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
                is_late = search.deadline <= began_at or self._closing or not self.has_history
                if is_late:
                    search.settle(Finding(candidates=search.candidates))
                search.pause *= 2
                search.due = min(now() + search.pause, max(search.deadline, now()))
            await asyncio.sleep(0)

    async def _wait_until_due(self) -> None:
        while self._searches and not self._closing:
            searches = self._searches.values()
            due = max(min(search.due for search in searches), self._not_before)
            last_due = min(search.deadline for search in searches)
            seconds = min(due, last_due) - now()
            if seconds <= 0:
                return
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._wake.wait()

    async def _look_safely(self, searches: Sequence[_Search]) -> None:
        """Look once; whatever goes wrong with it, there may be another look."""
        try:
            await self._look(searches)
        except _NoHistoryError as error:
            self._none_until = now() + _NO_HISTORY_FOR
            self._tell(logging.INFO, f"{error}: lost submissions cannot be looked for at {self._origin}")
        except PiAPIError as error:
            self._tell(logging.INFO, f"lost submissions could not be looked for: {error}")
        except Exception as error:  # noqa: BLE001 - a user's request may raise anything, and its like is looked for here
            self._tell(logging.ERROR, "lost submissions could not be looked for", exception=error)

    def _tell(self, level: int, text: str, **details: Any) -> None:  # noqa: ANN401 - attributes of log records
        self._sender.events.notice(level, text, **details)

    async def _look(self, searches: Sequence[_Search]) -> None:
        if self._sender.clock.at(now()) is None:  # the windows are the host's time
            await self._page(GetHistory(page_size=1))

        wanted = [search.lost() for search in searches]
        rows = await self._rows(wanted)
        complete = await self._read_tasks([row for row in rows.values() if self._is_to_read(row)])

        members, sending = await self._others({search.key for search in searches})
        known: Mapping[str, str] = {}
        if self._ledger is not None and rows:
            known = await self._ledger.known_ids(self._origin, [TaskId(task_id) for task_id in rows])

        # From here on nothing is awaited until the tasks are assigned.
        found = [
            evolve(task, listed_at=row.created_at, api_key_id=row.api_key_id)
            for row in rows.values()
            if (task := self._read.get(row.task_id)) is not None
            and row.task_id not in known
            and not self._is_known(row.task_id)
        ]
        assignment = assign(
            [*wanted, *members, *self._looked_for_by_peers({search.mark for search in searches})],
            found,
            wanted=frozenset(one.key for one in wanted),
            sending=[*sending, *self._being_sent()],
            api_key_id=self._own_key_id,
        )
        for search in searches:
            search.candidates = assignment.ambiguous.get(search.mark, ())
        pairs = [
            (search, TaskId(assignment.taken[search.mark])) for search in searches if search.mark in assignment.taken
        ]
        if not complete:  # what could not be read may be the one, too
            proved = {one.key for one in wanted for task in found if one.nonce and task.nonce == one.nonce}
            pairs = [pair for pair in pairs if pair[0].mark in proved]
        for _, task_id in pairs:
            self._ids.take(task_id)
            self.note(task_id)
        for search, task_id in pairs:
            await self._give(search, task_id)

    async def _give(self, search: _Search, task_id: TaskId) -> None:
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
            while len(self._taken) > _MOST_READ:
                self._taken.popitem(last=False)
        self._sender.counters.recovered += 1
        subject = None
        if search.submission is not None:
            subject = search.submission.subject
        self._sender.events.recovered(taken.task_id, search.family, HISTORY, key=search.key, subject=subject)
        search.settle(Finding(taken.task_id, HISTORY))

    # -- the history ------------------------------------------------------------------------------

    async def _rows(self, wanted: Sequence[Lost]) -> dict[str, _Row]:
        """Return the rows that may be wanted submissions', by task id."""
        rows: dict[str, _Row] = {}
        pages = 0
        for since, until in _ranges(wanted):
            pages += await self._read_range(since, until, wanted, rows, _MOST_PAGES - pages)
        self._not_before = now() + min(pages, _LONGEST_GAP) / self._sender.clock.speed
        return rows

    async def _read_range(
        self, since: float, until: float, wanted: Sequence[Lost], rows: dict[str, _Row], most: int
    ) -> int:
        """Read all pages of a range of the host's time; return their number."""
        request = GetHistory(since=_moment(since), until=_moment(until))
        known: frozenset[str] = frozenset()
        for number in range(1, most + 1):
            page = await self._page(request)
            for entry in page.entries:
                self._note_row(entry, wanted, rows)

            marks = frozenset(entry.id or entry.task_id for entry in page.entries)
            times = [entry.created_at.timestamp() for entry in page.entries if entry.created_at is not None]
            is_past = bool(times) and max(times) < since  # of a host that does not know the bounds
            is_last = page.total is not None and request.page * page.size >= page.total
            if is_last or is_past or marks <= known:
                return number
            request, known = evolve(request, page=request.page + 1), marks
        raise PiAPIError(f"the history has more than {_MOST_PAGES} pages of that time")

    async def _page(self, request: GetHistory) -> Any:  # noqa: ANN401 - a page
        try:
            return await self._attempt(request)
        except AuthenticationError as error:
            if error.message:  # the host's own words
                raise _NoHistoryError(str(error)) from error
            raise
        except APIError as error:
            if error.status in _NO_SUCH_CALL:
                raise _NoHistoryError(str(error)) from error
            raise

    def _note_row(self, entry: HistoryEntry, wanted: Sequence[Lost], rows: dict[str, _Row]) -> None:
        task_id = TaskId(entry.task_id)
        if not task_id or task_id in {".", ".."}:
            return
        if self._ids.has(task_id) and task_id not in self._taken and entry.api_key_id:
            self._own_key_ids.add(entry.api_key_id)

        created_at = None if entry.created_at is None else entry.created_at.timestamp()
        for one in wanted:
            fits_time = created_at is None or one.may_be_created_at(created_at)
            if fits_time and (not entry.model or entry.model == one.model):
                rows.setdefault(task_id, _Row(task_id, created_at, entry.api_key_id))
                return

    @property
    def _own_key_id(self) -> str:
        """The id of the client's own key, as its answered tasks show it; "" if that is not known."""
        if len(self._own_key_ids) == 1:
            return next(iter(self._own_key_ids))
        return ""

    def _is_to_read(self, row: _Row) -> bool:
        """Return whether a task must be read to know more of it."""
        if row.task_id in self._read or self._is_known(row.task_id):
            return False
        return not (self._own_key_id and row.api_key_id and row.api_key_id != self._own_key_id)

    def _is_known(self, task_id: TaskId) -> bool:
        """Return whether a submission of any client here has a task."""
        return self._ids.has(task_id) or (self._peers is not None and self._peers.ids.has(task_id))

    async def _read_tasks(self, rows: Sequence[_Row]) -> bool:
        """Read tasks, some at a time; return whether all that could be known of them is known."""
        ids = [row.task_id for row in rows]
        if self._ledger is not None and ids:
            known = await self._ledger.known_ids(self._origin, ids)
            ids = [task_id for task_id in ids if task_id not in known]
        results = await in_parallel(self._read_task, ids, _READS_AT_ONCE)
        while len(self._read) > _MOST_READ:
            self._read.popitem(last=False)
        return all(results)

    async def _read_task(self, task_id: TaskId) -> bool:
        """Read a task that the history names; return False if that failed for now."""
        for family in FAMILIES.values():
            if family.trace is None:
                continue
            try:
                task = await self._attempt(family.fetch(task_id))
            except NotFoundError as error:
                if not error.message:  # an edge's page
                    return False
                self._read[task_id] = None
            except PiAPIError:
                return False
            else:
                trace = family.trace(task.raw)
                self._read[task_id] = Found(task_id, trace, None, echoed_nonce(task.raw))
        return True

    async def _attempt(self, request: Any) -> Any:  # noqa: ANN401 - a request, and what it means
        if self._closing:
            return await self._sender.last_read(request)
        try:
            return await self._sender.attempt(request)
        except ClientClosed:
            return await self._sender.last_read(request)

    # -- whose else a task may be -----------------------------------------------------------------

    async def _others(self, keys: set[str]) -> tuple[list[Lost], list[Lost]]:
        """Return the other submissions of the ledger that are lost, and those that are being sent."""
        lost: list[Lost] = []
        sending: list[Lost] = []
        if self._ledger is None:
            return lost, sending

        for family in FAMILIES.values():
            if family.trace is None:
                continue
            for row in await self._ledger.open_rows(self._origin, family.name):
                if row.key in keys:
                    continue
                one = self._lost_of_row(row)
                (sending if row.sending else lost).append(one)
        here = {submission.claim.key for submission in self._all_under_way()}
        return [one for one in lost if one.key not in here], [one for one in sending if one.key not in here]

    def _all_under_way(self) -> Iterable[Submission]:
        if self._peers is None:
            return list(self.under_way)
        return list(self._peers.under_way())

    def _being_sent(self) -> list[Lost]:
        """Return the submissions of all clients here that may still be answered."""
        return [
            self.lost_of(submission)
            for submission in self._all_under_way()
            if submission.state is SubmissionState.SENDING
            and submission.send_state.begun
            and submission.family.trace is not None
        ]

    def _looked_for_by_peers(self, marks: set[str]) -> list[Lost]:
        searches: Iterable[_Search] = self._searches.values() if self._peers is None else self._peers.searches()
        return [search.lost() for search in searches if search.mark not in marks and not search.finding.done()]

    def open_searches(self) -> list[_Search]:
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

    def _lost_of_row(self, row: OpenRow) -> Lost:
        offset, margin = row.offset, KNOWN_CLOCK_MARGIN
        if offset is None:  # what it is now says nothing of then: the clock may have been set
            margin = UNKNOWN_CLOCK_MARGIN
            offset = 0.0
        until = row.until
        if until is None:
            until = row.since + _OLDEST_PATIENCE
        return Lost(row.key, _body_of(row), row.since + offset - margin, until + offset + margin)


async def first_found(searches: Sequence[Coroutine[Any, Any, Finding]]) -> Finding:
    """Return the first task that one of several searches finds; if none does, what they came to."""
    if len(searches) == 1:
        return await searches[0]

    tasks = [asyncio.create_task(search, name="piapi_async search") for search in searches]
    try:
        waiting = set(tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task.result().task_id is not None:
                    return task.result()
        candidates = tuple(candidate for task in tasks for candidate in task.result().candidates)
        return Finding(candidates=candidates)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _mark_of(submission: Submission) -> str:
    return f"\0{id(submission)}"  # which no key begins with


def _body_of(row: OpenRow) -> dict[str, Any]:
    """Return what a submission of the ledger was sent as."""
    try:
        body = orjson.loads(row.request.partition(" ")[2])
        sent = body_as_sent(body)
        if row.body is not None:
            sent.update(orjson.loads(row.body))
    except (ValueError, TypeError, AttributeError):
        return {}
    return sent


def _ranges(wanted: Sequence[Lost]) -> list[tuple[float, float]]:
    """Return the ranges of time that cover all windows, those close to each other as one."""
    ranges: list[tuple[float, float]] = []
    for earliest, latest in sorted((one.earliest, one.latest) for one in wanted):
        if ranges and earliest <= ranges[-1][1] + _RANGE_GAP:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], latest))
        else:
            ranges.append((earliest, latest))
    return ranges


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _is_good(finding: asyncio.Future[Finding]) -> bool:
    return finding.done() and not finding.cancelled() and finding.exception() is None


def refs_of(origin: str, family: str, ids: Iterable[str]) -> tuple[TaskRef, ...]:
    """Return references to tasks by their ids."""
    return tuple(TaskRef(origin, family, TaskId(task_id)) for task_id in ids)
