"""What waiting costs: poll requests per task against the seconds until an end is noticed.

    python -m benchmarks.polling [--sim] [--smoke | --large] [--delay SECONDS] [--json FILE] [--plot FILE]

Some tasks are in flight at any time, each replaced when its wait returns.  Durations are lognormal as in fast mode, the
progress that is reported is wrong by 10 %, an answer takes 50 ms.  The real client waits, at the emulator, over real
sockets, on a virtual clock; with `--sim` only its schedule, against a model of a host, which takes seconds and agrees.

R is poll requests per task, L the mean detection delay (from a task's end to the return of its wait), K the ids that a
request carries.  The product R·L·K is what a schedule is judged by: any delay can be bought with requests.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import orjson
from attrs import asdict, frozen

from piapi_async.policy import PollPolicy

from ._goals import Goal, goals_table
from ._on_time import DELAY, goals_on_time, kind_rows, kinds_table, shape_rows, shapes_table
from ._peers import PEERS
from ._picture import Curve, Dot, draw
from ._sim import LATENCY, MEAN, Case, Measured, draw_duration, seeded, simulate
from ._table import short, table

DELAYS = (0.5, 1.0, 1.5, 3.0, 6.0, 12.0)
SIZES = (1, 20, 50, 100)
LEAST, LEAST_SMOKE = 2000, 20  # tasks measured
RUNS_ALONE = 2
"""Runs that count as one where each task takes its own requests: what a client learns first moves a run by 4 %."""

GOAL_BLIND, GOAL_PROGRESS, GOAL_ALONE = 25.0, 9.0, 50.0
"""Seconds: the most that R·L·K may be without progress and with it, and R·p95 for a single task."""

COLUMNS = ("in flight", "K", "progress", "R", "L", "p95", "ids", "R·L·K", "R·p95", "goal", "")


@frozen
class Job:
    """One measurement to make; a value, so that another process can make it."""

    case: Case
    delay: float
    seed: int
    simulated: bool

    @property
    def runs(self) -> int:
        """How many runs of the case count as one."""
        return RUNS_ALONE if self.case.size == 1 else 1

    def run(self) -> Row:
        """Make it."""
        begun = time.perf_counter()
        measured = Measured()
        for run in range(self.runs):
            measured.add(self._measure(self.seed + run))
        return Row(
            in_flight=self.case.in_flight,
            size=self.case.size,
            progress=self.case.progress,
            delay=self.delay,
            tasks=len(measured.delays),
            requests_per_task=measured.per_task,
            ids_per_request=measured.ids / measured.requests,
            mean=measured.mean,
            p95=measured.p95,
            took=time.perf_counter() - begun,
        )

    def _measure(self, seed: int) -> Measured:
        policy = PollPolicy(self.delay)
        if self.simulated:
            return simulate(self.case, policy, seed=seed)
        from ._virtual import measure  # noqa: PLC0415 - the simulation needs neither aiohttp nor looptime

        return measure(self.case, policy, seed=seed)


@frozen(kw_only=True)
class Row:
    """One line of the table: `mean` and `p95` are detection delays, `took` the seconds that measuring took."""

    in_flight: int
    size: int
    progress: bool
    delay: float
    tasks: int
    requests_per_task: float
    ids_per_request: float
    mean: float
    p95: float
    took: float

    @property
    def carried(self) -> int:
        """The most ids that a request can carry here."""
        return min(self.in_flight, self.size)

    @property
    def product(self) -> float:
        """R·L·K, seconds."""
        return self.requests_per_task * self.mean * self.carried

    @property
    def alone(self) -> float:
        """R·p95, seconds."""
        return self.requests_per_task * self.p95

    @property
    def judged(self) -> float:
        """What the goal is about, seconds."""
        return self.alone if self.in_flight == 1 else self.product

    @property
    def tick(self) -> float:
        """R·L·K of one even stream of requests, each of which notices every end before it.

        At r requests per second L is 1/(2r) and R is r · mean / N, so their product does not depend on r.  With many
        tasks in flight ends come evenly, and no schedule does much better; with few, requests can be aimed.
        """
        return MEAN / 2 * self.carried / self.in_flight

    @property
    def goal(self) -> float:
        """The most that the product may be; inf for none.

        With few in flight there is none: polling all of them at an even pace is as good as any schedule.
        """
        if self.in_flight == 1:
            return GOAL_ALONE
        least, goal = (4, GOAL_PROGRESS) if self.progress else (2, GOAL_BLIND)
        return goal if self.in_flight >= least * self.size else math.inf

    @property
    def verdict(self) -> str:
        """Whether the goal is met; beside which even stream it stands, if there is none."""
        if self.goal == math.inf:
            return f"even stream {self.tick:.1f}"
        return "met" if self.judged <= self.goal else "MISSED"

    def cells(self) -> list[str]:
        """Return the line's texts."""
        return [
            f"{self.in_flight:,}",
            str(self.size),
            "yes" if self.progress else "no",
            short(self.requests_per_task),
            f"{self.mean:.2f}",
            f"{self.p95:.2f}",
            f"{self.ids_per_request:.1f}",
            f"{self.product:.1f}",
            f"{self.alone:.1f}" if self.in_flight == 1 else "",
            "" if self.goal == math.inf else f"<= {self.goal:g}",
            self.verdict,
        ]


