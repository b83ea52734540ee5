from __future__ import annotations

import math
from collections import Counter, defaultdict
from random import Random
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from piapi_async import LEGACY, Family, PollPolicy
from piapi_async._http import HTTPResponse
from piapi_async._wait.faults import FAULT_WARNING_AFTER, NOT_FOUND_GRACE
from piapi_async._wait.schedule import LAST_POLL_LEAD, PollSchedule
from piapi_async._wait.watch import Poll, Wait, Watch
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    RateLimitError,
    ServerError,
    TransportError,
    UnexpectedAnswer,
)
from piapi_async.midjourney import Fetch
from piapi_async.tasks import Task, TaskId

SINGLY: Family[Any] = attrs.evolve(LEGACY, name="singly", fetch_many=None)
EVERYTHING = 10_000

DENIED = NotFoundError("task not found", status=400, message="task not found")
FAULT = TransportError("dropped", sent=True)


def reading(task_id: str, status: str = "pending", progress: int | None = None) -> Task[Any]:
    body = {"task_id": task_id, "status": status, "task_result": {"task_progress": progress}}
    return Fetch(TaskId(task_id)).parse(HTTPResponse(200, orjson.dumps(body)))


def schedule_of(size: int = 20, every: float = 1.0) -> PollSchedule:
    return PollSchedule(PollPolicy.every(every), Random(1), size)  # noqa: S311 - jitter, the same in every run


def watch_of(task_id: str, family: Family[Any] = LEGACY, due: float = -math.inf) -> Watch:
    return Watch(family, TaskId(task_id), due)


def start(schedule: PollSchedule, task_id: str, now: float = 0.0, **options: Any) -> tuple[Watch, Wait]:
    wait = schedule.start(watch_of(task_id), task_id, now, **options)
    return wait.watch, wait


def take_one(schedule: PollSchedule, now: float) -> Poll:
    (poll,) = schedule.due_polls(now, EVERYTHING)
    return poll


def ids(poll: Poll) -> list[TaskId]:
    return [watch.task_id for watch in poll.watches]


def succeed(schedule: PollSchedule, poll: Poll, now: float, status: str = "pending") -> list[Wait]:
    return schedule.succeeded(poll, {task_id: reading(task_id, status) for task_id in ids(poll)}, now)


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
    assert Counter(task_id for poll in polls for task_id in ids(poll)) == Counter(f"t{number}" for number in range(45))
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

    assert sorted((poll.family.name, len(poll.watches)) for poll in polls) == [("legacy", 3), *[("singly", 1)] * 3]
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


# -- tasks the host does not know ---------------------------------------------------------------------------------


def test_a_task_missing_from_a_multi_fetch_is_asked_for_singly_at_once_then_after_the_grace_and_ends_alone() -> None:
    schedule = schedule_of()
    missing, wait = start(schedule, "a")
    start(schedule, "b")
    poll = take_one(schedule, 0.0)

    assert schedule.succeeded(poll, {TaskId("a"): None, TaskId("b"): reading("b")}, 0.1) == []

    poll = take_one(schedule, 0.1)
    assert (ids(poll), poll.multi) == (["a"], False)
    assert schedule.failed(poll, DENIED, 0.2) == []
    while (now := schedule.next_event(polls=True)) < 0.1 + NOT_FOUND_GRACE:
        poll = take_one(schedule, now)
        assert "a" not in ids(poll)
        succeed(schedule, poll, now)
    poll = next(poll for poll in schedule.due_polls(now, EVERYTHING) if "a" in ids(poll))
    assert (ids(poll), poll.multi) == (["a"], False)
    assert schedule.failed(poll, DENIED, now) == [wait]
    assert missing.error is DENIED
    assert len(schedule) == 1


def test_a_task_that_shows_within_the_grace_is_watched_like_any_other() -> None:
    schedule = schedule_of()
    watch, _ = start(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), DENIED, 0.0)

    succeed(schedule, take_one(schedule, NOT_FOUND_GRACE), NOT_FOUND_GRACE)
    schedule.failed(take_one(schedule, 100.0), DENIED, 100.0)

    assert watch.error is None
    assert len(schedule) == 1


