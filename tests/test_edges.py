"""Edges, gateways and half-documented hosts between us and a task: on a read only the host's own words count."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define
from support.scripted import ScriptedHost, page, said, scripted
from support.serving import KEY, now

from piapi_async import (
    LEGACY,
    UNIFIED,
    APIError,
    AuthenticationError,
    BatchRunner,
    NotFoundError,
    PiAPI,
    PollPolicy,
    Reroll,
    RetryPolicy,
    Task,
    TaskState,
    wait_all,
)

pytestmark = pytest.mark.looptime

MULTI, SINGLE = "/mj/v2/multi_fetch", "/mj/v2/fetch"


def legacy(task_id: str, *, done: bool) -> dict[str, Any]:
    return {"task_id": task_id, "status": "finished" if done else "processing", "task_result": {}}


@define
class Host:
    """An honest host, all of whose tasks end at the same time; `edge` may answer in its place."""

    ends: float = 30.0
    edge: Callable[[str, Any], bytes | None] = lambda _path, _body: None
    made: int = 0

    def __call__(self, path: str, body: Any) -> bytes:
        if (instead := self.edge(path, body)) is not None:
            return instead
        done = now() >= self.ends
        if path == MULTI:
            return said({"data": {task_id: legacy(task_id, done=done) for task_id in body["task_ids"]}})
        if path == SINGLE:
            return said(legacy(body["task_id"], done=done))
        if path == "/mj/v2/reroll":
            self.made += 1
            return said({"task_id": f"made-{self.made}", "status": "success", "message": ""})
        task_id = path.rsplit("/", 1)[-1]
        data: Any = {"task_id": task_id, "status": "completed" if done else "processing", "output": {}}
        return said({"code": 200, "data": data, "message": "success"})


@asynccontextmanager
async def behind(host: Host, **options: Any) -> AsyncIterator[tuple[ScriptedHost, PiAPI]]:
    """Give the server and a client of it that looks every second."""
    host.ends += now()
    async with scripted(host) as server:
        settings: dict[str, Any] = {"base_url": server.base_url, "poll": PollPolicy.every(1.0)}
        async with PiAPI(KEY, **(settings | options)) as piapi:
            yield server, piapi


def once(status: int) -> Callable[[str, Any], bytes | None]:
    """Have the edge answer one read with a page."""
    left = [page(status)]
    return lambda path, _: left.pop() if left and path != "/mj/v2/reroll" else None


def until(seconds: float, answer: bytes) -> Callable[[str, Any], bytes | None]:
    """Have the edge answer everything so until that time."""
    return lambda _path, _body: answer if now() < seconds else None


# -- the key is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("family", [LEGACY, UNIFIED], ids=["legacy", "unified"])
async def test_one_page_of_an_edge_ends_none_of_ten_waits(status: int, family: Any) -> None:
    async with behind(Host(edge=once(status))) as (_, piapi):
        tasks = await wait_all(
            [piapi.attach(f"t{number}", family=family) for number in range(10)], timeout=60
        )

        assert [type(task) for task in tasks] == [Task] * 10


@pytest.mark.parametrize("status", [401, 403])
async def test_one_page_of_an_edge_stops_no_batch(status: int) -> None:
    requests = [Reroll("6886fc4d", prompt=f"cat {number}") for number in range(12)]
    host = Host(edge=once(status))
    async with behind(host) as (_, piapi):
        outcomes = await BatchRunner(piapi, concurrency=4).run(requests)

        assert [outcome.ok for outcome in outcomes] == [True] * 12
        assert host.made == 12


@pytest.mark.parametrize(
    "body", [{"message": "invalid key"}, {"code": 401, "message": "invalid key", "data": None}]
)
async def test_the_hosts_own_word_ends_every_wait_at_once(body: Any) -> None:
    async with behind(Host(edge=until(1e9, said(body, 401)))) as (_, piapi):
        began = now()
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(10)])

        assert [type(task) for task in tasks] == [AuthenticationError] * 10
        assert now() - began < 1.0


async def test_an_edge_that_refuses_for_a_minute_ends_every_wait() -> None:
    async with behind(Host(edge=until(1e9, page(403)))) as (_, piapi):
        began = now()
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(10)])

        assert [type(task) for task in tasks] == [AuthenticationError] * 10
        assert 60.0 <= now() - began <= 75.0


async def test_an_edge_that_refuses_for_almost_a_minute_ends_none() -> None:
    began = now()
    async with behind(Host(edge=until(began + 50.0, page(403)))) as (_, piapi):
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(10)])

        assert [type(task) for task in tasks] == [Task] * 10


async def test_an_edge_that_lets_only_plain_fetches_pass_ends_none() -> None:
    host = Host(ends=200.0, edge=lambda path, _: page(403) if path == MULTI else None)
    async with behind(host) as (server, piapi):
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(4)])

        assert [type(task) for task in tasks] == [Task] * 4
        assert server.count(MULTI) <= 4


# -- other statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 400, 404, 405, 410, 422, 451, 501, 511])
@pytest.mark.parametrize("family", [LEGACY, UNIFIED], ids=["legacy", "unified"])
async def test_pages_of_an_edge_for_a_minute_end_no_wait(status: int, family: Any) -> None:
    async with behind(Host(edge=until(now() + 70.0, page(status)))) as (_, piapi):
        task = await piapi.attach("t1", family=family).wait(timeout=200)

        assert task.state is TaskState.DONE


@pytest.mark.parametrize("status", [404, 410])
async def test_an_unknown_task_ends_its_wait_only_in_the_hosts_own_words(status: int) -> None:
    async with behind(Host(edge=until(1e9, said({"message": "task not found"}, status)))) as (_, piapi):
        began = now()
        with pytest.raises(NotFoundError):
            await piapi.attach("t1").wait(timeout=100)

        assert 5.0 <= now() - began <= 7.0


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_page_instead_of_a_multi_fetch_costs_ten_minutes_of_plain_ones(status: int) -> None:
    pages = [page(status)]
    host = Host(ends=1200.0, edge=lambda path, _: pages.pop() if pages and path == MULTI else None)
    async with behind(host, poll=PollPolicy.every(30.0)) as (server, piapi):
        waits = asyncio.gather(*[piapi.attach(f"t{number}").wait() for number in range(20)])
        await asyncio.sleep(500.0)
        assert server.count(MULTI) == 1
        await asyncio.sleep(250.0)
        singly = server.count(SINGLE)
        assert server.count(MULTI) > 1

        await waits

        assert server.count(SINGLE) == singly


async def test_a_fetch_is_tried_again_through_an_edge_and_none_is_only_the_hosts_to_say() -> None:
    async with behind(Host(ends=0.0, edge=once(404))) as (_, piapi):
        assert (await piapi.fetch("t1")).state is TaskState.DONE
    async with behind(Host(edge=until(1e9, page(404))), retry=RetryPolicy.never()) as (_, piapi):
        with pytest.raises(NotFoundError):
            await piapi.fetch_many(["t1"])


# -- entries that cannot be read ----------------------------------------------------------------------------------

ENTRIES: dict[str, Callable[[str], Any]] = {
    "swapped": lambda _: legacy("another", done=True),
    "without a status": lambda task_id: {"task_id": task_id, "task_result": {}},
    "enveloped": lambda task_id: {"code": 200, "data": legacy(task_id, done=True), "message": "success"},
    "a text": lambda _: "finished",
    "a list": lambda task_id: [legacy(task_id, done=True)],
    "a number": lambda _: 42,
    "a status that is none": lambda task_id: {"task_id": task_id, "status": {"word": "finished"}},
}
each_entry = pytest.mark.parametrize("entry", ENTRIES.values(), ids=list(ENTRIES))


@each_entry
async def test_an_entry_that_cannot_be_read_is_asked_for_singly_at_once(entry: Callable[[str], Any]) -> None:
    def edge(path: str, body: Any) -> bytes | None:
        return (
            said({"data": {task_id: entry(task_id) for task_id in body["task_ids"]}})
            if path == MULTI
            else None
        )

    async with behind(Host(ends=0.0, edge=edge)) as (server, piapi):
        began = now()
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(5)], timeout=20)

        assert [type(task) for task in tasks] == [Task] * 5
        assert now() - began < 1.0
        assert (server.count(MULTI), server.count(SINGLE)) == (1, 5)


@each_entry
async def test_one_such_entry_costs_its_neighbours_nothing(entry: Callable[[str], Any]) -> None:
    def edge(path: str, body: Any) -> bytes | None:
        if path != MULTI:
            return None
        ids = body["task_ids"]
        return said(
            {"data": {each: entry(each) if each == "t0" else legacy(each, done=now() >= 30) for each in ids}}
        )

    async with behind(Host(edge=edge)) as (server, piapi):
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(5)], timeout=60)

        assert [type(task) for task in tasks] == [Task] * 5
        assert {body["task_id"] for path, body in server.asked if path == SINGLE} == {"t0"}


async def test_a_result_that_is_a_list_is_read_where_it_stands() -> None:
    def edge(path: str, body: Any) -> bytes | None:
        entry = {"status": "finished", "task_result": ["https://img.test/1.png"]}
        return said({"data": dict.fromkeys(body["task_ids"], entry)}) if path == MULTI else None

    async with behind(Host(edge=edge)) as (server, piapi):
        tasks = await wait_all([piapi.attach(f"t{number}") for number in range(2)], timeout=20)

        assert [isinstance(task, Task) and task.images for task in tasks] == [("https://img.test/1.png",)] * 2
        assert server.count(SINGLE) == 0


@each_entry
async def test_fetch_many_reads_such_entries_singly_and_keeps_the_order(entry: Callable[[str], Any]) -> None:
    def edge(path: str, body: Any) -> bytes | None:
        if path != MULTI:
            return None
        ids = body["task_ids"]
        return said(
            {"data": {each: entry(each) if each == "t1" else legacy(each, done=True) for each in ids}}
        )

    async with behind(Host(ends=0.0, edge=edge)) as (_, piapi):
        found = await piapi.fetch_many(["t0", "t1", "t2"])

        assert [(task_id, task and task.task_id) for task_id, task in found.items()] == [
            ("t0", "t0"),
            ("t1", "t1"),
            ("t2", "t2"),
        ]


async def test_a_task_of_which_nothing_can_be_read_is_told_of_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def edge(path: str, body: Any) -> bytes | None:
        if path == MULTI:
            return said(
                {
                    "data": {
                        each: "?" if each == "t0" else legacy(each, done=False) for each in body["task_ids"]
                    }
                }
            )
        return said("?") if path == SINGLE and body["task_id"] == "t0" else None

    async with behind(Host(ends=1000.0, edge=edge)) as (_, piapi):
        waits = [asyncio.create_task(piapi.attach(f"t{number}").wait()) for number in range(3)]
        await asyncio.sleep(300.0)
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)

    assert len(told) == 1
    assert "task t0 for a minute" in told[0]


async def test_words_that_a_host_makes_up_all_the_time_are_told_of_a_hundred_times_at_most(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def edge(path: str, body: Any) -> bytes | None:
        word = f"{now()}-" + "x" * 100_000
        return (
            said({"task_id": body["task_id"], "status": word}) if path == SINGLE and now() < 300.0 else None
        )

    async with behind(Host(edge=edge)) as (_, piapi):
        await piapi.attach("t1").wait()

        told = [text for text in caplog.messages if "unknown status" in text]
        assert len(told) == 100
        assert max(map(len, told)) < 300
        assert len(piapi._runtime.poller._unknown_statuses) <= 100


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
async def test_of_an_error_text_of_five_megabytes_little_is_kept(status: int) -> None:
    answer = said({"message": "no such task " + "x" * 5_000_000}, status)
    async with behind(Host(edge=until(1e9, answer)), retry=RetryPolicy.never()) as (_, piapi):
        with pytest.raises(APIError) as caught:
            await piapi.fetch("t1")

        assert 0 < len(caught.value.message) <= 1000
        assert len(str(caught.value)) < 1000
        assert len(caught.value.body) < 1000
