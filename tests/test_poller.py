from __future__ import annotations

import asyncio
import gc
import logging
import math
import pickle
from itertools import pairwise
from typing import Any

import attrs
import pytest
from support.families import FamilyCase
from support.serving import KEY, PASSING, REROLL, TICK, assert_at_rest, no_leaks, now, read, serving, turns
from support.strict_server import Act, http, strict_server

from piapi_async import LEGACY, Family, Imagine, PiAPI, PollPolicy, RetryPolicy, Task, TaskState
from piapi_async._wait.faults import NOT_FOUND_GRACE
from piapi_async._wait.schedule import LAST_POLL_LEAD
from piapi_async.emulator import (
    Dialect,
    Drop,
    Lognormal,
    Refuse,
    SlowFirstByte,
    Status,
    TaskFails,
    TaskTakes,
    Truncated,
    UnknownStatus,
)
from piapi_async.errors import (
    AuthenticationError,
    NotFoundError,
    SubmissionUnknown,
    TaskFailed,
    UnexpectedAnswer,
    WaitTimeout,
)
from piapi_async.midjourney import Fetch

pytestmark = pytest.mark.looptime


# -- waiting ------------------------------------------------------------------------------------------------------


async def test_a_wait_gives_the_finished_task_soon_after_its_end(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))

        task = await handle.wait()

        assert task.state is TaskState.DONE
        assert len(task.images) == 4
        assert task is handle.task
        assert emulator.seen.detection[handle.task_id] <= 1.1
        assert emulator.seen.polls[handle.task_id] <= 33


async def test_a_submitted_task_is_not_polled_at_once_and_an_attached_one_is() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        waiting = asyncio.create_task(handle.wait(timeout=2.5))
        await asyncio.sleep(0.9)
        assert emulator.seen.polls == {}
        await asyncio.sleep(0.2)
        assert emulator.seen.polls == {handle.task_id: 1}
        with pytest.raises(WaitTimeout):
            await waiting
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        began = now()

        await piapi.attach("t1").wait()

        assert now() == pytest.approx(began, abs=TICK)


@pytest.mark.parametrize("timeout", [0.3, 1.0, 1 / 3, 7.0, 12.34567])
async def test_a_timeout_is_kept_to_the_tick_and_the_task_goes_on(timeout: float) -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        began = now()

        with pytest.raises(WaitTimeout) as caught:
            await handle.wait(timeout=timeout)

        assert now() - began == pytest.approx(timeout, abs=TICK)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.ref, caught.value.refs) == (handle.ref, (handle.ref,))
        assert caught.value.task is handle.task
        assert handle.task is not None
        assert handle.error is None
        assert "stays paid" in str(caught.value)
        assert (await piapi.attach(handle.ref).wait()).state is TaskState.DONE


async def test_a_last_poll_is_made_before_the_timeout_however_rare_the_polls() -> None:
    async with serving({"poll": PollPolicy.every(1000.0)}) as (emulator, piapi):
        emulator.fail("reroll", TaskTakes(60.0 - LAST_POLL_LEAD - 0.1))
        handle = await piapi.submit(REROLL)

        assert (await handle.wait(timeout=60.0)).state is TaskState.DONE
        assert emulator.seen.polls[handle.task_id] == 1


@pytest.mark.parametrize(
    "fault", [SlowFirstByte(500.0), Refuse(500.0), Status(429, retry_after=100)], ids=str
)
async def test_a_timeout_is_kept_whatever_the_host_does(fault: Any, case: FamilyCase) -> None:
    async with serving({"timeout": 300.0}) as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))
        emulator.fail("read", fault)
        began = now()

        with pytest.raises(WaitTimeout):
            await handle.wait(timeout=10.0)

        assert now() - began == pytest.approx(10.0, abs=TICK)
        await asyncio.sleep(600.0)


@pytest.mark.parametrize("timeout", [0, 0.0, -3.0])
async def test_a_timeout_of_zero_polls_once(timeout: float) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout, match="last seen"):
            await handle.wait(timeout=timeout)
        assert emulator.seen.polls == {handle.task_id: 1}

        await asyncio.sleep(40.0)
        assert (await handle.wait(timeout=timeout)).state is TaskState.DONE
        assert emulator.seen.polls == {handle.task_id: 2}


