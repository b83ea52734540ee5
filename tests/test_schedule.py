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
from piapi_async._wait.schedule import GRACE, LEAD, OVERDUE, Poll, PollSchedule
from piapi_async._wait.watch import Wait, Watch
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


def sighting(task_id: str, status: str = "pending", progress: int | None = None) -> Task[Any]:
    body = {"task_id": task_id, "status": status, "task_result": {"task_progress": progress}}
    return Fetch(TaskId(task_id)).parse(HTTPResponse(200, orjson.dumps(body)))


def book_of(size: int = 20, every: float = 1.0) -> PollSchedule:
    return PollSchedule(PollPolicy.every(every), Random(1), size)  # noqa: S311 - jitter, the same in every run


def watch_of(task_id: str, family: Family[Any] = LEGACY, due: float = -math.inf) -> Watch:
    return Watch(family, TaskId(task_id), due)


def join(schedule: PollSchedule, task_id: str, now: float = 0.0, **waiter: Any) -> tuple[Watch, Wait]:
    waits = Wait(task_id, **waiter)
    return schedule.join(schedule.find(LEGACY, TaskId(task_id)) or watch_of(task_id), waits, now), waits


def take_one(schedule: PollSchedule, now: float) -> Poll:
    (look,) = schedule.take(now, EVERYTHING)
    return look


def ids(look: Poll) -> list[str]:
    return [watch.task_id for watch in look.watches]


def see(schedule: PollSchedule, look: Poll, now: float, status: str = "pending") -> list[Wait]:
    return schedule.answered(look, {task_id: sighting(task_id, status) for task_id in ids_of(look)}, now)


def ids_of(look: Poll) -> list[TaskId]:
    return [watch.task_id for watch in look.watches]


# -- looks --------------------------------------------------------------------------------------------------------


def test_an_empty_book_has_nothing_to_do() -> None:
    schedule = book_of()

    assert schedule.next_event(looks=True) == math.inf
    assert schedule.take(1e9, EVERYTHING) == []
    assert schedule.expire(1e9) == []
    assert schedule.close(ClientClosed("x")) == []
    assert len(schedule) == 0


def test_an_attached_task_is_looked_at_at_once_and_alone() -> None:
    schedule = book_of()
    join(schedule, "a", 3.0)

    assert schedule.next_event(looks=True) == 3.0
    look = take_one(schedule, 3.0)
    assert (ids(look), look.multi) == (["a"], False)


def test_a_task_with_a_first_look_in_the_future_is_left_alone_until_then() -> None:
    schedule = book_of()
    schedule.join(watch_of("a", due=8.0), Wait(None), 3.0)

    assert schedule.next_event(looks=True) == 8.0
    assert schedule.take(7.999, EVERYTHING) == []
    assert ids(take_one(schedule, 8.0)) == ["a"]


def test_due_tasks_share_requests_up_to_the_size() -> None:
    schedule = book_of(20)
    for number in range(45):
        join(schedule, f"t{number}")

    looks = schedule.take(0.0, EVERYTHING)

    assert [len(look.watches) for look in looks] == [20, 20, 5]
    assert all(look.multi for look in looks)
    assert Counter(task_id for look in looks for task_id in ids(look)) == Counter(f"t{number}" for number in range(45))
    assert schedule.take(0.0, EVERYTHING) == []


def test_a_request_is_filled_up_with_the_most_urgent_of_those_not_due() -> None:
    schedule = book_of(3)
    for number, due in enumerate((5.0, 4.0, 3.0, 2.0)):
        schedule.join(watch_of(f"t{number}", due=due), Wait(None), 0.0)

    assert ids(take_one(schedule, 2.0)) == ["t3", "t2", "t1"]


def test_room_bounds_the_looks_and_the_rest_stays_due() -> None:
    schedule = book_of(2)
    for number in range(6):
        join(schedule, f"t{number}")

    assert len(schedule.take(0.0, 2)) == 2
    assert schedule.take(0.0, 0) == []
    assert schedule.next_event(looks=True) == 0.0
    assert schedule.next_event(looks=False) == math.inf
    assert len(schedule.take(0.0, 2)) == 1


def test_families_are_never_mixed_and_one_without_multi_fetch_is_asked_singly() -> None:
    schedule = book_of(20)
    for name in "abc":
        schedule.join(watch_of(name), Wait(None), 0.0)
        schedule.join(watch_of(name, SINGLY), Wait(None), 0.0)

    looks = schedule.take(0.0, EVERYTHING)

    assert sorted((look.family.name, len(look.watches)) for look in looks) == [("legacy", 3), *[("singly", 1)] * 3]
    assert len(schedule) == 6


