"""Slices: short turns of several contestants in one process, so that what the machine does besides hits all of them."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from attrs import frozen

from ._table import short

Loop = Callable[[int], Awaitable[None]]
"""Does something so many times."""


@frozen
class Slice:
    """One turn of one contestant: what it cost each time, in seconds."""

    cpu: float
    wall: float


@frozen
class Spread:
    """A figure that was taken several times: the median, and where the middle half of the others lie."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Give the spread of some values."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{short(self.median)} ({short(self.low)} to {short(self.high)})"


def in_flight(number: int, call: Callable[[], Awaitable[object]]) -> Loop:
    """Give the loop that keeps so many calls in flight."""

    async def work(left: Iterator[int]) -> None:
        for _ in left:
            await call()

    async def loop(count: int) -> None:
        left = iter(range(count))
        if number == 1:
            await work(left)
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(work(left))

    return loop


async def take_turns(
    loops: Mapping[str, Loop], *, rounds: int, seconds: float, least: int = 1
) -> dict[str, list[Slice]]:
    """Let the loops run by turns, each for about so many seconds and at least so many times.

    A first turn only warms up and finds out how many times that is.  Every second round goes backwards, so that nobody
    always follows the same other.
    """
    counts = {}
    for name, loop in loops.items():
        await loop(least)
        counts[name] = max(least, int(seconds / max((await turn(loop, least)).wall, 1e-7)))
    gc.collect()
    gc.freeze()  # what the peers have imported is not to be looked through at everybody's expense
    slices: dict[str, list[Slice]] = {name: [] for name in loops}
    try:
        for number in range(rounds):
            for name in list(loops)[:: -1 if number % 2 else 1]:
                slices[name].append(await turn(loops[name], counts[name]))
    finally:
        gc.unfreeze()
    return slices


async def turn(loop: Loop, count: int) -> Slice:
    """Take one turn, and give what each time cost."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    await loop(count)
    return Slice((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count)


def ratios(one: Sequence[Slice], other: Sequence[Slice], pick: Callable[[Slice], float]) -> Spread:
    """Give how many times the other's cost one's was, pair by pair."""
    return Spread.of([pick(a) / pick(b) for a, b in zip(one, other, strict=True)])


def cpu(turn: Slice) -> float:
    """Give the CPU seconds."""
    return turn.cpu


def wall(turn: Slice) -> float:
    """Give the seconds that passed."""
    return turn.wall