async def test_a_timeout_of_zero_polls_once_even_a_task_that_is_not_there() -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(WaitTimeout, match="nothing was seen of it"):
            await piapi.attach("nope").wait(timeout=0)

        assert emulator.seen.polls == {"nope": 1}


async def test_a_timeout_that_is_no_number_is_refused() -> None:
    async with serving() as (_, piapi):
        with pytest.raises(ValueError, match="timeout"):
            await piapi.attach("x").wait(timeout=math.nan)
        with pytest.raises(ValueError, match="on_cancel"):
            await piapi.attach("x").wait(on_cancel="maybe")  # type: ignore[arg-type]  # that is the test


async def test_a_second_wait_answers_from_memory_even_when_the_client_is_closed() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        task = await handle.wait()
        polls = emulator.seen.requests.total()

        assert await handle.wait() is task
        assert await handle.wait(timeout=0) is task
        await piapi.close()
        assert await handle.wait() is task
        assert emulator.seen.requests.total() == polls


async def test_a_failed_task_is_raised_with_its_reasons_every_time(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("create", TaskFails("the job was blocked"))
        handle = await piapi.submit(case.reroll("p"))
        raised = []
        for _ in range(2):
            with pytest.raises(TaskFailed, match="the job was blocked") as caught:
                await handle.wait()
            raised.append(caught.value)

        assert raised[0] is not raised[1]
        assert raised[0].task is handle.task
        assert isinstance(handle.error, TaskFailed)
        assert handle.task is not None
        assert handle.task.state is TaskState.FAILED


async def test_fifty_waits_of_one_task_make_no_more_polls_than_one() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        handles = [handle, *[piapi.attach(handle.task_id) for _ in range(49)]]

        tasks = await asyncio.gather(*[one.wait() for one in handles])

        assert all(task is tasks[0] for task in tasks)
        assert emulator.seen.polls[handle.task_id] <= 33


async def test_a_hundred_tasks_are_asked_for_twenty_at_a_time() -> None:
    async with serving(concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(100)])

        await asyncio.gather(*[handle.wait() for handle in handles])

        assert max(emulator.seen.ids_per_request) == 20
        assert emulator.seen.requests["multi_fetch"] + emulator.seen.requests["fetch"] <= 35 * 5 * 1.3
        assert max(emulator.seen.detection.values()) <= 1.1


async def test_three_hundred_waits_at_once_need_no_tuning() -> None:
    async with serving() as (emulator, piapi):
        for number in range(300):
            emulator.adopt(f"t{number}")

        tasks = await asyncio.gather(*[piapi.attach(f"t{number}").wait() for number in range(300)])

        assert [task.task_id for task in tasks] == [f"t{number}" for number in range(300)]
        assert emulator.seen.requests == {"multi_fetch": 15}


async def test_a_half_open_connection_does_not_stall_other_waits() -> None:
    async with serving(concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(60)])
        emulator.fail("multi_fetch", SlowFirstByte(1000.0))
        began = now()

        done = [asyncio.create_task(handle.wait()) for handle in handles]
        await asyncio.sleep(32.0)

        assert sum(task.done() for task in done) >= 40
        await asyncio.gather(*done)
        assert now() - began <= 45.0
        await asyncio.sleep(1000.0)


@pytest.mark.parametrize("connections", [2, 4, 7])
async def test_few_connections_do_not_make_one_half_open_connection_stall_other_waits(
    connections: int,
) -> None:
    async with serving({"connections": connections}, concurrency=100) as (emulator, piapi):
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(60)])
        emulator.fail("multi_fetch", SlowFirstByte(1000.0))
        done = [asyncio.create_task(handle.wait()) for handle in handles]
        await asyncio.sleep(31.5)

        assert sum(task.done() for task in done) >= 40
        await asyncio.gather(*done)
        await asyncio.sleep(1000.0)


