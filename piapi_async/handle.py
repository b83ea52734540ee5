"""`TaskHandle`: one task of one client, to read, wait for, cancel; and waiting for several of them."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Generic, Literal, TypeVar, get_args

from attrs import define

from ._protocol.family import Family
from ._runtime import Runtime
from ._text import brief
from ._wait.bulk import cancel_for_leaver
from ._wait.watch import Wait, Watch, differs
from .errors import ClientClosed, NotFoundError, PiAPIError, WaitTimeout, end_error
from .tasks import Cost, Task, TaskRef, found_at

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnCancel = Literal["leave", "cancel_remote"]
_ON_CANCEL = get_args(OnCancel)


@define(eq=False, repr=False)
class TaskHandle(Generic[R_co]):
    """One task of one client: read it, wait for it, cancel it.

    Handles of the same task are equal, and share its polls while they wait.
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
        task = self._watch.task
        if task is not None:
            ref = task.ref
            if ref is not None:
                return ref
        return TaskRef(self._runtime.origin, self._watch.family.name, self._watch.task_id)

    @property
    def frozen(self) -> Cost | None:
        """What the task is expected to cost, if the host said so when it accepted the submission.

        The host has reserved it, or charged it already.  It is not stored: a handle of `attach`, or
        of a key that was submitted before, has none.  What the task did cost is `Task.cost`, once
        it has ended.
        """
        return self._frozen

    @property
    def task(self) -> Task[R_co] | None:
        """The latest known reading of the task, or None; makes no request."""
        task: Task[R_co] | None = self._watch.task
        if task is not None and task.ref is None:
            found_at(task, self.ref)
        return task

    @property
    def error(self) -> PiAPIError | None:
        """Why there is no result: how the task ended, or what ended the last wait; None while all is well."""
        task = self.task
        if task is not None and task.state.terminal:
            return end_error(task)
        if self._watch.error is not None:
            return _of_this_wait(self._watch.error, self.task_id)
        return None

    def __repr__(self) -> str:
        status = "not read yet"
        if self.task is not None:
            status = self.task.status
        return f"<TaskHandle {self.task_id}: {status}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TaskHandle):
            return NotImplemented
        return self.ref == other.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    async def wait(self, timeout: float | None = None, *, on_cancel: OnCancel = "leave") -> Task[R_co]:
        """Return the finished task, waiting up to `timeout` seconds (None: for ever; 0: one poll).

        With `on_cancel` "cancel_remote" a cancelled caller has the task cancelled at the host too,
        if it has not started.  Passing faults of the network, the host and edges before it do not
        end the wait.

        Raises `TaskFailed`, `TaskCancelled`, `WaitTimeout` (the task goes on),
        `AuthenticationError` (the host refuses the key, or an edge does for a minute),
        `NotFoundError` (after a short grace), `ClientClosed`.
        """
        check_on_cancel(on_cancel)

        wait = self._start(timeout)
        try:
            await wait.woken
        except asyncio.CancelledError:
            self._stop(wait)
            if on_cancel == "cancel_remote":
                await cancel_for_leaver(self._runtime.sender, self._watch.family, self._watch.task_id)
            raise

        outcome = _outcome(self, wait, timeout)
        if isinstance(outcome, PiAPIError):
            raise outcome
        return outcome

    async def refresh(self) -> Task[R_co]:
        """Read the task now and return it, whatever its state.  Raises as `PiAPI.fetch`."""
        task = await self._runtime.fetch(self._watch.family, self._watch.task_id)
        self._watch = self._runtime.poller.observe(self._watch, task)
        return task

    async def updates(self, timeout: float | None = None) -> AsyncGenerator[Task[R_co], None]:
        """Yield the task each time its status, progress or images have changed; its end is the last.

        A slow consumer misses readings that have been overtaken, never the latest.  Raises as
        `wait`, but yields a task that failed or was cancelled like any other.
        """
        shown: Task[R_co] | None = None
        wait = self._start(timeout, changes=True)
        try:
            while True:
                task = self.task
                if task is not None and differs(shown, task):
                    shown = task
                    yield task
                    continue
                if wait.over:
                    break
                await wait.woken
                wait.woken = asyncio.get_running_loop().create_future()
        finally:
            self._stop(wait)

        if wait.watch.ended:
            return
        outcome = _outcome(self, wait, timeout)
        if isinstance(outcome, PiAPIError):
            raise outcome

    async def cancel(self) -> None:
        """Ask the host to cancel the task.  Only one that has not started can be: `wait` tells."""
        await self._runtime.cancel(self._watch.family, [self._watch.task_id])

    def _start(self, timeout: float | None, *, changes: bool = False) -> Wait:
        """Begin to wait; if the task has ended the wait is over at once, even on a closed client."""
        if self._watch.ended:
            return self._runtime.poller.start(self._watch, None)

        check_wait(timeout)
        try:
            self._runtime.enter()
        except ClientClosed as error:
            raise _of_this_wait(error, self.task_id) from None

        wait = self._runtime.poller.start(self._watch, timeout, changes=changes)
        self._watch = wait.watch
        return wait

    def _stop(self, wait: Wait) -> None:
        self._runtime.poller.stop(wait)


