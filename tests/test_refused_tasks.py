"""A refusal may name a task, which has failed: it fits the next submission of its key, and is not that one's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from support.hooking import HEADERS, SECRET, delivery
from support.scripted import page, said, scripted
from support.serving import KEY, now

from piapi_async import (
    BatchRunner,
    CreateTask,
    Imagine,
    Ledger,
    LedgerError,
    PiAPI,
    RateLimitError,
    SubmissionUnknown,
    WebhookReceiver,
)
from piapi_async._submit.peers import Peers

pytestmark = pytest.mark.looptime

MODEL = "Qubico/flux1-schnell"
CAT = CreateTask(MODEL, "txt2img", {"prompt": "a cat"})
IMAGINED = Imagine("a cat")
URL = "http://127.0.0.1:8088/piapi"


@define
class Host:
    """Refuses the first create and names the task "refused", which has failed; loses all later answers."""

    begun: float = field(factory=lambda: time.time() - now())
    creates: int = 0
    accepts: bool = False  # later creates, and names the same task
    endpoint: str = ""

    def answer(self, path: str, body: Any) -> bytes:
        if path in {"/api/v1/task", "/mj/v2/imagine"}:
            self.creates += 1
            self.endpoint = body.get("webhook_endpoint") or ""
            if self.creates == 1:
                return said({"code": 429, "data": {"task_id": "refused"}}, 429)
            if self.accepts:
                return self.unified({"task_id": "refused", "status": "pending"})
            return page(502)

        if path == "/mj/v2/fetch":
            return said(self.legacy(body["task_id"]))
        if path.startswith("/api/open"):
            rows = [self.row("refused"), self.row("made")]
            return self.unified({"data": rows, "page": 1, "size": 100, "total": 2})
        return self.unified(self.task(path.rsplit("/", 1)[1]))

    def unified(self, data: Any) -> bytes:
        return said({"code": 200, "data": data, "message": "success"})

    def row(self, task_id: str) -> dict[str, Any]:
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.begun + now()))
        return {"id": task_id, "task_id": task_id, "task_model": MODEL, "created_at": created}

    def task(self, task_id: str) -> dict[str, Any]:
        status = "failed" if task_id == "refused" else "processing"
        facts = {"task_id": task_id, "status": status, "model": MODEL, "task_type": "txt2img"}
        return {**facts, "input": {"prompt": "a cat"}}

    def legacy(self, task_id: str) -> dict[str, Any]:
        status = "failed" if task_id == "refused" else "processing"
        request = {"webhook_endpoint": self.endpoint, "webhook_secret": SECRET}
        return {"task_id": task_id, "status": status, "meta": {"task_request": request}, "task_result": {}}


def ended(task_id: str) -> dict[str, Any]:
    return {"task_id": task_id, "status": "completed", "output": {"image_url": "https://img.example/1.png"}}


async def be_refused(piapi: PiAPI, request: Any = CAT, key: str | None = "k") -> None:
    with pytest.raises(RateLimitError, match="names task refused, which is failed"):
        await piapi.submit(request, key=key)


@pytest.mark.parametrize("with_ledger", [True, False])
async def test_the_history_gives_the_next_submission_its_own_task(
    tmp_path: Path, *, with_ledger: bool
) -> None:
    ledger, key = (Ledger(tmp_path / "run.db"), "k") if with_ledger else (None, None)
    async with (
        scripted(Host().answer) as host,
        PiAPI(KEY, base_url=host.base_url, ledger=ledger) as piapi,
        PiAPI(KEY, base_url=host.base_url, ledger=ledger) as later,
    ):
        await be_refused(piapi, key=key)
        if with_ledger:
            later._runtime.submitter.finder._peers = Peers()  # as in another process
        assert (await later.submit(CAT, key=key)).task_id == "made"


async def test_a_late_delivery_of_it_does_not_take_the_next_submissions_place(tmp_path: Path) -> None:
    answers, ledger = Host(), Ledger(tmp_path / "run.db")
    async with scripted(answers.answer) as host, PiAPI(KEY, base_url=host.base_url, ledger=ledger) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=URL)
        await be_refused(piapi, IMAGINED)
        submit = asyncio.create_task(piapi.submit(IMAGINED, key="k"))
        await asyncio.sleep(5.0)

        query = answers.endpoint.partition("?")[2]
        await receiver.handle(HEADERS, delivery("refused", "failed"), query=query)
        await receiver.handle(HEADERS, delivery("made", "processing"), query=query)
        assert (await submit).task_id == "made"


async def test_the_ledger_keeps_it_apart_from_the_attempts_of_its_key(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with (
        scripted(Host().answer) as host,
        PiAPI(KEY, base_url=host.base_url, ledger=ledger, recover=0) as piapi,
    ):
        await be_refused(piapi)
        assert await ledger.find("k") is None

        with pytest.raises(SubmissionUnknown):
            await piapi.submit(CAT, key="k")
        with pytest.raises(LedgerError, match="refused"):
            await ledger.resolve("k", task_id="refused")

        await ledger.resolve("k", resubmit=True)
        assert await ledger.find("k") is None


async def test_a_response_that_gives_it_to_the_next_submission_is_right(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with (
        scripted(Host(accepts=True).answer) as host,
        PiAPI(KEY, base_url=host.base_url, ledger=ledger) as piapi,
    ):
        await be_refused(piapi)
        assert (await piapi.submit(CAT, key="k")).task_id == "refused"
        assert [entry.task_id for entry in await ledger.pending()] == ["refused"]


async def test_a_batch_that_waits_for_room_does_not_submit_anew_what_was_refused_so() -> None:
    creates: list[str] = []

    def answer(path: str, body: Any) -> bytes:
        if path == "/api/v1/task":
            creates.append(body["input"]["prompt"])
            if creates[-1] == "a cat":
                return said({"code": 429, "data": {"task_id": "refused"}}, 429)
            return said({"code": 200, "data": {"task_id": "fine", "status": "pending"}, "message": "success"})
        task = ended("fine")
        if path.endswith("/refused"):
            task = {"task_id": "refused", "status": "failed"}
        elif now() < 30.0:
            task = {"task_id": "fine", "status": "processing"}
        return said({"code": 200, "data": task, "message": "success"})

    async def items() -> AsyncIterator[CreateTask]:
        yield CreateTask(MODEL, "txt2img", {"prompt": "a dog"})
        await asyncio.sleep(1.0)
        yield CAT

    async with scripted(answer) as host, PiAPI(KEY, base_url=host.base_url) as piapi:
        fine, refused = await BatchRunner(piapi, concurrency="auto").run(items())

    assert fine.ok
    assert isinstance(refused.error, RateLimitError)
    assert str(refused.error.ref) == "refused"
    assert creates == ["a dog", "a cat"]