def test_several_waiters_share_one_watch_and_one_look_and_all_are_woken_once() -> None:
    schedule = book_of()
    waiters = [join(schedule, "a", number * 0.1)[1] for number in range(5)]

    look = take_one(schedule, 1.0)

    assert ids(look) == ["a"]
    assert see(schedule, look, 1.0, "finished") == waiters
    assert len(schedule) == 0
    assert schedule.next_event(looks=True) == math.inf


def test_a_waiter_who_joins_during_a_look_is_served_by_it() -> None:
    schedule = book_of()
    join(schedule, "a")
    look = take_one(schedule, 0.0)
    watch, late = join(schedule, "a", 0.5, once=True)

    assert schedule.next_event(looks=True) == math.inf
    assert late in see(schedule, look, 1.0)
    assert late not in watch.waiters


def test_a_waiting_task_is_looked_at_again_after_the_interval_and_jitter_only_lengthens() -> None:
    schedule = book_of(every=2.0)
    join(schedule, "a")
    see(schedule, take_one(schedule, 0.0), 0.5)

    assert 2.5 <= schedule.next_event(looks=True) <= 2.6


def test_a_task_nobody_waits_for_is_not_looked_at() -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    join(schedule, "b")

    schedule.leave(watch, waiter)
    schedule.leave(watch, waiter)

    assert ids(take_one(schedule, 0.0)) == ["b"]
    assert len(schedule) == 1


def test_an_answer_nobody_waits_for_any_more_is_still_taken_in() -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    look = take_one(schedule, 0.0)
    schedule.leave(watch, waiter)

    assert see(schedule, look, 1.0, "finished") == []
    assert watch.ended
    assert len(schedule) == 0


def test_a_wait_that_is_taken_up_again_is_looked_at_again_however_many_others_came_and_went() -> None:
    schedule = book_of()
    watch, waiter = watch_of("a", due=10.0), Wait("a")
    schedule.join(watch, waiter, 0.0)
    schedule.leave(watch, waiter)
    for number in range(500):
        other, passer = watch_of(f"t{number}", due=5.0 + number), Wait(None)
        schedule.join(other, passer, 0.0)
        schedule.leave(other, passer)

    schedule.join(watch, Wait("again"), 20.0)

    assert schedule.next_event(looks=True) == 20.0
    assert ids(take_one(schedule, 20.0)) == ["a"]


def test_a_look_that_began_before_the_wait_was_taken_up_again_serves_it() -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    look = take_one(schedule, 0.0)
    schedule.leave(watch, waiter)
    again = Wait("again")

    assert schedule.join(watch, again, 1.0) is watch
    assert schedule.take(1.0, EVERYTHING) == []
    assert see(schedule, look, 2.0, "finished") == [again]


def test_a_second_watch_of_a_task_that_is_waited_for_gives_way_to_the_first() -> None:
    schedule = book_of()
    first, _ = join(schedule, "a")

    assert schedule.join(watch_of("a"), Wait(None), 0.0) is first
    assert len(schedule) == 1


# -- deadlines ----------------------------------------------------------------------------------------------------


def test_a_deadline_releases_its_waiter_alone() -> None:
    schedule = book_of()
    _, early = join(schedule, "a", deadline=5.0)
    watch, late = join(schedule, "a", deadline=9.0)

    assert schedule.expire(4.999) == []
    assert schedule.expire(5.0) == [early]
    assert watch.waiters == (late,)
    assert schedule.expire(9.0) == [late]
    assert len(schedule) == 0


def test_a_last_look_begins_before_the_deadline() -> None:
    schedule = book_of(every=100.0)
    join(schedule, "a", deadline=30.0)
    see(schedule, take_one(schedule, 0.0), 0.1)

    assert schedule.next_event(looks=True) == 30.0 - LEAD
    see(schedule, take_one(schedule, 30.0 - LEAD), 29.1)
    assert schedule.next_event(looks=True) == 30.0


def test_a_deadline_that_joins_later_brings_the_next_look_forward() -> None:
    schedule = book_of(every=100.0)
    join(schedule, "a")
    see(schedule, take_one(schedule, 0.0), 0.1)
    join(schedule, "a", 1.0, deadline=10.0)

    assert schedule.next_event(looks=True) == 10.0 - LEAD


