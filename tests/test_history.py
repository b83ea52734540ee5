"""The task history of an account: what is asked for, what is read, page by page, and as a command."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support.any_json import JSON
from support.serving import KEY, serving
from support.tables import for_each
from support.threaded_emulator import threaded_emulator

from piapi_async import (
    UNIFIED,
    AuthenticationError,
    Cost,
    HistoryEntry,
    NotFoundError,
    PiAPI,
    PiAPIError,
    PollPolicy,
    RetryPolicy,
    UnexpectedAnswer,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async.account import GetHistory, HistoryPage
from piapi_async.cli import cli
from piapi_async.models import flux, kling

NOON = datetime(2026, 8, 1, 12, tzinfo=UTC)

# The schema of the vendor's page, with the ids replaced.
ROW: dict[str, Any] = {
    "id": 1,
    "account_id": "a",
    "action": "pay",
    "api_key_id": "k",
    "created_at": "2026-08-01T00:00:00Z",
    "updated_at": "2026-08-01T00:01:00Z",
    "deleted_at": None,
    "detail": {"model": "kling", "task_id": "x", "workflow_type": ""},
    "fixed": False,
    "service_mode": "public",
    "status": "completed",
    "task_id": "x",
    "task_model": "kling",
    "usage": 1,
    "usage_type": "point",
}


def response(data: object, status: int = 200) -> HTTPResponse:
    return HTTPResponse(status, orjson.dumps({"code": status, "data": data, "message": "success"}))


def page_of(*rows: Any, **around: Any) -> HistoryPage:
    return GetHistory().parse(response({"data": list(rows), "page": 1, "size": 10, "total": 1, **around}))


class TestPage:
    def test_is_asked_for(self) -> None:
        assert GetHistory().to_http() == HTTPRequest("GET", "/api/open/tasks/histories?page=1&page_size=100")

    def test_is_asked_for_by_model_and_time(self) -> None:
        half_past = NOON + timedelta(seconds=0.5)
        request = GetHistory(
            2, 10, "Qubico/flux1-dev", half_past.astimezone(timezone(timedelta(hours=2))), half_past
        )
        query = parse_qs(urlsplit(request.to_http().path).query)

        assert query == {
            "page": ["2"],
            "page_size": ["10"],
            "model": ["Qubico/flux1-dev"],
            "start_time": [str(int(NOON.timestamp()))],
            "end_time": [str(int(NOON.timestamp()) + 1)],
        }

    @for_each("name", ["since", "until"])
    @for_each("value", [NOON.replace(tzinfo=None), 1785585600, "2026-08-01"])
    def test_is_not_asked_for_by_a_time_without_a_zone(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError, match=rf"GetHistory\.{name}: .* with a time zone"):
            GetHistory(**{name: value})

    def test_is_read_field_by_field(self) -> None:
        (entry,) = page_of(ROW).entries

        assert entry == HistoryEntry(
            id="1",
            task_id="x",
            model="kling",
            status="completed",
            action="pay",
            cost=Cost(1, "point"),
            created_at=datetime(2026, 8, 1, tzinfo=UTC),
            updated_at=datetime(2026, 8, 1, 0, 1, tzinfo=UTC),
            service_mode="public",
            api_key_id="k",
        )
        assert entry.raw == ROW
        json.dumps(entry.to_dict())

    def test_of_a_host_that_tells_little_is_empty_where_it_is_silent(self) -> None:
        first, second = page_of({"detail": {"model": "luma", "task_id": "y"}}, {}).entries

        assert (first.task_id, first.model) == ("y", "luma")
        assert second == HistoryEntry()

    @for_each("data", [None, [], "text", {"data": {}}, {"data": "text"}])
    def test_that_is_none_is_not_understood(self, data: object) -> None:
        with pytest.raises(UnexpectedAnswer):
            GetHistory().parse(response(data))

    @for_each("data", [{}, {"data": None}, {"data": []}])
    def test_may_be_empty(self, data: object) -> None:
        assert GetHistory().parse(response(data)).entries == ()

    @given(st.dictionaries(st.sampled_from(sorted(ROW)), JSON) | JSON, JSON, JSON)
    def test_of_any_rows_is_read(self, row: Any, size: Any, total: Any) -> None:
        page = page_of(row, size=size, total=total)

        assert len(page.entries) == isinstance(row, dict)
        for entry in page.entries:
            entry.to_dict()


Answer = Callable[[dict[str, str]], Any]


@asynccontextmanager
async def hosting(answer: Answer, **client: Any) -> AsyncIterator[tuple[PiAPI, list[dict[str, str]]]]:
    """Give a client of a host whose history is what `answer` makes of a query, and the queries so far."""
    asked: list[dict[str, str]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        assert (request.path, request.headers["X-API-Key"]) == ("/api/open/tasks/histories", KEY)
        asked.append(dict(request.query))
        data = answer(asked[-1])
        if isinstance(data, web.Response):
            return data
        return web.json_response({"code": 200, "data": data, "message": "success"})

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with PiAPI(KEY, base_url=f"http://127.0.0.1:{runner.addresses[0][1]}", **client) as piapi:
            yield piapi, asked
    finally:
        await runner.cleanup()


def paged(rows: list[dict[str, Any]], *, most: int = 100, total: bool = True) -> Answer:
    """Give a host with these rows, that puts so many on a page at most."""

    def answer(query: dict[str, str]) -> dict[str, Any]:
        page, size = int(query["page"]), min(int(query["page_size"]), most)
        shown = rows[(page - 1) * size : page * size]
        return {"data": shown, "page": page, "size": size} | ({"total": len(rows)} if total else {})

    return answer


def rows(count: int) -> list[dict[str, Any]]:
    return [{**ROW, "id": number, "task_id": f"t{number}"} for number in range(count)]


async def ids(piapi: PiAPI, *args: Any) -> list[str]:
    return [entry.task_id async for entry in piapi.history(*args)]


class TestHistory:
    @pytest.mark.parametrize(
        ("count", "pages"), [(0, 1), (1, 1), (99, 1), (100, 1), (101, 2), (250, 3)], ids=str
    )
    async def test_pages_by_itself_a_hundred_rows_at_a_time(self, count: int, pages: int) -> None:
        async with hosting(paged(rows(count))) as (piapi, asked):
            assert await ids(piapi) == [f"t{number}" for number in range(count)]

        assert [query["page"] for query in asked] == [str(page + 1) for page in range(pages)]
        assert {query["page_size"] for query in asked} == {"100"}

    @pytest.mark.parametrize("total", [True, False])
    async def test_takes_the_pages_that_the_host_gives(self, total: bool) -> None:  # noqa: FBT001 - a parameter
        async with hosting(paged(rows(25), most=10, total=total)) as (piapi, asked):
            assert await ids(piapi) == [f"t{number}" for number in range(25)]

        assert len(asked) == (3 if total else 4)

    async def test_reads_a_page_only_when_it_is_needed(self) -> None:
        async with hosting(paged(rows(250))) as (piapi, asked):
            entries = piapi.history()
            await anext(entries)
            await entries.aclose()

        assert len(asked) == 1

    async def test_yields_a_row_once_that_moves_on_while_pages_are_read(self) -> None:
        there = rows(120)

        def answer(query: dict[str, str]) -> Any:
            found = paged(there)(query)
            there[:0] = [{**ROW, "id": f"new{query['page']}", "task_id": f"new{query['page']}"}]
            return found

        async with hosting(answer) as (piapi, _):
            assert await ids(piapi) == [f"t{number}" for number in range(120)]

    async def test_of_a_host_that_knows_no_pages_ends(self) -> None:
        def answer(_query: dict[str, str]) -> Any:
            return {"data": rows(3)}

        async with hosting(answer) as (piapi, asked):
            assert await ids(piapi) == ["t0", "t1", "t2"]

        assert len(asked) == 2

    async def test_is_read_again_over_passing_faults(self) -> None:
        faults = [web.Response(status=502), web.Response(status=429), web.Response(text="<html>")]

        def answer(query: dict[str, str]) -> Any:
            return faults.pop() if faults else paged(rows(2))(query)

        async with hosting(answer, retry=RetryPolicy(initial=0.001)) as (piapi, _):
            assert await ids(piapi) == ["t0", "t1"]

    @pytest.mark.parametrize(("status", "error"), [(404, NotFoundError), (401, AuthenticationError)])
    async def test_of_a_host_that_has_none_is_an_error(self, status: int, error: type[PiAPIError]) -> None:
        def answer(_query: dict[str, str]) -> Any:
            return web.json_response({"code": status, "message": "no"}, status=status)

        async with hosting(answer) as (piapi, _):
            with pytest.raises(error):
                await ids(piapi)

    async def test_between_times_that_are_the_wrong_way_round_is_refused(self) -> None:
        async with hosting(paged([])) as (piapi, asked):
            with pytest.raises(ValueError, match="is later than until"):
                await ids(piapi, None, NOON, NOON - timedelta(seconds=1))

        assert not asked


@pytest.mark.looptime
class TestServed:
    async def test_tells_of_every_task_that_was_paid_for(self) -> None:
        async with serving({"poll": PollPolicy.every(15.0)}, picture_size=32) as (_, piapi):
            cat = await (await piapi.submit(flux.TextToImage("a cat"))).wait(timeout=600)
            await (await piapi.submit(kling.Video("a cat"))).wait(timeout=600)

            entries = {entry.model: entry async for entry in piapi.history()}
            (only,) = [entry async for entry in piapi.history("kling")]
            entry = entries["Qubico/flux1-schnell"]
            task = await piapi.fetch(entry.task_id, family=UNIFIED)

            assert set(entries) == {"Qubico/flux1-schnell", "kling"}
            assert only == entries["kling"]
            assert (entry.task_id, entry.cost) == (cat.task_id, cat.cost)
            assert task.raw["input"] == {"prompt": "a cat"}


class TestCommand:
    @pytest.fixture
    def host(self) -> Any:
        with threaded_emulator(queue=1000) as (emulator, base_url):
            env = {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}
            for name in ("flux/txt2img", "kling/video_generation"):
                made = CliRunner().invoke(cli, ["run", name, "prompt=a cat", "--no-wait"], env=env)
                assert made.exit_code == 0, made.stderr
            yield env, [*emulator.engine.tasks]

    def run(self, host: Any, *words: str) -> Result:
        return CliRunner().invoke(cli, ["history", *words], env=host[0])

    def test_prints_a_line_for_each_task(self, host: Any) -> None:
        result = self.run(host)
        told = [json.loads(line) for line in result.stdout.splitlines()]

        assert result.exit_code == 0, result.stderr
        assert [entry["task_id"] for entry in told] == host[1][::-1]
        assert told[0]["model"] == "kling"
        assert set(told[0]["cost"]) == {"amount", "unit"}

    @pytest.mark.parametrize(
        ("words", "count"),
        [
            (["--model", "kling"], 1),
            (["--limit", "1"], 1),
            (["--since", "2000-01-01"], 2),
            (["--until", "2000-01-01T00:00:00Z"], 0),
            (["--since", "2000-01-01T00:00", "--until", "2999-01-01"], 2),
        ],
    )
    def test_prints_only_what_is_wanted(self, host: Any, words: list[str], count: int) -> None:
        result = self.run(host, *words)

        assert (result.exit_code, len(result.stdout.splitlines())) == (0, count), result.stderr

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--since", "yesterday"], "'yesterday' is not a time"),
            (["--since", "2026-08-02", "--until", "2026-08-01"], "--since is later than --until"),
            (["--limit", "0"], "--limit"),
        ],
    )
    def test_says_what_it_cannot_take(self, host: Any, words: list[str], told: str) -> None:
        result = self.run(host, *words)

        assert result.exit_code == 2
        assert told in result.stderr
