"""Tasks that tell of their end: what a delivery does to waits, submits and polling, and what it cannot do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import socket
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from attrs import frozen
from support.families import FamilyCase
from support.hooking import (
    DELIVERY,
    HEADERS,
    SECRET,
    SILENT,
    delivery,
    hooked,
    listening,
    made,
    nonce_of,
    port_of,
    post,
    receiving,
    unified,
)
from support.serving import KEY, REROLL, TICK, assert_at_rest, no_leaks, now, read, serving, turns
from yarl import URL

from piapi_async import (
    BatchRunner,
    ClientClosed,
    Ledger,
    PiAPI,
    PollPolicy,
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
from piapi_async.emulator import Drop, Emulator, Lognormal, SlowFirstByte, Status, TaskFails, WebhookFaults
from piapi_async.errors import APIError
from piapi_async.ledger import LedgerState
from piapi_async.midjourney import LEGACY
from piapi_async.webhooks import MAX_BYTES, NONCE

pytestmark = pytest.mark.looptime

LOST = Drop(after_body=True)
"""The answer to a submit is lost after its task was made."""

SPREAD = Lognormal(40.0, 80.0, 15.0, 150.0)
"""Seconds that tasks take in fast mode, about."""

PUBLIC = "https://bot.example.org/piapi"


def rerolls(count: int, reroll: Callable[..., Any] = Reroll) -> list[Any]:
    return [reroll("6886fc4d", prompt=f"cat {number}") for number in range(count)]


def asked(emulator: Emulator) -> int:
    """Give how often the service was asked about tasks, each id of a multi-fetch counted."""
    return emulator.seen.polls.total()


async def deliver(receiver: WebhookReceiver, body: bytes, query: str = "") -> None:
    """Hand a delivery over, and let everybody run whom it wakes, without the time moving on."""
    await receiver.handle(HEADERS, body, query=query)
    await turns(3)


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

        sent = [emulator.machine.tasks[handle.task_id].given for handle in handles]
        endpoints = [URL(str(given["webhook_endpoint"])) for given in sent]
        assert {str(endpoint.with_query(None)) for endpoint in endpoints} == {receiver.url}
        assert len({endpoint.query[NONCE] for endpoint in endpoints}) == 3
        assert {given["webhook_secret"] for given in sent} == {SECRET}


async def test_the_query_of_the_url_is_kept() -> None:
    async with serving() as (emulator, piapi):
        WebhookReceiver(piapi, secret=SECRET, url=f"{PUBLIC}?bot=7")
        handle = await piapi.submit(REROLL)

        endpoint = URL(str(emulator.machine.tasks[handle.task_id].given["webhook_endpoint"]))
        assert endpoint.query["bot"] == "7"
        assert endpoint.query[NONCE]


@pytest.mark.parametrize("own", ["", "https://elsewhere.example.org/hook"])
async def test_an_endpoint_that_the_user_gave_is_his_own(own: str) -> None:
    async with hooked() as (emulator, piapi, _):
        secret = "mine" if own else None
        handle = await piapi.submit(Reroll("p", webhook_endpoint=own, webhook_secret=secret))

        given = emulator.machine.tasks[handle.task_id].given
        assert given.get("webhook_endpoint", "") == own
        assert given.get("webhook_secret") == secret


async def test_the_request_stays_as_the_caller_made_it() -> None:
    async with hooked(receiver={"adopt": 1.0}, webhook_faults=SILENT) as (emulator, piapi, _):
        emulator.fail("reroll", Status(400))
        with pytest.raises(APIError) as refused:
            await piapi.submit(REROLL)
        emulator.fail("reroll", LOST)
        with pytest.raises(SubmissionUnknown) as unknown:
            await piapi.submit(REROLL)

        assert refused.value.request == unknown.value.request == REROLL
        assert REROLL.webhook_endpoint is REROLL.webhook_secret is None


async def test_the_key_of_a_ledger_stands_for_the_same_request_with_and_without_webhooks(tmp_path: Path) -> None:
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
        assert now() == pytest.approx(emulator.machine.tasks[handle.task_id].ended, abs=TICK)


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
    async with hooked(durations={"reroll": Lognormal(30.0, 60.0, 10.0, 100.0)}, concurrency=20) as (emulator, piapi, _):
        handles = [await piapi.submit(request) for request in rerolls(20)]
        waits = asyncio.create_task(wait_all(handles))
        ended = [handle async for handle in as_completed(handles)]

        assert set(ended) == set(handles)
        assert {task for task in await waits if isinstance(task, Exception)} == set()
        assert asked(emulator) == 20


async def test_a_batch_ends_by_deliveries_too(case: FamilyCase) -> None:
    async with hooked(durations=30.0) as (emulator, piapi, _):
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


# -- what it cannot do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
async def test_a_lie_with_the_right_secret_ends_no_wait(status: str, case: FamilyCase) -> None:
    async with hooked(webhook_faults=SILENT, durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(case.reroll("p"))
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(10.0)
        assert await post(receiver.url, DELIVERY[str(case)](handle.task_id, status, error_messages=["lies"])) == (
            200,
            b"",
        )
        await asyncio.sleep(1.0)

        assert not wait.done()
        assert asked(emulator) == 1
        emulator.end(handle.task_id)
        await deliver(receiver, DELIVERY[str(case)](handle.task_id))
        assert (await wait).state is TaskState.DONE
        assert now() == pytest.approx(11.0, abs=TICK)


async def test_a_liar_cannot_make_the_host_be_asked_more_than_once_per_lie() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=1000.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait(timeout=40.0))
        await asyncio.sleep(1.0)
        for number in range(5):
            await deliver(receiver, delivery(handle.task_id, "failed", number=number))
            await deliver(receiver, delivery(handle.task_id, "failed", number=number))
            await asyncio.sleep(0.1)

        assert asked(emulator) <= 5
        with pytest.raises(WaitTimeout):
            await wait


async def test_what_is_delivered_twice_is_done_once() -> None:
    async with hooked(durations=30.0, webhook_faults=WebhookFaults(duplicated=1.0)) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL)
        await handle.wait()
        await asyncio.sleep(10.0)
        for _ in range(10):
            await deliver(receiver, delivery(handle.task_id))

        assert receiver.counts["accepted"] == 12
        assert receiver.counts["duplicate"] == 10
        assert asked(emulator) == 1


async def test_deliveries_about_tasks_of_others_are_counted_and_nothing_is_said(
    everything_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async with hooked({"ledger": Ledger(tmp_path / "ledger")}) as (emulator, _, receiver):
        everything_logged.clear()
        for body in (delivery("t1"), delivery("t2", "processing"), unified("t3"), unified("t4", "failed")):
            await deliver(receiver, body)
        await deliver(receiver, delivery("t5"), f"{NONCE}=0123456789abcdef")
        await deliver(receiver, delivery("t6"), f"{NONCE}=ключ")
        await asyncio.sleep(1.0)

        assert receiver.counts == {"accepted": 6, "unknown": 6}
        assert [record for record in everything_logged.records if record.name == "piapi_async"] == []
        assert emulator.seen.requests.total() == 0


async def test_an_odd_end_is_looked_at_even_where_deliveries_are_believed(caplog: pytest.LogCaptureFixture) -> None:
    async with hooked(receiver={"confirm": False}, webhook_faults=SILENT) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait())
        await turns()
        emulator.end(handle.task_id)
        odd = {"task_id": handle.task_id, "status": "finished", "task_result": ["no object"]}
        await deliver(receiver, json.dumps(odd).encode())

        assert (await wait).images
        assert now() < 2.0
        assert SECRET not in caplog.text


@pytest.mark.parametrize("confirm", [True, False])
@pytest.mark.parametrize(
    "result",
    [None, [], "x", 7, {"task_progress": "x"}, {"task_progress": [1]}, {"image_url": {}}, {"error_messages": 3}],
)
async def test_an_odd_delivery_does_no_harm(confirm: bool, result: object, caplog: pytest.LogCaptureFixture) -> None:  # noqa: FBT001 - a table's column
    async with hooked(receiver={"confirm": confirm}, webhook_faults=SILENT) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        updates = asyncio.create_task(read(handle.updates(timeout=5.0)))
        await turns()
        body = {"task_id": handle.task_id, "status": "processing", "task_result": result}
        await deliver(receiver, json.dumps(body).encode())

        _, error = await updates
        assert isinstance(error, WaitTimeout)
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_a_deeply_nested_delivery_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    async with hooked(webhook_faults=SILENT) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait(timeout=5.0))
        await turns()
        for status in ("processing", "finished"):
            start = f'{{"task_id": "{handle.task_id}", "status": "{status}", "task_result": {{"deep": '.encode()
            await deliver(receiver, start + b"[" * 1000 + b"]" * 1000 + b"}}")

        with pytest.raises(WaitTimeout):
            await wait
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]


# -- posts that are none --------------------------------------------------------------------------------------------


async def test_whatever_is_wrong_the_answer_is_403_and_does_not_say_why() -> None:
    async with hooked() as (_, _, receiver):
        answers = [
            await post(receiver.url, body, secret)
            for body, secret in (
                (delivery("t1"), None),
                (delivery("t1"), ""),
                (delivery("t1"), "guess"),
                (b"", SECRET),
                (b"{}", SECRET),
                (b"\xff", SECRET),
                (io.BytesIO(b"x" * (MAX_BYTES + 1)), SECRET),
                (io.BytesIO(b"x" * (MAX_BYTES + 1)), "guess"),
            )
        ]

        assert {status for status, _ in answers} == {403}
        assert len({body for _, body in answers}) == 1
        assert receiver.counts == {"rejected": 8}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_only_posts_are_taken(method: str) -> None:
    async with hooked() as (_, _, receiver), aiohttp.ClientSession() as session:
        async with session.request(method, receiver.url, data=delivery("t1"), headers=HEADERS) as answer:
            assert answer.status == 405
        assert not receiver.counts


async def test_a_framework_hears_of_a_rejection_by_an_error() -> None:
    async with hooked() as (_, _, receiver):
        for headers, body in (({}, delivery("t1")), (HEADERS, b"{}"), (HEADERS, b"x" * (MAX_BYTES + 1))):
            with pytest.raises(WebhookRejected) as caught:
                await receiver.handle(headers, body)
            assert SECRET not in str(caught.value)
        assert receiver.counts == {"rejected": 3}


async def test_forged_and_replayed_posts_affect_no_wait() -> None:
    async with hooked(durations=30.0, concurrency=20) as (emulator, piapi, receiver):
        handles = [await piapi.submit(request) for request in rerolls(20)]
        waits = asyncio.create_task(wait_all(handles))
        await asyncio.sleep(1.0)
        for handle in handles:
            assert (await post(receiver.url, delivery(handle.task_id), "guess"))[0] == 403
            assert (await post(receiver.url, delivery(handle.task_id)[:-1]))[0] == 403
        await asyncio.sleep(1.0)
        assert asked(emulator) == 0
        assert not waits.done()

        assert all(not isinstance(task, Exception) for task in await waits)
        assert now() == pytest.approx(30.0, abs=0.1)
        confirmed = asked(emulator)
        replay = emulator.seen.deliveries[0].task_id
        for _ in range(20):
            assert (await post(receiver.url, delivery(replay)))[0] == 200
        assert asked(emulator) == confirmed == 20


async def drip(url: str, *pieces: bytes, secret: str = SECRET) -> bytes:
    """Post by hand, a piece every second; give what is answered before the connection is closed."""
    to = URL(url)
    reader, writer = await asyncio.open_connection(to.host, to.port)
    try:
        writer.write(f"POST {to.path} HTTP/1.1\r\nHost: bot\r\nX-Webhook-Secret: {secret}\r\n".encode())
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(1.0)
        return (await reader.read(100)).split(b"\r\n")[0]
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_slow_posts_are_given_up_and_keep_nobody_waiting() -> None:
    async with hooked(durations=30.0) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        slow = [asyncio.create_task(drip(receiver.url, b"Content-Length: 99\r\n\r\n{")) for _ in range(100)]
        await handle.wait()
        assert now() == pytest.approx(30.0, abs=0.1)

        assert {await answer for answer in slow} == {b"HTTP/1.1 403 Forbidden"}
        assert receiver.counts["rejected"] == 100


@pytest.mark.parametrize(
    ("pieces", "answers"),
    [
        ((b"Content-Encoding: gzip\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",), {403, 400}),
        ((b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\nzz\r\n",), {403, 400}),
        ((b"Content-Length: 0\r\nConnection: close\r\n\r\n",), {403}),
        ((b"Connection: close\r\n\r\n",), {403}),
        ((b"Content-Length: -1\r\nConnection: close\r\n\r\n",), {400}),
    ],
)
async def test_broken_posts_are_no_errors_of_ours(
    pieces: tuple[bytes, ...], answers: set[int], caplog: pytest.LogCaptureFixture
) -> None:
    async with hooked() as (_, _, receiver):
        answer = await drip(receiver.url, *pieces)

        assert int(answer.split()[1]) in answers
        assert receiver.counts["accepted"] == 0
        # aiohttp itself complains of what it could not read to its end; our handler must not have failed
        assert "Error handling request" not in [
            record.msg for record in caplog.records if "webhooks" in (record.exc_text or "")
        ]


async def test_a_post_that_breaks_off_is_rejected_and_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with hooked() as (_, _, receiver):
        to = URL(receiver.url)
        _, writer = await asyncio.open_connection(to.host, to.port)
        writer.write(
            b"POST /piapi HTTP/1.1\r\nHost: bot\r\nX-Webhook-Secret: hook-5eCr3t\r\nContent-Length: 99\r\n\r\n{"
        )
        await writer.drain()
        await asyncio.sleep(1.0)
        writer.close()
        await asyncio.sleep(30.0)

        assert receiver.counts == {"rejected": 1}
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def endless(pieces: int) -> AsyncIterator[bytes]:
    for _ in range(pieces):
        yield b"x" * 2**16


@contextlib.asynccontextmanager
async def flat(megabytes: float) -> AsyncIterator[None]:
    """Check that the block leaves no more memory behind than that."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        yield
        gc.collect()
        left = (tracemalloc.get_traced_memory()[0] - before) / 2**20
    finally:
        tracemalloc.stop()
    assert left < megabytes


