"""What webhooks save, and whether they make anything later: several processes behind one URL.

    python -m benchmarks.webhooks [--smoke] [--json FILE]

1, 2, 4 and 8 workers share one URL, and a balancer hands each delivery to any of them: the share of its own ends that
a worker hears of is 1 / workers.  Each is a client of its own with some tasks in flight, each of which is replaced
when its wait returns.  Durations are lognormal as in fast mode, an answer takes 50 ms, a delivery 50 to 500 ms.  The
real clients wait, at the emulator, over real sockets, on a virtual clock.

R is poll requests per task; lateness is the time from a task's end to the return of its wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random

import orjson
from aiohttp import web
from attrs import asdict, define, field, frozen

from piapi_async import ClientClosed, Imagine, PiAPI, PollPolicy, WebhookReceiver
from piapi_async.emulator import Emulator, Lognormal, Plan

from ._goals import Goal, goals_table
from ._sim import LATENCY, LONGEST, MEDIAN, P95, PROGRESS_ERROR, SHORTEST, Measured, seeded
from ._table import short, table
from ._virtual import run_virtual

DELAY = 1.5
IN_FLIGHT = 10  # by each worker
WORKERS = (1, 2, 4, 8)
TASKS, TASKS_SMOKE = 1500, 60  # measured
WARM, WARM_SMOKE = 150, 20  # tasks of each worker before: the share has to be found out
SLOWEST_DELIVERY = 0.5  # seconds

TOLERANCE = 1.03
"""What two runs of one setting differ by."""

MORE = 1.05
"""What the confirmation of the few that are reported may cost."""

COLUMNS = ("workers", "progress", "reported here", "R", "p50", "p90", "p95", "mean")


@frozen
class Case:
    """So many workers behind one URL, or without webhooks.  `tasks` are measured, `warm` by each worker before."""

    workers: int
    hooked: bool
    progress: bool
    tasks: int
    warm: int


@frozen(kw_only=True)
class Row:
    """One line of the table: lateness in seconds, and the share of ends that the waiting client was told of."""

    workers: int
    hooked: bool
    progress: bool
    reported: float
    requests_per_task: float
    p50: float
    p90: float
    p95: float
    mean: float
    took: float

    def cells(self) -> list[str]:
        """Return the line's texts."""
        return [
            str(self.workers),
            "yes" if self.progress else "no",
            f"{100 * self.reported:.0f} %" if self.hooked else "no webhooks",
            short(self.requests_per_task),
            *(f"{seconds:.2f}" for seconds in (self.p50, self.p90, self.p95, self.mean)),
        ]


