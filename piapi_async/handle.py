"""`TaskHandle`: one task of one client, to look at, wait for, cancel."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
from collections.abc import AsyncGenerator, Iterable
from typing import Generic, Literal, TypeVar, get_args

import anyio
from attrs import define

from ._runtime import Runtime
from ._wait.schedule import differs
from ._wait.watch import Wait, Watch
from .errors import ClientClosed, NotFoundError, PiAPIError, WaitTimeout, end_error
from .tasks import Cost, Task, TaskRef, found_at

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnCancel = Literal["leave", "cancel_remote"]
_ON_CANCEL = get_args(OnCancel)

_CANCEL_REMOTE_SECONDS = 5.0


@define(eq=False, repr=False)
class TaskHandle(Generic[R_co]):
    """One task of one client: look at it, wait for it, cancel it.

    Handles of the same task are equal, and share the looks at it while they wait.
    """

    _runtime: Runtime
    _watch: Watch
    _frozen: Cost | None = None

    @property
    def task_id(self) -> str:
        """The id, as the host gave it."""
        return self._watch.task_id

    @property
    def ref(self) -> TaskRef:
        """What another process needs to `attach` to the task."""
        return TaskRef(self._runtime.origin, self._watch.family.name, self._watch.task_id)

    @property
    def frozen(self) -> Cost | None:
        """What the task is expected to cost, as the host said when it took the submission; None where it did not tell.

        The host has set it aside, or taken it already.  It is not kept: a handle of `attach`, or of a key that was
        submitted before, has none.  What the task did cost is `Task.cost`, once it has ended.
        """
        return self._frozen

    @property
    def task(self) -> Task[R_co] | None:
        """The task as it was last seen, or None; asks nobody."""
        task: Task[R_co] | None = self._watch.task
        if task is not None and task.ref is None:
            found_at(task, self.ref)
        return task

    @property
    def error(self) -> PiAPIError | None:
        """Why there is no result: how the task ended, or what ended the last wait.  None while all is well."""
        task = self.task
        if task is None or not task.state.terminal:
            return None if self._watch.error is None else self._own(self._watch.error)
        return end_error(task)

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id}: {self.task.status if self.task else 'not seen yet'}>"

    def __eq__(self, other: object) -> bool:
        return self.ref == other.ref if isinstance(other, TaskHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ref)

    async def wait(self, timeout: float | None = None, *, on_cancel: OnCancel = "leave") -> Task[R_co]:
        """Give the finished task, waiting up to `timeout` seconds (None: for ever; 0: one look).

        Raises `TaskFailed`, `TaskCancelled`, `WaitTimeout` (the task goes on), `AuthenticationError` (the host refuses
        the key, or an edge does for a minute), `NotFoundError` (after a short grace), `ClientClosed`.  Passing faults
        of the network, the host and edges before it do not end it.  With `on_cancel` "cancel_remote" a cancelled
        caller has the task cancelled at the host too, if it has not started.
        """
        if on_cancel not in _ON_CANCEL:
            raise ValueError(f"on_cancel: {on_cancel!r} is not allowed; use one of {_ON_CANCEL}")
        waiter = None if self._watch.ended else self._join(timeout)
        if waiter is not None:
            try:
                await waiter.woken
            except asyncio.CancelledError:
                self._leave(waiter)
                if on_cancel == "cancel_remote":
                    await self._cancel_remote()
                raise
        outcome = self._outcome(waiter, timeout)
        if isinstance(outcome, PiAPIError):
            raise outcome
        return outcome

    async def refresh(self) -> Task[R_co]:
        """Read the task now and give it, whatever its state.  Raises as `PiAPI.fetch`."""
        task = await self._runtime.fetch(self._watch.family, self._watch.task_id)
        self._runtime.poller.seen(self._watch, task)
        return task

    async def updates(self, timeout: float | None = None) -> AsyncGenerator[Task[R_co], None]:
        """Give the task each time its status, progress or images have changed; the terminal one is the last.

        A slow consumer misses what has been overtaken, never the newest.  Raises as `wait`, but gives a task that
        failed or was cancelled like any other.
        """
        shown: Task[R_co] | None = None
        waiter = None if self._watch.ended else self._join(timeout, changes=True)
        watch = self._watch
        try:
            while True:
                if (task := self.task) is not None and differs(shown, task):
                    shown = task
                    yield task
                elif waiter is None or waiter not in watch.waiters:  # ended, or the time is up
                    break
                else:
                    await waiter.woken
                    waiter.woken = asyncio.get_running_loop().create_future()
        finally:
            if waiter is not None:
                self._runtime.poller.leave(watch, waiter)
        if not watch.ended and isinstance(outcome := self._outcome(waiter, timeout), PiAPIError):
            raise outcome

    async def cancel(self) -> None:
        """Ask the host to cancel the task; only one that has not started can be, so `wait` tells the outcome."""
        await self._runtime.cancel(self._watch.family, [self._watch.task_id])

    async def _cancel_remote(self) -> None:
        """Try to cancel the task for a caller who is being cancelled itself: not for long, and without complaint."""
        with anyio.move_on_after(_CANCEL_REMOTE_SECONDS, shield=True), contextlib.suppress(PiAPIError):
            await self.cancel()

    def _join(self, timeout: float | None, *, changes: bool = False) -> Wait:
        if timeout is not None and (not isinstance(timeout, (int, float)) or math.isnan(timeout)):
            raise ValueError(f"timeout: {timeout!r} is not allowed; use seconds, or None to wait for ever")
        try:
            self._runtime.enter()
        except ClientClosed as error:
            raise self._own(error) from None
        webhooks = self._runtime.submitter.webhooks
        if webhooks is not None and webhooks.came_early(self._watch.task_id):
            self._watch.due, self._watch.told_at = -math.inf, asyncio.get_running_loop().time()
        self._watch, waiter = self._runtime.poller.join(self._watch, timeout, changes=changes)
        return waiter

    def _leave(self, waiter: Wait) -> None:
        self._runtime.poller.leave(self._watch, waiter)

    def _own(self, error: PiAPIError) -> PiAPIError:
        """Give what ended a wait as this wait's own, by the name of its task: several waits may share an error."""
        own = copy.copy(error)
        own.__cause__ = error.__cause__
        what = "is not to be found, so" if isinstance(error, NotFoundError) else "goes on, but"
        own.args = (f"Task {self.task_id} {what} this wait for it is over, at no cost: {error}",)
        return own

    def _outcome(self, waiter: Wait | None, timeout: float | None) -> Task[R_co] | PiAPIError:
        """Give what a wait that is over came to."""
        task = self.task
        if task is not None and task.state.terminal:
            return self.error or task
        if waiter is not None and waiter.error is not None:
            return self._own(waiter.error)
        if task is None:
            seen = "nothing was seen of it"
        else:
            seen = f"it was last seen {task.status}" + (f" at {task.progress} %" if task.progress is not None else "")
        trouble = self._watch.trouble
        fault = None if trouble is None else trouble.fault
        seen += f" (the last look failed: {str(fault).rstrip('.')})" if fault is not None else ""
        late = WaitTimeout(
            f"Stopped waiting for task {self.task_id} after {timeout:g} s; {seen}. If it was accepted it goes on and "
            f"stays paid for: wait again, or later piapi.attach({self.task_id!r}).wait().",
            ref=self.ref,
            task=task,
        )
        late.__cause__ = fault
        return late


