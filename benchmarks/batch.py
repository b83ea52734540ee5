"""What bulk running costs: memory, CPU per reroll, rerolls per second; beside the loops one would write otherwise.

    python -m benchmarks.batch [--smoke] [--json FILE]

The host is `benchmarks.server` in a process of its own; every task is finished at its first or second
poll.  The loops take turns in slices within one process, so that whatever else the machine does affects
all of them; a ratio is the median over the rounds, with the middle half in parentheses.  The peers poll
again at once, all the time, which is the fastest they can be.  Memory is measured in processes of their
own: the kernel's peak after the client was made and has run once.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import io
import itertools
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from attrs import asdict, frozen

from piapi_async import BatchRunner, Ledger, PiAPI, PollPolicy, Reroll

from ._encoding import encoding_goals
from ._goals import Goal, goals_table
from ._slices import Loop, Slice, Spread, cpu, in_flight, ratios, take_turns, wall
from ._table import short, table
from .server import Remote, server_process

IN_FLIGHT = 64
INTERVAL = 0.005
"""Seconds between two polls of a task; real ones take a minute, but here waiting is not measured."""

ALONE = "submit and wait alone"

_TAKES = itertools.count(1)

PARENT = "6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d"
KEY = "a-key"

GOAL_PEAK, GOAL_GROWTH = 16.0, 2.0  # MB
GOAL_CPU, GOAL_RATE = 0.72, 8.0
GOAL_MASK = 40.0  # MB
MASK = 6 * 2**20
"""Bytes of a mask, whose base64 has 8 MB."""

BEND = 1.05
"""Ten times more tasks may cost 10.5 times more."""


@frozen
class Memory:
    """One run in a process of its own; MB over the start, CPU in seconds."""

    rerolls: int
    peak: float
    cpu: float
    seconds: float


def requests(count: int) -> Iterator[Reroll]:
    """Yield so many rerolls, one at a time; no two are alike, so that no ledger knows one already."""
    for _ in range(count):
        yield Reroll(PARENT, prompt=f"a quiet landscape, take {next(_TAKES)}")


# -- the loops ----------------------------------------------------------------------------------------------------


async def run_batch(piapi: PiAPI, count: int) -> None:
    """Run so many rerolls as a user would, throwing each outcome away."""
    done = 0
    async with BatchRunner(piapi, concurrency=IN_FLIGHT).stream(requests(count)) as outcomes:
        async for outcome in outcomes:
            done += outcome.ok
    assert done == count  # noqa: S101 - a run that failed has measured nothing


@asynccontextmanager
async def batch_loop(base_url: str, ledger: Path | None = None) -> AsyncIterator[Loop]:
    """Yield the loop on the batch runner."""
    book = None
    if ledger is not None:
        book = Ledger(ledger)
    async with PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(INTERVAL), ledger=book) as piapi:
        yield lambda count: run_batch(piapi, count)


@asynccontextmanager
async def handle_loop(base_url: str) -> AsyncIterator[Loop]:
    """Yield the loop on `submit` and `wait` alone: what a reroll costs before anything of a batch."""
    async with PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(INTERVAL)) as piapi:

        async def reroll() -> None:
            await (await piapi.submit(Reroll(PARENT, prompt="a quiet landscape"))).wait()

        yield in_flight(IN_FLIGHT, reroll)


@asynccontextmanager
async def bare_loop(base_url: str) -> AsyncIterator[Loop]:
    """Yield the loop on bare aiohttp: dict in, dict out, one fetch after the other."""
    async with aiohttp.ClientSession(base_url, headers={"X-API-Key": KEY}) as session:

        async def reroll() -> None:
            body = {"origin_task_id": PARENT, "prompt": "a quiet landscape"}
            async with session.post("/mj/v2/reroll", json=body) as response:
                made = await response.json()
            status = ""
            while status != "finished":
                async with session.post("/mj/v2/fetch", json={"task_id": made["task_id"]}) as response:
                    status = (await response.json())["status"]

        yield in_flight(IN_FLIGHT, reroll)


@asynccontextmanager
async def openai_loop(base_url: str) -> AsyncIterator[Loop]:
    """Yield the same loop on openai's client, pointed at the host, with typed models."""
    openai: Any = __import__("openai")  # not among our dependencies: nothing is known of its types
    Model: Any = openai.BaseModel  # noqa: N806 - a class

    class Made(Model):  # type: ignore[misc]  # an Any to the type checker
        task_id: str
        status: str = ""
        message: str = ""

    class Result(Model):  # type: ignore[misc]  # an Any to the type checker
        image_url: str = ""
        image_urls: list[str] = []
        task_progress: int = 0
        error_messages: list[str] = []
        actions: list[str] = []

    class Found(Model):  # type: ignore[misc]  # an Any to the type checker
        task_id: str
        status: str
        task_result: Result

    async with openai.AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0) as client:

        async def reroll() -> None:
            body = {"origin_task_id": PARENT, "prompt": "a quiet landscape"}
            made = await client.post("/mj/v2/reroll", cast_to=Made, body=body)
            status = ""
            while status != "finished":
                found = await client.post("/mj/v2/fetch", cast_to=Found, body={"task_id": made.task_id})
                status = found.status

        yield in_flight(IN_FLIGHT, reroll)


