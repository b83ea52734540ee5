"""`concurrency="auto"`: how many tasks are in flight, by what the account tells and what the host does."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.batching import rerolls, start_at_most
from support.serving import serving

from piapi_async import BatchRunner, PiAPI, RateLimitError, Totals
from piapi_async.batch._pace import Controller, Slots
from piapi_async.emulator import Dialect, Emulator, Lognormal, Status

pytestmark = pytest.mark.looptime

HIDDEN = Dialect(account="flat")
"""An account that does not say how many tasks it runs."""


TAKES = Lognormal(40.0, 80.0, 15.0, 150.0)


async def most_in_flight(
    emulator: Emulator, piapi: PiAPI, count: int, **options: Any
) -> tuple[list[Any], int]:
    """Run a batch; return its outcomes, and the most tasks that were in flight at any time of its second half."""
    most = 0

    def look(totals: Totals) -> None:
        nonlocal most
        if totals.ended > count / 2:
            most = max(most, totals.waiting + totals.running)

    outcomes = await BatchRunner(piapi, concurrency="auto", on_progress=look, **options).run(rerolls(count))
    return outcomes, most


async def test_it_begins_with_what_the_account_tells() -> None:
    async with serving({}, concurrency=17, durations=TAKES) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency="auto", on_progress=lambda totals: seen.append(totals.read))
        seen: list[int] = []
        async with runner.stream(rerolls(25)) as outcomes:
            await anyio.sleep(3)
            assert len(runner.in_flight) == 17
            async for outcome in outcomes:
                assert outcome.ok
    assert emulator.seen.requests["account_info"] == 1


@pytest.mark.parametrize("queue", [0, pytest.param(50, marks=pytest.mark.storm)])
async def test_it_finds_out_how_many_are_run_at_a_time(queue: int) -> None:
    async with serving({}, concurrency=24, queue=queue, dialect=HIDDEN, durations=TAKES) as (emulator, piapi):
        outcomes, most = await most_in_flight(emulator, piapi, 120)

    assert all(outcome.ok for outcome in outcomes)
    assert 22 <= most <= 24 + queue + 3  # some have ended, and that was not seen yet
    assert piapi.stats.put_off <= 9


async def test_it_never_goes_beyond_what_was_asked_for() -> None:
    async with serving({}, concurrency=1000, dialect=HIDDEN, durations=TAKES) as (emulator, piapi):
        _, most = await most_in_flight(emulator, piapi, 50, auto_max=12)

    assert most == 12


async def test_an_item_that_the_host_has_no_room_for_is_submitted_when_it_has() -> None:
    """One task at a time, longer than any policy of retries lasts: no item fails."""
    async with serving({}, concurrency=1, queue=0, dialect=HIDDEN, durations=300.0) as (emulator, piapi):
        outcomes = await BatchRunner(piapi, concurrency="auto", auto_max=3).run(rerolls(4))

    assert [outcome.ok for outcome in outcomes] == [True] * 4
    assert emulator.seen.statuses[429] > 6


async def test_a_host_that_is_busy_with_others_is_said_to_be() -> None:
    async with serving({}, durations=5.0) as (emulator, piapi):
        emulator.fail("create", Status(429), times=None)
        [outcome] = await BatchRunner(piapi, concurrency="auto").run(rerolls(1))

    assert isinstance(outcome.error, RateLimitError)


@pytest.mark.parametrize("fault", [Status(503), Status(403, body="<html>"), Status(404)])
async def test_an_account_that_cannot_be_read_is_done_without(fault: Any) -> None:
    async with serving({}, concurrency=1000, durations=5.0) as (emulator, piapi):
        emulator.fail("account_info", fault, times=None)
        outcomes = await BatchRunner(piapi, concurrency="auto").run(rerolls(40))

    assert all(outcome.ok for outcome in outcomes)


async def test_a_run_may_be_left_at_any_moment() -> None:
    async with serving({}, durations=TAKES) as (_, piapi):
        for seconds in (0.0, 0.01, 1.0, 45.0):
            async with BatchRunner(piapi, concurrency="auto").stream(rerolls(500)):
                await anyio.sleep(seconds)


# -- the parts --------------------------------------------------------------------------------------------------------


def grow_to(controller: Controller, limit: int) -> int:
    """Start tasks at once until a limit is reached; return how many that took."""
    starts = 0
    while controller.limit < limit:
        controller.started(at_once=True)
        controller.grow()
        starts += 1
    return starts


def test_it_grows_with_each_start_halves_once_and_takes_up_what_the_host_has_run() -> None:
    controller = Controller(90, 10)
    assert 20 == grow_to(controller, 30)

    controller.put_off(accepted=28)
    controller.put_off(accepted=27)  # others that were on their way
    assert (15, 28) == (controller.limit, controller.plateau)

    controller.started(at_once=True)
    controller.grow()
    assert 15 == controller.limit
    controller.ended()  # and so the host has room for another
    assert 28 == controller.limit


def test_where_the_host_runs_fewer_it_grows_from_half_of_what_it_had() -> None:
    controller = Controller(90, 30)
    controller.put_off(accepted=30)
    controller.ended()
    assert 30 == controller.limit

    controller.put_off(accepted=29)
    controller.ended()
    assert 15 == controller.limit
    controller.put_off(accepted=10)
    controller.ended()
    assert (7, 10) == (controller.limit, controller.plateau)
    assert 3 == grow_to(controller, 10)


def test_a_host_that_is_busy_with_others_tasks_says_nothing_of_how_many_it_runs() -> None:
    controller = Controller(90, 30)
    controller.put_off(accepted=0)
    assert (15, 90) == (controller.limit, controller.plateau)
    assert 75 == grow_to(controller, 90)


def test_it_does_not_grow_while_tasks_are_queued() -> None:
    controller = Controller(90, 10)
    for _ in range(20):
        controller.started(at_once=False)
        controller.grow()
    assert controller.limit == 10


def tries(controller: Controller, running: int, starts: int) -> int:
    """Return how often it tries more than the host runs, while so many tasks are started."""
    found = 0
    for _ in range(starts):
        controller.started(at_once=True)
        controller.grow()
        if controller.limit > running:
            found += 1
            controller.put_off(accepted=running)
            controller.ended()
    return found


def test_it_tries_more_no_oftener_than_each_hundredth_time_and_where_fewer_are_run_what_it_has_saved() -> (
    None
):
    controller = Controller(90, 31)
    controller.put_off(accepted=30)
    controller.ended()
    assert 4 == tries(controller, 30, 1_500)  # each is a twelfth round; nine would have been paid for

    controller.put_off(accepted=10)
    grow_to(controller, 10)
    assert 6 == tries(controller, 10, 210)  # each when three rounds and a half have passed
    tries(controller, 10, 1_000)
    assert 9 == tries(controller, 10, 1_000)  # nothing is saved any more: what each 110 starts pay for


def test_a_try_that_is_accepted_is_followed_by_more_at_once() -> None:
    controller = Controller(90, 11)
    controller.put_off(accepted=10)
    controller.ended()
    assert 120 == grow_to(controller, 11)
    assert 49 == grow_to(controller, 60)


def test_a_try_that_an_end_has_made_room_for_changes_nothing() -> None:
    """One that was not yet seen: the host runs sixty, and for a moment it seems to run sixty-two."""
    controller = Controller(90, 61)
    controller.put_off(accepted=60)
    controller.ended()
    grow_to(controller, 63)
    controller.put_off(accepted=62)
    assert 60 == controller.plateau


@example([("off", 0), ("end", 0)], 90)  # a host that is busy with others
@given(
    st.lists(st.tuples(st.sampled_from(["start", "queue", "end", "look", "off"]), st.integers(0, 99))),
    st.integers(1, 90),
)
def test_the_limit_is_never_below_one_nor_above_what_was_asked_for(
    steps: list[tuple[str, int]], cap: int
) -> None:
    controller = Controller(cap, min(cap, 10))
    for word, number in steps:
        if word == "off":
            controller.put_off(accepted=number)
        elif word == "end":
            controller.ended()
        elif word == "look":
            controller.grow()
        else:
            controller.started(at_once=word == "start")
        assert 1 <= controller.limit <= cap


async def test_slots_are_withheld_at_once_if_free_and_else_when_they_are_released() -> None:
    slots = Slots(9, 5)
    held = 0

    async def hold(until: asyncio.Event) -> None:
        nonlocal held
        await slots.acquire()
        held += 1
        await until.wait()
        held -= 1
        slots.release()

    first, second = asyncio.Event(), asyncio.Event()
    async with anyio.create_task_group() as group:
        for until in (first, first, first, second, second, second, second, second, second):
            group.start_soon(hold, until)
        await anyio.sleep(1)
        assert (held, slots.semaphore.value) == (5, 0)

        slots.set_limit(3)
        await anyio.sleep(1)
        assert held == 5
        first.set()
        await anyio.sleep(1)
        assert held == 3

        slots.set_limit(6)
        await anyio.sleep(1)
        assert held == 6
        second.set()
    assert slots.semaphore.value == 6


# -- against fixed numbers --------------------------------------------------------------------------------------------


@pytest.mark.storm
@pytest.mark.parametrize(("queue", "best"), [(0, 30), (50, 60)])
async def test_a_host_that_changes_its_mind_is_followed(queue: int, best: int) -> None:
    """Thirty at a time, then eight, then sixty; `best` is the fixed number that gets the most done in that time."""
    count, changes_at, mean = 1000, (400.0, 800.0), 43.0
    async with serving({}, concurrency=30, queue=queue, dialect=HIDDEN, durations=TAKES) as (emulator, piapi):
        loop = asyncio.get_running_loop()
        loop.call_later(changes_at[0], start_at_most, emulator, 8)
        loop.call_later(changes_at[1], start_at_most, emulator, 60)
        runner = BatchRunner(piapi, concurrency="auto")
        outcomes = await runner.run(rerolls(count))

    before = (changes_at[0] * 30 + (changes_at[1] - changes_at[0]) * 8) / mean
    assert all(outcome.ok for outcome in outcomes)
    assert runner.totals.seconds <= 1.1 * (changes_at[1] + (count - before) * mean / best)
    assert piapi.stats.put_off <= 0.01 * count
