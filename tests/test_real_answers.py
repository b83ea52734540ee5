"""Answers as the vendor gave them: each field is read as it stands there.

Ids and links are replaced, and what no test needs is left out.  How real each is stands beside it: *as it was* (a
delivery or answer on a page of the vendor's, or copied by who received it), *a sample* (of the vendor's documentation),
*rebuilt* (from what its readers take).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from piapi_async import UNIFIED, Cost, FileKind, PiAPIError, Task, TaskState
from piapi_async._http import HTTPResponse
from piapi_async.account import Upload
from piapi_async.models import flux, gemini, kling, luma, midjourney, seedance, udio
from piapi_async.tasks import TaskId

ID = TaskId("820b72ec")
FILE = "https://img.theapi.app/"
CLIPS = "https://storage.theapi.app/videos/"
NEVER = "0001-01-01T00:00:00Z"
NO_ERROR = {"code": 0, "raw_message": "", "message": "", "detail": None}


def data_of(
    status: str, output: Any, *, usage: Any = None, times: tuple[str, str, str] | None = None
) -> dict[str, Any]:
    """Give a task as the unified protocol tells of it."""
    created, started, ended = times or (NEVER, NEVER, NEVER)
    meta = {"created_at": created, "started_at": started, "ended_at": ended, "usage": usage}
    around: dict[str, Any] = {"detail": None, "logs": [], "error": NO_ERROR, "input": {}}
    return {"task_id": ID, "status": status, "output": output, "meta": meta, **around}


def fetched(request: Any, data: dict[str, Any]) -> Task[Any]:
    """Read a task as the answer to a fetch."""
    body = orjson.dumps({"code": 200, "data": data, "message": "success"})
    task: Task[Any] = request.family.fetch(ID).parse(HTTPResponse(200, body))
    return task


def delivered(request: Any, data: dict[str, Any]) -> Task[Any]:
    """Read a task as a webhook's delivery."""
    task: Task[Any] = request.family.read({"timestamp": 1766571018, "data": data}, ID)
    return task


def links(task: Task[Any]) -> list[tuple[str, FileKind, str]]:
    return [(file.path, file.kind, file.url) for file in task.files]


def roles(task: Task[Any]) -> list[tuple[str, str]]:
    return [(file.path, file.role.value) for file in task.files]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class TestFlux:
    def test_kontext_that_is_finished(self) -> None:
        """A sample, without its input."""
        times = (
            "2025-06-30T07:11:30.719851187Z",
            "2025-06-30T07:11:31.891665902Z",
            "2025-06-30T07:12:03.388312371Z",
        )
        output = {"image_base64": "", "image_url": f"{FILE}temp/a.png"}
        usage = {"type": "llm", "frozen": 0, "consume": 200000}
        task = fetched(
            flux.Kontext("a hat", image=f"{FILE}a.png"),
            data_of("completed", output, usage=usage, times=times),
        )

        assert (task.state, task.error, task.progress) == (TaskState.DONE, "", None)
        assert task.result.image_url == f"{FILE}temp/a.png"
        assert task.images == (f"{FILE}temp/a.png",)
        assert links(task) == [("output.image_url", FileKind.IMAGE, f"{FILE}temp/a.png")]
        assert task.cost == Cost(200000, "llm")
        assert task.created_at == at("2025-06-30T07:11:30.719851")
        assert task.started_at == at("2025-06-30T07:11:31.891665")
        assert task.ended_at == at("2025-06-30T07:12:03.388312")

    def test_pending_after_its_create(self) -> None:
        """A sample."""
        times = ("2024-09-25T07:40:08.333962391Z", NEVER, NEVER)
        usage = {"type": "quota", "frozen": 0, "consume": 0}
        task = fetched(flux.TextToImage("a cat"), data_of("pending", None, usage=usage, times=times))

        assert (task.state, task.files, task.cost) == (TaskState.WAITING, (), Cost(0, "quota"))
        assert (task.created_at, task.started_at, task.ended_at) == (
            at("2024-09-25T07:40:08.333962"),
            None,
            None,
        )

    def test_with_another_word_for_its_end(self) -> None:
        """A sample, which says "success" where others say "completed", and tells nothing in `meta`."""
        data = data_of("success", {"image_url": f"{FILE}temp/x.png", "image_base64": ""}) | {"meta": {}}
        task = fetched(flux.TextToImage("a cat"), data)

        assert (task.state, task.status, task.cost) == (TaskState.DONE, "success", None)
        assert task.images == (f"{FILE}temp/x.png",)


