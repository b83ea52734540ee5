"""The unified protocol, line by line, with bare aiohttp over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.emulating import MASK, Caller, Inbox, emulating
from support.systems import EVERY, LINK, PNG, PROMPT

from piapi_async.emulator import Dialect, Drop, Emulator, Status, TaskFails, TaskTakes, UnknownStatus
from piapi_async.emulator._service.catalog import SYSTEMS, known_models

pytestmark = pytest.mark.looptime

ZERO_TIME = "0001-01-01T00:00:00Z"
FIELDS = {
    "task_id", "model", "task_type", "status", "config", "input", "output", "meta", "detail", "logs", "error",
}  # fmt: skip
NO_ERROR = {"code": 0, "raw_message": "", "message": "", "detail": None}
SIGNATURES = {
    PNG: b"\x89PNG\r\n",
    "video/mp4": b"ftyp",
    "audio/wav": b"WAVE",
    "model/gltf-binary": b"glTF\2\0\0\0",
}


def links(value: Any) -> list[str]:
    """Return every link in an output, in its order."""
    if isinstance(value, str):
        return [value] if value.startswith("http") else []
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [link for item in inside for link in links(item)]


async def done(caller: Caller, model: str, task_type: str, given: dict[str, Any]) -> Any:
    """Return a new task at its end."""
    made = await caller.ask(model, task_type, given)
    caller.emulator.end(made["task_id"])
    return await caller.read(made["task_id"])


async def refused(
    caller: Caller, body: Any, method: str = "POST", path: str = "/api/v1/task"
) -> tuple[int, str]:
    """Return status and text of a refusal, which must look like one."""
    status, answer = await caller.call(method, path, body)
    assert {"code", "data", "message"} == answer.keys()
    assert answer["code"] == status >= 400
    assert answer["data"].keys() == FIELDS
    assert (answer["data"]["task_id"], answer["data"]["meta"]["created_at"]) == ("", ZERO_TIME)
    return status, answer["message"]


@pytest.mark.storm
@pytest.mark.parametrize(("model", "task_type", "given", "types"), EVERY)
async def test_every_task_is_made_and_ends_in_real_files(
    model: str, task_type: str, given: dict[str, Any], types: list[str]
) -> None:
    async with emulating() as caller:
        caller.emulator.adopt("parent", kind="files")
        made = await caller.ask(model, task_type, given)

        assert made.keys() == FIELDS
        assert (model, task_type, "pending", given) == (
            made["model"],
            made["task_type"],
            made["status"],
            made["input"],
        )
        assert not links(made["output"])
        await asyncio.sleep(3600)
        task = await caller.read(made["task_id"])
        assert ("completed", NO_ERROR, None) == (task["status"], task["error"], task["detail"])
        assert task["output"] is not None
        for link, kind in zip(links(task["output"]), types, strict=True):
            status, content, content_type = await caller.get(link)
            assert (200, kind) == (status, content_type)
            assert SIGNATURES[kind] in content[:12]


def test_every_model_is_tried() -> None:
    tried = {model for model, *_ in EVERY}
    assert {*known_models()} == {*tried, "midjourney"}
    for system in SYSTEMS:
        assert any(system.serves(model, task_type) for model, task_type, *_ in EVERY)


@pytest.mark.parametrize(
    ("verb", "given", "parent"),
    [
        ("imagine", {"prompt": "a cat", "aspect_ratio": "1:1"}, ""),
        ("reroll", {"prompt": "a dog"}, "grid"),
        ("upscale", {"index": "1"}, "grid"),
        ("variation", {"index": "high_variation"}, "single"),
        ("inpaint", {"mask": MASK, "prompt": "a hat"}, "single"),
        ("outpaint", {"zoom_ratio": "2"}, "single"),
        ("pan", {"direction": "up"}, "single"),
        ("describe", {"image_url": LINK}, ""),
        ("blend", {"image_urls": [LINK, LINK]}, ""),
        ("seed", {}, "grid"),
    ],
)
async def test_midjourney_is_the_same_service_by_another_door(verb: str, given: Any, parent: str) -> None:
    async with emulating() as caller:
        if parent:
            given = {"origin_task_id": (await _midjourney_parent(caller, parent)), **given}
        task = await done(caller, "midjourney", verb, given)
        legacy = await caller.fetch(task["task_id"])

        output, result = task["output"], legacy["task_result"]
        assert (verb, "finished", output["image_url"]) == (
            legacy["meta"]["task_type"],
            legacy["status"],
            result["image_url"],
        )
        assert (output["progress"], output["actions"]) == (100, result["actions"])
        assert (output["image_urls"], output["temporary_image_urls"]) == (
            result["temporary_image_urls"],
            None,
        )
        assert (verb == "seed", verb == "describe") == (bool(output.get("seed")), bool(output.get("message")))
        for link in links(output)[:2]:
            assert (await caller.get(link))[2] == PNG


async def _midjourney_parent(caller: Caller, kind: str) -> str:
    grid = await done(caller, "midjourney", "imagine", {"prompt": "a cat"})
    if kind == "grid":
        return str(grid["task_id"])
    given = {"origin_task_id": grid["task_id"], "index": 2}
    return str((await done(caller, "midjourney", "upscale", given))["task_id"])


async def test_the_finished_example_of_the_vendor_has_the_same_fields() -> None:
    async with emulating(durations=32.0, epoch=1_753_066_532) as caller:
        given = {"aspect_ratio": "1:1", "prompt": "test prompt", "process_mode": "relax"}
        made = await caller.ask("midjourney", "imagine", given, service_mode="public")
        await asyncio.sleep(60)
        task = await caller.read(made["task_id"])

        assert task["config"] == {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}}
        assert {
            "image_url", "image_urls", "temporary_image_urls", "discord_image_url", "actions", "progress",
            "intermediate_image_urls",
        } == task["output"].keys()  # fmt: skip
        assert len(task["output"]["image_urls"]) == 4
        assert task["meta"] == {
            "created_at": "2025-07-21T02:55:32Z",
            "started_at": "2025-07-21T02:55:34Z",
            "ended_at": "2025-07-21T02:56:04Z",
            "usage": {"type": "mj", "frozen": 14, "consume": 8},
            "is_using_private_pool": False,
            "model_version": "unknown",
            "process_mode": "relax",
            "failover_triggered": False,
        }


async def test_progress_is_where_the_vendor_reports_it_and_nothing_is_null_or_empty_until_the_end() -> None:
    async with emulating(durations=100.0) as caller:
        names = (
            ("midjourney", "imagine"),
            ("hailuo", "video_generation"),
            ("luma", "video_generation"),
            ("kling",) * 2,
        )
        ids = [
            (await caller.ask(model, kind if kind != "kling" else "video_generation", PROMPT))["task_id"]
            for model, kind in names
        ]
        pending = [await caller.read(task_id) for task_id in ids]
        await asyncio.sleep(53)
        midjourney, hailuo, luma, kling = [await caller.read(task_id) for task_id in ids]

        assert {task["status"] for task in pending} == {"pending"}
        assert {task["meta"]["started_at"] for task in pending} == {ZERO_TIME}
        assert (pending[0]["output"]["progress"], pending[0]["output"]["image_url"]) == (0, "")
        assert "processing" == midjourney["status"] == kling["status"]
        assert midjourney["output"]["progress"] == hailuo["output"]["percent"] == 51
        assert ("", None, None) == (hailuo["output"]["video_url"], luma["output"]["video"], kling["output"])
        assert (luma["logs"], kling["logs"], luma["meta"]["usage"]["type"]) == (None, [], "point")
        assert luma["output"]["created_at"] == luma["meta"]["ended_at"] == ZERO_TIME
        assert len(kling["meta"]["created_at"]) == len("2026-01-07T01:36:08.845623268Z")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "model is required"),
        ({"model": "flux", "task_type": "txt2img", "input": {}}, "invalid model: 'flux'"),
        ({"model": "kling", "input": {}}, "task_type is required"),
        ({"model": "kling", "task_type": "imagine", "input": {}}, "invalid task_type for kling: 'imagine'"),
        (
            {"model": "midjourney", "task_type": "txt2img", "input": {}},
            "invalid task_type for midjourney: 'txt2img'",
        ),
        ({"model": "kling", "task_type": "sound"}, "input is required and must be an object"),
        (
            {"model": "kling", "task_type": "video_generation", "input": {"prompt": ""}},
            "prompt or image_url is ",
        ),
        (
            {"model": "kling", "task_type": "video_generation", "input": {"prompt": "x" * 2501}},
            "invalid prompt: must",
        ),
        (
            {"model": "Qubico/wanx", "task_type": "txt2video-14b", "input": {"prompt": 1}},
            "invalid prompt: must be a",
        ),
        (
            {"model": "kling", "task_type": "effects", "input": {"effect": "x", "image_url": 1}},
            "invalid image_url: ",
        ),
        (
            {"model": "Qubico/flux1-dev", "task_type": "kontext", "input": {}},
            "invalid task_type for Qubico/flux1-dev",
        ),
        (
            {"model": "Qubico/flux1-dev", "task_type": "txt2img", "input": {**PROMPT, "denoise": 2}},
            "invalid denoise: must lie in 0..1",
        ),
        (
            {"model": "Qubico/flux1-dev", "task_type": "txt2img", "input": {**PROMPT, "width": "wide"}},
            "invalid width: must be a number",
        ),
        (
            {"model": "Qubico/flux1-dev", "task_type": "txt2img", "input": {**PROMPT, "lora_settings": {}}},
            "invalid lora_settings: must be a list",
        ),
        (
            {"model": "Qubico/flux1-dev", "task_type": "txt2img", "input": {**PROMPT, "negative_prompt": 3}},
            "invalid negative_prompt: must be a string",
        ),
        (
            {"model": "luma", "task_type": "video_generation", "input": {"key_frames": [LINK]}},
            "invalid key_frames: must be an object",
        ),
        ({"model": "midjourney", "task_type": "imagine", "input": {}}, "prompt is required"),
        (
            {"model": "gemini", "task_type": "x", "input": {"prompt": "some gore"}},
            "banned prompt words: gore",
        ),
        (
            {"model": "kling", "task_type": "extend_video", "input": {"origin_task_id": "gone"}},
            "derive from origin task: parent task not found",
        ),
        (
            {"model": "kling", "task_type": "extend_video", "input": {"origin_task_id": "grid"}},
            "derive from origin task: extend_video needs a video task, the parent task is a grid",
        ),
        (
            {"model": "sora2", "task_type": "x", "input": {}, "config": []},
            "invalid config: must be an object",
        ),
        (
            {"model": "sora2", "task_type": "x", "input": {}, "config": {"service_mode": 1}},
            "invalid service_mode: ",
        ),
        (
            {
                "model": "sora2",
                "task_type": "x",
                "input": {},
                "config": {"webhook_config": {"endpoint": "x"}},
            },
            "invalid webhook endpoint: must be an http or https URL",
        ),
        ([], "invalid JSON: an object is expected"),
    ],
)
async def test_what_makes_no_sense_is_refused_in_words(body: Any, message: str) -> None:
    async with emulating() as caller:
        caller.emulator.adopt("grid")
        status, text = await refused(caller, body)
        assert (400, message) == (status, text[: len(message)])
        assert caller.emulator.seen.creates == 0


async def test_keys_ids_methods_and_paths_are_looked_at() -> None:
    async with emulating() as caller:
        caller.session.headers.update({"X-API-Key": "wrong"})
        for method, path in (
            ("POST", "/api/v1/task"),
            ("GET", "/api/v1/task/x"),
            ("DELETE", "/api/v1/task/x"),
        ):
            assert await refused(caller, {}, method, path) == (401, "Invalid API key")
        caller.session.headers.update({"X-API-Key": caller.emulator.api_key})
        assert await refused(caller, None, "GET", "/api/v1/task/x%20y") == (400, "task not found")
        assert await refused(caller, None, "DELETE", "/api/v1/task/x") == (400, "task not found")
        assert await refused(caller, None, "GET", "/api/v1/task") == (405, "method not allowed")
        assert await refused(caller, None, "GET", "/api/v1/task/") == (404, "no such endpoint: /api/v1/task/")
        assert await refused(caller, {"x": "x" * 2**24}) == (413, "the request is too large")


async def test_the_queue_is_bounded_for_all_protocols_together() -> None:
    async with emulating(concurrency=1, queue=1) as caller:
        await caller.create("imagine", prompt="a cat")
        assert (await caller.ask("sora2", "sora2-video", PROMPT))["status"] == "staged"
        status, text = await refused(
            caller, {"model": "kling", "task_type": "video_generation", "input": PROMPT}
        )
        assert (429, True) == (status, text.startswith("too many requests"))


@pytest.mark.parametrize("error_in", ["both", "message", "raw_message"])
async def test_a_failure_is_an_answer_with_an_error_in_it(error_in: Any) -> None:
    async with emulating(dialect=Dialect(error_in=error_in), failure_rate=1.0) as caller:
        made = await caller.ask("Qubico/flux1-dev", "txt2img", PROMPT)
        await asyncio.sleep(600)
        task = await caller.read(made["task_id"])

        assert (task["status"], task["output"], task["meta"]["usage"]["consume"]) == ("failed", None, 0)
        texts = {name: task["error"][name] for name in ("message", "raw_message")}
        assert task["error"] == {"code": 10_000, "detail": None, **texts}
        assert {name for name, text in texts.items() if text} == (
            {*texts} if error_in == "both" else {error_in}
        )


async def test_a_host_may_write_status_words_with_a_capital_and_numbers_as_strings() -> None:
    dialect = Dialect(capitalised=True, numbers_as_strings=True, unified_crops_in="both", gated="null")
    async with emulating(dialect=dialect, plan="free-payg") as caller:
        task = await done(caller, "midjourney", "imagine", PROMPT)
        assert (task["status"], task["error"]["code"], task["output"]["progress"]) == ("Completed", "0", None)
        assert (len(task["output"]["image_urls"]), task["output"]["temporary_image_urls"]) == (4, None)


async def test_what_a_plan_does_not_include_is_not_there() -> None:
    async with emulating(plan="free-payg") as caller:
        task = await done(caller, "midjourney", "imagine", PROMPT)
        assert task["output"].keys() == {"image_url", "image_urls", "actions"}


async def test_what_has_not_started_can_be_taken_back() -> None:
    async with emulating(durations=100.0, concurrency=1) as caller:
        first, staged = [await caller.ask("kling", "video_generation", PROMPT) for _ in range(2)]
        path = f"/api/v1/task/{staged['task_id']}"

        assert staged["status"] == "staged"
        assert await caller.call("DELETE", path) == (
            200,
            {"code": 200, "message": f"task {staged['task_id']} canceled"},
        )
        task = await caller.read(staged["task_id"])
        assert (task["status"], task["output"], task["error"]) == ("cancelled", None, NO_ERROR)
        assert await refused(caller, None, "DELETE", path) == (400, "task has already started")
        await asyncio.sleep(50)
        assert await refused(caller, None, "DELETE", f"/api/v1/task/{first['task_id']}") == (
            400,
            "task has already started",
        )


async def test_many_can_be_taken_back_by_time_and_model() -> None:
    async with emulating(
        durations=100.0, concurrency=1, epoch=1000.0, api_keys=("emulator-key", "other")
    ) as caller:
        models = ["sora2", "kling", "kling-turbo", "luma", "midjourney"]
        types = ["x", "video_generation", "video_generation", "video_generation", "imagine"]
        ids = [
            (await caller.ask(model, kind, PROMPT))["task_id"]
            for model, kind in zip(models, types, strict=True)
        ]
        body = {"model": "kling", "task_type": "video_generation", "input": PROMPT}
        _, other = await caller.call("POST", "/api/v1/task", body, **{"X-API-Key": "other"})
        await asyncio.sleep(20)
        late = (await caller.ask("kling", "video_generation", PROMPT))["task_id"]

        async def cancelled(query: str) -> list[bool]:
            status, answer = await caller.call("DELETE", f"/api/v1/tasks?{query}")
            assert (status, answer["code"]) == (200, 200)
            return [
                (await caller.read(task_id))["status"] == "cancelled"
                for task_id in [*ids, other["data"]["task_id"], late]
            ]

        assert await cancelled("created_before=1000&model=all") == [False] * 7
        assert await cancelled("created_before=1010&model=kling") == [
            False,
            True,
            True,
            False,
            False,
            False,
            False,
        ]
        assert await cancelled("created_before=1010") == [False, True, True, True, True, False, False]
        assert await cancelled("created_before=1100&model=all") == [
            False,
            True,
            True,
            True,
            True,
            False,
            True,
        ]
        for query, message in (
            ("model=all", "created_before is required and must be a unix time in seconds"),
            (
                "created_before=1&model=flux",
                "invalid model: must be one of all, kling, midjourney, luma, suno",
            ),
        ):
            assert await refused(caller, None, "DELETE", f"/api/v1/tasks?{query}") == (400, message)


async def test_the_end_is_posted_in_the_envelope_of_a_webhook() -> None:
    async with Inbox().open() as inbox, emulating(durations=60.0, epoch=1e9) as caller:
        hook = {"endpoint": inbox.url, "secret": "hush"}
        made = await caller.ask("hailuo", "video_generation", PROMPT, webhook_config=hook)
        await asyncio.sleep(100)

        ((_, body, secret),) = inbox.posts
        assert (secret, body["timestamp"]) == ("hush", 1_000_000_060)
        assert body["data"] == await caller.read(made["task_id"])
        assert (body["data"]["config"]["webhook_config"], body["data"]["input"]) == (hook, PROMPT)
        assert [delivery.status_word for delivery in caller.emulator.seen.deliveries] == ["completed"]


async def test_an_input_cannot_smuggle_in_a_webhook() -> None:
    async with Inbox().open() as inbox, emulating(durations=60.0) as caller:
        smuggled = {**PROMPT, "webhook_endpoint": inbox.url, "notify_progress": True}
        for model, kind in (("sora2", "x"), ("midjourney", "imagine")):
            assert (await caller.ask(model, kind, smuggled))["input"] == PROMPT
        await asyncio.sleep(100)
        assert inbox.posts == []


async def test_a_restart_goes_on_where_it_stood(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "state": tmp_path / "state.json", "epoch": 1e9, "durations": 60.0, "public_url": "http://host",
    }  # fmt: skip
    async with Inbox().open() as inbox:
        async with emulating(**options) as caller:
            hook = {"endpoint": inbox.url, "secret": ""}
            made = await caller.ask(
                "kling", "video_generation", PROMPT, service_mode="private", webhook_config=hook
            )
            ended = await done(caller, "Qubico/trellis", "image-to-3d", {"image": LINK})
            swap = {"target_image": LINK, "swap_image": LINK}
            _, old = await caller.call("POST", "/api/face_swap/v1/async", swap)
            await asyncio.sleep(20)
            before = await caller.read(made["task_id"])
        async with emulating(**options) as caller:
            assert before == await caller.read(made["task_id"])
            assert ended == await caller.read(ended["task_id"])
            await asyncio.sleep(100)
            status, answer = await caller.call("POST", "/api/face_swap/v1/fetch", old["data"])
            assert (status, answer["data"]["status"], inbox.words) == (200, "success", ["completed"])


async def test_a_long_text_is_remembered_by_its_digest() -> None:
    async with emulating() as caller:
        made = await caller.ask("Qubico/image-toolkit", "background-remove", {"image": "QUJD" * 2**14})
        assert made["input"]["image"].startswith("sha256:")


class TestFaults:
    async def test_groups_hit_either_protocol(self) -> None:
        async with emulating(durations=10.0) as caller:
            caller.emulator.fail("create", Status(503, made=True), times=2)
            body = {"model": "sora2", "task_type": "x", "input": PROMPT}
            async with caller.session.post("/api/v1/task", json=body) as answer:
                assert (answer.status, answer.content_type) == (503, "text/html")
            async with caller.session.post("/mj/v2/imagine", json=PROMPT) as answer:
                assert answer.status == 503
            made = await caller.ask("sora2", "x", PROMPT)
            caller.emulator.fail("read", Drop(inside_answer=True), times=1)
            with pytest.raises(aiohttp.ClientError):
                await caller.read(made["task_id"])
            caller.emulator.fail("cancel", Status(500))
            assert await refused(caller, None, "DELETE", f"/api/v1/task/{made['task_id']}") == (
                500,
                "failed to make a task",
            )
            await asyncio.sleep(20)
            caller.emulator.fail("download", Status(502))
            link = links((await caller.read(made["task_id"]))["output"])[0]
            assert [(await caller.get(link))[0] for _ in range(2)] == [502, 200]

            seen = caller.emulator.seen
            assert (seen.creates, seen.reads, seen.faults.total()) == (3, 2, 5)
            assert (seen.requests["task_create"], seen.requests["file"], seen.keys_to_images) == (2, 2, 2)

    async def test_the_fate_of_a_task_is_given_to_the_route_or_its_group(self) -> None:
        async with emulating() as caller:
            caller.emulator.fail("task_create", TaskFails("no luck"))
            caller.emulator.fail("create", TaskTakes(7.0))
            fails = await caller.ask("kling", "video_generation", PROMPT)
            takes = await caller.ask("Qubico/tts", "zero-shot", {"gen_text": "hi", "ref_audio": LINK})
            await asyncio.sleep(8)
            assert (await caller.read(takes["task_id"]))["status"] == "completed"
            await asyncio.sleep(3600)
            assert (await caller.read(fails["task_id"]))["error"]["message"] == "no luck"

    async def test_a_word_nobody_knows_leaves_the_rest_as_it_was(self) -> None:
        async with emulating() as caller:
            task = await done(caller, "kling", "video_generation", PROMPT)
            caller.emulator.fail("task_read", UnknownStatus("dreaming"))
            answer = await caller.read(task["task_id"])
            assert ("dreaming", task["output"]) == (answer["status"], answer["output"])

    async def test_latency_is_given_to_a_route_a_group_or_all(self) -> None:
        async with emulating(latency={"read": 2.0, "task_read": 3.0, "*": 1.0}) as caller:
            loop = asyncio.get_running_loop()
            began, made = loop.time(), await caller.ask("sora2", "x", PROMPT)
            times = [loop.time() - began]
            for read in (caller.read(made["task_id"]), caller.call("POST", "/mj/v2/fetch", {"task_id": "x"})):
                began = loop.time()
                await read
                times.append(loop.time() - began)
            assert [round(seconds) for seconds in times] == [1, 3, 2]


async def test_the_page_and_the_counts_show_these_tasks_too() -> None:
    async with emulating() as caller:
        film = await done(caller, "kling", "video_generation", PROMPT)
        song = await done(caller, "music-u", "generate_music", {"gpt_description_prompt": "rain"})
        child = await caller.ask("kling", "extend_video", {"origin_task_id": film["task_id"]})
        _, news = await caller.call("GET", "/_emulator/tasks")

        assert (news["creates"], news["reads"]) == (3, 2)
        assert [row["verb"] for row in news["tasks"]] == [
            "kling/extend_video", "music-u/generate_music", "kling/video_generation",
        ]  # fmt: skip
        assert [bool(row["thumb"]) for row in news["tasks"]] == [False, False, True]
        assert (await caller.get(news["tasks"][2]["thumb"]))[2] == PNG
        assert caller.emulator.seen.creates_by_parent == {film["task_id"]: 1}
        assert {film["task_id"], song["task_id"]} == caller.emulator.seen.detection.keys()
        assert (await caller.get(f"/mj/{film['task_id']}.png"))[0] == 404
        assert (await caller.call("POST", "/mj/v2/fetch", {"task_id": child["task_id"]}))[0] == 400
        _, many = await caller.call("POST", "/mj/v2/multi_fetch", {"task_ids": [film["task_id"]]})
        assert many == {"data": {film["task_id"]: None}}


async def test_a_parent_that_nobody_made_can_be_adopted() -> None:
    emulator = Emulator(adopt_parents=True)
    async with (
        emulator.run() as base_url,
        aiohttp.ClientSession(base_url, headers={"X-API-Key": emulator.api_key}) as s,
    ):
        task = await done(Caller(emulator, s), "kling", "extend_video", {"origin_task_id": "mine"})
        parent = await Caller(emulator, s).read("mine")
        assert (task["status"], parent["model"], parent["status"]) == ("completed", "kling", "completed")
