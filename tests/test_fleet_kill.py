"""A fleet whose workers are killed in the middle of a POST: what was paid, what is known, what is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support import fleet_worker
from support.postgres import postgres
from support.processes import Child, becomes_true, started
from support.threaded_emulator import end_all, threaded_emulator

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
DURATION = 0.4  # seconds that a task takes
HELD_BACK = 0.3  # seconds between a task's making and the response that names it


class Killer:
    """The durations of tasks: it is asked for one in the handler of a create, and kills workers then.

    `at` has how many workers are killed when so many tasks have been made.
    """

    def __init__(self, at: Mapping[int, int], duration: float) -> None:
        self.at = at
        self.duration = duration
        self.victims: list[int] = []
        self.killed: list[int] = []
        self.made = 0
        self._lock = threading.Lock()

    def __call__(self, _: Random) -> float:
        with self._lock:
            self.made += 1
            for victim in self.victims[: self.at.get(self.made, 0)]:
                os.kill(victim, signal.SIGKILL)
                self.victims.remove(victim)
                self.killed.append(victim)
        return self.duration

    def has_killed(self, number: int) -> bool:
        return len(self.killed) >= number


class Workers:
    """The workers of a fleet, each in a process of its own."""

    def __init__(self, stack: ExitStack, url: str, emulator: Emulator, host: str) -> None:
        self._stack = stack
        self._words = (url, host, emulator.api_key, str(LIMIT))
        self._started: list[Child] = []

    def start(self) -> int:
        child = self._stack.enter_context(started(sys.executable, fleet_worker.__file__, *self._words))
        self._started.append(child)
        return child.process.pid

    def hand_over(self, killed: list[int]) -> None:
        """End all, and see that none has ended before, but for those that were killed."""
        alive = [child for child in self._started if child.process.pid not in killed]
        for child in alive:
            child.prints("ready")
            child.signal(signal.SIGTERM)
        for child in alive:
            assert child.finish() == 0, child.said


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


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_of_killed_workers_each_task_is_found_in_the_history_and_none_is_made_beside_them(
    kind: str, tmp_path: Path
) -> None:
    killer = Killer({LIMIT: 2}, 3600.0)  # all places are taken, so that no other POST is on its way
    with ExitStack() as stack:
        url = stack.enter_context(database(kind, tmp_path))
        emulator, host = stack.enter_context(threaded_emulator(durations=killer))
        emulator.fail("create", SlowFirstByte(HELD_BACK), times=None)
        workers = Workers(stack, url, emulator, host)
        async with Fleet(url, poll=0.2) as fleet:
            jobs = await fleet.submit_many(requests())
            killer.victims = [workers.start(), workers.start()]
            await becomes_true(partial(killer.has_killed, 2))
            for _ in range(2):
                workers.start()
            await becomes_true(partial(all_known, fleet, emulator, host))
            assert killer.made == LIMIT

            end_all(emulator)
            outcomes = await asyncio.gather(*[job.wait(60) for job in jobs])
            assert (await fleet.counts())["done"] == ITEMS
        workers.hand_over(killer.killed)

    assert check(outcomes, emulator) == 0
    assert peak(emulator) <= LIMIT
    assert emulator.seen.requests["history"]


async def test_killed_workers_of_a_host_without_a_history_pay_nothing_twice_and_lose_nothing(
    tmp_path: Path,
) -> None:
    killer = Killer({8: 1, 24: 1}, DURATION)
    with ExitStack() as stack:
        url = stack.enter_context(database("sqlite", tmp_path))
        emulator, host = stack.enter_context(
            threaded_emulator(durations=killer, dialect=Dialect(history=False))
        )
        emulator.fail("create", SlowFirstByte(HELD_BACK), times=None)
        workers = Workers(stack, url, emulator, host)
        async with Fleet(url, poll=0.2) as fleet:
            jobs = await fleet.submit_many(requests())
            killer.victims = [workers.start(), workers.start()]
            for number in (1, 2):
                await becomes_true(partial(killer.has_killed, number))
                workers.start()
            outcomes = await asyncio.gather(*[job.wait(60) for job in jobs])
            counts, unknown = await fleet.counts(), await fleet.unknown()
        workers.hand_over(killer.killed)

    assert 1 <= check(outcomes, emulator) <= LIMIT  # a kill is in a POST, and takes those beside it along
    assert counts["done"] == sum(outcome.ok for outcome in outcomes)
    assert counts["unknown"] == len(unknown) == ITEMS - counts["done"]


def requests() -> list[BatchItem[Any]]:
    return [BatchItem(request(number), f"item {number}") for number in range(ITEMS)]


def all_known(fleet: Fleet, emulator: Emulator, host: str) -> bool:
    """Return whether every task at the host is somebody's in the database."""
    opened: Any = fleet._opened
    ids = list(emulator.engine.tasks)
    return bool(opened.known_tasks(host, ids) == set(ids))


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
