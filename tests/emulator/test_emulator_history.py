"""The history of an account: the one way to find a task whose create answer was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.emulating import Caller, emulating
from support.systems import PROMPT

from piapi_async.emulator import Dialect, Status

pytestmark = pytest.mark.looptime

PATH = "/api/open/tasks/histories"
EPOCH = 1_700_000_000


async def page(caller: Caller, query: str = "", **headers: str) -> Any:
    status, answer = await caller.call("GET", f"{PATH}?{query}", **headers)
    assert (status, answer["code"], answer["message"]) == (200, 200, "success"), answer
    return answer["data"]


async def ids(caller: Caller, query: str = "", **headers: str) -> list[str]:
    return [row["task_id"] for row in (await page(caller, query, **headers))["data"]]


async def test_a_row_is_as_the_vendor_publishes_it() -> None:
    async with emulating(epoch=EPOCH, durations=60.0) as caller:
        made = await caller.ask("kling", "video_generation", PROMPT, service_mode="private")
        running = (await page(caller))["data"][0]
        await asyncio.sleep(100)
        (row,) = (await page(caller))["data"]

        assert row == {
            "id": 1,
            "account_id": row["account_id"],
            "api_key_id": row["api_key_id"],
            "action": "pay",
            "created_at": made["meta"]["created_at"],
            "updated_at": (await caller.read(made["task_id"]))["meta"]["ended_at"],
            "deleted_at": None,
            "detail": {"model": "kling", "task_id": made["task_id"], "workflow_type": ""},
            "fixed": False,
            "service_mode": "private",
            "status": "completed",
            "task_id": made["task_id"],
            "task_model": "kling",
            "usage": 2_000_000,
            "usage_type": "llm",
        }
        assert running["status"] == "pending"
        assert row["account_id"] != row["api_key_id"]


async def test_the_latest_stand_first_page_by_page() -> None:
    async with emulating(concurrency=100) as caller:
        made = [await caller.create("imagine", prompt=f"cat {number}") for number in range(25)]
        first, last, beyond = [await page(caller, f"page={number}&page_size=10") for number in (1, 3, 4)]

        assert [row["task_id"] for row in first["data"]] == made[:14:-1]
        assert [row["task_id"] for row in last["data"]] == made[4::-1]
        assert (first["page"], first["size"], first["total"], beyond["data"]) == (1, 10, 25, [])
        assert (await page(caller))["size"] == 10
        assert (await page(caller, "page_size=1000"))["size"] == 100


async def test_a_page_may_be_smaller() -> None:
    async with emulating(dialect=Dialect(history_page=20), concurrency=100) as caller:
        for number in range(25):
            await caller.create("imagine", prompt=f"cat {number}")
        assert len(await ids(caller, "page_size=100")) == 20


async def test_models_and_times_are_filtered() -> None:
    async with emulating(epoch=EPOCH, concurrency=100) as caller:
        cat = await caller.create("imagine", prompt="a cat")
        await asyncio.sleep(100)
        dog = (await caller.ask("kling", "video_generation", PROMPT))["task_id"]

        assert await ids(caller, "model=kling") == [dog]
        assert await ids(caller, "model=midjourney") == [cat]
        assert await ids(caller, f"start_time={EPOCH + 50}") == [dog]
        assert await ids(caller, f"end_time={EPOCH + 50}") == [cat]
        assert await ids(caller, f"start_time={EPOCH}&end_time={EPOCH + 101}") == [dog, cat]
        assert await ids(caller, f"start_time={EPOCH + 102}") == []


async def test_a_row_may_be_late_or_come_with_the_end() -> None:
    for begins, expected in (("create", [0, 1, 1, 1]), ("end", [0, 0, 0, 1])):
        dialect = Dialect(history_lag=30.0, history_from=begins)  # type: ignore[arg-type]
        async with emulating(dialect=dialect, durations=60.0) as caller:
            await caller.create("imagine", prompt="a cat")
            counts = []
            for _ in range(4):
                counts.append(len(await ids(caller)))
                await asyncio.sleep(31)
            assert counts == expected


async def test_an_account_sees_its_own_tasks_and_which_key_paid() -> None:
    keys = ("one", "two")
    for shared, seen in ((False, 1), (True, 2)):
        async with emulating(api_keys=keys, dialect=Dialect(one_account=shared)) as caller:
            for key in keys:
                await caller.call("POST", "/mj/v2/imagine", PROMPT, **{"X-API-Key": key})
            caller.emulator.adopt("not made here")
            rows = (await page(caller, **{"X-API-Key": "two"}))["data"]

            assert len(rows) == seen
            assert len({row["api_key_id"] for row in rows}) == seen
            assert len({row["account_id"] for row in rows}) == 1


async def test_a_host_may_have_none() -> None:
    async with emulating(dialect=Dialect(history=False)) as caller:
        assert (await caller.call("GET", PATH)) == (
            404,
            {"code": 404, "data": None, "message": f"no such endpoint: {PATH}"},
        )
    async with emulating(dialect=Dialect(history=False, history_off_status=403)) as caller:
        assert (await caller.call("GET", PATH))[0] == 403
    async with emulating() as caller:
        caller.emulator.fail("history", Status(503))
        async with caller.session.get(PATH) as answer:
            assert answer.status == 503
        assert (await caller.call("GET", PATH, **{"X-API-Key": "wrong"}))[0] == 401


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page_size=-1", "page=²", "start_time=now", "end_time=1.5"]
)
async def test_a_query_that_makes_no_sense_is_refused(query: str) -> None:
    async with emulating() as caller:
        status, answer = await caller.call("GET", f"{PATH}?{query}")
        assert (status, answer["code"]) == (400, 400)
        assert answer["message"].startswith(f"invalid {query.partition('=')[0]}: must be ")


async def test_an_older_host_tells_the_account_flat() -> None:
    async with emulating(dialect=Dialect(account="flat")) as caller:
        _, answer = await caller.call("GET", "/account/info")
        assert answer.keys() == {"account_name", "account_id", "remaining", "equivalent_in_usd"}
    async with emulating(concurrency=7) as caller:
        _, answer = await caller.call("GET", "/account/info")
        assert answer["data"]["max_concurrent_task_count"] == 7
