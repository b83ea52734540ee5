"""An end is an end: the status word decides, whatever JSON stands beside it, in every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.serving import KEY
from support.strict_server import Act, http, strict_server
from support.tables import for_each

from piapi_async import LEGACY, UNIFIED, PiAPI, PiAPIError, PollPolicy, Task, TaskFailed, TaskState
from piapi_async._families import FAMILIES
from piapi_async._http import HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async._protocol.reading import is_known_status
from piapi_async.models import kling
from piapi_async.models._outputs import ImageOutput
from piapi_async.tasks import TaskId
from piapi_async.unified import family_of

ID = TaskId("c0d39b5a-11b4")
LINK = "https://img.test/1.png"

TYPED = {"unified, pictures": family_of(ImageOutput), "unified, Kling": family_of(kling.KlingOutput)}
each_family = pytest.mark.parametrize(
    "family", [*FAMILIES.values(), *TYPED.values()], ids=[*FAMILIES, *TYPED]
)

ENDS = {
    "finished": TaskState.DONE,
    "completed": TaskState.DONE,
    " Succeeded ": TaskState.DONE,
    "success": TaskState.DONE,
    "FAILED": TaskState.FAILED,
    "timed_out": TaskState.FAILED,
    "canceled": TaskState.CANCELLED,
}

texts = st.text(max_size=8) | st.sampled_from([LINK, "nsfw", "42"])
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["url", "href", "message", "reason", "detail", "code", "image_urls", "logs"])
            | texts,
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = [
    *("task_result", "output", "works", "generation", "image", "meta", "metadata", "error", "logs", "detail"),
    *("message", "code", "success", "progress", "task_type", "model", "config", "input", "data"),
]
details = st.fixed_dictionaries(
    {}, optional={"image_urls": any_json, "error_messages": any_json, "progress": any_json}
)
beside = st.dictionaries(
    st.sampled_from(FIELDS) | texts.filter(lambda name: name not in {"status", "task_id"}),
    any_json | details,
    max_size=5,
)


def fetched(
    family: Family[Any], data: Mapping[str, Any], around: Mapping[str, Any] | None = None
) -> Task[Any]:
    """Return the task of a plain fetch; `around` are more fields of the envelope, None for no envelope."""
    body = data if around is None else {"code": 200, "message": "success", **around, "data": data}
    return family.fetch(ID).parse(HTTPResponse(200, orjson.dumps(body)))


def read_all_of(task: Task[Any]) -> None:
    """Look at everything that a task tells."""
    assert isinstance(repr(task), str)
    assert task.progress is None or 0 <= task.progress <= 100
    assert all(isinstance(link, str) and link.strip() for link in task.images)
    assert all(isinstance(file.url, str) for file in task.files)
    assert isinstance(task.error, str)
    assert len(task.error) <= 1000
    _ = task.result, task.task_type, task.created_at, task.started_at, task.ended_at


# -- any JSON beside the word -------------------------------------------------------------------------------------


@each_family
@given(
    word=st.sampled_from(list(ENDS)),
    beside=beside,
    around=st.none() | st.dictionaries(st.sampled_from(["code", "message", "status"]), any_json),
)
def test_any_json_beside_a_word_for_an_end_leaves_it_an_end(
    family: Family[Any], word: str, beside: dict[str, Any], around: dict[str, Any] | None
) -> None:
    data = {**beside, "task_id": ID, "status": word}

    task = fetched(family, data, around)

    assert task.state is ENDS[word]
    assert task.status == word.strip()
    assert task.raw == orjson.loads(orjson.dumps(data))
    read_all_of(task)


@given(word=st.sampled_from(list(ENDS)), beside=beside)
def test_any_json_beside_it_leaves_an_entry_of_many_an_end(word: str, beside: dict[str, Any]) -> None:
    assert LEGACY.fetch_many is not None
    body = {"data": {ID: {**beside, "status": word}}}

    found = LEGACY.fetch_many([ID]).parse(HTTPResponse(200, orjson.dumps(body)))

    task = found[ID]
    assert isinstance(task, Task)
    assert task.state is ENDS[word]
    read_all_of(task)


@given(beside=beside)
def test_no_json_beside_it_ends_a_task_that_is_waiting(beside: dict[str, Any]) -> None:
    assert fetched(UNIFIED, {**beside, "task_id": ID, "status": "processing"}).state is TaskState.RUNNING


@each_family
@for_each("status", [200, 400, 500])
def test_a_failed_task_is_one_whatever_status_and_code_it_is_told_with(
    family: Family[Any], status: int
) -> None:
    data = {
        "task_id": ID,
        "status": "failed",
        "error": {"code": 10000, "raw_message": "no quota", "message": ""},
    }
    body = orjson.dumps({"code": 500, "data": data, "message": "failed to pre-process task runtime"})

    task = family.fetch(ID).parse(HTTPResponse(status, body))

    assert (task.state, task.error) == (TaskState.FAILED, "no quota")


@each_family
def test_an_answer_is_read_with_and_without_its_envelope(family: Family[Any]) -> None:
    data = {"task_id": ID, "status": "completed"}

    assert fetched(family, data).state is fetched(family, data, {}).state is TaskState.DONE


def test_cancelling_is_no_end_and_is_known() -> None:
    assert fetched(LEGACY, {"task_id": ID, "status": "Cancelling"}).state is TaskState.WAITING
    assert is_known_status("cancelling")


# -- links --------------------------------------------------------------------------------------------------------

LINKS: list[Any] = [
    LINK,
    [LINK],
    {"url": LINK},
    [{"url": LINK}],
    {"href": LINK},
    [{"uri": LINK, "width": 5}],
    {"image_url": LINK},
    [[LINK], None, 7],
    {"url": [LINK]},
]


@for_each("value", LINKS)
@for_each("name", ["image_urls", "image_url", "temporary_image_urls"])
@for_each(("family", "place"), [(LEGACY, "task_result"), (UNIFIED, "output")], ids=["legacy", "unified"])
def test_links_are_taken_out_of_objects_and_lists(
    family: Family[Any], place: str, name: str, value: Any
) -> None:
    task = fetched(family, {"task_id": ID, "status": "finished", place: {name: value}})

    assert task.images == (LINK,)
    assert [file.url for file in task.files] == [LINK]


@for_each("value", LINKS[1:])
def test_a_typed_result_has_them_too(value: Any) -> None:
    legacy = fetched(
        LEGACY,
        {"task_id": ID, "status": "finished", "task_result": {"image_urls": value, "image_url": value}},
    )
    unified = fetched(
        TYPED["unified, pictures"],
        {"task_id": ID, "status": "completed", "output": {"image_urls": value, "image_url": value}},
    )

    assert LINK in legacy.result.image_urls
    assert LINK in unified.result.image_urls
    assert legacy.result.image_url == unified.result.image_url == LINK


@for_each("value", LINKS)
def test_a_legacy_result_that_is_no_object_may_be_the_links_themselves(value: Any) -> None:
    if isinstance(value, dict):
        return
    task = fetched(LEGACY, {"task_id": ID, "status": "finished", "task_result": value})

    assert task.images == (LINK,)
    assert [file.url for file in task.files] == [LINK]


@for_each("output", [[LINK], LINK, 7, True, None, [], {}])
def test_an_output_that_is_no_object_gives_an_empty_result_in_every_protocol(output: Any) -> None:
    places = {
        "legacy": "task_result",
        "dream-machine": "generation",
        "legacy-kling": "works",
        "face-swap": "image",
    }
    for name, family in [*FAMILIES.items(), *TYPED.items()]:
        if name == "face-swap" or (name == "legacy-kling" and isinstance(output, list)):
            continue  # there the result is a text, or a list
        task = fetched(family, {"task_id": ID, "status": "completed", places.get(name, "output"): output})

        assert task.state is TaskState.DONE
        assert task.result == fetched(family, {"task_id": ID, "status": "completed"}).result


# -- reasons ------------------------------------------------------------------------------------------------------


@for_each(
    ("reasons", "text"),
    [
        (["nsfw"], "nsfw"),
        ([{"code": 7, "message": "nsfw"}], "nsfw"),
        ({"code": 7, "message": "nsfw"}, "nsfw"),
        ({"code": 7}, "code: 7"),
        (7, "7"),
        ("nsfw", "nsfw"),
        ([["nsfw", ["banned"]], None, True], "nsfw; banned"),
        ([{"prompt": ["nsfw", "banned"]}], "nsfw; banned"),
        ({"message": {"reason": "nsfw"}}, "nsfw"),
        ([], ""),
        ([{}], ""),
    ],
)
def test_reasons_are_taken_out_of_any_shape(reasons: Any, text: str) -> None:
    task = fetched(LEGACY, {"task_id": ID, "status": "failed", "task_result": {"error_messages": reasons}})

    assert task.error == text


@each_family
@for_each(
    ("fields", "text"),
    [
        ({"error": {"code": 1, "message": "", "raw_message": "", "detail": {"reason": "nsfw"}}}, "nsfw"),
        (
            {"error": {"code": 1, "message": "general", "raw_message": "nsfw", "detail": None}},
            "general; nsfw",
        ),
        (
            {
                "error": {"message": "general"},
                "logs": ["Attempt 1 failed, retrying.", "Rejected: copyright."],
            },
            "general; Rejected: copyright.",
        ),
        ({"logs": [{"time": 5, "message": "nsfw"}]}, "nsfw"),
        ({"logs": "nsfw"}, "nsfw"),
        ({"logs": []}, ""),
        ({"message": "nsfw"}, "nsfw"),
        ({"detail": {"reason": "nsfw"}}, "nsfw"),
        ({"error": "nsfw", "message": "nsfw"}, "nsfw"),
        ({"error": {"code": 0, "message": "", "raw_message": "", "detail": None}}, ""),
    ],
)
def test_the_reason_is_found_in_every_place_of_every_protocol(
    family: Family[Any], fields: dict[str, Any], text: str
) -> None:
    assert fetched(family, {"task_id": ID, "status": "failed", **fields}).error == text


def test_reasons_of_five_megabytes_are_cut() -> None:
    reasons = ["x" * 5_000_000, *[f"reason {number}" for number in range(10_000)]]
    task = fetched(LEGACY, {"task_id": ID, "status": "failed", "task_result": {"error_messages": reasons}})

    assert 500 <= len(task.error) <= 1000
    assert "reason 1;" in task.error


def test_a_status_word_of_a_megabyte_is_cut() -> None:
    task = fetched(LEGACY, {"task_id": ID, "status": "x" * 1_000_000})

    assert (task.state, len(task.status)) == (TaskState.WAITING, 100)


# -- what is no end -----------------------------------------------------------------------------------------------


@for_each(
    "body",
    [
        {"status": "failed", "message": "task not found"},
        {"status": "success", "message": "ok"},
        {"code": 200, "message": "success"},
        {"code": 200, "data": None, "message": "success"},
        {"code": 500, "data": {"status": "completed"}},
        {"code": 200, "data": {"status": "completed", "task_id": "another"}},
        {"status": "finished", "task_id": "another"},
    ],
)
@each_family
def test_a_word_that_is_not_of_this_task_is_no_end(family: Family[Any], body: dict[str, Any]) -> None:
    with pytest.raises(PiAPIError, match=r"refused|has no task|another task|with an error"):
        family.fetch(ID).parse(HTTPResponse(200, orjson.dumps(body)))


# -- and so waits end ---------------------------------------------------------------------------------------------


@pytest.mark.looptime
@pytest.mark.parametrize(
    "task",
    [
        {"status": "finished", "task_result": {"image_urls": [{"url": LINK}]}},
        {"status": "Finished ", "task_result": {"image_url": [LINK]}},
        {"status": "done", "task_result": [LINK], "task_id": ["odd"]},
        {"status": "succeeded", "task_result": {"image_url": LINK, "task_progress": {}, "need_retry": []}},
    ],
    ids=str,
)
@pytest.mark.parametrize("beside", [0, 1])
async def test_a_wait_ends_with_the_links(task: dict[str, Any], beside: int) -> None:
    bodies = {
        "/mj/v2/fetch": {"task_id": "t0", **task},
        "/mj/v2/multi_fetch": {"data": {f"t{n}": task for n in range(2)}},
    }
    async with (
        strict_server() as server,
        PiAPI(KEY, base_url=server.base_url, poll=PollPolicy.every(1.0)) as piapi,
    ):
        server.by_path = {path: Act(say=http(orjson.dumps(body))) for path, body in bodies.items()}
        handles = [piapi.attach(f"t{number}") for number in range(1 + beside)]

        done = await handles[0].wait(timeout=5)

        assert done.images == (LINK,)


@pytest.mark.looptime
async def test_a_wait_ends_with_the_reason() -> None:
    task = {
        "task_id": "t0",
        "status": "failed",
        "task_result": {"error_messages": [{"code": 7, "message": "nsfw"}]},
    }
    async with strict_server() as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        server.usual = Act(say=http(orjson.dumps(task)))

        with pytest.raises(TaskFailed, match="nsfw"):
            await piapi.attach("t0").wait(timeout=5)