def test_an_id_left_out_of_an_answer_is_as_good_as_null() -> None:
    schedule = schedule_of()
    start(schedule, "a")
    start(schedule, "b")
    schedule.succeeded(take_one(schedule, 0.0), {TaskId("b"): reading("b")}, 0.0)

    assert ids(take_one(schedule, 0.0)) == ["a"]


def test_an_entry_that_cannot_be_read_is_asked_for_singly_at_once() -> None:
    schedule = schedule_of()
    _, wait = start(schedule, "a")
    start(schedule, "b")

    woken = schedule.succeeded(
        take_one(schedule, 0.0), {TaskId("a"): UnexpectedAnswer("x"), TaskId("b"): reading("b", "finished")}, 0.0
    )

    assert [wait.woken for wait in woken] == ["b"]
    single = take_one(schedule, 0.0)
    assert (ids(single), single.multi) == (["a"], False)
    assert schedule.size(LEGACY) == 20
    assert succeed(schedule, single, 0.1, "finished") == [wait]


def test_a_task_is_asked_for_singly_each_time_that_its_entry_cannot_be_read() -> None:
    schedule = schedule_of()
    for name in "abc":
        start(schedule, name)
    sizes, now = [], 0.0
    while now < 10.0:
        poll = take_one(schedule, now)
        sizes.append(len(poll.watches))
        found: dict[TaskId, Any] = {task_id: reading(task_id) for task_id in ids(poll)}
        if poll.multi:
            found[TaskId("a")] = UnexpectedAnswer("x")
        schedule.succeeded(poll, found, now)
        now = schedule.next_event(polls=True)

    assert sizes[:4] == [3, 1, 3, 1]
    assert schedule.size(LEGACY) == 20


def test_a_host_whose_entries_can_never_be_read_has_no_multi_fetch() -> None:
    schedule = schedule_of()
    for name in "ab":
        start(schedule, name)
    for now in (0.0, 5.0):
        poll = take_one(schedule, now)
        assert poll.multi
        schedule.succeeded(poll, dict.fromkeys(ids(poll), UnexpectedAnswer("x")), now)
        for single in schedule.due_polls(now, EVERYTHING):
            succeed(schedule, single, now)

    assert schedule.size(LEGACY) == 1


@pytest.mark.parametrize("entry", [None, UnexpectedAnswer("x")], ids=["missing", "unreadable"])
def test_a_minute_without_a_reading_of_a_task_is_warned_of_whatever_the_polls_did(
    entry: UnexpectedAnswer | None,
) -> None:
    schedule = schedule_of()
    (watch, _), _ = start(schedule, "a"), start(schedule, "b")
    warned, now = [], 0.0
    while now < 3 * FAULT_WARNING_AFTER:
        for poll in schedule.due_polls(now, EVERYTHING):
            if poll.multi:
                schedule.succeeded(poll, {TaskId("a"): entry, TaskId("b"): reading("b")}, now)
            elif poll.watches[0] is watch:
                schedule.failed(poll, FAULT, now)
            else:
                succeed(schedule, poll, now)
            warned += [(now, late) for late in schedule.newly_overdue(poll, now)]
        now = schedule.next_event(polls=True)

    assert [late for _, late in warned] == [watch]
    assert FAULT_WARNING_AFTER <= warned[0][0] <= FAULT_WARNING_AFTER + 11.0


# -- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        FAULT,
        TransportError("refused", sent=False),
        ServerError("x", status=503),
        RateLimitError("x", status=429),
        APIError("x", status=408),
        UnexpectedAnswer("x"),
    ],
)
def test_passing_faults_never_end_a_wait_and_polls_become_rarer_up_to_ten_seconds(error: PiAPIError) -> None:
    schedule = schedule_of()
    watch, wait = start(schedule, "a")
    gaps, now = [], 0.0
    for _ in range(200):
        assert schedule.failed(take_one(schedule, now), error, now) == []
        gaps.append(schedule.next_event(polls=True) - now)
        now = schedule.next_event(polls=True)

    assert watch.waits == (wait,)
    assert 1.0 <= gaps[0] <= 1.05
    assert gaps[:5] == sorted(gaps[:5])
    assert max(gaps) == pytest.approx(10.0)


