from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from support.serving import REROLL, TICK, after, assert_at_rest, now, read, serving, turns

from piapi_async import Task, TaskHandle, as_completed, wait_all
from piapi_async.emulator import TaskFails, TaskTakes
from piapi_async.errors import ClientClosed, NotFoundError, TaskFailed, WaitTimeout

pytestmark = pytest.mark.looptime


async def test_as_completed_gives_handles_in_the_order_of_their_ends() -> None:
    async with serving(concurrency=10) as (emulator, piapi):
        handles = []
        for seconds in (50.0, 10.0, 30.0, 20.0, 40.0):
            emulator.fail("reroll", TaskTakes(seconds))
            handles.append(await piapi.submit(REROLL))
        nope = piapi.attach("nope")

        ended = [handle async for handle in as_completed([*handles, nope])]

        assert ended == [nope, handles[1], handles[3], handles[2], handles[4], handles[0]]
        assert isinstance(nope.error, NotFoundError)
        assert [handle.task and handle.task.status for handle in handles] == ["finished"] * 5
        assert_at_rest(piapi)


async def test_as_completed_takes_five_hundred_handles() -> None:
    async with serving() as (emulator, piapi):
        for number in range(500):
            emulator.adopt(f"t{number}")

        ended = [
            handle.task_id
            async for handle in as_completed(piapi.attach(f"t{number}") for number in range(500))
        ]

        assert sorted(ended) == sorted(f"t{number}" for number in range(500))
        assert emulator.seen.requests == {"multi_fetch": 25}


async def test_as_completed_names_those_that_had_not_ended_in_time() -> None:
    async with serving(concurrency=10) as (emulator, piapi):
        handles = []
        for seconds in (10.0, 90.0, 20.0, 80.0):
            emulator.fail("reroll", TaskTakes(seconds))
            handles.append(await piapi.submit(REROLL))
        began = now()

        ended, error = await read(as_completed(handles, timeout=50.0))

        assert now() - began == pytest.approx(50.0, abs=TICK)
        assert ended == [handles[0], handles[2]]
        assert isinstance(error, WaitTimeout)
        assert error.refs == (handles[1].ref, handles[3].ref)
        assert error.ref is None
        assert_at_rest(piapi)


async def test_as_completed_left_early_leaves_nothing() -> None:
    async with serving(concurrency=10) as (_, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(10)]
        async for handle in as_completed(handles):
            assert handle.task is not None
            break
        gc.collect()
        await turns()

        assert_at_rest(piapi)


async def test_as_completed_of_nothing_ends_at_once() -> None:
    nothing: list[TaskHandle[Any]] = []

    assert await read(as_completed(nothing)) == ([], None)
    assert await wait_all(nothing) == []


async def test_as_completed_gives_a_handle_as_often_as_it_was_given() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        same = piapi.attach(handle.task_id)

        assert [one.task_id async for one in as_completed([handle, handle, same])] == [handle.task_id] * 3
        assert [one.task_id async for one in as_completed([handle, handle])] == [handle.task_id] * 2


async def test_as_completed_gives_an_error_though_somebody_waits_for_that_task_anew() -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        done, nope = piapi.attach("t1"), piapi.attach("nope")
        ended, again = [], []
        async for handle in as_completed([done, nope]):
            ended.append(handle)
            if handle is done:
                await asyncio.sleep(20.0)  # meanwhile the other ends too
                again.append(asyncio.create_task(nope.wait()))
                await turns()

        assert ended == [done, nope]
        with pytest.raises(NotFoundError):
            await again[0]


async def test_as_completed_of_a_closed_client_says_so() -> None:
    async with serving() as (_, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(2)]
        asyncio.get_running_loop().create_task(after(5.0, piapi.close()))

        ended = [handle async for handle in as_completed(handles)]

        assert [type(handle.error) for handle in ended] == [ClientClosed, ClientClosed]


async def test_wait_all_gives_everything_in_order_and_raises_nothing() -> None:
    async with serving(concurrency=10) as (emulator, piapi):
        slow = await piapi.submit(REROLL)
        emulator.fail("reroll", TaskFails("bad luck"))
        bad = await piapi.submit(REROLL)
        emulator.fail("reroll", TaskTakes(5.0))
        quick = await piapi.submit(REROLL)
        emulator.fail("reroll", TaskTakes(500.0))
        endless = await piapi.submit(REROLL)

        outcomes = await wait_all([slow, bad, piapi.attach("nope"), quick, endless, quick], timeout=100.0)

        assert [type(outcome) for outcome in outcomes] == [
            Task,
            TaskFailed,
            NotFoundError,
            Task,
            WaitTimeout,
            Task,
        ]
        assert outcomes[0] is slow.task
        assert isinstance(outcomes[4], WaitTimeout)
        assert outcomes[4].ref == endless.ref
        assert_at_rest(piapi)
        assert await wait_all([slow, quick]) == [slow.task, quick.task]


async def test_wait_all_takes_two_thousand_handles() -> None:
    async with serving() as (emulator, piapi):
        for number in range(500):
            emulator.adopt(f"t{number}")

        outcomes = await wait_all(piapi.attach(f"t{number}") for number in range(500))

        assert [isinstance(outcome, Task) and outcome.task_id for outcome in outcomes] == [
            f"t{number}" for number in range(500)
        ]


async def test_wait_all_on_a_closed_client_still_gives_what_had_ended() -> None:
    async with serving(concurrency=2) as (emulator, piapi):
        done = await piapi.submit(REROLL)
        emulator.fail("reroll", TaskTakes(500.0))
        running = await piapi.submit(REROLL)
        await done.wait()
        await piapi.close()

        outcomes = await wait_all([running, done])

        assert isinstance(outcomes[0], ClientClosed)
        assert outcomes[1] is done.task


async def test_wait_all_keeps_an_error_though_somebody_waits_for_that_task_anew() -> None:
    async with serving() as (_, piapi):
        handle, running = piapi.attach("nope"), await piapi.submit(REROLL)
        everything = asyncio.create_task(wait_all([handle, running]))
        await asyncio.sleep(10.0)
        again = asyncio.create_task(handle.wait())

        outcomes = await everything

        assert [type(outcome) for outcome in outcomes] == [NotFoundError, Task]
        with pytest.raises(NotFoundError):
            await again


async def test_a_handle_that_was_made_before_another_waited_shares_its_polls_once_it_has_read_the_task() -> (
    None
):
    async with serving() as (emulator, piapi):
        task_id = (await piapi.submit(REROLL)).task_id
        first, second = piapi.attach(task_id), piapi.attach(task_id)
        waiting = asyncio.create_task(first.wait())
        await turns()

        await second.refresh()
        read = emulator.seen.requests.total()
        await waiting

        assert second.task is first.task
        assert await second.wait() is first.task
        assert emulator.seen.requests.total() > read