@pytest.mark.parametrize("secret", [SECRET, "guess"])
async def test_a_huge_post_is_not_read_to_its_end(secret: str) -> None:
    async with hooked() as (_, _, receiver), flat(2.0):
        with contextlib.suppress(aiohttp.ClientError):  # cut off while we still send
            assert (await post(receiver.url, endless(pieces=512), secret))[0] == 403
        await asyncio.sleep(20.0)  # until aiohttp has given the connection up
        assert receiver.counts == {"rejected": 1}


async def test_deliveries_leave_hardly_anything_behind() -> None:
    async with hooked() as (_, _, receiver), flat(2.0):
        for number in range(20):
            await deliver(receiver, delivery(f"t{number}", padding="x" * (MAX_BYTES - 200)))
        assert receiver.counts["accepted"] == 20


async def test_the_receiver_remembers_no_more_than_ten_thousand() -> None:
    async with hooked() as (_, _, receiver):
        for number in range(11_000):
            await receiver.handle(HEADERS, delivery(f"t{number}"))
        await turns()

        assert receiver.counts["unknown"] == 11_000
        assert max(len(receiver._seen), len(receiver._early)) <= 10_000
        await deliver(receiver, delivery("t10999"))
        assert receiver.counts["duplicate"] == 1


# -- polling --------------------------------------------------------------------------------------------------------


