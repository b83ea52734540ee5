"""A ledger of many entries: what is asked of it costs what it returns, and it can be made small.

Each entry is that of a finished reroll with the host's response of 1.8 kB; some are accepted, some unknown.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import IO, Any, cast

from attrs import frozen

from piapi_async import Ledger
from piapi_async.ledger import compact
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._schema import SCHEMA
from piapi_async.ledger._sqlite import make

from ._bare_ledger import FAMILY, ORIGIN, bare_ledger
from ._goals import Goal
from ._table import short, table
from .decode import ANSWERS

ROWS, SMOKE_ROWS = 1_000_000, 3_000
OPEN = 1_000
"""Entries that are accepted, and as many that are unknown; in smoke mode a tenth."""

_INSERT = """
INSERT INTO submits (key, origin, family, digest, request, at, state, task_id, outcome, answer)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@frozen
class Costs:
    """What was measured of one ledger: times in seconds of CPU of this process, but for `show` and `compact`."""

    rows: int
    open: float
    find: float
    bare_find: float
    """The same in bare SQLite, in a thread."""
    pending: float
    unknown: float
    counts: float


@frozen
class Shown:
    """What `ledger show` took: seconds until the first line and until the last, bytes of memory at most."""

    first: float
    last: float
    peak: int


@frozen
class Large:
    """The figures of a large ledger, those of one with a hundredth of its entries, and of making it small."""

    costs: Costs
    few: Costs
    shown: Shown
    shown_few: Shown
    compacted_in: float
    bytes_before: int
    bytes_after: int


def build(path: Path, rows: int, *, still_open: int) -> None:
    """Write a ledger as if its submissions had been made one a second until now."""
    make(path, SCHEMA)
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.execute("PRAGMA journal_mode = MEMORY")
        file.execute("PRAGMA synchronous = OFF")
        file.execute("BEGIN")
        file.executemany(_INSERT, _rows(rows, still_open))
        file.execute("COMMIT")
        file.execute("PRAGMA journal_mode = WAL")
    # Else gigabytes would be on their way to the disk while it is measured.
    if hasattr(os, "sync"):  # not on Windows
        os.sync()


def _rows(count: int, still_open: int) -> Iterator[tuple[Any, ...]]:
    random = Random(1)  # noqa: S311 - it is for ids
    began = time.time() - count
    for number in range(count):
        task_id = f"{random.getrandbits(128):032x}"
        end: tuple[Any, ...] = ("ended", task_id, "done", ANSWERS["finished"])
        if number >= count - 2 * still_open:
            end = ("accepted", task_id, None, None)
        if number >= count - still_open:
            end = ("unknown", None, None, None)

        request = f'/mj/v2/reroll {{"origin_task_id": "6886fc4d", "prompt": "a quiet landscape, {number}"}}'
        yield f"key {number:09}", ORIGIN, FAMILY, random.randbytes(32), request, began + number, *end


async def costs(path: Path, rows: int) -> Costs:
    """Return what opening a ledger and asking it takes."""
    opened = [await _opening(path) for _ in range(5)]
    ledger = Ledger(path)
    keys = [f"key {number * 4_987 % rows:09}" for number in range(2_000)]

    async def find_all() -> None:
        for key in keys:
            await ledger.find(key)

    async with bare_ledger(path) as bare:

        async def find_all_bare() -> None:
            for key in keys:
                await bare.find(key)

        await find_all_bare()  # the system has the pages in memory then
        bare_find = await _cpu_of(find_all_bare) / len(keys)

    try:
        return Costs(
            rows,
            statistics.median(opened),
            await _cpu_of(find_all) / len(keys),
            bare_find,
            await _cpu_of(ledger.pending),
            await _cpu_of(ledger.unknown),
            await _cpu_of(ledger.counts),
        )
    finally:
        await ledger.close()


async def _opening(path: Path) -> float:
    """Return the seconds, not of CPU alone, that a ledger takes until it has done something."""
    ledger = Ledger(path)
    began = time.perf_counter()
    await writer_of(ledger).run(lambda _: None)
    taken = time.perf_counter() - began
    await ledger.close()
    return taken