class TestKling:
    def test_turbo_as_it_was_delivered(self) -> None:
        """As it was."""
        times = (
            "2025-12-24T10:08:00.260200381Z",
            "2025-12-24T10:08:01.091506008Z",
            "2025-12-24T10:10:18.112349385Z",
        )
        usage = {"type": "llm", "frozen": 0, "consume": 2800000}
        data = data_of("completed", {"video": f"{FILE}ephemeral/a.mp4"}, usage=usage, times=times)
        task = delivered(kling.Video("a cat", model="kling-turbo"), data)

        assert task.result.video == f"{FILE}ephemeral/a.mp4"
        assert links(task) == [("output.video", FileKind.VIDEO, f"{FILE}ephemeral/a.mp4")]
        assert (str(task.cost), task.ended_at) == ("2,800,000 llm", at("2025-12-24T10:10:18.112349"))

    def test_motion_control_as_it_was_delivered(self) -> None:
        """As it was, with what it held still set aside although it was paid."""
        work = {
            "content_type": "video",
            "status": 99,
            "type": "m2v_motion_control",
            "cover": {
                "resource": "https://s15-kling.klingai.com/kimg/cover.origin?x-kcdn-pid=112372",
                "resource_without_watermark": "",
                "height": 1280,
                "width": 720,
                "duration": 0,
            },
            "video": {
                "resource": "https://v15-kling.klingai.com/bs2/output.mp4?x-kcdn-pid=112372",
                "resource_without_watermark": f"{CLIPS}1.mp4",
                "height": 1280,
                "width": 720,
                "duration": 8766,
            },
        }
        output = {"video_url": f"{CLIPS}1.mp4", "type": "m2v_motion_control", "status": 99, "works": [work]}
        usage = {"type": "point", "frozen": 5850000, "consume": 5850000}
        data = data_of("completed", output, usage=usage) | {"logs": None}
        task = delivered(kling.MotionControl(f"{FILE}a.png", preset_motion="Heart Gesture Dance"), data)

        assert task.result.video_url == f"{CLIPS}1.mp4"
        (made,) = task.result.works
        assert (made.video.resource_without_watermark, made.video.duration) == (f"{CLIPS}1.mp4", 8766)
        assert (made.cover.width, made.cover.height) == (720, 1280)
        assert roles(task) == [
            ("output.video_url", "result"),
            ("output.works[0].video.resource", "watermarked"),
            ("output.works[0].cover.resource", "cover"),
        ]
        assert task.files[0].url == f"{CLIPS}1.mp4"
        assert task.cost == Cost(5850000, "point")

    def test_classic_of_an_older_version(self) -> None:
        """A sample."""
        work = {
            "status": 99,
            "type": "m2v_txt2video_hq",
            "cover": {
                "resource": "https://xxx.png",
                "resource_without_watermark": "",
                "height": 1440,
                "width": 1440,
            },
            "video": {
                "resource": "https://xxx.mp4",
                "resource_without_watermark": f"{CLIPS}2.mp4",
                "duration": 5100,
            },
        }
        output = {"type": "m2v_txt2video_hq", "status": 99, "works": [work]}
        task = fetched(kling.Video("a cat"), data_of("completed", output))

        assert task.result.works[0].video.resource_without_watermark == f"{CLIPS}2.mp4"
        assert roles(task) == [
            ("output.works[0].video.resource_without_watermark", "result"),
            ("output.works[0].video.resource", "watermarked"),
            ("output.works[0].cover.resource", "cover"),
        ]

    @pytest.mark.parametrize(
        ("request_", "consume", "times"),
        [
            (
                kling.Video("a cat", version="3.0"),
                7500000,
                (
                    "2026-02-13T03:20:33.392553085Z",
                    "2026-02-13T03:20:34.305168282Z",
                    "2026-02-13T03:22:24.64542152Z",
                ),
            ),
            (
                kling.OmniVideo("a cat", version="o1"),
                3900000,
                (
                    "2026-02-07T00:14:45.539719292Z",
                    "2026-02-07T00:14:45.759947942Z",
                    "2026-02-07T00:16:08.628146393Z",
                ),
            ),
        ],
        ids=["3.0", "omni"],
    )
    def test_newer_as_they_were_delivered(
        self, request_: Any, consume: int, times: tuple[str, str, str]
    ) -> None:
        """As they were."""
        usage = {"type": "point", "frozen": 0, "consume": consume}
        task = delivered(request_, data_of("completed", {"video": f"{CLIPS}3.mp4"}, usage=usage, times=times))

        assert task.result.video == f"{CLIPS}3.mp4"
        assert links(task) == [("output.video", FileKind.VIDEO, f"{CLIPS}3.mp4")]
        assert task.cost == Cost(consume, "point")
        assert task.started_at is not None
        assert task.ended_at is not None
        assert 80 < (task.ended_at - task.started_at).total_seconds() < 120

    def test_pending_with_a_place_for_its_video(self) -> None:
        """Partly retyped by who received it: no `usage`, a link that is empty."""
        data = data_of("pending", {"video": ""}) | {"meta": {"created_at": "2026-02-13T03:20:33.392553085Z"}}
        task = fetched(kling.Video("a cat", version="3.0"), data)

        assert (task.state, task.files, task.cost) == (TaskState.WAITING, (), None)