def test_a_deadline_nearer_than_the_lead_is_looked_for_at_once() -> None:
    schedule = book_of()
    schedule.join(watch_of("a", due=50.0), Wait(None, deadline=10.2), 10.0)

    assert ids(take_one(schedule, 10.0)) == ["a"]


def test_an_answer_that_comes_inside_the_lead_is_followed_by_a_last_look() -> None:
    schedule = book_of(every=100.0)
    join(schedule, "a", deadline=10.0)
    look = take_one(schedule, 0.0)

    see(schedule, look, 9.5)  # it took that long

    assert schedule.next_event(looks=True) <= 9.5


def test_one_look_is_enough_for_whoever_wants_only_one() -> None:
    schedule = book_of()
    schedule.join(watch_of("a", due=50.0), once := Wait(None, once=True), 1.0)

    look = take_one(schedule, 1.0)

    assert see(schedule, look, 1.1) == [once]
    assert len(schedule) == 0


@pytest.mark.parametrize("error", [FAULT, DENIED, RateLimitError("x", status=429), UnexpectedAnswer("x")])
def test_one_look_is_enough_even_when_it_fails(error: PiAPIError) -> None:
    schedule = book_of()
    _, once = join(schedule, "a", once=True)
    watch, patient = join(schedule, "a")

    assert schedule.failed(take_one(schedule, 0.0), error, 0.1) == [once]
    assert watch.waiters == (patient,)


def test_one_look_at_a_denied_task_is_made_at_once_though_others_are_due_too() -> None:
    schedule = book_of()
    join(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), DENIED, 0.0)
    join(schedule, "b", 1.0)
    join(schedule, "a", 1.0, once=True)

    looks = schedule.take(1.0, EVERYTHING)

    assert sorted(ids(look) for look in looks) == [["a"], ["b"]]


# -- sightings ----------------------------------------------------------------------------------------------------


def test_only_news_wakes_those_who_want_changes() -> None:
    schedule = book_of()
    watch, eager = join(schedule, "a", changes=True)
    _, patient = join(schedule, "a")

    assert schedule.seen(watch, sighting("a", "pending"), 0.0) == [eager]
    assert schedule.seen(watch, sighting("a", "pending"), 0.1) == []
    assert schedule.seen(watch, sighting("a", "processing", 10), 0.2) == [eager]
    assert schedule.seen(watch, sighting("a", "processing", 10), 0.3) == []
    assert schedule.seen(watch, sighting("a", "processing", 20), 0.4) == [eager]
    assert schedule.seen(watch, sighting("a", "failed"), 0.5) == [eager, patient]
    assert len(schedule) == 0


def test_a_sighting_from_elsewhere_during_a_look_leaves_that_look_alone() -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    look = take_one(schedule, 0.0)

    assert schedule.seen(watch, sighting("a", "processing"), 0.5) == []
    assert schedule.take(100.0, EVERYTHING) == []
    assert see(schedule, look, 101.0, "finished") == [waiter]


def test_an_end_seen_elsewhere_ends_the_wait_once_though_a_look_is_under_way() -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    look = take_one(schedule, 0.0)

    assert schedule.seen(watch, sighting("a", "finished"), 0.5) == [waiter]
    assert see(schedule, look, 1.0, "finished") == []


def test_an_end_is_never_taken_back() -> None:
    schedule = book_of()
    watch, _ = join(schedule, "a")
    end = sighting("a", "finished")
    schedule.seen(watch, end, 0.0)

    schedule.seen(watch, sighting("a", "processing"), 1.0)

    assert watch.task is end


def test_a_later_end_may_have_newer_links() -> None:
    schedule = book_of()
    watch, _ = join(schedule, "a")
    schedule.seen(watch, sighting("a", "finished"), 0.0)
    newer = sighting("a", "finished", 100)

    schedule.seen(watch, newer, 1.0)

    assert watch.task is newer


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
def test_every_end_ends_the_wait(status: str) -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")

    assert see(schedule, take_one(schedule, 0.0), 0.0, status) == [waiter]
    assert watch.ended
    assert watch.error is None


# -- tasks the host does not know ---------------------------------------------------------------------------------


