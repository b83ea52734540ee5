"""What a delivery cannot do, and posts that are none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import json
import logging
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.families import FamilyCase
from support.hooking import (
    DELIVERY,
    HEADERS,
    SECRET,
    SILENT,
    asked,
    deliver,
    delivery,
    early_reports,
    hooked,
    post,
    rerolls,
    unified,
)
from support.serving import REROLL, TICK, now, read, turns
from yarl import URL

from piapi_async import (
    Ledger,
    PollPolicy,
    TaskState,
    WaitTimeout,
    WebhookRejected,
    wait_all,
)
from piapi_async._submit.nonces import NONCE
from piapi_async.emulator import WebhookFaults
from piapi_async.webhooks._event import MAX_BYTES

pytestmark = pytest.mark.looptime


# -- what it cannot do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
async def test_a_lie_with_the_right_secret_ends_no_wait(status: str, case: FamilyCase) -> None:
    async with hooked(webhook_faults=SILENT, durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(case.reroll("p"))
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(10.0)
        assert await post(
            receiver.url, DELIVERY[str(case)](handle.task_id, status, error_messages=["lies"])
        ) == (
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
    async with hooked({"poll": PollPolicy()}, webhook_faults=SILENT, durations=1000.0) as (
        emulator,
        piapi,
        receiver,
    ):
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
    async with hooked(durations=30.0, webhook_faults=WebhookFaults(duplicated=1.0)) as (
        emulator,
        piapi,
        receiver,
    ):
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
        told = [record for record in everything_logged.records if record.name == "piapi_async"]
        assert [record for record in told if record.levelno > logging.DEBUG] == []
        assert emulator.seen.requests.total() == 0


async def test_an_odd_end_is_looked_at_even_where_deliveries_are_believed(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
    [
        None,
        [],
        "x",
        7,
        {"task_progress": "x"},
        {"task_progress": [1]},
        {"image_url": {}},
        {"error_messages": 3},
    ],
)
async def test_an_odd_delivery_does_no_harm(
    confirm: bool,  # noqa: FBT001 - a table's column
    result: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
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
            start = (
                f'{{"task_id": "{handle.task_id}", "status": "{status}", "task_result": {{"deep": '.encode()
            )
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
        await asyncio.sleep(60.0)  # until aiohttp's server has done with what it would not read


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


async def test_a_post_that_breaks_off_is_rejected_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
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
            assert (await post(receiver.url, endless(pieces=288), secret))[0] == 403
        await asyncio.sleep(20.0)  # until aiohttp has given the connection up
        assert receiver.counts == {"rejected": 1}


@pytest.mark.storm
async def test_deliveries_leave_hardly_anything_behind() -> None:
    async with hooked() as (_, _, receiver), flat(2.0):
        for number in range(20):
            await deliver(receiver, delivery(f"t{number}", padding="x" * (MAX_BYTES - 200)))
        assert receiver.counts["accepted"] == 20


async def test_the_receiver_remembers_no_more_than_ten_thousand() -> None:
    async with hooked() as (_, piapi, receiver):
        for number in range(11_000):
            await receiver.handle(HEADERS, delivery(f"t{number}"))
        await turns()

        assert receiver.counts["unknown"] == 11_000
        assert max(len(piapi._runtime.correlation._seen), len(early_reports(piapi))) <= 10_000
        await deliver(receiver, delivery("t10999"))
        assert receiver.counts["duplicate"] == 1
