"""The older doors to three systems - Face Swap, Dream Machine, Kling - each with shapes of its own.  Pure.

POST /api/face_swap/v1/async, /fetch      POST and GET /api/luma/v1/video      POST and GET /api/kling/v1/video
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from .._service.catalog import ask_of, hook_of
from .._service.requests import WEBHOOK_FIELDS, Door, Refused
from .._service.tasks import Stage, Task
from .dialect import JSON, View
from .outputs import CLIP_SECONDS
from .unified import envelope, moment, shelf_of, usage

if TYPE_CHECKING:
    from .host import Desk
    from .routes import Call

#: The task of the unified protocol that each door makes.
MAKES: Mapping[Door, tuple[str, str]] = {
    Door.FACE_SWAP: ("Qubico/image-toolkit", "face-swap"),
    Door.LUMA: ("luma", "video_generation"),
    Door.KLING: ("kling", "video_generation"),
}
_BESIDE = (*WEBHOOK_FIELDS, "webhook_config", "result_type")


def create(desk: Desk, call: Call) -> JSON:
    """Make a task, and answer its id."""
    body, door = call.json(), call.route.door
    if body.get("result_type", "url") != "url":
        raise Refused('invalid result_type: must be "url"')  # ours: the vendor sends base64, too
    model, task_type = MAKES[door]
    given = {name: value for name, value in body.items() if name not in _BESIDE}
    if door is Door.LUMA and given.get("image_url"):
        given["key_frames"] = {"frame0": {"type": "image", "url": given["image_url"]}}
    hook = body.get("webhook_config")
    ask = ask_of(
        model, task_type, given, hook_of(hook if isinstance(hook, dict) else {}), door=door, route=call.route.name
    )
    return envelope({"task_id": desk.create(ask, call).task_id})


def read(desk: Desk, call: Call) -> JSON:
    """Show a task that came by the same door."""
    task_id = call.task_id or call.json().get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise Refused("task_id is required")
    task = desk.look(task_id, call.now)
    if task.door is not call.route.door:
        raise desk.unknown()
    return told(desk.view, task, call.now)


def told(view: View, task: Task, now: float) -> JSON:
    """Return the answer to a read, which is what a webhook is told, too."""
    return envelope(view.written(_SHOWN[task.door](view, task, now)))


def _word(view: View, task: Task, done: str) -> str:
    words = {Stage.FINISHED: done, Stage.RETRY: "processing"}
    return view.dialect.words.get(task.stage, words.get(task.stage, str(task.stage)))


def _face_swap(view: View, task: Task, _now: float) -> JSON:
    done = task.stage is Stage.FINISHED
    return JSON(
        task_id=task.task_id,
        type="face_swap",
        status=_word(view, task, "success"),
        image=shelf_of(view, task).file("image.png") if done else "",
        error=task.error,
    )


def _metadata(view: View, task: Task) -> JSON:
    used = usage(task)
    times = (("created", task.created), ("started", task.started), ("ended", task.ended))
    return {f"{name}_at": moment(view, task, at) for name, at in times} | {
        "quota_frozen": used["frozen"],
        "quota_usage": used["consume"],
    }


def _shared(view: View, task: Task) -> JSON:
    return JSON(
        task_id=task.task_id,
        input=orjson.dumps(task.input).decode(),
        status=_word(view, task, "completed"),
        metadata=_metadata(view, task),
        error=task.error,  # ours
    )


def _luma(view: View, task: Task, _now: float) -> JSON:
    shelf, done = shelf_of(view, task), task.stage is Stage.FINISHED
    video = {"url": shelf.file("video.mp4"), **shelf.clip_area(), "thumbnail": shelf.file("thumbnail.png")}
    generation = {
        "id": task.task_id,
        "prompt": task.prompt,
        "state": "completed" if done else "pending",
        "created_at": moment(view, task, task.created),
        "video": video if done else None,
        "like": None,
        "estimate_wait_seconds": None,
    }
    return _shared(view, task) | {"generation": generation}


def _kling(view: View, task: Task, _now: float) -> JSON:
    shelf, done = shelf_of(view, task), task.stage is Stage.FINISHED
    number = task.art_seed
    video = {
        "resource": shelf.file("video-watermarked.mp4"),
        "resourceWithoutWatermark": shelf.file("video.mp4"),
        **shelf.clip_area(),
        "duration": 1000 * CLIP_SECONDS,
    }
    work = {
        "workId": number,
        "taskId": number,
        "type": "m2v_txt2video",
        "status": 99,
        "contentType": "video",
        "resource": video,
        "cover": {"resource": shelf.file("cover.png"), **shelf.area(), "duration": 0},
    }
    inner = {"id": number, "type": "m2v_txt2video", "status": 99 if done else 10}
    return _shared(view, task) | {"task": inner, "works": [work] if done else []}


_SHOWN = {Door.FACE_SWAP: _face_swap, Door.LUMA: _luma, Door.KLING: _kling}