async def test_while_deliveries_arrive_there_are_hardly_any_polls() -> None:
    async with hooked({"poll": PollPolicy()}, durations=150.0) as (emulator, piapi, _):
        for request in rerolls(3):
            await (await piapi.submit(request)).wait()
        assert asked(emulator) == 3


async def test_an_end_that_nobody_tells_of_is_found_by_the_safety_net() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, _):
        await (await piapi.submit(REROLL)).wait()
        assert now() < 200.0
        assert asked(emulator) == 1


async def test_a_long_task_is_looked_at_now_and_then() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=1000.0) as (emulator, piapi, _):
        await (await piapi.submit(REROLL)).wait()
        assert now() < 1050.0
        assert asked(emulator) < 25


@pytest.mark.parametrize("timeout", [0.5, 1.0, 20.0, 100.0, 600.0])
async def test_every_deadline_is_met_to_the_tick(timeout: float) -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=10_000.0) as (emulator, piapi, _):
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

        assert min(took[:3]) > 40.0
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


async def test_one_delivery_is_enough_to_rely_on_them_again() -> None:
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=30.0) as (emulator, piapi, receiver):
        polls = []
        for number, request in enumerate(rerolls(6)):
            handle = await piapi.submit(request)
            wait = asyncio.create_task(handle.wait())
            if number >= 4:  # the first three cost the trust, and the fourth is watched as usual
                await asyncio.sleep(25.0)
                emulator.end(handle.task_id)
                await deliver(receiver, delivery(handle.task_id))
            await wait
            polls.append(emulator.seen.polls[handle.task_id])

        assert polls[3] > 1
        assert polls[5] == 1


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
    async with hooked({"poll": PollPolicy()}, durations=30.0, concurrency=200, latency={"multi_fetch": 0.2}) as (
        emulator,
        piapi,
        _,
    ):
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(200)))
        await wait_all(handles)

        assert asked(emulator) == 200
        assert emulator.seen.requests["multi_fetch"] + emulator.seen.requests["fetch"] <= 12
        assert piapi._poller.book.trusting


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


