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
from piapi_async._wait.schedule import GRACE, LEAD, OVERDUE, Look, PollBook
from piapi_async._wait.watch import Waiter, Watch
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


def book_of(size: int = 20, every: float = 1.0) -> PollBook:
    return PollBook(PollPolicy.every(every), Random(1), size)  # noqa: S311 - jitter, the same in every run


def watch_of(task_id: str, family: Family[Any] = LEGACY, due: float = -math.inf) -> Watch:
    return Watch(family, TaskId(task_id), due)


def join(book: PollBook, task_id: str, now: float = 0.0, **waiter: Any) -> tuple[Watch, Waiter]:
    waits = Waiter(task_id, **waiter)
    return book.join(book.find(LEGACY, TaskId(task_id)) or watch_of(task_id), waits, now), waits


def take_one(book: PollBook, now: float) -> Look:
    (look,) = book.take(now, EVERYTHING)
    return look


def ids(look: Look) -> list[str]:
    return [watch.task_id for watch in look.watches]


def see(book: PollBook, look: Look, now: float, status: str = "pending") -> list[Waiter]:
    return book.answered(look, {task_id: sighting(task_id, status) for task_id in ids_of(look)}, now)


def ids_of(look: Look) -> list[TaskId]:
    return [watch.task_id for watch in look.watches]


# -- looks --------------------------------------------------------------------------------------------------------


def test_an_empty_book_has_nothing_to_do() -> None:
    book = book_of()

    assert book.next_event(looks=True) == math.inf
    assert book.take(1e9, EVERYTHING) == []
    assert book.expire(1e9) == []
    assert book.close(ClientClosed("x")) == []
    assert len(book) == 0


def test_an_attached_task_is_looked_at_at_once_and_alone() -> None:
    book = book_of()
    join(book, "a", 3.0)

    assert book.next_event(looks=True) == 3.0
    look = take_one(book, 3.0)
    assert (ids(look), look.multi) == (["a"], False)


def test_a_task_with_a_first_look_in_the_future_is_left_alone_until_then() -> None:
    book = book_of()
    book.join(watch_of("a", due=8.0), Waiter(None), 3.0)

    assert book.next_event(looks=True) == 8.0
    assert book.take(7.999, EVERYTHING) == []
    assert ids(take_one(book, 8.0)) == ["a"]


def test_due_tasks_share_requests_up_to_the_size() -> None:
    book = book_of(20)
    for number in range(45):
        join(book, f"t{number}")

    looks = book.take(0.0, EVERYTHING)

    assert [len(look.watches) for look in looks] == [20, 20, 5]
    assert all(look.multi for look in looks)
    assert Counter(task_id for look in looks for task_id in ids(look)) == Counter(f"t{number}" for number in range(45))
    assert book.take(0.0, EVERYTHING) == []


def test_a_request_is_filled_up_with_the_most_urgent_of_those_not_due() -> None:
    book = book_of(3)
    for number, due in enumerate((5.0, 4.0, 3.0, 2.0)):
        book.join(watch_of(f"t{number}", due=due), Waiter(None), 0.0)

    assert ids(take_one(book, 2.0)) == ["t3", "t2", "t1"]


def test_room_bounds_the_looks_and_the_rest_stays_due() -> None:
    book = book_of(2)
    for number in range(6):
        join(book, f"t{number}")

    assert len(book.take(0.0, 2)) == 2
    assert book.take(0.0, 0) == []
    assert book.next_event(looks=True) == 0.0
    assert book.next_event(looks=False) == math.inf
    assert len(book.take(0.0, 2)) == 1


def test_families_are_never_mixed_and_one_without_multi_fetch_is_asked_singly() -> None:
    book = book_of(20)
    for name in "abc":
        book.join(watch_of(name), Waiter(None), 0.0)
        book.join(watch_of(name, SINGLY), Waiter(None), 0.0)

    looks = book.take(0.0, EVERYTHING)

    assert sorted((look.family.name, len(look.watches)) for look in looks) == [("legacy", 3), *[("singly", 1)] * 3]
    assert len(book) == 6


