"""A delivery proves nothing: a lost submission is given a task only after a read that carries its nonce."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.families import CASES, FamilyCase
from support.hooking import (
    DELIVERY,
    HEADERS,
    SECRET,
    SILENT,
    deliver,
    delivery,
    early_reports,
    hooked,
    later_process,
    made,
    nonce_of,
    post,
    unknown_submits,
)
from support.scripted import page, said, scripted
from support.serving import KEY, REROLL, now, serving, turns

from piapi_async import Ledger, PiAPI, PollPolicy, Reroll, RetryPolicy, SubmissionUnknown, WebhookReceiver
from piapi_async.emulator import Status
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

URL = "http://127.0.0.1:8088/piapi"
SEND = DELIVERY


class ForgetfulHost:
    """A raw host that takes a submission, loses the answer, and tells of tasks as it is told to."""

    def __init__(self, task: Callable[[str, str], Any]) -> None:
        self.task = task
        self.endpoint = ""
        self.reads: list[str] = []

    def __call__(self, path: str, body: Any) -> bytes:
        if path == "/mj/v2/fetch":
            self.reads.append(body["task_id"])
            answer = self.task(body["task_id"], self.endpoint)
            return answer if isinstance(answer, bytes) else said(answer)
        self.endpoint = body["webhook_endpoint"]
        return page(502)

    @property
    def query(self) -> str:
        return self.endpoint.partition("?")[2]


def legacy(task_id: str, endpoint: str) -> dict[str, Any]:
    request = {"webhook_endpoint": endpoint, "webhook_secret": SECRET}
    return {"task_id": task_id, "status": "processing", "meta": {"task_request": request}, "task_result": {}}


async def lose(host: ForgetfulHost, receiver: WebhookReceiver, piapi: PiAPI) -> asyncio.Task[Any]:
    """Have the answer to a submission lost; give the submission, which waits for its delivery."""
    submit = asyncio.create_task(piapi.submit(REROLL))
    while not host.endpoint:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1.0)
    assert not submit.done()
    return submit


@pytest.mark.parametrize("confirm", [True, False])
async def test_a_task_whose_echo_carries_the_nonce_is_the_submissions(*, confirm: bool) -> None:
    host = ForgetfulHost(legacy)
    async with scripted(host) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL, confirm=confirm)
        submit = await lose(host, receiver, piapi)
        await receiver.handle(HEADERS, delivery("t1"), query=host.query)

        assert (await submit).task_id == "t1"
        assert host.reads == ["t1"]


OTHERS: dict[str, Callable[[str, str], Any]] = {
    "another's": lambda task_id, _: legacy(task_id, f"{URL}?piapi_nonce={'0' * 32}"),
    "none": lambda task_id, _: legacy(task_id, ""),
    "no endpoint": lambda task_id, _: {"task_id": task_id, "status": "finished", "task_result": {}},
    "unknown": lambda _task_id, _: said({"message": "task not found"}, 400),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=list(OTHERS))
@pytest.mark.parametrize("confirm", [True, False])
async def test_a_task_whose_echo_does_not_is_nobodys(
    other: Callable[[str, str], Any], *, confirm: bool
) -> None:
    host = ForgetfulHost(other)
    async with (
        scripted(host) as server,
        PiAPI(KEY, base_url=server.base_url, retry=RetryPolicy.never()) as piapi,
    ):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL, confirm=confirm, adopt_timeout=60.0)
        submit = await lose(host, receiver, piapi)
        for status in (
            "processing",
            "finished",
        ):  # whoever holds a task's id has secret and URL, and so the nonce
            await receiver.handle(HEADERS, delivery("stolen", status), query=host.query)

        with pytest.raises(SubmissionUnknown):
            await submit
        assert set(host.reads) == {"stolen"}
        assert receiver.counts["adopted"] == 0


async def test_the_right_task_is_found_among_wrong_ones() -> None:
    host = ForgetfulHost(lambda task_id, endpoint: legacy(task_id, endpoint if task_id == "mine" else ""))
    async with scripted(host) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        submit = await lose(host, receiver, piapi)
        for task_id in ("a", "b", "c", "mine"):
            await receiver.handle(HEADERS, delivery(task_id), query=host.query)

        assert (await submit).task_id == "mine"


async def test_thousands_of_wrong_ones_are_not_kept() -> None:
    host = ForgetfulHost(lambda task_id, _: legacy(task_id, ""))
    async with scripted(host) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL, adopt_timeout=30.0)
        submit = await lose(host, receiver, piapi)
        for number in range(2000):
            await receiver.handle(HEADERS, delivery(f"t{number}"), query=host.query)

        with pytest.raises(SubmissionUnknown):
            await submit
        assert len(host.reads) <= 16


@pytest.mark.parametrize("fault", [page(403), page(404), page(502), said({"nothing": "known"})])
async def test_a_read_that_fails_is_made_again(fault: bytes) -> None:
    began = now()
    host = ForgetfulHost(
        lambda task_id, endpoint: fault if now() < began + 40.0 else legacy(task_id, endpoint)
    )
    async with (
        scripted(host) as server,
        PiAPI(KEY, base_url=server.base_url, retry=RetryPolicy(attempts=2)) as piapi,
    ):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        submit = await lose(host, receiver, piapi)
        await receiver.handle(HEADERS, delivery("t1"), query=host.query)

        assert (await submit).task_id == "t1"
        assert now() < began + 60.0


async def test_what_was_delivered_is_read_once_more_by_the_close() -> None:
    host = ForgetfulHost(legacy)
    async with scripted(host) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        submit = await lose(host, receiver, piapi)
        await receiver.handle(HEADERS, delivery("t1"), query=host.query)
        await turns(1)
        await piapi.close()

        assert (await submit).task_id == "t1"


# -- by the ledger ------------------------------------------------------------------------------------------------


async def test_an_unknown_submission_of_an_earlier_process_is_given_no_task_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with unknown_submits(tmp_path / "ledger", 2) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger, confirm=False) as (piapi, receiver):
            first, second = made(emulator)
            await deliver(receiver, delivery(first, "processing"), nonce_of(emulator, second))
            await asyncio.sleep(1.0)

            assert len(await ledger.unknown()) == 2
            assert f"names task {first}" in caplog.text
            assert piapi.stats.foreign_deliveries == 1

            await deliver(receiver, delivery(second, "processing"), nonce_of(emulator, second))
            await asyncio.sleep(1.0)
            assert [entry.task_id for entry in await ledger.pending()] == [second]


async def test_what_could_not_be_read_is_looked_at_when_it_comes_again(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger) as (_, receiver):
            (task_id,) = made(emulator)
            emulator.fail("fetch", Status(401, body={"message": "not now"}))
            body, query = delivery(task_id, "processing"), nonce_of(emulator, task_id)
            await deliver(receiver, body, query)
            await asyncio.sleep(5.0)
            assert len(await ledger.unknown()) == 1

            await deliver(receiver, body, query)
            await asyncio.sleep(5.0)
            assert [entry.task_id for entry in await ledger.pending()] == [task_id]


async def test_the_end_that_the_read_shows_is_recorded_and_not_the_delivered_one(tmp_path: Path) -> None:
    async with unknown_submits(tmp_path / "ledger", 1) as (emulator, port):
        ledger = Ledger(tmp_path / "ledger")
        async with later_process(emulator, port, ledger, confirm=False) as (_, receiver):
            (task_id,) = made(emulator)
            emulator.end(task_id)
            await deliver(receiver, delivery(task_id, "failed"), nonce_of(emulator, task_id))
            await asyncio.sleep(1.0)

            entry = await ledger.find("k0")
            assert entry is not None
            assert (entry.state, entry.outcome) == (LedgerState.ENDED, "done")


# -- of other processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(CASES))
async def test_deliveries_about_tasks_of_others_are_counted(family: str) -> None:
    async with serving() as (_, piapi):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        for number in range(5):
            await deliver(receiver, SEND[family](f"t{number}"), f"piapi_nonce={number:032}")
        await deliver(receiver, SEND[family]("t5"))
        await turns()

        assert piapi.stats.foreign_deliveries == receiver.counts["unknown"] == 6


async def test_a_delivery_about_a_task_of_ours_is_not_counted_so(case: FamilyCase) -> None:
    async with hooked(durations=30.0, relied_on=False) as (_, piapi, receiver):
        handle = await piapi.submit(case.reroll("p"))
        await handle.wait()
        await asyncio.sleep(1.0)

        assert receiver.counts["accepted"] == 1
        assert piapi.stats.foreign_deliveries == 0


@pytest.mark.storm
@pytest.mark.parametrize("workers", [2, 4])
async def test_behind_one_url_no_worker_is_later_than_without_webhooks(workers: int) -> None:
    """Each delivery goes to any worker, as a balancer does it."""
    balancer = Random(1)  # noqa: S311 - a coin
    async with serving(durations=40.0, concurrency=200, queue=200) as (emulator, first):
        base_url = first._runtime.sender.transport.base_url
        clients = [PiAPI(KEY, base_url=base_url, poll=PollPolicy()) for _ in range(workers)]
        receivers = [WebhookReceiver(client, secret=SECRET, url=URL) for client in clients]
        late: list[float] = []

        async def follow(client: PiAPI, number: int) -> None:
            await asyncio.sleep(number * 3.0)
            handle = await client.submit(Reroll("6886fc4d", prompt=f"cat {number}"))
            ends = now() + 40.0
            await handle.wait()
            late.append(now() - ends)

        async def balance() -> None:
            while True:
                await asyncio.sleep(0.1)
                for task_id, task in list(emulator.engine.tasks.items()):
                    if task.ended is not None and task_id not in told and not task.adopted:
                        told.add(task_id)
                        receiver = balancer.choice(receivers)
                        await receiver.handle(HEADERS, delivery(task_id), query=nonce_of(emulator, task_id))

        told: set[str] = set()
        balancing = asyncio.create_task(balance())
        await asyncio.gather(*[follow(client, number) for number in range(30) for client in clients])
        balancing.cancel()
        await asyncio.gather(balancing, return_exceptions=True)
        for client in clients:
            await client.close()

    late.sort()
    assert late[int(0.9 * len(late))] <= 1.5
    assert late[-1] <= 3.0
    assert sum(client.stats.foreign_deliveries for client in clients) >= len(late) // 4


# -- bounds -------------------------------------------------------------------------------------------------------


async def test_a_delivery_that_echoes_a_mask_of_twelve_megabytes_is_read() -> None:
    async with hooked(durations=30.0, webhook_faults=SILENT) as (_, piapi, receiver):
        handle = await piapi.submit(REROLL)
        wait = asyncio.create_task(handle.wait())
        await asyncio.sleep(10.0)
        body = json.dumps(
            {"task_id": handle.task_id, "status": "processing", "mask": "x" * 12 * 2**20}
        ).encode()

        async def pieces() -> AsyncIterator[bytes]:
            """Read the body without a thread, for which the virtual clock would not wait."""
            for start in range(0, len(body), 2**16):
                yield body[start : start + 2**16]

        assert (await post(receiver.url, pieces()))[0] == 200
        wait.cancel()
        await asyncio.gather(wait, return_exceptions=True)

        assert receiver.counts["accepted"] == 1


async def test_of_large_bodies_four_are_read_at_a_time_and_small_ones_pass() -> None:
    async with hooked(webhook_faults=SILENT) as (_, _, receiver):
        port = int(receiver.url.rsplit(":", 1)[1].split("/")[0])
        body = delivery("big", padding="x" * 2 * 2**20)
        head = f"POST /piapi HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
        open_ones = []
        for _ in range(6):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body[: 2**20 + 2**19])  # more than a megabyte, and not all
            open_ones.append((reader, writer))
        while not receiver._large.locked():
            await asyncio.sleep(0)
        await deliver(receiver, delivery("small"))
        assert receiver.counts["accepted"] == 1

        for _, writer in open_ones:
            writer.write(body[2**20 + 2**19 :])
        answers = [await reader.readline() for reader, _ in open_ones]
        for _, writer in open_ones:
            writer.close()
            await writer.wait_closed()

        assert {answer.split()[1] for answer in answers} == {b"200"}
        assert not receiver._large.locked()


async def test_what_is_kept_of_deliveries_that_nobody_waits_for_is_small() -> None:
    async with serving() as (_, piapi):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        for number in range(300):
            await receiver.handle(
                HEADERS, delivery(f"t{number}", padding="x" * 100_000), query=f"piapi_nonce={number:032}"
            )
        unclaimed = piapi._runtime.correlation._unclaimed
        largest = max((len(repr(one)) for one in unclaimed), default=0)
        await turns(400)

        assert largest < 1_000
        assert piapi._runtime.correlation._unclaimed == []
        assert receiver.counts["unknown"] == 300
        assert max(map(len, early_reports(piapi))) <= 200
