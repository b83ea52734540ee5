"""The long run of a fleet: workers are killed and stopped, and the sums must come out; then what an item costs.

``python -m benchmarks.fleet [--database URL] [--smoke]``: 600 items, 3 workers, a limit of 60, 9 kills and 9 stops
longer than the lease, 5 % of the reads answered 502.  Without --database a PostgreSQL of the machine's is started, else
a SQLite file is used.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from piapi_async import CreateTask, PiAPI, PollPolicy, SubmissionUnknown
from piapi_async.batch import BatchItem
from piapi_async.emulator import Dialect, Emulator, SlowFirstByte, Status
from piapi_async.fleet import Fleet, Worker

LEASE = 4.0
TIMEOUT = 5.0


@frozen
class Size:
    """How large a run is."""

    items: int = 600
    workers: int = 3
    limit: int = 60
    kills: int = 9
    stops: int = 9
    pause: float = 3.5  # seconds between two disruptions
    costed: int = 300


SMOKE = Size(items=24, workers=2, limit=12, kills=1, stops=0, pause=3.0, costed=20)


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
        return max(sum(start <= at < start + lasted - 0.1 for start, lasted in self.made) for at, _ in self.made)


@contextlib.contextmanager
def database(url: str | None, folder: Path) -> Iterator[str]:
    """Give the URL of an empty database."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if url is not None or not found:
        yield url or f"sqlite:///{folder / 'run.db'}"
        return
    programs, data = found[-1].parent, folder / "data"
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        os.chmod(folder, 0o777)  # noqa: PTH101, S103 - a temporary folder, for another user

    def run(*command: str | Path) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words

    run(programs / "initdb", "-D", data, "-A", "trust", "-U", "fleet")
    options = f"-k {folder} -c listen_addresses=''"
    run(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql://fleet@/app?host={folder}"
    finally:
        run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


async def work(url: str, host: str, key: str, limit: str, per_worker: str) -> None:
    """Be one worker, until SIGTERM."""
    policy = PollPolicy(typical_duration=6.0)
    async with (
        PiAPI(key, base_url=host, poll=policy, timeout=TIMEOUT, recover=20.0) as piapi,
        Worker(url, piapi, concurrency=int(limit), per_worker=int(per_worker), lease=LEASE) as worker,
    ):
        print("ready", flush=True)
        await worker.run()


async def start(url: str, host: str, key: str, limit: int, per_worker: int) -> asyncio.subprocess.Process:
    """Return a worker that has started."""
    words = ("--work", url, host, key, str(limit), str(per_worker))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.fleet", *words, stdout=asyncio.subprocess.PIPE
    )
    if process.stdout is not None:
        await process.stdout.readline()
    return process


async def disrupt(size: Size, workers: list[asyncio.subprocess.Process], begin: Any, rng: Random) -> None:  # noqa: ANN401
    """Kill and stop workers, one after the other; a killed one is replaced."""
    plan = ["kill"] * size.kills + ["stop"] * size.stops
    rng.shuffle(plan)
    for what in plan:
        await asyncio.sleep(size.pause)
        number = rng.randrange(len(workers))
        if what == "kill":
            workers[number].kill()
            await workers[number].wait()
            workers[number] = await begin()
        else:
            workers[number].send_signal(signal.SIGSTOP)
            await asyncio.sleep(LEASE + 3.0)
            workers[number].send_signal(signal.SIGCONT)


async def long_run(url: str, size: Size) -> bool:
    """Run it, print what came of it beside what must; return whether all goals were met."""
    rng, seen = Random(1), Host()  # noqa: S311 - the same disruptions again
    emulator = Emulator(durations=seen.duration, dialect=Dialect(history=True), picture_size=32)
    async with emulator.run() as host, Fleet(url) as fleet:
        emulator.fail("create", SlowFirstByte(0.6), times=None)
        emulator.fail("task_read", Status(502), rate=0.05)

        async def begin() -> asyncio.subprocess.Process:
            return await start(url, host, emulator.api_key, size.limit, size.limit // 2)

        began = time.monotonic()
        workers = [await begin() for _ in range(size.workers)]
        jobs = await fleet.submit_many([BatchItem(request(number), f"item {number}") for number in range(size.items)])
        disrupting = asyncio.create_task(disrupt(size, workers, begin, rng))
        outcomes = await asyncio.gather(*[job.wait() for job in jobs])
        seconds = time.monotonic() - began
        disrupting.cancel()
        await asyncio.gather(disrupting, return_exceptions=True)
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
            worker.terminate()
            await worker.wait()

    done = sum(outcome.ok for outcome in outcomes)
    unknown = sum(isinstance(outcome.error, SubmissionUnknown) for outcome in outcomes)
    creates = Counter(task.given["prompt"] for task in emulator.engine.tasks.values())
    never_made = size.items - len(creates)
    return report(
        ("creates per item, at most", max(creates.values()), 1),
        ("items neither done nor unknown", size.items - done - unknown, 0),
        ("unknown, though the host made a task", unknown - never_made, 0),
        ("at the host at once, at most", seen.peak, size.limit),
        ("seconds in all", round(seconds), None),
        ("unknown, as a kill kept them from the host", never_made, None),
    )


async def costs(url: str, size: Size) -> bool:
    """Measure what an item costs one worker without faults."""
    emulator = Emulator(durations=1.0, picture_size=32)
    async with emulator.run() as host, Fleet(url) as fleet:
        other = await start(url, host, emulator.api_key, size.limit, size.limit)
        await fleet.submit_many([BatchItem(request(number), f"warm {number}") for number in range(5)])
        before = cpu_of(other.pid)
        jobs = await fleet.submit_many([BatchItem(request(number), f"cost {number}") for number in range(size.costed)])
        await asyncio.gather(*[job.wait() for job in jobs])
        spent = cpu_of(other.pid) - before
        other.terminate()
        await other.wait()
    return report(("CPU milliseconds per item", round(1000 * spent / size.costed, 1), 20.0))


def cpu_of(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def request(number: int) -> CreateTask:
    """Return one of the requests, none of which is another's."""
    return CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": f"cat {number}"})


def report(*rows: tuple[str, float, float | None]) -> bool:
    """Print figures beside their goals; return whether all are met."""
    met = True
    for what, figure, goal in rows:
        text = "" if goal is None else f"  (at most {goal:g})"
        print(f"  {what:45} {figure:>8g}{text}", flush=True)
        met = met and (goal is None or figure <= goal)
    return met


def main() -> None:
    """Read the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", help="default: a PostgreSQL of the machine's, else a SQLite file")
    parser.add_argument("--smoke", action="store_true", help="only to see that it runs")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        asyncio.run(work(*options.work))
        return

    size = SMOKE if options.smoke else Size()
    with tempfile.TemporaryDirectory(prefix="piapi-fleet-") as long, database(options.database, Path(long)) as url:
        met = asyncio.run(long_run(url, size))
    with tempfile.TemporaryDirectory(prefix="piapi-fleet-") as short, database(options.database, Path(short)) as url:
        cheap = asyncio.run(costs(url, size))
    print(f"  peak memory of a worker {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024} MB")
    if not met or not (cheap or options.smoke):
        sys.exit("a goal was missed")


if __name__ == "__main__":
    main()