def test_a_slow_schedule_is_not_made_faster_by_faults() -> None:
    schedule = schedule_of(every=60.0)
    start(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), FAULT, 0.0)

    assert schedule.next_event(polls=True) >= 60.0


def test_one_good_poll_ends_the_back_off() -> None:
    schedule = schedule_of()
    start(schedule, "a")
    now = 0.0
    for _ in range(9):
        schedule.failed(take_one(schedule, now), FAULT, now)
        now = schedule.next_event(polls=True)
    succeed(schedule, take_one(schedule, now), now)

    assert schedule.next_event(polls=True) - now <= 1.05


def test_a_minute_of_faults_is_warned_of_once() -> None:
    schedule = schedule_of()
    watch, _ = start(schedule, "a")
    warned, now = [], 0.0
    while now < 10 * FAULT_WARNING_AFTER:
        poll = take_one(schedule, now)
        schedule.failed(poll, FAULT, now)
        warned += [(now, late) for late in schedule.newly_overdue(poll, now)]
        now = schedule.next_event(polls=True)

    assert [late for _, late in warned] == [watch]
    assert FAULT_WARNING_AFTER <= warned[0][0] <= FAULT_WARNING_AFTER + 11.0


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_ends_every_wait(status: int) -> None:
    schedule = schedule_of()
    watches = [start(schedule, name)[0] for name in "ab"]
    other = schedule.start(watch_of("c", SINGLY, due=1e6), "c", 0.0).watch
    error = AuthenticationError("x", status=status, message="x")

    woken = schedule.failed(schedule.due_polls(0.0, EVERYTHING)[0], error, 0.0)

    assert sorted(wait.woken for wait in woken) == ["a", "b", "c"]
    assert [watch.error for watch in (*watches, other)] == [error] * 3
    assert len(schedule) == 0


@pytest.mark.parametrize("status", [401, 403])
def test_an_edges_page_with_that_status_passes(status: int) -> None:
    schedule = schedule_of()
    watches = [start(schedule, name)[0] for name in "ab"]
    schedule.start(watch_of("c", SINGLY, due=1e6), "c", 0.0)

    assert schedule.failed(schedule.due_polls(0.0, EVERYTHING)[0], AuthenticationError("x", status=status), 0.0) == []

    assert [watch.ended for watch in watches] == [False, False]
    assert len(schedule) == 3


@pytest.mark.parametrize("good", [False, True], ids=["nothing else", "good answers between"])
def test_a_refusal_of_the_key_that_lasts_a_minute_is_believed_unless_good_answers_come_between(*, good: bool) -> None:
    schedule = schedule_of(1)
    start(schedule, "a")
    start(schedule, "b")
    error = AuthenticationError("x", status=403)
    woken: list[Wait] = []
    now = 0.0
    while now < 5 * FAULT_WARNING_AFTER and not woken:
        for poll in schedule.due_polls(now, EVERYTHING):
            if good and ids(poll) == ["b"]:
                succeed(schedule, poll, now)
            else:
                woken += schedule.failed(poll, error, now)
        now = schedule.next_event(polls=True)

    if good:
        assert woken == []
        assert len(schedule) == 2
    else:
        assert sorted(wait.woken for wait in woken) == ["a", "b"]
        assert FAULT_WARNING_AFTER <= now or now == math.inf


def test_multi_fetches_that_an_edge_refuses_while_plain_ones_pass_are_given_up() -> None:
    schedule = schedule_of()
    for name in "abc":
        start(schedule, name)
    multi, now = 0, 0.0
    while now < 60.0:
        for poll in schedule.due_polls(now, EVERYTHING):
            multi += poll.multi
            if poll.multi:
                assert schedule.failed(poll, AuthenticationError("x", status=403), now) == []
            else:
                succeed(schedule, poll, now)
        now = schedule.next_event(polls=True)

    assert schedule.size(LEGACY) == 1
    assert multi <= 3
    assert len(schedule) == 3


