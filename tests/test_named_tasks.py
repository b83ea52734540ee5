"""A task that an answer names in a way that no host is known to, a yes with the status of a no, and a parent's id."""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.creating import json_answer, raw_host
from support.families import FamilyCase
from support.tables import for_each

from piapi_async import APIError, InvalidRequestError, Ledger, PiAPI, Reroll, RetryPolicy, SubmissionUnknown
from piapi_async._http import HTTPResponse
from piapi_async._verdict import Verdict, judge_create
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

KEY = "sk-test-5eCr3t"
PARENT = "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"
REROLL = Reroll(PARENT, prompt="a cute cat")
NEW = "1aef33c7-4c0e-4a57-9d32-7f3d6b1c9e55"

OTHER_NAMES: tuple[dict[str, Any], ...] = (
    {"taskID": "T1"},
    {"Task-Id": "T1"},
    {"jobId": "T1"},
    {"task_ids": ["T1"]},
    {"task_id": ["T1"]},
    {"task_id": {"id": "T1"}},
    {"tasks": [{"id": "T1"}]},
    {"task": {"id": "T1"}},
    {"error": {"task_id": "T1"}},
    {"output": {"result": {"task_id": "T1"}}},
    {"body": {"of": {"some": {"gateway": {"task_id": "T1"}}}}},
    {"data": '{"task_id": "T1"}'},
    {"data": NEW},
    {"result": [NEW]},
    {"links": {"self": f"/api/v1/task/{NEW}"}},
)
NAMING = b'{"task_id":"T1","message":"too many requests"}'
OTHER_FORMS = (
    codecs.BOM_UTF8 + NAMING,
    NAMING.decode().encode("utf-16"),
    NAMING[:-1] + b',"why":"trop de requ\xeates"}',
    NAMING[:-1] + b',"wait":NaN}',
    NAMING + b"\n" + NAMING,
    b"[" + NAMING + b"]",
    b"data: " + NAMING + b"\n\n",
    b'{"task_id":"T1","deep":' + b"[" * 1100 + b"]" * 1100 + b"}",
    json.dumps(NAMING.decode()).encode(),
    b"<answer><task_id>T1</task_id></answer>",
    b"task_id=T1&message=busy",
)
HARMLESS: tuple[dict[str, Any], ...] = (
    {},
    {"task_id": ""},
    {"task_id": None},
    {"data": {"task_id": ""}},
    {"request_id": "req-8f14e45f"},
    {"origin_task_id": NEW},
    {"errors": {"task_id": ["is required"]}},
    {"task_request": {"origin_task_id": PARENT}},
    {"task": {"id": PARENT}},
    {"data": "try again later"},
)


def judged(status: int, body: object) -> Verdict:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge_create(HTTPResponse(status, text), REROLL).verdict


@for_each("status", [200, 302, 400, 429, 500, 521])
@for_each("name", OTHER_NAMES)
def test_what_may_be_a_tasks_id_leaves_nothing_certain(status: int, name: dict[str, Any]) -> None:
    no = (
        {"code": status, "message": "too many requests"}
        if status >= 400
        else {"status": "failed", "message": "no"}
    )
    assert judged(status, {**no, **name}) in (Verdict.UNKNOWN, Verdict.NAMED)


@for_each("status", [200, 302, 400, 429, 500, 521])
@for_each("body", OTHER_FORMS)
def test_a_task_is_seen_in_what_is_no_json_too(status: int, body: bytes) -> None:
    assert judged(status, body) in (Verdict.UNKNOWN, Verdict.NAMED)


@for_each("extra", HARMLESS)
def test_what_names_no_new_task_is_a_no_as_before(extra: dict[str, Any]) -> None:
    assert judged(429, {"message": "too many requests", **extra}) is Verdict.RETRY
    assert judged(400, {"message": "prompt: invalid value", **extra}) is Verdict.RAISE


@pytest.mark.storm
@for_each("body", [b'{"task_id": ' * 200_000, b"task_id:" * 500_000, b"task_id" + b">" * 4_000_000])
def test_a_long_answer_is_searched_in_no_time(body: bytes) -> None:
    began = time.process_time()
    judged(429, body)
    assert time.process_time() - began < 5


@for_each(
    "body",
    [{"status": "success", "message": ""}, {"success": True}, {"message": "Success."}, {"status": "queued"}],
)
@for_each("status", [302, 400, 403, 422, 429])
def test_a_yes_with_the_status_of_a_no_is_neither(status: int, body: dict[str, Any]) -> None:
    assert judged(status, body) is Verdict.UNKNOWN
    assert judged(status, {"status": "success", "message": "parent task is outdated"}) is not Verdict.UNKNOWN


