"""An emulator in a thread of its own, for commands that bring their own event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from piapi_async.emulator import Emulator, TaskTakes
from support.processes import PATIENCE

T = TypeVar("T")

INSTANTLY = 1e-4
"""Seconds that a task takes which nobody is to wait for."""

_LOOPS: WeakKeyDictionary[Emulator, asyncio.AbstractEventLoop] = WeakKeyDictionary()


@contextmanager
def desk(**options: Any) -> Iterator[tuple[Emulator, str]]:
    """Give an emulator that serves until the block is left, and its base URL."""
    emulator = Emulator(**({"adopt_parents": True, "durations": INSTANTLY, "picture_size": 32} | options))
    ready, urls = threading.Event(), []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with emulator.run() as base_url:
            urls.append(base_url)
            stop.append((asyncio.get_running_loop(), asyncio.Event()))
            _LOOPS[emulator] = stop[0][0]
            ready.set()
            await stop[0][1].wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield emulator, urls[0]
    finally:
        if stop:
            loop, event = stop[0]
            loop.call_soon_threadsafe(event.set)
        thread.join()


def at_the_desk(emulator: Emulator, call: Callable[[], T]) -> T:
    """Return what `call` returns in the emulator's own thread, between two of its answers."""

    async def do() -> T:
        return call()

    coroutine: Coroutine[Any, Any, T] = do()
    return asyncio.run_coroutine_threadsafe(coroutine, _LOOPS[emulator]).result(PATIENCE)


def end_all(emulator: Emulator) -> None:
    """End all tasks, and let those that are yet to come end at once."""

    def end() -> None:
        emulator.fail("create", TaskTakes(INSTANTLY), times=None)
        for task_id in list(emulator.machine.tasks):
            emulator.end(task_id)

    at_the_desk(emulator, end)


class Hold:
    """A duration of tasks that holds the answer to a create back until it is let go; so long the whole desk stands."""

    def __init__(self) -> None:
        self._let_go = threading.Event()

    def __call__(self, _: Random) -> float:
        assert self._let_go.wait(PATIENCE)
        return INSTANTLY

    def let_go(self) -> None:
        self._let_go.set()


def unmeasured() -> dict[str, str]:
    """Give the environment without what would measure the coverage of a child process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
