"""Deliveries that find the tasks of submits whose answers were lost."""

from __future__ import annotations

import asyncio
import gc
import logging
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen
from support.families import FamilyCase
from support.hooking import (
    HEADERS,
    LOST,
    SECRET,
    SILENT,
    SPREAD,
    asked,
    deliver,
    delivery,
    hooked,
    later_process,
    made,
    nonce_of,
    rerolls,
    unknown_submits,
)
from support.serving import KEY, REROLL, now

from piapi_async import (
    Ledger,
    PiAPI,
    PollPolicy,
    Reroll,
    SubmissionUnknown,
    TaskState,
    WebhookReceiver,
    WebhookRejected,
    wait_all,
)
from piapi_async._submit.nonces import NONCE
from piapi_async.emulator import Drop, SlowFirstByte, Status
from piapi_async.ledger import LedgerState
from piapi_async.midjourney import LEGACY
from piapi_async.unified import request

pytestmark = pytest.mark.looptime


async def test_a_submit_whose_answer_is_lost_is_adopted_by_its_delivery(case: FamilyCase) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, receiver):
        emulator.fail("create", LOST)
        handle = await piapi.submit(case.reroll("p"))

        assert [handle.task_id] == made(emulator)
        assert now() == pytest.approx(30.0, abs=0.1)
        assert (await handle.wait()).images
        assert now() == pytest.approx(30.0, abs=0.1)
        assert receiver.counts["adopted"] == 1
        assert emulator.seen.requests[case.create] == 1
        assert asked(emulator) == 2  # one read to see that it is ours, and one for the wait


async def test_progress_is_enough_to_adopt_a_submit() -> None:
    async with hooked(durations=30.0, progress_step=25) as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        handle = await piapi.submit(Reroll("p", notify_progress=True))

        assert now() < 15.0
        await handle.wait()
        assert now() == pytest.approx(30.0, abs=0.1)


@pytest.mark.parametrize(
    "fault",
    [
        LOST,
        Drop(inside_answer=True),
        Status(502, made=True),
        Status(504, made=True),
        Status(200, body={}, made=True),
        Status(408, made=True),
    ],
)
async def test_every_unknown_submit_is_adopted(fault: Any, case: FamilyCase) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        emulator.fail("create", fault)
        handle = await piapi.submit(case.reroll("p"))

        assert [handle.task_id] == made(emulator)


async def test_a_delivery_may_outrun_the_answer_that_is_lost(case: FamilyCase) -> None:
    async with hooked({"timeout": 30.0}, durations=5.0) as (emulator, piapi, _):
        emulator.fail("create", SlowFirstByte(60.0))
        handle = await piapi.submit(case.reroll("p"))

        assert now() == pytest.approx(30.0, abs=0.1)
        assert (await handle.wait()).images
        assert now() == pytest.approx(30.0, abs=0.1)


async def test_several_deliveries_may_outrun_the_answer_that_is_lost() -> None:
    async with hooked({"timeout": 30.0}, durations=20.0, progress_step=25) as (emulator, piapi, receiver):
        emulator.fail("reroll", SlowFirstByte(60.0))
        handle = await piapi.submit(Reroll("p", notify_progress=True))

        assert now() == pytest.approx(30.0, abs=0.1)
        assert (await handle.wait()).images
        assert now() == pytest.approx(30.0, abs=0.1)
        assert receiver.counts == {"accepted": 5, "adopted": 1}


async def test_what_was_delivered_before_the_close_is_adopted_in_spite_of_it(case: FamilyCase) -> None:
    async with hooked({"timeout": 30.0}, durations=5.0) as (emulator, piapi, _):
        emulator.fail("create", SlowFirstByte(60.0))
        submit = asyncio.create_task(piapi.submit(case.reroll("p")))
        await asyncio.sleep(10.0)
        await piapi.close()

        assert [(await submit).task_id] == made(emulator)
        assert now() == pytest.approx(30.0, abs=0.1)


async def test_a_delivery_may_outrun_the_answer_that_comes() -> None:
    async with hooked(durations=5.0) as (emulator, piapi, receiver):
        emulator.fail("reroll", SlowFirstByte(20.0))
        handle = await piapi.submit(REROLL)
        assert now() == pytest.approx(20.0, abs=0.1)
        await handle.wait()

        assert now() == pytest.approx(20.0, abs=0.1)
        assert receiver.counts["adopted"] == 0
        assert asked(emulator) == 1


