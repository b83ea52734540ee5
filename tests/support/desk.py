"""An emulator in a thread of its own, for commands that bring their own event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from piapi_async.emulator import Emulator


@contextmanager
def desk(**options: Any) -> Iterator[tuple[Emulator, str]]:
    """Give an emulator that serves until the block is left, and its base URL."""
    emulator = Emulator(**({"adopt_parents": True, "durations": 1e-4, "picture_size": 32} | options))
    ready, urls = threading.Event(), []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with emulator.run() as base_url:
            urls.append(base_url)
            stop.append((asyncio.get_running_loop(), asyncio.Event()))
            ready.set()
            await stop[0][1].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield emulator, urls[0]
    finally:
        if stop:
            loop, event = stop[0]
            loop.call_soon_threadsafe(event.set)
        thread.join()


def unmeasured() -> dict[str, str]:
    """Give the environment without what would measure the coverage of a child process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