@define
class _Balancer:
    """Hands each delivery to any of the workers, after a while."""

    rng: Random
    receivers: list[WebhookReceiver] = field(factory=list)

    async def take(self, request: web.Request) -> web.Response:
        """Serve one delivery."""
        body = await request.read()
        await asyncio.sleep(0.05 + (SLOWEST_DELIVERY - 0.05) * self.rng.random())
        receiver = self.rng.choice(self.receivers)
        with contextlib.suppress(ClientClosed):  # at the end
            await receiver.handle(request.headers, body, query=request.query_string)
        return web.Response()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Serve inside the block; gives the URL."""
        application = web.Application()
        application.add_routes([web.post("/piapi", self.take)])
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/piapi"
        finally:
            await runner.cleanup()


@define
class _Count:
    """What is measured: nothing until enough tasks have ended for the share to be known."""

    case: Case
    emulator: Emulator
    measured: Measured = field(factory=Measured)
    full: asyncio.Event = field(factory=asyncio.Event)
    _ended: int = 0
    _before: int = 0

    def end(self, task_id: str) -> None:
        """Note that a wait has returned."""
        self._ended += 1
        polls = self.emulator.seen.ids_per_request.total()
        if self._ended <= self.case.warm * self.case.workers:
            self._before = polls
            return
        if self.full.is_set():
            return
        ended = self.emulator.engine.tasks[task_id].ended
        assert ended is not None  # noqa: S101 - the client has seen its end
        self.measured.delays.append(self.emulator.now - ended)
        if len(self.measured.delays) == self.case.tasks:
            self.measured.requests = polls - self._before
            self.full.set()


async def _keep_one_in_flight(piapi: PiAPI, count: _Count, delay: float) -> None:
    await asyncio.sleep(delay)
    while not count.full.is_set():
        handle = await piapi.submit(Imagine("a quiet landscape"))
        if not count.full.is_set():
            await handle.wait()
            count.end(handle.task_id)


async def _measure(case: Case, seed: int) -> tuple[Measured, float]:
    in_flight = case.workers * IN_FLIGHT
    plan = Plan(
        "benchmark", in_flight, progress=case.progress, intermediate=False, discord=False, temporary=False
    )
    emulator = Emulator(
        seed=seed,
        plan=plan,
        durations=Lognormal(MEDIAN, P95, SHORTEST, LONGEST),
        progress_error=PROGRESS_ERROR,
        latency=LATENCY,
        queue=in_flight,
        epoch=0.0,
    )
    rng = seeded(seed, "starts")
    balancer = _Balancer(seeded(seed, "balancer"))
    async with AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(emulator.run())
        url = await stack.enter_async_context(balancer.listening())
        clients = [
            await stack.enter_async_context(
                PiAPI(emulator.api_key, base_url=base_url, poll=PollPolicy(DELAY))
            )
            for _ in range(case.workers)
        ]
        if case.hooked:
            balancer.receivers = [WebhookReceiver(client, secret="shared", url=url) for client in clients]  # noqa: S106 - made up
        count = _Count(case, emulator)
        flight = [
            asyncio.create_task(_keep_one_in_flight(client, count, rng.random() * MEDIAN))
            for client in clients
            for _ in range(IN_FLIGHT)
        ]
        full = asyncio.create_task(count.full.wait())
        await asyncio.wait([*flight, full], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1.0)  # for the submits that are on their way
        for task in (*flight, full):
            task.cancel()
        for outcome in await asyncio.gather(*flight, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome
        await asyncio.sleep(1.0)  # for what is on its way
        foreign = sum(client.stats.foreign_deliveries for client in clients)
        accepted = sum(receiver.counts["accepted"] for receiver in balancer.receivers)
    return count.measured, 1 - foreign / accepted if accepted else 0.0


def measure(case: Case, *, seed: int = 1) -> Row:
    """Make one measurement."""
    begun = time.perf_counter()
    measured, reported = run_virtual(_measure(case, seed))
    return Row(
        workers=case.workers,
        hooked=case.hooked,
        progress=case.progress,
        reported=reported,
        requests_per_task=measured.per_task,
        p50=measured.quantile(0.5),
        p90=measured.quantile(0.9),
        p95=measured.p95,
        mean=measured.mean,
        took=time.perf_counter() - begun,
    )


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Return each goal with the worst figure that it speaks of."""
    found = []
    for progress in (False, True):
        plain = [row for row in rows if row.progress is progress and not row.hooked]
        shared = [row for row in rows if row.progress is progress and row.hooked]
        if not plain:
            continue
        what = "with progress" if progress else "without progress"
        p90 = max(row.p90 for row in plain)
        least, *_, most = costs = [row.requests_per_task for row in shared]
        found += [
            Goal(
                f"p90 of lateness behind one URL, {what}, s",
                f"{max(row.p90 for row in shared):.2f}",
                f"<= {p90:.2f}, as without webhooks",
                max(row.p90 for row in shared) <= p90 * TOLERANCE,
            ),
            Goal(
                f"polls per task, the fewer are reported here, {what}",
                ", ".join(map(short, costs)),
                "growing",
                all(less <= more * TOLERANCE for less, more in pairwise(costs)),
            ),
            Goal(
                f"polls per task where nearly none is reported here, {what}",
                f"{short(most)} (all reported: {short(least)})",
                f"<= {MORE:g} x {short(plain[0].requests_per_task)}, as without webhooks",
                most <= plain[0].requests_per_task * MORE,
                why="an end that is reported is confirmed by a request of its own",
            ),
        ]
    return found


def main(*, smoke: bool = False, json_path: Path | None = None, seed: int = 1) -> None:
    """Print the table; `smoke` measures little."""
    begun = time.perf_counter()
    tasks, warm = (TASKS_SMOKE, WARM_SMOKE) if smoke else (TASKS, WARM)
    workers = (1, 2) if smoke else WORKERS
    cases = [
        Case(number, hooked, progress, tasks, warm)
        for progress in ((False,) if smoke else (False, True))
        for number, hooked in ((workers[-1], False), *((number, True) for number in workers))
    ]
    rows = [measure(case, seed=seed) for case in cases]
    title = f"webhooks: workers behind one URL, {IN_FLIGHT} tasks in flight by each, delay={DELAY:g} s"
    print(table(title, COLUMNS, [row.cells() for row in rows]), end="\n\n")
    print(goals_table("goals", goals(rows)), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found = {"goals": [asdict(goal) for goal in goals(rows)], "rows": [asdict(row) for row in rows]}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What webhooks save behind a balancer.")
    parser.add_argument("--smoke", action="store_true", help="a few small cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json, seed=given.seed)
