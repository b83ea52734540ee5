"""One run of a batch, from the first line to the exit code.

An id is never only in memory.  With a ledger it is on disk; without one, whatever ends the run (a
signal, a closed pipe, a full disk, an error) prints the tasks in flight and the command that waits
for them, and an outcome that cannot be written is printed on stderr.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import click
from attrs import define, field

from ...batch import BatchItem, BatchRunner, Outcome, Totals
from ...batch._budget import LimitError
from ...batch._failures import HOPELESS
from ...client import PiAPI
from .._exit import ExitCode
from .._output import reason_of, to_json
from .._resume import wait_command
from .._running import stopping_signals
from .._saving import Saving
from .._session import client
from .._setup import Setup
from .._stderr import say, tell
from ._check import identified
from ._display import Display
from ._lines import BatchInput
from ._results import Results, row_of


@define
class Job:
    """One run; `resume` is the command that goes on with it, None if there is none."""

    setup: Setup
    requests: BatchInput
    total: int
    results: Results
    resume: str | None
    saving: Saving
    _signals: int = field(default=0, init=False)
    _refused: bool = field(default=False, init=False)
    """Whether the host has refused the key, or the account has no credit."""
    _broken: bool = field(default=False, init=False)
    """Whether an error has ended the run early."""
    _told: set[str] = field(factory=set, init=False)
    """Ids in flight that were printed."""

    async def main(self, options: dict[str, Any]) -> None:
        """Run to the end, and exit with the code for the worst that happened."""
        async with client(self.setup) as piapi:
            runner = BatchRunner(piapi, **options)
            self._install_signal_handlers(runner)
            try:
                with Display(runner, self.results, self.total) as display:
                    async with runner.stream(self._items(piapi)) as outcomes:
                        await self._take(runner, outcomes, display)
            except LimitError as error:
                self._broken = True
                raise click.ClickException(str(error).replace("max_cost", "--max-cost", 1)) from None
            except BaseException:
                self._broken = True
                raise
            finally:
                self._say_totals(runner.totals)
        self._exit(runner.totals)

    async def _take(
        self, runner: BatchRunner, outcomes: AsyncIterator[Outcome[Any]], display: Display
    ) -> None:
        """Write outcomes as they come; whatever ends that prints what is in flight."""
        try:
            async for outcome in outcomes:
                try:
                    with display.aside():
                        self.results.write(outcome, outcome.extra)
                except (OSError, ValueError) as error:
                    await self._give_up_writing(runner, outcomes, outcome, error)
                display.say_serious(outcome)
                self._note_refusal(outcome)
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
        """Print the outcome that could not be written, and those that are ready; then end the run."""
        place = self._place_of(outcome)
        tell(f"Error: the outcome of {place} could not be written ({reason_of(error)}); it is:")
        runner.drain()
        self._tell_outcome(outcome)

        waiting = await _ready(outcomes)
        while waiting is not None:
            tell(f"The outcome of {self._place_of(waiting)}:")
            self._tell_outcome(waiting)
            waiting = await _ready(outcomes)

        self._tell_in_flight(runner)
        self._broken = True
        sys.exit(ExitCode.OTHER)

    def _tell_outcome(self, outcome: Outcome[Any]) -> None:
        tell(to_json(row_of(outcome, outcome.extra)))

    def _place_of(self, outcome: Outcome[Any]) -> str:
        return f"{self.requests.found.noun} {outcome.extra.number}"

    def _note_refusal(self, outcome: Outcome[Any]) -> None:
        """Note that every further submission would be refused."""
        if isinstance(outcome.error, HOPELESS):
            self._refused = True  # the runner drains by itself, and logs it

    async def _items(self, piapi: PiAPI) -> AsyncGenerator[BatchItem[Any], None]:
        async for item in identified(piapi, self.requests):
            if not self.results.skips(item.key):
                yield item
            del item  # while the next is waited for, which may take long

    def _install_signal_handlers(self, runner: BatchRunner) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop() -> None:
            self._signals += 1
            if self._signals > 1 and task is not None:
                task.cancel()
                return
            runner.drain()
            say("Stopping: tasks in flight are finished first. Again to stop at once.")
            self._tell_in_flight(runner)

        for kind in stopping_signals():
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                loop.add_signal_handler(kind, stop)

    def _tell_in_flight(self, runner: BatchRunner) -> None:
        """Print the tasks in flight, unless a ledger remembers them."""
        if self.setup.ledger is not None:
            return
        refs = [ref for ref in runner.in_flight if ref.task_id not in self._told]
        self._told |= {ref.task_id for ref in refs}
        for ref in refs:
            tell(f"Task {ref} is in flight; nothing else remembers it.")
        if self.setup.emulator:
            return  # it ends with this command, and its tasks with it

        families: dict[str, list[str]] = {}
        for ref in refs:
            families.setdefault(ref.family, []).append(ref.task_id)
        for family, ids in families.items():
            tell(f"To wait for them: {wait_command(self.setup, ids, family, self.saving)}")

    def _say_totals(self, totals: Totals) -> None:
        left = self.total - self.results.skipped - totals.ended
        say(
            f"{totals.done} done, {totals.failed} failed, {totals.unknown} unknown, "
            f"{totals.resumed} resumed, {self.results.skipped} in the results already, {left} left; "
            f"{totals.submitted} submitted{_retried(totals)}, {totals.saved} files saved, "
            f"{totals.unsaved} tasks not saved{_spent(totals)}"
        )

        unfinished = left or totals.unknown or totals.unsaved
        if self.resume and (self._broken or self._signals or unfinished):
            say(f"To go on: {self.resume}")
        elif self.resume and totals.failed + self.results.failed:
            command = self.resume
            if " --retry-failed" not in command:
                command += " --retry-failed"
            say(f"To submit anew what failed: {command}")

    def _exit(self, totals: Totals) -> None:
        """Exit with the code for the worst that happened."""
        left = totals.ended + self.results.skipped < self.total
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


def _retried(totals: Totals) -> str:
    if not totals.retried:
        return ""
    return f" ({totals.retried} of them anew)"


def _spent(totals: Totals) -> str:
    """Return what a run has cost, and what is frozen, as the end of a sentence."""
    text = ""
    for costs, what in ((totals.costs, "cost"), (totals.frozen_costs, "frozen")):
        if costs:
            text += f"; {what} {' + '.join(map(str, costs))}"
    return text


async def _ready(outcomes: AsyncIterator[Outcome[Any]]) -> Outcome[Any] | None:
    """Return the next outcome if it is ready; otherwise no further one can be asked for."""
    asking = asyncio.ensure_future(anext(outcomes, None))
    await asyncio.wait([asking], timeout=0)
    if not asking.done():
        asking.cancel()
        await asyncio.wait([asking])
    if asking.cancelled():
        return None
    return asking.result()
