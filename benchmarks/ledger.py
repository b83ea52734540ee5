"""What it costs to have every submission on disk before it leaves, and every id before it is returned.

    python -m benchmarks.ledger [--smoke] [--json FILE]

The host is `benchmarks.server` in a process of its own.  Submissions without a ledger, submissions with
one, the two entries of a submission alone (claimed before the POST, accepted after it), and the three of
a reroll (ended, too, with the host's response of 1.8 kB, which is not awaited) take turns in slices; so do the
same entries in bare SQLite, as durably and without a ledger's checks (see `_bare_ledger`).  Each entry is in a
commit that the disk has confirmed; what is queued during one commit is the next, so in a crowd many rerolls
share three.

A second table is about a ledger of a million entries (see `_large_ledger`), which takes 2.7 GB of disk for some
minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import getrandbits
from typing import Any

import orjson
from attrs import asdict, frozen

from piapi_async import Ledger, PiAPI, Reroll
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.tasks import TaskId, TaskRef

from . import _large_ledger
from ._bare_ledger import bare_ledger
from ._goals import Goal, goals_table
from ._slices import Slice, Spread, in_flight, take_turns
from ._table import short, table
from .decode import ANSWERS
from .server import server_process

CROWDS = (1, 64)
GOAL = 50.0
"""µs per submission in a crowd of 64."""

WITHOUT, WITH = "submit, no ledger", "submit, ledger"
TWO, THREE = "a submission's two entries", "a reroll's three entries"
BARE: Mapping[str, str] = {TWO: "the two in bare SQLite", THREE: "the three in bare SQLite"}
_ANSWER = orjson.loads(ANSWERS["finished"])
REROLL = Reroll("6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d", prompt="a quiet landscape")


@frozen
class Line:
    """One contestant in one crowd: µs each time, and times per second."""

    what: str
    in_flight: int
    cpu: Spread
    wall: Spread

    @classmethod
    def of(cls, what: str, crowd: int, turns: Sequence[Slice]) -> Line:
        """Return the line of some turns."""
        cpu = Spread.of([turn.cpu * 1e6 for turn in turns])
        wall = Spread.of([turn.wall * 1e6 for turn in turns])
        return cls(what, crowd, cpu, wall)

    def cells(self) -> list[str]:
        """Return the line's cells."""
        return [
            self.what,
            str(self.in_flight),
            str(self.cpu),
            str(self.wall),
            f"{1e6 / self.wall.median:,.0f}",
        ]


async def measure(base_url: str, folder: Path, *, rounds: int, seconds: float) -> tuple[list[Line], Spread]:
    """Return the lines of all contestants, and the CPU that a ledger adds to a submission of a crowd."""
    async with AsyncExitStack() as stack:
        ledgers = [Ledger(folder / f"{name}.db") for name in ("submits", "two", "three")]
        plain = await stack.enter_async_context(PiAPI("a-key", base_url=base_url))
        recording = await stack.enter_async_context(PiAPI("a-key", base_url=base_url, ledger=ledgers[0]))
        for ledger in ledgers[1:]:
            stack.push_async_callback(ledger.close)

        async def two(ledger: Ledger = ledgers[1]) -> TaskRef:
            identity = SubmissionKey.of(REROLL.to_http(), key=None, origin=base_url, family="legacy")
            await writer_of(ledger).claim(identity)
            ref = TaskRef(base_url, "legacy", TaskId(f"{getrandbits(128):032x}"))
            await writer_of(ledger).accept(identity, ref)
            return ref

        async def three() -> None:
            writer_of(ledgers[2]).end(await two(ledgers[2]), "done", _ANSWER)

        bare = {
            name: await stack.enter_async_context(bare_ledger(folder / f"bare {name}.db"))
            for name in (TWO, THREE)
        }

        lines, added = [], Spread(0.0, 0.0, 0.0)
        for crowd in CROWDS:
            loops = {
                WITHOUT: in_flight(crowd, lambda: plain.submit(REROLL)),
                WITH: in_flight(crowd, lambda: recording.submit(REROLL)),
                TWO: in_flight(crowd, two),
                THREE: in_flight(crowd, three),
                BARE[TWO]: in_flight(crowd, bare[TWO].two),
                BARE[THREE]: in_flight(crowd, lambda: bare[THREE].three(ANSWERS["finished"])),
            }
            turns = await take_turns(loops, rounds=rounds, seconds=seconds, least=crowd)
            lines += [Line.of(name, crowd, turns[name]) for name in loops]
            pairs = zip(turns[WITH], turns[WITHOUT], strict=True)
            added = Spread.of([(dear.cpu - cheap.cpu) * 1e6 for dear, cheap in pairs])
        return lines, added


def sync_time(folder: Path) -> float:
    """Return the µs that the disk takes to confirm one page."""
    taken = []
    with (folder / "page").open("wb") as file:
        for _ in range(100):
            file.seek(0)  # as in SQLite's log, which is written over again and again
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def goals(lines: Sequence[Line], added: Spread, sync: float) -> list[Goal]:
    """Return the goals, with what was reached."""
    limit = f"<= {GOAL:g} µs"
    found = [
        Goal(
            f"CPU that a ledger adds to a submit, {CROWDS[-1]} in flight",
            f"{added} µs",
            limit,
            added.median <= GOAL,
            why="what exceeds the two entries alone is the price of two threads that share one interpreter",
        )
    ]
    for what in (TWO, THREE):
        line, bare = (_of(lines, name) for name in (what, BARE[what]))
        why = (
            f"{short(line.cpu.median)} µs of it is CPU, the rest is the disk, which takes {short(sync)} µs to "
            f"confirm a page; bare SQLite, as durably and without a ledger's checks, takes {bare.wall} µs here"
        )
        found.append(
            Goal(
                f"time of {what}, {CROWDS[-1]} in flight",
                f"{line.wall} µs",
                limit,
                line.wall.median <= GOAL,
                why=why,
            )
        )
    return found


def _of(lines: Sequence[Line], what: str) -> Line:
    """Return the line of a contestant in the larger crowd."""
    return next(line for line in lines if (line.what, line.in_flight) == (what, CROWDS[-1]))


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables."""
    begun = time.perf_counter()
    with server_process() as remote, tempfile.TemporaryDirectory() as name:
        sync = sync_time(Path(name))
        lines, added = asyncio.run(
            measure(remote.base_url, Path(name), rounds=2 if smoke else 25, seconds=0.05 if smoke else 0.3)
        )
    with tempfile.TemporaryDirectory() as name:
        large = asyncio.run(_large_ledger.measure(Path(name), smoke=smoke))
    columns = ("", "in flight", "µs CPU", "µs", "per second")
    print(
        table(
            f"ledger; the disk confirms a page in {short(sync)} µs", columns, [line.cells() for line in lines]
        )
    )
    print()
    print(_large_ledger.text(large), end="\n\n")
    judged = goals(lines, added, sync) + _large_ledger.goals(large)
    print(goals_table("ledger", judged), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found: dict[str, Any] = {
            "goals": [asdict(goal) for goal in judged],
            "lines": [asdict(line) for line in lines],
            "sync": sync,
            "large": asdict(large),
        }
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a ledger costs.")
    parser.add_argument(
        "--smoke", action="store_true", help="seconds instead of minutes; the numbers mean little"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
