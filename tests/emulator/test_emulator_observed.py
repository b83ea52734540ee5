"""What the emulator counts and shows, what it costs, and how it is set up."""

from __future__ import annotations

import asyncio
import tracemalloc
from html.parser import HTMLParser
from typing import Any

import aiohttp
import orjson
import pytest
from support.emulating import emulating

from piapi_async._http import HTTPRequest
from piapi_async.emulator import PLANS, Constant, Dialect, Emulator, Plan, Seen, SlowFirstByte, Status
from piapi_async.emulator._api.host import Host
from piapi_async.emulator._api.router import Router
from piapi_async.emulator._api.view import View
from piapi_async.emulator._service.engine import TaskEngine
from piapi_async.emulator._service.verbs import midjourney_request

pytestmark = pytest.mark.looptime


async def test_it_counts_creates_reads_and_delays() -> None:
    async with emulating(durations=60.0, adopt_parents=True) as caller:
        first = await caller.create("reroll", origin_task_id="parent")
        second = await caller.create("reroll", origin_task_id="parent")
        await caller.post("imagine")
        caller.emulator.fail("fetch", Status(503))
        async with caller.session.post("/mj/v2/fetch", json={"task_id": first}) as answer:
            assert answer.status == 503
        await caller.fetch(first)
        await asyncio.sleep(70)
        for _ in range(2):
            await caller.post("multi_fetch", task_ids=[first, second, "x"])
            await asyncio.sleep(10)

        seen = caller.emulator.seen
        assert (
            seen.creates,
            seen.creates_by_parent,
            seen.creates_by_key,
        ) == (2, {"parent": 2}, {"emulator-key": 2})
        assert seen.requests == {"reroll": 2, "imagine": 1, "fetch": 2, "multi_fetch": 2}
        assert ({first: 3, second: 2, "x": 2}, {1: 1, 3: 2}) == (seen.polls, seen.ids_per_request)
        assert {first: pytest.approx(10, abs=0.1), second: pytest.approx(10, abs=0.1)} == seen.detection
        status, body, _ = await caller.get("/_emulator/stats")
        stats = orjson.loads(body)
        assert (200, stats) == (status, orjson.loads(orjson.dumps(stats | seen.stats())))
        assert stats["tasks"] == {"finished": 3}
        assert {key: stats["statuses"][key] for key in ("200", "400", "503")} == {
            "200": 5,
            "400": 1,
            "503": 1,
        }
        assert stats["detection"]["tasks"] == 2


async def test_a_picture_asked_for_with_the_key_is_noticed() -> None:
    async with emulating() as caller:
        caller.emulator.adopt("grid")
        await caller.get("/mj/grid.png")
        async with (
            aiohttp.ClientSession(caller.session._base_url) as stranger,
            stranger.get("/mj/grid.png") as answer,
        ):
            assert answer.status == 200
        assert caller.emulator.seen.keys_to_images == 1