def grid(crowds: Sequence[int], sizes: Sequence[int] = SIZES, *, least: int = LEAST) -> list[Case]:
    """Return the cases; of the sizes that the tasks in flight cannot fill only the smallest is worth measuring."""
    return [
        make_case(crowd, size, progress=progress, least=least)
        for progress in (False, True)
        for crowd in crowds
        for size in sizes
        if (size > 1 or crowd <= 1000) and not any(crowd <= smaller < size for smaller in sizes)  # noqa: PLR2004
    ]


def make_case(in_flight: int, size: int, *, progress: bool, least: int = LEAST) -> Case:
    """Return a case with enough tasks for a few per cent of accuracy, and not many more where each costs many polls."""
    generations = 3 if size > 1 and in_flight <= 1000 else 1  # noqa: PLR2004
    return Case(in_flight, size, progress, max(generations * in_flight, least))


def run_all(jobs: Sequence[Job]) -> Iterator[Row]:
    """Make the measurements, as many at a time as there are cores; give the rows in order."""
    if all(job.simulated for job in jobs) and sum(job.case.tasks for job in jobs) < 1000:  # noqa: PLR2004
        yield from map(Job.run, jobs)
        return
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        yield from pool.map(Job.run, jobs)


def wait_as_peers(tasks: int = 5000) -> dict[str, Measured]:
    """Return what the schedules of others cost for tasks of the same durations."""
    rng = seeded("peers")
    durations = [draw_duration(rng) for _ in range(tasks)]
    return {peer.name: peer.wait(durations, LATENCY) for peer in PEERS}


def peers_table(peers: dict[str, Measured]) -> str:
    """Return the table of the peers."""
    rows = [
        [
            name,
            short(measured.per_task),
            f"{measured.mean:.2f}",
            f"{measured.p95:.2f}",
            f"{measured.per_task * measured.mean:.1f}",
            f"{measured.per_task * measured.p95:.1f}",
        ]
        for name, measured in peers.items()
    ]
    return table(
        "others, any number in flight, one id per request",
        ("schedule of", "R", "L", "p95", "R·L", "R·p95"),
        rows,
    )


def goals(rows: Sequence[Row], peers: dict[str, Measured]) -> list[Goal]:
    """Return each goal with the worst figure that it speaks of."""
    figures = ", ".join(f"{name} {each.per_task * each.mean:.0f}" for name, each in peers.items())
    alone = ", ".join(f"{name} {each.per_task * each.p95:.0f}" for name, each in peers.items())
    found = []
    for what, goal, others in (
        ("R·p95 of one task, s", GOAL_ALONE, alone),
        ("R·L·K of many without progress, s", GOAL_BLIND, figures),
        ("R·L·K of many with progress, s", GOAL_PROGRESS, figures),
    ):
        within = [row.judged for row in rows if row.goal == goal]
        if within:
            worst = max(within)
            found.append(Goal(what, f"{worst:.1f}", f"<= {goal:g}", worst <= goal, others))
    return found


