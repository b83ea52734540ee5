"""Ends are noticed in time, and for few polls, whatever tasks of a kind take: the schedule at a model of a host."""

from __future__ import annotations

import pytest

from benchmarks._sim import Case, Measured, simulate
from piapi_async import PollPolicy
from piapi_async.tasks import Usual

IN_TIME = 1.6
FEW = 0.065  # 5 %, and two deviations more for the few hundred tasks of a test
GUESS = Usual(45.0, 0.6)


def polled(median: float, *, tasks: int = 200, guess: Usual = GUESS, factor: float = 1.0) -> Measured:
    """Poll tasks of a kind, four at a time and each by itself, from the tenth end (of a change) on."""
    warm_up, changes_after = 10, 0
    if factor != 1.0:
        warm_up, changes_after = 60, 50
    case = Case(
        4,
        1,
        progress=False,
        tasks=tasks,
        usual=Usual(median, 0.4),
        guess=guess,
        warm_up=warm_up,
        changes_after=changes_after,
        factor=factor,
    )
    return simulate(case, PollPolicy(1.5))


def late(measured: Measured) -> float:
    """Return the share of the ends that were noticed late."""
    return sum(delay > IN_TIME for delay in measured.delays) / len(measured.delays)


@pytest.mark.parametrize(
    ("median", "tasks"),
    [(3.0, 400), (15.0, 400), (60.0, 200), pytest.param(240.0, 600, marks=pytest.mark.storm)],
)
def test_what_a_run_has_learnt_costs_little_more_than_what_one_who_knows_would_pay(
    median: float, tasks: int
) -> None:
    measured = polled(median, tasks=tasks)

    assert late(measured) <= FEW
    assert measured.per_task <= 1.13 * measured.floor(IN_TIME)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_change_at_the_host_is_followed_within_ten_tasks(factor: float) -> None:
    measured = polled(20.0, tasks=300, factor=factor, guess=Usual(20.0, 0.4))

    assert late(measured) <= FEW
    assert measured.per_task <= 1.2 * measured.floor(IN_TIME)


@pytest.mark.parametrize("shape", ["in seven steps", "none until half-time"])
def test_progress_that_misleads_is_not_relied_on(shape: str) -> None:
    case = Case(100, 20, progress=True, tasks=200, shape=shape)

    assert simulate(case, PollPolicy(1.5)).p95 <= IN_TIME


def test_steady_progress_is_relied_on() -> None:
    case = Case(100, 20, progress=True, tasks=300)
    measured = simulate(case, PollPolicy(1.5))

    assert measured.p95 <= IN_TIME
    assert measured.per_task * measured.mean * 20 <= 9.5


def test_a_slow_network_makes_nobody_more_careful() -> None:
    case = Case(10, 1, progress=True, tasks=200, latency=0.6)

    assert simulate(case, PollPolicy(1.5)).per_task <= 11.0


@pytest.mark.storm
def test_tasks_that_share_their_polls_cost_no_more_than_an_even_stream_of_polls() -> None:
    case = Case(100, 50, progress=False, tasks=600)
    measured = simulate(case, PollPolicy(1.5))

    assert measured.p95 <= IN_TIME
    assert measured.per_task * measured.mean * 50 <= 26.0