def test_a_task_missing_from_a_multi_fetch_is_asked_for_singly_at_once_then_after_the_grace_and_ends_alone() -> None:
    schedule = book_of()
    missing, waiter = join(schedule, "a")
    join(schedule, "b")
    look = take_one(schedule, 0.0)

    assert schedule.answered(look, {TaskId("a"): None, TaskId("b"): sighting("b")}, 0.1) == []

    look = take_one(schedule, 0.1)
    assert (ids(look), look.multi) == (["a"], False)
    assert schedule.failed(look, DENIED, 0.2) == []
    while (now := schedule.next_event(looks=True)) < 0.1 + GRACE:
        look = take_one(schedule, now)
        assert "a" not in ids(look)
        see(schedule, look, now)
    look = next(look for look in schedule.take(now, EVERYTHING) if "a" in ids(look))
    assert (ids(look), look.multi) == (["a"], False)
    assert schedule.failed(look, DENIED, now) == [waiter]
    assert missing.error is DENIED
    assert len(schedule) == 1


def test_a_task_that_shows_within_the_grace_is_watched_like_any_other() -> None:
    schedule = book_of()
    watch, _ = join(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), DENIED, 0.0)

    see(schedule, take_one(schedule, GRACE), GRACE)
    schedule.failed(take_one(schedule, 100.0), DENIED, 100.0)

    assert watch.error is None
    assert len(schedule) == 1


def test_an_id_left_out_of_an_answer_is_as_good_as_null() -> None:
    schedule = book_of()
    join(schedule, "a")
    join(schedule, "b")
    schedule.answered(take_one(schedule, 0.0), {TaskId("b"): sighting("b")}, 0.0)

    assert ids(take_one(schedule, 0.0)) == ["a"]


def test_an_entry_that_cannot_be_read_is_asked_for_singly_at_once() -> None:
    schedule = book_of()
    _, waiter = join(schedule, "a")
    join(schedule, "b")

    woken = schedule.answered(
        take_one(schedule, 0.0), {TaskId("a"): UnexpectedAnswer("x"), TaskId("b"): sighting("b", "finished")}, 0.0
    )

    assert [waiter.woken for waiter in woken] == ["b"]
    single = take_one(schedule, 0.0)
    assert (ids(single), single.multi) == (["a"], False)
    assert schedule.size(LEGACY) == 20
    assert see(schedule, single, 0.1, "finished") == [waiter]


def test_a_task_is_asked_for_singly_each_time_that_its_entry_cannot_be_read() -> None:
    schedule = book_of()
    for name in "abc":
        join(schedule, name)
    sizes, now = [], 0.0
    while now < 10.0:
        look = take_one(schedule, now)
        sizes.append(len(look.watches))
        found: dict[TaskId, Any] = {task_id: sighting(task_id) for task_id in ids_of(look)}
        if look.multi:
            found[TaskId("a")] = UnexpectedAnswer("x")
        schedule.answered(look, found, now)
        now = schedule.next_event(looks=True)

    assert sizes[:4] == [3, 1, 3, 1]
    assert schedule.size(LEGACY) == 20


def test_a_host_whose_entries_can_never_be_read_has_no_multi_fetch() -> None:
    schedule = book_of()
    for name in "ab":
        join(schedule, name)
    for now in (0.0, 5.0):
        look = take_one(schedule, now)
        assert look.multi
        schedule.answered(look, dict.fromkeys(ids_of(look), UnexpectedAnswer("x")), now)
        for single in schedule.take(now, EVERYTHING):
            see(schedule, single, now)

    assert schedule.size(LEGACY) == 1


@pytest.mark.parametrize("entry", [None, UnexpectedAnswer("x")], ids=["missing", "unreadable"])
def test_a_minute_without_a_sight_of_a_task_is_told_whatever_the_looks_did(entry: UnexpectedAnswer | None) -> None:
    schedule = book_of()
    (watch, _), _ = join(schedule, "a"), join(schedule, "b")
    told, now = [], 0.0
    while now < 3 * OVERDUE:
        for look in schedule.take(now, EVERYTHING):
            if look.multi:
                schedule.answered(look, {TaskId("a"): entry, TaskId("b"): sighting("b")}, now)
            elif look.watches[0] is watch:
                schedule.failed(look, FAULT, now)
            else:
                see(schedule, look, now)
            told += [(now, late) for late in schedule.overdue(look, now)]
        now = schedule.next_event(looks=True)

    assert [late for _, late in told] == [watch]
    assert OVERDUE <= told[0][0] <= OVERDUE + 11.0


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
def test_passing_faults_never_end_a_wait_and_looks_become_rarer_up_to_ten_seconds(error: PiAPIError) -> None:
    schedule = book_of()
    watch, waiter = join(schedule, "a")
    gaps, now = [], 0.0
    for _ in range(200):
        assert schedule.failed(take_one(schedule, now), error, now) == []
        gaps.append(schedule.next_event(looks=True) - now)
        now = schedule.next_event(looks=True)

    assert watch.waiters == (waiter,)
    assert 1.0 <= gaps[0] <= 1.05
    assert gaps[:5] == sorted(gaps[:5])
    assert max(gaps) == pytest.approx(10.0)