@pytest.mark.parametrize("status", [302, 400, 404, 405, 410, 451, 501])
def test_a_status_without_the_hosts_own_words_never_ends_a_wait(status: int) -> None:
    schedule = schedule_of(1)
    start(schedule, "a")
    now = 0.0
    while now < 3600.0:
        assert schedule.failed(take_one(schedule, now), NotFoundError("x", status=status), now) == []
        now = schedule.next_event(polls=True)

    assert len(schedule) == 1


def test_closing_ends_every_wait_even_those_under_way() -> None:
    schedule = schedule_of()
    watch, first = start(schedule, "a")
    poll = take_one(schedule, 0.0)
    _, second = start(schedule, "b")
    closed = ClientClosed("closed")

    assert schedule.close(closed) == [first, second]
    assert watch.error is closed
    assert succeed(schedule, poll, 1.0) == []
    assert schedule.next_event(polls=True) == math.inf


def test_a_wait_taken_up_again_after_an_error_starts_afresh() -> None:
    schedule = schedule_of()
    watch, _ = start(schedule, "a")
    schedule.close(ClientClosed("x"))

    schedule.start(watch, None, 1.0)

    assert watch.error is None
    assert schedule.failed(take_one(schedule, 1.0), DENIED, 1.0) == []


# -- what is learnt about the host --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [NotFoundError("x", status=404, message="x"), APIError("x", status=405), ServerError("x", status=501)],
)
def test_a_host_without_multi_fetch_is_asked_singly_at_once(error: PiAPIError) -> None:
    schedule = schedule_of()
    for name in "abc":
        start(schedule, name)

    assert schedule.failed(take_one(schedule, 0.0), error, 0.1) == []

    assert schedule.size(LEGACY) == 1
    polls = schedule.due_polls(0.1, EVERYTHING)
    assert sorted(ids(poll) for poll in polls) == [["a"], ["b"], ["c"]]
    assert not any(poll.multi for poll in polls)
    for poll in polls:
        succeed(schedule, poll, 0.2)
    assert not any(poll.multi for poll in schedule.due_polls(10.0, EVERYTHING))


def test_nonsense_once_may_be_an_accident_and_twice_is_a_host_without_multi_fetch() -> None:
    schedule = schedule_of()
    for name in "ab":
        start(schedule, name)

    schedule.failed(take_one(schedule, 0.0), UnexpectedAnswer("x"), 0.0)
    assert schedule.size(LEGACY) == 20
    singles = schedule.due_polls(0.0, EVERYTHING)
    assert [poll.multi for poll in singles] == [False, False]
    for poll in singles:
        succeed(schedule, poll, 0.1)
    again = take_one(schedule, 5.0)
    assert again.multi

    schedule.failed(again, UnexpectedAnswer("x"), 5.0)
    assert schedule.size(LEGACY) == 1


def test_nonsense_with_sense_between_is_forgiven() -> None:
    schedule = schedule_of()
    for name in "ab":
        start(schedule, name)
    now = 0.0
    for _ in range(5):
        schedule.failed(take_one(schedule, now), UnexpectedAnswer("x"), now)
        for poll in schedule.due_polls(now, EVERYTHING):
            succeed(schedule, poll, now)
        succeed(schedule, take_one(schedule, now + 5.0), now + 5.0)
        now += 10.0

    assert schedule.size(LEGACY) == 20


def test_multi_fetch_that_was_given_up_for_nonsense_is_tried_again_in_ten_minutes_and_then_one_doubt_is_enough() -> (
    None
):
    schedule = schedule_of()
    for name in "ab":
        start(schedule, name)
    for _ in range(2):
        assert schedule.learn(LEGACY, 2, UnexpectedAnswer("x"))
    assert schedule.size(LEGACY) == 1

    now, polls = 5.0, schedule.due_polls(5.0, EVERYTHING)
    while not polls or not polls[0].multi:
        for poll in polls:
            succeed(schedule, poll, now)
        now += 5.0
        polls = schedule.due_polls(now, EVERYTHING)

    assert now == pytest.approx(605.0, abs=15.0)  # the ten minutes begin with the first poll after
    schedule.failed(polls[0], UnexpectedAnswer("x"), now)
    assert schedule.size(LEGACY) == 1


