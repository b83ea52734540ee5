"""Items whose submission is *unknown*, held back until the last look of their run.

The ledger has them, and the host's history may show their tasks later than a submission is looked
for.  So a run looks once more at its end, for all of them in one pass, and only then says what has
become of them: those that were found are followed as any other task.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from attrs import define, field, frozen

from .._runtime import Runtime
from .._wait.watch import Watch
from ..errors import PiAPIError, SubmissionUnknown
from ..handle import TaskHandle
from ..tasks import Cost
from ._in_flight import InFlight
from ._outcome import BatchItem, Outcome

_MOST_HELD = 1_000  # of one run; more are told at once, and are looked for all the same


@frozen
class Held:
    """An item whose submission is *unknown*.

    `kept` is what the budget counts for it; `retried` tells that it was another attempt.
    """

    index: int
    item: BatchItem[Any]
    key: str
    error: SubmissionUnknown
    kept: Cost | None
    retried: bool = False

    def outcome(self) -> Outcome[Any]:
        """Return the outcome of an item that was not found."""
        item = self.item
        return Outcome(
            index=self.index, request=item.request, key=self.key, error=self.error, extra=item.extra
        )


@define(eq=False)
class HeldItems:
    """The items of one run that are held; `began_at` is the Unix time at which the run began."""

    _runtime: Runtime
    _began_at: float
    _by_index: dict[int, Held] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._by_index)

    def take(self, item: Held) -> bool:
        """Hold an item; return False if looking once more is of no use, or too many are held."""
        can_find = False
        with contextlib.suppress(Exception):  # a request may be of anybody's class
            can_find = self._runtime.submitter.finder.can_find(item.item.request.family)
        if self._runtime.ledger is None or not can_find or len(self._by_index) >= _MOST_HELD:
            return False
        self._by_index[item.index] = item
        return True

    def release(self, item: Held) -> None:
        """Hold an item no more."""
        del self._by_index[item.index]

    def all(self) -> list[Held]:
        """Return what is held."""
        return list(self._by_index.values())

    async def find(self, item: Held) -> tuple[Watch, InFlight[Any]] | None:
        """Return an item whose task the ledger has by now, and its watch; None while it is *unknown*."""
        try:
            return await self._find(item)
        except Exception:  # noqa: BLE001 - of the ledger or a user's request; the item is unknown still
            return None

    async def _find(self, item: Held) -> tuple[Watch, InFlight[Any]] | None:
        entry = await self._runtime.recorded(item.key)
        if entry is None or entry.task_id is None:
            return None

        request = item.item.request
        watch = self._runtime.watch(request.family, entry.task_id, kind=getattr(request, "kind", None))
        handle: TaskHandle[Any] = TaskHandle(self._runtime, watch)
        found = entry.found
        if item.error.at >= self._began_at:  # this run has submitted it
            entry = None
        return watch, InFlight(item.index, item.item, item.key, handle, entry, item.retried, found)


async def look_for_unknown(runtime: Runtime) -> None:
    """Look once for what the ledger has as *unknown*: all of it in one pass, and not item by item."""
    try:
        runtime.enter()
        findings = await runtime.submitter.finder.look_again()
    except (PiAPIError, RuntimeError) as error:  # which the items hear of as well
        runtime.events.notice(
            logging.INFO, f"the unknown submissions of the ledger could not be looked for: {error}"
        )
        return

    found = sum(finding.task_id is not None for finding in findings.values())
    if found:
        text = f"{found} submissions that were unknown have been found, and the ledger has their tasks"
        runtime.events.notice(logging.INFO, text)