# -- measuring ----------------------------------------------------------------------------------------------------


async def compare(base_url: str, *, rounds: int, seconds: float) -> dict[str, list[Slice]]:
    """Measure the loops side by side; openai's if it is installed."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        loops: dict[str, Loop] = {
            "batch": await stack.enter_async_context(batch_loop(base_url)),
            "batch with a ledger": await stack.enter_async_context(
                batch_loop(base_url, Path(folder, "run.db"))
            ),
            ALONE: await stack.enter_async_context(handle_loop(base_url)),
            "bare aiohttp": await stack.enter_async_context(bare_loop(base_url)),
        }
        if find_spec("openai") is not None:
            loops["openai"] = await stack.enter_async_context(openai_loop(base_url))
        return await take_turns(loops, rounds=rounds, seconds=seconds, least=IN_FLIGHT)


def measure_memory(base_url: str, count: int) -> Memory:
    """Run so many rerolls in this process, and return its peak over the start."""
    return asyncio.run(_measure_memory(base_url, count))


async def _measure_memory(base_url: str, count: int) -> Memory:
    async with batch_loop(base_url) as loop:
        await loop(1)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the kernel forgets the peak so far
        before = _kernel("VmRSS")
        wall, cpu = time.perf_counter(), time.process_time()
        await loop(count)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return Memory(count, (_kernel("VmHWM") - before) / 1024, cpu, wall)


def measure_mask(base_url: str) -> float:
    """Run `piapi-async batch` for one Inpaint with a large mask in this process; return its peak in MB over the start.

    The start is after a run with a small one.
    """
    from piapi_async.cli import cli  # noqa: PLC0415 - an extra
    from piapi_async.cli._memory import give_back_large_blocks  # noqa: PLC0415

    # As the command does: what making the masks leaves free in the heap would be a copy's place, or not.
    give_back_large_blocks()
    os.environ |= {"PIAPI_API_KEY": KEY, "PIAPI_BASE_URL": base_url, "PIAPI_POLL_SPEED": "300"}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        inputs = [Path(folder, name) for name in ("small.jsonl", "large.jsonl")]
        for path, size in zip(inputs, (1000, MASK), strict=True):
            mask = base64.b64encode(bytes(size)).decode()
            path.write_bytes(orjson.dumps({"verb": "inpaint", "origin_task_id": PARENT, "mask": mask}))

        before = 0
        for path in inputs:
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            before = _kernel("VmRSS")
            files = ["--ledger", f"{path}.db", "--out", f"{path}.results"]
            cli(["batch", str(path), *files], standalone_mode=False)
    return (_kernel("VmHWM") - before) / 1024


def _kernel(name: str) -> int:
    """Return one of the kernel's figures about this process, in kB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith(name)).split()[1])


