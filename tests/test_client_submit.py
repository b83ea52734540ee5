"""What a client makes of the answers to a submit."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from support.families import FamilyCase
from support.serving import KEY, REROLL, TICK, assert_at_rest, no_leaks, now, serving
from support.strict_server import Act, free_port, http, strict_server

from piapi_async import (
    PiAPI,
    RetryPolicy,
    TaskRef,
)
from piapi_async.emulator import Drop, Huge, Refuse, SlowFirstByte, Status, Truncated
from piapi_async.errors import (
    APIError,
    AuthenticationError,
    InsufficientCreditError,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    ServerError,
    SubmissionUnknown,
    TransportError,
)
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime


async def test_a_submit_gives_the_handle_of_the_task_it_made() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)

        made = emulator.task(handle.task_id)
        assert made is not None
        assert (made.verb, made.origin, made.prompt) == ("reroll", REROLL.origin_task_id, "a cute cat")
        assert handle.task is None
        assert handle.error is None
        assert handle.ref == TaskRef(piapi.origin, "legacy", TaskId(handle.task_id))
        assert emulator.seen.requests == {"reroll": 1}


BUSY = [
    "No available bot",
    "the bot is inactive",
    "server overloaded",
    "rate limit reached",
    "Too many requests",
]


@pytest.mark.parametrize(
    "fault",
    [
        Status(429),
        Status(429, body=""),
        Status(429, retry_after=3),
        Status(429, retry_after="soon"),
        Status(429, retry_after=-5),
        *(Status(400, body={"message": text}) for text in BUSY),
        Status(409, body={"message": "no available bot"}),
        Refuse(2.0),
    ],
    ids=str,
)
async def test_a_submit_that_certainly_made_nothing_is_repeated(fault: Any, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault)

        await piapi.submit(case.reroll("p"))

        assert emulator.seen.creates == 1
        assert emulator.seen.requests[case.create] == (1 if isinstance(fault, Refuse) else 2)


RAISED: list[tuple[Any, type[APIError]]] = [
    (Status(400), InvalidRequestError),
    (Status(422, body={"message": "prompt: required"}), InvalidRequestError),
    (Status(400, body={"message": "derive from origin task: parent task is outdated"}), ParentOutdatedError),
    (Status(400, body={"message": "derive from origin task: parent task not found"}), NotFoundError),
    (Status(401), AuthenticationError),
    (Status(403, body={"error": "Unauthorized"}), AuthenticationError),
    (Status(404, body={"message": "no such path"}), NotFoundError),
    (Status(402, body={"message": "payment required"}), InsufficientCreditError),
    (Status(403, body={"error": {"message": "insufficient credits"}}), InsufficientCreditError),
    (Status(409, body={"description": "conflict"}), APIError),
    (Status(302, body=""), APIError),
    (Status(500), ServerError),
    (Status(500, body={"status": "failed"}), ServerError),
    (Status(503, body={"code": 503, "message": "this model is switched off"}), ServerError),
    (Status(502, body={"status": "failed", "message": "bad day"}), ServerError),
    (
        Status(200, body={"task_id": "", "status": "failed", "message": "banned prompt words: x"}),
        InvalidRequestError,
    ),
    (Status(200, body={"status": "failed"}), APIError),
    (Status(200, body={"success": False}), APIError),
    (Status(200, body={"success": False, "message": "no credit"}), InsufficientCreditError),
    (Status(200, body={"message": "no longer support MidJourney service"}), APIError),
]


@pytest.mark.parametrize(("fault", "kind"), RAISED, ids=str)
async def test_a_submit_that_was_refused_is_raised_and_not_repeated(
    fault: Any, kind: type[APIError], case: FamilyCase
) -> None:
    request = case.reroll("p")
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault, times=None)

        with pytest.raises(kind) as caught:
            await piapi.submit(request)

        assert type(caught.value) is kind
        assert caught.value.status == fault.status
        assert caught.value.request is request
        assert "nothing was paid" in str(caught.value)
        assert emulator.seen.requests[case.create] == 1
        assert emulator.seen.creates == 0


UNKNOWN: list[Any] = [
    Drop(before_body=True),
    Drop(after_body=True),
    Drop(after_body=True, made=False),
    Drop(inside_answer=True),
    SlowFirstByte(100.0),
    Status(408),
    Status(408, made=True),
    Status(502),
    Status(503),
    Status(504, made=True),
    Status(500, body=""),
    Status(500, body="<html>"),
    Status(520, body="<html>"),
    Status(500, body={}),
    Status(500, body={"message": ""}),
    Status(500, body={"message": "timeout"}),
    Status(303, body=""),
    Status(403, body=""),
    Status(404, body="<html>"),
    Status(403, body={"message": "Forbidden"}),
    Status(503, body={"message": "service unavailable"}),
    Status(500, body={"message": "the request timed out"}),
    Status(504, body={"message": "upstream Time-out"}),
    Status(500, body={"status": "failed", "message": "context deadline exceeded"}),
    Status(200, body=""),
    Status(200, body="<html>"),
    Status(200, body="[]"),
    Status(200, body={}),
    Status(200, body={"status": "success"}),
    Status(200, body={"task_id": "", "status": "success", "message": ""}),
    Status(200, body={"task_id": None, "status": "success"}),
    Status(204, body=""),
    Truncated(0.5),
    Truncated(0.0),
    Huge(17 * 2**20),
]


@pytest.mark.parametrize("fault", UNKNOWN, ids=str)
async def test_a_submit_that_may_have_made_a_task_is_unknown_and_never_repeated(
    fault: Any, case: FamilyCase
) -> None:
    request = case.reroll("p")
    async with serving() as (emulator, piapi):
        emulator.fail("create", fault, times=None)
        began = time.time()

        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(request)

        error = caught.value
        assert error.request is request
        assert error.key is None
        assert began <= error.at <= time.time()
        assert isinstance(error.__cause__, PiAPIError)
        assert "may exist" in str(error)
        assert "paid" in str(error)
        assert emulator.seen.requests[case.create] == 1
        assert emulator.seen.creates <= 1
        assert_at_rest(piapi)
        await asyncio.sleep(100)  # not later either
        assert emulator.seen.requests[case.create] == 1


async def test_an_answer_with_both_an_id_and_a_message_is_an_accepted_task() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(200, body={"task_id": "t1", "status": "success", "message": "queued"}))

        assert (await piapi.submit(REROLL)).task_id == "t1"


async def test_a_host_that_stays_busy_is_given_up_after_the_policys_tries() -> None:
    async with serving({"retry": RetryPolicy(attempts=4)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429), times=None)

        with pytest.raises(RateLimitError):
            await piapi.submit(REROLL)

        assert emulator.seen.requests["reroll"] == 4


async def test_without_retries_every_failure_comes_at_once() -> None:
    async with serving({"retry": RetryPolicy.never()}) as (emulator, piapi):
        emulator.fail("reroll", Status(429), times=None)
        began = now()

        with pytest.raises(RateLimitError):
            await piapi.submit(REROLL)

        assert emulator.seen.requests["reroll"] == 1
        assert now() == pytest.approx(began, abs=TICK)


async def test_a_host_that_asks_for_more_time_than_the_policy_has_is_given_up_at_once() -> None:
    async with serving({"retry": RetryPolicy(total=60.0)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=61), times=None)
        began = now()

        with pytest.raises(RateLimitError) as caught:
            await piapi.submit(REROLL)

        assert caught.value.retry_after == 61
        assert emulator.seen.requests["reroll"] == 1
        assert now() == pytest.approx(began, abs=TICK)


async def test_the_time_a_host_asks_for_is_never_cut_short() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=20))
        began = now()

        await piapi.submit(REROLL)

        assert 20.0 <= now() - began <= 27.0


async def test_the_time_a_host_asks_for_holds_the_whole_client() -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        emulator.fail("reroll", Status(429, retry_after=20))
        began = now()
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await asyncio.gather(piapi.fetch("t1"), piapi.submit(REROLL), piapi.attach("t1").wait())

        assert now() - began >= 20.0
        assert emulator.seen.requests["fetch"] == 2
        await submit


async def test_a_pause_does_not_save_up_what_the_rate_allows() -> None:
    async with serving({"rate_limit": (1, 1.0)}) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=60))
        ends: list[float] = []

        async def one() -> None:
            await piapi.submit(REROLL)
            ends.append(now())

        began = now()
        await asyncio.gather(*[one() for _ in range(12)])

        assert ends[0] - began >= 60.0
        assert ends[-1] - ends[0] >= 10.0


async def test_a_host_that_cannot_be_reached_is_an_error_that_says_nothing_was_sent() -> None:
    async with no_leaks(), PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}") as piapi:
        with pytest.raises(TransportError) as caught:
            await piapi.submit(REROLL)

    assert caught.value.sent is False
    assert "Reroll" in str(caught.value)


async def test_the_time_a_submit_began_to_leave_is_told_not_the_time_it_was_asked_for() -> None:
    acts = [Act(say=http(b'{"message": "too many requests"}', status=429)), Act(then="close")]
    async with no_leaks(), strict_server(*acts) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(REROLL)

        first, second = server.received
        assert first.at < caught.value.at <= second.at


async def test_a_submit_has_a_timeout_of_its_own() -> None:
    async with serving(latency=5.0) as (_, piapi):
        began = now()
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(REROLL, timeout=2.0)
        assert now() - began == pytest.approx(2.0, abs=TICK)
        await asyncio.sleep(5.0)


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan])
async def test_a_timeout_that_bounds_nothing_is_refused_before_anything_is_sent(timeout: float) -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="timeout"):
            await piapi.submit(REROLL, timeout=timeout)

        assert emulator.seen.requests == {}


async def test_a_key_needs_a_ledger() -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(ValueError, match="ledger"):
            await piapi.submit(REROLL, key="k")

        assert emulator.seen.requests == {}


async def test_what_makes_no_task_cannot_be_submitted() -> None:
    fetch: Any = Fetch(TaskId("x"))
    async with serving() as (emulator, piapi):
        with pytest.raises(TypeError, match="Fetch"):
            await piapi.submit(fetch)

        assert emulator.seen.requests == {}


async def test_a_hundred_submits_at_once_make_a_hundred_tasks() -> None:
    async with serving(concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(100)])

        assert len({handle.task_id for handle in handles}) == 100
        assert emulator.seen.creates == 100
