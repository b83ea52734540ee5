"""Uploads, the account, and the older protocols of three systems."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import wave
from typing import Any

import av
import pytest
from PIL import Image
from support.emulating import Caller, Inbox, emulating
from support.systems import LINK, PROMPT

from piapi_async.emulator._media.files import File, FileMaker
from piapi_async.emulator._service import uploads
from piapi_async.emulator.pictures import Gallery, Picture

pytestmark = pytest.mark.looptime

BYTES = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
DATA = base64.b64encode(BYTES).decode()


async def _upload(caller: Caller, **body: Any) -> tuple[int, Any]:
    return await caller.call("POST", "/api/ephemeral_resource", body)


class TestUpload:
    @pytest.mark.parametrize("data", [DATA, f"data:image/png;base64,{DATA}"])
    async def test_a_file_is_served_back_for_a_day(self, data: str) -> None:
        async with emulating() as caller:
            status, answer = await _upload(caller, file_name="My Cat.PNG", file_data=data)
            url = answer["data"]["url"]

            assert (status, answer) == (200, {"code": 200, "data": {"url": url}, "message": "success"})
            assert (200, BYTES, "image/png") == await caller.get(url)
            await asyncio.sleep(24 * 3600 - 60)
            assert (await caller.get(url))[0] == 200
            await asyncio.sleep(120)
            assert (await caller.get(url))[0] == 404

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"file_name": "cat.png"},
            {"file_name": "cat.gif", "file_data": DATA},
            {"file_name": "png", "file_data": ""},
            {"file_name": f"{'x' * 125}.png", "file_data": DATA},
            {"file_name": "cat.png", "file_data": "not base64"},
            {"file_name": "cat.png", "file_data": f"data:image/png,{DATA}"},
            {"file_name": 1, "file_data": DATA},
            {"file_name": "cat.mp4", "file_data": base64.b64encode(bytes(10 * 2**20 + 1)).decode()},
        ],
    )
    async def test_what_cannot_be_kept_is_refused(self, body: Any) -> None:
        async with emulating() as caller:
            expected = {"code": 400, "data": None, "message": "Invalid request parameters"}
            assert await _upload(caller, **body) == (400, expected)

    async def test_ten_megabytes_are_taken(self) -> None:
        async with emulating() as caller:
            data = base64.b64encode(bytes(10 * 2**20)).decode()
            _, answer = await _upload(caller, file_name="cat.mp3", file_data=data)
            assert (await caller.get(answer["data"]["url"]))[2] == "audio/mpeg"

    async def test_a_free_plan_and_a_wrong_key_are_refused(self) -> None:
        async with emulating(plan="free-hya") as caller:
            answer = await _upload(caller, file_name="cat.png", file_data=DATA)
            assert answer == (403, {"code": 403, "data": None, "message": "Insufficient plan level"})
            caller.session.headers["X-API-Key"] = "wrong"
            assert (await _upload(caller, file_name="cat.png", file_data=DATA))[0] == 401

    async def test_the_oldest_makes_room(self) -> None:
        async with emulating() as caller:
            urls = [
                (await _upload(caller, file_name="a.png", file_data=DATA))[1]["data"]["url"]
                for _ in range(uploads.KEPT + 1)
            ]
            assert len(set(urls)) == len(urls)
            assert [(await caller.get(url))[0] for url in (urls[0], urls[1], urls[-1])] == [404, 200, 200]


async def test_the_account_counts_what_its_tasks_cost() -> None:
    async with emulating(durations=60.0, api_keys=("emulator-key", "other")) as caller:

        async def account(**headers: str) -> Any:
            status, answer = await caller.call("GET", "/account/info", **headers)
            assert (status, answer["code"], answer["message"]) == (200, 200, "success")
            return answer["data"]

        first = await account()
        await caller.ask("luma", "video_generation", PROMPT)
        await caller.ask("Qubico/flux1-dev", "txt2img", PROMPT)
        running = await account()
        await asyncio.sleep(100)
        last = await account()

        assert {"id", "name", "plan", "credit_pack_info", "equivalent_in_usd", "wallet"} <= first.keys()
        assert (first["plan"], first["max_concurrent_task_count"]) == ("pro-hya", 30)
        counts = [
            (each["credit_pack_info"]["frozen_credits"], each["credit_pack_info"]["used_credits"])
            for each in (first, running, last)
        ]
        assert counts == [(0, 0), (2_000_000, 200_000), (0, 2_200_000)]
        assert (
            last["wallet"]["point_remain"]
            == last["credit_pack_info"]["available_credits"]
            == 10**9 - 2_200_000
        )
        assert first["equivalent_in_usd"] > last["equivalent_in_usd"]
        other = await account(**{"X-API-Key": "other"})
        assert (other["wallet"]["point_used"], other["id"] == first["id"]) == (0, False)


async def test_active_tasks_are_counted_as_the_machine_has_them() -> None:
    async with emulating(durations=30.0, concurrency=2, retry_rate=1.0) as caller:
        ids = [(await caller.ask("kling", "video_generation", PROMPT))["task_id"] for _ in range(2)]
        await asyncio.sleep(14.5)
        retried = (await caller.fetch(await caller.create("imagine", prompt="a cat")))["status"]
        _, answer = await caller.call("GET", "/account/active_tasks")

        assert retried == "staged"
        assert {(await caller.read(task_id))["status"] for task_id in ids} == {"processing"}
        assert answer["data"]["kling"] == {
            "staged_count": 0,
            "pending_count": 0,
            "processing_count": 2,
            "active_tasks": [
                {"task_id": task_id, "task_type": "video_generation", "status": "processing"}
                for task_id in ids
            ],
        }
        assert answer["data"]["midjourney"]["staged_count"] == 1
        await asyncio.sleep(100)
        assert (await caller.call("GET", "/account/active_tasks"))[1]["data"] == {}


OLD: dict[str, tuple[str, dict[str, Any]]] = {
    "face_swap": (
        "/api/face_swap/v1/async",
        {"target_image": LINK, "swap_image": LINK, "result_type": "url"},
    ),
    "luma": ("/api/luma/v1/video", {"prompt": "a cat", "expand_prompt": False, "image_url": LINK}),
    "kling": ("/api/kling/v1/video", {"prompt": "a cat", "duration": 5}),
}


async def _old(caller: Caller, protocol: str, task_id: str) -> tuple[int, Any]:
    if protocol == "face_swap":
        return await caller.call("POST", "/api/face_swap/v1/fetch", {"task_id": task_id})
    return await caller.call("GET", f"{OLD[protocol][0]}/{task_id}")


class TestOlderProtocols:
    @pytest.mark.parametrize("protocol", OLD)
    async def test_each_makes_reads_and_tells(self, protocol: str) -> None:
        path, body = OLD[protocol]
        async with Inbox().open() as inbox, emulating(durations=60.0) as caller:
            hook = {"endpoint": inbox.url, "secret": "hush"}
            status, answer = await caller.call("POST", path, {**body, "webhook_config": hook})
            task_id = answer["data"]["task_id"]
            assert (status, answer) == (
                200,
                {"code": 200, "data": {"task_id": task_id}, "message": "success"},
            )
            _, waiting = await _old(caller, protocol, task_id)
            await asyncio.sleep(100)
            _, ended = await _old(caller, protocol, task_id)

            done = "success" if protocol == "face_swap" else "completed"
            assert (waiting["data"]["status"], ended["data"]["status"]) == ("pending", done)
            assert [(body, secret) for _, body, secret in inbox.posts] == [(ended, "hush")]
            assert (await caller.read(task_id))["status"] == "completed"

    async def test_the_results_are_where_they_were(self) -> None:
        async with emulating() as caller:
            ended = {}
            for protocol, (path, body) in OLD.items():
                task_id = (await caller.call("POST", path, body))[1]["data"]["task_id"]
                caller.emulator.end(task_id)
                ended[protocol] = (await _old(caller, protocol, task_id))[1]["data"]

            generation, work = ended["luma"]["generation"], ended["kling"]["works"][0]
            assert json.loads(ended["luma"]["input"])["prompt"] == "a cat"
            assert (generation["state"], ended["kling"]["task"]["status"]) == ("completed", 99)
            for link, kind in (
                (ended["face_swap"]["image"], "image/png"),
                (generation["video"]["url"], "video/mp4"),
                (generation["video"]["thumbnail"], "image/png"),
                (work["resource"]["resource"], "video/mp4"),
                (work["resource"]["resourceWithoutWatermark"], "video/mp4"),
                (work["cover"]["resource"], "image/png"),
            ):
                status, _, content_type = await caller.get(link)
                assert (200, kind) == (status, content_type)

    async def test_waiting_ones_show_nothing_and_failed_ones_say_why(self) -> None:
        async with emulating(durations=60.0) as caller:
            for protocol, (path, body) in OLD.items():
                task_id = (await caller.call("POST", path, body))[1]["data"]["task_id"]
                waiting = (await _old(caller, protocol, task_id))[1]["data"]
                caller.emulator.end(task_id, error="no luck")
                failed = (await _old(caller, protocol, task_id))[1]["data"]
                assert (waiting.get("image", ""), waiting.get("works", [])) == ("", [])
                assert waiting.get("generation", {"video": None})["video"] is None
                assert (failed["status"], failed["error"]) == ("failed", "no luck")

    async def test_what_is_not_theirs_is_refused(self) -> None:
        async with emulating() as caller:
            task_id = (await caller.call("POST", *OLD["kling"]))[1]["data"]["task_id"]
            swap = OLD["face_swap"][1]
            for answer, message in (
                (await _old(caller, "luma", task_id), "task not found"),
                (await _old(caller, "kling", "x"), "task not found"),
                (await _old(caller, "face_swap", ""), "task_id is required"),
                (await caller.call("POST", OLD["kling"][0], {}), "prompt or image_url is required"),
                (
                    await caller.call("POST", OLD["face_swap"][0], {**swap, "result_type": "base64"}),
                    'invalid result_type: must be "url"',
                ),
            ):
                assert answer == (400, {"code": 400, "data": None, "message": message})


class TestFiles:
    async def test_links_expire_and_only_what_the_output_names_is_there(self) -> None:
        async with emulating(durations=10.0, links_expire_after=100.0, expired_status=410) as caller:
            made = await caller.ask(
                "Qubico/flux1-schnell", "txt2img", {**PROMPT, "batch_size": 2, "width": 512, "height": 256}
            )
            front = f"{caller.emulator.base_url}/files/{made['task_id']}"
            assert (await caller.get(f"{front}/image.png"))[0] == 404
            await asyncio.sleep(20)
            output = (await caller.read(made["task_id"]))["output"]

            assert output["image_urls"] == [f"{front}/image.png", f"{front}/image-1.png"]
            first, second = [(await caller.get(url))[1] for url in output["image_urls"]]
            assert first != second
            width, height = Image.open(io.BytesIO(first)).size
            assert width == pytest.approx(2 * height, abs=8)
            for name in ("image-2.png", "image.mp4", "image.exe"):
                assert (await caller.get(f"{front}/{name}"))[0] == 404
            assert (await caller.get(f"{caller.emulator.base_url}/files/x/image.png"))[0] == 404
            await asyncio.sleep(100)
            assert (await caller.get(f"{front}/image.png"))[0] == 410

    async def test_a_clip_is_as_large_as_the_output_says(self) -> None:
        async with emulating(picture_size=256) as caller:
            made = await caller.ask("luma", "video_generation", {**PROMPT, "aspect_ratio": "16:9"})
            caller.emulator.end(made["task_id"])
            shown = (await caller.read(made["task_id"]))["output"]
            with av.open(io.BytesIO((await caller.get(shown["video_raw"]["url"]))[1]), "r") as video:
                frame = next(video.decode(video=0))
            still = Image.open(io.BytesIO((await caller.get(shown["thumbnail"]["url"]))[1]))

            assert (frame.width, frame.height) == (shown["video_raw"]["width"], shown["video_raw"]["height"])
            assert still.size == (shown["thumbnail"]["width"], shown["thumbnail"]["height"])
            assert still.width / still.height == pytest.approx(16 / 9, rel=0.1)

    def test_each_kind_opens_and_the_same_recipe_gives_the_same_bytes(self) -> None:
        made = {}
        for suffix in ("png", "mp4", "wav", "glb"):
            file = File(suffix, Picture(5, 7, 256, 128), 7)
            maker = FileMaker(Gallery())
            made[suffix] = maker.make(file)
            assert made[suffix] is maker.make(file)
            assert made[suffix] == FileMaker(Gallery()).make(file)

        assert Image.open(io.BytesIO(made["png"])).size == (256, 128)
        with av.open(io.BytesIO(made["mp4"]), "r") as video:
            frames = [(frame.width, frame.height) for frame in video.decode(video=0)]
        assert frames == [(64, 32)] * 24
        with wave.open(io.BytesIO(made["wav"])) as sound:
            assert (sound.getnframes(), sound.getframerate()) == (16_000, 8000)
        _cube(made["glb"])

    def test_only_the_last_few_are_remembered(self) -> None:
        maker = FileMaker(Gallery(), keep=2)
        first, *_ = [File("wav", Picture(1, 1, 8, 8), seed) for seed in range(3)]
        made = maker.make(first)
        for seed in (1, 2):
            maker.make(File("wav", Picture(1, 1, 8, 8), seed))
        assert maker.make(first) == made
        assert maker.make(first) is not made


def _cube(content: bytes) -> None:
    """Check a binary glTF: its lengths, its JSON, and that every accessor lies in the buffer."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    size, kind = struct.unpack_from("<I4s", content, 12)
    assert (kind, size % 4) == (b"JSON", 0)
    scene = json.loads(content[20 : 20 + size])
    body, kind = struct.unpack_from("<I4s", content, 20 + size)
    assert (kind, body % 4, 28 + size + body) == (b"BIN\0", 0, len(content))
    assert scene["buffers"][0]["byteLength"] <= body
    sizes = {5126: 4, 5121: 1, 5123: 2}
    parts = {"VEC3": 3, "VEC4": 4, "SCALAR": 1}
    for accessor in scene["accessors"]:
        view = scene["bufferViews"][accessor["bufferView"]]
        assert (
            accessor["count"] * sizes[accessor["componentType"]] * parts[accessor["type"]]
            == view["byteLength"]
        )
        assert view["byteOffset"] + view["byteLength"] <= scene["buffers"][0]["byteLength"]
    corners = struct.unpack_from("<36H", content, 28 + size + scene["bufferViews"][2]["byteOffset"])
    assert set(corners) == set(range(8))
    x, y, z, w = scene["nodes"][0]["rotation"]
    assert x * x + y * y + z * z + w * w == pytest.approx(1)