def test_several_waiters_share_one_watch_and_one_look_and_all_are_woken_once() -> None:
    book = book_of()
    waiters = [join(book, "a", number * 0.1)[1] for number in range(5)]

    look = take_one(book, 1.0)

    assert ids(look) == ["a"]
    assert see(book, look, 1.0, "finished") == waiters
    assert len(book) == 0
    assert book.next_event(looks=True) == math.inf


def test_a_waiter_who_joins_during_a_look_is_served_by_it() -> None:
    book = book_of()
    join(book, "a")
    look = take_one(book, 0.0)
    watch, late = join(book, "a", 0.5, once=True)

    assert book.next_event(looks=True) == math.inf
    assert late in see(book, look, 1.0)
    assert late not in watch.waiters


def test_a_waiting_task_is_looked_at_again_after_the_interval_and_jitter_only_lengthens() -> None:
    book = book_of(every=2.0)
    join(book, "a")
    see(book, take_one(book, 0.0), 0.5)

    assert 2.5 <= book.next_event(looks=True) <= 2.6


def test_a_task_nobody_waits_for_is_not_looked_at() -> None:
    book = book_of()
    watch, waiter = join(book, "a")
    join(book, "b")

    book.leave(watch, waiter)
    book.leave(watch, waiter)

    assert ids(take_one(book, 0.0)) == ["b"]
    assert len(book) == 1


def test_an_answer_nobody_waits_for_any_more_is_still_taken_in() -> None:
    book = book_of()
    watch, waiter = join(book, "a")
    look = take_one(book, 0.0)
    book.leave(watch, waiter)

    assert see(book, look, 1.0, "finished") == []
    assert watch.ended
    assert len(book) == 0


def test_a_wait_that_is_taken_up_again_is_looked_at_again_however_many_others_came_and_went() -> None:
    book = book_of()
    watch, waiter = watch_of("a", due=10.0), Waiter("a")
    book.join(watch, waiter, 0.0)
    book.leave(watch, waiter)
    for number in range(500):
        other, passer = watch_of(f"t{number}", due=5.0 + number), Waiter(None)
        book.join(other, passer, 0.0)
        book.leave(other, passer)

    book.join(watch, Waiter("again"), 20.0)

    assert book.next_event(looks=True) == 20.0
    assert ids(take_one(book, 20.0)) == ["a"]


def test_a_look_that_began_before_the_wait_was_taken_up_again_serves_it() -> None:
    book = book_of()
    watch, waiter = join(book, "a")
    look = take_one(book, 0.0)
    book.leave(watch, waiter)
    again = Waiter("again")

    assert book.join(watch, again, 1.0) is watch
    assert book.take(1.0, EVERYTHING) == []
    assert see(book, look, 2.0, "finished") == [again]


def test_a_second_watch_of_a_task_that_is_waited_for_gives_way_to_the_first() -> None:
    book = book_of()
    first, _ = join(book, "a")

    assert book.join(watch_of("a"), Waiter(None), 0.0) is first
    assert len(book) == 1


# -- deadlines ----------------------------------------------------------------------------------------------------


def test_a_deadline_releases_its_waiter_alone() -> None:
    book = book_of()
    _, early = join(book, "a", deadline=5.0)
    watch, late = join(book, "a", deadline=9.0)

    assert book.expire(4.999) == []
    assert book.expire(5.0) == [early]
    assert watch.waiters == (late,)
    assert book.expire(9.0) == [late]
    assert len(book) == 0


def test_a_last_look_begins_before_the_deadline() -> None:
    book = book_of(every=100.0)
    join(book, "a", deadline=30.0)
    see(book, take_one(book, 0.0), 0.1)

    assert book.next_event(looks=True) == 30.0 - LEAD
    see(book, take_one(book, 30.0 - LEAD), 29.1)
    assert book.next_event(looks=True) == 30.0