def test_a_slow_schedule_is_not_made_faster_by_faults() -> None:
    schedule = book_of(every=60.0)
    join(schedule, "a")
    schedule.failed(take_one(schedule, 0.0), FAULT, 0.0)

    assert schedule.next_event(looks=True) >= 60.0


def test_one_good_look_ends_the_back_off() -> None:
    schedule = book_of()
    join(schedule, "a")
    now = 0.0
    for _ in range(9):
        schedule.failed(take_one(schedule, now), FAULT, now)
        now = schedule.next_event(looks=True)
    see(schedule, take_one(schedule, now), now)

    assert schedule.next_event(looks=True) - now <= 1.05


def test_a_minute_of_faults_is_told_once() -> None:
    schedule = book_of()
    watch, _ = join(schedule, "a")
    told, now = [], 0.0
    while now < 10 * OVERDUE:
        look = take_one(schedule, now)
        schedule.failed(look, FAULT, now)
        told += [(now, late) for late in schedule.overdue(look, now)]
        now = schedule.next_event(looks=True)

    assert [late for _, late in told] == [watch]
    assert OVERDUE <= told[0][0] <= OVERDUE + 11.0


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_ends_every_wait(status: int) -> None:
    schedule = book_of()
    watches = [join(schedule, name)[0] for name in "ab"]
    other = schedule.join(watch_of("c", SINGLY, due=1e6), Wait("c"), 0.0)
    error = AuthenticationError("x", status=status, message="x")

    woken = schedule.failed(schedule.take(0.0, EVERYTHING)[0], error, 0.0)

    assert sorted(waiter.woken for waiter in woken) == ["a", "b", "c"]
    assert [watch.error for watch in (*watches, other)] == [error] * 3
    assert len(schedule) == 0


@pytest.mark.parametrize("status", [401, 403])
def test_an_edges_page_with_that_status_passes(status: int) -> None:
    schedule = book_of()
    watches = [join(schedule, name)[0] for name in "ab"]
    schedule.join(watch_of("c", SINGLY, due=1e6), Wait("c"), 0.0)

    assert schedule.failed(schedule.take(0.0, EVERYTHING)[0], AuthenticationError("x", status=status), 0.0) == []

    assert [watch.ended for watch in watches] == [False, False]
    assert len(schedule) == 3


@pytest.mark.parametrize("good", [False, True], ids=["nothing else", "good answers between"])
def test_a_refusal_of_the_key_that_lasts_a_minute_is_believed_unless_good_answers_come_between(*, good: bool) -> None:
    schedule = book_of(1)
    join(schedule, "a")
    join(schedule, "b")
    error = AuthenticationError("x", status=403)
    woken: list[Wait] = []
    now = 0.0
    while now < 5 * OVERDUE and not woken:
        for look in schedule.take(now, EVERYTHING):
            if good and ids(look) == ["b"]:
                see(schedule, look, now)
            else:
                woken += schedule.failed(look, error, now)
        now = schedule.next_event(looks=True)

    if good:
        assert woken == []
        assert len(schedule) == 2
    else:
        assert sorted(waiter.woken for waiter in woken) == ["a", "b"]
        assert OVERDUE <= now or now == math.inf


def test_multi_fetches_that_an_edge_refuses_while_plain_ones_pass_are_given_up() -> None:
    schedule = book_of()
    for name in "abc":
        join(schedule, name)
    multi, now = 0, 0.0
    while now < 60.0:
        for look in schedule.take(now, EVERYTHING):
            multi += look.multi
            if look.multi:
                assert schedule.failed(look, AuthenticationError("x", status=403), now) == []
            else:
                see(schedule, look, now)
        now = schedule.next_event(looks=True)

    assert schedule.size(LEGACY) == 1
    assert multi <= 3
    assert len(schedule) == 3


@pytest.mark.parametrize("status", [302, 400, 404, 405, 410, 451, 501])
def test_a_status_without_the_hosts_own_words_never_ends_a_wait(status: int) -> None:
    schedule = book_of(1)
    join(schedule, "a")
    now = 0.0
    while now < 3600.0:
        assert schedule.failed(take_one(schedule, now), NotFoundError("x", status=status), now) == []
        now = schedule.next_event(looks=True)

    assert len(schedule) == 1