class _Resources(HTMLParser):
    """Everything a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, _tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]


async def test_the_live_page_stands_alone_and_its_numbers_follow() -> None:
    async with emulating(durations=60.0, speed=2.0) as caller:
        grid = (await caller.done("imagine", prompt="<b>a cat</b>"))["task_id"]
        await caller.create("describe", image_url="https://x.org/a.png")
        caller.emulator.adopt("known")
        page = await caller.get("/_emulator/")
        status, body, _ = await caller.get("/_emulator/tasks")

        assert (page[0], page[2]) == (200, "text/html")
        resources = _Resources()
        resources.feed(page[1].decode())
        assert resources.links == ["data:,"]
        news = orjson.loads(body)
        assert (status, news["speed"], news["stages"]) == (200, 2.0, {"finished": 2, "pending": 1})
        assert [(row["verb"], row["progress"]) for row in news["tasks"]] == [
            ("adopted", 100),
            ("describe", 0),
            ("imagine", 100),
        ]
        assert ["/_emulator/thumbs/known.png", "", f"/_emulator/thumbs/{grid}.png"] == [
            row["thumb"] for row in news["tasks"]
        ]
        assert (await caller.get(news["tasks"][0]["thumb"]))[0] == 200
        assert page == await caller.get("/_emulator")


@pytest.mark.storm
def test_a_task_costs_less_than_five_kilobytes() -> None:
    engine = TaskEngine(concurrency=20_000, adopt_parents=True)
    router = Router(Host(engine, View(PLANS["pro-hya"], Dialect()), frozenset({"k"})))
    tracemalloc.start()
    try:
        for number in range(2_000):
            body = orjson.dumps({"origin_task_id": "p", "prompt": f"a cute cat, number {number}"})
            answer = router.respond(
                HTTPRequest("POST", "/mj/v2/reroll", body, {"x-api-key": "k"}), number / 100
            )
            body = orjson.dumps({"task_id": orjson.loads(answer.body)["task_id"]})
            router.respond(HTTPRequest("POST", "/mj/v2/fetch", body), number / 100)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(engine.tasks) == 2_001
    assert held < 2_000 * 5e3


async def test_the_same_seed_and_requests_give_the_same_answers() -> None:
    async def run() -> list[Any]:
        async with emulating(
            seed=7, epoch=1e9, failure_rate=0.3, retry_rate=0.3, public_url="http://d"
        ) as caller:
            ids = [await caller.create("imagine", prompt=f"cat {number}") for number in range(6)]
            await asyncio.sleep(40)
            return [await caller.fetch(task_id) for task_id in ids]

    first, second = await run(), await run()
    assert first == second
    assert len({task["status"] for task in first}) > 1


async def test_a_request_that_is_slow_at_the_stop_is_given_up() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", SlowFirstByte(1e6))
        slow = asyncio.create_task(caller.post("imagine", prompt="a cat"))
        await asyncio.sleep(1)
    with pytest.raises(aiohttp.ClientError):
        await slow


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plan": "gold"}, "unknown plan 'gold'; known: free-payg, "),
        ({"speed": 0}, "speed must be above 0: 0"),
        ({"api_keys": "key"}, "api_keys must hold at least one key"),
        ({"api_keys": ()}, "api_keys must hold at least one key"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.partition(";")[0]) as caught:
        Emulator(**options)
    assert message in str(caught.value)


def test_a_plan_of_ones_own_and_durations_of_every_sort_are_taken() -> None:
    plan = Plan("mine", 2, progress=True, intermediate=False, discord=False, temporary=True)
    emulator = Emulator(plan=plan, durations={"fast": 3, "upscale": lambda _rng: 4.0, "relax": Constant(5)})

    assert emulator.engine.concurrency == 2
    assert Emulator(plan=plan, concurrency=7).engine.concurrency == 7
    task = emulator.engine.create(midjourney_request("imagine", {"prompt": "a cat"}), account="", now=0)
    assert task.script.seconds == 3
    assert "not running" in repr(emulator)


async def test_it_listens_on_loopback_unless_told() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        async with (
            Emulator().run(host) as base_url,
            aiohttp.ClientSession() as session,
            session.get(f"{base_url}/_emulator/stats") as answer,
        ):
            assert answer.status == 200
    for host in ("0.0.0.0", "example.com"):  # noqa: S104 - that it is refused is what is tested
        with pytest.raises(ValueError, match="is not a loopback address"):
            async with Emulator().run(host):
                raise AssertionError
    emulator = Emulator()
    async with emulator.run("0.0.0.0", exposed=True) as base_url:  # noqa: S104 - and that it can be wanted
        assert base_url in repr(emulator)
    with pytest.raises(OSError, match="addr"):
        async with emulator.run(), Emulator().run(port=int(emulator.base_url.rpartition(":")[2])):
            raise AssertionError


async def test_what_clients_make_up_is_counted_without_bound_but_not_remembered() -> None:
    async with emulating() as caller:
        known = await caller.create("imagine", prompt="a cat")
        for start in range(0, 3000, 20):
            await caller.post(
                "multi_fetch", task_ids=[f"unknown-{number}" for number in range(start, start + 20)]
            )
        await caller.post("fetch", task_id="x" * 201)
        await caller.fetch(known)
        await caller.post("fetch", task_id="unknown-0")
        seen = caller.emulator.seen

        assert (seen.polls[known], seen.polls["unknown-0"], seen.polls["(others)"]) == (1, 2, 2001)
        assert len(seen.polls) == 1002


def test_what_was_refused_is_not_remembered_without_bound() -> None:
    seen = Seen()
    for number in range(1_100):
        seen.count_refusal(f"{number}" + "x" * 300)
    seen.count_refusal("0" + "x" * 300)

    assert (len(seen.refused), seen.refused.total()) == (1001, 1101)
    assert (seen.refused["(others)"], seen.refused["0" + "x" * 199]) == (100, 2)
