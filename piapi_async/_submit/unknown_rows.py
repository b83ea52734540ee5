"""The *unknown* submissions of a ledger: what they were sent as, and one pass over all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import orjson
from attrs import define, field, frozen

from .._families import FAMILIES
from .._protocol.family import Family
from ..errors import ClientClosed
from ..ledger._recovery import OpenRow, Taken
from ..tasks import TaskId, TaskRef
from .recovery import KNOWN_CLOCK_MARGIN, UNKNOWN_CLOCK_MARGIN, Lost, body_as_listed, body_as_sent
from .searching import NOTHING, Finding, Search

HISTORY = "history"
"""How a task was found, as ledgers and outcomes say it."""

_OLDEST_PATIENCE = 150.0  # seconds that a submission of an earlier release may have taken


@frozen(kw_only=True)
class RecoveryReport:
    """What a look for the *unknown* submissions of a ledger came to, by key.

    `found` has the tasks that were found, which are recorded now; `candidates` those that fit a
    submission and are too many to tell which is its own; `unknown` all keys that are unknown still.
    `trouble` is why not all of these were looked for, such as a host that is out of reach; "" if they were.
    """

    found: Mapping[str, TaskRef] = field(factory=dict)
    candidates: Mapping[str, tuple[TaskRef, ...]] = field(factory=dict)
    unknown: tuple[str, ...] = ()
    trouble: str = ""


class Records(Protocol):
    """Where submissions without a task, and others' tasks, are on record: a ledger, or a fleet's database."""

    async def open_rows(self, origin: str, family: str) -> list[OpenRow]:
        """Return the submissions without a task of one family of a host."""
        ...

    async def known_ids(
        self, origin: str, ids: Sequence[TaskId], since: float, until: float
    ) -> dict[str, str]:
        """Return the key of each id that any submission to a host is known by.

        The tasks were made between these Unix times of this machine.
        """
        ...

    async def give_unknown(self, row: OpenRow, task_id: TaskId, found: str) -> Taken:
        """Record the task of a submission that is *unknown*, unless that has changed."""
        ...


@define(eq=False, repr=False)
class UnknownRows:
    """Looks for what a ledger, or a fleet's database, has as *unknown*.

    `can_find` tells whether lost tasks of a family can be found, and `look` looks once for some.
    """

    _records: Records | None
    _origin: str
    _can_find: Callable[[Family[Any]], bool]
    _look: Callable[[Sequence[Search]], Coroutine[Any, Any, None]]
    _passes: set[asyncio.Task[None]] = field(factory=set, init=False)
    _closing: bool = field(default=False, init=False)

    async def look_again(self, keys: Collection[str] | None = None) -> dict[str, Finding]:
        """Look once for the *unknown* submissions of the ledger, all of them in one pass.

        Returns what was found by key, `NOTHING` for those that were not.  With `keys`, nothing is
        done unless one of them is unknown.  Raises `LedgerError`.
        """
        records = self._records
        if records is None or self._closing:
            return {}

        searches = []
        for family in FAMILIES.values():
            if not self._can_find(family):
                continue
            rows = await self._rows_of(records, family.name)
            searches += [_row_search(records, family.name, row) for row in rows if row.unknown]
        if not searches or not (keys is None or any(search.key in keys for search in searches)):
            return {}

        if self._closing:
            return {}
        await self._pass(searches)
        for search in searches:
            search.give_up()
        return {search.key: search.finding.result() for search in searches if _is_good(search.finding)}

    async def _pass(self, searches: Sequence[Search]) -> None:
        """Look once for rows of the ledger; a close ends it, as they can be looked for later."""
        task = asyncio.create_task(self._look(searches), name="piapi_async recovery pass")
        self._passes.add(task)
        task.add_done_callback(self._passes.discard)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()

    async def recover(self) -> RecoveryReport:
        """Look once for every *unknown* submission of the ledger.

        Raises `LedgerError`, and `ClientClosed` if the client was closed before all was looked for.
        """
        records = self._records
        if records is None:
            return RecoveryReport()

        families = {
            row.key: family
            for family in FAMILIES
            for row in await self._rows_of(records, family)
            if row.unknown
        }
        findings = await self.look_again()
        if self._closing:
            raise ClientClosed("recover: the client was closed meanwhile; what was found is recorded")

        found, candidates, unknown = {}, {}, []
        for key, family in families.items():
            finding = findings.get(key, NOTHING)
            if finding.task_id is not None:
                found[key] = TaskRef(self._origin, family, finding.task_id)
                continue
            unknown.append(key)
            if finding.candidates:
                candidates[key] = finding.refs(self._origin, family)
        troubles = (self._trouble_with(families[key], findings.get(key)) for key in unknown)
        trouble = next(filter(None, troubles), "")
        return RecoveryReport(found=found, candidates=candidates, unknown=tuple(unknown), trouble=trouble)

    def _trouble_with(self, family: str, finding: Finding | None) -> str:
        """Return why a submission of a family was not looked for, "" if it was."""
        if finding is not None:
            return finding.trouble
        if not self._can_find(FAMILIES[family]):
            return f"tasks of the {family} protocol are in no history of this host, or recover is 0"
        return ""

    async def _rows_of(self, records: Records, family: str) -> list[OpenRow]:
        """Return the submissions without a task of one family; none once the client is being closed.

        A ledger that the client has left would be opened again, and nobody would close it.
        """
        if self._closing:
            return []
        return await records.open_rows(self._origin, family)

    def close(self) -> None:
        """End the passes: what they look for can be looked for later."""
        self._closing = True
        for task in self._passes:
            task.cancel()

    async def finish(self) -> None:
        """Wait for the passes to end."""
        await asyncio.gather(*self._passes, return_exceptions=True)

    async def others(
        self, keys: Collection[str], own_rows: Callable[[], Collection[tuple[str, str] | None]]
    ) -> tuple[list[Lost], list[Lost]]:
        """Return the other submissions that are lost, and those whose tasks the history is not to tell.

        `own_rows` are those of which the process itself knows more, asked for after the records.
        """
        if self._records is None:
            return [], []
        rows = [
            (row, family)
            for family in FAMILIES.values()
            if family.trace is not None or family.listed_as
            for row in await self._records.open_rows(self._origin, family.name)
        ]

        lost: list[Lost] = []
        sending: list[Lost] = []
        own = own_rows()
        for row, family in rows:
            if row.key in keys or (row.owner, row.key) in own:
                continue
            one = lost_of_row(row, family)
            if row.sending or family.trace is None:
                sending.append(one)
            else:
                lost.append(one)
        return lost, sending


def _row_search(records: Records, family: str, row: OpenRow) -> Search:
    async def take(task_id: TaskId) -> Taken:
        return await records.give_unknown(row, task_id, HISTORY)

    return Search(row.key, row.key, family, lambda: lost_of_row(row, FAMILIES[family]), take)


def lost_of_row(row: OpenRow, family: Family[Any]) -> Lost:
    """Return a submission of the ledger as it was sent, with the host's times between which its task was made."""
    offset, margin = row.offset, KNOWN_CLOCK_MARGIN
    if offset is None:  # what it is now says nothing of then: the clock may have been set
        margin = UNKNOWN_CLOCK_MARGIN
        offset = 0.0
    until = row.until
    if until is None:
        until = row.since + _OLDEST_PATIENCE
    return Lost(row.key, _body_of(row, family), row.since + offset - margin, until + offset + margin)


def _body_of(row: OpenRow, family: Family[Any]) -> dict[str, Any]:
    """Return what a submission of the ledger was sent as."""
    try:
        body = orjson.loads(row.request.partition(" ")[2])
        if family.listed_as:
            return body_as_listed(body, family.listed_as)
        sent = body_as_sent(body)
        if row.body is not None:
            sent.update(orjson.loads(row.body))
    except (ValueError, TypeError, AttributeError):
        return {}
    return sent


def _is_good(finding: asyncio.Future[Finding]) -> bool:
    return finding.done() and not finding.cancelled() and finding.exception() is None
