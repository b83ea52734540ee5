"""The emulator is no stricter than the service where nothing is known: what clients are seen to send ends well."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.emulating import emulating
from support.systems import BEYOND, LINK, PROMPT

from piapi_async.emulator._service import checks

pytestmark = pytest.mark.looptime


def links(value: object) -> list[str]:
    """Return every link in an output, however deep."""
    if isinstance(value, dict):
        return [link for item in value.values() for link in links(item)]
    if isinstance(value, list):
        return [link for item in value for link in links(item)]
    return [value] if isinstance(value, str) and value.startswith("http") else []


async def test_every_input_that_is_seen_in_the_wild_ends_in_files() -> None:
    async with emulating(durations=1.0, concurrency=1000) as caller:
        made = [(await caller.ask(model, task_type, given))["task_id"] for model, task_type, given in BEYOND]
        await asyncio.sleep(5)
        tasks = [await caller.read(task_id) for task_id in made]

        for (model, task_type, given), task in zip(BEYOND, tasks, strict=True):
            assert (task["status"], task["model"], task["task_type"]) == ("completed", model, task_type)
            assert task["input"] == given
            assert links(task["output"]), (model, task_type)


async def test_a_song_is_of_the_words_it_was_given() -> None:
    words = {"prompt": "[Verse] la la", "lyrics_type": "user", "title": "La"}
    async with emulating(durations=1.0) as caller:
        made = await caller.ask("music-u", "generate_music", words)
        await asyncio.sleep(5)
        songs = (await caller.read(made["task_id"]))["output"]["songs"]
        assert {(song["title"], song["lyrics"]) for song in songs} == {("La", "[Verse] la la")}


async def test_a_kling_of_version_3_shows_its_video_alone() -> None:
    async with emulating(durations=1.0) as caller:
        made = await caller.ask("kling", "video_generation", {**PROMPT, "version": "3.0"})
        await asyncio.sleep(5)
        assert (await caller.read(made["task_id"]))["output"].keys() == {"video"}


async def test_what_the_vendor_has_stopped_is_refused_in_words_that_say_so() -> None:
    body = {"model": "music-s", "task_type": "generate_music", "input": PROMPT}
    async with emulating() as caller:
        status, answer = await caller.call("POST", "/api/v1/task", body)
        assert (status, answer["code"], answer["message"]) == (
            400,
            400,
            "Suno is no longer served: the vendor stopped music-s, and no host takes its tasks",
        )


async def test_many_pictures_do_not_hold_it_up() -> None:
    async with emulating(durations=1.0) as caller:
        made = await caller.ask("Qubico/flux1-dev-advanced", "txt2img-lora", {**PROMPT, "batch_size": 10**15})
        await asyncio.sleep(5)
        assert len((await caller.read(made["task_id"]))["output"]["image_urls"]) == 8


@pytest.mark.parametrize(
    "value", [LINK, "data:image/png;base64,AAAA", "AAAA", "iVBORw0KGgo=", "A" * 10_000_000]
)
def test_a_source_is_a_link_or_base64(value: str) -> None:
    assert checks.source(value) == ""


@pytest.mark.parametrize(
    "value", [1, None, "cat.png", "./cat.png", "ftp://x.org/c.png", "data:image/png,x", "http://["]
)
def test_a_source_is_no_path(value: Any) -> None:
    assert checks.source(value).startswith("must be ")