# -- answers that were lost -----------------------------------------------------------------------------------------


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
        assert asked(emulator) == 1


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
    async with hooked(receiver={"adopt": 100.0}) as (emulator, piapi, _):
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


@frozen(repr=False)
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
        assert "webhook_endpoint" not in emulator.machine.tasks[handle.task_id].given
        assert not receiver.counts


async def test_a_nonce_that_was_made_up_adopts_nothing() -> None:
    async with hooked(receiver={"adopt": 50.0}, webhook_faults=SILENT) as (emulator, piapi, receiver):
        emulator.fail("reroll", LOST)
        submit = asyncio.create_task(piapi.submit(REROLL))
        await asyncio.sleep(1.0)
        for query in ("", f"{NONCE}=", f"{NONCE}=0", f"{NONCE}=ключ", f"{NONCE}={'0' * 32}", "other=1"):
            await deliver(receiver, delivery(f"forged-{query}"), query)

        with pytest.raises(SubmissionUnknown):
            await submit


async def test_a_hundred_lost_answers_are_a_hundred_tasks_and_none_is_paid_twice(case: FamilyCase) -> None:
    async with hooked(durations={"reroll": SPREAD}, concurrency=100) as (emulator, piapi, receiver):
        emulator.fail("create", LOST, times=100)
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(100, case.reroll)))

        assert {handle.task_id for handle in handles} == set(made(emulator))
        assert emulator.seen.creates == emulator.seen.requests[case.create] == 100
        assert receiver.counts["adopted"] == 100
        prompts = [emulator.machine.tasks[handle.task_id].prompt for handle in handles]
        assert prompts == [f"cat {number}" for number in range(100)]
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
    async with hooked({"ledger": ledger}, {"adopt": 5.0}, durations=30.0) as (emulator, piapi, receiver):
        emulator.fail("create", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(case.reroll("p"), key="k")
        await asyncio.sleep(60.0)

        assert receiver.counts["adopted"] == 1
        handle = await piapi.submit(case.reroll("p"), key="k")
        assert [handle.task_id] == made(emulator)
        assert (await handle.wait()).images


@contextlib.asynccontextmanager
async def unknown_submits(ledger: Path, count: int) -> AsyncIterator[tuple[Emulator, int]]:
    """Give a service whose tasks a process lost track of before it ended, and the port at which it listened."""
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=60.0, concurrency=count)
    async with no_leaks(), emulator.run() as base_url:
        port = free()
        async with PiAPI(KEY, base_url=base_url, ledger=Ledger(ledger)) as piapi:
            WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port}/piapi", adopt=1.0)
            emulator.fail("reroll", LOST, times=count)
            requests = enumerate(rerolls(count))
            submits = [piapi.submit(request, key=f"k{number}") for number, request in requests]
            for error in await asyncio.gather(*submits, return_exceptions=True):
                assert isinstance(error, SubmissionUnknown)
        yield emulator, port


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as at:
        return port_of(at)