def test_a_deadline_that_joins_later_brings_the_next_look_forward() -> None:
    book = book_of(every=100.0)
    join(book, "a")
    see(book, take_one(book, 0.0), 0.1)
    join(book, "a", 1.0, deadline=10.0)

    assert book.next_event(looks=True) == 10.0 - LEAD


def test_a_deadline_nearer_than_the_lead_is_looked_for_at_once() -> None:
    book = book_of()
    book.join(watch_of("a", due=50.0), Waiter(None, deadline=10.2), 10.0)

    assert ids(take_one(book, 10.0)) == ["a"]


def test_an_answer_that_comes_inside_the_lead_is_followed_by_a_last_look() -> None:
    book = book_of(every=100.0)
    join(book, "a", deadline=10.0)
    look = take_one(book, 0.0)

    see(book, look, 9.5)  # it took that long

    assert book.next_event(looks=True) <= 9.5


def test_one_look_is_enough_for_whoever_wants_only_one() -> None:
    book = book_of()
    book.join(watch_of("a", due=50.0), once := Waiter(None, once=True), 1.0)

    look = take_one(book, 1.0)

    assert see(book, look, 1.1) == [once]
    assert len(book) == 0


@pytest.mark.parametrize("error", [FAULT, DENIED, RateLimitError("x", status=429), UnexpectedAnswer("x")])
def test_one_look_is_enough_even_when_it_fails(error: PiAPIError) -> None:
    book = book_of()
    _, once = join(book, "a", once=True)
    watch, patient = join(book, "a")

    assert book.failed(take_one(book, 0.0), error, 0.1) == [once]
    assert watch.waiters == (patient,)


def test_one_look_at_a_denied_task_is_made_at_once_though_others_are_due_too() -> None:
    book = book_of()
    join(book, "a")
    book.failed(take_one(book, 0.0), DENIED, 0.0)
    join(book, "b", 1.0)
    join(book, "a", 1.0, once=True)

    looks = book.take(1.0, EVERYTHING)

    assert sorted(ids(look) for look in looks) == [["a"], ["b"]]


# -- sightings ----------------------------------------------------------------------------------------------------


def test_only_news_wakes_those_who_want_changes() -> None:
    book = book_of()
    watch, eager = join(book, "a", changes=True)
    _, patient = join(book, "a")

    assert book.seen(watch, sighting("a", "pending"), 0.0) == [eager]
    assert book.seen(watch, sighting("a", "pending"), 0.1) == []
    assert book.seen(watch, sighting("a", "processing", 10), 0.2) == [eager]
    assert book.seen(watch, sighting("a", "processing", 10), 0.3) == []
    assert book.seen(watch, sighting("a", "processing", 20), 0.4) == [eager]
    assert book.seen(watch, sighting("a", "failed"), 0.5) == [eager, patient]
    assert len(book) == 0


def test_a_sighting_from_elsewhere_during_a_look_leaves_that_look_alone() -> None:
    book = book_of()
    watch, waiter = join(book, "a")
    look = take_one(book, 0.0)

    assert book.seen(watch, sighting("a", "processing"), 0.5) == []
    assert book.take(100.0, EVERYTHING) == []
    assert see(book, look, 101.0, "finished") == [waiter]


def test_an_end_seen_elsewhere_ends_the_wait_once_though_a_look_is_under_way() -> None:
    book = book_of()
    watch, waiter = join(book, "a")
    look = take_one(book, 0.0)

    assert book.seen(watch, sighting("a", "finished"), 0.5) == [waiter]
    assert see(book, look, 1.0, "finished") == []


def test_an_end_is_never_taken_back() -> None:
    book = book_of()
    watch, _ = join(book, "a")
    end = sighting("a", "finished")
    book.seen(watch, end, 0.0)

    book.seen(watch, sighting("a", "processing"), 1.0)

    assert watch.task is end


