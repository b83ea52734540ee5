"""A client and a service in one loop, and what must be left of them afterwards: nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from piapi_async import PiAPI, PollPolicy, Reroll
from piapi_async.emulator import Drop, Emulator, Huge, Status, Truncated, WrongTypes
from piapi_async.errors import PiAPIError

T = TypeVar("T")

KEY = "sk-test-5eCr3t"
REROLL = Reroll("6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d", prompt="a cute cat")

TICK = 1e-4
"""Seconds by which a moment on the virtual clock may be missed."""

PASSING: list[Any] = [
    Status(429),
    Status(408),
    Status(500),
    Status(502),
    Status(503),
    Status(504),
    Drop(before_body=True),
    Drop(after_body=True),
    Drop(inside_answer=True),
    Truncated(0.3),
    Status(200, body="<html>"),
    Status(200, body={}),
    Huge(17 * 2**20),
    WrongTypes(broken=True),
]
"""Faults that another try mends."""


def now() -> float:
    return asyncio.get_running_loop().time()


async def after(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    await asyncio.sleep(seconds)
    return await coroutine


async def read(items: AsyncIterator[T]) -> tuple[list[T], PiAPIError | None]:
    """Give what an iterator gave, and the error that ended it."""
    seen: list[T] = []
    try:
        async for item in items:
            seen.append(item)
    except PiAPIError as error:
        return seen, error
    return seen, None


async def turns(count: int = 20) -> None:
    """Let everybody run who can without the time moving on."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynccontextmanager
async def no_leaks() -> AsyncIterator[None]:
    """Check that the block leaves no task behind."""
    before = asyncio.all_tasks()
    yield
    await turns()
    left = asyncio.all_tasks() - before

    assert not left


def assert_at_rest(piapi: PiAPI) -> None:
    """Check that nobody waits, nothing is under way, and no timer is set."""
    assert len(piapi._runtime.poller.schedule) == 0
    assert not piapi._runtime.poller._polls
    assert piapi._runtime.poller._timer is None
    assert len(piapi._runtime.submitter) == 0


@asynccontextmanager
async def serving(
    client: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Emulator, PiAPI]]:
    """Give an emulator and its client, which looks every second; tasks take 30 s unless told otherwise.

    Pictures are small, because nobody looks at them.

    Lost submissions stay unknown: the history is not looked at unless the client is told to `recover`.
    """
    usual: dict[str, Any] = {"api_keys": (KEY,), "adopt_parents": True, "durations": 30.0, "picture_size": 32}
    emulator = Emulator(**(usual | options))
    async with no_leaks(), emulator.run() as base_url:
        settings: dict[str, Any] = {"base_url": base_url, "poll": PollPolicy.every(1.0), "recover": 0.0}
        async with PiAPI(emulator.api_key, **(settings | (client or {}))) as piapi:
            yield emulator, piapi
        assert_at_rest(piapi)