def own_family(task: object) -> Family[Any] | None:
    """Return the family of a handle, which knows the type of its result; None for anything else."""
    if isinstance(task, TaskHandle):
        return task._watch.family  # noqa: SLF001 - a handle is a runtime and a watch
    return None


def check_on_cancel(on_cancel: object) -> None:
    """Raise `ValueError` for what says nothing about a caller who leaves."""
    if on_cancel not in _ON_CANCEL:
        raise ValueError(f"on_cancel: {brief(on_cancel)} is not allowed; use one of {_ON_CANCEL}")


def check_wait(timeout: object) -> None:
    """Raise `ValueError` for what cannot bound a wait."""
    if timeout is None:
        return
    if not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise ValueError(f"timeout: {brief(timeout)} is not allowed; use seconds, or None to wait for ever")


# -- the outcome of a wait -------------------------------------------------------------------------


def _outcome(handle: TaskHandle[R], wait: Wait, timeout: float | None) -> Task[R] | PiAPIError:
    """Return what a wait that is over has come to."""
    task = handle.task
    if task is not None and task.state.terminal:
        return end_error(task) or task
    if wait.error is not None:
        return _of_this_wait(wait.error, handle.task_id)
    return _timed_out(handle, wait, timeout)


def _of_this_wait(error: PiAPIError, task_id: str) -> PiAPIError:
    """Return what ended a wait as its own error, which names the task; several waits may share one."""
    task = "which goes on; this cost nothing"
    if isinstance(error, NotFoundError):
        task = "which was not found; if it was accepted, it stays paid for"

    own = copy.copy(error)
    own.__cause__ = error.__cause__
    own.args = (f"Stopped waiting for task {task_id}, {task}: {error}",)
    return own


def _timed_out(handle: TaskHandle[Any], wait: Wait, timeout: float | None) -> WaitTimeout:
    fault = None
    if wait.watch.fault_record is not None:
        fault = wait.watch.fault_record.fault

    known = _last_known(handle.task)
    if fault is not None:
        known += f" (the last poll failed: {str(fault).rstrip('.')})"

    error = WaitTimeout(
        f"Stopped waiting for task {handle.task_id} after {timeout:g} s; {known}. If it was accepted "
        "it goes on and stays paid for: wait again, or later piapi.attach(error.ref).wait().",
        ref=handle.ref,
        task=handle.task,
    )
    error.__cause__ = fault
    return error


def _last_known(task: Task[Any] | None) -> str:
    if task is None:
        return "nothing was seen of it"
    if task.progress is None:
        return f"it was last seen {task.status}"
    return f"it was last seen {task.status} at {task.progress} %"


# -- several handles, which may be of several clients ----------------------------------------------


async def as_completed(
    handles: Iterable[TaskHandle[R]], timeout: float | None = None
) -> AsyncGenerator[TaskHandle[R], None]:
    """Yield the handles as their waits end, each with a `task` that has ended or an `error`.

    After `timeout` seconds raises `WaitTimeout`, whose `refs` are the tasks that have not ended.
    """
    over: asyncio.Queue[tuple[TaskHandle[R], Wait]] = asyncio.Queue()
    waits: list[tuple[TaskHandle[R], Wait]] = []
    late: list[TaskRef] = []
    try:
        for handle in handles:
            wait = _start(handle, timeout)
            waits.append((handle, wait))
            wait.woken.add_done_callback(lambda _, pair=(handle, wait): over.put_nowait(pair))

        for _ in range(len(waits)):
            handle, wait = await over.get()
            if wait.watch.ended or wait.error is not None:
                yield handle
            else:
                late.append(handle.ref)
    finally:
        for handle, wait in waits:
            _stop(handle, wait)

    if late:
        raise WaitTimeout(
            f"Stopped waiting after {timeout:g} s; {len(late)} of {len(waits)} tasks had not ended. "
            "They go on and stay paid for: piapi.attach(ref).wait() for each ref in error.refs.",
            refs=late,
        )


async def wait_all(
    handles: Iterable[TaskHandle[R]],
    timeout: float | None = None,
) -> list[Task[R] | PiAPIError]:
    """Return for each handle, in order, its finished task or the error that `wait` would have raised."""
    handles = list(handles)
    waits: list[Wait | ClientClosed] = []
    try:
        for handle in handles:
            try:
                waits.append(_start(handle, timeout))
            except ClientClosed as error:
                waits.append(error)

        for wait in waits:
            if isinstance(wait, Wait):
                await wait.woken
    finally:
        for handle, wait in zip(handles, waits, strict=False):  # fewer waits, if one could not be started
            if isinstance(wait, Wait):
                _stop(handle, wait)

    return [
        wait if isinstance(wait, ClientClosed) else _outcome(handle, wait, timeout)
        for handle, wait in zip(handles, waits, strict=True)
    ]


def _start(handle: TaskHandle[Any], timeout: float | None) -> Wait:
    return handle._start(timeout)  # noqa: SLF001 - waiting for one or several is one idea


def _stop(handle: TaskHandle[Any], wait: Wait) -> None:
    handle._stop(wait)  # noqa: SLF001 - the same
