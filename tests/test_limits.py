"""What a time limit must not do: lose a wait, end twice, or let anything leave that was said not to have left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from support.serving import serving
from support.strict_server import Act, ok, strict_server

from piapi_async import BatchRunner, PiAPI, PollPolicy, Reroll, RetryPolicy, TransportError
from piapi_async.batch._in_flight import InFlight

pytestmark = pytest.mark.looptime

ACCEPTED = b'{"task_id": "t-1", "status": "success", "message": ""}'
FINISHED = b'{"task_id": "t-1", "status": "finished", "task_result": {}}'


async def test_what_was_said_not_to_have_left_is_not_sent_by_a_middleware_that_goes_on() -> None:
    async def late(request: aiohttp.ClientRequest, handler: Any) -> Any:
        async def wait_and_send() -> Any:
            await asyncio.sleep(8.0)
            return await handler(request)

        sending = asyncio.create_task(wait_and_send())
        going_on.append(sending)
        return await asyncio.shield(sending)

    going_on: list[asyncio.Task[Any]] = []
    async with (
        strict_server() as server,
        aiohttp.ClientSession(middlewares=(late,)) as session,
        PiAPI(
            "k" * 20, base_url=server.base_url, session=session, timeout=5.0, retry=RetryPolicy.never()
        ) as piapi,
    ):
        server.usual = ok(ACCEPTED)
        with pytest.raises(TransportError) as caught:
            await piapi.submit(Reroll("t0", prompt="cat"))
        await asyncio.wait(going_on)

        assert not caught.value.sent
        assert not server.received
        assert isinstance(going_on[0].exception(), aiohttp.ClientConnectionError)


async def test_a_read_that_is_under_way_at_the_close_ends_in_its_time_in_a_users_session() -> None:
    async with strict_server() as server, aiohttp.ClientSession() as session:
        server.usual = Act(then="stall")
        piapi = PiAPI(
            "k" * 20, base_url=server.base_url, session=session, timeout=5.0, retry=RetryPolicy.never()
        )
        reading = asyncio.create_task(piapi.fetch("t0"))
        while not server.received:
            await asyncio.sleep(0)
        await piapi.close()

        with pytest.raises(TransportError, match="no answer within 5 s"):
            await reading


async def test_a_poll_that_somebody_cancels_loses_no_wait() -> None:
    async with (
        strict_server(ok(ACCEPTED), Act(then="stall"), ok(FINISHED)) as server,
        PiAPI("k" * 20, base_url=server.base_url, poll=PollPolicy.every(1.0)) as piapi,
    ):
        handle = await piapi.submit(Reroll("t0", prompt="cat"))
        waiting = asyncio.create_task(handle.wait(20.0))
        while len(server.received) < 2:
            await asyncio.sleep(0.1)
        for task in asyncio.all_tasks():
            if task.get_name().startswith("piapi_async poll"):
                task.cancel()

        assert (await waiting).ok


async def test_an_idle_worker_keeps_nothing_of_its_last_item() -> None:
    over, request = asyncio.Event(), Reroll("p")

    async def requests() -> AsyncIterator[Reroll]:
        yield request
        await over.wait()

    async with (
        serving(durations=30.0) as (_, piapi),
        BatchRunner(piapi, concurrency=1).stream(requests()) as outcomes,
    ):
        async for outcome in outcomes:
            assert outcome.ok
            break
        await asyncio.sleep(1.0)
        items = [one.item for one in gc.get_objects() if isinstance(one, InFlight)]
        left = [item for item in items if item.request is request]  # and not another test's
        over.set()

    assert not left
