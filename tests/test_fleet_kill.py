"""A fleet whose workers are killed in the middle of a POST: what was paid, what is known, what is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import fleet_worker
from support.postgres import postgres
from support.processes import Child, becomes_true, started
from support.threaded_emulator import threaded_emulator

from piapi_async import CreateTask, SubmissionUnknown
from piapi_async.batch import BatchItem, Outcome
from piapi_async.emulator import Dialect, Emulator, SlowFirstByte
from piapi_async.fleet import Fleet
from piapi_async.fleet._database import CAN_SQLITE

pytestmark = [
    pytest.mark.storm,
    pytest.mark.skipif(not CAN_SQLITE, reason="the engine needs SQLite 3.42 on Python 3.12 and later"),
]

ITEMS = 40
LIMIT = 12
DURATION = 0.8  # seconds that a task takes
HELD_BACK = 0.3  # seconds between a task's making and the response that names it


class Killer:
    """The durations of tasks: it is asked for one in the handler of a create, and kills a worker then."""

    def __init__(self, *at: int) -> None:
        self.at = set(at)
        self.victims: list[int] = []
        self.killed: list[int] = []
        self.made = 0
        self._lock = threading.Lock()

    def __call__(self, _: Random) -> float:
        with self._lock:
            self.made += 1
            if self.made in self.at and self.victims:
                victim = self.victims.pop(0)
                os.kill(victim, signal.SIGKILL)
                self.killed.append(victim)
        return DURATION

    def has_killed(self, number: int) -> bool:
        return len(self.killed) >= number


def peak(emulator: Emulator) -> int:
    """The most tasks that were at the host at once, all by the host's own clock."""
    lives = [(task.created, task.ended) for task in emulator.engine.tasks.values()]
    return max(sum(start <= at and (end is None or at < end) for start, end in lives) for at, _ in lives)


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'run.db'}"
        return
    with postgres() as url:
        yield url


def request(number: int) -> CreateTask:
    return CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": f"cat {number}"})


def creates_by_prompt(emulator: Any) -> Counter[str]:
    return Counter(str(task.given["prompt"]) for task in emulator.engine.tasks.values())


@pytest.mark.parametrize(("kind", "history"), [("sqlite", False), ("postgresql", True)])
async def test_killed_workers_pay_nothing_twice_and_lose_nothing(
    kind: str, tmp_path: Path, *, history: bool
) -> None:
    killer = Killer(8, 24)
    with ExitStack() as stack:
        url = stack.enter_context(database(kind, tmp_path))
        emulator, host = stack.enter_context(
            threaded_emulator(durations=killer, dialect=Dialect(history=history))
        )
        emulator.fail("create", SlowFirstByte(HELD_BACK), times=None)

        def start() -> Child:
            words = (url, host, emulator.api_key, str(LIMIT))
            child = stack.enter_context(started(sys.executable, fleet_worker.__file__, *words))
            alive.append(child)
            return child

        alive: list[Child] = []
        async with Fleet(url, poll=0.2) as fleet:
            jobs = await fleet.submit_many(
                [BatchItem(request(number), f"item {number}") for number in range(ITEMS)], batch="march"
            )
            workers = [start(), start()]
            killer.victims = [worker.process.pid for worker in workers]

            async def replace() -> None:
                for number in (1, 2):
                    await becomes_true(partial(killer.has_killed, number))
                    start()

            replacing = asyncio.create_task(replace())
            outcomes = await asyncio.gather(*[job.wait(60) for job in jobs])
            await replacing
            counts = await fleet.counts()
            unknown = await fleet.unknown()
        for worker in alive:
            if worker.process.pid not in killer.killed:
                worker.signal(signal.SIGTERM)
                assert worker.finish() == 0, worker.said

    lost = check(outcomes, emulator)
    if kind == "postgresql":  # on SQLite two workers may count before either has claimed
        assert peak(emulator) <= LIMIT
    if history:  # of which every task is found; what a kill kept from the host leaves nothing to find
        assert lost == ITEMS - len(emulator.engine.tasks)
    else:
        assert 1 <= lost <= 2 * LIMIT  # a kill is placed in a POST, and takes those beside it along
    assert counts["done"] == sum(outcome.ok for outcome in outcomes)
    assert counts["unknown"] == len(unknown) == ITEMS - counts["done"]


def check(outcomes: list[Outcome[Any]], emulator: Any) -> int:
    done = [outcome for outcome in outcomes if outcome.ok]
    unknown = [outcome for outcome in outcomes if isinstance(outcome.error, SubmissionUnknown)]
    assert len(done) + len(unknown) == ITEMS

    made = creates_by_prompt(emulator)
    assert set(made.values()) == {1}
    ids = {outcome.ref.task_id for outcome in done if outcome.ref is not None}
    assert len(ids) == len(done)
    assert ids <= set(emulator.engine.tasks)
    return len(unknown)
