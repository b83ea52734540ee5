"""`run`: one request from its submission to its files, as `PiAPI.run` offers it.

Everything that can be wrong is checked before anything is paid for: the folder, the words, the
callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Generic, TypeAlias, TypeVar

import anyio
from attrs import define, evolve, field

from .._protocol.family import TaskRequest
from .._runtime import Runtime
from .._text import brief
from .._wait.bulk import cancel_for_leaver
from ..downloads._options import DownloadOptions
from ..downloads._saver import Downloads
from ..downloads._target import Target, check_target, place_at, prepared
from ..errors import DownloadError
from ..handle import OnCancel, TaskHandle, check_on_cancel, check_wait
from ..ledger import LedgerEntry, LedgerState
from ..tasks import Task, TaskId, with_files
from .earlier import read_ended

R = TypeVar("R")

OnUpdate: TypeAlias = Callable[[Task[R]], Awaitable[object] | None]


@define(eq=False)
class Run(Generic[R]):
    """One call of `PiAPI.run`, whose keywords these are."""

    runtime: Runtime
    timeout: float | None
    on_update: OnUpdate[R] | None
    download: str | os.PathLike[str] | None
    on_cancel: OnCancel
    _target: Target | None = field(default=None, init=False)
    _cancelled: bool = field(default=False, init=False)  # the host has agreed to cancel the task
    _update_failed: bool = field(default=False, init=False)  # `on_update` has raised, and that was logged

    def __attrs_post_init__(self) -> None:
        check_wait(self.timeout)
        check_on_cancel(self.on_cancel)
        if self.on_update is not None and not callable(self.on_update):
            raise TypeError(
                f"on_update: {brief(self.on_update)} is not allowed; it must be a function of a task"
            )
        if self.download is not None:
            self._target = check_target(self.download)

    async def result_of(self, request: TaskRequest[R], key: str | None, note: object) -> Task[R]:
        """Return the finished task of a request.  Raises as `PiAPI.run`."""
        self.runtime.enter()
        terms = self.runtime.terms(note)
        if self._target is not None:
            await prepared(self._target)

        terms = evolve(terms, cancel_if_left=self.on_cancel == "cancel_remote")
        watch, accepted = await self.runtime.submit(request, key, None, terms=terms)
        handle: TaskHandle[R] = TaskHandle(self.runtime, watch, accepted.frozen)

        try:
            return await self._see_through(handle, accepted.ledger_entry, request)
        except BaseException as error:
            if not isinstance(error, Exception):  # an error tells the caller which task it is about
                self._tell_left(handle)
            raise

    async def _see_through(
        self, handle: TaskHandle[R], entry: LedgerEntry | None, request: TaskRequest[R]
    ) -> Task[R]:
        """Return the task at its end, saved if that was asked for."""
        task = await self._end_of(handle, entry, request)
        if self._target is None:
            return task
        return await self._save(task, self._target, entry, getattr(request, "verb", ""))

    def _tell_left(self, handle: TaskHandle[R]) -> None:
        """Log the task of a caller who has been cancelled, and has had no other word of its id."""
        task = handle.task
        if task is not None and task.state.terminal:
            what = "has ended, and its files may not have been saved"
        elif self._cancelled:
            return
        elif self.on_cancel == "cancel_remote":
            what = "could not be cancelled at the host; it goes on, and stays paid for"
        else:
            what = "goes on, and stays paid for"

        level = logging.WARNING
        if self.runtime.ledger is not None:
            level, what = logging.INFO, f"{what}; the ledger has it"
        text = f"run was cancelled; its task {handle.task_id} {what}"
        self.runtime.events.notice(level, text, task_id=handle.task_id)

    # -- waiting ----------------------------------------------------------------------------------

    async def _end_of(
        self, handle: TaskHandle[R], entry: LedgerEntry | None, request: TaskRequest[R]
    ) -> Task[R]:
        if entry is not None and entry.state is LedgerState.ENDED:
            task = await read_ended(handle, entry, request.family, self.timeout)
            await self._show(task, None)
            return task

        try:
            if self.on_update is None:
                return await handle.wait(self.timeout)
            await self._show_all(handle)
        except asyncio.CancelledError:
            if self.on_cancel == "cancel_remote":
                task_id = TaskId(handle.task_id)
                self._cancelled = await cancel_for_leaver(self.runtime.sender, request.family, task_id)
            raise
        return await handle.wait()  # from memory

    async def _show_all(self, handle: TaskHandle[R]) -> None:
        """Hand each reading that differs to `on_update`, up to the last."""
        deadline = None
        if self.timeout is not None:
            deadline = anyio.current_time() + self.timeout

        async with contextlib.aclosing(handle.updates(self.timeout)) as updates:
            async for task in updates:
                await self._show(task, deadline)

    async def _show(self, task: Task[R], deadline: float | None) -> None:
        """Call `on_update`; what it raises is logged, and a coroutine may run until the deadline."""
        if self.on_update is None:
            return
        try:
            shown = self.on_update(task)
            if inspect.isawaitable(shown):
                await _bounded(shown, deadline)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            if not self._update_failed:
                self._update_failed = True
                text = f"on_update raised; task {task.task_id} goes on, and this is logged only once"
                self.runtime.events.notice(logging.ERROR, text, exception=error, task_id=task.task_id)

    # -- saving -----------------------------------------------------------------------------------

    async def _save(self, task: Task[R], target: Target, entry: LedgerEntry | None, verb: str) -> Task[R]:
        try:
            async with Downloads(target, self.runtime.file_session(), DownloadOptions()) as downloads:
                saved = await downloads.save(
                    task,
                    verb=verb,
                    just_ended=entry is None or entry.state is not LedgerState.ENDED,
                    again=entry is not None,
                )
        except DownloadError as error:
            error.task = error.task or task
            raise
        except Exception as cause:
            raise DownloadError(
                f"Task {task.task_id} was not saved: {cause!r}. It is done, and stays paid for: see .task.",
                path=place_at(target).shown,
                task=task,
            ) from cause
        return with_files(task, saved)


async def _bounded(shown: Awaitable[object], deadline: float | None) -> None:
    if deadline is None:
        await shown
        return
    with anyio.CancelScope(deadline=deadline):
        await shown


def _is_being_cancelled() -> bool:
    """Return whether the running task was asked to stop: then a cancellation is not the callback's own."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
