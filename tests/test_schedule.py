"""What is polled when, and what a reading does."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from support.scheduling import (
    DENIED,
    EVERYTHING,
    FAULT,
    SINGLY,
    ids,
    reading,
    schedule_of,
    start,
    succeed,
    take_one,
    watch_of,
)

from piapi_async._wait.schedule import LAST_POLL_LEAD
from piapi_async.errors import (
    ClientClosed,
    PiAPIError,
    RateLimitError,
    UnexpectedAnswer,
)

# -- polls --------------------------------------------------------------------------------------------------------


def test_an_empty_schedule_has_nothing_to_do() -> None:
    schedule = schedule_of()

    assert schedule.next_event(polls=True) == math.inf
    assert schedule.due_polls(1e9, EVERYTHING) == []
    assert schedule.expire(1e9) == []
    assert schedule.close(ClientClosed("x")) == []
    assert len(schedule) == 0


def test_an_attached_task_is_polled_at_once_and_alone() -> None:
    schedule = schedule_of()
    start(schedule, "a", 3.0)

    assert schedule.next_event(polls=True) == 3.0
    poll = take_one(schedule, 3.0)
    assert (ids(poll), poll.multi) == (["a"], False)


def test_a_task_with_a_first_poll_in_the_future_is_left_alone_until_then() -> None:
    schedule = schedule_of()
    schedule.start(watch_of("a", due=8.0), None, 3.0)

    assert schedule.next_event(polls=True) == 8.0
    assert schedule.due_polls(7.999, EVERYTHING) == []
    assert ids(take_one(schedule, 8.0)) == ["a"]


def test_due_tasks_share_requests_up_to_the_size() -> None:
    schedule = schedule_of(20)
    for number in range(45):
        start(schedule, f"t{number}")

    polls = schedule.due_polls(0.0, EVERYTHING)

    assert [len(poll.watches) for poll in polls] == [20, 20, 5]
    assert all(poll.multi for poll in polls)
    assert Counter(task_id for poll in polls for task_id in ids(poll)) == Counter(
        f"t{number}" for number in range(45)
    )
    assert schedule.due_polls(0.0, EVERYTHING) == []


def test_a_request_is_filled_up_with_the_most_urgent_of_those_not_due() -> None:
    schedule = schedule_of(3)
    for number, due in enumerate((5.0, 4.0, 3.0, 2.0)):
        schedule.start(watch_of(f"t{number}", due=due), None, 0.0)

    assert ids(take_one(schedule, 2.0)) == ["t3", "t2", "t1"]


def test_the_limit_bounds_the_polls_and_the_rest_stays_due() -> None:
    schedule = schedule_of(2)
    for number in range(6):
        start(schedule, f"t{number}")

    assert len(schedule.due_polls(0.0, 2)) == 2
    assert schedule.due_polls(0.0, 0) == []
    assert schedule.next_event(polls=True) == 0.0
    assert schedule.next_event(polls=False) == math.inf
    assert len(schedule.due_polls(0.0, 2)) == 1


def test_families_are_never_mixed_and_one_without_multi_fetch_is_asked_singly() -> None:
    schedule = schedule_of(20)
    for name in "abc":
        schedule.start(watch_of(name), None, 0.0)
        schedule.start(watch_of(name, SINGLY), None, 0.0)

    polls = schedule.due_polls(0.0, EVERYTHING)

    assert sorted((poll.family.name, len(poll.watches)) for poll in polls) == [
        ("legacy", 3),
        *[("singly", 1)] * 3,
    ]
    assert len(schedule) == 6


def test_several_waits_share_one_watch_and_one_poll_and_all_are_woken_once() -> None:
    schedule = schedule_of()
    waits = [start(schedule, "a", number * 0.1)[1] for number in range(5)]

    poll = take_one(schedule, 1.0)

    assert ids(poll) == ["a"]
    assert succeed(schedule, poll, 1.0, "finished") == waits
    assert len(schedule) == 0
    assert schedule.next_event(polls=True) == math.inf


def test_a_wait_that_starts_during_a_poll_is_served_by_it() -> None:
    schedule = schedule_of()
    start(schedule, "a")
    poll = take_one(schedule, 0.0)
    watch, late = start(schedule, "a", 0.5, once=True)

    assert schedule.next_event(polls=True) == math.inf
    assert late in succeed(schedule, poll, 1.0)
    assert late not in watch.waits


def test_a_waiting_task_is_polled_again_after_the_interval_and_jitter_only_lengthens() -> None:
    schedule = schedule_of(every=2.0)
    start(schedule, "a")
    succeed(schedule, take_one(schedule, 0.0), 0.5)

    assert 2.5 <= schedule.next_event(polls=True) <= 2.6


def test_a_task_nobody_waits_for_is_not_polled() -> None:
    schedule = schedule_of()
    _, wait = start(schedule, "a")
    start(schedule, "b")

    schedule.stop(wait)
    schedule.stop(wait)

    assert ids(take_one(schedule, 0.0)) == ["b"]
    assert len(schedule) == 1


def test_a_response_that_nobody_waits_for_any_more_is_still_taken_in() -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")
    poll = take_one(schedule, 0.0)
    schedule.stop(wait)

    assert succeed(schedule, poll, 1.0, "finished") == []
    assert watch.ended
    assert len(schedule) == 0


def test_a_wait_that_is_taken_up_again_is_polled_again_however_many_others_came_and_went() -> None:
    schedule = schedule_of()
    watch = watch_of("a", due=10.0)
    schedule.stop(schedule.start(watch, "a", 0.0))
    for number in range(500):
        schedule.stop(schedule.start(watch_of(f"t{number}", due=5.0 + number), None, 0.0))

    schedule.start(watch, "again", 20.0)

    assert schedule.next_event(polls=True) == 20.0
    assert ids(take_one(schedule, 20.0)) == ["a"]


def test_a_poll_that_began_before_the_wait_was_taken_up_again_serves_it() -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")
    poll = take_one(schedule, 0.0)
    schedule.stop(wait)

    again = schedule.start(watch, "again", 1.0)

    assert again.watch is watch
    assert schedule.due_polls(1.0, EVERYTHING) == []
    assert succeed(schedule, poll, 2.0, "finished") == [again]


def test_a_second_watch_of_a_task_that_is_waited_for_gives_way_to_the_first() -> None:
    schedule = schedule_of()
    first, _ = start(schedule, "a")

    assert schedule.start(watch_of("a"), None, 0.0).watch is first
    assert len(schedule) == 1


# -- deadlines ----------------------------------------------------------------------------------------------------


def test_a_deadline_releases_its_waiter_alone() -> None:
    schedule = schedule_of()
    _, early = start(schedule, "a", deadline=5.0)
    watch, late = start(schedule, "a", deadline=9.0)

    assert schedule.expire(4.999) == []
    assert schedule.expire(5.0) == [early]
    assert watch.waits == (late,)
    assert schedule.expire(9.0) == [late]
    assert len(schedule) == 0


def test_a_last_poll_begins_before_the_deadline() -> None:
    schedule = schedule_of(every=100.0)
    start(schedule, "a", deadline=30.0)
    succeed(schedule, take_one(schedule, 0.0), 0.1)

    assert schedule.next_event(polls=True) == 30.0 - LAST_POLL_LEAD
    succeed(schedule, take_one(schedule, 30.0 - LAST_POLL_LEAD), 29.1)
    assert schedule.next_event(polls=True) == 30.0


def test_a_deadline_that_starts_later_brings_the_next_poll_forward() -> None:
    schedule = schedule_of(every=100.0)
    start(schedule, "a")
    succeed(schedule, take_one(schedule, 0.0), 0.1)
    start(schedule, "a", 1.0, deadline=10.0)

    assert schedule.next_event(polls=True) == 10.0 - LAST_POLL_LEAD


def test_a_deadline_nearer_than_the_lead_is_polled_at_once() -> None:
    schedule = schedule_of()
    schedule.start(watch_of("a", due=50.0), None, 10.0, deadline=10.2)

    assert ids(take_one(schedule, 10.0)) == ["a"]


def test_a_response_that_comes_inside_the_lead_is_followed_by_a_last_poll() -> None:
    schedule = schedule_of(every=100.0)
    start(schedule, "a", deadline=10.0)
    poll = take_one(schedule, 0.0)

    succeed(schedule, poll, 9.5)  # it took that long

    assert schedule.next_event(polls=True) <= 9.5


def test_a_wait_for_one_poll_is_over_after_it() -> None:
    schedule = schedule_of()
    once = schedule.start(watch_of("a", due=50.0), None, 1.0, once=True)

    poll = take_one(schedule, 1.0)

    assert succeed(schedule, poll, 1.1) == [once]
    assert len(schedule) == 0


@pytest.mark.parametrize("error", [FAULT, DENIED, RateLimitError("x", status=429), UnexpectedAnswer("x")])
def test_a_wait_for_one_poll_is_over_even_if_it_fails(error: PiAPIError) -> None:
    schedule = schedule_of()
    _, once = start(schedule, "a", once=True)
    watch, patient = start(schedule, "a")

    assert schedule.failed(take_one(schedule, 0.0), error, 0.1) == [once]
    assert watch.waits == (patient,)


def test_one_poll_of_a_denied_task_is_made_at_once_though_others_are_due_too() -> None:
    schedule = schedule_of()
    start(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), DENIED, 0.0)
    start(schedule, "b", 1.0)
    start(schedule, "a", 1.0, once=True)

    polls = schedule.due_polls(1.0, EVERYTHING)

    assert sorted(ids(poll) for poll in polls) == [["a"], ["b"]]


# -- readings ----------------------------------------------------------------------------------------------------


def test_only_news_wakes_those_who_want_changes() -> None:
    schedule = schedule_of()
    watch, eager = start(schedule, "a", changes=True)
    _, patient = start(schedule, "a")

    assert schedule.observe(watch, reading("a", "pending"), 0.0) == [eager]
    assert schedule.observe(watch, reading("a", "pending"), 0.1) == []
    assert schedule.observe(watch, reading("a", "processing", 10), 0.2) == [eager]
    assert schedule.observe(watch, reading("a", "processing", 10), 0.3) == []
    assert schedule.observe(watch, reading("a", "processing", 20), 0.4) == [eager]
    assert schedule.observe(watch, reading("a", "failed"), 0.5) == [eager, patient]
    assert len(schedule) == 0


def test_a_reading_from_elsewhere_during_a_poll_leaves_that_poll_alone() -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")
    poll = take_one(schedule, 0.0)

    assert schedule.observe(watch, reading("a", "processing"), 0.5) == []
    assert schedule.due_polls(100.0, EVERYTHING) == []
    assert succeed(schedule, poll, 101.0, "finished") == [wait]


def test_an_end_read_elsewhere_ends_the_wait_once_though_a_poll_is_under_way() -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")
    poll = take_one(schedule, 0.0)

    assert schedule.observe(watch, reading("a", "finished"), 0.5) == [wait]
    assert succeed(schedule, poll, 1.0, "finished") == []


def test_an_end_is_never_taken_back() -> None:
    schedule = schedule_of()
    watch, _ = start(schedule, "a")
    end = reading("a", "finished")
    schedule.observe(watch, end, 0.0)

    schedule.observe(watch, reading("a", "processing"), 1.0)

    assert watch.task is end


def test_a_later_end_may_have_newer_links() -> None:
    schedule = schedule_of()
    watch, _ = start(schedule, "a")
    schedule.observe(watch, reading("a", "finished"), 0.0)
    newer = reading("a", "finished", 100)

    schedule.observe(watch, newer, 1.0)

    assert watch.task is newer


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
def test_every_end_ends_the_wait(status: str) -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")

    assert succeed(schedule, take_one(schedule, 0.0), 0.0, status) == [wait]
    assert watch.ended
    assert watch.error is None


# -- costs --------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_who_come_and_go_leave_nothing_in_the_heaps() -> None:
    schedule = schedule_of()
    stays, _ = start(schedule, "stays")
    for number in range(50_000):
        watch = watch_of(f"t{number}", due=1e6 + number)
        schedule.stop(schedule.start(watch, None, 0.0, deadline=1e9 + number))
    for number in range(50_000):
        schedule.stop(schedule.start(stays, None, 0.0, deadline=1e9 + number))

    assert len(schedule) == 1
    assert len(schedule._queues["legacy"].heap) < 100
    assert len(schedule._deadlines.heap) < 100