def _goals(slices: dict[str, list[Slice]], runs: list[Memory], mask: float) -> list[Goal]:
    batch = slices["batch"]
    few, many, again = runs
    growth, times = many.peak - few.peak, many.rerolls / few.rerolls
    bend = many.cpu / ((few.cpu + again.cpu) / 2) / times
    cost = ratios(batch, slices["bare aiohttp"], cpu)
    alone = ratios(slices[ALONE], slices["bare aiohttp"], cpu)
    goals = [
        Goal(
            f"peak memory over start, {many.rerolls:,} rerolls",
            f"{many.peak:.1f} MB",
            f"<= {GOAL_PEAK:g} MB",
            max(few.peak, many.peak) <= GOAL_PEAK,
        ),
        Goal(
            f"its growth from {few.rerolls:,} to {many.rerolls:,}",
            f"{growth:.1f} MB",
            f"<= {GOAL_GROWTH:g} MB",
            growth <= GOAL_GROWTH,
        ),
        Goal(
            f"CPU for {times:g} x as many",
            f"{bend * times:.2f} x",
            f"<= {BEND * times:.1f} x",
            bend <= BEND,
        ),
        Goal(
            f"peak memory over start, an inpaint whose mask has {MASK * 4 / 3e6:.0f} MB, through the command",
            f"{mask:.0f} MB",
            f"<= {GOAL_MASK:g} MB",
            mask <= GOAL_MASK,
            why="the request and its text for the ledger are a copy each, and SQLite makes two to write a row",
        ),
        Goal(
            "CPU per reroll : bare aiohttp's",
            str(cost),
            f"<= {GOAL_CPU:.2f}",
            cost.median <= GOAL_CPU,
            why=f"submit and wait alone are at {short(alone.median)}; the rest is slots, counts and outcomes",
        ),
    ]
    what, limit = "rerolls per second : openai's", f">= {GOAL_RATE:g}"
    if "openai" not in slices:
        return [*goals, Goal(what, "openai is not installed", limit, None)]
    rate = ratios(slices["openai"], batch, wall)
    return [*goals, Goal(what, str(rate), limit, rate.median >= GOAL_RATE)]


def _loops(slices: dict[str, list[Slice]]) -> list[list[str]]:
    return [
        [
            name,
            short(Spread.of([each.cpu for each in found]).median * 1e6),
            f"{1 / Spread.of([each.wall for each in found]).median:,.0f}",
        ]
        for name, found in slices.items()
    ]


def _measure(
    remote: Remote, *, smoke: bool
) -> tuple[dict[str, list[Slice]], list[Memory], dict[str, float], float]:
    few, many = (300, 3000) if smoke else (10_000, 100_000)
    remote.reset()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        runs = [pool.submit(measure_memory, remote.base_url, size).result() for size in (few, many, few)]
        seen = remote.counted()
        mask = pool.submit(measure_mask, remote.base_url).result()
    facts = {
        "requests per reroll": seen.requests / seen.submits,
        "ids per request": seen.asked / max(1, seen.fetches + seen.multi_fetches),
        "server busy": seen.busy,
    }
    slices = asyncio.run(compare(remote.base_url, rounds=2 if smoke else 20, seconds=0.1 if smoke else 0.4))
    return slices, runs, facts, mask


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables."""
    begun = time.perf_counter()
    with server_process() as remote:
        slices, runs, facts, mask = _measure(remote, smoke=smoke)
        encoded = asyncio.run(encoding_goals(remote.base_url, KEY, PARENT))
    goals = _goals(slices, runs, mask) + encoded
    print(goals_table(f"batch, {IN_FLIGHT} in flight", goals))
    print()
    print(table("the loops", ("", "µs CPU per reroll", "rerolls per second"), _loops(slices)))
    print()
    print(
        f"the batch made {facts['requests per reroll']:.2f} requests per reroll, "
        f"{facts['ids per request']:.1f} ids in each poll; "
        f"the server was busy {facts['server busy']:.0%} of that time\n"
    )
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found: dict[str, Any] = {
            "goals": [asdict(goal) for goal in goals],
            "slices": {name: [asdict(each) for each in taken] for name, taken in slices.items()},
            "memory": [asdict(run) for run in runs],
            "facts": facts,
        }
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What bulk running costs.")
    parser.add_argument("--smoke", action="store_true", help="fewer rerolls; the numbers mean little")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
