"""Calls in a process that has just begun, beside bare aiohttp's: `overhead` has this measured by a child.

    python -m benchmarks._new_process URL ROUNDS SECONDS

asyncio makes room for 256 KiB whenever it reads from a socket.  As long as a process has never freed a block of that
size, glibc has the system map and unmap those pages for every response, unless there happens to be room at the end of
the heap; once it has freed one, a picture for instance, they stay at hand.  This package asks for less, which glibc
has at hand from the beginning.  So what a call costs beside bare aiohttp depends on what the process has done before:
`overhead`'s own tables are of one that has freed a large block, and these figures of one that has not.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import product
from pathlib import Path
from typing import Any

import orjson
from attrs import asdict, define, frozen

from ._clients import BARE, NEAR, OURS
from ._slices import Loop, Spread, cpu, in_flight, ratios, take_turns

CALLS, CROWDS = ("submit", "fetch"), (1, 64)


@frozen
class NewProcess:
    """Our CPU by bare aiohttp's, and the pages per call that each had the system map."""

    call: str
    in_flight: int
    cpu_to_bare: Spread
    pages: Mapping[str, float]

    def cells(self) -> list[str]:
        """Give the line's texts."""
        pages = (f"{self.pages[name]:.2f}" for name in (OURS, BARE))
        return [f"{self.call}, {self.in_flight} in flight", str(self.cpu_to_bare), *pages]


TITLE = "in a process that has just begun"
COLUMNS = ("", f"CPU : {BARE}", f"{OURS}, pages", f"{BARE}, pages")


def measure(base_url: str, *, rounds: int, seconds: float) -> list[NewProcess]:
    """Let a child measure, and give what it found."""
    words = [sys.executable, "-m", "benchmarks._new_process", base_url, str(rounds), str(seconds)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=root)  # noqa: S603 - this very module
    return [
        NewProcess(**{**found, "cpu_to_bare": Spread(**found["cpu_to_bare"])})
        for found in orjson.loads(done.stdout)
    ]


async def _measure_here(base_url: str, rounds: int, seconds: float) -> list[NewProcess]:
    found = []
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(NEAR[name](base_url, 0.005)) for name in (OURS, BARE)
        }
        for call, crowd in product(CALLS, CROWDS):
            loops = {
                name: _Counting(in_flight(crowd, getattr(calls, call))) for name, calls in clients.items()
            }
            turns = await take_turns(loops, rounds=rounds, seconds=seconds, least=crowd)
            pages = {name: loop.pages / loop.calls for name, loop in loops.items()}
            found.append(NewProcess(call, crowd, ratios(turns[OURS], turns[BARE], cpu), pages))
    return found


@define
class _Counting:
    """A loop that counts its calls, and the pages that the system maps meanwhile."""

    loop: Loop
    calls: int = 0
    pages: int = 0

    async def __call__(self, count: int) -> None:
        before = _pages()
        await self.loop(count)
        self.pages += _pages() - before
        self.calls += count


def _pages() -> int:
    """Give the pages that the system has mapped for this process, 0 where it does not tell (Windows)."""
    try:
        import resource  # noqa: PLC0415 - not everywhere
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _main(base_url: str, rounds: str, seconds: str) -> None:
    found: Sequence[NewProcess] = asyncio.run(_measure_here(base_url, int(rounds), float(seconds)))
    written: list[Any] = [asdict(each) for each in found]
    sys.stdout.buffer.write(orjson.dumps(written))


if __name__ == "__main__":
    _main(*sys.argv[1:])
