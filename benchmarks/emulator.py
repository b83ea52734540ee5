"""What the emulator costs in tests: ten thousand tasks on a virtual clock, and single requests.

    python -m benchmarks.emulator [--smoke] [--json FILE]

Everything is CPU of one process, in which a client of a few lines speaks HTTP over loopback: its part is in the
figures.  Ten thousand tasks are created, run for their minutes, and are each seen done by multi-fetches of twenty.  No
picture is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import orjson
from attrs import asdict, define, field, frozen

from piapi_async.emulator import Emulator

from ._goals import Goal, goals_table
from ._table import short, table
from ._virtual import run_virtual

TASKS = 10_000
CONNECTIONS, TOGETHER = 64, 20
LONG_ENOUGH = 3600.0
"""Seconds of the virtual clock after which all tasks have ended."""

GOAL_TASKS, GOAL_REQUEST = 2.0, 1.0
"""CPU seconds for ten thousand tasks; milliseconds for a request."""


@frozen
class Step:
    """Requests of one kind, and the CPU seconds that they took."""

    name: str
    requests: int
    seconds: float

    @property
    def millis(self) -> float:
        """For one request."""
        return 1000 * self.seconds / self.requests

    def cells(self) -> list[str]:
        """Give the line's texts."""
        return [self.name, f"{self.requests:,}", short(self.seconds), short(self.millis)]


@define(eq=False)
class _Connection(asyncio.Protocol):
    """HTTP of a few lines: posts bodies one after the other, and is `done` when all have their responses."""

    path: str
    port: int
    bodies: Iterator[object]
    done: asyncio.Future[list[bytes]]
    found: list[bytes] = field(factory=list)
    _received: bytes = b""
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._post()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if end and len(body) == int(length):
            self.found.append(body)
            self._received = b""
            self._post()

    def _post(self) -> None:
        transport = cast("asyncio.Transport", self._transport)
        body = next(self.bodies, None)
        if body is None:
            transport.close()
            self.done.set_result(self.found)
            return

        data = orjson.dumps(body)
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nX-API-Key: emulator-key\r\n"
        transport.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)


@define
class _Client:
    """Posts bodies over some connections at a time."""

    port: int
    steps: list[Step] = field(factory=list)

    async def take(self, name: str, path: str, bodies: Sequence[object]) -> list[bytes]:
        """Post the bodies, and give the responses' in the order in which they came; note what that took."""
        spent = time.process_time()
        shares = [bodies[first::CONNECTIONS] for first in range(min(CONNECTIONS, len(bodies)))]
        found = await asyncio.gather(*(self._post(path, share) for share in shares))
        self.steps.append(Step(name, len(bodies), time.process_time() - spent))
        return [body for share in found for body in share]

    async def _post(self, path: str, bodies: Sequence[object]) -> list[bytes]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[bytes]] = loop.create_future()
        make = partial(_Connection, path, self.port, iter(bodies), done)
        await loop.create_connection(make, "127.0.0.1", self.port)
        return await done


async def _live(tasks: int) -> list[Step]:
    emulator = Emulator(seed=1, concurrency=tasks, adopt_parents=True)
    async with emulator.run() as base_url:
        client = _Client(int(base_url.rpartition(":")[2]))
        rerolls = [{"origin_task_id": f"6886fc4d-{number}"} for number in range(tasks)]
        made = await client.take("create", "/mj/v2/reroll", rerolls)
        ids = [orjson.loads(body)["task_id"] for body in made]

        spent = time.process_time()
        await asyncio.sleep(LONG_ENOUGH)
        client.steps.append(Step("an hour that passes", 1, time.process_time() - spent))

        packs = [{"task_ids": ids[first : first + TOGETHER]} for first in range(0, tasks, TOGETHER)]
        seen = await client.take(f"multi-fetch of {TOGETHER}", "/mj/v2/multi_fetch", packs)
        if sum(body.count(b'"status":"finished"') for body in seen) != tasks:
            raise RuntimeError("not every task was seen done")
        await client.take("fetch", "/mj/v2/fetch", [{"task_id": task_id} for task_id in ids[:1000]])
    return client.steps


def judge(tasks: int, steps: Sequence[Step]) -> list[Goal]:
    """Hold the figures against their goals."""
    whole = sum(step.seconds for step in steps if step.name != "fetch")
    allowed = GOAL_TASKS * tasks / TASKS
    most = max(step.millis for step in steps if step.requests > 1)
    return [
        Goal(
            f"CPU of {tasks:,} tasks from their creation to their end, s",
            short(whole),
            f"<= {short(allowed)}",
            whole <= allowed,
        ),
        Goal("CPU of a request, at most, ms", short(most), f"<= {GOAL_REQUEST:g}", most <= GOAL_REQUEST),
    ]


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the table."""
    tasks = 1000 if smoke else TASKS
    steps = run_virtual(_live(tasks))
    goals = judge(tasks, steps)
    columns = ("emulator", "requests", "s of CPU", "ms each")
    print(table(f"{tasks:,} tasks", columns, [step.cells() for step in steps]), end="\n\n")
    print(goals_table("goals", goals), end="\n\n")
    if json_path is not None:
        found = {"goals": [asdict(goal) for goal in goals], "steps": [asdict(step) for step in steps]}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the emulator costs in tests.")
    parser.add_argument("--smoke", action="store_true", help="fewer tasks")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