def test_closing_ends_every_wait_even_those_under_way() -> None:
    schedule = book_of()
    watch, first = join(schedule, "a")
    look = take_one(schedule, 0.0)
    _, second = join(schedule, "b")
    closed = ClientClosed("closed")

    assert schedule.close(closed) == [first, second]
    assert watch.error is closed
    assert see(schedule, look, 1.0) == []
    assert schedule.next_event(looks=True) == math.inf


def test_a_wait_taken_up_again_after_an_error_starts_afresh() -> None:
    schedule = book_of()
    watch, _ = join(schedule, "a")
    schedule.close(ClientClosed("x"))

    join_again = Wait(None)
    schedule.join(watch, join_again, 1.0)

    assert watch.error is None
    assert schedule.failed(take_one(schedule, 1.0), DENIED, 1.0) == []


# -- what is learnt about the host --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [NotFoundError("x", status=404, message="x"), APIError("x", status=405), ServerError("x", status=501)],
)
def test_a_host_without_multi_fetch_is_asked_singly_at_once(error: PiAPIError) -> None:
    schedule = book_of()
    for name in "abc":
        join(schedule, name)

    assert schedule.failed(take_one(schedule, 0.0), error, 0.1) == []

    assert schedule.size(LEGACY) == 1
    looks = schedule.take(0.1, EVERYTHING)
    assert sorted(ids(look) for look in looks) == [["a"], ["b"], ["c"]]
    assert not any(look.multi for look in looks)
    for look in looks:
        see(schedule, look, 0.2)
    assert not any(look.multi for look in schedule.take(10.0, EVERYTHING))


def test_nonsense_once_may_be_an_accident_and_twice_is_a_host_without_multi_fetch() -> None:
    schedule = book_of()
    for name in "ab":
        join(schedule, name)

    schedule.failed(take_one(schedule, 0.0), UnexpectedAnswer("x"), 0.0)
    assert schedule.size(LEGACY) == 20
    singles = schedule.take(0.0, EVERYTHING)
    assert [look.multi for look in singles] == [False, False]
    for look in singles:
        see(schedule, look, 0.1)
    again = take_one(schedule, 5.0)
    assert again.multi

    schedule.failed(again, UnexpectedAnswer("x"), 5.0)
    assert schedule.size(LEGACY) == 1


def test_nonsense_with_sense_between_is_forgiven() -> None:
    schedule = book_of()
    for name in "ab":
        join(schedule, name)
    now = 0.0
    for _ in range(5):
        schedule.failed(take_one(schedule, now), UnexpectedAnswer("x"), now)
        for look in schedule.take(now, EVERYTHING):
            see(schedule, look, now)
        see(schedule, take_one(schedule, now + 5.0), now + 5.0)
        now += 10.0

    assert schedule.size(LEGACY) == 20


def test_multi_fetch_that_was_given_up_for_nonsense_is_tried_again_in_ten_minutes_and_then_one_doubt_is_enough() -> (
    None
):
    schedule = book_of()
    for name in "ab":
        join(schedule, name)
    for _ in range(2):
        assert schedule.learn(LEGACY, 2, UnexpectedAnswer("x"))
    assert schedule.size(LEGACY) == 1

    now, looks = 5.0, schedule.take(5.0, EVERYTHING)
    while not looks or not looks[0].multi:
        for look in looks:
            see(schedule, look, now)
        now += 5.0
        looks = schedule.take(now, EVERYTHING)

    assert now == pytest.approx(605.0, abs=15.0)  # the ten minutes begin with the first look after
    schedule.failed(looks[0], UnexpectedAnswer("x"), now)
    assert schedule.size(LEGACY) == 1


def sizes_over_time(error: APIError) -> list[int]:
    """Give the sizes, in their order, that a schedule of 20 tries within 25 minutes when its first look is refused."""
    schedule = book_of(20)
    for number in range(20):
        join(schedule, f"t{number}")
    sizes = [20]
    schedule.failed(take_one(schedule, 0.0), error, 0.0)
    for now in range(0, 1505, 5):
        for look in schedule.take(now, EVERYTHING):
            see(schedule, look, now)
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
    schedule = book_of(20)
    for number in range(5):
        join(schedule, f"t{number}")

    schedule.failed(take_one(schedule, 0.0), NotFoundError("task not found", status=400, message="task not found"), 0.0)

    assert schedule.size(LEGACY) == 20
    assert [1] * 5 == [len(look.watches) for look in schedule.take(0.0, EVERYTHING)]


