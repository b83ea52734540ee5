"""The unified API: what its calls send, and every shape of answer: a value or a `PiAPIError`, nothing else."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import attrs
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.any_json import JSON, NEAR, look_at_all_of
from support.tables import for_each

from piapi_async import (
    UNIFIED,
    APIError,
    AuthenticationError,
    CreateTask,
    FileKind,
    FileRole,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    RateLimitError,
    ServerError,
    Task,
    TaskFile,
    TaskState,
    UnexpectedAnswer,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.fields import text
from piapi_async._text import label
from piapi_async.account import AccountInfo, CancelPending, GetActiveTasks, Upload
from piapi_async.models import flux, kling, midjourney
from piapi_async.models._outputs import AudioOutput, ImageOutput
from piapi_async.tasks import Created, TaskId
from piapi_async.unified import CancelTask, ModelRequest, Output, _Create, family_of, request

ID = TaskId("ba8d80d2-4b1c")
CREATE = CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": "a cat"})
NOON = datetime(2025, 7, 21, 12, tzinfo=UTC)


def response(body: object, status: int = 200) -> HTTPResponse:
    return HTTPResponse(status, body if isinstance(body, bytes) else orjson.dumps(body))


def created(body: object, status: int = 200) -> TaskId | Created:
    return CREATE.parse(response(body, status))


def fetched(data: object, status: int = 200) -> Task[Output]:
    return UNIFIED.fetch(ID).parse(response({"code": 200, "data": data, "message": "success"}, status))


def finished(**output: Any) -> Task[Output]:
    return fetched({"status": "completed", "output": output})


# A finished task of the vendor's pages, with its links shortened.
FINISHED: dict[str, Any] = {
    "code": 200,
    "message": "success",
    "data": {
        "task_id": ID,
        "model": "midjourney",
        "task_type": "imagine",
        "status": "completed",
        "config": {"service_mode": "public", "webhook_config": {"endpoint": "", "secret": ""}},
        "input": {"aspect_ratio": "1:1", "prompt": "test prompt"},
        "output": {
            "image_url": "https://img.theapi.app/mj/ba8d80d2.png",
            "image_urls": [f"https://img.theapi.app/0_{n}.png" for n in range(4)],
            "temporary_image_urls": None,
            "discord_image_url": "",
            "actions": ["reroll", "upscale1"],
            "progress": 100,
            "intermediate_image_urls": None,
        },
        "meta": {
            "created_at": "2025-07-21T02:55:32Z",
            "started_at": "2025-07-21T02:55:41Z",
            "ended_at": "2025-07-21T02:56:13Z",
            "usage": {"type": "mj", "frozen": 14, "consume": 8},
            "is_using_private_pool": False,
            "model_version": "unknown",
            "process_mode": "relax",
            "failover_triggered": False,
        },
        "detail": None,
        "logs": [],
        "error": {"code": 0, "raw_message": "", "message": "", "detail": None},
    },
}


class TestCreateTask:
    def test_sends_what_it_was_given(self) -> None:
        request = CreateTask("a/model", "a-type", {"prompt": "a cat", "nested": {"list": [1, None]}})

        assert request.to_http() == HTTPRequest(
            "POST",
            "/api/v1/task",
            b'{"model":"a/model","task_type":"a-type","input":{"prompt":"a cat","nested":{"list":[1,null]}}}',
        )

    @for_each(
        ("around", "config"),
        [
            ({"service_mode": "private"}, {"service_mode": "private"}),
            ({"service_mode": ""}, {"service_mode": ""}),
            (
                {"webhook_endpoint": "https://bot.example/hook"},
                {"webhook_config": {"endpoint": "https://bot.example/hook", "secret": ""}},
            ),
            (
                {"webhook_endpoint": "https://bot.example/hook", "webhook_secret": "hush-hush"},
                {"webhook_config": {"endpoint": "https://bot.example/hook", "secret": "hush-hush"}},
            ),
        ],
    )
    def test_says_in_its_config_what_was_said(self, around: dict[str, Any], config: dict[str, Any]) -> None:
        request = CreateTask("m", "t", {}, **around)

        assert orjson.loads(request.to_http().body)["config"] == config
        assert "hush-hush" not in repr(request)

    @for_each(
        ("args", "told"),
        [
            (("", "t", {}), "CreateTask.model: '' is not allowed; it must be a non-empty string"),
            (("m", None, {}), "CreateTask.task_type: None is not allowed"),
            (("m", "t", []), r"CreateTask.input: \[\] is not allowed; it must be a dict"),
            (("m", "t", {1: 2}), "CreateTask.input"),
            (("m", "t", {"a": object()}), "CreateTask.input"),
            (("m", "t", {"a": "\ud800"}), "CreateTask.input"),
        ],
    )
    def test_refuses_what_makes_no_request(self, args: tuple[Any, ...], told: str) -> None:
        with pytest.raises(ValueError, match=told):
            CreateTask(*args)

    @for_each(
        "around",
        [
            {"service_mode": "fast"},
            {"webhook_endpoint": "ftp://bot.example"},
            {"webhook_secret": "hush-hush"},
            {"webhook_endpoint": "https://bot.example:8443/"},
        ],
    )
    def test_refuses_what_no_host_takes_around_the_input(self, around: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="CreateTask"):
            CreateTask("m", "t", {}, **around)

    def test_takes_files_anywhere_in_its_input(self) -> None:
        cat, dog = Path("cat.png"), Path("dog.png")
        request = CreateTask("m", "t", {"image": cat, "more": [{"image": dog}, (cat,)]})

        assert request.local_files() == (cat, dog)
        linked = request.with_links({cat: "https://a.b/c.png", dog: "https://a.b/d.png"})
        assert orjson.loads(linked.to_http().body)["input"] == {
            "image": "https://a.b/c.png",
            "more": [{"image": "https://a.b/d.png"}, ["https://a.b/c.png"]],
        }
        assert linked == request

    def test_shows_itself_as_it_is_written(self) -> None:
        assert (
            repr(CREATE) == "CreateTask('Qubico/flux1-dev', task_type='txt2img', input={'prompt': 'a cat'})"
        )
        assert repr(flux.TextToImage("a cat", width=512)) == (
            "TextToImage('a cat', model='Qubico/flux1-schnell', width=512)"
        )

    def test_is_named_in_errors_by_its_first_words(self) -> None:
        assert label(CREATE) == "CreateTask('Qubico/flux1-dev')"
        assert label(flux.TextToImage("a cat")) == "TextToImage('a cat')"
        assert label(kling.Video(image_url="https://a.b/c.png")) == "Video()"


class TestCreated:
    @for_each("code", [200, 0, "200", None, {}, True])
    def test_gives_the_id(self, code: object) -> None:
        assert created({"code": code, "data": {"task_id": " t1 "}, "message": "success"}) == "t1"

    def test_gives_the_id_without_a_code(self) -> None:
        assert created({"data": {"task_id": "t1"}}) == "t1"

    @for_each(
        ("status", "kind"),
        [
            (400, InvalidRequestError),
            (401, AuthenticationError),
            (403, AuthenticationError),
            (404, NotFoundError),
            (429, RateLimitError),
            (500, ServerError),
        ],
    )
    def test_is_refused_by_the_status_or_by_the_code(self, status: int, kind: type[APIError]) -> None:
        body = {"code": status, "data": None, "message": "no such model"}

        for answer in (response(body, status), response(body)):
            with pytest.raises(kind, match="no such model") as caught:
                CREATE.parse(answer)
            assert caught.value.status == status
            assert caught.value.request == CREATE

    def test_is_refused_by_a_code_that_is_no_status(self) -> None:
        with pytest.raises(APIError, match="insufficient credits"):
            created({"code": 10000, "data": None, "message": "insufficient credits"})

    def test_is_refused_by_a_message_that_stands_alone(self) -> None:
        with pytest.raises(APIError, match="no credits"):
            created({"message": "no credits"})

    def test_is_refused_by_a_status_that_stands_alone(self) -> None:
        with pytest.raises(APIError, match="was refused"):
            created({"status": "failed"})

    @for_each(
        ("body", "path"),
        [
            ({"code": 200, "data": {}, "message": "success"}, "task_id"),
            ({"code": 200, "data": None, "message": ""}, "task_id"),
            ({}, "task_id"),
            ({"code": 200, "data": {"task_id": []}}, "task_id"),
            ({"code": 200, "data": {"task_id": True}}, "task_id"),
            ({"code": 200, "data": {"task_id": ""}, "message": "no credits"}, "task_id"),
            (b"[]", ""),
            (b"oops", ""),
        ],
    )
    def test_without_an_id_or_a_no_is_not_understood(self, body: object, path: str) -> None:
        with pytest.raises(UnexpectedAnswer) as caught:
            created(body)
        assert caught.value.path == path


class TestFetched:
    def test_asks_by_id(self) -> None:
        assert UNIFIED.fetch(TaskId("a/b")).to_http() == HTTPRequest("GET", "/api/v1/task/a%2Fb")

    def test_reads_a_finished_task_field_by_field(self) -> None:
        task = midjourney.Imagine("test prompt").family.fetch(ID).parse(response(FINISHED))

        wire = FINISHED["data"]
        assert (task.task_id, task.status, task.state) == (ID, "completed", TaskState.DONE)
        assert (task.task_type, task.progress, task.error) == ("imagine", 100, "")
        assert task.created_at == datetime(2025, 7, 21, 2, 55, 32, tzinfo=UTC)
        assert task.started_at == datetime(2025, 7, 21, 2, 55, 41, tzinfo=UTC)
        assert task.ended_at == datetime(2025, 7, 21, 2, 56, 13, tzinfo=UTC)
        assert task.images == tuple(wire["output"]["image_urls"])
        assert task.raw == wire
        assert task.result == midjourney.MidjourneyOutput(
            image_url=wire["output"]["image_url"],
            image_urls=tuple(wire["output"]["image_urls"]),
            actions=("reroll", "upscale1"),
            progress=100,
        )
        assert task.files == (
            *(
                TaskFile(url, f"output.image_urls[{n}]", FileKind.IMAGE)
                for n, url in enumerate(wire["output"]["image_urls"])
            ),
            TaskFile(wire["output"]["image_url"], "output.image_url", FileKind.IMAGE, FileRole.COPY),
        )

    def test_gives_the_output_as_it_came_where_nobody_says_more(self) -> None:
        assert fetched(FINISHED["data"]).result == FINISHED["data"]["output"]

    @for_each("name", ["image_urls", "temporary_image_urls"])
    def test_takes_either_list_of_images(self, name: str) -> None:
        other = {"image_urls", "temporary_image_urls"} - {name}
        task = finished(
            **{name: ["https://a.b/1.png", " "], other.pop(): None}, image_url="https://a.b/0.png"
        )

        assert task.images == ("https://a.b/1.png",)

    @for_each("output", [None, "", [], {}, "text", 5])
    def test_takes_anything_for_no_output(self, output: object) -> None:
        task = fetched({"status": "completed", "output": output})

        assert (task.result, task.images, task.files, task.progress) == ({}, (), (), None)

    @for_each(
        ("output", "progress"),
        [
            ({"progress": "42%"}, 42),
            ({"progress": 142}, 100),
            ({"progress": None}, None),
            ({"progress": {}}, None),
            ({"percent": 7}, 7),
            ({}, None),
        ],
    )
    def test_reads_progress_however_it_is_spelt(self, output: dict[str, Any], progress: int | None) -> None:
        assert fetched({"status": "processing", "output": output}).progress == progress

    def test_of_pictures_that_are_objects_has_their_links(self) -> None:
        task = finished(image_urls=[{"url": "https://a.b/1.png"}])

        assert task.images == ("https://a.b/1.png",)
        assert [file.path for file in task.files] == ["output.image_urls[0].url"]

    @for_each(
        "time",
        [
            "0001-01-01T00:00:00Z",
            "",
            None,
            0,
            5,
            [],
            "soon",
            "0000-00-00T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
        ],
    )
    def test_has_no_time_where_the_wire_has_none(self, time: object) -> None:
        meta = dict.fromkeys(("created_at", "started_at", "ended_at"), time)
        task = fetched({"status": "pending", "meta": meta})

        assert (task.created_at, task.started_at, task.ended_at) == (None, None, None)

    @for_each(
        ("text", "micro"),
        [
            ("2026-01-07T01:36:08Z", 0),
            ("2026-01-07T01:36:08.845623268Z", 845623),
            ("2026-01-07T01:36:08", 0),
            ("2026-01-07T02:36:08+01:00", 0),
        ],
    )
    def test_reads_times_of_any_precision_and_zone(self, text: str, micro: int) -> None:
        task = fetched({"status": "completed", "meta": {"ended_at": text}})

        assert task.ended_at == datetime(2026, 1, 7, 1, 36, 8, micro, UTC)

    @for_each("meta", [None, [], "text", 5])
    def test_has_no_life_where_the_wire_has_none(self, meta: object) -> None:
        task = fetched({"status": "completed", "meta": meta, "task_type": 5})

        assert (task.task_type, task.created_at) == ("", None)

    @for_each(
        ("error", "text"),
        [
            (
                {"code": 1, "message": "banned", "raw_message": "it said banned", "detail": None},
                "banned; it said banned",
            ),
            ({"code": 1, "message": "same", "raw_message": "same"}, "same"),
            ({"code": 1, "message": "", "raw_message": "", "detail": "deep"}, "deep"),
            ({"code": 1, "detail": {"a": 1}}, "a: 1"),
            ("plain text", "plain text"),
            (None, ""),
            (5, "5"),
        ],
    )
    def test_of_a_failed_task_gives_the_hosts_reasons(self, error: object, text: str) -> None:
        task = fetched({"status": "failed", "error": error, "output": None})

        assert (task.state, task.error) == (TaskState.FAILED, text)

    def test_is_judged_by_its_status_not_by_the_error_beside_it(self) -> None:
        task = fetched({"status": "completed", "error": {"code": 0, "message": "left over"}})

        assert (task.state, task.error) == (TaskState.DONE, "")

    @for_each("status", [400, 404])
    def test_of_an_unknown_id_is_not_found(self, status: int) -> None:
        body = {"code": status, "data": None, "message": "task not found"}

        for answer in (response(body, status), response(body)):
            with pytest.raises(NotFoundError):
                UNIFIED.fetch(ID).parse(answer)

    def test_of_another_task_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer, match="another task") as caught:
            fetched({"task_id": "other", "status": "completed"})
        assert caught.value.path == "data.task_id"

    @for_each("data", [None, [], "text", {}, {"status": ""}, {"status": {}}])
    def test_without_a_task_is_not_understood(self, data: object) -> None:
        with pytest.raises(UnexpectedAnswer):
            fetched(data)

    def test_holds_no_webhooks_secret(self) -> None:
        body = copy.deepcopy(FINISHED)
        body["data"]["config"]["webhook_config"] = {
            "endpoint": "https://bot.example/hook",
            "secret": "hush-hush",
        }

        assert "hush-hush" not in repr(UNIFIED.fetch(ID).parse(response(body)).raw)


class TestRead:
    """What a webhook or the ledger has, read by the family."""

    def test_takes_a_task_with_its_envelope(self) -> None:
        delivery = {"timestamp": 1753066573, "data": FINISHED["data"]}

        assert UNIFIED.read(delivery, ID).raw == FINISHED["data"]

    def test_takes_a_task_without(self) -> None:
        assert UNIFIED.read(FINISHED["data"], ID).state is TaskState.DONE

    def test_of_an_empty_envelope_is_not_understood(self) -> None:
        with pytest.raises(UnexpectedAnswer):
            UNIFIED.read({"timestamp": 5, "data": None}, ID)


class TestCancel:
    def test_asks_for_each_task_by_itself(self) -> None:
        requests = UNIFIED.cancel([ID, TaskId("t2")])

        assert [request.to_http() for request in requests] == [
            HTTPRequest("DELETE", f"/api/v1/task/{ID}"),
            HTTPRequest("DELETE", "/api/v1/task/t2"),
        ]

    def test_is_done_when_the_host_says_so(self) -> None:
        CancelTask(ID).parse(response({"code": 200, "message": f"task {ID} canceled"}))

    @for_each("status", [200, 400])
    def test_of_a_task_that_runs_is_refused(self, status: int) -> None:
        with pytest.raises(InvalidRequestError, match="processing"):
            CancelTask(ID).parse(response({"code": 400, "message": "task is processing"}, status))

    def test_of_what_is_pending_says_since_when_and_of_which_model(self) -> None:
        request = CancelPending(NOON.astimezone(timezone(timedelta(hours=2))), "kling")

        assert request.to_http() == HTTPRequest(
            "DELETE", "/api/v1/tasks?created_before=1753099200&model=kling"
        )
        request.parse(response({"code": 200, "message": "success"}))

    def test_of_what_is_pending_is_refused_as_anything_else(self) -> None:
        with pytest.raises(AuthenticationError):
            CancelPending(NOON).parse(response({"message": "invalid api key"}, 401))

    @for_each("args", [(NOON.replace(tzinfo=None),), (1753099200,), (NOON, "flux"), (NOON, ["kling"])])
    def test_of_what_is_pending_refuses_what_no_host_takes(self, args: tuple[Any, ...]) -> None:
        with pytest.raises(ValueError, match="CancelPending"):
            CancelPending(*args)


class TestFamily:
    def test_is_one_by_name_whatever_the_result(self) -> None:
        assert UNIFIED.name == family_of(ImageOutput).name == flux.TextToImage("a").family.name == "unified"

    def test_reads_the_result_it_was_made_for(self) -> None:
        task = (
            family_of(ImageOutput)
            .fetch(ID)
            .parse(response({"code": 200, "data": {"status": "completed", "output": {"image_url": "u"}}}))
        )

        assert task.result == ImageOutput("u")

    def test_of_a_result_is_made_once(self) -> None:
        assert family_of(ImageOutput) is flux.TextToImage("a").family
        assert CREATE.family is UNIFIED

    def test_reads_one_task_at_a_time(self) -> None:
        assert UNIFIED.fetch_many is None


class TestModelRequest:
    """A kind of task that this release does not know is one class."""

    def test_of_one_class_is_complete(self) -> None:
        @request
        class Sing(ModelRequest[AudioOutput]):
            _model = "acme/choir"
            _task_type = "txt2song"
            words: str = text(kw_only=False)

        sing = Sing("la la")

        assert orjson.loads(sing.to_http().body) == {
            "model": "acme/choir",
            "task_type": "txt2song",
            "input": {"words": "la la"},
        }
        assert sing.family is family_of(AudioOutput)

    def test_whose_result_cannot_be_read_is_refused_before_it_is_paid_for(self) -> None:
        @attrs.frozen
        class Sung:
            song: NotImported  # type: ignore[name-defined]  # noqa: F821 - as if under TYPE_CHECKING

        with pytest.raises(NameError, match="NotImported"):
            family_of(Sung)

    def test_that_names_no_result_ends_in_the_output_as_it_came(self) -> None:
        @request
        class Sing(ModelRequest):  # type: ignore[type-arg]  # that is the point
            _model = "acme/choir"

        assert Sing().family is UNIFIED

    def test_that_names_any_mapping_does_too(self) -> None:
        @request
        class Sing(ModelRequest[Mapping[str, Any]]):
            _model = "acme/choir"

        assert Sing().family is UNIFIED

    def test_must_say_what_it_makes_and_of_what(self) -> None:
        @request
        class Sing(_Create[Output]):
            pass

        for call in (Sing().inputs, lambda: Sing().names):
            with pytest.raises(NotImplementedError):
                call()

    def test_sends_objects_of_any_kind_that_are_json(self) -> None:
        hidden = MappingProxyType({"a": MappingProxyType({"b": Path("a.png")})})
        task = CreateTask("m", "t", hidden)

        assert orjson.loads(task.to_http().body)["input"] == {"a": {"b": "file:a.png"}}
        assert task.local_files() == (Path("a.png"),)

    def test_cannot_send_what_was_made_no_json_later(self) -> None:
        task = CreateTask("m", "t", {})
        cast("dict[str, Any]", task.input)["a"] = object()

        with pytest.raises(TypeError, match=r"is no JSON|not JSON serializable"):
            task.to_http()


CALLS: list[Any] = [
    CREATE,
    flux.TextToImage("a cat"),
    UNIFIED.fetch(ID),
    midjourney.Imagine("a cat").family.fetch(ID),
    CancelTask(ID),
    CancelPending(NOON),
    AccountInfo(),
    GetActiveTasks(),
    Upload("cat.png", b"cat"),
]


class TestAnything:
    @pytest.mark.parametrize("call", CALLS, ids=lambda call: type(call).__name__)
    @given(
        body=(NEAR | JSON).map(orjson.dumps) | st.binary(max_size=200),
        status=st.sampled_from([200, 400, 404, 500]),
    )
    @example(body=b"[" * 2000, status=200)
    @example(
        body=b'{"data":{"status":"completed","output":{"image_urls":' + b"[" * 900 + b"]" * 900 + b"}}}",
        status=200,
    )
    @example(
        body=b'{"data":{"status":"completed","output":' + b'{"video":' * 900 + b"5" + b"}" * 902, status=200
    )
    def test_gives_a_value_or_an_error_of_ours(self, call: Any, body: bytes, status: int) -> None:
        with contextlib.suppress(PiAPIError):
            look_at_all_of(call.parse(HTTPResponse(status, body)))
