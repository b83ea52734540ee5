"""The emulator as LegNext: the vendor's own package runs against it, and so does what its pages say of refusals."""

from __future__ import annotations

import asyncio
import hmac
import json
from pathlib import Path
from typing import Any

import legnext
import pytest
from legnext.webhook import WebhookVerifier
from support.emulating import Caller, Inbox, emulating

from piapi_async.emulator import Dialect, Emulator, TaskFails

HOURS = 3600.0


async def create(caller: Caller, verb: str, **body: Any) -> tuple[int, Any]:
    return await caller.call("POST", f"/api/v1/{verb}", body)


async def job(caller: Caller, job_id: str) -> Any:
    status, answer = await caller.call("GET", f"/api/v1/job/{job_id}")
    assert status == 200, answer
    return answer


async def finished(caller: Caller, verb: str, **body: Any) -> Any:
    """Return a new job at its end."""
    status, made = await create(caller, verb, **body)
    assert status == 200, made
    while (answer := await job(caller, made["job_id"]))["status"] not in ("completed", "failed"):
        await asyncio.sleep(5)
    return answer


@pytest.mark.looptime
async def test_the_vendors_own_package_draws_waits_and_upscales() -> None:
    package: Any = legnext
    async with (
        emulating() as caller,
        package.AsyncClient(caller.emulator.api_key, f"{caller.emulator.base_url}/api") as client,
    ):
        made = await client.midjourney.diffusion(text="a lighthouse --ar 16:9")
        grid = await client.tasks.wait_for_completion(made.job_id, timeout=3600)
        made = await client.midjourney.upscale(job_id=grid.job_id, image_no=1, type=0)
        one = await client.tasks.wait_for_completion(made.job_id, timeout=3600)
        balance = await client.account.balance()

        assert (grid.status.value, one.status.value) == ("completed", "completed")
        assert len(grid.output.image_urls) == 4
        assert (grid.meta.usage.frozen, grid.meta.usage.consume) == (80, 80)
        [picture] = one.output.image_urls
        assert (await caller.get(str(picture)))[2] == "image/png"
        assert balance.available_points == 1_000_000 - 80 - 120


@pytest.mark.looptime
async def test_what_each_verb_makes_is_in_its_field() -> None:
    async with emulating() as caller:
        grid = await finished(caller, "diffusion", text="a cat")
        videos = await finished(caller, "video-diffusion", jobId=grid["job_id"], imageNo=0)
        longer = await finished(caller, "extend-video", jobId=videos["job_id"], videoNo=3)
        texts = await finished(caller, "shorten", prompt="a very long prompt of a cat")
        described = await finished(caller, "describe", imgUrl="https://example.org/cat.png")
        panned = await finished(caller, "pan", jobId=grid["job_id"], imageNo=3, direction=2, scale=1.5)

        area = {"width": 1024, "height": 1024, "points": [0, 0, 9, 0, 9, 9]}
        images = ["https://example.org/1.png", "https://example.org/2.png"]
        for verb, body in (
            ("inpaint", {"jobId": grid["job_id"], "imageNo": 0, "mask": {"areas": [area]}}),
            ("inpaint", {"jobId": grid["job_id"], "imageNo": 0, "mask": {"url": images[0]}}),
            ("blend", {"imgUrls": images, "aspect_ratio": "2:3"}),
        ):
            made = await finished(caller, verb, **body)
            assert len(made["output"]["image_urls"]) == 4
        assert (await create(caller, "shorten", prompt="a cat"))[1]["output"]["prompts"] is None

        assert grid["output"]["image_url"]
        assert grid["output"]["available_actions"]["upscale"] == [0, 1, 2, 3]
        assert (videos["task_type"], longer["task_type"]) == ("video_diffusion", "extend_video")
        assert len(videos["output"]["video_urls"]) == 4
        assert (await caller.get(longer["output"]["video_urls"][3]))[2] == "video/mp4"
        assert texts["output"]["finalPrompt"] == "a very"
        assert len(described["output"]["prompts"]) == 4
        assert (await caller.get(panned["output"]["image_urls"][0]))[2] == "image/png"


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("diffusion", {}, 400, "text is required"),
    ("diffusion", {"text": "x" * 8193}, 400, "invalid text: must have at most 8192 characters"),
    ("diffusion", {"text": "a gore cat"}, 403, "The prompt contains sensitive content"),
    ("reroll", {"jobId": "nobody"}, 404, "job not found or expired"),
    (
        "upscale",
        {"jobId": "PARENT", "imageNo": 4, "type": 0},
        400,
        "invalid imageNo: must be an integer from 0 to 3",
    ),
    (
        "upscale",
        {"jobId": "PARENT", "imageNo": "1", "type": 0},
        400,
        "invalid imageNo: must be an integer from 0 to 3",
    ),
    ("extend-video", {"jobId": "PARENT", "videoNo": 0}, 400, "needs a files image task"),
    ("video-diffusion", {"jobId": "PARENT"}, 400, "prompt, or jobId and imageNo, are required"),
    (
        "blend",
        {"imgUrls": ["https://x.org/1.png"], "aspect_ratio": "1:1"},
        400,
        "must be a list of 2 to 5 URLs",
    ),
    (
        "blend",
        {"imgUrls": ["https://x.org/1.png"] * 2, "aspect_ratio": "16:9"},
        400,
        "must be one of 2:3, 1:1, 3:2",
    ),
    (
        "inpaint",
        {"jobId": "PARENT", "imageNo": 0, "mask": "iVBORw0KGgo="},
        400,
        "invalid mask: must be an object",
    ),
    ("inpaint", {"jobId": "PARENT", "imageNo": 0, "mask": {}}, 400, "invalid mask: must have areas or a url"),
    ("inpaint", {"jobId": "PARENT", "imageNo": 0, "mask": {"areas": [{}]}}, 400, "areas must have width"),
]


