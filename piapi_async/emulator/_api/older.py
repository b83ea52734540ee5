"""The older protocols of Face Swap, Dream Machine and Kling, each with shapes of its own.  Pure.

POST /api/face_swap/v1/async, /fetch      POST and GET /api/luma/v1/video      POST and GET
/api/kling/v1/video
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson

from .._service.catalog import OLDER_TASKS
from .._service.creating import system_request, webhook_fields
from .._service.geometry import CLIP_SECONDS
from .._service.requests import WEBHOOK_FIELDS, Protocol, Refusal
from .._service.tasks import Stage, Task
from .billing import usage_of
from .dialect import JSON
from .unified import envelope, output_files, timestamp

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call
    from .view import View

#: Fields of a create that are not inputs of the task.
_NOT_INPUTS = (*WEBHOOK_FIELDS, "webhook_config", "result_type")

_FACE_SWAP_WORDS = {Stage.FINISHED: "success", Stage.RETRY: "processing"}
_WORDS = {Stage.FINISHED: "completed", Stage.RETRY: "processing"}
#: Kling's own numbers of a state: done, or at work.
_KLING_DONE, _KLING_WORKING = 99, 10


def create(host: Host, call: Call) -> JSON:
    """Create a task, and return its id."""
    body, protocol = call.json(), call.route.protocol
    if body.get("result_type", "url") != "url":
        raise Refusal('invalid result_type: must be "url"')  # our choice: the vendor sends base64, too

    given = {name: value for name, value in body.items() if name not in _NOT_INPUTS}
    if protocol is Protocol.LUMA and given.get("image_url"):
        given["key_frames"] = {"frame0": {"type": "image", "url": given["image_url"]}}

    webhook_config = body.get("webhook_config")
    if not isinstance(webhook_config, dict):
        webhook_config = {}

    model, task_type = OLDER_TASKS[protocol]
    request = system_request(
        model,
        task_type,
        given,
        webhook_fields(webhook_config),
        protocol=protocol,
        route=call.route.name,
    )
    return envelope({"task_id": host.create(request, call).task_id})


def read(host: Host, call: Call) -> JSON:
    """Return a task that was created in the same protocol."""
    task_id = call.task_id or call.json().get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise Refusal("task_id is required")

    task = host.read(task_id, call.now)
    if task.protocol is not call.route.protocol:
        raise host.unknown_task()
    return task_body(host.view, task)


def task_body(view: View, task: Task) -> JSON:
    """Return the response to a read, which is also what a webhook receives."""
    shape = _SHAPES[task.protocol]
    return envelope(view.with_number_style(shape(view, task)))


def _face_swap(view: View, task: Task) -> JSON:
    image = ""
    if task.stage is Stage.FINISHED:
        image = output_files(view, task).link_to("image.png")

    return JSON(
        task_id=task.task_id,
        type="face_swap",
        status=view.word(task, _FACE_SWAP_WORDS),
        image=image,
        error=task.error,
    )


def _shared(view: View, task: Task) -> JSON:
    """Return the fields that Dream Machine and Kling have in common."""
    usage = usage_of(task)
    metadata = {
        "created_at": timestamp(view, task, task.created),
        "started_at": timestamp(view, task, task.started),
        "ended_at": timestamp(view, task, task.ended),
        "quota_frozen": usage.frozen,
        "quota_usage": usage.consumed,
    }
    return JSON(
        task_id=task.task_id,
        input=orjson.dumps(task.input).decode(),
        status=view.word(task, _WORDS),
        metadata=metadata,
        error=task.error,  # our choice
    )


def _luma(view: View, task: Task) -> JSON:
    state, video = "pending", None
    if task.stage is Stage.FINISHED:
        state = "completed"
        files = output_files(view, task)
        video = {
            "url": files.link_to("video.mp4"),
            **files.clip_size(),
            "thumbnail": files.link_to("thumbnail.png"),
        }

    generation = {
        "id": task.task_id,
        "prompt": task.prompt,
        "state": state,
        "created_at": timestamp(view, task, task.created),
        "video": video,
        "like": None,
        "estimate_wait_seconds": None,
    }
    return _shared(view, task) | {"generation": generation}


def _kling(view: View, task: Task) -> JSON:
    status, works = _KLING_WORKING, []
    if task.stage is Stage.FINISHED:
        status, works = _KLING_DONE, [_kling_work(view, task)]

    inner = {"id": task.art_seed, "type": "m2v_txt2video", "status": status}
    return _shared(view, task) | {"task": inner, "works": works}


def _kling_work(view: View, task: Task) -> JSON:
    files = output_files(view, task)
    video = {
        "resource": files.link_to("video-watermarked.mp4"),
        "resourceWithoutWatermark": files.link_to("video.mp4"),
        **files.clip_size(),
        "duration": 1000 * CLIP_SECONDS,
    }
    return {
        "workId": task.art_seed,
        "taskId": task.art_seed,
        "type": "m2v_txt2video",
        "status": _KLING_DONE,
        "contentType": "video",
        "resource": video,
        "cover": {"resource": files.link_to("cover.png"), **files.picture_size(), "duration": 0},
    }


_SHAPES: Mapping[Protocol, Callable[[View, Task], JSON]] = {
    Protocol.FACE_SWAP: _face_swap,
    Protocol.LUMA: _luma,
    Protocol.KLING: _kling,
}
