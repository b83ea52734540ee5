"""The core on uvloop: its handles are not asyncio's, and a time in the past gives one that tells no time at all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.hooking import receiving
from support.processes import PATIENCE
from support.serving import KEY, REROLL, assert_at_rest, no_leaks

from piapi_async import (
    BatchRunner,
    ClientClosed,
    Ledger,
    PiAPI,
    PollPolicy,
    Reroll,
    Task,
    TaskState,
    wait_all,
)
from piapi_async.emulator import Emulator

uvloop = pytest.importorskip("uvloop")

QUICK = 0.05
"""Seconds that tasks take here, and that pass between two looks: this clock is the real one."""

Scenario = Callable[[Path], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Emulator, PiAPI]]:
    """Give an emulator and its client on the loop that runs, with nothing left of them afterwards."""
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=QUICK)
    async with no_leaks(), emulator.run() as base_url:
        async with PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(QUICK), **options) as piapi:
            yield emulator, piapi
        assert_at_rest(piapi)


async def submit_and_wait(_: Path) -> None:
    async with serving() as (_emulator, piapi):
        task = await (await piapi.submit(REROLL)).wait(timeout=PATIENCE)

    assert task.state is TaskState.DONE


async def wait_for_attached_tasks_at_once(_: Path) -> None:
    """They are due at once: the time that the poller's timer is set to lies in the past."""
    async with serving() as (emulator, piapi):
        for number in range(3):
            emulator.adopt(f"t{number}")

        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(3)], timeout=PATIENCE)

    assert [task.state for task in tasks if isinstance(task, Task)] == [TaskState.DONE] * 3


async def look_once(_: Path) -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")

        assert (await piapi.attach("t1").wait(timeout=0)).state is TaskState.DONE


async def follow_updates(_: Path) -> None:
    async with serving() as (_emulator, piapi):
        handle = await piapi.submit(REROLL)

        seen = [task.state async for task in handle.updates(timeout=PATIENCE)]

    assert seen[-1] is TaskState.DONE


async def run_a_batch_and_resume_it(folder: Path) -> None:
    requests = [Reroll("6886fc4d", prompt=f"cat {number}") for number in range(6)]
    async with serving(ledger=Ledger(folder / "run.db")) as (emulator, piapi):
        first = await BatchRunner(piapi, concurrency=3).run(requests)
        again = await BatchRunner(piapi, concurrency=3).run(requests)

        assert [outcome.ok for outcome in [*first, *again]] == [True] * 12
        assert [outcome.task and outcome.task.task_id for outcome in again] == [
            outcome.task and outcome.task.task_id for outcome in first
        ]
        assert sum(not task.adopted for task in emulator.engine.tasks.values()) == 6


async def resume_a_batch_whose_tasks_have_not_ended(folder: Path) -> None:
    requests = [Reroll("6886fc4d", prompt=f"cat {number}") for number in range(4)]
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=10 * QUICK)
    async with no_leaks(), emulator.run() as base_url:
        async with (
            PiAPI(KEY, base_url=base_url, ledger=Ledger(folder / "run.db")) as piapi,
            BatchRunner(piapi, concurrency=4).stream(requests),
        ):
            while len(emulator.engine.tasks) < 5:  # four tasks, and their parent
                await asyncio.sleep(0)
        async with PiAPI(
            KEY, base_url=base_url, ledger=Ledger(folder / "run.db"), poll=PollPolicy.every(QUICK)
        ) as piapi:
            outcomes = await BatchRunner(piapi, concurrency=4).run(requests)

        assert [outcome.ok for outcome in outcomes] == [True] * 4
        assert sum(not task.adopted for task in emulator.engine.tasks.values()) == 4


async def hear_of_the_end_by_webhook(_: Path) -> None:
    async with serving() as (_emulator, piapi), receiving(piapi) as receiver:
        task = await (await piapi.submit(REROLL)).wait(timeout=PATIENCE)

    assert task.state is TaskState.DONE
    assert receiver.counts["rejected"] == 0


async def close_under_a_wait(_: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        piapi = PiAPI(KEY, base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        waits = [asyncio.create_task(piapi.attach(f"t{number}").wait()) for number in range(3)]
        await asyncio.sleep(0)
        await piapi.close()

        errors = await asyncio.gather(*waits, return_exceptions=True)

    assert [type(error) for error in errors] == [ClientClosed] * 3
    assert_at_rest(piapi)


SCENARIOS = [
    submit_and_wait,
    wait_for_attached_tasks_at_once,
    look_once,
    follow_updates,
    run_a_batch_and_resume_it,
    resume_a_batch_whose_tasks_have_not_ended,
    hear_of_the_end_by_webhook,
    close_under_a_wait,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_on_uvloop_one_can(scenario: Scenario, tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario(tmp_path))
