"""How a client is closed, left, dropped, and taken to another loop."""

from __future__ import annotations

import asyncio
import gc
import warnings
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.families import FamilyCase
from support.serving import KEY, REROLL, TICK, after, no_leaks, now, serving, turns
from support.strict_server import Act, free_port, strict_server

from piapi_async import (
    LEGACY,
    Family,
    PiAPI,
    PollPolicy,
    RetryPolicy,
    TaskHandle,
    TaskState,
    wait_all,
)
from piapi_async.emulator import Emulator, Status
from piapi_async.errors import (
    ClientClosed,
    RateLimitError,
    SubmissionUnknown,
    TransportError,
)
from piapi_async.midjourney import Fetch

pytestmark = pytest.mark.looptime


async def test_a_plain_client_may_be_closed_by_another_task_and_twice() -> None:
    async with no_leaks(), Emulator(api_keys=[KEY], adopt_parents=True).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        handle = await asyncio.create_task(piapi.submit(REROLL))
        await asyncio.create_task(handle.refresh())

        await asyncio.create_task(piapi.close())
        await piapi.close()

        assert "closed" in repr(piapi)


async def test_a_context_may_be_left_by_another_task_than_it_was_entered_by() -> None:
    async with no_leaks(), Emulator(api_keys=[KEY], adopt_parents=True).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        await asyncio.create_task(piapi.__aenter__())
        handle = await piapi.submit(REROLL)
        await asyncio.create_task(handle.wait())

        await asyncio.create_task(piapi.__aexit__(None, None, None))


async def test_two_closes_at_once_do_no_harm() -> None:
    async with serving(latency=3.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await asyncio.gather(piapi.close(), piapi.close())

        assert (await submit).task_id in emulator.engine.tasks


async def test_of_two_closes_at_once_neither_returns_before_all_is_closed() -> None:
    async with serving(latency=3.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        first = asyncio.create_task(piapi.close())
        await asyncio.sleep(0)

        await piapi.close()

        assert first.done()
        assert (await submit).task_id in emulator.engine.tasks


async def test_close_ends_every_wait(case: FamilyCase) -> None:
    async with serving(concurrency=9) as (_, piapi):
        handles = [await piapi.submit(case.reroll("p")) for _ in range(3)]
        waits = [asyncio.create_task(handle.wait()) for handle in handles]

        async def read() -> None:
            async for _ in handles[0].updates():
                pass

        reading, everything = asyncio.create_task(read()), asyncio.create_task(wait_all(handles))
        await asyncio.sleep(10.0)
        began = now()

        await piapi.close()

        outcomes = await asyncio.gather(*waits, reading, return_exceptions=True)
        several = await everything
        assert [type(outcome) for outcome in outcomes] == [ClientClosed] * 4
        assert [type(outcome) for outcome in several] == [ClientClosed] * 3
        assert len({id(outcome) for outcome in (*outcomes, *several)}) == 7
        for handle, error in zip([*handles, handles[0], *handles], [*outcomes, *several], strict=True):
            assert str(error).startswith(
                f"Stopped waiting for task {handle.task_id}, which goes on; this cost nothing: "
            )
            assert "The client was closed" in str(error)
        assert now() == pytest.approx(began, abs=TICK)


async def test_close_lets_a_submit_that_has_begun_to_leave_arrive(case: FamilyCase) -> None:
    async with serving(latency=4.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(case.reroll("p")))
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        assert now() - began == pytest.approx(3.0, abs=0.01)
        assert (await submit).task_id in emulator.engine.tasks


async def test_close_lets_a_submit_with_a_long_timeout_of_its_own_arrive() -> None:
    async with serving(latency=45.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL, timeout=60.0))
        await asyncio.sleep(1.0)

        await piapi.close()

        assert (await submit).task_id in emulator.engine.tasks


async def test_close_waits_no_longer_than_the_timeout_for_a_submit() -> None:
    async with no_leaks(), strict_server(Act(then="stall")) as server:
        piapi = PiAPI(KEY, base_url=server.base_url, timeout=7.0)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await turns()
        began = now()

        await piapi.close()

        assert now() - began <= 7.0 + TICK
        with pytest.raises(SubmissionUnknown):
            await submit
        assert len(server.received) == 1


async def test_close_stops_a_submit_that_waits_for_another_try_and_sends_nothing_more() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=50))
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(10.0)
        began = now()

        await piapi.close()

        assert now() == pytest.approx(began, abs=TICK)
        with pytest.raises(ClientClosed):
            await submit
        await asyncio.sleep(100.0)
        assert emulator.seen.requests["reroll"] == 1
        assert emulator.seen.creates == 0


async def test_close_under_a_submit_that_is_then_put_off_sends_nothing_more_and_does_not_hang() -> None:
    async with serving(latency=2.0) as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=50))
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        assert now() - began == pytest.approx(1.0, abs=0.01)
        with pytest.raises((ClientClosed, RateLimitError)):
            await submit
        assert emulator.seen.creates == 0


