"""The real client against the emulator: real sockets in one event loop, whose clock leaps from timer to timer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import looptime
from attrs import define, field

from piapi_async import Imagine, PiAPI
from piapi_async.emulator import Dialect, Emulator, Lognormal, Plan
from piapi_async.policy import PollPolicy

from ._sim import LATENCY, LONGEST, MEDIAN, P95, PROGRESS_ERROR, SHORTEST, Case, Measured, seeded

T = TypeVar("T")


def run_virtual(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, on a clock that does not wait.

    Before each leap the loop turns a few times without work, so that what loopback sockets hold is read first.
    """
    factory = asyncio.DefaultEventLoopPolicy().new_event_loop
    with asyncio.Runner(loop_factory=lambda: looptime.patch_event_loop(factory(), noop_cycles=6)) as runner:  # type: ignore[arg-type]
        return runner.run(main)


@define
class _Count:
    """What is measured: nothing until as many tasks have ended as are in flight."""

    case: Case
    emulator: Emulator
    measured: Measured = field(factory=Measured)
    full: asyncio.Event = field(factory=asyncio.Event)
    _ended: int = 0
    _before: tuple[int, int] = (0, 0)

    def polls(self) -> tuple[int, int]:
        """Return how many requests asked for how many tasks, warm-up included."""
        sizes = self.emulator.seen.ids_per_request
        return sizes.total(), sum(size * times for size, times in sizes.items())

    def end(self, task_id: str) -> None:
        """Note that a wait has returned."""
        self._ended += 1
        if self._ended <= self.case.in_flight:
            self._before = self.polls()
            return
        if self.full.is_set():
            return
        ended = self.emulator.engine.tasks[task_id].ended
        assert ended is not None  # noqa: S101 - the client has seen its end
        self.measured.delays.append(self.emulator.now - ended)
        if len(self.measured.delays) == self.case.tasks:
            requests, ids = self.polls()
            self.measured.requests, self.measured.ids = requests - self._before[0], ids - self._before[1]
            self.full.set()


async def _keep_one_in_flight(piapi: PiAPI, count: _Count, delay: float) -> None:
    await asyncio.sleep(delay)
    while not count.full.is_set():
        handle = await piapi.submit(Imagine("a quiet landscape"))
        if not count.full.is_set():
            await handle.wait()
            count.end(handle.task_id)


async def _measure(case: Case, policy: PollPolicy, seed: int) -> Measured:
    plan = Plan(
        "benchmark",
        case.in_flight,
        progress=case.progress,
        intermediate=False,
        discord=False,
        temporary=False,
    )
    emulator = Emulator(
        seed=seed,
        plan=plan,
        durations=Lognormal(MEDIAN, P95, SHORTEST, LONGEST),
        progress_error=PROGRESS_ERROR,
        dialect=Dialect(multi_fetch_max=max(case.size, 2)),
        latency=LATENCY,
        queue=case.in_flight,
        epoch=0.0,
    )
    rng = seeded(seed, "starts")
    async with (
        emulator.run() as base_url,
        PiAPI(emulator.api_key, base_url=base_url, poll=policy, multi_fetch_size=case.size) as piapi,
    ):
        count = _Count(case, emulator)
        flight = [
            asyncio.create_task(_keep_one_in_flight(piapi, count, rng.random() * MEDIAN))
            for _ in range(case.in_flight)
        ]
        full = asyncio.create_task(count.full.wait())
        await asyncio.wait([*flight, full], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1.0)  # for the submissions that are on their way
        for task in (*flight, full):
            task.cancel()
        for outcome in await asyncio.gather(*flight, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await asyncio.sleep(1.0)  # for the polls that are on their way
    return count.measured


def measure(case: Case, policy: PollPolicy, *, seed: int = 1) -> Measured:
    """Wait for the tasks of one case, each replaced when its wait returns."""
    return run_virtual(_measure(case, policy, seed))