@pytest.mark.parametrize("beside", [0, 1])
async def test_an_unknown_task_ends_its_wait_alone_after_a_short_grace(beside: int, case: FamilyCase) -> None:
    async with serving() as (_, piapi):
        others = [asyncio.create_task((await piapi.submit(case.reroll("p"))).wait()) for _ in range(beside)]
        await asyncio.sleep(0)
        began = now()

        with pytest.raises(NotFoundError) as caught:
            await piapi.attach("nope", family=case.family).wait()

        assert NOT_FOUND_GRACE <= now() - began <= NOT_FOUND_GRACE + 2.0
        assert caught.value.message == case.unknown
        assert str(caught.value).startswith("Stopped waiting for task ")
        assert ", which was not found; if it was accepted, it stays paid for: " in str(caught.value)
        for other in others:
            assert (await other).state is TaskState.DONE


@pytest.mark.parametrize("unknown", ["null", "missing"])
async def test_a_task_that_is_invisible_at_first_is_waited_for(unknown: Any) -> None:
    async with serving(dialect=Dialect(multi_unknown=unknown)) as (emulator, piapi):
        other = asyncio.create_task((await piapi.submit(REROLL)).wait())
        handle = piapi.attach("late")
        asyncio.get_running_loop().call_later(3.0, emulator.adopt, "late")

        assert (await handle.wait()).state is TaskState.DONE
        await other


async def test_a_wrong_key_ends_every_wait_each_with_an_error_of_its_own(case: FamilyCase) -> None:
    async with (
        serving(dialect=Dialect(fetch_needs_key=True)) as (emulator, first),
        PiAPI("wrong", base_url=first._runtime.sender.transport.base_url) as piapi,
    ):
        handles = [piapi.attach(f"t{number}", family=case.family) for number in range(5)]
        began = now()

        errors = await asyncio.gather(*[handle.wait() for handle in handles], return_exceptions=True)

        assert [type(error) for error in errors] == [AuthenticationError] * 5
        assert len({id(error) for error in errors}) == 5
        assert all(isinstance(handle.error, AuthenticationError) for handle in handles)
        for handle, error in zip(handles, errors, strict=True):
            said = str(error)
            assert said.startswith(
                f"Stopped waiting for task {handle.task_id}, which goes on; this cost nothing: "
            )
            assert said.count("goes on") == 1
            assert said == str(handle.error) == str(pickle.loads(pickle.dumps(error)))  # noqa: S301 - our own
        assert now() - began < 1.0
        assert emulator.seen.requests.total() <= (2 if case.many else 5)
        assert_at_rest(piapi)


@pytest.mark.parametrize(
    "fault", [*PASSING, SlowFirstByte(200.0), Refuse(40.0), UnknownStatus("dreaming")], ids=str
)
async def test_a_fault_that_passes_never_ends_a_wait(fault: Any, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handles = [await piapi.submit(case.reroll("p")) for _ in range(2)]
        times = 1 if isinstance(fault, Refuse) else 6
        emulator.fail("read", fault, times=times)

        tasks = await asyncio.gather(*[handle.wait() for handle in handles])

        assert [task.state for task in tasks] == [TaskState.DONE] * 2
        assert emulator.seen.faults.total() > 0
        await asyncio.sleep(300.0)


async def test_faults_for_an_hour_end_no_wait_and_are_warned_of_once(
    caplog: pytest.LogCaptureFixture, case: FamilyCase
) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))
        emulator.fail("read", Status(502), times=None)
        waiting = asyncio.create_task(handle.wait())
        await asyncio.sleep(3600.0)
        assert not waiting.done()
        assert emulator.seen.requests[case.read] < 3600 / 9

        emulator.fault_rules.rules.clear()

        assert (await waiting).state is TaskState.DONE
    logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in logged] == ["piapi_async"]
    assert handle.task_id in logged[0].getMessage()


