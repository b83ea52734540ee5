"""The promise that 95 % of ends are noticed in time: for every kind of task, and whatever progress tells.

The schedule alone is run, against a model of a host.  Each kind has its floor, the polls of one who
knows the durations (`Measured.floor`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from piapi_async._protocol.kinds import FAST, PICTURE, RELAX, SOLID, SOUND, TURBO, VIDEO
from piapi_async.policy import PollPolicy
from piapi_async.tasks import Usual

from ._goals import Goal
from ._sim import SHAPES, Case, Measured, simulate
from ._table import short, table

DELAY = 1.5
"""The policy's knob, seconds."""


@frozen(kw_only=True)
class KindRow:
    """One kind of task, waited for by a client that has seen ten of it, or goes by its request class alone."""

    what: str
    usual: Usual
    per_task: float
    floor: float
    p95: float

    def cells(self) -> list[str]:
        """Return the line's texts."""
        in_time, cheap = self.p95 <= GOAL_LATENESS, self.per_task <= GOAL_OVER_FLOOR * self.floor
        return [
            self.what,
            f"{self.usual.median:g}",
            f"{self.usual.spread:g}",
            f"{self.p95:.2f}",
            f"<= {GOAL_LATENESS:g}",
            _met(in_time),
            short(self.per_task),
            short(self.floor),
            f"{self.per_task / self.floor:.2f}",
            f"<= {GOAL_OVER_FLOOR:g}",
            _met(cheap),
        ]


def _met(met: bool) -> str:  # noqa: FBT001 - a word for it
    return "met" if met else "MISSED"


GOAL_LATENESS, GOAL_OVER_FLOOR = 1.6, 1.1
_KINDS = (
    ("pictures", PICTURE),
    ("sound", SOUND),
    ("3-D", SOLID),
    ("video", VIDEO),
    ("turbo", TURBO),
    ("relax", RELAX),
)
_SEEDS = (1, 2, 3)
_CHANGING = (20.0, 45.0, 240.0)
_MEDIANS = (2.0, 3.0, 8.0, 15.0, 45.0, 100.0, 240.0, 600.0)


def kind_rows(tasks: int) -> list[KindRow]:
    """Measure kinds, simulated: four in flight, a request for each poll, no progress reported, delay = 1.5 s."""
    cases = [
        (what, Case(4, 1, progress=False, tasks=tasks, usual=usual, warm_up=0)) for what, usual in (_KINDS)
    ]
    for median in _MEDIANS:
        case = Case(4, 1, progress=False, tasks=tasks, usual=Usual(median, 0.4), guess=FAST)
        cases.append(("guessed 45 s, after ten", case))
    for median in _CHANGING:
        for factor in (10.0, 0.1):
            before = Usual(median, 0.4)
            changing = Case(
                4,
                1,
                progress=False,
                tasks=tasks // 2,
                usual=before,
                guess=before,
                warm_up=60,
                changes_after=50,
            )
            cases.append((f"was {median:g} s, ten after x {factor:g}", evolve(changing, factor=factor)))
    return [_kind_row(what, case) for what, case in cases]


def _kind_row(what: str, case: Case) -> KindRow:
    assert case.usual is not None  # noqa: S101 - all of these have one
    measured = Measured()
    for seed in _SEEDS:  # so that a row tells of the schedule, and not of its draws
        measured.add(simulate(case, PollPolicy(DELAY), seed=seed))
    return KindRow(
        what=what,
        usual=evolve(case.usual, median=case.usual.median * case.factor),
        per_task=measured.per_task,
        floor=measured.floor(GOAL_LATENESS),
        p95=measured.p95,
    )


def kinds_table(rows: Sequence[KindRow]) -> str:
    """Return the table of the kinds."""
    columns = (
        "kinds (simulated)",
        "median",
        "spread",
        "p95",
        "goal",
        "",
        "R",
        "floor",
        "R/floor",
        "goal",
        "",
    )
    return table("on time for every kind", columns, [row.cells() for row in rows])


def shape_rows(delay: float, tasks: int) -> dict[str, Measured]:
    """Measure how late ends are noticed where progress misleads, simulated, by how it does."""
    return {
        shape: simulate(Case(100, 20, progress=True, tasks=tasks, shape=shape), PollPolicy(delay))
        for shape in SHAPES
    }


def shapes_table(delay: float, shapes: Mapping[str, Measured]) -> str:
    """Return the table of progress that is not steady."""
    latest = delay * GOAL_LATENESS / DELAY
    rows = [
        [
            shape,
            short(measured.per_task),
            *(f"{measured.quantile(share):.2f}" for share in (0.5, 0.95, 1.0)),
            f"<= {latest:g}",
            _met(measured.p95 <= latest),
        ]
        for shape, measured in shapes.items()
    ]
    title = f"progress that is not steady (simulated, 100 in flight, K = 20, delay={delay:g} s)"
    return table(title, ("progress is", "R", "p50", "p95", "worst", "goal of p95", ""), rows)


def goals_on_time(kinds: Sequence[KindRow], shapes: Mapping[str, Measured]) -> list[Goal]:
    """Return the goals for every kind, with the worst figure of all rows."""
    latest = max(kinds, key=lambda row: row.p95)
    dearest = max(kinds, key=lambda row: row.per_task / row.floor)
    over = dearest.per_task / dearest.floor
    shape, worst = max(shapes.items(), key=lambda found: found[1].p95)
    return [
        Goal(
            f"p95 of any kind, s ({latest.what}, median {latest.usual.median:g} s)",
            f"{latest.p95:.2f}",
            f"<= {GOAL_LATENESS:g}",
            latest.p95 <= GOAL_LATENESS,
        ),
        Goal(
            f"polls over the floor of any kind ({dearest.what}, median {dearest.usual.median:g} s)",
            f"{over:.2f}",
            f"<= {GOAL_OVER_FLOOR:g}",
            over <= GOAL_OVER_FLOOR,
        ),
        Goal(
            f"p95 of any progress, s ({shape})",
            f"{worst.p95:.2f}",
            f"<= {GOAL_LATENESS:g}",
            worst.p95 <= GOAL_LATENESS,
        ),
    ]
