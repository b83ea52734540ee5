"""The wire, line by line, with bare aiohttp over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import uuid
from typing import Any

import aiohttp
import pytest
from PIL import Image
from support.emulating import MASK, emulating

from piapi_async.emulator import Dialect

pytestmark = pytest.mark.looptime

LINK = "https://example.com/cat.png"
FREE = {
    "imagine": {"prompt": "a cute cat"},
    "describe": {"image_url": LINK},
    "blend": {"image_urls": [LINK, LINK]},
}
ON_GRID = {
    "reroll": {},
    "upscale": {"index": "1"},
    "variation": {"index": "4"},
    "seed": {},
}
ON_SINGLE = {
    "upscale": {"index": "subtle"},
    "variation": {"index": "low_variation"},
    "inpaint": {"mask": MASK, "prompt": "a hat"},
    "outpaint": {"zoom_ratio": "1.5"},
    "pan": {"direction": "left"},
    "seed": {},
}
EVERY = [
    *((verb, body, "") for verb, body in FREE.items()),
    *((verb, body, "grid") for verb, body in ON_GRID.items()),
    *((verb, body, "single") for verb, body in ON_SINGLE.items()),
]


@pytest.mark.parametrize(("verb", "body", "parent"), EVERY)
async def test_every_create_verb_answers_an_id_and_the_task_finishes(
    verb: str, body: Any, parent: str
) -> None:
    async with emulating() as caller:
        if parent:
            caller.emulator.adopt("parent", kind=parent, prompt="a cute cat")
            body = {"origin_task_id": "parent", **body}
        status, answer = await caller.post(verb, **body)

        assert (200, {"task_id", "status", "message"}) == (status, answer.keys())
        assert (answer["status"], answer["message"]) == ("success", "")
        assert uuid.UUID(answer["task_id"]).version == 4
        await asyncio.sleep(600)
        fetched = await caller.fetch(answer["task_id"])
        assert ("finished", verb) == (fetched["status"], fetched["meta"]["task_type"])


async def test_the_fetch_object_of_a_finished_reroll_holds_every_field() -> None:
    async with emulating(durations=45.0, epoch=1_709_035_361) as caller:
        parent = await caller.done("imagine", prompt="a cat", process_mode="fast")
        fetched = await caller.done("reroll", origin_task_id=parent["task_id"], prompt="a cute cat")

        assert {"task_id", "status", "process_time", "retry_count", "meta", "task_result"} == fetched.keys()
        assert {
            "account_id", "task_type", "origin_task_id", "bot_hash", "bot_id", "model_version", "process_mode",
            "quota_frozen", "frozen_credit", "created_at", "created_at_utc", "started_at", "started_at_utc",
            "ended_at", "ended_at_utc", "task_request", "task_param",
        } == fetched["meta"].keys()  # fmt: skip
        assert {
            "discord_image_url", "image_url", "image_urls", "temporary_image_urls", "permanent_url", "task_progress",
            "intermediate_image_urls", "image_id", "seed", "result_message_id", "quota_used", "credit", "message",
            "warning", "error_messages", "need_retry", "actions",
        } == fetched["task_result"].keys()  # fmt: skip
        meta = fetched["meta"]
        assert ("a cute cat", parent["task_id"]) == (meta["task_request"]["prompt"], meta["origin_task_id"])
        assert meta["ended_at"] - meta["created_at"] == 45
        assert re.fullmatch(r"2024-02-27T12:\d\d:\d\dZ", meta["ended_at_utc"])
        assert fetched["process_time"] == 42
        assert fetched["task_result"]["actions"][:3] == ["reroll", "upscale1", "upscale2"]


async def test_a_waiting_task_has_a_result_object_too() -> None:
    async with emulating() as caller:
        fetched = await caller.fetch(await caller.create("imagine", prompt="a cat"))

        result, meta = fetched["task_result"], fetched["meta"]
        assert (fetched["status"], result["image_url"], result["task_progress"]) == ("pending", "", 0)
        assert [result["error_messages"], result["actions"]] == [[], []]
        assert (meta["started_at"], meta["started_at_utc"], meta["ended_at"]) == (0, "", 0)


async def test_progress_climbs_from_0_to_100_through_the_stages() -> None:
    async with emulating(durations=60.0) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        seen = []
        for _ in range(14):
            fetched = await caller.fetch(task_id)
            seen.append((fetched["status"], fetched["task_result"]["task_progress"]))
            await asyncio.sleep(5)

        assert seen[:3] == [("pending", 0), ("processing", 3), ("processing", 12)]
        assert sorted(progress for _, progress in seen) == [progress for _, progress in seen]
        assert seen[-1] == ("finished", 100)


async def test_a_failed_task_answers_200_with_its_texts() -> None:
    async with emulating(failure_rate=1.0) as caller:
        fetched = await caller.done("imagine", prompt="a cat")

        result = fetched["task_result"]
        assert (fetched["status"], result["image_url"], len(result["error_messages"])) == ("failed", "", 1)
        assert result["error_messages"][0] in (
            "the job was stopped by Midjourney",
            "no image came back from the bot",
        )


async def test_the_key_is_needed_to_create_and_not_to_fetch() -> None:
    async with emulating() as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        async with aiohttp.ClientSession(caller.session._base_url) as stranger:
            for key in ({}, {"X-API-Key": "wrong"}):
                async with stranger.post("/mj/v2/imagine", json={"prompt": "a"}, headers=key) as answer:
                    assert (answer.status, (await answer.json())["message"]) == (401, "Invalid API key")
            async with stranger.post("/mj/v2/fetch", json={"task_id": task_id}) as answer:
                assert (200, task_id) == (answer.status, (await answer.json())["task_id"])


async def test_a_host_may_want_the_key_for_a_fetch() -> None:
    async with emulating(dialect=Dialect(fetch_needs_key=True)) as caller:
        assert _said(await caller.post("fetch", task_id="x")) == (400, "task not found")
        async with caller.session.post(
            "/mj/v2/fetch", json={"task_id": "x"}, headers={"X-API-Key": "no"}
        ) as answer:
            assert answer.status == 401


def _said(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["message"]


@pytest.mark.parametrize(
    ("verb", "body", "message"),
    [
        ("imagine", {}, "prompt is required"),
        ("imagine", {"prompt": ""}, "prompt is required"),
        ("imagine", {"prompt": 3}, "invalid prompt: must be a string"),
        ("imagine", {"prompt": "  "}, "invalid prompt: must not be blank"),
        (
            "imagine",
            {"prompt": "a", "process_mode": "slow"},
            "invalid process_mode: must be one of relax, fast, ",
        ),
        ("imagine", {"prompt": "a", "aspect_ratio": "wide"}, 'invalid aspect_ratio: must look like "4:3"'),
        ("imagine", {"prompt": "a", "aspect_ratio": "0:3"}, 'invalid aspect_ratio: must look like "4:3"'),
        (
            "imagine",
            {"prompt": "a", "skip_prompt_check": "yes"},
            "invalid skip_prompt_check: must be true or false",
        ),
        ("imagine", {"prompt": "a", "bot_id": "1"}, "invalid bot_id: must be an integer"),
        (
            "imagine",
            {"prompt": "a", "webhook_endpoint": "ftp://x"},
            "invalid webhook_endpoint: must be an http or ",
        ),
        (
            "imagine",
            {"prompt": "a", "webhook_endpoint": "http://x.org:81/"},
            "invalid webhook_endpoint: port must be",
        ),
        (
            "imagine",
            {"prompt": "a", "webhook_endpoint": "http://x.org:x/"},
            "invalid webhook_endpoint: must be a URL",
        ),
        (
            "imagine",
            {"prompt": "a", "webhook_endpoint": "http://[x/"},
            "invalid webhook_endpoint: must be a URL",
        ),
        ("imagine", {"prompt": "a", "webhook_endpoint": 1}, "invalid webhook_endpoint: must be a string"),
        ("reroll", {}, "origin_task_id is required"),
        ("upscale", {"origin_task_id": "grid", "index": "5"}, "invalid index: must be one of 1, 2, 3, 4, 2x"),
        ("upscale", {"origin_task_id": "grid", "index": True}, "invalid index: must be a string"),
        (
            "variation",
            {"origin_task_id": "grid", "index": "2x"},
            "invalid index: must be one of 1, 2, 3, 4, high_",
        ),
        (
            "inpaint",
            {"origin_task_id": "single", "mask": "data:x"},
            "invalid mask: must be base64 without a data:",
        ),
        ("inpaint", {"origin_task_id": "single", "mask": "%"}, "invalid mask: must be base64"),
        ("inpaint", {"origin_task_id": "single", "mask": 1}, "invalid mask: must be a string"),
        (
            "outpaint",
            {"origin_task_id": "single", "zoom_ratio": "3"},
            "invalid zoom_ratio: must be a string from",
        ),
        (
            "outpaint",
            {"origin_task_id": "single", "zoom_ratio": 2},
            "invalid zoom_ratio: must be a string from",
        ),
        (
            "pan",
            {"origin_task_id": "single", "direction": "north"},
            "invalid direction: must be one of up, down, ",
        ),
        ("describe", {"image_url": "cat.png"}, "invalid image_url: must be an http or https URL"),
        ("blend", {"image_urls": [LINK]}, "invalid image_urls: must be a list of 2 to 5 URLs"),
        ("blend", {"image_urls": [LINK, "x"]}, "invalid image_urls: must be an http or https URL"),
        (
            "blend",
            {"image_urls": [LINK, LINK], "dimension": "round"},
            "invalid dimension: must be one of square, ",
        ),
        ("imagine", {"prompt": "much gore here"}, "banned prompt words: gore"),
        (
            "upscale",
            {"origin_task_id": "nobody", "index": "1"},
            "derive from origin task: parent task not found",
        ),
        (
            "upscale",
            {"origin_task_id": "old", "index": "1"},
            "derive from origin task: parent task is outdated",
        ),
        (
            "upscale",
            {"origin_task_id": "grid", "index": "2x"},
            "derive from origin task: index 2x needs an upscaled",
        ),
        (
            "upscale",
            {"origin_task_id": "single", "index": "1"},
            "derive from origin task: index 1 needs a grid",
        ),
        (
            "variation",
            {"origin_task_id": "single", "index": 2},
            "derive from origin task: index 2 needs a grid",
        ),
        ("reroll", {"origin_task_id": "single"}, "derive from origin task: reroll needs a grid image task"),
        (
            "inpaint",
            {"origin_task_id": "grid", "mask": MASK},
            "derive from origin task: inpaint needs a single image",
        ),
        (
            "outpaint",
            {"origin_task_id": "grid", "zoom_ratio": "2"},
            "derive from origin task: outpaint needs a single",
        ),
        (
            "pan",
            {"origin_task_id": "grid", "direction": "up"},
            "derive from origin task: pan needs a single image",
        ),
        ("fetch", {}, "task_id is required"),
        ("fetch", {"task_id": ["x"]}, "task_id is required"),
        ("fetch", {"task_id": "nobody"}, "task not found"),
        ("multi_fetch", {"task_ids": "x"}, "task_ids must be a list of task ids"),
        ("multi_fetch", {"task_ids": ["x"] * 21}, "too many task_ids: 21, at most 20"),
        ("cancel", {"task_ids": [1]}, "task_ids must be a list of task ids"),
        ("cancel", {"task_ids": ["nobody"]}, "task not found"),
    ],
)
async def test_a_refusal_is_a_400_with_a_human_message(verb: str, body: Any, message: str) -> None:
    async with emulating(parent_max_age=1000.0) as caller:
        caller.emulator.adopt("grid")
        caller.emulator.adopt("single", kind="single")
        caller.emulator.adopt("old", age=1001.0)
        status, answer = await caller.post(verb, **body)

        assert (status, answer["status"], answer["task_id"]) == (400, "failed", "")
        assert answer["message"].startswith(message), answer["message"]
        assert caller.emulator.seen.creates == 0
        assert {answer["message"]: 1} == caller.emulator.seen.refused


async def test_a_parent_must_have_finished() -> None:
    async with emulating() as caller:
        waiting = await caller.create("imagine", prompt="a cat")

        assert _said(await caller.post("reroll", origin_task_id=waiting)) == (
            400,
            "derive from origin task: parent task is not finished",
        )


async def test_what_is_not_json_is_refused() -> None:
    async with emulating() as caller:
        for body in (b"{", b"[]", b"", b"\xff"):
            async with caller.session.post("/mj/v2/imagine", data=body) as answer:
                assert answer.status == 400
                assert (await answer.json())["message"].startswith("invalid JSON")


async def test_unset_strings_numbers_for_an_index_and_the_older_seed_field_are_accepted() -> None:
    async with emulating() as caller:
        caller.emulator.adopt("grid", prompt="a cat")
        await caller.create(
            "imagine", prompt="a", aspect_ratio="", webhook_endpoint="", webhook_secret="", unknown=1
        )
        await caller.create("imagine", prompt="such gore", skip_prompt_check=True)
        await caller.create("imagine", prompt="a", webhook_endpoint="https://example.com:443/x")
        await caller.create("seed", task_id="grid")
        upscaled = await caller.fetch(await caller.create("upscale", origin_task_id="grid", index=2))
        assert upscaled["meta"]["task_param"]["index"] == "2"


async def test_other_paths_and_methods_are_refused() -> None:
    async with emulating() as caller:
        assert (await caller.post("imagine2"))[0] == 404
        assert (await caller.get("/mj/v2/fetch"))[0] == 405


async def test_an_unknown_parent_is_adopted_when_told_so() -> None:
    async with emulating(adopt_parents=True) as caller:
        for verb, body in [*ON_GRID.items(), *ON_SINGLE.items()]:
            await caller.create(verb, origin_task_id=f"{verb}-{body}", **body)
        assert caller.emulator.seen.creates_by_parent.total() == 10


async def test_a_grid_is_one_png_and_its_four_crops_in_reading_order() -> None:
    async with emulating() as caller:
        result = (await caller.done("imagine", prompt="a cat", aspect_ratio="3:2"))["task_result"]
        status, sheet, kind = await caller.get(result["image_url"])
        crops = [(await caller.get(url))[1] for url in result["temporary_image_urls"]]

        grid = Image.open(io.BytesIO(sheet))
        width, height = grid.width // 2, grid.height // 2
        assert (status, kind, width, height) == (200, "image/png", 80, 56)
        trims = [re.search(r"trim=(.*?)/mj/", url) for url in result["temporary_image_urls"]]
        assert [match[1] for match in trims if match] == ["0;80;56;0", "0;0;56;80", "56;80;0;0", "56;0;0;80"]
        for number, crop in enumerate(crops):
            left, top = number % 2 * width, number // 2 * height
            quadrant = grid.crop((left, top, left + width, top + height))
            assert quadrant.tobytes() == Image.open(io.BytesIO(crop)).tobytes()
        assert len(set(crops)) == 4


async def test_any_other_trim_is_cut_from_the_sheet() -> None:
    async with emulating() as caller:
        task = await caller.done("imagine", prompt="a cat")
        path = f"/cdn-cgi/image/trim=10;20;30;40/mj/{task['task_id']}.png"

        assert Image.open(io.BytesIO((await caller.get(path))[1])).size == (128 - 60, 128 - 40)


async def test_upscale_gives_one_image_seed_a_number_and_describe_a_text() -> None:
    async with emulating() as caller:
        grid = (await caller.done("imagine", prompt="a cat"))["task_id"]
        upscaled = (await caller.done("upscale", origin_task_id=grid, index="2"))["task_result"]
        seed = (await caller.done("seed", origin_task_id=grid))["task_result"]
        described = (await caller.done("describe", image_url=LINK))["task_result"]

        assert upscaled["image_url"]
        assert None is upscaled["temporary_image_urls"]
        assert "high_variation" in upscaled["actions"]
        assert (seed["seed"].isdigit(), seed["image_url"]) == (True, "")
        assert len(described["message"].split("\n\n")) == 4


async def test_multi_fetch_answers_every_id_and_null_for_the_unknown() -> None:
    async with emulating() as caller:
        ids = [await caller.create("imagine", prompt="a cat") for _ in range(3)]
        status, answer = await caller.post("multi_fetch", task_ids=[*ids, "nobody"])

        assert (200, [*ids, "nobody"]) == (status, list(answer["data"]))
        assert await caller.fetch(ids[0]) == answer["data"][ids[0]]
        assert None is answer["data"]["nobody"]


async def test_only_what_has_not_started_can_be_cancelled() -> None:
    async with emulating(durations=60.0) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        assert await caller.post("cancel", task_ids=[task_id]) == (200, {"status": "success", "message": ""})
        assert (await caller.fetch(task_id))["status"] == "cancelled"

        started = await caller.create("imagine", prompt="a cat")
        await asyncio.sleep(30)
        assert _said(await caller.post("cancel", task_ids=[started])) == (400, "task has already started")
        assert (await caller.done("imagine", prompt="b"))["status"] == "finished"


async def test_a_task_is_cancelled_by_its_own_account_only() -> None:
    async with emulating(api_keys=("one", "two")) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        body, other = {"task_ids": [task_id]}, {"X-API-Key": "two"}
        async with caller.session.post("/mj/v2/cancel", json=body, headers=other) as answer:
            assert answer.status == 400
        assert caller.emulator.seen.creates_by_key == {"one": 1}


async def test_beyond_the_limit_tasks_are_staged_and_beyond_the_queue_refused() -> None:
    async with emulating(
        concurrency=2, durations=60.0, dialect=Dialect(queue_full_retry_after="7")
    ) as caller:
        ids = [await caller.create("imagine", prompt="a cat") for _ in range(52)]
        async with caller.session.post("/mj/v2/imagine", json={"prompt": "one more"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
        words = [(await caller.fetch(task_id))["status"] for task_id in ids]
        assert words == ["pending"] * 2 + ["staged"] * 50

        await asyncio.sleep(61)
        assert tuple([(await caller.fetch(ids[number]))["status"] for number in (0, 2, 4)]) == (
            "finished",
            "pending",
            "staged",
        )


async def test_links_expire_with_a_short_text() -> None:
    async with emulating(links_expire_after=3600.0, expired_status=410) as caller:
        result = (await caller.done("imagine", prompt="a cat"))["task_result"]
        assert (await caller.get(result["image_url"]))[0] == 200
        await asyncio.sleep(3700)
        assert await caller.get(result["image_url"]) == (410, b"link has expired", "text/plain")
        thumb = result["image_url"].replace("/mj/", "/_emulator/thumbs/")
        assert (await caller.get(thumb))[0] == 200


async def test_there_is_no_image_before_the_end_or_of_a_text() -> None:
    async with emulating(durations=60.0) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        text = (await caller.done("describe", image_url=LINK))["task_id"]
        for path in ("/mj/nobody.png", f"/mj/{text}.png"):
            assert await caller.get(path) == (404, b"no such image", "text/plain")
        waiting = await caller.create("imagine", prompt="a cat")
        assert (await caller.get(f"/mj/{waiting}.png"))[0] == 404
        assert (await caller.get(f"/mj/{task_id}.png"))[0] == 200


async def test_previews_appear_while_a_grid_is_made() -> None:
    async with emulating(durations=60.0) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        assert (await caller.get(f"/mj/{task_id}_25.png"))[0] == 404
        await asyncio.sleep(40)
        previews = (await caller.fetch(task_id))["task_result"]["intermediate_image_urls"]

        assert len(previews) == 2
        status, body, _ = await caller.get(previews[1])
        assert (status, Image.open(io.BytesIO(body)).size) == (200, (32, 32))


async def test_an_internal_retry_shows_and_is_counted() -> None:
    async with emulating(retry_rate=1.0, durations=60.0) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        words = set()
        for _ in range(60):
            fetched = await caller.fetch(task_id)
            words.add(fetched["status"])
            await asyncio.sleep(1)

        assert {"pending", "processing", "retry"} == words - {"finished"}
        assert (await caller.fetch(task_id))["retry_count"] == 1


async def test_the_standard_library_is_client_enough() -> None:
    """The calls are made as in the vendor's own samples, with `http.client`."""

    def call(port: int, path: str, body: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        headers = {
            "X-API-Key": "emulator-key",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        connection.request("POST", path, json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read().decode("utf-8"))
        connection.close()
        return answer

    async with emulating(durations=60.0) as caller:
        caller.emulator.adopt("9c6796dd")
        loop, port = asyncio.get_running_loop(), int(caller.emulator.base_url.rpartition(":")[2])
        body = {"origin_task_id": "9c6796dd", "index": "1", "webhook_endpoint": "", "webhook_secret": ""}
        created = await loop.run_in_executor(None, call, port, "/mj/v2/upscale", body)
        await asyncio.sleep(61)
        fetched = await loop.run_in_executor(
            None, call, port, "/mj/v2/fetch", {"task_id": created["task_id"]}
        )
        assert (fetched["status"], fetched["meta"]["task_type"]) == ("finished", "upscale")
