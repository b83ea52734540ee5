"""What a client is asked to read now: fetch, fetch_many, refresh; and cancel."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs
import pytest
from support.families import FamilyCase
from support.serving import PASSING, REROLL, TICK, no_leaks, now, serving

from piapi_async import (
    LEGACY,
    UNIFIED,
    Family,
    PiAPI,
    PollPolicy,
    RetryPolicy,
    TaskState,
)
from piapi_async.emulator import Dialect, Status, TaskFails, Truncated
from piapi_async.errors import (
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    ServerError,
    TaskCancelled,
)
from piapi_async.midjourney import MultiFetch

pytestmark = pytest.mark.looptime


async def test_fetch_gives_the_task_whatever_its_state(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", TaskFails("bad luck"))
        handle = await piapi.submit(case.reroll("p"))

        assert (await piapi.fetch(handle.task_id, family=case.family)).state in {
            TaskState.WAITING,
            TaskState.RUNNING,
        }
        await asyncio.sleep(40)
        task = await piapi.fetch(handle.task_id, family=case.family)
        assert (task.state, task.error) == (TaskState.FAILED, "bad luck")


async def test_fetch_of_an_unknown_id_is_refused_at_once(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        began = now()
        with pytest.raises(NotFoundError):
            await piapi.fetch("nope", family=case.family)

        assert now() == pytest.approx(began, abs=TICK)
        assert emulator.seen.requests == {case.read: 1}


@pytest.mark.parametrize("fault", PASSING, ids=str)
async def test_a_read_is_repeated_on_faults_that_pass(fault: Any, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        emulator.adopt("t2")
        emulator.fail("read", fault, times=2)
        emulator.fail("multi_fetch", fault, times=1)

        assert (await piapi.fetch("t1", family=case.family)).state is TaskState.DONE
        found = await piapi.fetch_many(["t1", "t2"], family=case.family)
        assert [task and task.state for task in found.values()] == [TaskState.DONE] * 2


async def test_refresh_reads_now_and_tells_the_handle() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)

        task = await handle.refresh()

        assert handle.task is task
        assert emulator.seen.requests["fetch"] == 1
        await asyncio.sleep(40)
        done = await handle.refresh()
        assert done.state is TaskState.DONE
        assert await handle.wait() is done
        assert emulator.seen.requests["fetch"] == 2


async def test_refresh_is_seen_by_its_own_handle_though_another_is_waiting() -> None:
    async with serving() as (_, piapi):
        task_id = (await piapi.submit(REROLL)).task_id
        mine, other = piapi.attach(task_id), piapi.attach(task_id)
        waiting = asyncio.create_task(other.wait())
        await asyncio.sleep(3.0)

        task = await mine.refresh()

        assert mine.task is task
        await waiting


async def test_refresh_that_finds_the_end_ends_the_waits(case: FamilyCase) -> None:
    async with serving({"poll": PollPolicy.every(1000.0)}) as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(40.0)
        began = now()

        await handle.refresh()

        assert (await waiting).state is TaskState.DONE
        assert now() == pytest.approx(began, abs=TICK)
        assert emulator.seen.requests[case.read] == 1


async def test_refresh_raises_what_fetch_raises() -> None:
    async with serving() as (_, piapi):
        with pytest.raises(NotFoundError):
            await piapi.attach("nope").refresh()


async def test_fetch_many_reads_any_number_in_chunks_and_gives_none_for_the_unknown() -> None:
    async with serving() as (emulator, piapi):
        ids = [f"t{number}" for number in range(45)]
        for task_id in ids:
            emulator.adopt(task_id)

        found = await piapi.fetch_many(["nope", *ids, "t3", " t4 "])

        assert list(found) == ["nope", *ids]
        assert found["nope"] is None
        assert all(
            task is not None and task.task_id == task_id
            for task_id, task in found.items()
            if task_id != "nope"
        )
        assert emulator.seen.ids_per_request == {20: 2, 6: 1}


async def test_fetch_many_of_nothing_asks_nobody() -> None:
    async with serving() as (emulator, piapi):
        assert await piapi.fetch_many([]) == {}
        assert emulator.seen.requests == {}


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_fetch_many_of_a_host_without_multi_fetch_asks_singly_and_remembers(status: int) -> None:
    async with serving(dialect=Dialect(multi_fetch=False, multi_fetch_off_status=status)) as (
        emulator,
        piapi,
    ):
        for task_id in "abc":
            emulator.adopt(task_id)
        began = now()

        found = await piapi.fetch_many(["a", "b", "c", "nope"])
        await piapi.fetch_many(["a", "b"])

        assert [task and task.task_id for task in found.values()] == ["a", "b", "c", None]
        assert emulator.seen.requests == {"multi_fetch": 1, "fetch": 6}
        assert now() - began < 1.0


@pytest.mark.parametrize("fault", [Status(200, body="<html>"), Status(200, body={}), Truncated(0.5)], ids=str)
async def test_fetch_many_of_a_host_that_answers_nonsense_soon_asks_singly(fault: Any) -> None:
    async with serving() as (emulator, piapi):
        for task_id in "abc":
            emulator.adopt(task_id)
        emulator.fail("multi_fetch", fault, times=None)
        began = now()

        assert None not in (await piapi.fetch_many("abc")).values()
        assert None not in (await piapi.fetch_many("abc")).values()

        assert emulator.seen.requests["multi_fetch"] <= 2
        assert now() - began < 2.0


async def test_fetch_many_of_a_host_that_takes_fewer_learns_how_many() -> None:
    async with serving(dialect=Dialect(multi_fetch_max=6)) as (emulator, piapi):
        ids = [f"t{number}" for number in range(30)]
        for task_id in ids:
            emulator.adopt(task_id)

        assert None not in (await piapi.fetch_many(ids)).values()
        assert None not in (await piapi.fetch_many(ids)).values()

        assert emulator.seen.refused == {
            "too many task_ids: 20, at most 6": 1,
            "too many task_ids: 10, at most 6": 1,
        }


async def test_fetch_many_of_a_host_that_refuses_all_for_one_that_is_unknown_finds_the_others() -> None:
    async with serving() as (emulator, piapi):
        for name in "abcdefghij":
            emulator.adopt(name)
        emulator.fail("multi_fetch", Status(400, body={"message": "task not found"}), times=None)

        found = await piapi.fetch_many(["nope", *"abcdefghij"])

        assert [None, *"abcdefghij"] == [task and task.task_id for task in found.values()]
        assert piapi._runtime.poller.schedule.size(LEGACY) == 20


async def test_fetch_many_with_a_wrong_key_asks_once_and_learns_nothing() -> None:
    async with (
        serving(dialect=Dialect(fetch_needs_key=True)) as (emulator, first),
        PiAPI("wrong", base_url=first._runtime.sender.transport.base_url) as piapi,
    ):
        with pytest.raises(AuthenticationError):
            await piapi.fetch_many([f"t{number}" for number in range(20)])

        assert emulator.seen.requests == {"multi_fetch": 1}
        assert piapi._runtime.poller.schedule.size(LEGACY) == 20


async def test_fetch_many_of_a_family_without_multi_fetch_asks_singly() -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("a")
        emulator.adopt("b")

        found = await piapi.fetch_many(["a", "nope", "b"], family=UNIFIED)

        assert [task and task.task_id for task in found.values()] == ["a", None, "b"]
        assert emulator.seen.requests == {"task_read": 3}


async def test_fetch_many_of_a_family_without_multi_fetch_asks_for_eight_at_a_time() -> None:
    async with serving(latency={"task_read": 1.0}) as (emulator, piapi):
        ids = [f"t{number}" for number in range(20)]
        for task_id in ids:
            emulator.adopt(task_id)
        began = now()

        assert ids == list(await piapi.fetch_many(ids, family=UNIFIED))

        assert now() - began == pytest.approx(3.0, abs=0.1)


async def test_fetch_many_of_a_family_without_multi_fetch_ends_with_the_first_error_and_leaves_no_task() -> (
    None
):
    async with (
        no_leaks(),
        serving({"retry": RetryPolicy.never()}, latency={"task_read": 1.0}) as (emulator, piapi),
    ):
        emulator.fail("task_read", Status(502))

        with pytest.raises(ServerError):
            await piapi.fetch_many([f"t{number}" for number in range(20)], family=UNIFIED)

        assert emulator.seen.requests["task_read"] <= 8


async def test_fetch_many_of_a_family_that_leaves_ids_out_ends() -> None:
    class Forgetful(MultiFetch):
        def parse(self, response: Any, /) -> Any:
            return {task_id: task for task_id, task in super().parse(response).items() if task is not None}

    family: Family[Any] = attrs.evolve(LEGACY, name="forgetful", fetch_many=Forgetful)
    async with serving() as (emulator, piapi):
        emulator.adopt("a")
        emulator.adopt("c")

        found = await asyncio.wait_for(piapi.fetch_many(["nope", "a", "b", "c"], family=family), 100)

        assert [task and task.task_id for task in found.values()] == [None, "a", None, "c"]


async def test_cancel_takes_back_what_has_not_started(cancelling_case: FamilyCase) -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        running, staged = [await piapi.submit(cancelling_case.reroll("p")) for _ in range(2)]
        await asyncio.sleep(10.0)

        await staged.cancel()

        with pytest.raises(TaskCancelled) as caught:
            await staged.wait()
        assert caught.value.task.state is TaskState.CANCELLED
        assert isinstance(staged.error, TaskCancelled)
        with pytest.raises(InvalidRequestError):
            await running.cancel()
        assert (await running.wait()).state is TaskState.DONE
        assert emulator.seen.requests[cancelling_case.cancel] == 2


async def test_cancel_of_many_is_one_request_and_of_none_is_none() -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(4)]

        await piapi.cancel()
        assert emulator.seen.requests["cancel"] == 0
        await piapi.cancel(*[handle.task_id for handle in handles[1:]])
        assert emulator.seen.requests["cancel"] == 1
        with pytest.raises(NotFoundError):
            await piapi.cancel("nope")
