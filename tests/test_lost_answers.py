"""Submissions whose response was lost, and their tasks in the host's history."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.serving import KEY, now, serving, turns

from piapi_async import CreateTask, Ledger, PiAPI, SubmissionUnknown
from piapi_async.emulator import Dialect, Drop, Emulator, SlowFirstByte, Status
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

MODEL, TASK_TYPE = "Qubico/flux1-schnell", "txt2img"
LOST = Drop(after_body=True)
WIDE: dict[str, Any] = {"concurrency": 5_000, "queue": 10_000}


def cat(prompt: str = "a cat", **inputs: Any) -> CreateTask:
    return CreateTask(MODEL, TASK_TYPE, {"prompt": prompt, **inputs})


def made(emulator: Emulator, prompt: str = "a cat") -> list[str]:
    """The tasks that were made of a prompt, the earliest first."""
    return [task_id for task_id, task in emulator.engine.tasks.items() if task.input.get("prompt") == prompt]


def asked(emulator: Emulator) -> tuple[int, int]:
    """How many pages of the history were read, and how many tasks."""
    return emulator.seen.requests["history"], emulator.seen.requests["task_read"]


async def test_its_task_is_found_and_nothing_is_sent_again() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(history_lag=3.5)) as (emulator, piapi):
        emulator.fail("create", LOST)
        handle = await piapi.submit(cat())

        assert [handle.task_id] == made(emulator)
        assert now() == pytest.approx(7.0, abs=0.1)  # looked for after 1, 3 and 7 seconds
        assert piapi.stats.recovered == 1
        assert (await handle.wait()).images


async def test_of_a_thousand_with_equals_among_them_each_gets_its_own(tmp_path: Path) -> None:
    dialect = Dialect(history_lag=3.0)
    async with serving({"ledger": Ledger(tmp_path / "run.db"), "recover": 60.0}, dialect=dialect, **WIDE) as (emulator, piapi):
        emulator.fail("create", LOST, rate=0.1)
        slots = asyncio.Semaphore(64)

        async def one(number: int) -> tuple[str, str]:
            prompt = f"cat {number % 700}"
            async with slots:
                handle = await piapi.submit(cat(prompt), key=str(number))
            return prompt, handle.task_id

        told = await asyncio.gather(*map(one, range(1_000)))
        lost = piapi.stats.recovered
        pages, reads = asked(emulator)

        assert len(made_all := {task_id for _, task_id in told}) == 1_000 == emulator.seen.creates
        assert made_all == set(emulator.engine.tasks)
        assert all(emulator.engine.tasks[task_id].input["prompt"] == prompt for prompt, task_id in told)
        assert 60 < lost < 140
        assert pages <= 0.5 * lost
        assert reads <= 1.3 * lost
