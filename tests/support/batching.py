"""What the tests of batches share: many requests, an account that starts them all, and ways to leave early."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from piapi_async import BatchRunner, Reroll
from piapi_async.batch import Totals
from piapi_async.emulator import Emulator

WIDE: dict[str, Any] = {"concurrency": 1000, "queue": 10_000}
"""An account that starts everything at once."""


class Oops(Exception):
    pass


def start_at_most(emulator: Emulator, count: int) -> None:
    """Change how many tasks of an account run at a time, while it has some."""
    emulator.engine.concurrency = count
    for place in emulator.engine._accounts.values():
        place.concurrency = count


def rerolls(count: int, reroll: Callable[[str], Any] = Reroll) -> list[Any]:
    return [reroll(f"parent-{number}") for number in range(count)]


async def as_async(requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        await asyncio.sleep(0.1)
        yield request


def check_account(totals: Totals, concurrency: int) -> None:
    """Check that every item is somewhere: ended, skipped, in flight, or on its way to its task's id."""
    assert totals.ended == totals.done + totals.failed + totals.unknown
    in_flight = totals.waiting + totals.running
    on_their_way = totals.read - totals.ended - totals.skipped - in_flight
    assert 0 <= on_their_way
    assert 0 <= in_flight + on_their_way <= concurrency
    assert totals.submitted + totals.resumed >= totals.done + in_flight


async def leave_by_break(runner: BatchRunner, requests: Any) -> None:
    async with runner.stream(requests) as outcomes:
        async for _ in outcomes:
            break