async def test_a_submit_that_made_nothing_is_unknown_when_no_delivery_comes() -> None:
    async with hooked(receiver={"adopt_timeout": 100.0}) as (emulator, piapi, _):
        emulator.fail("reroll", Drop(after_body=True, made=False))
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(REROLL)

        assert now() == pytest.approx(100.0, abs=0.1)
        assert made(emulator) == []


async def test_nobody_waits_for_the_delivery_of_a_submit_with_an_endpoint_of_its_own() -> None:
    async with hooked() as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(Reroll("p", webhook_endpoint="https://elsewhere.example.org/hook"))
        assert now() < 1.0


@request
class Clumsy(Reroll):
    """A request that cannot read its own answer."""

    def parse(self, response: Any, /) -> Any:
        raise ZeroDivisionError(response.status)


async def test_a_submit_whose_answer_breaks_its_request_is_adopted_too() -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(Clumsy("p"))

        assert [handle.task_id] == made(emulator)


@frozen
class Plain:
    """A request of somebody's own, which knows no webhooks."""

    family = LEGACY

    def to_http(self) -> Any:
        return REROLL.to_http()

    def parse(self, response: Any, /) -> Any:
        return REROLL.parse(response)


async def test_a_request_that_knows_no_webhooks_is_sent_as_it_is_and_watched_as_usual() -> None:
    async with hooked({"poll": PollPolicy()}, durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(Plain())
        await handle.wait()

        assert now() < 32.0
        assert "webhook_endpoint" not in emulator.engine.tasks[handle.task_id].given
        assert not receiver.counts


async def test_a_nonce_that_was_made_up_adopts_nothing() -> None:
    async with hooked(receiver={"adopt_timeout": 50.0}, webhook_faults=SILENT) as (emulator, piapi, receiver):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        for query in ("", f"{NONCE}=", f"{NONCE}=0", f"{NONCE}=ключ", f"{NONCE}={'0' * 32}", "other=1"):
            await deliver(receiver, delivery(f"forged-{query}"), query)

        with pytest.raises(SubmissionUnknown):
            await submit


async def test_forty_lost_answers_are_forty_tasks_and_none_is_paid_twice(case: FamilyCase) -> None:
    async with hooked(durations={"reroll": SPREAD}, concurrency=40) as (emulator, piapi, receiver):
        emulator.fail("create", LOST, times=40)
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(40, case.reroll)))

        assert {handle.task_id for handle in handles} == set(made(emulator))
        assert emulator.seen.creates == emulator.seen.requests[case.create] == 40
        assert receiver.counts["adopted"] == 40
        prompts = [emulator.engine.tasks[handle.task_id].prompt for handle in handles]
        assert prompts == [f"cat {number}" for number in range(40)]
        assert all(not isinstance(task, Exception) for task in await wait_all(handles))


async def test_the_ledger_hears_of_an_adopted_submit(tmp_path: Path, case: FamilyCase) -> None:
    ledger = Ledger(tmp_path / "ledger")
    async with hooked({"ledger": ledger}, durations=30.0) as (emulator, piapi, _):
        emulator.fail("create", LOST)
        handle = await piapi.submit(case.reroll("p"), key="k")

        entry = await ledger.find("k")
        assert entry is not None
        assert (entry.state, entry.task_id) == (LedgerState.ACCEPTED, handle.task_id)
        assert await piapi.submit(case.reroll("p"), key="k") == handle
        assert emulator.seen.requests[case.create] == 1