class TestOthers:
    def test_gemini_as_it_was_delivered(self) -> None:
        """As it was; the answer to its create showed the cost already."""
        usage = {"type": "llm", "frozen": 0, "consume": 300000}
        data = data_of("completed", {"image_urls": [f"{FILE}ephemeral/a.png"]}, usage=usage)
        task = delivered(gemini.Image("a dog"), data)

        assert task.images == task.result.image_urls == (f"{FILE}ephemeral/a.png",)
        assert task.cost == Cost(300000, "llm")

    def test_midjourney_whose_four_pictures_are_called_temporary(self) -> None:
        """As it was."""
        quarters = [f"{FILE}cdn-cgi/image/trim={part}/mj/a.png" for part in ("0;1456;816;0", "0;0;816;1456")]
        output = {
            "image_url": f"{FILE}mj/a.png",
            "image_urls": None,
            "temporary_image_urls": quarters,
            "discord_image_url": "",
            "actions": ["reroll", "upscale1"],
            "progress": 100,
            "intermediate_image_urls": None,
        }
        usage = {"type": "point", "frozen": 700000, "consume": 700000}
        times = ("2025-05-19T12:14:12Z", "2025-05-19T12:14:15Z", "2025-05-19T12:14:39Z")
        task = fetched(midjourney.Imagine("a girl"), data_of("completed", output, usage=usage, times=times))

        assert task.images == task.result.temporary_image_urls == tuple(quarters)
        assert task.result.image_urls == ()
        assert (task.progress, task.result.actions) == (100, ("reroll", "upscale1"))
        assert (task.cost, task.ended_at) == (Cost(700000, "point"), at("2025-05-19T12:14:39"))

    def test_luma_whose_clean_video_stands_beside_the_watermarked(self) -> None:
        """Rebuilt."""
        output = {
            "generation": None,
            "video": {
                "url": f"{FILE}wm.mp4",
                "url_no_watermark": None,
                "width": 1360,
                "height": 752,
                "thumbnail": None,
            },
            "video_raw": {"url": f"{FILE}clean.mp4", "width": 1360, "height": 752},
        }
        task = fetched(luma.Video("a cat"), data_of("completed", output))

        assert task.result.video_raw.url == f"{FILE}clean.mp4"
        assert (task.result.video.width, task.result.video.height) == (1360, 752)
        assert roles(task) == [("output.video_raw.url", "result"), ("output.video.url", "watermarked")]

    def test_seedance_that_shows_its_video_before_it_has_ended(self) -> None:
        """A client's own test: the status word decides, not what stands beside it."""
        data = {
            "status": "pending",
            "output": {"video": f"{FILE}ephemeral/a.mp4"},
            "logs": ["still says pending"],
            "meta": {"usage": {"consume": 123}},
        }
        task = fetched(seedance.Video("a cat"), data)

        assert (task.state, task.error) == (TaskState.WAITING, "")
        assert task.cost == Cost(123, "")

    def test_suno_with_clips_by_their_ids(self) -> None:
        """A sample with fields left out; the vendor has stopped it."""
        clip = {
            "id": "a43c955a",
            "video_url": "https://cdn1.suno.ai/a.mp4",
            "audio_url": "https://cdn1.suno.ai/a.mp3",
            "image_url": "https://cdn2.suno.ai/a.jpeg",
            "metadata": {"tags": "pop"},
        }
        data = data_of("completed", {"clips": {"7d7231fa": {}, "a43c955a": clip}})
        task = UNIFIED.read(data, ID)

        assert [file.kind for file in task.files] == [FileKind.VIDEO, FileKind.AUDIO, FileKind.IMAGE]
        assert task.result["clips"]["a43c955a"] == clip

    @pytest.mark.parametrize(
        ("output", "kind"),
        [
            ({"works": [{"video": {"resource_without_watermark": f"{CLIPS}4.mp4"}}]}, FileKind.VIDEO),
            ({"audio_url": f"{FILE}temp/a.flac"}, FileKind.AUDIO),
        ],
    )
    def test_fragments_of_the_older_brand(self, output: dict[str, Any], kind: FileKind) -> None:
        """As they were, without anything around them."""
        task = UNIFIED.read({"data": {"status": "completed", "output": output}}, ID)

        assert [file.kind for file in task.files] == [kind]

    def test_the_address_of_an_upload(self) -> None:
        """A sample."""
        body = b'{"code": 200, "data": {"url": "https://example.com/example.png"}, "message": "success"}'

        assert Upload("a.png", b"a").parse(HTTPResponse(200, body)) == "https://example.com/example.png"


class TestRefusal:
    def test_of_a_song_tells_its_reason_in_one_place_only(self) -> None:
        """As its author copied it: HTTP 500, a task that failed at once, the reason in `data.error.raw_message`."""
        reason = (
            "failed to freeze account point quota: account point quota not enough; account credit not enough"
        )
        data = data_of(
            "failed", {"generation_id": "", "songs": None}, usage={"type": "", "frozen": 500000, "consume": 0}
        )
        data |= {
            "error": {"code": 10000, "raw_message": reason, "message": "failed to pre-process task runtime"}
        }
        body = {"code": 500, "data": data, "message": "failed to pre-process task runtime"}

        with pytest.raises(PiAPIError):
            udio.GenerateMusic("a ballad").parse(HTTPResponse(500, orjson.dumps(body)))

        task = udio.GenerateMusic("a ballad").family.read(body, ID)
        assert (task.state, task.cost) == (TaskState.FAILED, Cost(0, ""))
        assert reason in task.error
