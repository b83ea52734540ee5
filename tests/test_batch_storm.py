"""Batches that meet every fault at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.batching import WIDE, rerolls
from support.families import FamilyCase
from support.serving import serving, turns

from piapi_async import (
    BatchRunner,
    Ledger,
    PollPolicy,
    SubmissionUnknown,
)
from piapi_async.emulator import (
    Drop,
    Emulator,
    Huge,
    Refuse,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    TaskFails,
    TaskRetries,
    TaskTakes,
    Truncated,
    UnknownStatus,
    WrongTypes,
)

pytestmark = [pytest.mark.looptime, pytest.mark.storm]


ON_THE_WIRE: list[Any] = [
    Status(429),
    Status(429, retry_after=3),
    Status(400),
    Status(408),
    Status(500),
    Status(502),
    Status(503),
    Status(504, made=True),
    Status(200, body="<html>"),
    Status(200, body={}),
    Drop(before_body=True),
    Drop(after_body=True),
    Drop(after_body=True, made=False),
    Drop(inside_answer=True),
    Truncated(0.3),
    WrongTypes(),
    WrongTypes(broken=True),
    UnknownStatus("dreaming"),
    SlowFirstByte(3),
    SlowFirstByte(40),
    SlowBody(3),
    SlowBody(40),
    StaleKeepAlive(),
]
FATEFUL: list[Any] = [TaskFails(), TaskRetries(), TaskTakes(300)]


def mix_in(emulator: Emulator, rate: float) -> None:
    """Let a share of all requests meet with one of all the faults."""
    for fault in ON_THE_WIRE:
        emulator.fail("*", fault, rate=rate / len(ON_THE_WIRE))
    for fault in FATEFUL:
        emulator.fail("create", fault, rate=rate / len(FATEFUL))
    for route in ("create", "read", "download"):
        emulator.fail(route, Refuse(5), nth=30)
    emulator.fail("read", Huge(17 * 2**20), nth=40)
    emulator.fail("create", Huge(17 * 2**20), nth=50)


async def check_a_stormy_run(
    reroll: Callable[[str], Any], count: int, rate: float, seed: int, path: Path
) -> None:
    client: dict[str, Any] = {"ledger": Ledger(path / "run.db"), "poll": PollPolicy.every(5.0)}
    async with serving(client, durations=30.0, seed=seed, **WIDE) as (emulator, piapi):
        mix_in(emulator, rate)
        runner = BatchRunner(piapi, concurrency=100)
        outcomes = await runner.run(rerolls(count, reroll))

        assert list(range(count)) == [outcome.index for outcome in outcomes]
        made = emulator.seen.creates_by_parent
        assert set(made.values()) == {1}
        for outcome in outcomes:
            parent = f"parent-{outcome.index}"
            if outcome.ref is not None:
                task = emulator.task(outcome.ref.task_id)
                assert task is not None
                assert task.origin == parent
                assert outcome.ok is (not task.error)
            elif isinstance(outcome.error, SubmissionUnknown):
                assert made[parent] <= 1
            else:
                assert made[parent] == 0
        totals = runner.totals
        assert totals.read == totals.ended == count
        assert totals.unknown > 0
        assert totals.done > count / 2
        assert totals.submitted <= emulator.seen.creates <= totals.submitted + totals.unknown


async def test_rerolls_in_a_storm_are_accounted_for_and_paid_once(tmp_path: Path, case: FamilyCase) -> None:
    await check_a_stormy_run(case.reroll, 300, 0.05, 1, tmp_path)


async def test_a_run_that_is_left_in_a_storm_again_and_again_pays_once(
    tmp_path: Path, case: FamilyCase
) -> None:
    client: dict[str, Any] = {"ledger": Ledger(tmp_path / "run.db"), "poll": PollPolicy.every(5.0)}
    async with serving(client, durations=30.0, seed=4, **WIDE) as (emulator, piapi):
        mix_in(emulator, 0.05)
        for stop in (1, 7, 20, 31, 33, 60):
            running = asyncio.create_task(BatchRunner(piapi, concurrency=50).run(rerolls(120, case.reroll)))
            await asyncio.sleep(stop)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await turns()
        outcomes = await BatchRunner(piapi, concurrency=50).run(rerolls(120, case.reroll))

        assert len(outcomes) == 120
        assert set(emulator.seen.creates_by_parent.values()) == {1}