@for_each(
    "text",
    [
        "internal error",
        "socket hang up",
        "read ECONNRESET",
        "Remote end closed connection without response",
        "rpc error: code = Unavailable desc = transport is closing",
        "invalid character '<' looking for beginning of value",
        "Unexpected token < in JSON at position 0",
        "'NoneType' object has no attribute 'get'",
        "http2: client connection lost",
        "use of closed network connection",
        "bad response status code 502",
        "系统繁忙",
    ],
)
def test_a_crash_or_a_lost_connection_behind_the_host_is_no_refusal(text: str) -> None:
    assert judged(500, {"code": 500, "message": text}) is Verdict.UNKNOWN
    assert judged(200, {"code": 500, "message": text}) is Verdict.UNKNOWN


@for_each("text", ["index out of range", "rpc error: code = InvalidArgument desc = no prompt"])
def test_what_only_looks_like_a_crash_is_a_refusal(text: str) -> None:
    assert judged(400, {"code": 400, "message": text}) is Verdict.RAISE


@for_each(
    "text",
    [
        "request accepted, quota left 5",
        "Task created; its link expires, expired ones are not found",
        "queued: not enough workers",
    ],
)
def test_a_text_that_says_it_was_made_is_no_refusal(text: str) -> None:
    assert judged(200, {"message": text}) is Verdict.UNKNOWN
    assert judged(200, {"message": "task was not created: not enough credit"}) is Verdict.RAISE


def test_who_gave_up_waiting_for_the_host_does_not_know() -> None:
    assert judged(499, {"code": 499, "message": "client closed request"}) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "body", [*OTHER_FORMS[:4], b'{"taskID":"T1"}', b'{"status":"success"}'], ids=range(6)
)
async def test_an_answer_that_may_have_made_a_task_is_not_sent_again(
    body: bytes, case: FamilyCase, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with (
        raw_host(lambda _: json_answer(429, body)) as host,
        PiAPI(KEY, base_url=host.url, ledger=ledger, retry=RetryPolicy(attempts=6, initial=0.0)) as piapi,
    ):
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(case.reroll("p"), key="k")
        entry = await ledger.find("k")

    assert len(host.creates) == 1
    assert entry is not None
    assert entry.state is LedgerState.UNKNOWN


@pytest.mark.parametrize("shape", [{"task_id": PARENT}, {"data": {"task_id": PARENT}}])
async def test_a_refusal_that_names_the_parent_is_no_new_task(shape: dict[str, Any]) -> None:
    body = {"status": "failed", "message": "this parent is no grid", **shape}
    async with raw_host(lambda _: json_answer(400, body)) as host, PiAPI(KEY, base_url=host.url) as piapi:
        with pytest.raises(InvalidRequestError, match="nothing was paid"):
            await piapi.submit(REROLL)

    assert len(host.creates) == 1
    assert host.reads == []


async def test_a_yes_that_names_the_parent_is_no_new_task() -> None:
    body = {"task_id": PARENT, "status": "success", "message": ""}
    async with raw_host(lambda _: json_answer(200, body)) as host, PiAPI(KEY, base_url=host.url) as piapi:
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(REROLL)

    assert len(host.creates) == 1


async def test_a_task_that_is_named_and_not_visible_yet_is_read_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    denied = json_answer(400, {"message": "task not found"})
    reads = [denied, denied, json_answer(200, {"task_id": "T1", "status": "pending"})]
    async with (
        raw_host(
            lambda _: json_answer(500, {"task_id": "T1", "message": "busy"}), lambda n: reads[n]
        ) as host,
        PiAPI(KEY, base_url=host.url, ledger=ledger, recover=0) as piapi,
    ):
        handle = await piapi.submit(REROLL, key="k")

        assert (handle.task_id, len(host.creates), len(host.reads)) == ("T1", 1, 3)


async def test_one_that_stays_unknown_to_the_host_is_a_refusal() -> None:
    denied = json_answer(400, {"message": "task not found"})
    began = asyncio.get_running_loop().time()
    async with (
        raw_host(lambda _: json_answer(500, {"task_id": "T1", "message": "busy"}), lambda _: denied) as host,
        PiAPI(KEY, base_url=host.url, recover=0) as piapi,
    ):
        with pytest.raises(APIError, match="which the host does not know: nothing was paid"):
            await piapi.submit(REROLL)

        assert len(host.reads) > 3
    assert 4 <= asyncio.get_running_loop().time() - began < 7


async def test_a_close_while_it_is_read_tells_the_task_that_was_named() -> None:
    denied = json_answer(400, {"message": "task not found"})
    async with raw_host(
        lambda _: json_answer(500, {"task_id": "T1", "message": "busy"}), lambda _: denied
    ) as host:
        piapi = PiAPI(KEY, base_url=host.url, recover=0, timeout=0.3)
        submitting = asyncio.create_task(piapi.submit(REROLL))
        while not host.reads:
            await asyncio.sleep(0.01)
        await piapi.close()

        with pytest.raises(SubmissionUnknown, match="it is not certain to be task") as caught:
            await submitting
    assert caught.value.ref is not None
    assert caught.value.ref.task_id == "T1"