async def test_a_delivery_that_comes_too_late_for_the_caller_still_reaches_the_ledger(
    tmp_path: Path, case: FamilyCase
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    async with hooked({"ledger": ledger}, {"adopt_timeout": 5.0}, durations=30.0) as (
        emulator,
        piapi,
        receiver,
    ):
        emulator.fail("create", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(case.reroll("p"), key="k")
        await asyncio.sleep(60.0)

        assert receiver.counts["adopted"] == 1
        handle = await piapi.submit(case.reroll("p"), key="k")
        assert [handle.task_id] == made(emulator)
        assert (await handle.wait()).images


async def test_a_receiver_in_a_later_process_gives_unknown_submits_their_tasks(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 10) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (piapi, receiver):
            assert len(await ledger.unknown()) == 10
            await asyncio.sleep(100.0)

            assert receiver.counts["adopted"] == 10
            assert await ledger.unknown() == []
            entries = {entry.key: entry.task_id async for entry in ledger}
            assert set(entries.values()) == set(made(emulator))
            for number, request in enumerate(rerolls(10)):
                handle = await piapi.submit(request, key=f"k{number}")
                assert handle.task_id == entries[f"k{number}"]
                assert (await handle.wait()).state is TaskState.DONE
            assert emulator.seen.creates == 10


async def test_a_delivery_to_another_worker_is_adopted_for_the_one_that_waits(
    tmp_path: Path, case: FamilyCase
) -> None:
    path = tmp_path / "run.db"
    ledger = Ledger(path)
    async with (
        hooked({"ledger": ledger}, durations=5.0) as (emulator, second, receiver),
        PiAPI(
            KEY, base_url=second._runtime.sender.transport.base_url, ledger=Ledger(path), recover=0
        ) as first,
    ):
        WebhookReceiver(first, secret=SECRET, url=receiver.url, adopt_timeout=600.0)
        emulator.fail("create", Drop(after_body=True))

        handle = await first.submit(case.reroll("p"), key="k")

        assert 5.0 <= now() <= 10.0  # not as late as the last delivery might come
        assert [handle.task_id] == made(emulator)
        assert receiver.counts["adopted"] == 1
        assert [] == await ledger.unknown()


async def test_a_delivery_to_a_later_process_is_adopted_but_not_believed(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (_, receiver):
            (task_id,) = made(emulator)
            await deliver(receiver, delivery(task_id, "failed"), nonce_of(emulator, task_id))
            await asyncio.sleep(1.0)

            entry = await ledger.find("k0")
            assert entry is not None
            assert (entry.state, entry.task_id) == (LedgerState.ACCEPTED, task_id)


async def test_where_deliveries_are_believed_the_end_is_recorded_with_the_task(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 3) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger, confirm=False):
            await asyncio.sleep(100.0)

            entries = [entry async for entry in ledger]
            assert {(entry.state, entry.outcome) for entry in entries} == {(LedgerState.ENDED, "done")}
            assert {entry.task_id for entry in entries} == set(made(emulator))
            assert not [entry for entry in entries if SECRET.encode() in entry.answer]


async def test_a_receiver_with_another_secret_gives_nothing_to_anybody(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger, "another") as (_, receiver):
            (task_id,) = made(emulator)
            await receiver.handle(
                {"x-webhook-secret": "another"}, delivery(task_id), query=nonce_of(emulator, task_id)
            )
            await asyncio.sleep(100.0)

            assert receiver.counts["adopted"] == 0
            assert receiver.counts["rejected"] == 3  # the host tries three times
            assert len(await ledger.unknown()) == 1


async def test_several_deliveries_at_once_for_one_unknown_submit_give_it_its_task_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (_, receiver):
            (task_id,) = made(emulator)
            for progress in (10, 20, 30, 40):
                await receiver.handle(
                    HEADERS,
                    delivery(task_id, "processing", progress=progress),
                    query=nonce_of(emulator, task_id),
                )
            await asyncio.sleep(1.0)

            assert receiver.counts["adopted"] == 1
            assert [entry.task_id for entry in await ledger.pending()] == [task_id]
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_blank_or_odd_delivery_gives_an_unknown_submit_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (_, receiver):
            (task_id,) = made(emulator)
            with pytest.raises(WebhookRejected):
                await receiver.handle(HEADERS, delivery(" "), query=nonce_of(emulator, task_id))
            await deliver(receiver, delivery("t1"), f"{NONCE}=ключ")
            await deliver(receiver, delivery("t2"), f"{NONCE}=%ff%fe")
            await asyncio.sleep(1.0)
            gc.collect()

            assert len(await ledger.unknown()) == 1
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_ledger_that_cannot_be_written_is_reported_and_not_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        (tmp_path / "ledger").write_bytes(b"no ledger any more")
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (_, receiver):
            (task_id,) = made(emulator)
            await deliver(receiver, delivery(task_id), nonce_of(emulator, task_id))
            await asyncio.sleep(1.0)

            assert receiver.counts["adopted"] == 0
            assert task_id in caplog.text
            caplog.clear()
        for left in tmp_path.iterdir():
            left.unlink()
