"""The throttle's tickets: how long a request has to wait, and what it waits for."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from piapi_async import ClientClosed
from piapi_async._calls.throttle import Throttle
from piapi_async.policy import TokenBucket

pytestmark = pytest.mark.looptime


def throttle(rate_limit: tuple[int, float] | None = None) -> Throttle:
    bucket = None if rate_limit is None else TokenBucket.of(rate_limit)
    return Throttle(bucket, Random(1))  # noqa: S311 - a test's


async def test_an_open_throttle_lets_every_request_go() -> None:
    gate = throttle()

    assert gate.is_open
    assert gate.ticket().seconds_to_wait() == 0


async def test_a_place_in_the_rate_limit_is_taken_once() -> None:
    gate = throttle((1, 2.0))
    assert gate.ticket().seconds_to_wait() == 0
    second, third = gate.ticket(), gate.ticket()

    assert [second.seconds_to_wait(), third.seconds_to_wait()] == [2.0, 4.0]
    assert second.seconds_to_wait() == 0


async def test_a_pause_holds_all_and_lets_none_go_early() -> None:
    gate = throttle()
    gate.pause(10.0)
    waits = [gate.ticket().seconds_to_wait() for _ in range(100)]

    assert not gate.is_open
    assert all(10.0 <= wait <= 11.0 for wait in waits)
    assert len(set(waits)) > 1

    await asyncio.sleep(10.0)
    assert gate.ticket().seconds_to_wait() == 0


async def test_a_place_that_passed_during_a_pause_is_lost() -> None:
    gate = throttle((1, 2.0))
    gate.ticket().seconds_to_wait()
    ticket = gate.ticket()
    assert ticket.seconds_to_wait() == 2.0

    gate.pause(10.0)
    assert ticket.seconds_to_wait() >= 10.0
    await asyncio.sleep(10.0)
    rival = gate.ticket()

    assert rival.seconds_to_wait() == 0
    assert ticket.seconds_to_wait() > 0  # it stands behind those that came in order


async def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    gate = throttle()
    gate.pause(10.0)
    gate.pause(1.0)

    assert gate.ticket().seconds_to_wait() >= 10.0


async def test_entering_takes_as_long_as_the_ticket_says() -> None:
    gate = throttle((1, 2.0))
    now = asyncio.get_running_loop().time
    began = now()

    await gate.enter()
    await gate.enter()
    await gate.enter()

    assert now() - began == pytest.approx(4.0)


async def test_a_closed_throttle_lets_none_go_and_wakes_those_who_sleep() -> None:
    gate = throttle()
    sleeper = asyncio.create_task(gate.sleep(60.0))
    await asyncio.sleep(1.0)

    gate.close()

    with pytest.raises(ClientClosed, match="Nothing was sent"):
        await sleeper
    with pytest.raises(ClientClosed):
        gate.ticket().seconds_to_wait()
    assert not gate.is_open