# -- several handles, which may be of several clients -----------------------------------------------------------


async def as_completed(
    handles: Iterable[TaskHandle[R]], timeout: float | None = None
) -> AsyncGenerator[TaskHandle[R], None]:
    """Give the handles as they end, each by its `task` or its `error`.

    After `timeout` seconds raises `WaitTimeout`, whose `refs` are the tasks that have not ended.
    """
    ended: asyncio.Queue[tuple[TaskHandle[R], Wait | None]] = asyncio.Queue()
    waiting: list[tuple[TaskHandle[R], Wait]] = []
    total = 0
    late: list[TaskRef] = []
    try:
        for handle in handles:
            total += 1
            if handle._watch.ended:
                ended.put_nowait((handle, None))
                continue
            waiter = handle._join(timeout)
            waiting.append((handle, waiter))
            waiter.woken.add_done_callback(lambda _, pair=(handle, waiter): ended.put_nowait(pair))
        for _ in range(total):
            handle, over = await ended.get()
            if over is not None and over.error is None and not handle._watch.ended:
                late.append(handle.ref)
            else:
                yield handle
    finally:
        for handle, waiter in waiting:
            handle._leave(waiter)
    if late:
        raise WaitTimeout(
            f"Stopped waiting after {timeout:g} s; {len(late)} of {total} tasks had not ended. They go on and stay "
            "paid for: see .refs, and piapi.attach(ref).",
            refs=late,
        )


async def wait_all(handles: Iterable[TaskHandle[R]], timeout: float | None = None) -> list[Task[R] | PiAPIError]:
    """Wait for all, and give for each, in order, its finished task or what `wait` would have raised."""
    handles = list(handles)
    waiters: list[Wait | ClientClosed | None] = []
    try:
        for handle in handles:
            waiters.append(_join(handle, timeout))
        for waiter in waiters:
            if isinstance(waiter, Wait):
                await waiter.woken
    finally:
        for handle, waiter in zip(handles, waiters, strict=False):  # fewer waiters, if joining was refused
            if isinstance(waiter, Wait):
                handle._leave(waiter)
    return [
        waiter if isinstance(waiter, ClientClosed) else handle._outcome(waiter, timeout)
        for handle, waiter in zip(handles, waiters, strict=True)
    ]


def _join(handle: TaskHandle[R], timeout: float | None) -> Wait | ClientClosed | None:
    if handle._watch.ended:
        return None
    try:
        return handle._join(timeout)
    except ClientClosed as error:
        return error
