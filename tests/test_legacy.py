"""The older Face Swap, Dream Machine and Kling protocols: what they send, and every shape of answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.any_json import JSON, NEAR, look_at_all_of
from support.tables import for_each
from support.typed_requests import LEGACY_BARE as BARE
from support.typed_requests import URL, URL_2, VIDEO

from piapi_async import (
    AuthenticationError,
    FileKind,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    Task,
    TaskState,
    UnexpectedAnswer,
)
from piapi_async._families import FAMILIES
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async.legacy import (
    DREAM_MACHINE,
    FACE_SWAP,
    LEGACY_KLING,
    Clip,
    DreamMachine,
    DreamMachineResult,
    FaceSwap,
    FaceSwapResult,
    Generation,
    KlingFile,
    KlingWork,
    LegacyKling,
    LegacyKlingResult,
)
from piapi_async.tasks import TaskId

ID = TaskId("c0d39b5a")
Build = Callable[..., Any]

FAMILY: list[Family[Any]] = [FACE_SWAP, DREAM_MACHINE, LEGACY_KLING]

each = for_each("build", [build for build, *_ in BARE], ids=["face swap", "dream machine", "kling"])
each_family = for_each("family", FAMILY, ids=lambda family: family.name)


def wrong(cls: Any, *args: Any, **inputs: Any) -> Build:
    """Give what type checkers would not let through."""
    return partial(cls, *args, **inputs)


def response(body: object, status: int = 200) -> HTTPResponse:
    return HTTPResponse(status, body if isinstance(body, bytes) else orjson.dumps(body))


def fetched(family: Family[Any], **data: Any) -> Task[Any]:
    return family.fetch(ID).parse(response({"code": 200, "data": data, "message": "success"}))


class TestCreate:
    @for_each(("build", "path", "body"), BARE)
    def test_sends_its_inputs_and_no_more(self, build: Build, path: str, body: dict[str, Any]) -> None:
        http = build().to_http()

        assert (http.method, http.path, orjson.loads(http.body)) == ("POST", path, body)

    def test_sends_what_else_was_said(self) -> None:
        luma = DreamMachine("a cat", image_url=URL, image_end_url=URL_2, expand_prompt=True, loop=False)
        kling = LegacyKling(
            image_url=URL, professional_mode=True, creativity=0.5, camera_control={"type": "empty"}
        )

        assert orjson.loads(luma.to_http().body) == {
            "prompt": "a cat",
            "expand_prompt": True,
            "image_url": URL,
            "image_end_url": URL_2,
            "loop": False,
        }
        assert orjson.loads(kling.to_http().body) == {
            "image_url": URL,
            "professional_mode": True,
            "creativity": 0.5,
            "camera_control": {"type": "empty"},
        }

    @each
    def test_of_a_misspelt_input_is_a_type_error(self, build: Build) -> None:
        with pytest.raises(TypeError, match="promt"):
            build(promt="a cat")

    @for_each(
        ("build", "told"),
        [
            (wrong(FaceSwap, "a.png", swap_image=URL), "FaceSwap.target_image: 'a.png' is not allowed"),
            (wrong(FaceSwap, URL, swap_image=None), "FaceSwap.swap_image: None is not allowed"),
            (wrong(FaceSwap, URL, swap_image=URL, result_type=5), "a string such as 'url'"),
            (DreamMachine, "DreamMachine.prompt: None is not allowed; give prompt or image_url"),
            (LegacyKling, "LegacyKling.prompt: None is not allowed; give prompt or image_url"),
            (wrong(LegacyKling, "a cat", creativity=2), "LegacyKling.creativity: 2 is not allowed"),
            (wrong(LegacyKling, "a cat", camera_control=[]), "LegacyKling.camera_control"),
        ],
    )
    def test_refuses_what_no_host_takes(self, build: Build, told: str) -> None:
        with pytest.raises(ValueError, match="is not allowed") as caught:
            build()
        assert told in str(caught.value)

    def test_takes_files_that_are_here(self) -> None:
        request = FaceSwap(Path("me.png"), swap_image=URL)

        assert request.local_files() == (Path("me.png"),)
        assert (
            orjson.loads(request.with_links({Path("me.png"): URL_2}).to_http().body)["target_image"] == URL_2
        )

    @each
    def test_gives_the_new_tasks_id(self, build: Build) -> None:
        assert build().parse(response({"code": 200, "data": {"task_id": ID}, "message": "success"})) == ID

    @each
    def test_that_is_refused_says_why(self, build: Build) -> None:
        for answer in (response({"code": 400, "message": "no face"}), response({"message": "no face"}, 400)):
            with pytest.raises(InvalidRequestError, match="no face"):
                build().parse(answer)
        with pytest.raises(AuthenticationError):
            build().parse(response({"message": "invalid key"}, 401))

    @each
    def test_without_an_id_is_not_understood(self, build: Build) -> None:
        with pytest.raises(UnexpectedAnswer):
            build().parse(response({"code": 200, "data": {}, "message": "success"}))

    def test_makes_tasks_of_its_own_family(self) -> None:
        assert FaceSwap(URL, swap_image=URL).family is FACE_SWAP
        assert DreamMachine("a cat").family is DREAM_MACHINE
        assert LegacyKling("a cat").family is LEGACY_KLING
        assert repr(DreamMachine("a cat", loop=True)) == "DreamMachine('a cat', loop=True)"


class TestFetch:
    def test_asks_as_each_protocol_wants_it(self) -> None:
        assert [family.fetch(TaskId("a/b")).to_http() for family in FAMILY] == [
            HTTPRequest("POST", "/api/face_swap/v1/fetch", b'{"task_id":"a/b"}'),
            HTTPRequest("GET", "/api/luma/v1/video/a%2Fb"),
            HTTPRequest("GET", "/api/kling/v1/video/a%2Fb"),
        ]

    def test_of_a_face_swap_has_the_picture(self) -> None:
        task = fetched(FACE_SWAP, task_id=ID, status="success", image=URL)

        assert (task.state, task.result, task.images) == (TaskState.DONE, FaceSwapResult(URL), (URL,))
        assert [(file.url, file.path, file.kind) for file in task.files] == [(URL, "image", FileKind.IMAGE)]

    def test_of_dream_machine_has_the_video(self) -> None:
        video = {"url": VIDEO, "width": 1360, "height": 752, "thumbnail": None, "download_url": VIDEO + "?d"}
        task = fetched(
            DREAM_MACHINE,
            task_id=ID,
            status="completed",
            input='{"prompt":"a cat"}',
            metadata={"created_at": "2024-07-01T12:00:00Z", "started_at": 1719835205, "ended_at": {}},
            generation={"id": "g1", "prompt": "a cat", "state": "completed", "video": video, "liked": None},
        )

        assert task.result == DreamMachineResult(
            Generation("g1", "a cat", "completed", Clip(VIDEO, 1360, 752))
        )
        assert [(file.url, file.path, file.kind) for file in task.files] == [
            (VIDEO, "generation.video.url", FileKind.VIDEO)
        ]
        assert task.created_at == datetime(2024, 7, 1, 12, tzinfo=UTC)
        assert task.started_at == datetime(2024, 7, 1, 12, 0, 5, tzinfo=UTC)
        assert (task.ended_at, task.images, task.task_type) == (None, (), "")

    def test_of_kling_has_the_works(self) -> None:
        work = {
            "workId": 5,
            "type": "m2v_txt2video",
            "contentType": "video",
            "resource": {
                "resource": VIDEO,
                "resourceWithoutWatermark": VIDEO + "?w",
                "width": 1280,
                "duration": 5100,
            },
            "cover": {"resource": URL, "width": 1280},
        }
        task = fetched(LEGACY_KLING, task_id=ID, status="completed", works=[work], task={"id": 5})

        assert task.result == LegacyKlingResult(
            (
                KlingWork(
                    "video",
                    "m2v_txt2video",
                    KlingFile(VIDEO, VIDEO + "?w", 1280, duration=5100),
                    KlingFile(URL, width=1280),
                ),
            )
        )
        assert [(file.path, file.kind) for file in task.files] == [
            ("works[0].resource.resourceWithoutWatermark", FileKind.VIDEO),
            ("works[0].resource.resource", FileKind.VIDEO),
            ("works[0].cover.resource", FileKind.IMAGE),
        ]

    @each_family
    @for_each(
        ("word", "state"),
        [
            ("pending", TaskState.WAITING),
            ("staged", TaskState.WAITING),
            ("Processing", TaskState.RUNNING),
            ("success", TaskState.DONE),
            ("completed", TaskState.DONE),
            ("failed", TaskState.FAILED),
            ("unheard of", TaskState.WAITING),
        ],
    )
    def test_keeps_the_word_and_tells_what_it_means(
        self, family: Family[Any], word: str, state: TaskState
    ) -> None:
        task = fetched(family, status=word)

        assert (task.status, task.state, task.files, task.images) == (word, state, (), ())
        assert task.result == type(task.result)()

    @each_family
    @for_each(
        ("data", "text"),
        [
            ({"error": {"message": "no face", "raw_message": "no face found"}}, "no face; no face found"),
            ({"error": "no face"}, "no face"),
            ({"error": "", "message": "no face"}, "no face"),
            ({}, ""),
        ],
    )
    def test_of_a_failed_task_gives_the_reasons(
        self, family: Family[Any], data: dict[str, Any], text: str
    ) -> None:
        assert fetched(family, status="failed", **data).error == text
        assert fetched(family, status="success", **data).error == ""

    @each_family
    def test_of_an_unknown_id_is_not_found(self, family: Family[Any]) -> None:
        with pytest.raises(NotFoundError):
            family.fetch(ID).parse(response({"code": 400, "data": None, "message": "task not found"}))

    @each_family
    @for_each("data", [{}, {"status": ""}, {"status": "success", "task_id": "other"}])
    def test_without_this_task_is_not_understood(self, family: Family[Any], data: dict[str, Any]) -> None:
        with pytest.raises(UnexpectedAnswer):
            fetched(family, **data)

    def test_is_empty_where_a_detail_cannot_be_read(self) -> None:
        task = fetched(LEGACY_KLING, status="completed", works=[{"resource": {"resource": [], "width": 5}}])

        assert task.result.works[0].resource == KlingFile(width=5)


class TestFamily:
    @each_family
    def test_says_that_nothing_can_be_cancelled(self, family: Family[Any]) -> None:
        with pytest.raises(
            PiAPIError, match=f"{ID} cannot be cancelled: its protocol, {family.name}, has no call"
        ):
            family.cancel([ID])

    @each_family
    def test_reads_a_task_with_or_without_its_envelope(self, family: Family[Any]) -> None:
        data = {"task_id": ID, "status": "success"}

        assert family.read(data, ID) == family.read({"code": 200, "data": data}, ID)

    @each_family
    def test_reads_one_task_at_a_time(self, family: Family[Any]) -> None:
        assert family.fetch_many is None

    def test_are_known_by_name(self) -> None:
        assert [FAMILIES[name] for name in ("face-swap", "dream-machine", "legacy-kling")] == FAMILY

    @pytest.mark.parametrize(
        "call", [*(build() for build, *_ in BARE), *(family.fetch(ID) for family in FAMILY)]
    )
    @given(
        body=(NEAR | JSON).map(orjson.dumps) | st.binary(max_size=200),
        status=st.sampled_from([200, 400, 404, 500]),
    )
    @example(body=b'{"data":{"status":"success","works":' + b"[" * 900 + b"]" * 900 + b"}}", status=200)
    def test_makes_of_anything_a_value_or_an_error_of_ours(self, call: Any, body: bytes, status: int) -> None:
        with contextlib.suppress(PiAPIError):
            look_at_all_of(call.parse(HTTPResponse(status, body)))
