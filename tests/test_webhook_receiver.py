"""Tasks that tell of their end: what a receiver makes a submit say, and what a delivery does to waits."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from support.families import FamilyCase
from support.hooking import (
    DELIVERY,
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
    post,
    receiving,
    rerolls,
)
from support.serving import KEY, REROLL, TICK, now, read, serving, turns
from yarl import URL

from piapi_async import (
    BatchRunner,
    Ledger,
    Reroll,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TaskState,
    WaitTimeout,
    WebhookReceiver,
    WebhookRejected,
    as_completed,
    wait_all,
)
from piapi_async._submit.nonces import NONCE
from piapi_async.emulator import Lognormal, SlowFirstByte, Status, TaskFails
from piapi_async.errors import APIError
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime


# -- making one -----------------------------------------------------------------------------------------------------


async def test_a_receiver_needs_no_running_loop_to_be_made() -> None:
    async with serving() as (_, piapi):
        receiver = await asyncio.get_running_loop().run_in_executor(
            None, lambda: WebhookReceiver(piapi, secret=SECRET, url=PUBLIC)
        )
        assert not receiver.counts


@pytest.mark.parametrize("secret", ["", " ", "line\n", " padded", "padded ", "two\nlines"])
async def test_a_secret_that_no_host_could_send_back_is_refused_and_not_shown(secret: str) -> None:
    async with serving() as (_, piapi):
        with pytest.raises(ValueError, match="secret") as caught:
            WebhookReceiver(piapi, secret=secret, url=PUBLIC)
        assert not secret.strip() or secret.strip() not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bot.example.org/piapi",
        "ftp://bot.example.org/",
        "https://",
        "https://bot.example.org:8443/",
        "http://[::1/",
    ],
)
async def test_an_url_that_no_host_would_take_is_refused(url: str) -> None:
    async with serving() as (_, piapi):
        with pytest.raises(ValueError, match="url"):
            WebhookReceiver(piapi, secret=SECRET, url=url)


@pytest.mark.parametrize("url", [PUBLIC, "http://bot.example.org:80/", "https://bot.example.org:443/a?b=c"])
async def test_an_url_that_the_host_takes_is_fine(url: str) -> None:
    async with serving() as (_, piapi):
        assert WebhookReceiver(piapi, secret=SECRET, url=url).url == url


@pytest.mark.parametrize(
    ("url", "path"),
    [("https://bot.example.org", "/"), (PUBLIC, "/piapi"), ("https://bot.example.org/a/b/?x=1", "/a/b/")],
)
async def test_the_route_is_a_post_at_the_path_of_the_url(url: str, path: str) -> None:
    async with serving() as (_, piapi):
        (route,) = WebhookReceiver(piapi, secret=SECRET, url=url).routes()
        assert (route.method, route.path) == ("POST", path)


# -- what a submit says ---------------------------------------------------------------------------------------------


async def test_a_submit_carries_endpoint_and_secret_by_itself_and_a_nonce_of_its_own() -> None:
    async with hooked() as (emulator, piapi, receiver):
        handles = [await piapi.submit(request) for request in rerolls(3)]

        sent = [emulator.engine.tasks[handle.task_id].given for handle in handles]
        endpoints = [URL(str(given["webhook_endpoint"])) for given in sent]
        assert {str(endpoint.with_query(None)) for endpoint in endpoints} == {receiver.url}
        assert len({endpoint.query[NONCE] for endpoint in endpoints}) == 3
        assert {given["webhook_secret"] for given in sent} == {SECRET}


async def test_the_query_of_the_url_is_kept() -> None:
    async with serving() as (emulator, piapi):
        WebhookReceiver(piapi, secret=SECRET, url=f"{PUBLIC}?bot=7")
        handle = await piapi.submit(REROLL)

        endpoint = URL(str(emulator.engine.tasks[handle.task_id].given["webhook_endpoint"]))
        assert endpoint.query["bot"] == "7"
        assert endpoint.query[NONCE]


@pytest.mark.parametrize("own", ["", "https://elsewhere.example.org/hook"])
async def test_an_endpoint_that_the_user_gave_is_his_own(own: str) -> None:
    async with hooked() as (emulator, piapi, _):
        secret = "mine" if own else None
        handle = await piapi.submit(Reroll("p", webhook_endpoint=own, webhook_secret=secret))

        given = emulator.engine.tasks[handle.task_id].given
        assert given.get("webhook_endpoint", "") == own
        assert given.get("webhook_secret") == secret


async def test_the_request_stays_as_the_caller_made_it() -> None:
    async with hooked(receiver={"adopt_timeout": 1.0}, webhook_faults=SILENT) as (emulator, piapi, _):
        emulator.fail("reroll", Status(400))
        with pytest.raises(APIError) as refused:
            await piapi.submit(REROLL)
        emulator.fail("reroll", LOST)
        with pytest.raises(SubmissionUnknown) as unknown:
            await piapi.submit(REROLL)

        assert refused.value.request == unknown.value.request == REROLL
        assert REROLL.webhook_endpoint is REROLL.webhook_secret is None


async def test_the_key_of_a_ledger_stands_for_the_same_request_with_and_without_webhooks(
    tmp_path: Path,
) -> None:
    async with serving({"ledger": Ledger(tmp_path / "ledger")}) as (emulator, piapi):
        plain = await piapi.submit(REROLL, key="k")
        async with receiving(piapi):
            assert await piapi.submit(REROLL, key="k") == plain
        assert len(made(emulator)) == 1


# -- what a delivery does -------------------------------------------------------------------------------------------


async def test_a_delivery_ends_a_wait_after_exactly_one_look(case: FamilyCase) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(case.reroll("p"))
        task = await handle.wait()

        assert now() == pytest.approx(30.0, abs=TICK)
        assert task.images
        assert emulator.seen.polls == {handle.task_id: 1}
        assert receiver.counts == {"accepted": 1}


async def test_a_delivery_that_is_believed_ends_a_wait_without_any() -> None:
    async with hooked(receiver={"confirm": False}, durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(REROLL)
        task = await handle.wait()

        assert now() == pytest.approx(30.0, abs=TICK)
        assert len(task.images) == 4
        assert task.result.actions
        assert emulator.seen.polls == {}
        assert await handle.refresh() == task


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_delivered_failure_is_raised_with_its_reason(confirm: bool, case: FamilyCase) -> None:  # noqa: FBT001 - a table's column
    async with hooked(receiver={"confirm": confirm}, durations=30.0) as (emulator, piapi, _):
        emulator.fail("create", TaskFails("the cat ran away"))
        handle = await piapi.submit(case.reroll("p"))

        with pytest.raises(TaskFailed, match="the cat ran away"):
            await handle.wait()
        assert now() == pytest.approx(emulator.engine.tasks[handle.task_id].ended, abs=TICK)


async def test_a_delivered_cancellation_is_raised() -> None:
    async with hooked(receiver={"confirm": False}, webhook_faults=SILENT) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait())
        await turns()
        await deliver(receiver, delivery(handle.task_id, "cancelled"))

        with pytest.raises(TaskCancelled):
            await wait


async def test_everybody_who_waits_for_a_task_shares_its_confirmation(case: FamilyCase) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
        handle = await piapi.submit(case.reroll("p"))
        others = [piapi.attach(handle.task_id, family=case.family) for _ in range(50)]
        tasks = await asyncio.gather(handle.wait(), *(other.wait() for other in others))

        assert {task.task_id for task in tasks} == {handle.task_id}
        assert asked(emulator) == 1


async def test_deliveries_feed_the_updates_and_cost_no_look() -> None:
    async with hooked(durations=30.0, progress_step=25) as (emulator, piapi, _):
        handle = await piapi.submit(Reroll("p", notify_progress=True))
        seen, error = await read(handle.updates())

        assert error is None
        assert [task.progress for task in seen] == [0, 25, 50, 75, 100]
        assert seen[-1].state is TaskState.DONE
        assert asked(emulator) == 1


async def test_deliveries_that_overtake_each_other_do_not_turn_progress_back() -> None:
    async with hooked(webhook_faults=SILENT) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        updates = asyncio.create_task(read(handle.updates(timeout=10.0)))
        await turns()
        for progress in (20, 60, 40, 80, 70):
            await deliver(receiver, delivery(handle.task_id, "processing", progress=progress))
        await deliver(receiver, delivery(handle.task_id, "pending", progress=0))

        seen, error = await updates
        assert isinstance(error, WaitTimeout)
        assert [task.progress for task in seen if task.progress][:3] == [20, 60, 80]


async def test_a_delivery_after_the_end_changes_nothing() -> None:
    async with hooked(durations=30.0) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        task = await handle.wait()
        await deliver(receiver, delivery(handle.task_id, "failed"))
        await deliver(receiver, delivery(handle.task_id, "processing", progress=3))

        assert await handle.wait() is task


async def test_as_completed_and_wait_all_end_by_deliveries_too() -> None:
    async with hooked(durations={"reroll": Lognormal(30.0, 60.0, 10.0, 100.0)}, concurrency=20) as (
        emulator,
        piapi,
        _,
    ):
        handles = [await piapi.submit(request) for request in rerolls(20)]
        waits = asyncio.create_task(wait_all(handles))
        ended = [handle async for handle in as_completed(handles)]

        assert set(ended) == set(handles)
        assert {task for task in await waits if isinstance(task, Exception)} == set()
        assert asked(emulator) == 20


async def test_a_batch_ends_by_deliveries_too(case: FamilyCase) -> None:
    async with hooked(durations=30.0, concurrency=30) as (emulator, piapi, _):
        outcomes = await BatchRunner(piapi, concurrency=10).run(rerolls(30, case.reroll))

        assert all(outcome.ok for outcome in outcomes)
        assert now() == pytest.approx(90.0, abs=0.1)
        assert asked(emulator) == 30


async def test_the_end_reaches_the_ledger(tmp_path: Path, case: FamilyCase) -> None:
    ledger = Ledger(tmp_path / "ledger")
    async with hooked({"ledger": ledger}, {"confirm": False}) as (_, piapi, _):
        await (await piapi.submit(case.reroll("p"), key="k")).wait()

        entry = await ledger.find("k")
        assert entry is not None
        assert (entry.state, entry.outcome) == (LedgerState.ENDED, "done")
        assert SECRET.encode() not in entry.answer


async def test_the_answer_is_200_before_the_work_is_done(case: FamilyCase) -> None:
    async with hooked(webhook_faults=SILENT, durations=5.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(case.reroll("p"))
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(10.0)
        emulator.fail("read", SlowFirstByte(20.0))

        assert await post(receiver.url, DELIVERY[str(case)](handle.task_id)) == (200, b"")
        assert now() == pytest.approx(10.0, abs=TICK)
        await wait
        assert now() == pytest.approx(30.0, abs=TICK)


async def test_handle_returns_before_anything_is_done_with_the_delivery() -> None:
    async with hooked() as (_, _, receiver):
        await receiver.handle(HEADERS, delivery("t1"))
        assert not receiver.counts
        await turns()
        assert receiver.counts["accepted"] == 1


# -- secrets --------------------------------------------------------------------------------------------------------


async def test_the_secret_is_in_no_repr_log_error_or_file(
    everything_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = {"ledger": Ledger(tmp_path / "ledger")}
    async with hooked(client, {"adopt_timeout": 5.0}, durations=30.0, webhook_faults=SILENT) as (
        emulator,
        piapi,
        receiver,
    ):
        handle = await piapi.submit(REROLL, key="fine")
        emulator.fail("reroll", LOST)
        with pytest.raises(SubmissionUnknown) as unknown:
            await piapi.submit(REROLL, key="lost")
        emulator.fail("reroll", Status(400))
        with pytest.raises(APIError) as refused:
            await piapi.submit(REROLL, key="refused")
        with pytest.raises(WebhookRejected) as rejected:
            await receiver.handle(HEADERS, b'{"webhook_secret": "hook-5eCr3t')
        echo = {
            "meta": {"task_request": {"webhook_secret": SECRET}},
            "config": {"webhook_config": {"secret": SECRET}},
        }
        odd = {"task_id": handle.task_id, "status": "processing", "task_result": ["odd"], **echo}
        wait = asyncio.create_task(handle.wait())
        await turns()
        await deliver(receiver, json.dumps(odd).encode())
        await deliver(receiver, delivery(handle.task_id))
        task = await wait
        shown = [receiver, piapi, handle, task, dict(task.raw), piapi.stats, receiver.counts]
        for caught in (unknown, refused, rejected):
            shown += [caught.value, str(caught.value), vars(caught.value), caught.value.__cause__]

        assert SECRET not in repr(shown)
        assert SECRET not in everything_logged.text
        assert KEY not in repr(shown) + everything_logged.text
    assert SECRET.encode() not in (tmp_path / "ledger").read_bytes()
