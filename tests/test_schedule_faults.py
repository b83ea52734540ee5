"""Polls that fail, tasks that the host does not show, and what is learnt about the host."""

from __future__ import annotations

import math
from typing import Any

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

from piapi_async import LEGACY
from piapi_async._wait.faults import FAULT_WARNING_AFTER, NOT_FOUND_GRACE
from piapi_async._wait.watch import Wait
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
from piapi_async.tasks import TaskId

# -- tasks the host does not know ---------------------------------------------------------------------------------


def test_a_task_missing_from_a_multi_fetch_is_asked_for_singly_at_once_then_after_the_grace_and_ends_alone() -> (
    None
):
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
        take_one(schedule, 0.0),
        {TaskId("a"): UnexpectedAnswer("x"), TaskId("b"): reading("b", "finished")},
        0.0,
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

    assert (
        schedule.failed(schedule.due_polls(0.0, EVERYTHING)[0], AuthenticationError("x", status=status), 0.0)
        == []
    )

    assert [watch.ended for watch in watches] == [False, False]
    assert len(schedule) == 3


@pytest.mark.parametrize("good", [False, True], ids=["nothing else", "good answers between"])
def test_a_refusal_of_the_key_that_lasts_a_minute_is_believed_unless_good_answers_come_between(
    *, good: bool
) -> None:
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
def test_a_host_that_seems_to_have_no_multi_fetch_is_asked_again_in_ten_minutes(
    status: int, message: str
) -> None:
    assert [20, 1, 20] == sizes_over_time(NotFoundError("x", status=status, message=message))


def test_a_size_that_was_refused_is_tried_again_in_ten_minutes_for_it_may_have_been_one_of_the_ids() -> None:
    assert [20, 10, 20] == sizes_over_time(
        InvalidRequestError("an id is not allowed", status=400, message="an id is not allowed")
    )


def test_one_task_that_is_not_found_makes_the_host_no_smaller_and_each_is_asked_for_by_itself() -> None:
    schedule = schedule_of(20)
    for number in range(5):
        start(schedule, f"t{number}")

    schedule.failed(
        take_one(schedule, 0.0), NotFoundError("task not found", status=400, message="task not found"), 0.0
    )

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
