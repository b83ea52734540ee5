"""Which watch is the watch, and what a reported end does to it: the claim, its check, and how it is judged."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from support.scheduling import EVERYTHING, reading, schedule_of, start, succeed, take_one, watch_of
from support.tables import for_each

from piapi_async import LEGACY, PollPolicy
from piapi_async._protocol.kinds import UNKNOWN
from piapi_async._wait.durations import KindDurations
from piapi_async._wait.schedule import PollSchedule
from piapi_async._wait.watch import NEVER, UNPLANNED, Wait, Watch
from piapi_async.policy import USUAL_CAUTION, Caution
from piapi_async.tasks import TaskId, Usual

LATE = 1e6  # a poll that is due then was put off


def hooked(schedule: PollSchedule, task_id: str = "a", *, due: float = LATE) -> tuple[Watch, Wait]:
    """Begin to wait for a task whose end a webhook should report."""
    watch = Watch(LEGACY, TaskId(task_id), due=due, has_webhook=True)
    wait = schedule.start(watch, task_id, 0.0)
    return wait.watch, wait


def relied_on(ends: int = 64) -> PollSchedule:
    """Return a schedule whose webhooks have reported many ends."""
    schedule = schedule_of()
    for _ in range(ends):
        schedule.trust.confirmed()
    return schedule


# -- which watch is the watch -----------------------------------------------------------------------------------------


def test_the_first_watch_that_is_waited_on_is_the_watch_of_all() -> None:
    schedule = schedule_of()
    mine, yours = watch_of("a"), watch_of("a")

    assert schedule.current(yours) is yours
    first = schedule.start(mine, "mine", 0.0)
    assert schedule.current(yours) is mine
    second = schedule.start(yours, "yours", 0.0)

    assert second.watch is mine
    assert mine.waits == (first, second)
    assert yours.waits == ()


def test_a_watch_that_nobody_waits_on_gives_way_to_the_next() -> None:
    schedule = schedule_of()
    mine, yours = watch_of("a"), watch_of("a")
    schedule.stop(schedule.start(mine, "mine", 0.0))

    assert schedule.start(yours, "yours", 1.0).watch is yours
    assert schedule.current(mine) is yours


def test_stopping_a_wait_that_is_over_leaves_another_watch_of_the_task_alone() -> None:
    schedule = schedule_of()
    mine, yours = watch_of("a"), watch_of("a")
    over = schedule.start(mine, "mine", 0.0, deadline=5.0)
    assert [over] == schedule.expire(5.0)
    going_on = schedule.start(yours, "yours", 6.0)

    assert not schedule.stop(over)

    assert schedule.find(LEGACY, TaskId("a")) is yours
    assert not going_on.over


def test_a_watch_that_has_ended_stays_what_it_is() -> None:
    schedule = schedule_of()
    ended = watch_of("a")
    schedule.observe(ended, reading("a", "finished"), 0.0)
    start(schedule, "a", 1.0)

    assert schedule.current(ended) is ended
    assert schedule.start(ended, "again", 2.0).over


@pytest.mark.parametrize("has_webhook", [False, True])
def test_the_first_poll_of_a_new_task_waits_for_what_it_usually_takes(*, has_webhook: bool) -> None:
    # A webhook that is not relied on makes it neither later nor sooner.
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    kind = schedule.timing.durations_of(LEGACY, UNKNOWN)
    watch = Watch(LEGACY, TaskId("a"), UNPLANNED, durations=kind, paced_from=0.0, has_webhook=has_webhook)
    schedule.start(watch, "a", 0.0)

    assert 4.0 < watch.due < 30.0
    again = schedule.start(watch, "again", 1.0)
    assert again.watch.due <= watch.due


# -- a reported end, step by step -------------------------------------------------------------------------------------


def test_a_reported_end_is_polled_at_once() -> None:
    schedule = relied_on()
    watch, wait = hooked(schedule)
    assert [] == schedule.due_polls(1.0, EVERYTHING)

    schedule.poll_now(watch, 1.0)

    assert (True, True) == (watch.end_reported, watch.report_unchecked)
    poll = take_one(schedule, 1.0)
    assert (True, False) == (watch.end_reported, watch.report_unchecked)
    assert [wait] == succeed(schedule, poll, 1.5, "finished")


def test_a_poll_that_began_before_the_report_cannot_check_it() -> None:
    schedule = relied_on()
    watch, wait = hooked(schedule, due=0.0)
    early = take_one(schedule, 0.0)
    schedule.poll_now(watch, 0.5)

    assert [] == succeed(schedule, early, 1.0, "processing")

    assert watch.report_unchecked
    assert [wait] == succeed(schedule, take_one(schedule, 1.0), 1.5, "finished")


def test_a_poll_that_finds_the_task_going_on_refutes_the_report() -> None:
    schedule = relied_on()
    watch, _ = hooked(schedule)
    schedule.poll_now(watch, 1.0)

    assert [] == succeed(schedule, take_one(schedule, 1.0), 1.5, "processing")

    assert watch.end_reported_at == NEVER
    assert 2.0 < schedule.next_event(polls=True) < math.inf


def test_an_end_that_was_reported_before_anybody_waited_is_polled_when_somebody_does() -> None:
    schedule = relied_on()
    schedule.reported_early(TaskId("a"))

    watch, wait = hooked(schedule)

    assert watch.report_unchecked
    assert [wait] == succeed(schedule, take_one(schedule, 0.0), 0.5, "finished")


def test_an_early_report_counts_once() -> None:
    schedule = relied_on()
    schedule.reported_early(TaskId("a"))
    watch, wait = hooked(schedule)
    succeed(schedule, take_one(schedule, 0.0), 0.5, "processing")
    schedule.stop(wait)

    schedule.start(watch, "again", 1.0)

    assert not watch.end_reported


def test_only_so_many_early_reports_are_remembered() -> None:
    schedule = schedule_of()
    for number in range(10_001):
        schedule.reported_early(TaskId(f"t{number}"))

    watches = [start(schedule, name)[0] for name in ("t0", "t1", "t10000")]

    assert [False, True, True] == [watch.end_reported for watch in watches]


# -- how an end is judged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "trusted"), [(0.1, True), (30.0, False)])
def test_a_report_that_comes_just_after_the_poll_is_in_time_and_a_later_one_is_not(
    seconds: float, *, trusted: bool
) -> None:
    schedule = schedule_of()
    hooked(schedule, due=0.0)
    succeed(schedule, take_one(schedule, 0.0), 0.0, "finished")

    assert schedule.reported_late(LEGACY, TaskId("a"), seconds) is trusted
    assert (schedule.trust.share > 0) is trusted
    assert schedule.trust.ends == 1.0


def test_when_webhooks_are_no_longer_relied_on_polls_that_were_put_off_are_brought_forward() -> None:
    schedule = relied_on()
    names = "abc"
    polls: list[Any] = []
    for name in names:
        hooked(schedule, name, due=0.0)
        polls += schedule.due_polls(0.0, EVERYTHING)
    hooked(schedule, "put off")
    assert schedule.next_event(polls=True) == LATE

    for poll in polls:
        succeed(schedule, poll, 1.0, "finished")

    assert not schedule.trust.relied_on
    assert schedule.next_event(polls=True) < 3.0


# -- what an end that no webhook has reported teaches -----------------------------------------------------------------


def kind_of(schedule: PollSchedule) -> KindDurations:
    """Return what a schedule knows of a kind."""
    return schedule.timing.durations_of(LEGACY, UNKNOWN)


def begin(schedule: PollSchedule, task_id: str = "a", *, has_webhook: bool = True) -> None:
    """Begin to wait for a new task of a kind at its submission."""
    kind = kind_of(schedule)
    watch = Watch(LEGACY, TaskId(task_id), UNPLANNED, durations=kind, paced_from=0.0, has_webhook=has_webhook)
    schedule.start(watch, task_id, 0.0)


def poll_at(schedule: PollSchedule, now: float, status: str, progress: int | None = None) -> None:
    """Poll all tasks, whether they are due or not."""
    (queue,) = schedule._queues.values()
    for watch in queue.watches.values():
        schedule.start(watch, "at once", now - 0.1, once=True)
    for poll in schedule.due_polls(now - 0.1, EVERYTHING):
        readings = {watch.task_id: reading(watch.task_id, status, progress) for watch in poll.watches}
        schedule.succeeded(poll, readings, now)


def caution_after(
    late: float,
    *,
    reported: int = 0,
    missed: int = 0,
    has_webhook: bool = True,
    progress: tuple[int, int] | tuple[None, None] = (None, None),
) -> Caution:
    """Return the caution after an end that a poll has noticed at most so many seconds late."""
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    for _ in range(reported):
        schedule.trust.confirmed()
    for _ in range(missed):
        schedule.trust.missed()

    begin(schedule, has_webhook=has_webhook)
    early, later = progress
    poll_at(schedule, 20.0, "processing", early)
    poll_at(schedule, 40.0, "processing", later)
    poll_at(schedule, 40.0 + late, "finished")
    return kind_of(schedule).caution


@for_each("progress", [(None, None), (20, 60)])
@for_each("late", [0.5, 1.4, 5.0, 20.0])
def test_where_nothing_is_reported_an_end_teaches_as_without_a_webhook(
    late: float, progress: tuple[int, int] | tuple[None, None]
) -> None:
    taught = caution_after(late, has_webhook=False, progress=progress)

    assert caution_after(late, missed=64, progress=progress) == taught != USUAL_CAUTION


def test_a_poll_that_was_put_off_may_notice_an_end_so_much_later() -> None:
    late = PollPolicy(1.5).in_time * 1.2  # a third is reported: polls are put off by 3 %

    unheard, a_third = caution_after(late, missed=64), caution_after(late, reported=40, missed=40)

    in_time = caution_after(0.5, missed=64)
    assert unheard.young < a_third.young < in_time.young


@for_each("times", [1.0, 1.2, 1.5, 3.0, math.inf])
def test_only_a_poll_that_was_put_off_a_little_tells_how_careful_one_was(times: float) -> None:
    kind = KindDurations(Usual(45.0, 0.4))
    kind.begun("a", 0.0)
    kind.put_off("a", times)

    kind.judge("a", 20.0, 60.0, 1.5, 0.1, paced=True)

    assert (kind.caution != USUAL_CAUTION) is (times < 1.25)


def test_a_wait_that_is_left_and_begun_again_teaches_nothing_of_a_poll_that_was_put_off() -> None:
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    for _ in range(64):
        schedule.trust.confirmed()
    kind = kind_of(schedule)
    watch = Watch(LEGACY, TaskId("a"), UNPLANNED, durations=kind, paced_from=0.0, has_webhook=True)
    schedule.stop(schedule.start(watch, "a", 0.0))
    schedule.start(watch, "a", 5.0)

    poll_at(schedule, 158.0, "finished")

    assert kind.caution == USUAL_CAUTION


def test_after_a_report_that_was_refuted_polls_teach_as_without_a_webhook() -> None:
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    for _ in range(64):
        schedule.trust.confirmed()
    begin(schedule)
    watch = schedule.find(LEGACY, TaskId("a"))
    assert watch is not None
    schedule.poll_now(watch, 19.0)
    poll_at(schedule, 20.0, "processing")

    poll_at(schedule, 40.0, "finished")

    assert kind_of(schedule).caution != USUAL_CAUTION


def test_an_end_that_the_safety_net_has_noticed_teaches_nothing() -> None:
    assert caution_after(20.0, reported=64) == caution_after(0.5, reported=64) == USUAL_CAUTION


@for_each("seen", [True, False])
def test_those_whose_polls_were_put_off_when_deliveries_stopped_teach_nothing(*, seen: bool) -> None:
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    for _ in range(64):
        schedule.trust.confirmed()
    for task_id in "abcd":
        begin(schedule, task_id)
    if seen:
        poll_at(schedule, 20.0, "processing")
    for _ in range(3):
        schedule.trust.missed()
    assert not schedule.trust.relied_on

    poll_at(schedule, 100.0, "finished")

    assert kind_of(schedule).caution == USUAL_CAUTION


def test_an_end_that_was_reported_teaches_no_caution() -> None:
    schedule = PollSchedule(PollPolicy(1.5), Random(1), 20)  # noqa: S311 - jitter
    begin(schedule)
    poll_at(schedule, 20.0, "processing")
    watch = schedule.find(LEGACY, TaskId("a"))
    assert watch is not None

    schedule.poll_now(watch, 59.0)
    poll_at(schedule, 60.0, "finished")

    assert kind_of(schedule).caution == USUAL_CAUTION