def test_a_later_end_may_have_newer_links() -> None:
    book = book_of()
    watch, _ = join(book, "a")
    book.seen(watch, sighting("a", "finished"), 0.0)
    newer = sighting("a", "finished", 100)

    book.seen(watch, newer, 1.0)

    assert watch.task is newer


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
def test_every_end_ends_the_wait(status: str) -> None:
    book = book_of()
    watch, waiter = join(book, "a")

    assert see(book, take_one(book, 0.0), 0.0, status) == [waiter]
    assert watch.ended
    assert watch.error is None


# -- tasks the host does not know ---------------------------------------------------------------------------------


def test_a_task_missing_from_a_multi_fetch_is_asked_for_singly_at_once_then_after_the_grace_and_ends_alone() -> None:
    book = book_of()
    missing, waiter = join(book, "a")
    join(book, "b")
    look = take_one(book, 0.0)

    assert book.answered(look, {TaskId("a"): None, TaskId("b"): sighting("b")}, 0.1) == []

    look = take_one(book, 0.1)
    assert (ids(look), look.multi) == (["a"], False)
    assert book.failed(look, DENIED, 0.2) == []
    while (now := book.next_event(looks=True)) < 0.1 + GRACE:
        look = take_one(book, now)
        assert "a" not in ids(look)
        see(book, look, now)
    look = next(look for look in book.take(now, EVERYTHING) if "a" in ids(look))
    assert (ids(look), look.multi) == (["a"], False)
    assert book.failed(look, DENIED, now) == [waiter]
    assert missing.error is DENIED
    assert len(book) == 1


def test_a_task_that_shows_within_the_grace_is_watched_like_any_other() -> None:
    book = book_of()
    watch, _ = join(book, "a")
    book.failed(take_one(book, 0.0), DENIED, 0.0)

    see(book, take_one(book, GRACE), GRACE)
    book.failed(take_one(book, 100.0), DENIED, 100.0)

    assert watch.error is None
    assert len(book) == 1


def test_an_id_left_out_of_an_answer_is_as_good_as_null() -> None:
    book = book_of()
    join(book, "a")
    join(book, "b")
    book.answered(take_one(book, 0.0), {TaskId("b"): sighting("b")}, 0.0)

    assert ids(take_one(book, 0.0)) == ["a"]


def test_an_entry_that_cannot_be_read_is_asked_for_singly_at_once() -> None:
    book = book_of()
    _, waiter = join(book, "a")
    join(book, "b")

    woken = book.answered(
        take_one(book, 0.0), {TaskId("a"): UnexpectedAnswer("x"), TaskId("b"): sighting("b", "finished")}, 0.0
    )

    assert [waiter.bell for waiter in woken] == ["b"]
    single = take_one(book, 0.0)
    assert (ids(single), single.multi) == (["a"], False)
    assert book.size(LEGACY) == 20
    assert see(book, single, 0.1, "finished") == [waiter]


def test_a_task_is_asked_for_singly_each_time_that_its_entry_cannot_be_read() -> None:
    book = book_of()
    for name in "abc":
        join(book, name)
    sizes, now = [], 0.0
    while now < 10.0:
        look = take_one(book, now)
        sizes.append(len(look.watches))
        found: dict[TaskId, Any] = {task_id: sighting(task_id) for task_id in ids_of(look)}
        if look.multi:
            found[TaskId("a")] = UnexpectedAnswer("x")
        book.answered(look, found, now)
        now = book.next_event(looks=True)

    assert sizes[:4] == [3, 1, 3, 1]
    assert book.size(LEGACY) == 20


def test_a_host_whose_entries_can_never_be_read_has_no_multi_fetch() -> None:
    book = book_of()
    for name in "ab":
        join(book, name)
    for now in (0.0, 5.0):
        look = take_one(book, now)
        assert look.multi
        book.answered(look, dict.fromkeys(ids_of(look), UnexpectedAnswer("x")), now)
        for single in book.take(now, EVERYTHING):
            see(book, single, now)

    assert book.size(LEGACY) == 1


