"""The long run of a fleet: workers are killed and stopped, and the sums must come out; then what it costs.

``python -m benchmarks.fleet [--database URL] [--smoke] [--costs]``: 600 items, 3 workers, a limit of 40, 9 kills and
9 stops longer than the lease, 5 % of the reads answered 502.  Without --database a PostgreSQL of the machine's is
started, else a SQLite file is used.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import orjson
from attrs import asdict, define, evolve, field, frozen

from piapi_async import SubmissionUnknown
from piapi_async.batch import BatchItem
from piapi_async.emulator import Dialect, Emulator, SlowFirstByte, Status
from piapi_async.fleet import Fleet

from ._fleet_costs import costs, waits
from ._fleet_parts import LEASE, PREFIX, WorkerProcess, database, request, work
from ._goals import Goal, goals_table

TAKE_OVER_GOAL = LEASE + 2.0


@frozen
class Size:
    """How large a run is."""

    items: int = 600
    workers: int = 3
    limit: int = 40
    kills: int = 9
    stops: int = 9
    pause: float = 1.5  # seconds between two disruptions
    costed: int = 300
    cost_limit: int = 200
    waits: int = 300
    waited: float = 10.0  # seconds


SMOKE = Size(items=24, workers=2, limit=12, kills=1, stops=0, costed=20, waits=20, waited=2.0)


@define
class Host:
    """What the host has seen: when each task was made, and how long it took."""

    made: list[tuple[float, float]] = field(factory=list)

    def duration(self, rng: Random) -> float:
        """Return how long a task takes, and note it."""
        seconds = rng.uniform(2.4, 9.6)
        self.made.append((time.monotonic(), seconds))
        return seconds

    @property
    def peak(self) -> int:
        """The most tasks that were there at once."""
        return max(
            sum(start <= at < start + lasted - 0.1 for start, lasted in self.made) for at, _ in self.made
        )


@define(eq=False)
class Disruptions:
    """Kills and stops workers, one after the other, and notes what it has done."""

    size: Size
    rng: Random
    begin: Callable[[], Awaitable[WorkerProcess]]
    workers: list[WorkerProcess] = field(factory=list)
    gone: list[WorkerProcess] = field(factory=list)
    killed: dict[int, float] = field(factory=dict)
    """The pids of killed workers, and when, in unix time."""
    stopped: list[tuple[float, float]] = field(factory=list)
    """From when until when a worker was stopped."""

    async def run(self) -> None:
        """Do them all."""
        plan = ["kill"] * self.size.kills + ["stop"] * self.size.stops
        self.rng.shuffle(plan)
        for what in plan:
            await asyncio.sleep(self.size.pause)
            number = self.rng.randrange(len(self.workers))
            if what == "kill":
                await self._kill(number)
            else:
                await self._stop(self.workers[number])

    async def _kill(self, number: int) -> None:
        """Kill one, and start another in its place."""
        victim = self.workers[number]
        self.killed[victim.process.pid] = await victim.kill()
        self.gone.append(victim)
        self.workers[number] = await self.begin()

    async def _stop(self, worker: WorkerProcess) -> None:
        """Let one stand still for longer than its lease."""
        began = time.time()
        worker.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(LEASE + 3.0)
        finally:
            worker.process.send_signal(signal.SIGCONT)
            self.stopped.append((began, time.time()))

    @property
    def take_overs(self) -> list[float]:
        """Seconds from a kill until what the worker had held was taken over, where no other stood still meanwhile."""
        seen = {pid: at for worker in (*self.workers, *self.gone) for pid, at in worker.taken_over.items()}
        return [
            seen[pid] - at
            for pid, at in self.killed.items()
            if pid in seen and not any(began < seen[pid] and at < ended for began, ended in self.stopped)
        ]


async def long_run(url: str, size: Size) -> list[Goal]:
    """Run it; return what came of it."""
    seen = Host()
    emulator = Emulator(
        durations=seen.duration, concurrency=size.limit, dialect=Dialect(history=True), picture_size=32
    )
    async with emulator.run() as host, Fleet(url) as fleet:
        emulator.fail("create", SlowFirstByte(0.6), times=None)
        emulator.fail("task_read", Status(502), rate=0.05)

        async def begin() -> WorkerProcess:
            return await WorkerProcess.start(url, host, emulator.api_key, size.limit, size.limit // 2)

        began = time.monotonic()
        disruptions = Disruptions(size, Random(1), begin)  # noqa: S311 - the same disruptions again
        disruptions.workers = [await begin() for _ in range(size.workers)]
        jobs = await fleet.submit_many(
            [BatchItem(request(number), f"item {number}") for number in range(size.items)]
        )
        disrupting = asyncio.create_task(disruptions.run())
        outcomes = await asyncio.gather(*[job.wait() for job in jobs])
        seconds = time.monotonic() - began
        disrupting.cancel()
        await asyncio.gather(disrupting, return_exceptions=True)
        for worker in disruptions.workers:
            await worker.end()

    done = sum(outcome.ok for outcome in outcomes)
    unknown = sum(isinstance(outcome.error, SubmissionUnknown) for outcome in outcomes)
    creates = Counter(task.given["prompt"] for task in emulator.engine.tasks.values())
    never_made = size.items - len(creates)
    kills, stops, taken = len(disruptions.killed), len(disruptions.stopped), disruptions.take_overs
    slowest = max(taken, default=0.0)
    return [
        Goal("kills of workers meanwhile", f"{kills}", f">= {size.kills}", kills >= size.kills),
        Goal("stops of workers meanwhile", f"{stops}", f">= {size.stops}", stops >= size.stops),
        _at_most("creates per item, at most", max(creates.values()), 1),
        _at_most("items neither done nor unknown", size.items - done - unknown, 0),
        _at_most("unknown, though the host made a task", unknown - never_made, 0),
        _at_most("at the host at once, at most", seen.peak, size.limit),
        Goal(
            f"slowest of {len(taken)} take-overs (no stops meanwhile)",
            f"{slowest:.1f} s",
            f"<= {TAKE_OVER_GOAL:g} s",
            slowest <= TAKE_OVER_GOAL if taken else None,
        ),
        Goal("unknown, as a kill kept them from the host", f"{never_made}", "", None),
        Goal("seconds in all", f"{seconds:.0f}", "", None),
    ]


def _at_most(what: str, figure: int, goal: int) -> Goal:
    return Goal(what, f"{figure}", f"<= {goal}", figure <= goal)


def run(size: Size, given: str | None, *, costs_alone: bool = False) -> list[Goal]:
    """Run all parts, each on a database of its own, and print the figures beside their goals; return these."""
    runs: list[tuple[str, Callable[[str], Coroutine[Any, Any, list[Goal]]]]] = [
        ("What an item costs one worker", lambda url: costs(url, size.costed, size.cost_limit)),
        ("What waits cost", lambda url: waits(url, size.waits, size.waited)),
    ]
    if not costs_alone:
        runs.insert(0, ("Workers are killed and stopped", lambda url: long_run(url, size)))

    found: list[Goal] = []
    for title, part in runs:
        with tempfile.TemporaryDirectory(prefix=PREFIX) as name, database(given, Path(name)) as url:
            goals = asyncio.run(part(url))
        print(goals_table(title, goals), end="\n\n", flush=True)
        found += goals

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"peak memory of a worker: {peak} MB")
    return found


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Run as one of all benchmarks."""
    found = run(SMOKE if smoke else Size(), None)
    if json_path is not None:
        goals = [asdict(evolve(goal, what=f"fleet: {goal.what}")) for goal in found]
        json_path.write_bytes(orjson.dumps({"goals": goals}, option=orjson.OPT_INDENT_2))


def _command() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--database",
        help="beside which new ones are made; default: a PostgreSQL of the machine's, else a SQLite file",
    )
    parser.add_argument("--smoke", action="store_true", help="only to see that it runs")
    parser.add_argument("--costs", action="store_true", help="measure the costs alone")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        logging.basicConfig(level=logging.WARNING, format="%(created)f %(message)s")
        asyncio.run(work(*options.work))
        return

    size = SMOKE if options.smoke else Size()
    goals = run(size, options.database, costs_alone=options.costs)
    if any(goal.met is False for goal in goals) and not options.smoke:
        sys.exit("a goal was missed")


if __name__ == "__main__":
    _command()
