"""A task that has not ended keeps the bytes of its response, and reads them when `raw` is asked for."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import attrs
import orjson
import pytest

from piapi_async import LEGACY, UNIFIED, Task, TaskState
from piapi_async._http import HTTPResponse
from piapi_async.midjourney import MultiFetch
from piapi_async.tasks import TaskId, look_into

ID = TaskId("6886fc4d-9c3b-4a5e-8a38-5ac4f0e7a2cd")
SECRET = "hunter-two"
RESULT = {"task_progress": 40, "image_url": "https://img.theapi.app/1.png"}
LEGACY_TASK = {
    "task_id": ID,
    "status": "processing",
    "meta": {"task_type": "reroll", "task_request": {"webhook_secret": SECRET}},
    "task_result": RESULT,
}
UNIFIED_TASK = {
    "task_id": ID,
    "status": "processing",
    "task_type": "txt2img",
    "config": {"webhook_config": {"secret": SECRET}},
    "output": {"progress": 40, "image_url": "https://img.theapi.app/1.png"},
}


def single(task: dict[str, Any]) -> Task[Any]:
    """Return what a fetch of the legacy protocol reads."""
    return LEGACY.fetch(ID).parse(HTTPResponse(200, orjson.dumps(task)))


def packed(task: dict[str, Any]) -> Task[Any]:
    """Return what a multi-fetch reads, beside another task."""
    body = orjson.dumps({"data": {"other": {"task_id": "other", "status": "pending"}, ID: task}})
    found = MultiFetch((TaskId("other"), ID)).parse(HTTPResponse(200, body))[ID]
    assert isinstance(found, Task)
    return found


def enveloped(task: dict[str, Any]) -> Task[Any]:
    """Return what a fetch of the unified protocol reads."""
    return UNIFIED.fetch(ID).parse(HTTPResponse(200, orjson.dumps({"code": 200, "data": task})))


WAYS = [(single, LEGACY_TASK), (packed, LEGACY_TASK), (enveloped, UNIFIED_TASK)]


@pytest.mark.parametrize(("read", "sent"), WAYS)
@pytest.mark.parametrize("status", ["processing", "finished"])
def test_reads_the_same_whether_it_has_ended_or_not(read: Any, sent: dict[str, Any], status: str) -> None:
    task = read({**sent, "status": status})

    assert (task.task_id, task.status, task.progress) == (ID, status, 40)
    assert task.images == ("https://img.theapi.app/1.png",)
    assert (task.error, task.ref) == ("", None)
    assert task.task_type in {"reroll", "txt2img"}
    assert orjson.dumps(task.raw) == orjson.dumps({**sent, "status": status}).replace(SECRET.encode(), b"")


@pytest.mark.parametrize(("read", "sent"), WAYS)
@pytest.mark.parametrize("status", ["processing", "finished"])
def test_no_secret_leaves_it_by_any_way(read: Any, sent: dict[str, Any], status: str) -> None:
    assert SECRET not in repr(read({**sent, "status": status}))
    assert SECRET.encode() not in pickle.dumps(read({**sent, "status": status}))
    assert SECRET not in repr(vars(copy.copy(read({**sent, "status": status}))))
    assert SECRET not in repr(attrs.asdict(read({**sent, "status": status}), recurse=False))


@pytest.mark.parametrize(("read", "sent"), WAYS)
def test_one_that_has_ended_is_what_the_class_makes(read: Any, sent: dict[str, Any]) -> None:
    task = read({**sent, "status": "finished"})

    assert vars(task) == vars(attrs.evolve(task))


@pytest.mark.parametrize(("read", "sent"), WAYS)
def test_is_the_same_task_once_its_raw_was_read(read: Any, sent: dict[str, Any]) -> None:
    read_late, untouched = read(sent), read(sent)

    assert read_late.raw is read_late.raw
    assert read_late == untouched == pickle.loads(pickle.dumps(untouched))  # noqa: S301 - its own pickle
    assert attrs.evolve(untouched, status="pending").raw == read_late.raw
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = untouched.nonsense
    assert {"raw", "images"} <= dict(inspect.getmembers(type(untouched))).keys()  # as for help()


def test_an_entry_that_would_pass_for_an_envelope_is_kept_as_it_is() -> None:
    entry = {"task_id": ID, "status": "processing", "data": {"status": "finished"}}

    task = packed(entry)

    assert task.state is TaskState.RUNNING
    assert task.raw == entry


@pytest.mark.parametrize(("read", "sent"), WAYS)
def test_is_looked_into_without_keeping_what_was_read(read: Any, sent: dict[str, Any]) -> None:
    task = read(sent)

    seen = look_into(task)

    assert "raw" not in vars(task)
    assert look_into(task) == seen == task.raw
    assert look_into(task) is task.raw
