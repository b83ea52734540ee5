"""What a waiting task keeps in memory, and what thousands of them cost while nothing happens.

    python -m benchmarks.memory [--smoke] [--json FILE]

Every figure is taken in a process of its own.  Allocations are counted by tracemalloc, resident memory by the kernel.
Ids exist beforehand, since the user has them anyway.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import orjson
from attrs import asdict, define, frozen

from piapi_async import PiAPI
from piapi_async._wait.schedule import PollSchedule
from piapi_async._wait.watch import Watch
from piapi_async.client import runtime_of
from piapi_async.handle import TaskHandle
from piapi_async.midjourney import LEGACY
from piapi_async.policy import PollPolicy
from piapi_async.tasks import TaskId

from ._goals import Goal
from ._table import table
from ._virtual import run_virtual
from ._waiting_host import waiting_host

GOAL_SCHEDULE, GOAL_TASK, GOAL_POLLED = 500, 1600, 3000
"""Bytes per wait: in the schedule (watch, wait, heap, index), with the user's own asyncio task awaiting it before its
first poll, and after a poll, whose answer of 1.1 kB is kept."""

INTERVAL = 60.0
MINUTES = 5

_POLLED = "with a task, after a poll"
_POLLED_MOST = 20_000  # each keeps its latest reading


@frozen
class Row:
    """One line of the table: bytes per wait as allocated and as resident."""

    what: str
    waits: int
    allocated: float
    resident: float
    goal: float | None

    def cells(self) -> list[str]:
        """Return the line's texts."""
        verdict = "" if self.goal is None else "met" if self.allocated <= self.goal else "MISSED"
        goal = "" if self.goal is None else f"<= {self.goal:,.0f}"
        return [
            self.what,
            f"{self.waits:,}",
            f"{self.allocated:,.0f}",
            f"{self.resident:,.0f}",
            goal,
            verdict,
        ]

    def judge(self) -> Goal | None:
        """Hold the line against its goal, if there is one."""
        if self.goal is None:
            return None
        met = self.allocated <= self.goal
        what = f"bytes of a wait {self.what}, of {self.waits:,}"
        return Goal(what, f"{self.allocated:,.0f}", f"<= {self.goal:,.0f}", met)


@frozen
class Idle:
    """What so many waits cost the processor: CPU seconds per second of (virtual) waiting."""

    waits: int
    interval: float
    requests_per_second: float
    share: float


@define
class _Growth:
    """What the process has grown by since `start`: by tracemalloc if `traced`, else resident."""

    traced: bool
    _before: int = 0

    def start(self) -> None:
        gc.collect()
        if self.traced:
            tracemalloc.start()
        self._before = self._now()

    def stop(self) -> int:
        gc.collect()
        grown = self._now() - self._before
        tracemalloc.stop()
        return grown

    def _now(self) -> int:
        return tracemalloc.get_traced_memory()[0] if self.traced else _resident()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def make_ids(count: int) -> list[TaskId]:
    """Return so many task ids."""
    return [TaskId(str(UUID(int=number, version=4))) for number in range(count)]


def in_schedule(waits: int, growth: _Growth) -> int:
    """Start so many waits in a schedule; return the bytes."""
    ids = make_ids(waits)
    schedule = PollSchedule(PollPolicy(), Random(1))  # noqa: S311 - a reproducible run is the point
    growth.start()
    for number, task_id in enumerate(ids):
        watch = Watch(LEGACY, task_id, due=100.0 + number, paced_from=float(number))
        schedule.start(watch, None, float(number))
    return growth.stop()


def unpolled(waits: int, growth: _Growth) -> int:
    """Let so many asyncio tasks await `handle.wait()` before anything was polled; return the bytes."""
    return run_virtual(_wait_unpolled(make_ids(waits), growth))


def polled_once(waits: int, growth: _Growth) -> int:
    """Let so many asyncio tasks await `handle.wait()`, each polled once; return the bytes."""
    return run_virtual(_wait_polled(make_ids(waits), growth))