@contextlib.asynccontextmanager
async def later_process(
    emulator: Emulator, port: int, ledger: Ledger, secret: str = SECRET, **options: Any
) -> AsyncIterator[tuple[PiAPI, WebhookReceiver]]:
    async with PiAPI(KEY, base_url=emulator.base_url, ledger=ledger) as piapi:
        receiver = WebhookReceiver(piapi, secret=secret, url=f"http://127.0.0.1:{port}/piapi", **options)
        application = web.Application()
        application.add_routes(receiver.routes())
        async with listening(application, socket.create_server(("127.0.0.1", port))):
            yield piapi, receiver


async def test_a_receiver_in_a_later_process_gives_unknown_submits_their_tasks(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 10) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (piapi, receiver):
            assert len(await ledger.unknown()) == 10
            await asyncio.sleep(100.0)

            assert receiver.counts["adopted"] == 10
            assert await ledger.unknown() == []
            entries = {entry.key: entry.task_id for entry in await ledger.pending()}
            assert set(entries.values()) == set(made(emulator))
            for number, request in enumerate(rerolls(10)):
                handle = await piapi.submit(request, key=f"k{number}")
                assert handle.task_id == entries[f"k{number}"]
                assert (await handle.wait()).state is TaskState.DONE
            assert emulator.seen.creates == 10


