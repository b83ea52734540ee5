"""The running loop, and blocking work in its executor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T], executor: Executor | None = None) -> T:
    """Return what `work` returns, run in a thread of the loop's executor, or of another."""
    # Not anyio.to_thread: a virtual clock in tests waits for the loop's executor only.
    return await running_loop().run_in_executor(executor, work)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises `RuntimeError` where asyncio does not run, as under trio, which says what is needed.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "piapi_async needs a running asyncio event loop, and there is none: start with "
            "asyncio.run(main()), or with anyio.run(main, backend='asyncio'); trio cannot run it"
        ) from None