async def _cpu_of(work: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(5):
        began = time.process_time()
        await work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


def show(path: Path) -> Shown:
    """Run `piapi-async ledger show` to its end."""
    words = [sys.executable, "-m", "piapi_async", "ledger", "show", str(path)]
    began = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own words
        output = cast("IO[bytes]", process.stdout)
        output.readline()
        first = time.perf_counter() - began
        while output.read(1 << 20):
            pass
        _, process.returncode, used = os.wait4(process.pid, 0)
    return Shown(first, time.perf_counter() - began, used.ru_maxrss * 1024)


async def measure(folder: Path, *, smoke: bool) -> Large:
    """Build a large ledger and one of a hundredth of its entries, ask both, and make the large one small."""
    rows, still_open = ROWS, OPEN
    if smoke:
        rows, still_open = SMOKE_ROWS, OPEN // 100
    large, small = folder / "large.db", folder / "small.db"
    build(large, rows, still_open=still_open)
    build(small, max(rows // 100, 3 * still_open), still_open=still_open)

    found, few = await costs(large, rows), await costs(small, max(rows // 100, 3 * still_open))
    shown, shown_few = show(large), show(small)

    ledger = Ledger(large)
    began = time.perf_counter()
    report = await compact(ledger, datetime.now(UTC))
    taken = time.perf_counter() - began
    await ledger.close()
    return Large(found, few, shown, shown_few, taken, report.bytes_before, report.bytes_after)


def text(found: Large) -> str:
    """Return the table."""
    rows = [
        [name, f"{short(large * factor)} {unit}", f"{short(few * factor)} {unit}"]
        for name, large, few, factor, unit in (
            ("entries", found.costs.rows, found.few.rows, 1, ""),
            ("open", found.costs.open, found.few.open, 1e3, "ms"),
            ("find, CPU", found.costs.find, found.few.find, 1e6, "µs"),
            ("the same in bare SQLite", found.costs.bare_find, found.few.bare_find, 1e6, "µs"),
            ("pending(), CPU", found.costs.pending, found.few.pending, 1e3, "ms"),
            ("unknown(), CPU", found.costs.unknown, found.few.unknown, 1e3, "ms"),
            ("counts(), CPU", found.costs.counts, found.few.counts, 1e3, "ms"),
            ("ledger show, first line", found.shown.first, found.shown_few.first, 1e3, "ms"),
            ("ledger show, last line", found.shown.last, found.shown_few.last, 1, "s"),
            ("ledger show, memory", found.shown.peak, found.shown_few.peak, 1e-6, "MB"),
        )
    ]
    smaller = f"{found.bytes_before / 1e6:,.0f} MB → {found.bytes_after / 1e6:,.0f} MB"
    rows.append(["ledger compact", f"{short(found.compacted_in)} s, {smaller}", ""])
    return table("a large ledger, and one of a hundredth of its entries", ("", "large", "small"), rows)


def goals(found: Large) -> list[Goal]:
    """Return the goals, with what was reached; pending and unknown cost what they return, not what there is."""
    what = f"ledger of {found.costs.rows:,} entries: "
    grown = found.shown.peak - found.shown_few.peak
    ratios = {
        "pending()": found.costs.pending / found.few.pending,
        "unknown()": found.costs.unknown / found.few.unknown,
        "ledger show's first line": found.shown.first / found.shown_few.first,
    }
    return [
        _at_most(f"{what}open", found.costs.open * 1e3, 50, "ms"),
        _at_most(
            f"{what}find, CPU",
            found.costs.find * 1e6,
            100,
            "µs",
            f"bare SQLite in a thread takes {short(found.costs.bare_find * 1e6)} µs here",
        ),
        *(
            _at_most(f"{what}{name} : the same in a small one", ratio, 1.5, "")
            for name, ratio in ratios.items()
        ),
        _at_most(f"{what}ledger show, memory above a small one's", grown / 1e6, 10, "MB"),
    ]


def _at_most(what: str, reached: float, limit: float, unit: str, why: str = "") -> Goal:
    return Goal(
        what, f"{short(reached)} {unit}".strip(), f"<= {limit:g} {unit}".strip(), reached <= limit, why=why
    )