async def test_a_delivery_to_another_worker_is_adopted_for_the_one_that_waits(tmp_path: Path, case: FamilyCase) -> None:
    path = tmp_path / "run.db"
    async with (
        hooked({"ledger": Ledger(path)}, durations=5.0) as (emulator, second, receiver),
        PiAPI(KEY, base_url=second._caller.transport.base_url, ledger=Ledger(path)) as first,
    ):
        WebhookReceiver(first, secret=SECRET, url=receiver.url, adopt=60.0)
        emulator.fail("create", Drop(after_body=True))

        handle = await first.submit(case.reroll("p"), key="k")

        assert [handle.task_id] == made(emulator)
        assert receiver.counts["adopted"] == 1
        assert [] == await second._ledger.unknown() if second._ledger is not None else None


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
            await receiver.handle({"x-webhook-secret": "another"}, delivery(task_id), query=nonce_of(emulator, task_id))
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
                    HEADERS, delivery(task_id, "processing", progress=progress), query=nonce_of(emulator, task_id)
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
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=20.0) as (emulator, piapi, receiver):
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
    async with hooked(client, {"adopt": 1.0}, durations=30.0, concurrency=50) as (emulator, piapi, receiver):
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


# -- many -----------------------------------------------------------------------------------------------------------


async def test_a_thousand_tasks_end_though_deliveries_are_lost_doubled_and_reordered() -> None:
    faults = WebhookFaults(lost=0.1, duplicated=0.1, reordered=0.1)
    async with hooked(
        {"poll": PollPolicy()},
        durations={"reroll": SPREAD},
        concurrency=1000,
        seed=7,
        latency={"fetch": 0.05, "multi_fetch": 0.05},
        webhook_faults=faults,
    ) as (emulator, piapi, receiver):
        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(1000)))
        tasks = await wait_all(handles)
        await asyncio.sleep(60.0)

        assert all(not isinstance(task, Exception) for task in tasks)
        came = {sent.task_id: sent.at for sent in reversed(emulator.seen.deliveries) if not sent.lost}
        told = Counter(sent.task_id for sent in emulator.seen.deliveries if not sent.lost)
        assert len(came) < 930
        assert receiver.counts["accepted"] == told.total()
        after = [
            max(0.0, emulator.seen.detection[task_id] - (at - (emulator.machine.tasks[task_id].ended or 0.0)))
            for task_id, at in came.items()
        ]
        assert sum(after) / len(after) < 0.2
        assert asked(emulator) - len(came) <= 200