@pytest.mark.parametrize("entry", [None, UnexpectedAnswer("x")], ids=["missing", "unreadable"])
def test_a_minute_without_a_sight_of_a_task_is_told_whatever_the_looks_did(entry: UnexpectedAnswer | None) -> None:
    book = book_of()
    (watch, _), _ = join(book, "a"), join(book, "b")
    told, now = [], 0.0
    while now < 3 * OVERDUE:
        for look in book.take(now, EVERYTHING):
            if look.multi:
                book.answered(look, {TaskId("a"): entry, TaskId("b"): sighting("b")}, now)
            elif look.watches[0] is watch:
                book.failed(look, FAULT, now)
            else:
                see(book, look, now)
            told += [(now, late) for late in book.overdue(look, now)]
        now = book.next_event(looks=True)

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
    book = book_of()
    watch, waiter = join(book, "a")
    gaps, now = [], 0.0
    for _ in range(200):
        assert book.failed(take_one(book, now), error, now) == []
        gaps.append(book.next_event(looks=True) - now)
        now = book.next_event(looks=True)

    assert watch.waiters == (waiter,)
    assert 1.0 <= gaps[0] <= 1.05
    assert gaps[:5] == sorted(gaps[:5])
    assert max(gaps) == pytest.approx(10.0)


def test_a_slow_schedule_is_not_made_faster_by_faults() -> None:
    book = book_of(every=60.0)
    join(book, "a")
    book.failed(take_one(book, 0.0), FAULT, 0.0)

    assert book.next_event(looks=True) >= 60.0


def test_one_good_look_ends_the_back_off() -> None:
    book = book_of()
    join(book, "a")
    now = 0.0
    for _ in range(9):
        book.failed(take_one(book, now), FAULT, now)
        now = book.next_event(looks=True)
    see(book, take_one(book, now), now)

    assert book.next_event(looks=True) - now <= 1.05


def test_a_minute_of_faults_is_told_once() -> None:
    book = book_of()
    watch, _ = join(book, "a")
    told, now = [], 0.0
    while now < 10 * OVERDUE:
        look = take_one(book, now)
        book.failed(look, FAULT, now)
        told += [(now, late) for late in book.overdue(look, now)]
        now = book.next_event(looks=True)

    assert [late for _, late in told] == [watch]
    assert OVERDUE <= told[0][0] <= OVERDUE + 11.0


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_ends_every_wait(status: int) -> None:
    book = book_of()
    watches = [join(book, name)[0] for name in "ab"]
    other = book.join(watch_of("c", SINGLY, due=1e6), Waiter("c"), 0.0)
    error = AuthenticationError("x", status=status, message="x")

    woken = book.failed(book.take(0.0, EVERYTHING)[0], error, 0.0)

    assert sorted(waiter.bell for waiter in woken) == ["a", "b", "c"]
    assert [watch.error for watch in (*watches, other)] == [error] * 3
    assert len(book) == 0


@pytest.mark.parametrize("status", [401, 403])
def test_an_edges_page_with_that_status_passes(status: int) -> None:
    book = book_of()
    watches = [join(book, name)[0] for name in "ab"]
    book.join(watch_of("c", SINGLY, due=1e6), Waiter("c"), 0.0)

    assert book.failed(book.take(0.0, EVERYTHING)[0], AuthenticationError("x", status=status), 0.0) == []

    assert [watch.ended for watch in watches] == [False, False]
    assert len(book) == 3


@pytest.mark.parametrize("good", [False, True], ids=["nothing else", "good answers between"])
def test_a_refusal_of_the_key_that_lasts_a_minute_is_believed_unless_good_answers_come_between(*, good: bool) -> None:
    book = book_of(1)
    join(book, "a")
    join(book, "b")
    error = AuthenticationError("x", status=403)
    woken: list[Waiter] = []
    now = 0.0
    while now < 5 * OVERDUE and not woken:
        for look in book.take(now, EVERYTHING):
            if good and ids(look) == ["b"]:
                see(book, look, now)
            else:
                woken += book.failed(look, error, now)
        now = book.next_event(looks=True)

    if good:
        assert woken == []
        assert len(book) == 2
    else:
        assert sorted(waiter.bell for waiter in woken) == ["a", "b"]
        assert OVERDUE <= now or now == math.inf


