"""What a fleet costs where nothing goes wrong: an item its worker, and a wait its database."""

from __future__ import annotations

import asyncio

from piapi_async.batch import BatchItem
from piapi_async.emulator import Emulator
from piapi_async.fleet import Fleet

from ._fleet_parts import Statements, WorkerProcess, request
from ._goals import Goal

WORKER, SERVICE = "worker", "service"  # users of the database, so that their statements are counted apart

CPU_GOAL = 20.0  # milliseconds per item
STATEMENTS_GOAL = 20.0  # per item
WAITS_GOAL = 5.0  # statements a second

_WAITED = 10.0  # seconds


async def costs(url: str, items: int, limit: int) -> list[Goal]:
    """Measure what an item costs one worker."""
    statements = Statements(url)
    counted = await asyncio.to_thread(_first_opened, url, statements)
    emulator = Emulator(durations=1.0, concurrency=limit, picture_size=32)
    try:
        async with emulator.run() as host, Fleet(url) as fleet:
            worker = await WorkerProcess.start(
                statements.url_of(WORKER), host, emulator.api_key, limit, limit
            )
            warm = await fleet.submit_many([BatchItem(request(f"warm {number}")) for number in range(5)])
            await asyncio.gather(*[job.wait() for job in warm])

            cpu, sent = worker.cpu, statements.of(WORKER) if counted else 0
            jobs = await fleet.submit_many([BatchItem(request(number)) for number in range(items)])
            outcomes = await asyncio.gather(*[job.wait() for job in jobs])
            cpu = 1000 * (worker.cpu - cpu) / items
            sent = (statements.of(WORKER) if counted else 0) - sent
            await worker.end()
            done = sum(outcome.ok for outcome in outcomes)
        per_item = sent / items
    finally:
        statements.close()

    goals = [
        Goal("items done", f"{done}", f"{items}", done == items),
        Goal("CPU of the worker per item", f"{cpu:.1f} ms", f"<= {CPU_GOAL:g} ms", cpu <= CPU_GOAL),
    ]
    what = "SQL statements of the worker per item"
    if counted:
        goals.append(Goal(what, f"{per_item:.1f}", f"<= {STATEMENTS_GOAL:g}", per_item <= STATEMENTS_GOAL))
    else:
        goals.append(Goal(what, "not counted", f"<= {STATEMENTS_GOAL:g}", None))
    return goals


async def waits(url: str, number: int, seconds: float = _WAITED) -> list[Goal]:
    """Measure what waits cost that end not: the statements of the first second, when they begin, and after it."""
    what = f"SQL statements a second of {number} waits"
    statements = Statements(url)
    try:
        if not await asyncio.to_thread(_first_opened, url, statements):
            return [Goal(what, "not counted", f"<= {WAITS_GOAL:g}", None)]

        async with Fleet(statements.url_of(SERVICE)) as fleet:
            jobs = await fleet.submit_many([BatchItem(request(f"wait {each}")) for each in range(number)])
            before = statements.of(SERVICE)
            waiting = [asyncio.create_task(job.wait()) for job in jobs]
            await asyncio.sleep(seconds)
            sent = statements.of(SERVICE) - before
            for wait in waiting:
                wait.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    finally:
        statements.close()
    rate = sent / seconds
    return [Goal(what, f"{rate:.1f}", f"<= {WAITS_GOAL:g}", rate <= WAITS_GOAL)]


def _first_opened(url: str, statements: Statements) -> bool:
    """Make the database and its tables, and begin to count; return whether that can be done here."""
    asyncio.run(_open(url))
    return statements.watch(WORKER, SERVICE)


async def _open(url: str) -> None:
    async with Fleet(url):
        pass