async def _wait_unpolled(ids: list[TaskId], growth: _Growth) -> int:
    async with PiAPI("a-key", base_url="http://127.0.0.1:9", poll=PollPolicy(1e6)) as piapi:
        growth.start()
        tasks = [asyncio.create_task(_submitted(piapi, task_id).wait()) for task_id in ids]
        await asyncio.sleep(0)
        grown = growth.stop()
        await _drop(tasks)
    return grown


async def _wait_polled(ids: list[TaskId], growth: _Growth) -> int:
    async with (
        waiting_host() as base_url,
        PiAPI("a-key", base_url=base_url, poll=PollPolicy.every(3600)) as piapi,
    ):
        await piapi.fetch_many(ids[:1000])  # so that connections and caches are there before
        growth.start()
        tasks = [asyncio.create_task(piapi.attach(task_id).wait()) for task_id in ids]
        await asyncio.sleep(1800)
        grown = growth.stop()
        await _drop(tasks)
    return grown


def _submitted(piapi: PiAPI, task_id: TaskId) -> TaskHandle[Any]:
    """Return the handle of a task as `submit` does, but without the request."""
    runtime = runtime_of(piapi)
    return TaskHandle(runtime, runtime.watch(LEGACY, task_id, submitted=True))


async def _drop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def idle(waits: int) -> Idle:
    """Let so many wait for tasks that do not end, with a poll a minute each; return what that costs."""
    return run_virtual(_idle(make_ids(waits)))


async def _idle(ids: list[TaskId]) -> Idle:
    async with (
        waiting_host() as base_url,
        PiAPI("a-key", base_url=base_url, poll=PollPolicy.every(INTERVAL)) as piapi,
    ):
        tasks = [asyncio.create_task(piapi.attach(task_id).wait()) for task_id in ids]
        await asyncio.sleep(1.5 * INTERVAL)
        asked, cpu = _polls(piapi), time.process_time()
        await asyncio.sleep(MINUTES * 60)
        cpu, asked = time.process_time() - cpu, _polls(piapi) - asked
        await _drop(tasks)
    return Idle(len(ids), INTERVAL, asked / (MINUTES * 60), cpu / (MINUTES * 60))


def _polls(piapi: PiAPI) -> int:
    return sum(piapi.stats.requests.values())


MEASURES: dict[str, tuple[Callable[[int, _Growth], int], float | None]] = {
    "in the schedule": (in_schedule, GOAL_SCHEDULE),
    "with a task, before a poll": (unpolled, GOAL_TASK),
    _POLLED: (polled_once, GOAL_POLLED),
}


def measure(what: str, waits: int, *, traced: bool) -> float:
    """Return the bytes per wait."""
    return MEASURES[what][0](waits, _Growth(traced)) / waits


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the table."""
    begun = time.perf_counter()
    sizes = (1000,) if smoke else (10_000, 100_000)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        rows = [
            Row(
                what,
                waits,
                pool.submit(measure, what, waits, traced=True).result(),
                pool.submit(measure, what, waits, traced=False).result(),
                goal,
            )
            for what, (_, goal) in MEASURES.items()
            for waits in (min(size, _POLLED_MOST) if what == _POLLED else size for size in sizes)
        ]
        cost = pool.submit(idle, 1000 if smoke else 10_000).result()
    columns = ("bytes per wait", "waits", "allocated", "resident", "goal", "")
    print(table("memory", columns, [row.cells() for row in rows]), end="\n\n")
    print(
        f"idle: {cost.waits:,} waits with a poll every {cost.interval:g} s make {cost.requests_per_second:.1f} "
        f"requests and {cost.share * 1000:.1f} ms of CPU per second (the host's part included)\n"
    )
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        goals = [asdict(goal) for row in rows if (goal := row.judge()) is not None]
        found = {"goals": goals, "memory": [asdict(row) for row in rows], "idle": asdict(cost)}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What waiting keeps in memory.")
    parser.add_argument("--smoke", action="store_true", help="fewer waits")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