async def test_close_wakes_a_read_that_waits_out_a_pause() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("fetch", Status(429, retry_after=50))
        reads = [asyncio.create_task(after(seconds, piapi.fetch("x"))) for seconds in (0.0, 0.5, 0.6)]
        await asyncio.sleep(1.0)
        began = now()

        await piapi.close()

        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ClientClosed] * 3
        assert now() == pytest.approx(began, abs=TICK)


async def test_a_closed_client_sends_nothing_and_says_why() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        await piapi.close()
        sent = emulator.seen.requests.total()

        calls: list[Any] = [
            piapi.submit(REROLL),
            piapi.fetch("x"),
            piapi.fetch_many(["x", "y"]),
            piapi.cancel("x"),
            handle.wait(),
            handle.wait(timeout=0),
            handle.refresh(),
            handle.cancel(),
            anext(handle.updates()),
            piapi.__aenter__(),
        ]
        for call in calls:
            with pytest.raises(ClientClosed):
                await call
        with pytest.raises(
            ClientClosed,
            match=f"^Stopped waiting for task {handle.task_id}, which goes on.*: The client is closed",
        ):
            await handle.wait()
        assert emulator.seen.requests.total() == sent


async def test_a_client_closed_before_it_was_used_stays_closed() -> None:
    piapi = PiAPI(KEY)
    await piapi.close()
    await piapi.close()

    with pytest.raises(ClientClosed):
        await piapi.fetch("x")


async def test_a_users_session_that_is_closed_under_a_wait_ends_it() -> None:
    import aiohttp  # noqa: PLC0415 - only here

    async with serving() as (_, first):
        session = aiohttp.ClientSession()
        async with PiAPI(KEY, base_url=first._runtime.sender.transport.base_url, session=session) as piapi:
            handle = await piapi.submit(REROLL)
            waiting = asyncio.create_task(handle.wait())
            await asyncio.sleep(5.0)

            await session.close()

            with pytest.raises(ClientClosed, match="session"):
                await asyncio.wait_for(waiting, 100.0)


async def test_nothing_of_a_callers_context_reaches_the_looks() -> None:
    import contextvars  # noqa: PLC0415 - only here

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    seen: list[str] = []

    class Nosy(Fetch):
        def to_http(self) -> Any:
            seen.append(user.get())
            return super().to_http()

    family: Family[Any] = attrs.evolve(LEGACY, name="nosy", fetch=Nosy, fetch_many=None)
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        user.set("alice")

        await piapi.attach("t1", family=family).wait()

    assert seen == ["nobody"]


def test_a_second_event_loop_is_told_so() -> None:
    async def use(piapi: PiAPI, base_url: str) -> None:
        with pytest.raises(TransportError):
            await piapi.fetch(base_url)
        await piapi.close()

    async def use_again(piapi: PiAPI, handle: TaskHandle[Any]) -> None:
        calls: list[Any] = [
            piapi.submit(REROLL),
            piapi.fetch("x"),
            handle.wait(),
            piapi.__aenter__(),
            piapi.close(),
        ]
        for call in calls:
            with pytest.raises(RuntimeError, match="event loop"):
                await call

    piapi = PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}", retry=RetryPolicy.never())
    asyncio.run(use(piapi, "x"))
    asyncio.run(use_again(piapi, piapi.attach("x")))


def drop(clients: list[PiAPI]) -> None:
    clients.clear()
    gc.collect()


async def test_a_client_dropped_open_warns() -> None:
    async with Emulator(api_keys=[KEY]).run() as base_url:
        piapi = PiAPI(KEY, base_url=base_url)
        await piapi.__aenter__()

        clients = [piapi]
        del piapi
        with pytest.warns(ResourceWarning, match="close") as caught:
            drop(clients)

    assert KEY not in "".join(str(warning.message) for warning in caught)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.storm
def test_a_hundred_loops_one_after_another_leave_nothing() -> None:
    async def one() -> None:
        emulator = Emulator(api_keys=[KEY], adopt_parents=True, durations=2.0, speed=1000.0)
        async with (
            emulator.run() as base_url,
            PiAPI(KEY, base_url=base_url, poll=PollPolicy.every(0.002)) as piapi,
        ):
            handle = await piapi.submit(REROLL)
            task = await handle.wait(timeout=10.0)

            assert task.state is TaskState.DONE
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(one())
        gc.collect()
        before = open_files()
        for _ in range(100):
            asyncio.run(one())
        gc.collect()

    assert open_files() == before


def test_a_loop_that_ends_under_a_wait_leaves_nothing() -> None:
    async def one() -> None:
        async with strict_server(*[Act(then="stall")] * 3) as server:
            async with PiAPI(KEY, base_url=server.base_url, timeout=0.05) as piapi:
                waits = [asyncio.create_task(piapi.attach(f"t{number}").wait()) for number in range(3)]
                await asyncio.sleep(0.01)
            for wait in waits:
                with pytest.raises(ClientClosed):
                    await wait

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(one())
        gc.collect()
