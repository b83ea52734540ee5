"""Cancelling a caller at every moment of a call: what the server saw, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from support.families import FamilyCase
from support.picture_tasks import PNG, files, picture_task
from support.serving import KEY, REROLL, TICK, assert_at_rest, no_leaks, now, serving, turns
from support.strict_server import Act, StrictServer, http, strict_server

from piapi_async import PiAPI, RetryPolicy, TaskHandle, TaskState, as_completed, download, wait_all
from piapi_async.emulator import SlowFirstByte, Status
from piapi_async.errors import APIError, ClientClosed, RateLimitError, TransportError, WaitTimeout

pytestmark = pytest.mark.looptime

ACCEPTED = http(b'{"task_id": "t1", "status": "success", "message": ""}')
BUSY = http(b'{"message": "no available bot"}', status=400)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task and check that it ends at once, by the cancellation and nothing else."""
    began = now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert now() == pytest.approx(began, abs=TICK)


@contextlib.asynccontextmanager
async def strictly(*acts: Act, **options: Any) -> AsyncIterator[tuple[StrictServer, PiAPI]]:
    async with no_leaks(), strict_server(*acts) as server:
        async with PiAPI(KEY, base_url=server.base_url, **options) as piapi:
            yield server, piapi
        assert_at_rest(piapi)


# -- submits ------------------------------------------------------------------------------------------------------


async def test_a_submit_cancelled_before_it_ran_sends_nothing() -> None:
    async with strictly() as (server, piapi):
        task = asyncio.create_task(piapi.submit(REROLL))
        await cancel(task)
        task = asyncio.create_task(piapi.submit(REROLL))
        await turns(1)
        await cancel(task)
        await turns()

        assert_at_rest(piapi)
        await asyncio.sleep(100.0)
        assert server.received == []


