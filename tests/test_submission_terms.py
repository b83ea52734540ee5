"""One submission with terms of its own: how often it is tried, and until when it may leave."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from piapi_async import (
    APIError,
    AuthenticationError,
    PiAPI,
    PiAPIError,
    RateLimitError,
    Reroll,
    RetryPolicy,
    ServerError,
    TransportError,
)
from piapi_async._submit.submission import Terms
from piapi_async._verdict import may_pass
from piapi_async.client import runtime_of
from piapi_async.emulator import Emulator, Status
from piapi_async.tasks import TaskId, TaskRef

pytestmark = pytest.mark.looptime

ONCE = Terms(retry=RetryPolicy.never())


@asynccontextmanager
async def client() -> AsyncIterator[tuple[Emulator, PiAPI]]:
    emulator = Emulator(adopt_parents=True)
    async with emulator.run() as url, PiAPI(emulator.api_key, base_url=url) as piapi:
        yield emulator, piapi


async def test_a_submission_is_tried_as_often_as_its_own_policy_says() -> None:
    async with client() as (emulator, piapi):
        emulator.fail("create", Status(429, retry_after=3), times=2)

        with pytest.raises(RateLimitError) as caught:
            await runtime_of(piapi).submit(Reroll("p"), None, None, terms=ONCE)
        assert caught.value.retry_after == 3
        assert emulator.seen.requests["reroll"] == 1

        await piapi.submit(Reroll("p"))
        assert emulator.seen.requests["reroll"] == 3


async def test_what_may_not_leave_any_more_is_not_sent_and_nothing_was_paid() -> None:
    async with client() as (emulator, piapi):
        with pytest.raises(TransportError, match=r"was not sent.*Nothing was paid") as caught:
            await runtime_of(piapi).submit(Reroll("p"), None, None, terms=Terms(may_leave=lambda: False))

        assert not caught.value.sent
        assert not emulator.seen.requests["reroll"]


async def test_whether_it_may_leave_is_asked_after_a_pause() -> None:
    async with client() as (emulator, piapi):
        emulator.fail("create", Status(429, retry_after=30), times=1)
        answers = [True, False]

        with pytest.raises(TransportError, match="was not sent"):
            await runtime_of(piapi).submit(
                Reroll("p"), None, None, terms=Terms(may_leave=lambda: answers.pop(0))
            )

        assert emulator.seen.requests["reroll"] == 1
        assert answers == []


@pytest.mark.parametrize(
    ("passes", "error"),
    [
        (True, RateLimitError("busy", status=429)),
        (True, TransportError("no route", sent=False)),
        (True, ServerError("an edge", status=521)),
        (False, TransportError("no route", sent=False, untrusted=True)),
        (False, TransportError("lost", sent=True)),
        (False, ServerError("broken", status=500)),
        (False, RateLimitError("busy", status=429, ref=TaskRef("https://a.example", "unified", TaskId("t")))),
        (False, ServerError("an edge", status=521, ref=TaskRef("https://a.example", "unified", TaskId("t")))),
        (False, AuthenticationError("the key", status=401)),
        (False, APIError("no", status=400)),
    ],
)
def test_only_a_reason_that_passes_by_itself_is_worth_another_submission(
    error: PiAPIError, *, passes: bool
) -> None:
    assert may_pass(error) is passes
