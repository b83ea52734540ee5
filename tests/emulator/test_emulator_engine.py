"""The engine alone: every property is of the pure life of tasks, with time as a number."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piapi_async.emulator import Constant, Lognormal
from piapi_async.emulator._service.durations import DURATIONS
from piapi_async.emulator._service.engine import TaskEngine, _Account
from piapi_async.emulator._service.requests import Kind, Refusal
from piapi_async.emulator._service.tasks import END_STAGES, LIFE, Event, Script, Stage
from piapi_async.emulator._service.verbs import VERBS, midjourney_request

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["imagine", "reroll", "cancel", "fail", "finish", "wait", "wait"]),
        st.integers(0, 40),
        st.floats(0, 100),
    ),
    max_size=40,
)
ORDER = list(Stage)


def _play(engine: TaskEngine, steps: list[tuple[str, int, float]]) -> list[tuple[str, str, str]]:
    """Play a script and return every task as it was after every step."""
    now, log = 0.0, []
    for what, number, seconds in steps:
        ids = list(engine.tasks)
        target = ids[number % len(ids)] if ids else ""
        try:
            if what == "wait":
                now += seconds
            elif what == "imagine":
                engine.create(
                    midjourney_request("imagine", {"prompt": "a cat"}), account=str(number % 2), now=now
                )
            elif what == "reroll":
                engine.create(
                    midjourney_request("reroll", {"origin_task_id": target or "x"}), account="0", now=now
                )
            elif target and what == "cancel":
                engine.cancel(target, now=now)
            elif target:
                engine.end(target, error="no" if what == "fail" else "", now=now)
        except Refusal as refusal:
            log.append(("", "", refusal.message))
        engine.advance(now)
        log += [(task.task_id, str(task.stage), str(task.progress(now))) for task in engine.tasks.values()]
    return log


@given(STEPS, st.integers(0, 5), st.floats(0, 1), st.floats(0, 1))
def test_the_same_seed_and_the_same_calls_give_the_same_run(
    steps: Any, seed: int, failure_rate: float, retry_rate: float
) -> None:
    machines = [
        TaskEngine(seed=seed, concurrency=3, queue=2, failure_rate=failure_rate, retry_rate=retry_rate)
        for _ in "12"
    ]
    assert _play(machines[0], steps) == _play(machines[1], steps)


@given(STEPS, st.floats(0, 1))
def test_every_task_moves_along_the_table_only(steps: Any, retry_rate: float) -> None:
    engine = TaskEngine(concurrency=2, queue=3, retry_rate=retry_rate)
    log = _play(engine, steps)

    reachable = {stage: {stage} for stage in Stage}
    for _ in Stage:
        for (start, _event), end in LIFE.items():
            reachable[start] |= reachable[end]
    before: dict[str, Stage] = {}
    for task_id, word, _ in log:
        if task_id:
            stage = Stage(word)
            assert stage in reachable[before.get(task_id, Stage.STAGED)]
            before[task_id] = stage


@given(STEPS)
def test_no_account_runs_more_than_its_limit_and_nothing_waits_beside_a_free_place(steps: Any) -> None:
    engine = TaskEngine(concurrency=2, queue=3)
    _play(engine, steps)

    for account in "01":
        tasks = [task for task in engine.tasks.values() if task.account == account]
        staged = sum(task.stage is Stage.STAGED for task in tasks)
        running = sum(task.stage not in END_STAGES and task.stage is not Stage.STAGED for task in tasks)
        place = engine._accounts.get(account, _Account())
        assert (running, staged) == (place.running, len(place.staged))
        assert running <= 2
        assert staged <= 3
        assert running == 2 or not staged


@given(STEPS, st.lists(st.floats(0, 400), max_size=8))
def test_how_often_one_looks_changes_nothing(steps: Any, looks: list[float]) -> None:
    often, seldom = TaskEngine(seed=3, concurrency=2), TaskEngine(seed=3, concurrency=2)
    for engine in (often, seldom):
        _play(engine, steps)
    start = often.now
    for look in sorted(looks):
        often.advance(start + look)
    for engine in (often, seldom):
        engine.advance(start + 5000)

    assert [(task.stage, task.ended) for task in often.tasks.values()] == [
        (task.stage, task.ended) for task in seldom.tasks.values()
    ]


@given(st.integers(0, 50), st.floats(0, 0.3), st.floats(0, 1))
def test_progress_never_falls_within_an_attempt_and_says_100_only_at_the_end(
    seed: int, error: float, retry_rate: float
) -> None:
    engine = TaskEngine(seed=seed, progress_error=error, retry_rate=retry_rate)
    task = engine.create(midjourney_request("imagine", {"prompt": "a"}), account="", now=0)
    seen: list[tuple[float, int]] = []
    for now in range(700):
        engine.advance(now)
        assert (task.progress(now) == 100) == (task.stage is Stage.FINISHED)
        if task.stage is Stage.PROCESSING:
            seen.append((task.attempt, task.progress(now)))
    assert sorted(seen) == seen


def test_reported_progress_misleads_by_about_the_asked_share() -> None:
    engine = TaskEngine(durations={"fast": Constant(100)}, progress_error=0.1, concurrency=500)
    tasks = [
        engine.create(midjourney_request("imagine", {"prompt": "a"}), account="", now=0) for _ in range(300)
    ]
    engine.advance(51.5)

    shares = [task.progress(51.5) / 50 for task in tasks]
    assert 0.9 < sum(shares) / len(shares) < 1.1
    assert 0.06 < (sum((share - 1) ** 2 for share in shares) / len(shares)) ** 0.5 < 0.14


def test_durations_have_the_median_and_the_tail_they_were_given() -> None:
    rng = Random(1)  # noqa: S311 - drawn again and again, the same
    drawn = sorted(DURATIONS["fast"](rng) for _ in range(4000))

    assert 42 < drawn[2000] < 48
    assert 108 < drawn[3800] < 132
    assert 8 <= drawn[0] <= drawn[-1] <= 600
    assert Lognormal(50, 60, 1, 5)(rng) == 5
    assert pytest.approx(sorted(DURATIONS["turbo"](rng) for _ in range(1001))[500], rel=0.1) == 15


@pytest.mark.parametrize(
    ("mode", "seconds"), [("turbo", 15.0), ("relax", 200.0), ("", 40.0), ("mixed", 40.0)]
)
def test_the_duration_follows_verb_and_mode(mode: str, seconds: float) -> None:
    durations = {"fast": 40.0, "mixed": 40.0, "turbo": 15.0, "relax": 200.0, "upscale": 3.0}
    engine = TaskEngine(durations={name: Constant(value) for name, value in durations.items()})
    task = engine.create(
        midjourney_request("imagine", {"prompt": "a", "process_mode": mode}), account="", now=0
    )
    engine.advance(1000)
    child = engine.create(
        midjourney_request("reroll", {"origin_task_id": task.task_id}), account="", now=1000
    )
    upscale = midjourney_request("upscale", {"origin_task_id": task.task_id, "index": "1"})
    upscaled = engine.create(upscale, account="", now=1000)
    engine.advance(2000)

    assert (seconds, seconds, 3) == tuple((t.ended or 0) - t.created for t in (task, child, upscaled))


def test_a_fate_falls_on_the_next_task_of_its_verb() -> None:
    engine = TaskEngine(adopt_parents=True)
    engine.script_next("reroll", Script(fails="too wild", retries=2, seconds=30.0))
    other = engine.create(midjourney_request("imagine", {"prompt": "a"}), account="", now=0)
    fated = engine.create(midjourney_request("reroll", {"origin_task_id": "x"}), account="", now=0)
    engine.advance(1000)

    assert (fated.stage, fated.error, fated.retries) == ("failed", "too wild", 2)
    assert fated.ended is not None
    assert 0 < fated.ended < 30
    assert other.stage == "finished"


def test_a_task_is_ended_by_hand_in_any_stage() -> None:
    engine = TaskEngine(concurrency=1, retry_rate=1.0, durations={"fast": Constant(100)})
    for wait, stage in ((0.0, "pending"), (20.0, "processing"), (48.8, "retry")):
        task = engine.create(midjourney_request("imagine", {"prompt": "a"}), account="", now=engine.now)
        staged = engine.create(midjourney_request("imagine", {"prompt": "a"}), account="", now=engine.now)
        engine.advance(engine.now + wait)
        assert (stage, "staged") == (task.stage, staged.stage)
        assert engine.end(staged.task_id, now=engine.now)
        assert engine.end(task.task_id, error="stopped", now=engine.now)
        assert not engine.end(task.task_id, now=engine.now)
        assert (task.stage, task.error, staged.stage) == ("failed", "stopped", "finished")
        assert not engine.cancel(task.task_id, now=engine.now)


def test_an_adopted_task_is_finished_and_kept_once() -> None:
    engine = TaskEngine()
    engine.advance(100)
    task = engine.adopt("x", kind=Kind.SINGLE, prompt="a cat", age=30)

    assert (task.ended, task.stage, task.adopted) == (70, "finished", True)
    assert task is engine.adopt("x")
    assert None is engine.next_due()


def test_every_end_has_no_way_out_and_every_stage_leads_to_one() -> None:
    assert not [edge for edge in LIFE if edge[0] in END_STAGES]
    assert {event for _, event in LIFE} == set(Event)
    assert len(VERBS) == 10