async def test_a_fault_shorter_than_a_minute_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(durations=120.0) as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        emulator.fail("fetch", Status(502), times=None)
        asyncio.get_running_loop().call_later(50.0, emulator.fault_rules.rules.clear)

        await handle.wait()

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_unknown_status_goes_on_waiting_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture, case: FamilyCase
) -> None:
    async with serving() as (emulator, piapi):
        handles = [await piapi.submit(case.reroll("p")) for _ in range(3)]
        emulator.fail("read", UnknownStatus("dreaming"), times=10)

        await asyncio.gather(*[handle.wait() for handle in handles])

    logged = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(logged) == 1
    assert "dreaming" in logged[0]


async def test_a_host_without_multi_fetch_is_polled_singly_and_no_wait_notices() -> None:
    async with serving(dialect=Dialect(multi_fetch=False), concurrency=40) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(40)]

        await asyncio.gather(*[handle.wait() for handle in handles])

        # Two, when two requests were due in the same moment.
        assert emulator.seen.requests["multi_fetch"] <= 2
        assert max(emulator.seen.detection.values()) <= 1.2


async def test_a_host_that_takes_fewer_at_a_time_is_learnt_from_once() -> None:
    async with serving(dialect=Dialect(multi_fetch_max=7), concurrency=20) as (emulator, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(20)]

        await asyncio.gather(*[handle.wait() for handle in handles])

        assert emulator.seen.refused.total() <= 3
        assert max(emulator.seen.ids_per_request) == 5


async def test_two_waits_of_one_task_both_hear_of_its_error_though_one_waits_again_at_once() -> None:
    async with serving() as (_, piapi):
        handle = piapi.attach("nope")

        async def twice() -> int:
            heard = 0
            for _ in range(2):
                try:
                    await handle.wait()
                except NotFoundError:
                    heard += 1
            return heard

        assert sum(await asyncio.gather(twice(), twice(), twice())) == 6


async def test_a_wait_that_timed_out_can_be_taken_up_again_after_many_others() -> None:
    async with serving(concurrency=300, durations=100.0) as (_, piapi):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout):
            await handle.wait(timeout=2.0)
        for number in range(200):
            with pytest.raises(WaitTimeout):
                await piapi.attach(f"t{number}").wait(timeout=0.2)

        assert (await handle.wait(timeout=200.0)).state is TaskState.DONE


# -- updates ------------------------------------------------------------------------------------------------------


async def test_updates_give_changes_only_and_end_with_the_end(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))

        seen = [(task.status, task.progress, task.images) async for task in handle.updates()]

        assert all(one != other for one, other in pairwise(seen))
        assert seen[-1][0] == case.done
        assert len(seen) >= (5 if case.progress else 3)
        assert len(seen) <= emulator.seen.polls[handle.task_id]
        assert [progress or 0 for _, progress, _ in seen] == sorted(progress or 0 for _, progress, _ in seen)


async def test_updates_without_progress_give_each_status_once() -> None:
    async with serving(plan="free-payg") as (_, piapi):
        handle = await piapi.submit(REROLL)

        seen = [task.status async for task in handle.updates()]

        assert seen == list(dict.fromkeys(seen))
        assert seen[-1] == "finished"


async def test_a_slow_reader_of_updates_misses_what_was_overtaken_and_never_the_newest() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        seen = []
        async for task in handle.updates():
            seen.append(task)
            assert task is handle.task
            await asyncio.sleep(12.0)

        assert 2 <= len(seen) <= 4
        assert seen[-1].state is TaskState.DONE


@pytest.mark.parametrize("reads", [1, 2])
async def test_a_reader_of_updates_who_is_late_for_the_end_still_gets_it(reads: int) -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        updates = handle.updates()
        for _ in range(reads):
            await anext(updates)
        await asyncio.sleep(100.0)

        assert [task.state async for task in updates] == [TaskState.DONE]


async def test_updates_give_a_failed_task_like_any_other() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", TaskFails("bad luck"))
        handle = await piapi.submit(REROLL)

        assert [task.state async for task in handle.updates()][-1] is TaskState.FAILED
        assert [task.state async for task in handle.updates()] == [TaskState.FAILED]


async def test_updates_stop_at_their_timeout() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        began = now()

        seen, error = await read(handle.updates(timeout=9.0))

        assert now() - began == pytest.approx(9.0, abs=TICK)
        assert isinstance(error, WaitTimeout)
        assert error.task is seen[-1]
        assert_at_rest(piapi)


