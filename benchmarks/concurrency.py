"""How many tasks a batch should have in flight, where the host does not say: `concurrency="auto"` against fixed ones.

    python -m benchmarks.concurrency [--smoke] [--json FILE]

The real client runs against the emulator on a virtual clock.  Accounts differ in how many tasks they run at a time,
and in how many they queue beside these (many do not: what is over is refused); two change while the run lasts.  What
"auto" gets done in a minute is compared with what the best fixed number does, which nobody knows in advance; be it one
at which thousands of items fail, because the host has refused them again and again, which is told beside.  The first
sixth of a run is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import orjson
from attrs import asdict, frozen

from piapi_async import BatchRunner, Imagine
from piapi_async.emulator import Dialect, Emulator, Lognormal

from ._goals import Goal, goals_table
from ._table import table
from ._virtual import run_virtual

FIXED = (10, 30, 90)
MEDIAN, P95, SHORTEST, LONGEST = 45.0, 120.0, 12.0, 300.0  # seconds; fast mode's (vendor page)

GOAL_SHARE, GOAL_REFUSED = 0.90, 0.01


@frozen
class Account:
    """How many tasks an account runs and queues; `changes` are later numbers, by the second of the run."""

    name: str
    runs: int
    queues: int
    changes: tuple[tuple[float, int], ...] = ()


ACCOUNTS = (
    Account("5 at a time, 50 queued", 5, 50),
    Account("30 at a time, 50 queued", 30, 50),
    Account("90 at a time, 50 queued", 90, 50),
    Account("5 at a time, none queued", 5, 0),
    Account("30 at a time, none queued", 30, 0),
    Account("60 at a time, none queued", 60, 0),
    Account("30, then 10, then 60, 50 queued", 30, 50, ((1200.0, 10), (2400.0, 60))),
    Account("30, then 10, then 60, none queued", 30, 0, ((1200.0, 10), (2400.0, 60))),
)


@frozen
class Run:
    """What one run came to, from its first minutes on: tasks per minute, the share of creates that were refused."""

    account: str
    concurrency: str
    per_minute: float
    refused: float
    failed: int


def measure(account: Account, concurrency: int | Literal["auto"], *, seconds: float) -> Run:
    """Run a batch for some virtual seconds."""
    return run_virtual(_measure(account, concurrency, seconds))


async def _measure(account: Account, concurrency: int | Literal["auto"], seconds: float) -> Run:
    emulator = Emulator(
        seed=1,
        concurrency=account.runs,
        queue=account.queues,
        durations=Lognormal(MEDIAN, P95, SHORTEST, LONGEST),
        dialect=Dialect(account="flat"),
    )
    done = failed = 0
    warm = seconds / 6
    async with emulator.run(), emulator.client() as piapi:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for at, runs in account.changes:
            loop.call_later(at, _run_at_a_time, emulator, runs)

        before = refused_before = 0
        runner = BatchRunner(piapi, concurrency=concurrency)
        async with runner.stream(Imagine(f"landscape {number}") for number in range(1_000_000)) as outcomes:
            async for outcome in outcomes:
                now = loop.time() - begun
                if now < warm:
                    before, refused_before = emulator.seen.creates, piapi.stats.put_off
                elif now > seconds:
                    break
                else:
                    done += outcome.ok
                    failed += not outcome.ok
        creates = emulator.seen.creates - before
        refused = piapi.stats.put_off - refused_before
    return Run(
        account.name,
        str(concurrency),
        done / (seconds - warm) * 60,
        refused / max(1, creates + refused),
        failed,
    )


def _run_at_a_time(emulator: Emulator, runs: int) -> None:
    emulator.engine.concurrency = runs
    for place in emulator.engine._accounts.values():  # noqa: SLF001 - as a plan that changes
        place.concurrency = runs


def _goals(runs: Sequence[Run]) -> list[Goal]:
    goals = []
    for name in dict.fromkeys(run.account for run in runs):
        fixed = [run for run in runs if run.account == name and run.concurrency != "auto"]
        auto = next(run for run in runs if run.account == name and run.concurrency == "auto")
        share = auto.per_minute / max(run.per_minute for run in fixed)
        goals.append(
            Goal(
                f'tasks per minute with concurrency="auto" : the best fixed number\'s, {name}',
                f"{share:.0%}, {auto.refused:.1%} refused",
                f">= {GOAL_SHARE:.0%}, <= {GOAL_REFUSED:.0%}",
                share >= GOAL_SHARE and auto.refused <= GOAL_REFUSED,
                ", ".join(
                    f"with {run.concurrency}, {run.failed:,} items fail" for run in fixed if run.failed
                ),
            )
        )
    return goals


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables."""
    logging.getLogger("piapi_async").setLevel(logging.ERROR)  # each run is left while tasks are in flight
    begun = time.perf_counter()
    accounts = ACCOUNTS[1:2] if smoke else ACCOUNTS
    seconds = 240.0 if smoke else 3600.0
    runs = [measure(account, each, seconds=seconds) for account in accounts for each in (*FIXED, "auto")]

    print(goals_table('concurrency="auto": of the best fixed number\'s tasks per minute', _goals(runs)))
    print()
    rows = [
        [run.account, run.concurrency, f"{run.per_minute:.1f}", f"{run.refused:.1%}", str(run.failed)]
        for run in runs
    ]
    print(table("the runs", ("", "concurrency", "tasks per minute", "creates refused", "items failed"), rows))
    print(f"\n{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found = {"goals": [asdict(goal) for goal in _goals(runs)], "runs": [asdict(run) for run in runs]}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Tasks in flight, found out and given.")
    parser.add_argument("--smoke", action="store_true", help="one account, briefly; the numbers mean little")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