def sizes_over_time(error: APIError) -> list[int]:
    """Return the sizes, in order, that a schedule of 20 tries within 25 minutes when its first poll is refused."""
    schedule = schedule_of(20)
    for number in range(20):
        start(schedule, f"t{number}")
    sizes = [20]
    schedule.failed(take_one(schedule, 0.0), error, 0.0)
    for now in range(0, 1505, 5):
        for poll in schedule.due_polls(now, EVERYTHING):
            succeed(schedule, poll, now)
        if schedule.size(LEGACY) != sizes[-1]:
            sizes.append(schedule.size(LEGACY))
    return sizes


@pytest.mark.parametrize("message", ["", "no such route"], ids=["an edge's page", "the host's own"])
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_host_that_seems_to_have_no_multi_fetch_is_asked_again_in_ten_minutes(status: int, message: str) -> None:
    assert [20, 1, 20] == sizes_over_time(NotFoundError("x", status=status, message=message))


def test_a_size_that_was_refused_is_tried_again_in_ten_minutes_for_it_may_have_been_one_of_the_ids() -> None:
    assert [20, 10, 20] == sizes_over_time(
        InvalidRequestError("an id is not allowed", status=400, message="an id is not allowed")
    )


def test_one_task_that_is_not_found_makes_the_host_no_smaller_and_each_is_asked_for_by_itself() -> None:
    schedule = schedule_of(20)
    for number in range(5):
        start(schedule, f"t{number}")

    schedule.failed(take_one(schedule, 0.0), NotFoundError("task not found", status=400, message="task not found"), 0.0)

    assert schedule.size(LEGACY) == 20
    assert [1] * 5 == [len(poll.watches) for poll in schedule.due_polls(0.0, EVERYTHING)]


def test_a_refused_size_is_halved_at_once_and_remembered() -> None:
    schedule = schedule_of(20)
    for number in range(20):
        start(schedule, f"t{number}")
    refusal = InvalidRequestError("too many", status=400, message="too many")

    schedule.failed(take_one(schedule, 0.0), refusal, 0.0)

    assert schedule.size(LEGACY) == 10
    polls = schedule.due_polls(0.0, EVERYTHING)
    assert [len(poll.watches) for poll in polls] == [10, 10]
    schedule.failed(polls[0], refusal, 0.1)
    assert schedule.size(LEGACY) == 5
    succeed(schedule, polls[1], 0.2)
    assert schedule.size(LEGACY) == 5


def test_a_refused_request_says_nothing_about_sizes_that_are_smaller_already() -> None:
    schedule = schedule_of(20)

    assert schedule.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert schedule.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert schedule.size(LEGACY) == 5
    for _ in range(9):
        schedule.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert schedule.size(LEGACY) == 1


@pytest.mark.parametrize(
    "error",
    [
        FAULT,
        ServerError("x", status=503),
        RateLimitError("x", status=429),
        APIError("x", status=408),
        AuthenticationError("x", status=401, message="x"),
        AuthenticationError("x", status=403, message="x"),
    ],
)
def test_what_says_nothing_about_multi_fetch_teaches_nothing(error: PiAPIError) -> None:
    schedule = schedule_of()

    assert not schedule.learn(LEGACY, 20, error)
    assert schedule.size(LEGACY) == 20


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


# -- any interleaving ---------------------------------------------------------------------------------------------

