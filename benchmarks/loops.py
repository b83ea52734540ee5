"""What another event loop gives: CPU of a submission and a fetch on uvloop, beside the same on asyncio's own loop.

    python -m benchmarks.loops [--smoke] [--json FILE]

The host is `benchmarks.server`, in a process of its own.  Both loops live in one process and take turns in slices, each
with clients of its own; 64 calls are in flight.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import orjson
from attrs import asdict

from ._clients import BARE, NEAR, OURS, Calls
from ._goals import Goal, goals_table
from ._slices import Slice, Spread, cpu, in_flight, ratios, turn
from .server import server_process

IN_FLIGHT = 64
PAUSE = 0.005
CALLS = ("submit", "fetch")
CLIENTS = (OURS, BARE)
ASYNCIO, UVLOOP = "asyncio", "uvloop"


@asynccontextmanager
async def clients(base_url: str) -> AsyncIterator[Mapping[str, Calls]]:
    """Give the clients, open."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(NEAR[name](base_url, PAUSE)) for name in CLIENTS}


@contextmanager
def opened(base_url: str, kind: str) -> Iterator[tuple[asyncio.Runner, Mapping[str, Calls]]]:
    """Give an event loop with clients of its own."""
    factory = None
    if kind == UVLOOP:
        import uvloop  # noqa: PLC0415 - may be missing

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        entered = clients(base_url)
        calls = runner.run(entered.__aenter__())
        try:
            yield runner, calls
        finally:
            runner.run(entered.__aexit__(None, None, None))


def measure(base_url: str, *, rounds: int, count: int) -> dict[str, list[Slice]]:
    """Return the slices of each call, client and loop, named ``call client loop``."""
    with ExitStack() as stack:
        contestants = {}
        for kind in (ASYNCIO, UVLOOP):
            runner, of = stack.enter_context(opened(base_url, kind))
            for call, client in product(CALLS, CLIENTS):
                loop = in_flight(IN_FLIGHT, getattr(of[client], call))
                contestants[f"{call} {client} {kind}"] = runner, loop

        slices: dict[str, list[Slice]] = {name: [] for name in contestants}
        for runner, loop in contestants.values():
            runner.run(turn(loop, count))  # connects
        for number in range(rounds):
            for name in list(contestants)[:: -1 if number % 2 else 1]:
                runner, loop = contestants[name]
                slices[name].append(runner.run(turn(loop, count)))
    return slices


def goals(slices: Mapping[str, list[Slice]]) -> list[Goal]:
    """Return the figures as lines of the summary; they are told, not judged."""

    def share(call: str, client: str) -> Spread:
        return ratios(slices[f"{call} {client} {UVLOOP}"], slices[f"{call} {client} {ASYNCIO}"], cpu)

    told = []
    for call in CALLS:
        ours = ratios(slices[f"{call} {OURS} {UVLOOP}"], slices[f"{call} {BARE} {UVLOOP}"], cpu)
        told += [
            Goal(
                f"CPU of a {call} on uvloop : on asyncio, {IN_FLIGHT} in flight",
                str(share(call, OURS)),
                "",
                None,
                f"{BARE} {share(call, BARE)}",
            ),
            Goal(f"CPU of a {call} : {BARE}'s, both on uvloop, {IN_FLIGHT} in flight", str(ours), "", None),
        ]
    return told


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the table; `smoke` measures for seconds, and its figures mean little."""
    if find_spec(UVLOOP) is None:
        print("uvloop is not installed")
        return

    rounds, count = (2, IN_FLIGHT) if smoke else (40, 8 * IN_FLIGHT)
    with server_process() as remote:
        told = goals(measure(remote.base_url, rounds=rounds, count=count))
    print(goals_table("event loops", told), end="\n\n")
    if json_path is not None:
        found = {"goals": [asdict(goal) for goal in told]}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What another event loop gives.")
    parser.add_argument("--smoke", action="store_true", help="a second; the numbers mean little")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
