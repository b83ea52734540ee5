"""That whoever joins while the poller sleeps for others is not slept over."""

from __future__ import annotations

import asyncio

import pytest
from support.serving import REROLL, TICK, now, serving

from piapi_async import PollPolicy, WaitTimeout

pytestmark = pytest.mark.looptime

SELDOM = {"poll": PollPolicy.every(100.0)}


async def test_a_timeout_that_is_nearer_than_the_next_look_is_kept_to_the_tick() -> None:
    async with serving(SELDOM, durations=1e6) as (_, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(2)]
        others = asyncio.create_task(handles[0].wait())
        await asyncio.sleep(10.0)
        began = now()

        with pytest.raises(WaitTimeout):
            await handles[1].wait(timeout=7.0)

        assert now() - began == pytest.approx(7.0, abs=TICK)
        others.cancel()


async def test_a_task_that_is_asked_about_once_is_looked_at_now_though_others_are_looked_at_later() -> None:
    async with serving(SELDOM, durations=1e6) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(2)]
        others = asyncio.create_task(handles[0].wait())
        await asyncio.sleep(10.0)
        began = now()

        with pytest.raises(WaitTimeout):
            await handles[1].wait(timeout=0)

        assert now() - began == pytest.approx(0.0, abs=TICK)
        assert emulator.seen.polls[handles[1].task_id] == 1
        others.cancel()
