"""A host whose multi-fetch fails for ever, while it shows each task by itself: waits end all the same."""

from __future__ import annotations

import asyncio

import pytest
from support.creating import json_answer, raw_host

from piapi_async import Imagine, PiAPI, wait_all

pytestmark = pytest.mark.looptime

MULTI = "/mj/v2/multi_fetch"
FAULTS = {
    "its own 500": json_answer(500, {"code": 500, "message": "no"}),
    "an edge's 502": json_answer(502, b"<html>Bad gateway</html>"),
    "a gateway's 504": json_answer(504, {"message": "Endpoint request timed out"}),
    "busy": json_answer(429, {"message": "too many requests"}),
    "cut off": json_answer(200, {"data": {}})[:-5],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_tasks_are_read_singly_where_multi_fetch_always_fails(fault: bytes) -> None:
    polls: list[str] = []

    def read(_: int) -> bytes:
        return (
            fault if MULTI in host.reads[-1] else json_answer(200, {"status": "finished", "task_result": {}})
        )

    async with (
        raw_host(lambda number: json_answer(200, {"task_id": f"t{number}"}), read) as host,
        PiAPI("sk-test", base_url=host.url, timeout=5) as piapi,
    ):
        handles = [await piapi.submit(Imagine(f"p{number}")) for number in range(5)]
        began = asyncio.get_running_loop().time()
        tasks = await wait_all(handles, timeout=600)
        polls += host.reads

    assert [task.status for task in tasks if not isinstance(task, Exception)] == ["finished"] * len(handles)
    assert asyncio.get_running_loop().time() - began < 90
    assert sum(MULTI in line for line in polls) < 10


async def test_a_host_that_is_down_is_not_asked_singly_for_every_task() -> None:
    down = [True]

    def read(_: int) -> bytes:
        if down[0]:
            return json_answer(503, b"<html>maintenance</html>")
        ids = [f"t{number}" for number in range(20)]
        if MULTI in host.reads[-1]:
            return json_answer(200, {"data": {name: {"task_id": name, "status": "finished"} for name in ids}})
        return json_answer(200, {"status": "finished", "task_result": {}})

    async with (
        raw_host(lambda number: json_answer(200, {"task_id": f"t{number}"}), read) as host,
        PiAPI("sk-test", base_url=host.url) as piapi,
    ):
        handles = [await piapi.submit(Imagine(f"p{number}")) for number in range(20)]
        waiting = asyncio.create_task(wait_all(handles, timeout=3600))
        await asyncio.sleep(600)
        asked = len(host.reads)
        down[0] = False
        tasks = await waiting

    assert [task.status for task in tasks if not isinstance(task, Exception)] == ["finished"] * len(handles)
    assert asked < 200  # two in ten seconds, and a few while it was found out
