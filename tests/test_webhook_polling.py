"""What is still asked of a host that tells of its tasks, and deliveries that race with what is asked."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import pytest
from support.hooking import (
    HEADERS,
    LOST,
    PUBLIC,
    SECRET,
    SILENT,
    asked,
    deliver,
    delivery,
    hooked,
    made,
    nonce_of,
    post,
    receiving,
    rely_on_webhooks,
    rerolls,
    unknown_submits,
)
from support.serving import KEY, REROLL, TICK, assert_at_rest, now, serving

from piapi_async import (
    ClientClosed,
    Ledger,
    PiAPI,
    PollPolicy,
    Reroll,
    SubmissionUnknown,
    TaskFailed,
    WaitTimeout,
    WebhookReceiver,
    WebhookRejected,
    wait_all,
)
from piapi_async.client import runtime_of
from piapi_async.emulator import SlowFirstByte, Status, TaskFails

pytestmark = pytest.mark.looptime


# -- polling --------------------------------------------------------------------------------------------------------


async def test_while_deliveries_arrive_there_are_hardly_any_polls() -> None:
    async with hooked({"poll": PollPolicy()}, durations=150.0) as (emulator, piapi, _):
        for request in rerolls(3):
            await (await piapi.submit(request)).wait()
        assert asked(emulator) == 3


async def test_deliveries_are_relied_on_by_and_by() -> None:
    async with hooked({"poll": PollPolicy()}, relied_on=False, durations=60.0) as (emulator, piapi, _):
        took, polls = [], []
        for request in rerolls(12):
            began = now()
            handle = await piapi.submit(request)
            await handle.wait()
            took.append(now() - began)
            polls.append(emulator.seen.polls[handle.task_id])

        assert max(took) < 62.0
        assert polls[0] > 10
        assert polls[0] > polls[3] > polls[6] > polls[9]
        assert polls[9:] == [1, 1, 1]


async def test_ends_that_nobody_tells_of_are_found_as_if_there_were_no_webhooks() -> None:
    async with hooked({"poll": PollPolicy()}, relied_on=False, webhook_faults=SILENT) as (emulator, piapi, _):
        runtime_of(piapi).poller.schedule.rng.seed(1)  # both clients then spread their polls alike
        took = []
        for request in rerolls(5):
            began = now()
            await (await piapi.submit(request)).wait()
            took.append(now() - began)
        there = asked(emulator)
    async with serving({"poll": PollPolicy()}) as (emulator, piapi):
        runtime_of(piapi).poller.schedule.rng.seed(1)
        for request in rerolls(5):
            await (await piapi.submit(request)).wait()

        assert max(took) < 32.0
        assert there == pytest.approx(asked(emulator), rel=0.4)


async def test_an_end_that_is_not_told_where_all_others_were_is_found_by_the_safety_net() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, _):
        await (await piapi.submit(REROLL)).wait()
        assert now() < 200.0
        assert asked(emulator) == 1


async def test_a_long_task_is_looked_at_now_and_then() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=1000.0) as (
        emulator,
        piapi,
        _,
    ):
        await (await piapi.submit(REROLL)).wait()
        assert now() < 1050.0
        assert asked(emulator) < 25


@pytest.mark.parametrize("timeout", [0.5, 1.0, 20.0, 100.0, 600.0])
async def test_every_deadline_is_met_to_the_tick(timeout: float) -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=10_000.0) as (
        emulator,
        piapi,
        _,
    ):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout):
            await handle.wait(timeout)
        assert now() == pytest.approx(timeout, abs=TICK)
        assert asked(emulator) >= 1


async def test_the_last_look_before_a_deadline_finds_what_was_not_delivered() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(REROLL)
        assert (await handle.wait(timeout=40.0)).images
        assert now() < 40.0
        assert asked(emulator) == 1


async def test_a_timeout_of_zero_looks_once_all_the_same() -> None:
    async with hooked(webhook_faults=SILENT, durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout):
            await handle.wait(0)
        assert now() < 1.0
        assert asked(emulator) == 1


async def test_after_three_ends_that_nobody_told_of_polling_is_as_usual_again() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (_, piapi, _):
        took = []
        for request in rerolls(5):
            began = now()
            await (await piapi.submit(request)).wait()
            took.append(now() - began)

        assert min(took[:3]) > 35.0
        assert max(took[3:]) < 32.0


async def test_those_who_wait_when_deliveries_stop_are_looked_at_as_usual_too() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, _):
        early = [await piapi.submit(request) for request in rerolls(3)]
        waits = asyncio.create_task(wait_all(early))
        await asyncio.sleep(140.0)
        emulator.fail("reroll", TaskFails("late"))
        late = await piapi.submit(REROLL)
        idle = await piapi.submit(REROLL)  # nobody waits for it yet
        with pytest.raises(TaskFailed):
            await late.wait()
        await waits
        assert now() < 175.0
        await idle.wait()
        assert now() < 175.0


async def test_a_delivery_that_trails_the_look_a_little_is_in_time() -> None:
    async with hooked(relied_on=False, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, receiver):
        for request in rerolls(6):
            handle = await piapi.submit(request)
            await handle.wait()
            await asyncio.sleep(0.2)
            await deliver(receiver, delivery(handle.task_id), nonce_of(emulator, handle.task_id))

        assert piapi._runtime.poller.schedule.trust.share > 0.9
        assert receiver.counts == {"accepted": 6}


async def test_deliveries_that_are_later_than_looks_are_not_relied_on() -> None:
    async with hooked(relied_on=False, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, receiver):
        for request in rerolls(10):
            handle = await piapi.submit(request)
            await handle.wait()
            await asyncio.sleep(2.0)
            await deliver(receiver, delivery(handle.task_id), nonce_of(emulator, handle.task_id))

        assert piapi._runtime.poller.schedule.trust.share == 0.0


async def test_ends_of_tasks_that_were_not_announced_say_nothing_of_the_share() -> None:
    async with hooked(relied_on=False, durations=30.0) as (_, piapi, _):
        handles = [await piapi.submit(request) for request in rerolls(3)]
        ids = [handle.task_id for handle in handles]
        del handles

        await wait_all([piapi.attach(task_id) for task_id in ids])

        assert piapi._runtime.poller.schedule.trust.ends == 0.0


async def test_a_share_that_is_small_is_told_to_the_operator_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "piapi_async")
    async with hooked(relied_on=False, webhook_faults=SILENT, durations=5.0) as (_, piapi, _):
        for request in rerolls(60):
            await (await piapi.submit(request)).wait()

    told = [record for record in caplog.records if "webhooks have reported" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert " 0 % of the ends" in told[0].getMessage()


async def test_ends_that_were_told_before_anybody_waited_are_no_reason_for_doubt() -> None:
    async with hooked({"poll": PollPolicy()}, durations=30.0, concurrency=9) as (emulator, piapi, _):
        handles = [await piapi.submit(request) for request in rerolls(5)]
        await asyncio.sleep(60.0)
        for handle in handles:
            await handle.wait()
        assert now() == pytest.approx(60.0, abs=0.1)
        assert asked(emulator) == 5
        handle = await piapi.submit(REROLL)
        await handle.wait()

        assert emulator.seen.polls[handle.task_id] == 1


async def test_many_that_end_together_are_confirmed_together_and_cast_no_doubt() -> None:
    async with hooked(
        {"poll": PollPolicy()}, durations=30.0, concurrency=200, latency={"multi_fetch": 0.2}
    ) as (
        emulator,
        piapi,
        _,
    ):
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(200)))
        await wait_all(handles)

        assert asked(emulator) == 200
        assert emulator.seen.requests["multi_fetch"] + emulator.seen.requests["fetch"] <= 12
        assert piapi._runtime.poller.schedule.trust.relied_on


@pytest.mark.parametrize("own", ["", "https://elsewhere.example.org/hook"])
async def test_a_task_that_tells_somebody_else_is_watched_as_usual(own: str) -> None:
    async with hooked({"poll": PollPolicy()}, durations=30.0, webhook_faults=SILENT) as (_, piapi, _):
        handle = await piapi.submit(Reroll("p", webhook_endpoint=own))
        await handle.wait()
        assert now() < 32.0


async def test_an_attached_task_is_watched_as_usual() -> None:
    async with hooked({"poll": PollPolicy()}, durations=30.0, webhook_faults=SILENT) as (emulator, piapi, _):
        async with PiAPI(KEY, base_url=emulator.base_url) as other:
            task_id = (await other.submit(REROLL)).task_id
        await piapi.attach(task_id).wait()
        assert now() < 33.0


async def test_the_confirmation_survives_passing_faults() -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        emulator.fail("fetch", Status(503), times=2)
        handle = await piapi.submit(REROLL)
        await handle.wait()
        assert now() < 36.0


# -- races ----------------------------------------------------------------------------------------------------------


async def test_a_delivery_between_submit_and_wait_is_not_forgotten() -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(REROLL)
        await asyncio.sleep(60.0)
        assert asked(emulator) == 0

        assert (await handle.wait()).images
        assert now() == pytest.approx(60.0, abs=0.1)
        assert asked(emulator) == 1


async def test_a_delivery_between_two_waits_is_not_forgotten() -> None:
    async with hooked(durations=30.0) as (_, piapi, _):
        handle = await piapi.submit(REROLL)
        with pytest.raises(WaitTimeout):
            await handle.wait(10.0)
        await asyncio.sleep(50.0)

        assert (await handle.wait()).images
        assert now() == pytest.approx(60.0, abs=0.1)


async def test_a_delivery_for_a_task_that_is_being_looked_at_is_not_forgotten() -> None:
    async with hooked({"poll": PollPolicy()}, durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(REROLL)
        await asyncio.sleep(28.0)
        emulator.fail("fetch", SlowFirstByte(5.0))  # it answers at 33 what was true at 28
        with contextlib.suppress(WaitTimeout):
            await asyncio.gather(handle.wait(0), handle.wait())
        await handle.wait()

        assert now() == pytest.approx(33.0, abs=0.2)
        assert asked(emulator) == 2


async def test_a_delivery_for_a_task_that_is_being_confirmed_is_another_look_at_most() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=20.0) as (
        emulator,
        piapi,
        receiver,
    ):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(19.0)
        emulator.fail("fetch", SlowFirstByte(2.0))
        await deliver(receiver, delivery(handle.task_id, number=1))
        await asyncio.sleep(1.5)
        await deliver(receiver, delivery(handle.task_id, number=2))
        await wait

        assert asked(emulator) == 2
        assert now() == pytest.approx(21.0, abs=0.2)


async def test_a_delivery_for_a_task_that_nobody_waits_for_any_more_costs_nothing() -> None:
    async with hooked(durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(10.0)
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)
        await asyncio.sleep(60.0)

        assert receiver.counts["accepted"] == 1
        assert asked(emulator) == 0
        assert_at_rest(piapi)


async def test_a_submit_whose_caller_was_cancelled_is_adopted_into_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    async with hooked({"ledger": ledger}, durations=30.0) as (emulator, piapi, receiver):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL, key="k"))
        await asyncio.sleep(10.0)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        assert now() == pytest.approx(10.0, abs=TICK)
        await asyncio.sleep(30.0)

        assert receiver.counts["adopted"] == 1
        assert [entry.task_id for entry in await ledger.pending()] == made(emulator)


async def test_an_adopted_submit_whose_caller_was_cancelled_is_told_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(10.0)
        submit.cancel()
        await asyncio.gather(submit, return_exceptions=True)
        await asyncio.sleep(30.0)

        assert made(emulator)[0] in caplog.text


@pytest.mark.parametrize("ledger", [False, True])
async def test_closing_the_client_ends_the_wait_for_an_adoption_at_once(ledger: bool, tmp_path: Path) -> None:  # noqa: FBT001 - a table's column
    client = {"ledger": Ledger(tmp_path / "ledger")} if ledger else {}
    async with hooked(client, webhook_faults=SILENT) as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(10.0)
        await piapi.close()

        with pytest.raises(SubmissionUnknown):
            await submit
        assert now() < 11.0
    if ledger:
        reopened = Ledger(tmp_path / "ledger")
        assert len(await reopened.unknown()) == 1
        await reopened.close()


async def test_closing_the_client_while_a_submit_is_on_its_way_does_not_wait_for_a_delivery() -> None:
    async with hooked(webhook_faults=SILENT, latency={"reroll": 8.0}) as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        await piapi.close()

        with pytest.raises(SubmissionUnknown):
            await submit
        assert now() < 9.0


async def test_closing_the_client_while_deliveries_come_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = {"ledger": Ledger(tmp_path / "ledger")}
    async with hooked(client, {"adopt_timeout": 1.0}, durations=30.0, concurrency=50) as (
        emulator,
        piapi,
        receiver,
    ):
        emulator.fail("reroll", LOST, times=10)
        submits = [piapi.submit(request, key=f"k{number}") for number, request in enumerate(rerolls(50))]
        results = await asyncio.gather(*submits, return_exceptions=True)
        handles = [handle for handle in results if not isinstance(handle, BaseException)]
        waits = asyncio.create_task(wait_all(handles))
        await asyncio.sleep(29.0 - now())
        for task_id in made(emulator):  # before, while and after it closes
            await receiver.handle(HEADERS, delivery(task_id), query=nonce_of(emulator, task_id))
        await piapi.close()
        for task_id in made(emulator):
            with contextlib.suppress(WebhookRejected, ClientClosed):
                await receiver.handle(HEADERS, delivery(task_id, "failed"), query=nonce_of(emulator, task_id))
        await asyncio.sleep(60.0)

        assert len(handles) == 40
        assert {type(error) for error in await waits} <= {ClientClosed}
        assert_at_rest(piapi)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger"]
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_receiver_of_a_client_that_does_nothing_else_closes_its_ledger(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, _):
        (task_id,) = made(emulator)
        piapi = PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(tmp_path / "ledger"))
        receiver = WebhookReceiver(piapi, secret=SECRET, url=PUBLIC)
        await deliver(receiver, delivery(task_id), nonce_of(emulator, task_id))
        await asyncio.sleep(1.0)
        await piapi.close()

        assert receiver.counts["adopted"] == 1
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ledger"]


async def test_each_of_two_clients_has_its_own_receiver() -> None:
    async with (
        hooked(durations=30.0) as (emulator, piapi, first),
        PiAPI(KEY, base_url=emulator.base_url) as other,
        receiving(other) as second,
    ):
        rely_on_webhooks(other)
        mine, yours = await piapi.submit(REROLL), await other.submit(REROLL)
        await asyncio.gather(mine.wait(), yours.wait())

        assert first.url != second.url
        assert first.counts == second.counts == {"accepted": 1}
        assert asked(emulator) == 2


async def test_a_client_has_one_receiver() -> None:
    async with hooked() as (_, piapi, receiver):
        with pytest.raises(ValueError, match="WebhookReceiver"):
            WebhookReceiver(piapi, secret=SECRET, url=receiver.url)


async def test_after_the_close_a_delivery_is_left_to_whoever_comes_next() -> None:
    async with hooked() as (_, piapi, receiver):
        await piapi.close()

        assert await post(receiver.url, delivery("t1")) == (503, b"")
        assert (await post(receiver.url, delivery("t1"), "guess"))[0] == 403
        with pytest.raises(ClientClosed):
            await receiver.handle(HEADERS, delivery("t1"))
        assert receiver.counts["accepted"] == 0


async def test_a_delivery_in_another_loop_is_refused() -> None:
    async with hooked() as (_, piapi, receiver):
        await piapi.submit(REROLL)

        def elsewhere() -> None:
            asyncio.run(receiver.handle(HEADERS, delivery("t1")))

        with pytest.raises(RuntimeError, match="loop"):
            await asyncio.get_running_loop().run_in_executor(None, elsewhere)
        assert not receiver.counts