async def test_updates_of_an_unknown_task_raise_as_wait_does() -> None:
    async with serving() as (_, piapi):
        seen, error = await read(piapi.attach("nope").updates())

        assert seen == []
        assert isinstance(error, NotFoundError)


async def test_updates_left_early_leave_nothing() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        async for _ in handle.updates():
            break
        gc.collect()
        await turns()

        assert_at_rest(piapi)


async def test_two_readers_of_updates_share_the_polls() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)

        async def read() -> list[Task[Any]]:
            return [task async for task in handle.updates()]

        first, second = await asyncio.gather(read(), read())

        assert first == second
        assert emulator.seen.polls[handle.task_id] <= 33


# -- rates --------------------------------------------------------------------------------------------------------


async def test_a_rate_limit_holds_submits_reads_and_polls_alike() -> None:
    async with serving({"rate_limit": (5, 10.0)}, concurrency=20) as (emulator, piapi):
        began = now()
        handles = await asyncio.gather(*[piapi.submit(REROLL) for _ in range(10)])
        assert now() - began == pytest.approx(10.0, abs=0.01)
        await piapi.fetch_many([handle.task_id for handle in handles])
        await asyncio.gather(*[handle.wait() for handle in handles])

        assert emulator.seen.requests.total() <= 5 + (now() - began) / 2.0 + 1


# -- a busy day ---------------------------------------------------------------------------------------------------


@pytest.mark.storm
async def test_a_busy_day_with_every_fault_ends_every_wait_and_pays_no_task_twice(case: FamilyCase) -> None:
    slow = Lognormal(median=45.0, p95=120.0, shortest=5.0, longest=300.0)
    async with serving(durations=slow, concurrency=60, failure_rate=0.1, seed=7) as (emulator, piapi):
        for fault in (Status(429), Status(502), Drop(after_body=True), Truncated(0.5), SlowFirstByte(40.0)):
            emulator.fail("read", fault, rate=0.05)
        for fault in (Status(429), Drop(after_body=True), Status(504, made=True)):
            emulator.fail("create", fault, rate=0.1)

        async def one() -> str:
            try:
                handle = await piapi.submit(case.reroll("p"))
                return (await handle.wait(timeout=2000.0)).state.name
            except (SubmissionUnknown, TaskFailed) as error:
                return type(error).__name__

        outcomes = await asyncio.gather(*[one() for _ in range(60)])

        assert set(outcomes) == {"DONE", "TaskFailed", "SubmissionUnknown"}
        assert emulator.seen.creates == 60
        await asyncio.sleep(100.0)


async def test_an_imagine_is_waited_for_like_a_reroll() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(Imagine("a cute cat"))

        assert (await handle.wait()).task_type == "imagine"
        assert emulator.seen.creates_by_key == {KEY: 1}


async def test_an_answer_about_another_task_is_not_believed() -> None:
    other = b'{"task_id": "other", "status": "finished", "task_result": {}}'
    async with (
        no_leaks(),
        strict_server(*[Act(say=http(other))] * 2) as server,
        PiAPI(KEY, base_url=server.base_url, retry=RetryPolicy.never()) as piapi,
    ):
        with pytest.raises(UnexpectedAnswer, match="other"):
            await piapi.fetch("mine")
        with pytest.raises(WaitTimeout):
            await piapi.attach("mine").wait(timeout=0)


async def test_a_poll_that_breaks_in_a_way_it_never_should_is_logged_and_ends_no_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = [True] * 3

    class Broken(Fetch):
        def parse(self, response: Any, /) -> Any:
            if broken:
                broken.pop()
                raise ZeroDivisionError("a bug")
            return super().parse(response)

    family: Family[Any] = attrs.evolve(LEGACY, name="broken", fetch=Broken, fetch_many=None)
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")

        task = await piapi.attach("t1", family=family).wait()

    assert task.state is TaskState.DONE
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == 3
    assert all(record.name == "piapi_async" and record.exc_info for record in logged)
