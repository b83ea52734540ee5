"""One run of a batch, from the first line to the exit code.

An id is never only in memory.  With a ledger it is on disk; without one, whatever ends the run (a signal, a reader of
stdout that has gone, a full disk, an error) names the tasks in flight and the command that waits for them, and an
outcome that cannot be written is said on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
import weakref
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from attrs import define, field

from ...batch import BatchItem, BatchRunner, Outcome, Totals
from ...client import PiAPI
from ...errors import AuthenticationError, InsufficientCreditError
from ...midjourney import LEGACY
from .._exit import ExitCode
from .._options import Setup
from .._output import reason_of, say, tell, to_json
from .._saving import Saving
from .._session import client, stopping_signals
from ._check import keyed
from ._display import Display
from ._lines import BatchInput, Origin
from ._results import Results, row_of


@define
class Job:
    """One run, from the first line to the exit code; `resume` is the command that goes on with it, if there is one."""

    setup: Setup
    requests: BatchInput
    total: int
    results: Results
    resume: str | None
    saving: Saving
    _signals: int = field(default=0, init=False)
    _refused: bool = field(default=False, init=False)
    _broken: bool = field(default=False, init=False)
    _told: set[str] = field(factory=set, init=False)  # ids in flight that the person knows of
    _lines: dict[int, Origin] = field(
        factory=dict, init=False
    )  # of the requests that somebody still holds, by identity

    async def main(self, options: dict[str, Any]) -> None:
        """Run to the end, and exit with the code for the worst that happened."""
        async with client(self.setup) as piapi:
            runner = BatchRunner(piapi, **options)
            self._listen(runner)
            try:
                with Display(runner, self.results, self.total) as display:
                    async with runner.stream(self._items(piapi)) as outcomes:
                        await self._take(runner, outcomes, display)
            except BaseException:
                self._broken = True
                raise
            finally:
                self._tell(runner.totals)
        self._leave(runner.totals)

    async def _take(self, runner: BatchRunner, outcomes: AsyncIterator[Outcome[Any]], display: Display) -> None:
        """Write outcomes down as they come; whatever ends that names what is in flight."""
        try:
            async for outcome in outcomes:
                try:
                    with display.aside():
                        self.results.write(outcome, self._lines[id(outcome.request)])
                except (OSError, ValueError) as error:
                    await self._give_up_writing(runner, outcomes, outcome, error)
                display.heed(outcome)
                self._heed(runner, outcome)
        except BaseException:
            self._tell_in_flight(runner)
            raise

    async def _give_up_writing(
        self,
        runner: BatchRunner,
        outcomes: AsyncIterator[Outcome[Any]],
        outcome: Outcome[Any],
        error: OSError | ValueError,
    ) -> None:
        """Say the outcome that could not be written, and all that are there already; then end the run."""
        tell(f"Error: the outcome of {self._place_of(outcome)} could not be written ({reason_of(error)}); it is:")
        runner.drain()
        self._say_outcome(outcome)
        while (waiting := await _ready(outcomes)) is not None:
            tell(f"So is that of {self._place_of(waiting)}:")
            self._say_outcome(waiting)
        self._tell_in_flight(runner)
        self._broken = True
        sys.exit(ExitCode.OTHER)

    def _say_outcome(self, outcome: Outcome[Any]) -> None:
        tell(to_json(row_of(outcome, self._lines[id(outcome.request)])))

    def _place_of(self, outcome: Outcome[Any]) -> str:
        return f"{self.requests.found.noun} {self._lines[id(outcome.request)].number}"

    def _heed(self, runner: BatchRunner, outcome: Outcome[Any]) -> None:
        """Stop where nothing that follows can come to anything."""
        if isinstance(outcome.error, (AuthenticationError, InsufficientCreditError)) and not self._refused:
            self._refused = True
            runner.drain()
            say(f"{outcome.error} Nothing more is submitted.")

    async def _items(self, piapi: PiAPI) -> AsyncGenerator[BatchItem[Any], None]:
        async for line, item in keyed(piapi, self.requests):
            if self.results.skips(item.key):
                continue
            request = line.request
            self._lines[id(request)] = line.origin
            weakref.finalize(request, self._lines.pop, id(request)).atexit = False
            yield item
            del line, request, item

    def _listen(self, runner: BatchRunner) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            self._signals += 1
            if self._signals > 1 and task is not None:
                task.cancel()
                return
            runner.drain()
            say("Stopping: what is in flight goes on to its end. Again to stop at once.")
            self._tell_in_flight(runner)

        for kind in stopping_signals():
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                loop.add_signal_handler(kind, stop)

    def _tell_in_flight(self, runner: BatchRunner) -> None:
        """Name the tasks in flight, unless a ledger remembers them."""
        if self.setup.ledger is not None:
            return
        refs = [ref for ref in runner.in_flight if ref.task_id not in self._told]
        self._told |= {ref.task_id for ref in refs}
        if not refs:
            return
        for ref in refs:
            tell(f"Task {ref} is in flight; nothing else remembers it.")
        if self.setup.emulator:
            return  # it ends with this command, and its tasks with it
        families: dict[str, list[str]] = {}
        for ref in refs:
            families.setdefault(ref.family, []).append(ref.task_id)
        for family, ids in families.items():
            words = ["piapi-async", *self.setup.words(), "wait", *ids]
            words += [] if family == LEGACY.name else ["--family", family]
            words += self.saving.words()
            tell(f"To wait for what is in flight: {shlex.join(words)}")

    def _tell(self, totals: Totals) -> None:
        left = self.total - self.results.had - totals.ended
        say(
            f"{totals.done} done, {totals.failed} failed, {totals.unknown} unknown, {totals.resumed} resumed, "
            f"{self.results.had} in the results already, {left} left; {totals.submitted} submitted, "
            f"{totals.saved} files saved, {totals.unsaved} tasks not saved"
        )
        if self.resume and (self._broken or self._signals or left or totals.unknown or totals.unsaved):
            say(f"To go on: {self.resume}")

    def _leave(self, totals: Totals) -> None:
        """Exit with the code for the worst that happened."""
        left = totals.ended + self.results.had < self.total
        for code, happened in (
            (ExitCode.INTERRUPTED, self._signals > 0),
            (ExitCode.REFUSED, self._refused),
            (ExitCode.UNKNOWN, totals.unknown > 0),
            (ExitCode.FAILED, totals.failed + self.results.failed > 0),
            (ExitCode.UNSAVED, totals.unsaved > 0),
            (ExitCode.LEFT, left),
        ):
            if happened:
                sys.exit(code)


async def _ready(outcomes: AsyncIterator[Outcome[Any]]) -> Outcome[Any] | None:
    """Return the next outcome if it is there already; otherwise none will be asked for any more."""
    asking = asyncio.ensure_future(anext(outcomes, None))
    await asyncio.wait([asking], timeout=0)
    if not asking.done():
        asking.cancel()
        await asyncio.wait([asking])
    return None if asking.cancelled() else asking.result()