def test_multi_fetches_that_an_edge_refuses_while_plain_ones_pass_are_given_up() -> None:
    book = book_of()
    for name in "abc":
        join(book, name)
    multi, now = 0, 0.0
    while now < 60.0:
        for look in book.take(now, EVERYTHING):
            multi += look.multi
            if look.multi:
                assert book.failed(look, AuthenticationError("x", status=403), now) == []
            else:
                see(book, look, now)
        now = book.next_event(looks=True)

    assert book.size(LEGACY) == 1
    assert multi <= 3
    assert len(book) == 3


@pytest.mark.parametrize("status", [302, 400, 404, 405, 410, 451, 501])
def test_a_status_without_the_hosts_own_words_never_ends_a_wait(status: int) -> None:
    book = book_of(1)
    join(book, "a")
    now = 0.0
    while now < 3600.0:
        assert book.failed(take_one(book, now), NotFoundError("x", status=status), now) == []
        now = book.next_event(looks=True)

    assert len(book) == 1


def test_closing_ends_every_wait_even_those_under_way() -> None:
    book = book_of()
    watch, first = join(book, "a")
    look = take_one(book, 0.0)
    _, second = join(book, "b")
    closed = ClientClosed("closed")

    assert book.close(closed) == [first, second]
    assert watch.error is closed
    assert see(book, look, 1.0) == []
    assert book.next_event(looks=True) == math.inf


def test_a_wait_taken_up_again_after_an_error_starts_afresh() -> None:
    book = book_of()
    watch, _ = join(book, "a")
    book.close(ClientClosed("x"))

    join_again = Waiter(None)
    book.join(watch, join_again, 1.0)

    assert watch.error is None
    assert book.failed(take_one(book, 1.0), DENIED, 1.0) == []


# -- what is learnt about the host --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [NotFoundError("x", status=404, message="x"), APIError("x", status=405), ServerError("x", status=501)],
)
def test_a_host_without_multi_fetch_is_asked_singly_at_once(error: PiAPIError) -> None:
    book = book_of()
    for name in "abc":
        join(book, name)

    assert book.failed(take_one(book, 0.0), error, 0.1) == []

    assert book.size(LEGACY) == 1
    looks = book.take(0.1, EVERYTHING)
    assert sorted(ids(look) for look in looks) == [["a"], ["b"], ["c"]]
    assert not any(look.multi for look in looks)
    for look in looks:
        see(book, look, 0.2)
    assert not any(look.multi for look in book.take(10.0, EVERYTHING))


def test_nonsense_once_may_be_an_accident_and_twice_is_a_host_without_multi_fetch() -> None:
    book = book_of()
    for name in "ab":
        join(book, name)

    book.failed(take_one(book, 0.0), UnexpectedAnswer("x"), 0.0)
    assert book.size(LEGACY) == 20
    singles = book.take(0.0, EVERYTHING)
    assert [look.multi for look in singles] == [False, False]
    for look in singles:
        see(book, look, 0.1)
    again = take_one(book, 5.0)
    assert again.multi

    book.failed(again, UnexpectedAnswer("x"), 5.0)
    assert book.size(LEGACY) == 1


def test_nonsense_with_sense_between_is_forgiven() -> None:
    book = book_of()
    for name in "ab":
        join(book, name)
    now = 0.0
    for _ in range(5):
        book.failed(take_one(book, now), UnexpectedAnswer("x"), now)
        for look in book.take(now, EVERYTHING):
            see(book, look, now)
        see(book, take_one(book, now + 5.0), now + 5.0)
        now += 10.0

    assert book.size(LEGACY) == 20


