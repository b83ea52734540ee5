"""One run of a batch: its workers, and what an item goes through.

Theory of operation
-------------------
Workers run in an anyio task group, bounded by a semaphore of `concurrency` slots.  A worker acquires
a slot, takes the next item from the one input, submits it, waits for its task, saves its files and
offers the outcome; it releases the slot once the reader has taken that.  So a slow reader slows down
the submissions, and never more is in memory than what is in flight.  Workers live as long as the
run: a task per slot costs less than a task per item.

The group has an asyncio task of its own, in which its cancel scope is entered and left.  The
reader's task would not do: a stream may be left by another task than the one that entered it, and
amid scopes of the reader's own.

What happens to one item is in its outcome and ends no worker.  An exception of the input is kept for
the reader, who gets it as it is after the outcomes of what was in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import anyio
from attrs import define, evolve, field, frozen

from .._client.earlier import read_ended
from .._protocol.family import TaskRequest
from .._runtime import Runtime
from .._submit.submission import SubmitResult, Terms
from .._wait.watch import Watch
from ..downloads._options import DownloadOptions
from ..downloads._target import Target
from ..errors import (
    LedgerError,
    PiAPIError,
    SubmissionUnknown,
)
from ..handle import TaskHandle
from ..ledger._entries import EndedAttempt, SubmissionKey
from ..tasks import TaskState
from ._allowance import Allowance
from ._budget import Budget, LimitError
from ._failures import HOPELESS, as_failure, ends_worker, require_task
from ._held import Held, HeldItems, look_for_unknown
from ._identity import identify
from ._in_flight import InFlight, log_left
from ._outcome import BatchItem, IdentifiedItem, Outcome, Tally, Totals
from ._pace import Pace, Slots
from ._queues import ItemSource, OutcomeQueue
from ._save import Saving

R = TypeVar("R")


_LOOKED_FOR = Terms(looks_again=False)
"""What the ledger has as *unknown* was looked for when the run began, and is at its end."""

Item = TaskRequest[R] | BatchItem[R]
Items = Iterable[Item[R]] | AsyncIterable[Item[R]]


@frozen(kw_only=True)
class Settings:
    """What a `BatchRunner` was given, checked."""

    concurrency: int
    auto: bool
    timeout: float | None
    target: Target | None
    options: DownloadOptions
    retry_failed: bool
    max_submits: int | None
    max_cost: float | None
    on_progress: Callable[[Totals], None] | None


@define(eq=False)
class BatchRun:
    """One stream of a runner, from its entry to its exit; afterwards what is left of it."""

    settings: Settings
    runtime: Runtime
    source: ItemSource[Item[Any]]
    is_over: bool = field(default=False, init=False)
    is_draining: bool = field(default=False, init=False)
    in_flight: dict[int, InFlight[Any]] = field(factory=dict, init=False)  # by the item's index
    left: list[Outcome[Any]] = field(factory=list, init=False)  # what the stream was left with
    _queue: OutcomeQueue[Outcome[Any]] = field(factory=OutcomeQueue, init=False)
    _slots: anyio.Semaphore | Slots = field(init=False)
    _pace: Pace | None = field(default=None, init=False)
    _send: Callable[..., Awaitable[tuple[Watch, SubmitResult]]] = field(init=False)  # as `Runtime.submit`
    _workers: asyncio.Task[None] = field(init=False)  # the task of their group
    _tally: Tally = field(factory=Tally, init=False)
    _budget: Budget = field(init=False)
    _allowance: Allowance = field(init=False)
    _id: str = field(factory=partial(secrets.token_hex, 8), init=False)  # for occurrence numbers
    _saving: Saving | None = field(default=None, init=False)
    _held: HeldItems = field(init=False)
    _began: float = field(factory=anyio.current_time, init=False)
    _seconds: float = field(default=0.0, init=False)  # that it took
    _progress_failed: bool = field(default=False, init=False)  # `on_progress` has raised, and that was logged

    def __attrs_post_init__(self) -> None:
        submits = math.inf if self.settings.max_submits is None else self.settings.max_submits
        self._budget = Budget(self.settings.max_cost)
        self._allowance = Allowance(self._budget, submits, self.runtime)
        self._slots = anyio.Semaphore(self.settings.concurrency, fast_acquire=True)
        self._send = self.runtime.submit
        if self.settings.auto:
            self._pace = Pace(self.runtime, self.settings.concurrency)
            self._slots = self._pace.slots
            self._send = self._pace.submit
        self._held = HeldItems(self.runtime, time.time())
        if self.settings.target is not None:
            self._saving = Saving(self.runtime, self.settings.target, self.settings.options)
        self._workers = asyncio.create_task(self._run_workers(), name="piapi_async batch")

    # -- for the runner ---------------------------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """The counts of the run."""
        tasks = [item.handle.task for item in self.in_flight.values()]
        running = sum(task is not None and task.state is TaskState.RUNNING for task in tasks)
        seconds = self._seconds
        if not self.is_over:
            seconds = anyio.current_time() - self._began
        return self._tally.totals(
            in_flight=len(tasks) + len(self._held),
            running=running,
            seconds=seconds,
            budget=self._budget,
        )

    def outcomes(self) -> AsyncGenerator[Outcome[Any], None]:
        """Yield the outcomes as they come, then raise what the input raised."""
        return self._queue.outcomes()

    def drain(self) -> None:
        """Take no more items, and submit nothing more."""
        self.is_draining = True
        self.source.close()
        self._budget.close()
        if self._pace is not None:
            self._pace.drain()

    async def stop(self, outcomes: AsyncGenerator[Outcome[Any], None]) -> None:
        """Take no more items, stop the workers, and wait for what has begun to leave."""
        self.drain()
        try:
            # An anyio scope that is cancelled would cancel each of these awaits again, and not wait
            # for an id.
            with anyio.CancelScope(shield=True):
                await self._stop_workers()
                await self.runtime.submitter.wait_for_abandoned()
                await self.source.closed(self.runtime.sender.timeout, self.runtime.events)
                with contextlib.suppress(RuntimeError):  # it is being read, and tells that it is over
                    await outcomes.aclose()
        finally:
            self._seconds = anyio.current_time() - self._began
            self.is_over = True
            self.left = [
                *(item.leave() for item in self.in_flight.values()),
                *self._queue.untaken(),
                *(item.outcome() for item in self._held.all()),
            ]
            self.in_flight.clear()
            log_left(self.runtime.events, self.left, recorded=self.runtime.ledger is not None)
            if self._saving is not None:
                await self._saving.close()

    # -- workers ----------------------------------------------------------------------------------

    async def _run_workers(self) -> None:
        try:
            await look_for_unknown(self.runtime)
            async with anyio.create_task_group() as group:
                for _ in range(self.settings.concurrency):
                    group.start_soon(self._work, name="piapi_async batch worker")
            if self._held or self._tally.unknown:
                await look_for_unknown(self.runtime)
            async with anyio.create_task_group() as group:
                for item in self._held.all():
                    group.start_soon(self._settle, item, name="piapi_async batch held item")
        except BaseExceptionGroup as errors:
            # What ends a program, which has gone through the event loop by now; if that goes on, so
            # does the reader.
            self._queue.error = errors.exceptions[0]
        finally:
            if self._pace is not None:
                self._pace.end()
            self._queue.close()

    async def _stop_workers(self) -> None:
        self._workers.cancel()
        await asyncio.wait([self._workers])
        self._queue.close()  # if they were stopped before they began

    async def _work(self) -> None:
        """See items through to their outcomes, one after the other, each holding a slot."""
        try:
            while True:
                if not self._took_slot():
                    await self._slots.acquire()
                try:
                    entry = await self.source.next()
                    if entry is None:
                        return

                    if self._pace is not None:
                        await self._pace.begin()
                    outcome = await self._submit(*entry)
                    del entry  # its identity may be large, and the wait does not need it
                    await self._see_through(outcome)
                    del outcome  # an idle worker keeps nothing of it
                finally:
                    self._slots.release()
        except Exception as error:  # noqa: BLE001 - the input's, which belongs to the reader of the outcomes
            self.source.close()
            if self._queue.error is None:
                self._queue.error = error

    def _took_slot(self) -> bool:
        """Return whether a slot was free, and is taken: nearly always; waiting for one costs seven times more."""
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def _settle(self, item: Held) -> None:
        """See an item that was held back through to its outcome."""
        if not self._took_slot():
            await self._slots.acquire()
        try:
            found = await self._held.find(item)
            self._held.release(item)
            if found is None:
                await self._queue.offer(self._conclude(item.outcome()))
                return

            watch, in_flight = found
            self._budget.revive(item.index, item.kept)
            if item.retried:
                self._tally.resumed -= 1
                self._tally.retried += in_flight.entry is None
            self._note_submitted(in_flight, watch)
            await self._see_through(in_flight)
        finally:
            self._slots.release()

    # -- one item ---------------------------------------------------------------------------------

    async def _see_through(self, outcome: InFlight[Any] | Outcome[Any] | None) -> None:
        """Follow an item whose task exists, and any new attempt, to the end, and hand over its outcome."""
        while isinstance(outcome, InFlight):
            item = outcome
            outcome = await self._finish(item)
            del self.in_flight[item.index]  # not if this is cancelled: `stop` tells what is in flight then
            if self._pace is not None:
                self._pace.ended(item.index)
            if item.entry is None:
                self._account_for(item, outcome)

            failed = item.failed_attempt(outcome)
            if failed is not None and self.settings.retry_failed and not self.is_draining:
                outcome = await self._retry(item, outcome, failed)
            else:
                self._conclude(outcome)

        if outcome is not None:
            await self._queue.offer(outcome)

    async def _submit(self, index: int, item: Item[R]) -> InFlight[R] | Outcome[R] | None:
        """Submit an item; return its outcome instead if that fails, None if it is left alone."""
        self._tally.read += 1
        if not isinstance(item, BatchItem):
            item = BatchItem(item)
        request, key = item.request, item.key or ""
        try:
            require_task(index, request)
            identity = None
            if self.runtime.ledger is not None:
                identity = await self._identify(item)
            if identity is not None:
                key = identity.key
            if self._allowance.is_limited and not await self._allowance.covers(index, request, identity):
                await self._skip()
                return None

            watch, result = await self._send(request, identity=identity, terms=_LOOKED_FOR)
        except LimitError:
            self._tally.skipped += 1
            self.drain()
            raise
        except BaseException as error:
            if ends_worker(error):
                raise
            return self._not_submitted(index, item, key, error)

        # From here on a task is paid for: no foreign code may end this before its outcome is
        # offered.
        handle: TaskHandle[R] = TaskHandle(self.runtime, watch, result.frozen)
        in_flight = InFlight(index, item, key, handle, result.ledger_entry, found=result.found)
        self._note_submitted(in_flight, watch)
        return in_flight

    async def _identify(self, item: BatchItem[Any]) -> SubmissionKey | None:
        if isinstance(item, IdentifiedItem) and item.identity is not None:
            return item.identity
        [identity] = await identify(self.runtime, [item], self._id)
        return identity

    async def _skip(self) -> None:
        """Leave an item alone."""
        self._tally.skipped += 1
        if self.runtime.ledger is None:  # no item that follows can do without a submission
            self.source.close()
        await asyncio.sleep(0)  # so that an endless input does not keep the loop to itself

    def _not_submitted(
        self,
        index: int,
        item: BatchItem[R],
        key: str,
        error: BaseException,
        *,
        retried: bool = False,
    ) -> Outcome[R] | None:
        """Return the outcome of an item without a task, None if it is held back until the last look."""
        ref = None
        if isinstance(error, LedgerError) and error.ref is not None:  # a task that could not be recorded
            ref = error.ref
            self._tally.submitted += 1

        if isinstance(error, SubmissionUnknown):
            kept = self._budget.keep(index)
            if self._held.take(Held(index, item, key, error, kept, retried)):
                self._report()
                return None
        elif ref is not None:
            self._budget.keep(index)
        else:
            self._budget.release(index)

        failure = as_failure(error)
        outcome = Outcome(
            index=index, request=item.request, key=key, error=failure, ref=ref, extra=item.extra
        )
        return self._conclude(outcome)

    def _note_submitted(self, item: InFlight[Any], watch: Watch) -> None:
        self.in_flight[item.index] = item
        if self._pace is not None:
            self._pace.accepted(item.index, watch, is_new=item.entry is None)
        if item.entry is None:
            self._tally.submitted += 1
            self._budget.freeze(item.index, item.handle.frozen)
        else:
            self._tally.resumed += 1
            self._budget.release(item.index)
        self._report()

    def _account_for(self, item: InFlight[Any], outcome: Outcome[Any]) -> None:
        """Note what the task of an item that this run has submitted has cost."""
        task = outcome.task
        if task is not None and task.state.terminal:
            self._budget.consume(item.index, task.cost, is_done=task.ok)
        else:
            self._budget.keep(item.index)

    async def _retry(
        self,
        item: InFlight[R],
        outcome: Outcome[R],
        failed: EndedAttempt,
    ) -> InFlight[R] | Outcome[R] | None:
        """Submit an item anew, in place of an attempt that failed; return its outcome if it may not be."""
        index, request, key = item.index, item.request, item.key
        try:
            identity = await self._identify(BatchItem(request, key))
            if not await self._allowance.take(index, request):
                return self._conclude(outcome)
            terms = Terms(replaces=failed, looks_again=False)
            watch, result = await self._send(request, identity=identity, terms=terms)
        except LimitError:
            self.drain()
            return self._conclude(outcome)
        except BaseException as error:
            if ends_worker(error):
                raise
            return self._not_submitted(index, item.item, key, error, retried=True)

        handle: TaskHandle[R] = TaskHandle(self.runtime, watch, result.frozen)
        attempt = evolve(item, handle=handle, entry=result.ledger_entry, retried=True, found=result.found)
        self._tally.resumed -= 1
        self._tally.retried += attempt.entry is None
        self._note_submitted(attempt, watch)
        return attempt

    async def _finish(self, item: InFlight[R]) -> Outcome[R]:
        """Wait for an item's task, save its files, and return its outcome."""
        try:
            if item.entry is not None and item.had_ended:
                task = await read_ended(item.handle, item.entry, item.request.family, self.settings.timeout)
            else:
                task = await item.handle.wait(self.settings.timeout)

            if self._saving is None:
                outcome = item.outcome(task=task)
            else:
                outcome = await self._saving.save(item, task)
        except BaseException as error:  # also of a request class or a file system, say
            if ends_worker(error):
                raise
            last = item.handle.task
            if last is None and isinstance(error, PiAPIError):
                last = getattr(error, "task", None)
            outcome = item.outcome(error=as_failure(error), task=last)

        # A reader who writes the outcome down may rely on the end being recorded.
        if self.runtime.ledger is not None:
            await self.runtime.ledger.flush()
        return outcome

    # -- counting ---------------------------------------------------------------------------------

    def _conclude(self, outcome: Outcome[R]) -> Outcome[R]:
        """Count and return an outcome; submit nothing more after one that all others would have."""
        self._tally.add(outcome)
        if isinstance(outcome.error, HOPELESS) and not self.is_draining:
            self.runtime.events.notice(logging.WARNING, f"{outcome.error} Nothing more is submitted.")
            self.drain()
        self._report()
        return outcome

    def _report(self) -> None:
        if self.settings.on_progress is None:
            return
        try:
            self.settings.on_progress(self.totals)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a callback's own
            if not self._progress_failed:
                self._progress_failed = True
                text = "on_progress raised; the batch goes on, and says so only once"
                self.runtime.events.notice(logging.ERROR, text, exception=error)
