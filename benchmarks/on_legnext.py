"""LegNext's own package beside this one, on LegNext's protocol: how they wait, and who pays twice.

    python -m benchmarks.on_legnext [--tasks N]

Both run as they come against the emulator, on a virtual clock.  Tasks take 25 to 150 s, six are in flight.  A wait is
measured by its requests per task and by how late an end is noticed; a submission by how many jobs it makes if its
response is lost or a gateway answers in the host's place.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

from attrs import frozen

from piapi_async import PollPolicy, legnext
from piapi_async.emulator import Drop, Emulator, Fault, Lognormal, Status

from ._table import table
from ._virtual import run_virtual

SPREAD = Lognormal(45.0, 120.0, 25.0, 150.0)
FAULTS: Mapping[str, Fault] = {
    "the response is lost": Drop(after_body=True),
    "502 after the job was made": Status(502, made=True),
    "504 after the job was made": Status(504, made=True),
}


@frozen
class Calls:
    """What a package does: submit a prompt and return the id; wait for an id."""

    submit: Callable[[str], Awaitable[str]]
    wait: Callable[[str], Awaitable[object]]


@asynccontextmanager
async def ours(emulator: Emulator, delay: float = 1.5) -> AsyncIterator[Calls]:
    """Give this package's calls, with its one setting for polls."""
    poll = PollPolicy(delay=delay)
    async with legnext.client(emulator.api_key, base_url=emulator.base_url, poll=poll) as piapi:

        async def submit(prompt: str) -> str:
            return (await piapi.submit(legnext.Imagine(prompt))).task_id

        yield Calls(submit, lambda job_id: piapi.attach(job_id).wait())


@asynccontextmanager
async def theirs(emulator: Emulator) -> AsyncIterator[Calls]:
    """Give those of LegNext's package."""
    module: Any = importlib.import_module("legnext")
    async with module.AsyncClient(emulator.api_key, f"{emulator.base_url}/api") as client:

        async def submit(prompt: str) -> str:
            return str((await client.midjourney.diffusion(text=prompt)).job_id)

        yield Calls(submit, lambda job_id: client.tasks.wait_for_completion(job_id, timeout=600))


Package = Callable[[Emulator], AbstractAsyncContextManager[Calls]]
PACKAGES: Mapping[str, Package] = {"piapi_async": ours, "legnext": theirs}


async def wait_for_many(package: Package, tasks: int) -> tuple[float, float]:
    """Return requests per task and the 95th percentile of the delays, in seconds."""
    emulator = Emulator(seed=1, durations=SPREAD)
    async with emulator.run(), package(emulator) as calls:
        places = asyncio.Semaphore(6)

        async def one(number: int) -> None:
            async with places:
                await calls.wait(await calls.submit(f"cat {number}"))

        await asyncio.gather(*map(one, range(tasks)))
        return emulator.seen.reads / tasks, emulator.seen.delays()["p95"] or 0.0


async def submit_under(fault: Fault, package: Package) -> int:
    """Return how many jobs one submission has made."""
    emulator = Emulator(seed=1)
    async with emulator.run(), package(emulator) as calls:
        emulator.fail("create", fault, times=None)
        with contextlib.suppress(Exception):
            await calls.submit("a cat")
        return emulator.seen.creates


def main(tasks: int) -> None:
    """Print both tables."""
    waiting: dict[str, Package] = {**PACKAGES, "piapi_async, PollPolicy(delay=3)": partial(ours, delay=3.0)}
    waits = {name: run_virtual(wait_for_many(package, tasks)) for name, package in waiting.items()}
    rows = [(name, f"{requests:.1f}", f"{delay:.2f}") for name, (requests, delay) in waits.items()]
    print(
        table(
            f"waiting for {tasks} jobs, six in flight",
            ("package", "requests per job", "p95 of the delay, s"),
            rows,
        )
    )

    made = [
        (name, *(str(run_virtual(submit_under(fault, package))) for package in PACKAGES.values()))
        for name, fault in FAULTS.items()
    ]
    print(table("jobs that one submission has made", ("what happens", *PACKAGES), made))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=300, metavar="N")
    main(parser.parse_args().tasks)