def test_a_refused_size_is_halved_at_once_and_remembered() -> None:
    schedule = book_of(20)
    for number in range(20):
        join(schedule, f"t{number}")
    refusal = InvalidRequestError("too many", status=400, message="too many")

    schedule.failed(take_one(schedule, 0.0), refusal, 0.0)

    assert schedule.size(LEGACY) == 10
    looks = schedule.take(0.0, EVERYTHING)
    assert [len(look.watches) for look in looks] == [10, 10]
    schedule.failed(looks[0], refusal, 0.1)
    assert schedule.size(LEGACY) == 5
    see(schedule, looks[1], 0.2)
    assert schedule.size(LEGACY) == 5


def test_a_refused_request_says_nothing_about_sizes_that_are_smaller_already() -> None:
    schedule = book_of(20)

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
    schedule = book_of()

    assert not schedule.learn(LEGACY, 20, error)
    assert schedule.size(LEGACY) == 20


# -- costs --------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_who_come_and_go_leave_nothing_in_the_heaps() -> None:
    schedule = book_of()
    stays, _ = join(schedule, "stays")
    for number in range(50_000):
        watch, waiter = watch_of(f"t{number}", due=1e6 + number), Wait(None, deadline=1e9 + number)
        schedule.join(watch, waiter, 0.0)
        schedule.leave(watch, waiter)
    for number in range(50_000):
        waiter = Wait(None, deadline=1e9 + number)
        schedule.join(stays, waiter, 0.0)
        schedule.leave(stays, waiter)

    assert len(schedule) == 1
    assert len(schedule._lanes["legacy"].heap) < 100
    assert len(schedule._deadlines) < 100


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
    """Any order of joins, leaves, looks, answers, faults, sightings, deadlines and closings, against a plain model."""

    @initialize(room=st.sampled_from([1, 2, EVERYTHING]))
    def begin(self, room: int) -> None:
        self.room = room
        self.schedule = book_of(SIZE)
        self.now = 100.0
        self.watches: dict[tuple[str, TaskId], list[Watch]] = defaultdict(list)
        self.live: dict[int, tuple[Watch, Wait]] = {}
        self.gone: set[int] = set()
        self.everybody: list[Wait] = []  # so that an id() is never used twice
        self.looks: list[Poll] = []
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
    def join(
        self, task: TaskId, family: Family[Any], due: float, timeout: float | None, *, known: bool, changes: bool
    ) -> None:
        kept = self.watches[family.name, task]
        if known and kept:
            watch = kept[-1]
            if watch.ended:
                return  # a handle answers from memory
        else:
            watch = self.schedule.find(family, task) or Watch(family, task, self.now + due)
        waiter = Wait(object(), math.inf if not timeout else self.now + timeout, changes=changes, once=timeout == 0.0)
        self.everybody.append(waiter)
        watch = self.schedule.join(watch, waiter, self.now)
        kept.append(watch)
        self.live[id(waiter)] = watch, waiter

        assert waiter in watch.waiters
        self.tick()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.live)))
        watch, waiter = self.live.pop(key)
        self.gone.add(key)
        self.schedule.leave(watch, waiter)
        self.schedule.leave(watch, waiter)

        assert waiter not in watch.waiters

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(10_000):
            when = self.schedule.next_event(looks=len(self.looks) < self.room)
            if when > until:
                break
            self.now = max(self.now, when)
            self.tick()
        else:
            raise AssertionError("the schedule never comes to rest")
        self.now = until

    @precondition(lambda self: self.looks)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        look = self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1)))
        if look.multi:
            outcomes = {task_id: data.draw(st.sampled_from(OUTCOMES)) for task_id in ids_of(look)}
        else:
            outcomes = {ids_of(look)[0]: data.draw(st.sampled_from(OUTCOMES[:6]))}
        sightings = {
            task_id: sighting(task_id, outcome) if isinstance(outcome, str) else outcome
            for task_id, outcome in outcomes.items()
        }
        self.wake(self.schedule.answered(look, sightings, self.now))
        for watch in look.watches:
            if outcomes[watch.task_id] in {"finished", "failed", "cancelled"}:
                assert not watch.waiters
        self.tick()

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: PiAPIError) -> None:
        look = self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1)))
        before = {id(waiter) for watch in look.watches for waiter in watch.waiters if not waiter.once}
        self.wake(self.schedule.failed(look, error, self.now))
        if error in (FAULT, ERRORS[4]):  # passing: those who wait for more than a look go on waiting
            assert before <= self.live.keys()
        if isinstance(error, AuthenticationError):
            assert not self.live
        self.schedule.overdue(look, self.now)
        self.tick()

    @rule(task=st.sampled_from(TASKS), family=st.sampled_from(FAMILIES), status=st.sampled_from(OUTCOMES[:6]))
    def seen(self, task: TaskId, family: Family[Any], status: str) -> None:
        kept = self.watches[family.name, task]
        watch = self.schedule.find(family, task) or (kept[-1] if kept else None)
        if watch is not None:
            self.wake(self.schedule.seen(watch, sighting(task, status), self.now))
            self.tick()

    @rule()
    def close(self) -> None:
        self.wake(self.schedule.close(ClientClosed("x")))

        assert not self.live
        assert self.schedule.next_event(looks=True) == math.inf

    # -- what must hold

    def tick(self) -> None:
        """Do as the poller does."""
        queued = {
            id(watch): watch.queued
            for watch, _ in self.live.values()
            if not watch.looking and watch.queued < math.inf and not watch.alone
        }
        for look in self.schedule.take(self.now, self.room - len(self.looks)):
            self.check(look, queued)
            self.looks.append(look)
        for waiter in self.schedule.expire(self.now):
            watch, _ = self.live[id(waiter)]
            self.wake([waiter])

            assert waiter.deadline == self.now
            if self.room == EVERYTHING:
                assert watch.looking or any(
                    waiter.deadline - LEAD <= begun <= waiter.deadline for begun in self.began[id(watch)]
                )

    def check(self, look: Poll, queued: dict[int, float]) -> None:
        assert 1 <= len(look.watches) <= SIZE
        assert len(set(ids(look))) == len(look.watches)
        assert look.multi is (len(look.watches) > 1)
        under_way = {id(watch) for other in self.looks for watch in other.watches}
        for watch in look.watches:
            assert watch.family is look.family
            assert watch.waiters
            assert id(watch) not in under_way
            assert not (look.multi and (watch.alone or look.family is SINGLY))
            self.began[id(watch)].append(self.now)
        chosen = [queued.pop(id(watch), -math.inf) for watch in look.watches]
        rest = [
            queued[id(watch)] for watch, _ in self.live.values() if watch.family is look.family and id(watch) in queued
        ]
        if look.multi and rest:
            assert max(chosen) <= min(rest)

    def wake(self, woken: list[Wait]) -> None:
        assert len({id(waiter) for waiter in woken}) == len(woken)
        for waiter in woken:
            assert id(waiter) not in self.gone
            watch, _ = self.live[id(waiter)]
            if waiter in watch.waiters:  # rung for news
                assert waiter.changes
            else:
                del self.live[id(waiter)]
                self.gone.add(id(waiter))

    @invariant()
    def nobody_is_lost(self) -> None:
        if not hasattr(self, "schedule"):
            return
        under_way = {id(watch) for look in self.looks for watch in look.watches}
        for watch, waiter in self.live.values():
            assert waiter in watch.waiters
            assert self.schedule.find(watch.family, watch.task_id) is watch
            assert waiter.deadline > self.now
            assert watch.looking is (id(watch) in under_way)
            if self.room == EVERYTHING and waiter.once:
                assert watch.looking
        assert len(self.schedule) == len({(watch.family.name, watch.task_id) for watch, _ in self.live.values()})

    @invariant()
    def the_heaps_hold_little_that_is_stale(self) -> None:
        if not hasattr(self, "schedule"):
            return
        for lane in self.schedule._lanes.values():
            assert len(lane.heap) <= 2 * len(self.schedule) + 65
        assert len(self.schedule._deadlines) <= 2 * len(self.live) + 65

    def teardown(self) -> None:
        """Whoever waits is looked at in the end, and woken when the task has ended."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(200):
            for look in self.looks:
                self.wake(see(self.schedule, look, self.now, "finished"))
            self.looks.clear()
            if not self.live:
                break
            self.now = max(self.now, self.schedule.next_event(looks=True))
            assert self.now < math.inf
            self.tick()

        assert not self.live
        assert len(self.schedule) == 0
        assert self.schedule.next_event(looks=True) == math.inf


TestInterleavings = pytest.mark.storm(Interleavings.TestCase)
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
