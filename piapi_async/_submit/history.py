"""Reads the host's history: its rows of some times, and each task among them that nobody has, once."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import define, evolve, field, frozen

from .._calls.groups import in_parallel
from .._calls.sender import Sender
from .._calls.throttle import now
from .._families import FAMILIES
from ..account import GetHistory, HistoryEntry
from ..errors import APIError, AuthenticationError, ClientClosed, NotFoundError, PiAPIError
from ..tasks import TaskId, TaskState, check_task_id
from .nonces import echoed_nonce
from .recovery import Found, Lost

MOST_READ = 10_000
"""Tasks that are remembered, so that each is read once."""

_LONGEST_GAP = 8.0  # seconds between two looks, however many pages the first has read
_MOST_PAGES = 100  # of one look; where there are more rows, nothing can be told
_READS_AT_ONCE = 8
_RANGE_GAP = 60.0  # seconds between windows that are read as one
_NO_HISTORY_FOR = 600.0  # seconds for which a host without a history is not asked again
_FAILED = frozenset({TaskState.FAILED, TaskState.CANCELLED})
_NO_SUCH_CALL = frozenset({404, 405, 501})


class NoHistoryError(Exception):
    """The host has no history, or does not show it to this key."""


@frozen(eq=False, repr=False)
class Row:
    """A row of the history that may be a lost submission's."""

    task_id: TaskId
    created_at: float | None
    api_key_id: str


@define(eq=False, repr=False)
class History:
    """The host's history, and what was read of it.

    `names_key` tells whether a task shows by its row the id of the client's own API key: that the
    client was told of it by a response; `is_known` whether a submission of any client here has it.
    """

    _sender: Sender
    _names_key: Callable[[TaskId], bool]
    _is_known: Callable[[TaskId], bool]
    not_before: float = field(default=-math.inf, init=False)
    """When the next look may begin: a second later for each page of the last one."""
    _none_until: float = field(default=-math.inf, init=False)
    _read: OrderedDict[str, Found | None] = field(factory=OrderedDict, init=False)
    _own_key_ids: set[str] = field(factory=set, init=False)
    _closing: bool = field(default=False, init=False)

    @property
    def exists(self) -> bool:
        """Whether the host may have a history, as far as is known."""
        return now() >= self._none_until

    def note_none(self) -> None:
        """Ask no more for ten minutes."""
        self._none_until = now() + _NO_HISTORY_FOR

    def close(self) -> None:
        """Read on only as a client that is being closed may."""
        self._closing = True

    @property
    def own_key_id(self) -> str:
        """The id of the client's own key, as its answered tasks show it; "" if that is not known."""
        if len(self._own_key_ids) == 1:
            return next(iter(self._own_key_ids))
        return ""

    @property
    def shows_inputs(self) -> bool:
        """Whether any task that was read shows its input."""
        return any(task is not None and task.trace.input for task in self._read.values())

    # -- rows ---------------------------------------------------------------------------------------

    async def learn_clock(self) -> None:
        """Make the host's time known, if it is not: the windows are in it."""
        if self._sender.clock.at(now()) is None:
            await self._page(GetHistory(page_size=1))

    async def rows(self, wanted: Sequence[Lost]) -> dict[str, Row]:
        """Return the rows that may be wanted submissions', by task id."""
        rows: dict[str, Row] = {}
        pages = 0
        for since, until in _ranges(wanted):
            pages += await self._read_range(since, until, wanted, rows, _MOST_PAGES - pages)
        self.not_before = now() + min(pages, _LONGEST_GAP) / self._sender.clock.speed
        return rows

    async def _read_range(
        self, since: float, until: float, wanted: Sequence[Lost], rows: dict[str, Row], most: int
    ) -> int:
        """Read all pages of a range of the host's time; return their number."""
        request = GetHistory(since=_moment(since), until=_moment(until))
        known: frozenset[str] = frozenset()
        seen: set[str] = set()
        for number in range(1, most + 1):
            page = await self._page(request)
            for entry in page.entries:
                self._note_row(entry, wanted, rows)

            marks = frozenset(entry.id or entry.task_id for entry in page.entries)
            times = [entry.created_at.timestamp() for entry in page.entries if entry.created_at is not None]
            is_past = bool(times) and max(times) < since  # of a host that does not know the bounds
            seen |= marks
            is_last = page.total is not None and len(seen) >= page.total  # a page may hold less than its size
            if is_last or is_past or marks <= known:
                return number
            request, known = evolve(request, page=request.page + 1), marks
        raise PiAPIError(f"the history has more than {_MOST_PAGES} pages of that time")

    async def _page(self, request: GetHistory) -> Any:  # noqa: ANN401 - a page
        try:
            return await self._attempt(request)
        except AuthenticationError as error:
            if error.message:  # the host's own words
                raise NoHistoryError(str(error)) from error
            raise
        except APIError as error:
            if error.status in _NO_SUCH_CALL:
                raise NoHistoryError(str(error)) from error
            raise

    def _note_row(self, entry: HistoryEntry, wanted: Sequence[Lost], rows: dict[str, Row]) -> None:
        try:
            task_id = check_task_id(entry.task_id)
        except ValueError:  # one row that names no task must not hide all others
            return
        if entry.api_key_id and self._names_key(task_id):
            self._own_key_ids.add(entry.api_key_id)

        created_at = None if entry.created_at is None else entry.created_at.timestamp()
        for one in wanted:
            fits_time = created_at is None or one.may_be_created_in((created_at, created_at))
            if fits_time and (not entry.model or entry.model == one.model):
                rows.setdefault(task_id, Row(task_id, created_at, entry.api_key_id))
                return

    # -- tasks --------------------------------------------------------------------------------------

    def is_to_read(self, row: Row) -> bool:
        """Return whether a task must be read to know more of it."""
        if row.task_id in self._read or self._is_known(row.task_id):
            return False
        return not (self.own_key_id and row.api_key_id and row.api_key_id != self.own_key_id)

    async def read(self, ids: Sequence[TaskId], among: Collection[Row]) -> bool:
        """Read tasks, some at a time; return whether all that could be known of these rows is known."""
        results = await in_parallel(self._read_task, ids, _READS_AT_ONCE)
        for row in among:
            if row.task_id in self._read:
                self._read.move_to_end(row.task_id)
        while len(self._read) > max(MOST_READ, len(among)):
            self._read.popitem(last=False)  # of an earlier look: what was read for this one is compared now
        return all(results)

    def task_of(self, row: Row) -> Found | None:
        """Return the task of a row, None if it was not read or does not exist."""
        task = self._read.get(row.task_id)
        if task is None:
            return None
        return evolve(task, listed_at=row.created_at, api_key_id=row.api_key_id)

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
                nonce = echoed_nonce(task.raw)
                self._read[task_id] = Found(task_id, trace, None, nonce, has_failed=task.state in _FAILED)
        return True

    async def _attempt(self, request: Any) -> Any:  # noqa: ANN401 - a request, and what it means
        if self._closing:
            return await self._sender.last_read(request)
        try:
            return await self._sender.attempt(request)
        except ClientClosed:
            return await self._sender.last_read(request)


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