def knob_table(tasks: int) -> str:
    """Return whether the knob keeps its word, simulated."""
    cases = (
        Case(1, 1, progress=False, tasks=tasks),
        Case(100, 20, progress=False, tasks=tasks),
        Case(100, 20, progress=True, tasks=tasks),
    )
    rows = [
        [f"{delay:g}", *(f"{simulate(case, PollPolicy(delay)).p95:.2f}" for case in cases)]
        for delay in DELAYS
    ]
    return table(
        "p95 as the knob is turned (simulated)", ("delay", "one task", "100, K = 20", "with progress"), rows
    )


def plot(path: Path, jobs: Sequence[Job], peers: dict[str, Measured]) -> None:
    """Draw requests per task against the 95th percentile of the delay, both logarithmic."""
    rows = list(run_all(jobs))
    curves = [
        Curve(_name(case), [(row.p95, row.requests_per_task) for row in rows if _of(row, case)])
        for case in PICTURED
    ]
    draw(path, curves, [Dot(name, measured.p95, measured.per_task) for name, measured in peers.items()])


PICTURED = (
    make_case(1, 1, progress=False),
    make_case(100, 20, progress=False),
    make_case(100, 20, progress=True),
    make_case(1000, 100, progress=True),
)


def _name(case: Case) -> str:
    crowd = "one task" if case.in_flight == 1 else f"{case.in_flight:,} tasks, {case.size} ids\nper request"
    return f"{crowd}, progress" if case.progress else crowd


def _of(row: Row, case: Case) -> bool:
    return (row.in_flight, row.size, row.progress) == (case.in_flight, case.size, case.progress)


def main(
    *,
    smoke: bool = False,
    json_path: Path | None = None,
    simulated: bool = False,
    large: bool = False,
    delay: float = DELAY,
    seed: int = 1,
    plot_path: Path | None = None,
) -> None:
    """Print the tables; `smoke` measures little, `large` also 10,000 tasks in flight."""
    begun = time.perf_counter()
    cases = grid((1, 10, 100, 1000, 10_000) if large else (1, 10, 100, 1000))
    if smoke:
        cases = [*grid((1,), (1,), least=LEAST_SMOKE), *grid((100,), (20,), least=LEAST_SMOKE)]
    rows = list(run_all([Job(case, delay, seed, simulated) for case in cases]))
    peers = wait_as_peers()
    who = "simulated" if simulated else "the client at the emulator"
    print(table(f"polling: {who}, delay={delay:g} s", COLUMNS, [row.cells() for row in rows]), end="\n\n")
    print(peers_table(peers), end="\n\n")
    shapes = shape_rows(delay, 60 if smoke else 1000)
    print(shapes_table(delay, shapes), end="\n\n")
    kinds = kind_rows(20 if smoke else 600)
    print(kinds_table(kinds), end="\n\n")
    on_time = goals_on_time(kinds, shapes)
    print(goals_table("on time", on_time), end="\n\n")
    print(knob_table(60 if smoke else 1000), end="\n\n")
    if plot_path is not None:
        plot(plot_path, [Job(case, each, seed, simulated) for case in PICTURED for each in DELAYS], peers)
    print(f"{time.perf_counter() - begun:.0f} s")
    if json_path is not None:
        found = {
            "goals": [asdict(goal) for goal in goals(rows, peers) + on_time],
            "rows": [asdict(row) for row in rows],
        }
        found["kinds"] = [asdict(kind) for kind in kinds]
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What waiting costs.")
    parser.add_argument("--sim", action="store_true", help="the book alone, at a model of a host: seconds")
    parser.add_argument("--smoke", action="store_true", help="a few small cases")
    parser.add_argument("--large", action="store_true", help="10,000 tasks in flight, too")
    parser.add_argument("--delay", type=float, default=DELAY, help="the policy's knob, seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--plot", type=Path, help="draw the picture (.svg or .png)")
    given = parser.parse_args()
    main(
        smoke=given.smoke,
        json_path=given.json,
        simulated=given.sim,
        large=given.large,
        delay=given.delay,
        seed=given.seed,
        plot_path=given.plot,
    )