async def test_progress_of_many_that_is_lost_doubled_and_reordered_leads_to_the_end_all_the_same() -> None:
    faults = WebhookFaults(lost=0.1, duplicated=0.1, reordered=0.3, delayed=0.1, delay=10.0)
    async with hooked(
        {"poll": PollPolicy()},
        durations={"reroll": SPREAD},
        concurrency=100,
        progress_step=20,
        webhook_faults=faults,
    ) as (emulator, piapi, _):
        requests = [Reroll("6886fc4d", prompt=f"cat {number}", notify_progress=True) for number in range(100)]
        handles = await asyncio.gather(*(piapi.submit(request) for request in requests))
        runs = await asyncio.gather(*(read(handle.updates()) for handle in handles))

        for seen, error in runs:
            assert error is None
            assert seen[-1].state is TaskState.DONE
            progress = [task.progress or 0 for task in seen]
            assert progress == sorted(progress)
        assert asked(emulator) <= 130


async def test_a_receiver_that_is_down_for_a_while_loses_nothing(case: FamilyCase) -> None:
    async with serving({"poll": PollPolicy()}, durations={"reroll": SPREAD}, concurrency=60) as (_, piapi):
        at = socket.create_server(("127.0.0.1", 0))
        port = port_of(at)
        receiver = WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port}/piapi")

        async def serve(seconds: float, at: socket.socket) -> None:
            application = web.Application()
            application.add_routes(receiver.routes())
            async with listening(application, at):
                await asyncio.sleep(seconds)

        handles = await asyncio.gather(*(piapi.submit(request) for request in rerolls(60, case.reroll)))
        waits = asyncio.create_task(wait_all(handles))
        await serve(30.0, at)
        await asyncio.sleep(15.0)
        await serve(200.0, socket.create_server(("127.0.0.1", port)))

        assert all(not isinstance(task, Exception) for task in await waits)
        assert 0 < receiver.counts["accepted"] < 60


async def test_a_process_that_starts_again_in_the_middle_loses_nothing(tmp_path: Path, case: FamilyCase) -> None:
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations={"reroll": SPREAD}, concurrency=50, seed=5)
    async with no_leaks(), emulator.run():
        port = free()
        async with later_process(emulator, port, Ledger(tmp_path / "ledger")) as (piapi, receiver):
            emulator.fail("create", LOST, nth=31, times=20)
            submits = [
                asyncio.create_task(piapi.submit(request, key=f"k{number}"))
                for number, request in enumerate(rerolls(50, case.reroll))
            ]
            await asyncio.sleep(20.0)
            adopted = receiver.counts["adopted"]
        assert 0 < adopted < 20
        await asyncio.gather(*submits, return_exceptions=True)
        async with later_process(emulator, port, Ledger(tmp_path / "ledger")) as (piapi, receiver):
            await asyncio.sleep(200.0)
            handles = [
                await piapi.submit(request, key=f"k{number}") for number, request in enumerate(rerolls(50, case.reroll))
            ]
            tasks = await wait_all(handles)

            assert receiver.counts["adopted"] == 20 - adopted
            assert all(not isinstance(task, Exception) for task in tasks)
            assert {handle.task_id for handle in handles} == set(made(emulator))
            assert emulator.seen.creates == 50


# -- secrets --------------------------------------------------------------------------------------------------------


async def test_the_secret_is_in_no_repr_log_error_or_file(
    everything_logged: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client = {"ledger": Ledger(tmp_path / "ledger")}
    async with hooked(client, {"adopt": 5.0}, durations=30.0, webhook_faults=SILENT) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL, key="fine")
        emulator.fail("reroll", LOST)
        with pytest.raises(SubmissionUnknown) as unknown:
            await piapi.submit(REROLL, key="lost")
        emulator.fail("reroll", Status(400))
        with pytest.raises(APIError) as refused:
            await piapi.submit(REROLL, key="refused")
        with pytest.raises(WebhookRejected) as rejected:
            await receiver.handle(HEADERS, b'{"webhook_secret": "hook-5eCr3t')
        echo = {"meta": {"task_request": {"webhook_secret": SECRET}}, "config": {"webhook_config": {"secret": SECRET}}}
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