def test_multi_fetch_that_was_given_up_for_nonsense_is_tried_again_in_ten_minutes_and_then_one_doubt_is_enough() -> (
    None
):
    book = book_of()
    for name in "ab":
        join(book, name)
    for _ in range(2):
        assert book.learn(LEGACY, 2, UnexpectedAnswer("x"))
    assert book.size(LEGACY) == 1

    now, looks = 5.0, book.take(5.0, EVERYTHING)
    while not looks or not looks[0].multi:
        for look in looks:
            see(book, look, now)
        now += 5.0
        looks = book.take(now, EVERYTHING)

    assert now == pytest.approx(605.0, abs=15.0)  # the ten minutes begin with the first look after
    book.failed(looks[0], UnexpectedAnswer("x"), now)
    assert book.size(LEGACY) == 1


def sizes_over_time(error: APIError) -> list[int]:
    """Give the sizes, in their order, that a book of 20 tries within 25 minutes when its first look is refused."""
    book = book_of(20)
    for number in range(20):
        join(book, f"t{number}")
    sizes = [20]
    book.failed(take_one(book, 0.0), error, 0.0)
    for now in range(0, 1505, 5):
        for look in book.take(now, EVERYTHING):
            see(book, look, now)
        if book.size(LEGACY) != sizes[-1]:
            sizes.append(book.size(LEGACY))
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
    book = book_of(20)
    for number in range(5):
        join(book, f"t{number}")

    book.failed(take_one(book, 0.0), NotFoundError("task not found", status=400, message="task not found"), 0.0)

    assert book.size(LEGACY) == 20
    assert [1] * 5 == [len(look.watches) for look in book.take(0.0, EVERYTHING)]


def test_a_refused_size_is_halved_at_once_and_remembered() -> None:
    book = book_of(20)
    for number in range(20):
        join(book, f"t{number}")
    refusal = InvalidRequestError("too many", status=400, message="too many")

    book.failed(take_one(book, 0.0), refusal, 0.0)

    assert book.size(LEGACY) == 10
    looks = book.take(0.0, EVERYTHING)
    assert [len(look.watches) for look in looks] == [10, 10]
    book.failed(looks[0], refusal, 0.1)
    assert book.size(LEGACY) == 5
    see(book, looks[1], 0.2)
    assert book.size(LEGACY) == 5


def test_a_refused_request_says_nothing_about_sizes_that_are_smaller_already() -> None:
    book = book_of(20)

    assert book.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert book.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert book.size(LEGACY) == 5
    for _ in range(9):
        book.learn(LEGACY, 20, InvalidRequestError("x", status=400, message="x"))
    assert book.size(LEGACY) == 1


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
    book = book_of()

    assert not book.learn(LEGACY, 20, error)
    assert book.size(LEGACY) == 20


