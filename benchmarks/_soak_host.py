"""The host of the soak run: the emulator in a process of its own, which misbehaves and keeps count of what it made.

It prints its base URL; at the end of its input it prints, as one line of JSON, the ids of the tasks that it made for
each intent, and what befell whom.  An intent's number stands in whatever its request says: ``soak-17``.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import defaultdict
from collections.abc import Iterator

import orjson
from attrs import define, field

from piapi_async.emulator import (
    Drop,
    Emulator,
    Fault,
    Huge,
    Lognormal,
    Plan,
    Refuse,
    Rule,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    TaskFails,
    TaskRetries,
    TaskTakes,
    Truncated,
    UnknownStatus,
    WebhookFaults,
    WrongTypes,
)

SPEED = 20.0
KEY = "emulator-key"
TIMEOUT = 1.0
"""Seconds for which clients are to wait for an answer; some faults last longer."""

_OUTAGE_EVERY, _OUTAGE = 7.0, 0.2  # seconds of the clock on the wall
_FORGET_AFTER = (
    30.0  # the same; by then nobody asks for a task that has ended, and the emulator would keep it for ever
)

_ANYWHERE: tuple[tuple[Fault, float], ...] = (
    (Drop(before_body=True), 0.004),
    (Drop(after_body=True), 0.004),
    (Drop(inside_answer=True), 0.004),
    (SlowFirstByte(0.1), 0.01),
    (SlowFirstByte(2 * TIMEOUT), 0.002),
    (SlowBody(0.1), 0.005),
    (SlowBody(2 * TIMEOUT), 0.001),
    (StaleKeepAlive(), 0.005),
    (StaleKeepAlive(0.02), 0.005),
    (Truncated(), 0.003),
    (UnknownStatus(), 0.003),
    (WrongTypes(), 0.005),
    (Huge(100_000), 0.003),
    (Huge(17 * 2**20), 0.0002),
    (Status(408), 0.002),
    (Status(429), 0.001),
    (Status(429, retry_after=0.05), 0.001),
    (Status(500), 0.002),
    (Status(500, body=""), 0.002),
    (Status(502), 0.002),
    (Status(503), 0.002),
    (Status(504, made=True), 0.002),
)
_ON_CREATES: tuple[tuple[Fault, float], ...] = (
    (Drop(after_body=True, made=False), 0.004),
    (Status(400), 0.004),
    (Status(400, body={"message": "no available bot"}), 0.004),
    (TaskFails(), 0.03),
    (TaskRetries(2), 0.03),
    (TaskTakes(100.0), 0.01),
)
_ON_READS: tuple[tuple[Fault, float], ...] = ((WrongTypes(broken=True), 0.003),)


def rules() -> Iterator[Rule]:
    """Give all faults but the outages, each by chance."""
    for route, faults in (
        ("*", _ANYWHERE),
        ("create", _ON_CREATES),
        ("fetch", _ON_READS),
        ("multi_fetch", _ON_READS),
    ):
        for fault, rate in faults:
            yield Rule(route, fault, times=None, rate=rate)


@define(eq=False)
class Books:
    """What was made for whom.  The emulator is relieved of what has long ended, so that it does not slow down."""

    emulator: Emulator
    made: dict[int, list[str]] = field(factory=lambda: defaultdict(list))
    _counted: int = 0

    def turn(self) -> None:
        """Write down the new tasks, and forget the old."""
        engine, seen = self.emulator.engine, self.emulator.seen
        oldest = self.emulator.now - _FORGET_AFTER * SPEED
        for task in list(engine.tasks.values()):
            if task.serial > self._counted and not task.adopted:
                number = re.search(r"soak-(\d+)", repr(task.given))
                self.made[int(number[1]) if number else -1].append(task.task_id)
            if task.adopted or (task.ended is not None and task.ended < oldest):
                del engine.tasks[task.task_id]
        self._counted = engine.serial
        seen.polls.clear()
        seen.creates_by_parent.clear()
        seen.detection.clear()

    def report(self) -> bytes:
        """Give everything as JSON."""
        seen = self.emulator.seen
        facts = {"requests": seen.requests, "faults": seen.faults, "statuses": seen.statuses}
        return orjson.dumps({"made": self.made, **facts}, option=orjson.OPT_NON_STR_KEYS)


async def _misbehave(emulator: Emulator) -> None:
    while True:
        await asyncio.sleep(_OUTAGE_EVERY)
        over = [rule for rule in emulator.fault_rules.rules if isinstance(rule.fault, Refuse) and rule.fired]
        for rule in over:
            emulator.fault_rules.rules.remove(rule)
        emulator.fail("*", Refuse(_OUTAGE))


async def _keep_books(books: Books) -> None:
    while True:
        await asyncio.sleep(1.0)
        books.turn()


async def _end_of_input() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()


async def main() -> None:
    """Serve until the end of the input."""
    emulator = Emulator(
        seed=1,
        speed=SPEED,
        api_keys=(KEY,),
        plan=Plan("soak", 10_000, progress=True, intermediate=False, discord=False, temporary=False),
        queue=10_000,
        adopt_parents=True,
        durations=Lognormal(20, 50, 2, 100),
        faults=rules(),
        webhook_faults=WebhookFaults(lost=0.05, duplicated=0.05, reordered=0.05, delayed=0.05, delay=10.0),
        progress_error=0.1,
    )
    books = Books(emulator)
    async with emulator.run() as base_url:
        print(base_url, flush=True)
        chores = [asyncio.create_task(_misbehave(emulator)), asyncio.create_task(_keep_books(books))]
        await _end_of_input()
        for chore in chores:
            chore.cancel()
        books.turn()
    sys.stdout.buffer.write(books.report() + b"\n")


if __name__ == "__main__":
    asyncio.run(main())
