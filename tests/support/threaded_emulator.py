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
"""Emulated seconds that a task takes if no test is to wait for it."""

_LOOPS: WeakKeyDictionary[Emulator, asyncio.AbstractEventLoop] = WeakKeyDictionary()


@contextmanager
def threaded_emulator(**options: Any) -> Iterator[tuple[Emulator, str]]:
    """Serve an emulator inside the block; yields it and its base URL."""
    defaults = {"adopt_parents": True, "durations": INSTANTLY, "picture_size": 32}
    emulator = Emulator(**(defaults | options))
    ready = threading.Event()
    urls: list[str] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with emulator.run() as base_url:
            loop, stopped = asyncio.get_running_loop(), asyncio.Event()
            urls.append(base_url)
            stop.append((loop, stopped))
            _LOOPS[emulator] = loop
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()

    try:
        assert ready.wait(PATIENCE)
        yield emulator, urls[0]
    finally:
        if stop:
            loop, stopped = stop[0]
            loop.call_soon_threadsafe(stopped.set)
        thread.join()


def call_in_thread(emulator: Emulator, call: Callable[[], T]) -> T:
    """Return what `call` returns in the emulator's own thread, between two of its responses."""

    async def run() -> T:
        return call()

    coroutine: Coroutine[Any, Any, T] = run()
    return asyncio.run_coroutine_threadsafe(coroutine, _LOOPS[emulator]).result(PATIENCE)


def end_all(emulator: Emulator) -> None:
    """End every task, and let later ones end at once."""

    def end() -> None:
        emulator.fail("create", TaskTakes(INSTANTLY), times=None)
        for task_id in list(emulator.engine.tasks):
            emulator.end(task_id)

    call_in_thread(emulator, end)


class Hold:
    """A task duration that blocks the whole emulator, and so the response to the create, until it is let go."""

    def __init__(self) -> None:
        self._let_go = threading.Event()

    def __call__(self, _: Random) -> float:
        assert self._let_go.wait(PATIENCE)
        return INSTANTLY

    def let_go(self) -> None:
        self._let_go.set()


def unmeasured() -> dict[str, str]:
    """Return the environment without what would measure the coverage of a child process."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