# -- costs --------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_who_come_and_go_leave_nothing_in_the_heaps() -> None:
    book = book_of()
    stays, _ = join(book, "stays")
    for number in range(50_000):
        watch, waiter = watch_of(f"t{number}", due=1e6 + number), Waiter(None, deadline=1e9 + number)
        book.join(watch, waiter, 0.0)
        book.leave(watch, waiter)
    for number in range(50_000):
        waiter = Waiter(None, deadline=1e9 + number)
        book.join(stays, waiter, 0.0)
        book.leave(stays, waiter)

    assert len(book) == 1
    assert len(book._lanes["legacy"].heap) < 100
    assert len(book._deadlines) < 100


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
        self.book = book_of(SIZE)
        self.now = 100.0
        self.watches: dict[tuple[str, TaskId], list[Watch]] = defaultdict(list)
        self.live: dict[int, tuple[Watch, Waiter]] = {}
        self.gone: set[int] = set()
        self.everybody: list[Waiter] = []  # so that an id() is never used twice
        self.looks: list[Look] = []
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
            watch = self.book.find(family, task) or Watch(family, task, self.now + due)
        waiter = Waiter(object(), math.inf if not timeout else self.now + timeout, changes=changes, once=timeout == 0.0)
        self.everybody.append(waiter)
        watch = self.book.join(watch, waiter, self.now)
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
        self.book.leave(watch, waiter)
        self.book.leave(watch, waiter)

        assert waiter not in watch.waiters

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(10_000):
            when = self.book.next_event(looks=len(self.looks) < self.room)
            if when > until:
                break
            self.now = max(self.now, when)
            self.tick()
        else:
            raise AssertionError("the book never comes to rest")
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
        self.wake(self.book.answered(look, sightings, self.now))
        for watch in look.watches:
            if outcomes[watch.task_id] in {"finished", "failed", "cancelled"}:
                assert not watch.waiters
        self.tick()

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: PiAPIError) -> None:
        look = self.looks.pop(data.draw(st.integers(0, len(self.looks) - 1)))
        before = {id(waiter) for watch in look.watches for waiter in watch.waiters if not waiter.once}
        self.wake(self.book.failed(look, error, self.now))
        if error in (FAULT, ERRORS[4]):  # passing: those who wait for more than a look go on waiting
            assert before <= self.live.keys()
        if isinstance(error, AuthenticationError):
            assert not self.live
        self.book.overdue(look, self.now)
        self.tick()

    @rule(task=st.sampled_from(TASKS), family=st.sampled_from(FAMILIES), status=st.sampled_from(OUTCOMES[:6]))
    def seen(self, task: TaskId, family: Family[Any], status: str) -> None:
        kept = self.watches[family.name, task]
        watch = self.book.find(family, task) or (kept[-1] if kept else None)
        if watch is not None:
            self.wake(self.book.seen(watch, sighting(task, status), self.now))
            self.tick()

    @rule()
    def close(self) -> None:
        self.wake(self.book.close(ClientClosed("x")))

        assert not self.live
        assert self.book.next_event(looks=True) == math.inf

    # -- what must hold

    def tick(self) -> None:
        """Do as the poller does."""
        queued = {
            id(watch): watch.queued
            for watch, _ in self.live.values()
            if not watch.looking and watch.queued < math.inf and not watch.alone
        }
        for look in self.book.take(self.now, self.room - len(self.looks)):
            self.check(look, queued)
            self.looks.append(look)
        for waiter in self.book.expire(self.now):
            watch, _ = self.live[id(waiter)]
            self.wake([waiter])

            assert waiter.deadline == self.now
            if self.room == EVERYTHING:
                assert watch.looking or any(
                    waiter.deadline - LEAD <= begun <= waiter.deadline for begun in self.began[id(watch)]
                )

    def check(self, look: Look, queued: dict[int, float]) -> None:
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

    def wake(self, woken: list[Waiter]) -> None:
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
        if not hasattr(self, "book"):
            return
        under_way = {id(watch) for look in self.looks for watch in look.watches}
        for watch, waiter in self.live.values():
            assert waiter in watch.waiters
            assert self.book.find(watch.family, watch.task_id) is watch
            assert waiter.deadline > self.now
            assert watch.looking is (id(watch) in under_way)
            if self.room == EVERYTHING and waiter.once:
                assert watch.looking
        assert len(self.book) == len({(watch.family.name, watch.task_id) for watch, _ in self.live.values()})

    @invariant()
    def the_heaps_hold_little_that_is_stale(self) -> None:
        if not hasattr(self, "book"):
            return
        for lane in self.book._lanes.values():
            assert len(lane.heap) <= 2 * len(self.book) + 65
        assert len(self.book._deadlines) <= 2 * len(self.live) + 65

    def teardown(self) -> None:
        """Whoever waits is looked at in the end, and woken when the task has ended."""
        if not hasattr(self, "book"):
            return
        for _ in range(200):
            for look in self.looks:
                self.wake(see(self.book, look, self.now, "finished"))
            self.looks.clear()
            if not self.live:
                break
            self.now = max(self.now, self.book.next_event(looks=True))
            assert self.now < math.inf
            self.tick()

        assert not self.live
        assert len(self.book) == 0
        assert self.book.next_event(looks=True) == math.inf


TestInterleavings = pytest.mark.storm(Interleavings.TestCase)
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
