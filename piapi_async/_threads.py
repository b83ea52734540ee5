"""Work that would block the loop, done beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Give what `work` gives, done in a thread of the loop's executor."""
    # Not anyio.to_thread: a virtual clock in tests waits for the loop's executor only.
    return await asyncio.get_running_loop().run_in_executor(None, work)
