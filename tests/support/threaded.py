"""Anything that is served in an event loop, in a thread of its own: for commands that bring their own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from support.processes import PATIENCE

T = TypeVar("T")


@contextmanager
def served_in_thread(serving: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter `serving` in a thread, and yield what it yields."""
    ready = threading.Event()
    served: list[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with serving as host:
            stop = asyncio.Event()
            served.append((host, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield served[0][0]
    finally:
        for _, loop, stop in served:
            loop.call_soon_threadsafe(stop.set)
        thread.join()