@pytest.mark.looptime
@pytest.mark.parametrize("shape", ["flat", "nested"])
async def test_refusals_have_the_status_and_the_shape_of_the_vendors_pages(shape: Any) -> None:
    async with emulating(dialect=Dialect(legnext_refusals=shape)) as caller:
        parent = (await finished(caller, "diffusion", text="a cat"))["job_id"]
        for verb, body, status, words in REFUSED:
            given = {name: parent if value == "PARENT" else value for name, value in body.items()}
            answered, answer = await create(caller, verb, **given)
            error = answer if shape == "flat" else answer["error"]
            assert (answered, error["code"]) == (status, status), answer
            assert words in error["message"]

        wrong = {"X-API-Key": "wrong"}
        assert (await caller.call("POST", "/api/v1/reroll", {"jobId": parent}, **wrong))[0] == 401
        assert (await caller.call("GET", f"/api/v1/job/{parent}", **wrong))[
            0
        ] == 200  # the id is all that it takes
        assert (await caller.call("GET", "/api/v1/job/nobody"))[0] == 404


@pytest.mark.looptime
async def test_a_job_is_a_parent_for_three_days() -> None:
    async with emulating() as caller:
        parent = (await finished(caller, "diffusion", text="a cat"))["job_id"]
        await asyncio.sleep(71 * HOURS)
        young = await create(caller, "reroll", jobId=parent)
        await asyncio.sleep(2 * HOURS)
        old = await create(caller, "reroll", jobId=parent)

        assert (young[0], old[0]) == (200, 404)
        assert (await job(caller, parent))["status"] == "completed"


@pytest.mark.looptime
async def test_six_jobs_are_worked_on_at_a_time_and_piapis_tasks_are_others() -> None:
    async with emulating() as caller:
        made = [(await create(caller, "diffusion", text=f"cat {number}"))[1] for number in range(8)]
        legacy = await caller.create("imagine", prompt="a cat")

        assert [answer["status"] for answer in made] == ["pending"] * 6 + ["staged"] * 2
        assert (await caller.fetch(legacy))["status"] == "pending"
        assert (await caller.call("GET", f"/api/v1/job/{legacy}"))[0] == 404
        assert (await caller.post("fetch", task_id=made[0]["job_id"]))[0] == 400
        assert (await caller.post("reroll", origin_task_id=made[0]["job_id"]))[0] == 400
        assert (await caller.call("GET", f"/api/v1/task/{made[0]['job_id']}"))[0] == 400


@pytest.mark.looptime
@pytest.mark.parametrize("secret", ["", "account-wide"])
async def test_callbacks_are_bare_jobs_signed_if_the_account_has_a_secret(secret: str) -> None:
    async with Inbox().open() as inbox, emulating(legnext_secret=secret) as caller:
        caller.emulator.fail("legnext_diffusion", TaskFails("blocked"), nth=2)
        await finished(caller, "diffusion", text="a cat", callback=f"{inbox.url}?bot=7")
        await finished(caller, "diffusion", text="a dog", callback=inbox.url)
        await asyncio.sleep(60)

        bodies = [body for _, body, _ in inbox.posts]
        assert [body["status"] for body in bodies] == ["completed", "failed"]
        assert bodies[0]["config"]["webhook_config"] == {"endpoint": f"{inbox.url}?bot=7", "secret": ""}
        assert bodies[1]["error"]["message"] == "blocked"
        assert [header for *_, header in inbox.posts] == [None, None]
        for headers, raw in inbox.raw:
            signature, timestamp = (headers.get(f"X-Legnext-{name}") for name in ("Signature", "Timestamp"))
            assert bool(signature) is bool(secret)
            if secret:
                assert WebhookVerifier(secret).verify(raw, str(signature), timestamp)
                assert not hmac.compare_digest(str(signature), hmac.new(b"", raw, "sha256").hexdigest())


@pytest.mark.looptime
async def test_jobs_are_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with emulating(state=path, epoch=0.0) as caller:
        grid = await finished(caller, "diffusion", text="a cat")
        await finished(caller, "outpaint", jobId=grid["job_id"], imageNo=1, scale=1.5)
        made = [(await create(caller, "reroll", jobId=grid["job_id"]))[1]["job_id"] for _ in range(7)]

    async with emulating(state=path, epoch=0.0) as caller:
        assert (await job(caller, grid["job_id"]))["output"] is not None
        assert [(await job(caller, job_id))["status"] for job_id in made] == ["pending"] * 6 + ["staged"]

    saved = json.loads(path.read_text())
    for wrong in ({"direction": "north"}, {"index": "9"}, {"zoom_ratio": "x"}, {"origin_task_id": 1}):
        damaged = json.loads(json.dumps(saved))
        damaged["tasks"][1]["given"] |= wrong
        path.write_text(json.dumps(damaged))
        with pytest.raises(Exception, match="given: invalid"):
            async with Emulator(state=path).run():
                pass
    for wrong in ({"verb": "sing"}, {"kind": "text"}):
        damaged = json.loads(json.dumps(saved))
        damaged["tasks"][1] |= wrong
        path.write_text(json.dumps(damaged))
        with pytest.raises(Exception, match=r"task_type|kind"):
            async with Emulator(state=path).run():
                pass
