"""What observers cost: CPU of a submission and a reroll with none, one and three of them, and with OpenTelemetry.

    python -m benchmarks.observers [--smoke] [--json FILE]

The host is `benchmarks.server`, in a process of its own; the clients take turns in slices within one process.  What
nobody's listening costs is too little to be seen beside a request, so it is timed alone: every question whether anybody
listens that one reroll asks, one after the other, beside the CPU of a submission.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import timeit
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
from attrs import asdict, frozen

from piapi_async import PiAPI, PollPolicy, Reroll, Task
from piapi_async.midjourney import LEGACY
from piapi_async.observe import Event, Observer
from piapi_async.observe._emitter import Events
from piapi_async.tasks import TaskId

from ._clients import KEY, PARENT, PROMPT, TASK_ID
from ._goals import Goal, goals_table
from ._slices import Loop, Slice, Spread, cpu, in_flight, ratios, take_turns
from ._table import short, table
from .server import Remote, server_process

PAUSE = 0.005
IN_FLIGHT = 64
NOBODY, ONE, THREE, TRACED = "no observer", "1 observer", "3 observers", "OpenTelemetry"

GOAL_SHARE = 0.01
"""The share of a submission's CPU that nobody's listening may take."""


class Counting:
    """The least that an observer can do."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def on_event(self, event: Event) -> None:
        """Count the event."""
        self.counts[type(event).__name__] += 1


def traced() -> list[Observer]:
    """Give OpenTelemetry's observer, whose spans are collected and thrown away; none if its SDK is not installed."""
    if find_spec("opentelemetry.sdk") is None:
        return []
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - an extra
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra

    from piapi_async.observe.otel import OpenTelemetryObserver  # noqa: PLC0415 - needs it

    meters = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return [OpenTelemetryObserver(tracer_provider=TracerProvider(), meter_provider=meters)]


@frozen
class Line:
    """One client: CPU in µs of a submission and of a reroll, and both beside the one without observers."""

    client: str
    submit: float
    reroll: float
    submit_to_none: Spread
    reroll_to_none: Spread

    def cells(self) -> list[str]:
        """Give the line's texts."""
        ratios_shown = (
            ["", ""] if self.client == NOBODY else [str(self.submit_to_none), str(self.reroll_to_none)]
        )
        return [self.client, short(self.submit), ratios_shown[0], short(self.reroll), ratios_shown[1]]


async def measure(remote: Remote, *, rounds: int, seconds: float) -> list[Line]:
    """Let the clients take turns."""
    clients: dict[str, list[Observer]] = {
        NOBODY: [],
        ONE: [Counting()],
        THREE: [Counting() for _ in range(3)],
    }
    if tracing := traced():
        clients[TRACED] = tracing

    submits: dict[str, Loop] = {}
    rerolls: dict[str, Loop] = {}
    async with AsyncExitStack() as stack:
        for name, observers in clients.items():
            client = PiAPI(KEY, base_url=remote.base_url, poll=PollPolicy.every(PAUSE), observers=observers)
            piapi = await stack.enter_async_context(client)
            submits[name] = in_flight(IN_FLIGHT, _submit(piapi))
            rerolls[name] = in_flight(IN_FLIGHT, _reroll(piapi))

        of_submits = await take_turns(submits, rounds=rounds, seconds=seconds, least=IN_FLIGHT)
        of_rerolls = await take_turns(rerolls, rounds=rounds, seconds=seconds, least=IN_FLIGHT)
    return [_line(name, of_submits, of_rerolls) for name in clients]


def _submit(piapi: PiAPI) -> Callable[[], Any]:
    return lambda: piapi.submit(Reroll(PARENT, prompt=PROMPT))


def _reroll(piapi: PiAPI) -> Callable[[], Any]:
    async def reroll() -> None:
        await (await piapi.submit(Reroll(PARENT, prompt=PROMPT))).wait()

    return reroll


def _line(name: str, submits: Mapping[str, list[Slice]], rerolls: Mapping[str, list[Slice]]) -> Line:
    return Line(
        name,
        Spread.of([turn.cpu for turn in submits[name]]).median * 1e6,
        Spread.of([turn.cpu for turn in rerolls[name]]).median * 1e6,
        ratios(submits[name], submits[NOBODY], cpu),
        ratios(rerolls[name], rerolls[NOBODY], cpu),
    )


def unheard() -> float:
    """Return the microseconds of all that a reroll, from its submission to its end, tells nobody."""
    events = Events("http://127.0.0.1")
    request = Reroll(PARENT, prompt=PROMPT)
    task: Task[Any] = LEGACY.read({"status": "finished", "task_id": TASK_ID}, TaskId(TASK_ID))

    def tell() -> None:
        subject = events.started(request, "legacy", None)
        events.sending(subject)
        events.accepted(subject, task.task_id, 1.0)
        for _ in range(4):  # polls, as if each were this task's alone
            _ = events.heard_in_detail
        if events.heard:
            events.ended(subject, "legacy", task, 2.0, polls=4, detection_seconds=0.5)

    number = 2_000
    return min(timeit.repeat(tell, number=number, repeat=50)) / number * 1e6


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the table; `smoke` measures for a second, and its figures mean little."""
    begun = time.perf_counter()
    with server_process() as remote:
        lines = asyncio.run(measure(remote, rounds=3 if smoke else 40, seconds=0.02 if smoke else 0.08))

    columns = ("", "µs CPU of a submit", f": {NOBODY}'s", "of a reroll", f": {NOBODY}'s")
    print(table(f"{IN_FLIGHT} in flight", columns, [line.cells() for line in lines]), end="\n\n")

    microseconds = unheard()
    share = microseconds / lines[0].submit
    goal = Goal(
        "what a reroll tells nobody : CPU of a submission",
        f"{share:.2%} ({microseconds:.2f} µs)",
        f"<= {GOAL_SHARE:.0%}",
        share <= GOAL_SHARE,
    )
    print(goals_table("observers", [goal]), end="\n\n")
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found = {"goals": [asdict(goal)], "lines": [asdict(line) for line in lines]}
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What observers cost.")
    parser.add_argument(
        "--smoke", action="store_true", help="a second instead of a minute; the numbers mean little"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json)