TASKS = [TaskId(name) for name in "abcde"]
FAMILIES = [LEGACY, SINGLY]
SIZE = 3
OUTCOMES = ["pending", "processing", "finished", "failed", "cancelled", "strange", None, UnexpectedAnswer("entry")]
ERRORS: list[PiAPIError] = [
    FAULT,
    DENIED,
    NotFoundError("x", status=404, message="x"),
    InvalidRequestError("x", status=400, message="x"),
    ServerError("x", status=500),
    UnexpectedAnswer("x"),
    AuthenticationError("x", status=401, message="x"),
]


class Interleavings(RuleBasedStateMachine):
    """Any order of starts, stops, polls, responses, faults, readings, deadlines and closings, against a plain model."""

    @initialize(room=st.sampled_from([1, 2, EVERYTHING]))
    def begin(self, room: int) -> None:
        self.room = room
        self.schedule = schedule_of(SIZE)
        self.now = 100.0
        self.watches: dict[tuple[str, TaskId], list[Watch]] = defaultdict(list)
        self.live: dict[int, tuple[Watch, Wait]] = {}
        self.gone: set[int] = set()
        self.everybody: list[Wait] = []  # so that an id() is never used twice
        self.polls: list[Poll] = []
        self.began: dict[int, list[float]] = defaultdict(list)

    # -- what can happen

    @rule(
        task=st.sampled_from(TASKS),
        family=st.sampled_from(FAMILIES),
        known=st.booleans(),
        due=st.sampled_from([-math.inf, 0.5, 3.0]),
        timeout=st.sampled_from([None, 0.0, 0.3, 1.0, 2.5, 20.0]),
        changes=st.booleans(),
    )
    def start(
        self, task: TaskId, family: Family[Any], due: float, timeout: float | None, *, known: bool, changes: bool
    ) -> None:
        kept = self.watches[family.name, task]
        if known and kept:
            watch = kept[-1]
            if watch.ended:
                return  # a handle answers from memory
        else:
            watch = self.schedule.find(family, task) or Watch(family, task, self.now + due)
        deadline = self.now + timeout if timeout else math.inf
        wait = self.schedule.start(watch, object(), self.now, deadline=deadline, changes=changes, once=timeout == 0.0)
        self.everybody.append(wait)
        watch = wait.watch
        kept.append(watch)
        self.live[id(wait)] = watch, wait

        assert wait in watch.waits
        self.tick()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.live)))
        watch, wait = self.live.pop(key)
        self.gone.add(key)
        self.schedule.stop(wait)
        self.schedule.stop(wait)

        assert wait not in watch.waits

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(10_000):
            when = self.schedule.next_event(polls=len(self.polls) < self.room)
            if when > until:
                break
            self.now = max(self.now, when)
            self.tick()
        else:
            raise AssertionError("the schedule never comes to rest")
        self.now = until

    @precondition(lambda self: self.polls)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        poll = self.polls.pop(data.draw(st.integers(0, len(self.polls) - 1)))
        if poll.multi:
            outcomes = {task_id: data.draw(st.sampled_from(OUTCOMES)) for task_id in ids(poll)}
        else:
            outcomes = {ids(poll)[0]: data.draw(st.sampled_from(OUTCOMES[:6]))}
        readings = {
            task_id: reading(task_id, outcome) if isinstance(outcome, str) else outcome
            for task_id, outcome in outcomes.items()
        }
        self.wake(self.schedule.succeeded(poll, readings, self.now))
        for watch in poll.watches:
            if outcomes[watch.task_id] in {"finished", "failed", "cancelled"}:
                assert not watch.waits
        self.tick()

    @precondition(lambda self: self.polls)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: PiAPIError) -> None:
        poll = self.polls.pop(data.draw(st.integers(0, len(self.polls) - 1)))
        before = {id(wait) for watch in poll.watches for wait in watch.waits if not wait.once}
        self.wake(self.schedule.failed(poll, error, self.now))
        if error in (FAULT, ERRORS[4]):  # passing: those who wait for more than a poll go on waiting
            assert before <= self.live.keys()
        if isinstance(error, AuthenticationError):
            assert not self.live
        self.schedule.newly_overdue(poll, self.now)
        self.tick()

    @rule(task=st.sampled_from(TASKS), family=st.sampled_from(FAMILIES), status=st.sampled_from(OUTCOMES[:6]))
    def observe(self, task: TaskId, family: Family[Any], status: str) -> None:
        kept = self.watches[family.name, task]
        watch = self.schedule.find(family, task) or (kept[-1] if kept else None)
        if watch is not None:
            self.wake(self.schedule.observe(watch, reading(task, status), self.now))
            self.tick()

    @rule()
    def close(self) -> None:
        self.wake(self.schedule.close(ClientClosed("x")))

        assert not self.live
        assert self.schedule.next_event(polls=True) == math.inf

    # -- what must hold

    def tick(self) -> None:
        """Do as the poller does."""
        queued = {
            id(watch): watch.queued_for
            for watch, _ in self.live.values()
            if not watch.polling and watch.queued_for < math.inf and not watch.poll_singly
        }
        for poll in self.schedule.due_polls(self.now, self.room - len(self.polls)):
            self.check(poll, queued)
            self.polls.append(poll)
        for wait in self.schedule.expire(self.now):
            watch, _ = self.live[id(wait)]
            self.wake([wait])

            assert wait.deadline == self.now
            if self.room == EVERYTHING:
                assert watch.polling or any(
                    wait.deadline - LAST_POLL_LEAD <= begun <= wait.deadline for begun in self.began[id(watch)]
                )

    def check(self, poll: Poll, queued: dict[int, float]) -> None:
        assert 1 <= len(poll.watches) <= SIZE
        assert len(set(ids(poll))) == len(poll.watches)
        assert poll.multi is (len(poll.watches) > 1)
        under_way = {id(watch) for other in self.polls for watch in other.watches}
        for watch in poll.watches:
            assert watch.family is poll.family
            assert watch.waits
            assert id(watch) not in under_way
            assert not (poll.multi and (watch.poll_singly or poll.family is SINGLY))
            self.began[id(watch)].append(self.now)
        chosen = [queued.pop(id(watch), -math.inf) for watch in poll.watches]
        rest = [
            queued[id(watch)] for watch, _ in self.live.values() if watch.family is poll.family and id(watch) in queued
        ]
        if poll.multi and rest:
            assert max(chosen) <= min(rest)

    def wake(self, woken: list[Wait]) -> None:
        assert len({id(wait) for wait in woken}) == len(woken)
        for wait in woken:
            assert id(wait) not in self.gone
            watch, _ = self.live[id(wait)]
            if wait in watch.waits:  # rung for news
                assert wait.changes
            else:
                del self.live[id(wait)]
                self.gone.add(id(wait))

    @invariant()
    def nobody_is_lost(self) -> None:
        if not hasattr(self, "schedule"):
            return
        under_way = {id(watch) for poll in self.polls for watch in poll.watches}
        for watch, wait in self.live.values():
            assert wait in watch.waits
            assert self.schedule.find(watch.family, watch.task_id) is watch
            assert wait.deadline > self.now
            assert watch.polling is (id(watch) in under_way)
            if self.room == EVERYTHING and wait.once:
                assert watch.polling
        assert len(self.schedule) == len({(watch.family.name, watch.task_id) for watch, _ in self.live.values()})

    @invariant()
    def the_heaps_hold_little_that_is_stale(self) -> None:
        if not hasattr(self, "schedule"):
            return
        for queue in self.schedule._queues.values():
            assert len(queue.heap) <= 2 * len(self.schedule) + 65
        assert len(self.schedule._deadlines.heap) <= 2 * len(self.live) + 65

    def teardown(self) -> None:
        """Whoever waits is polled in the end, and woken when the task has ended."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(200):
            for poll in self.polls:
                self.wake(succeed(self.schedule, poll, self.now, "finished"))
            self.polls.clear()
            if not self.live:
                break
            self.now = max(self.now, self.schedule.next_event(polls=True))
            assert self.now < math.inf
            self.tick()

        assert not self.live
        assert len(self.schedule) == 0
        assert self.schedule.next_event(polls=True) == math.inf


TestInterleavings = pytest.mark.storm(Interleavings.TestCase)
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
