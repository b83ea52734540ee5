"""Waiting for several handles, which may be of several clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

from ._lanes import Waiter
from .errors import ClientClosed, PiAPIError, WaitTimeout
from .handle import TaskHandle
from .tasks import Task, TaskRef

R = TypeVar("R")


async def as_completed(
    handles: Iterable[TaskHandle[R]], timeout: float | None = None
) -> AsyncGenerator[TaskHandle[R], None]:
    """Give the handles as they end, each by its `task` or its `error`.

    After `timeout` seconds raises `WaitTimeout`, whose `refs` are the tasks that have not ended.
    """
    ended: asyncio.Queue[tuple[TaskHandle[R], Waiter | None]] = asyncio.Queue()
    waiting: list[tuple[TaskHandle[R], Waiter]] = []
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
            waiter.bell.add_done_callback(lambda _, pair=(handle, waiter): ended.put_nowait(pair))
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
    waiters: list[Waiter | ClientClosed | None] = []
    try:
        for handle in handles:
            waiters.append(_join(handle, timeout))
        for waiter in waiters:
            if isinstance(waiter, Waiter):
                await waiter.bell
    finally:
        for handle, waiter in zip(handles, waiters, strict=False):  # fewer waiters, if joining was refused
            if isinstance(waiter, Waiter):
                handle._leave(waiter)
    return [
        waiter if isinstance(waiter, ClientClosed) else handle._outcome(waiter, timeout)
        for handle, waiter in zip(handles, waiters, strict=True)
    ]


def _join(handle: TaskHandle[R], timeout: float | None) -> Waiter | ClientClosed | None:
    if handle._watch.ended:
        return None
    try:
        return handle._join(timeout)
    except ClientClosed as error:
        return error
