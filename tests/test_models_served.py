"""Every typed request submitted, waited for and saved, on the service itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.serving import serving
from support.typed_requests import BARE, LEGACY_BARE, PARENT, Build, class_of, name_of

from piapi_async import FileKind, PiAPI, PiAPIError, PollPolicy, TaskState, download
from piapi_async.legacy import FACE_SWAP
from piapi_async.models import joycaption, kling, midjourney, udio

pytestmark = pytest.mark.looptime

BUILDS = [*(build for build, *_ in BARE), *(build for build, *_ in LEGACY_BARE)]
ENDS_IN_WORDS = (joycaption.Caption, udio.GenerateLyrics, midjourney.Describe, midjourney.Seed)
SUFFIXES = {
    FileKind.IMAGE: {".png"},
    FileKind.VIDEO: {".mp4"},
    FileKind.AUDIO: {".wav"},
    FileKind.MODEL: {".glb"},
}


async def parent_of(piapi: Any, cls: type[Any]) -> str:
    """Give a finished task that such a request can be derived from."""
    if cls.__module__ == kling.__name__:
        handle = await piapi.submit(kling.Video("a cat"))
    else:
        handle = await piapi.submit(midjourney.Imagine("a cat"))
        if cls in (midjourney.Inpaint, midjourney.Outpaint, midjourney.Pan):
            handle = await piapi.submit(midjourney.Upscale((await handle.wait()).task_id, index=1))
    task_id: str = (await handle.wait()).task_id
    return task_id


async def serve(piapi: PiAPI, build: Build, folder: Path) -> None:
    request: Any = build()
    if getattr(request, "origin_task_id", None) == PARENT:
        request = attrs.evolve(request, origin_task_id=await parent_of(piapi, class_of(build)))
    task = await (await piapi.submit(request)).wait(timeout=600)
    paths = await download(task, folder, all_files=True) if task.files else []

    assert task.state is TaskState.DONE
    assert task.result is not None
    assert [path.suffix in SUFFIXES[file.kind] for path, file in zip(paths, task.files, strict=True)] == [
        True for _ in task.files
    ]
    assert bool(task.files) is (class_of(build) not in ENDS_IN_WORDS)


@pytest.mark.storm
@pytest.mark.measured
async def test_each_request_is_taken_waited_for_and_saved(tmp_path: Path) -> None:
    async with serving({"poll": PollPolicy.every(15.0)}, picture_size=32, queue=len(BUILDS)) as (_, piapi):
        ends = await asyncio.gather(
            *(serve(piapi, build, tmp_path) for build in BUILDS), return_exceptions=True
        )

    assert {} == {
        name_of(class_of(build)): end for build, end in zip(BUILDS, ends, strict=True) if end is not None
    }


class TestResults:
    async def test_of_songs_have_their_links_and_words(self) -> None:
        async with serving(picture_size=64) as (_, piapi):
            songs = (
                await (await piapi.submit(udio.GenerateMusic("a sea ballad"))).wait(timeout=600)
            ).result.songs

        assert len(songs) == 2
        assert all(song.song_path.endswith(".wav") and song.duration and song.finished for song in songs)

    async def test_of_a_refused_input_is_an_error_of_the_host(self) -> None:
        async with serving(picture_size=64) as (_, piapi):
            with pytest.raises(PiAPIError, match="nude"):
                await piapi.submit(kling.Video("a nude cat"))

    async def test_of_an_older_protocol_cannot_be_cancelled(self) -> None:
        async with serving(picture_size=64) as (_, piapi):
            with pytest.raises(PiAPIError, match="its protocol, face-swap, has no call for it"):
                await piapi.cancel("c0d39b5a", family=FACE_SWAP)