async def test_nobody_waits_for_a_submit_whose_own_task_was_cancelled_before_it_ran() -> None:
    async with strictly() as (server, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await turns(1)
        (own,) = (task for task in asyncio.all_tasks() if task.get_name() == "piapi_async submit")
        own.cancel()

        with pytest.raises(ClientClosed, match="before it was sent"):
            await submit

        assert_at_rest(piapi)
        assert server.received == []


async def test_a_task_is_handed_over_or_logged_at_whatever_turn_the_caller_leaves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends: list[str] = []
    while ends[-1:] != ["handed over"]:
        caplog.clear()
        async with serving() as (emulator, piapi):
            submit = asyncio.create_task(piapi.submit(REROLL))
            await turns(len(ends))
            submit.cancel()
            (outcome,) = await asyncio.gather(submit, return_exceptions=True)
            await piapi.close()
            made = [task_id for task_id, task in emulator.engine.tasks.items() if task.origin]
        if not isinstance(outcome, BaseException):
            assert [outcome.task_id] == made
            ends.append("handed over")
        else:
            assert isinstance(outcome, asyncio.CancelledError)
            ends.append("logged" if made else "not made")
            assert all(task_id in caplog.text for task_id in made)

    assert sorted(set(ends)) == ["handed over", "logged", "not made"]


async def test_a_submit_cancelled_at_the_rate_gate_sends_nothing() -> None:
    async with strictly(rate_limit=(1, 60.0)) as (server, piapi):
        server.usual = Act(say=ACCEPTED)
        await piapi.submit(REROLL)
        task = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(10.0)

        await cancel(task)

        await turns()
        assert_at_rest(piapi)
        await asyncio.sleep(200.0)
        assert len(server.received) == 1


async def test_a_submit_cancelled_in_a_pause_that_the_host_asked_for_sends_nothing() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("reroll", Status(429, retry_after=30))
        paused = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        waiting = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await cancel(waiting)
        await cancel(paused)

        await turns()
        assert_at_rest(piapi)
        await asyncio.sleep(200.0)
        assert emulator.seen.requests["reroll"] == 1
        assert emulator.seen.creates == 0


async def test_a_submit_cancelled_while_it_looks_up_the_host_sends_nothing() -> None:
    class Slow(aiohttp.abc.AbstractResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[Any]:
            raise AssertionError(await asyncio.sleep(1000.0, (host, port, family)))

        async def close(self) -> None:
            pass

    connector = aiohttp.TCPConnector(resolver=Slow())
    async with (
        no_leaks(),
        aiohttp.ClientSession(connector=connector) as session,
        PiAPI(KEY, base_url="http://slow.localhost", session=session) as piapi,
    ):
        task = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        await cancel(task)
        await turns()
        assert_at_rest(piapi)


async def test_a_submit_cancelled_while_it_waits_for_a_connection_sends_nothing() -> None:
    async with strictly(Act(wait=20.0, say=ACCEPTED), connections=1) as (server, piapi):
        first = asyncio.create_task(piapi.submit(REROLL))
        await turns()
        second = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(5.0)

        await cancel(second)

        assert (await first).task_id == "t1"
        await asyncio.sleep(100.0)
        assert len(server.received) == 1


@pytest.mark.parametrize("delay", [0.0, 0.001, 1.0, 9.9])
async def test_a_submit_cancelled_while_its_answer_is_awaited_is_sent_once_and_owned_to_its_end(
    delay: float, case: FamilyCase
) -> None:
    async with strictly(Act(wait=10.0, say=http(case.accepted))) as (server, piapi):
        task = asyncio.create_task(piapi.submit(case.reroll("p")))
        await turns()
        await asyncio.sleep(delay)

        await cancel(task)

        assert len(piapi._runtime.submitter) == 1
        assert "1 submitting" in repr(piapi)
        await asyncio.sleep(11.0)
        assert_at_rest(piapi)
        assert (len(server.received), server.connections) == (1, 1)
        assert server.written == len(http(case.accepted))


async def test_a_submit_cancelled_while_its_body_leaves_is_sent_whole_and_once() -> None:
    from piapi_async import Inpaint  # noqa: PLC0415 - only here

    mask = bytes(6 * 2**20)  # more than the kernel's buffers take before the server reads
    async with no_leaks():
        read: list[bytes] = []
        begin = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await begin.wait()
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            read.append(await reader.readexactly(length))
            writer.write(ACCEPTED)
            await writer.drain()
            writer.close()

        tasks: list[asyncio.Task[None]] = []
        server = await asyncio.start_server(
            lambda reader, writer: tasks.append(asyncio.ensure_future(serve(reader, writer))), "127.0.0.1", 0
        )
        async with PiAPI(KEY, base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as piapi:
            task = asyncio.create_task(piapi.submit(Inpaint("x", mask=mask, prompt="y")))
            await asyncio.sleep(1.0)
            await cancel(task)
            begin.set()
            await asyncio.gather(*tasks)
            await asyncio.sleep(1.0)
            assert_at_rest(piapi)
        server.close()

    assert len(tasks) == 1
    assert len(read) == 1
    assert len(read[0]) > 8 * 2**20


async def test_a_submit_cancelled_between_two_tries_sends_nothing_further() -> None:
    async with strictly(Act(say=BUSY), retry=RetryPolicy(initial=10.0)) as (server, piapi):
        task = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(5.0)
        assert len(server.received) == 1

        await cancel(task)

        await turns()
        assert_at_rest(piapi)
        await asyncio.sleep(300.0)
        assert len(server.received) == 1


@pytest.mark.parametrize("answer", [BUSY, http(b"", "Retry-After: 5", status=429)], ids=["busy", "slow down"])
async def test_a_submit_cancelled_under_way_is_not_tried_again_when_it_is_put_off(answer: bytes) -> None:
    async with strictly(Act(wait=2.0, say=answer)) as (server, piapi):
        server.usual = Act(say=ACCEPTED)
        task = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)

        await cancel(task)

        await asyncio.sleep(300.0)
        assert_at_rest(piapi)
        assert len(server.received) == 1


@pytest.mark.parametrize(
    "act", [Act(wait=5.0, then="close"), Act(then="stall"), Act(wait=5.0, say=http(b"<", status=502))]
)
async def test_a_submit_cancelled_under_way_that_then_fails_is_nobodys_complaint(
    act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    async with strictly(act) as (server, piapi):
        task = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        await cancel(task)

        await asyncio.sleep(100.0)
        assert_at_rest(piapi)
        assert len(server.received) == 1
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_close_waits_for_a_submit_whose_caller_was_cancelled(case: FamilyCase) -> None:
    async with serving(latency=5.0) as (emulator, piapi):
        task = asyncio.create_task(piapi.submit(case.reroll("p")))
        await asyncio.sleep(1.0)
        await cancel(task)
        began = now()

        await piapi.close()

        assert now() - began == pytest.approx(4.0, abs=0.01)
        assert emulator.seen.creates == 1
        assert emulator.seen.statuses == {200: 1}


@pytest.mark.parametrize("kind", ["wait_for", "timeout", "move_on_after", "task group"])
async def test_every_way_to_give_up_leaves_the_submit_to_the_client(kind: str) -> None:
    async with serving(latency=5.0) as (emulator, piapi):
        began = now()
        if kind == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(piapi.submit(REROLL), 2.0)
        elif kind == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0):
                    await piapi.submit(REROLL)
        elif kind == "move_on_after":
            with anyio.move_on_after(2.0) as scope:
                await piapi.submit(REROLL)
            assert scope.cancelled_caught
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(piapi.submit, REROLL)
                await asyncio.sleep(2.0)
                group.cancel_scope.cancel()

        assert now() - began == pytest.approx(2.0, abs=0.01)
        assert len(piapi._runtime.submitter) == 1
        await asyncio.sleep(4.0)
        assert_at_rest(piapi)
        assert emulator.seen.creates == 1


async def test_a_caller_cancelled_in_the_very_moment_of_the_answer_loses_no_connection(
    case: FamilyCase,
) -> None:
    async with strictly(Act(wait=1.0, say=http(case.accepted))) as (server, piapi):
        server.usual = Act(say=http(case.accepted.replace(b"t1", b"t2")))
        task = asyncio.create_task(piapi.submit(case.reroll("p")))
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await turns()

        assert_at_rest(piapi)
        assert (await piapi.submit(case.reroll("p"))).task_id == "t2"
        assert len(server.received) == 2


# -- reads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [0.0, 1.0])
async def test_a_read_that_is_cancelled_leaves_nothing(when: float) -> None:
    async with strictly(Act(then="stall")) as (server, piapi):
        task = asyncio.create_task(piapi.fetch("x"))
        await asyncio.sleep(when)
        await cancel(task)
        await asyncio.sleep(100.0)

        assert len(server.received) <= 1


async def test_a_read_cancelled_between_two_tries_sends_nothing_further() -> None:
    async with serving({"retry": RetryPolicy(initial=10.0)}) as (emulator, piapi):
        emulator.fail("fetch", Status(502), times=None)
        task = asyncio.create_task(piapi.fetch("x"))
        await asyncio.sleep(5.0)
        await cancel(task)
        await asyncio.sleep(100.0)

        assert emulator.seen.requests["fetch"] == 1


# -- waits --------------------------------------------------------------------------------------------------------


async def test_a_cancelled_wait_leaves_an_empty_book_and_a_task_that_goes_on(case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(case.reroll("p"))
        task = asyncio.create_task(handle.wait())
        await asyncio.sleep(5.5)

        await cancel(task)

        assert len(piapi._runtime.poller.schedule) == 0
        looks = emulator.seen.requests[case.read]
        await turns()
        assert_at_rest(piapi)
        await asyncio.sleep(5.0)
        assert emulator.seen.requests[case.read] == looks
        assert emulator.seen.requests[case.cancel] == 0
        assert (await handle.wait()).state is TaskState.DONE


async def test_a_wait_cancelled_during_its_look_leaves_nothing(case: FamilyCase) -> None:
    async with serving(latency={"read": 3.0}) as (_, piapi):
        handle = piapi.attach("x", family=case.family)
        task = asyncio.create_task(handle.wait(timeout=50.0))
        await asyncio.sleep(1.0)

        await cancel(task)

        assert len(piapi._runtime.poller.schedule) == 0
        await asyncio.sleep(5.0)
        assert_at_rest(piapi)


async def test_one_cancelled_wait_of_several_leaves_the_others_waiting(case: FamilyCase) -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(case.reroll("p"))
        tasks = [asyncio.create_task(handle.wait()) for _ in range(3)]
        await asyncio.sleep(5.0)

        await cancel(tasks[0])

        assert [(await task).state for task in tasks[1:]] == [TaskState.DONE] * 2


async def test_the_one_who_waited_first_may_be_cancelled_without_ending_the_looks() -> None:
    async with serving() as (_, piapi):
        first, second = await piapi.submit(REROLL), await piapi.submit(REROLL)
        waits = [asyncio.create_task(handle.wait()) for handle in (first, second)]
        await asyncio.sleep(5.0)
        await cancel(waits[0])

        assert (await waits[1]).state is TaskState.DONE


async def test_updates_that_are_cancelled_leave_an_empty_book() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        seen = []

        async def read() -> None:
            async for task in handle.updates():
                seen.append(task)

        reading = asyncio.create_task(read())
        await asyncio.sleep(10.0)
        await cancel(reading)

        assert seen
        assert_at_rest(piapi)


@pytest.mark.parametrize("call", [as_completed, wait_all], ids=["as_completed", "wait_all"])
async def test_a_wait_for_several_that_is_cancelled_leaves_an_empty_book(call: Any) -> None:
    async with serving(concurrency=10) as (_, piapi):
        handles = [await piapi.submit(REROLL) for _ in range(10)]

        async def read() -> None:
            if call is wait_all:
                await wait_all(handles)
            async for _ in as_completed(handles):
                pass

        reading = asyncio.create_task(read())
        await asyncio.sleep(10.0)
        await cancel(reading)
        await turns()

        assert_at_rest(piapi)


async def test_a_wait_inside_a_cancelled_scope_leaves_an_empty_book() -> None:
    async with serving() as (_, piapi):
        handle = await piapi.submit(REROLL)
        with anyio.move_on_after(5.0):
            await handle.wait()

        await turns()
        assert_at_rest(piapi)


# -- cancelling the task at the host too --------------------------------------------------------------------------


async def test_a_cancelled_wait_can_take_its_task_along(cancelling_case: FamilyCase) -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        running, staged = [await piapi.submit(cancelling_case.reroll("p")) for _ in range(2)]
        task = asyncio.create_task(staged.wait(on_cancel="cancel_remote"))
        await asyncio.sleep(5.0)

        await cancel(task)

        assert emulator.seen.requests[cancelling_case.cancel] == 1
        assert (await staged.refresh()).state is TaskState.CANCELLED
        assert (await running.wait()).state is TaskState.DONE


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
async def test_taking_the_task_along_is_shielded_and_bounded(how: str, cancelling_case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(cancelling_case.reroll("p"))
        emulator.fail("cancel", SlowFirstByte(3.0))
        emulator.fail("cancel", SlowFirstByte(1000.0))
        for seconds in (3.0, 5.0):
            began = now()
            if how == "anyio":
                with anyio.move_on_after(2.0):
                    await handle.wait(on_cancel="cancel_remote")
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(2.0):
                        await handle.wait(on_cancel="cancel_remote")

            assert now() - began == pytest.approx(2.0 + seconds, abs=0.01)
        assert emulator.seen.requests[cancelling_case.cancel] == 2
        await asyncio.sleep(1000.0)


async def test_taking_the_task_along_that_fails_is_no_other_error(cancelling_case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(cancelling_case.reroll("p"))
        task = asyncio.create_task(handle.wait(on_cancel="cancel_remote"))
        await asyncio.sleep(20.0)  # it runs, so the host refuses

        await cancel(task)

        assert emulator.seen.requests[cancelling_case.cancel] == 1
        assert emulator.seen.refused == {"task has already started": 1}


async def test_a_wait_that_only_times_out_takes_nothing_along() -> None:
    async with serving() as (emulator, piapi):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout, match=r"piapi\.attach\(error\.ref\)\.wait\(\)"):
            await handle.wait(timeout=5.0, on_cancel="cancel_remote")

        assert emulator.seen.requests["cancel"] == 0


async def test_a_caller_cancelled_during_close_ends_by_its_cancellation() -> None:
    async with serving(latency=5.0) as (_, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        closing = asyncio.create_task(piapi.close())
        await asyncio.sleep(1.0)

        await cancel(submit)

        await closing


async def test_a_cancelled_close_can_be_made_up_for() -> None:
    async with serving(latency=5.0) as (emulator, piapi):
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        closing = asyncio.create_task(piapi.close())
        await asyncio.sleep(1.0)
        await cancel(closing)

        await piapi.close()

        outcome = (await asyncio.gather(submit, return_exceptions=True))[0]
        assert not isinstance(outcome, asyncio.CancelledError)
        assert emulator.seen.creates == 1


# -- downloads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act",
    [
        Act(then="stall"),
        Act(say=http(PNG, length=10**6), then="stall"),
        Act(read="nothing", then="stall"),
    ],
    ids=["before the answer", "inside the picture", "half-open"],
)
async def test_a_cancelled_download_leaves_no_partial_file(act: Act, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(act) as server:
        task = asyncio.create_task(download(picture_task(f"{server.base_url}/a.png"), tmp_path))
        await asyncio.sleep(5.0)

        await cancel(task)

        assert files(tmp_path) == []


async def test_a_download_cancelled_between_two_tries_asks_no_more(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=503))
        saving = download(picture_task(f"{server.base_url}/a.png"), tmp_path, retry=RetryPolicy(initial=10.0))
        task = asyncio.create_task(saving)
        await asyncio.sleep(5.0)
        await cancel(task)
        await asyncio.sleep(100.0)

        assert len(server.received) == 1
        assert files(tmp_path) == []


async def test_a_cancelled_download_stops_all_its_files(tmp_path: Path) -> None:
    urls = [f"/{number}.png" for number in range(4)]
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        server.usual = Act(say=http(PNG, length=10**6), then="stall")
        task = asyncio.create_task(download(picture_task(*[server.base_url + url for url in urls]), tmp_path))
        await asyncio.sleep(5.0)
        await cancel(task)

        assert len(server.received) == 4
        assert len(files(tmp_path)) == 1
        assert files(tmp_path)[0] in {f"t1-{number}.png" for number in (1, 2, 3, 4)}
        assert (tmp_path / files(tmp_path)[0]).read_bytes() == PNG


# -- at every step ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(0, 60, 3))
async def test_a_submit_cancelled_at_any_step_is_sent_at_most_once_and_leaves_nothing(
    step: int, case: FamilyCase
) -> None:
    async with strictly(Act(say=http(case.accepted))) as (server, piapi):
        task = asyncio.create_task(piapi.submit(case.reroll("p")))
        await turns(step)
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        await asyncio.sleep(1.0)

        assert_at_rest(piapi)
        assert len(server.received) <= 1
        assert isinstance(outcome, (asyncio.CancelledError, TaskHandle))


@pytest.mark.parametrize("step", range(0, 60, 3))
async def test_a_wait_cancelled_at_any_step_leaves_nothing(step: int, case: FamilyCase) -> None:
    async with serving() as (emulator, piapi):
        emulator.adopt("t1")
        task = asyncio.create_task(piapi.attach("t1", family=case.family).wait())
        await turns(step)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(1.0)

        assert_at_rest(piapi)


async def run_and_cancel(call: Coroutine[Any, Any, Any], after: float) -> BaseException | None:
    task = asyncio.create_task(call)
    await asyncio.sleep(after)
    task.cancel()
    outcome: BaseException | None = (await asyncio.gather(task, return_exceptions=True))[0]
    return outcome


async def test_a_cancellation_is_never_swallowed(cancelling_case: FamilyCase) -> None:
    async with serving(latency=1.0) as (emulator, piapi):
        emulator.fail("cancel", Status(502), times=None)
        calls = [
            piapi.submit(cancelling_case.reroll("p")),
            piapi.fetch("x", family=cancelling_case.family),
            piapi.fetch_many(["x", "y"]),
            piapi.cancel("x", family=cancelling_case.family),
            piapi.attach("x", family=cancelling_case.family).wait(),
            piapi.attach("x", family=cancelling_case.family).refresh(),
        ]
        for call in calls:
            outcome = await run_and_cancel(call, 0.5)
            assert isinstance(outcome, asyncio.CancelledError)
            assert not isinstance(outcome, (APIError, RateLimitError, TransportError))
        await asyncio.sleep(100.0)
