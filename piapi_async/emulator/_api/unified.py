"""The unified protocol under /api/v1: tasks of every system in one envelope, and its requests.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .._service.catalog import find_system
from .._service.creating import unified_request
from .._service.legnext import CLIPS
from .._service.requests import MIDJOURNEY, Kind, Protocol, Refusal
from .._service.tasks import Stage, Task
from .billing import POINT_MODELS, usage_of
from .dialect import JSON
from .midjourney import task_result
from .outputs import ZERO_TIME, OutputFiles, output_of

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call
    from .view import View

#: Stages that have another word here; an internal retry is not shown (our choice).
_WORDS = {Stage.FINISHED: "completed", Stage.RETRY: "processing"}
#: What a bulk cancel may name (vendor page), and what the models begin with that it means.
_BULK = {
    "all": "",
    "kling": "kling",
    "midjourney": "midjourney",
    "luma": "luma",
    "suno": "music-s",
}
#: Fields that the output of Midjourney shares with the `task_result` of its own protocol.
_SHARED = (
    *("image_url", "image_urls", "temporary_image_urls", "discord_image_url", "actions"),
    "intermediate_image_urls",
)
_FAILURE_CODE = 10_000
_MICROSECOND = 1_000_000


# -- requests -----------------------------------------------------------------------------------


def create(host: Host, call: Call) -> JSON:
    """Create a task, and return it."""
    request = unified_request(call.json(), call.route.name)
    task = host.create(request, call)
    return envelope(task_object(host.view, task, call.now))


def read(host: Host, call: Call) -> JSON:
    """Return a task."""
    task = host.read(call.task_id, call.now)
    return envelope(task_object(host.view, task, call.now))


def cancel(host: Host, call: Call) -> JSON:
    """Cancel a task that has not started."""
    task = host.engine.get(call.task_id, now=call.now)
    if task is None or task.account != host.account_id(call.key):
        raise host.unknown_task()

    cancelled = host.engine.cancel(task.task_id, now=call.now)
    if not cancelled and host.view.dialect.late_cancel == "refuse":
        raise Refusal("task has already started")
    return {"code": 200, "message": f"task {task.task_id} canceled"}


def cancel_many(host: Host, call: Call) -> JSON:
    """Cancel what was created before a time and has not started."""
    before, model = call.query.get("created_before", ""), call.query.get("model", "all")
    if not before.isdecimal():
        raise Refusal("created_before is required and must be a unix time in seconds")
    if model not in _BULK:
        raise Refusal(f"invalid model: must be one of {', '.join(_BULK)}")

    account = host.account_id(call.key)
    latest = int(before) - host.view.epoch
    host.engine.advance(call.now)

    meant = [
        task.task_id
        for task in host.engine.tasks.values()
        if task.account == account and task.created < latest and task.model.startswith(_BULK[model])
    ]
    cancelled = [task_id for task_id in meant if host.engine.cancel(task_id, now=call.now)]
    return {"code": 200, "message": f"{len(cancelled)} tasks canceled"}


# -- bodies -------------------------------------------------------------------------------------


def envelope(data: JSON) -> JSON:
    """Return the body of a good response."""
    return {"code": 200, "data": data, "message": "success"}


def refusal_body(status: int, message: str) -> JSON:
    """Return the body of a refusal: a task with nothing in it."""
    meta: JSON = {f"{name}_at": ZERO_TIME for name in ("created", "started", "ended")}
    meta["usage"] = {"type": "", "frozen": 0, "consume": 0}
    meta["is_using_private_pool"] = False

    data = JSON(
        task_id="",
        model="",
        task_type="",
        status="",
        config=_config(),
        input=None,
        output=None,
        meta=meta,
        detail=None,
        logs=[],
        error=_error(),
    )
    return {"code": status, "data": data, "message": message}


def webhook_body(view: View, task: Task, now: float) -> JSON:
    """Return what is posted to the webhook of a task."""
    return {"timestamp": int(view.epoch + now), "data": task_object(view, task, now)}


def task_object(view: View, task: Task, now: float) -> JSON:
    """Return a task as a read shows it, whichever protocol created it."""
    body = JSON(
        task_id=task.task_id,
        model=task.model,
        task_type=task.verb,
        status=status_word(view, task),
        config=_config(
            task.service_mode,
            str(task.given.get("webhook_endpoint", "")),
            str(task.given.get("webhook_secret", "")),
        ),
        input=None if view.dialect.hides_input else task.input,
        output=_output(view, task, now),
        meta=_meta(view, task),
        detail=None,
        logs=None if task.model in POINT_MODELS else [],
        error=_failure(view, task),
    )
    return view.with_number_style(body)


def status_word(view: View, task: Task) -> str:
    """Return the word for where a task is in its life."""
    word = view.word(task, _WORDS)
    if view.dialect.capitalised:
        return word.capitalize()
    return word


def timestamp(view: View, task: Task, at: float | None) -> str:
    """Return a time as the vendor writes it (observed).

    To the second for Midjourney, to the nanosecond for all other systems.
    """
    if at is None:
        return ZERO_TIME

    seconds, micros = divmod(int((view.epoch + at) * _MICROSECOND), _MICROSECOND)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if task.model == MIDJOURNEY:
        return f"{text}Z"
    return f"{text}.{micros:06d}001Z"


def output_files(view: View, task: Task) -> OutputFiles:
    """Return the links of a task's files."""
    return OutputFiles(task, view.link, view.picture_size, timestamp(view, task, task.created))


def file_names(view: View, task: Task) -> list[str]:
    """Return the names of a finished task's files."""
    if task.protocol is Protocol.LEGNEXT and task.kind is Kind.FILES and task.stage is Stage.FINISHED:
        return [*CLIPS]
    system = find_system(task.model, task.verb)
    if system is None or task.stage is not Stage.FINISHED:
        return []

    files = output_files(view, task)
    output_of(task, system.output, files, now=0.0)
    return files.names


def _config(service_mode: str = "", endpoint: str = "", secret: str = "") -> JSON:
    webhook = {"endpoint": endpoint, "secret": secret}
    return {"service_mode": service_mode, "webhook_config": webhook}


def _error(code: int = 0, raw_message: str = "", message: str = "") -> JSON:
    return {"code": code, "raw_message": raw_message, "message": message, "detail": None}


def _failure(view: View, task: Task) -> JSON:
    if task.stage is not Stage.FAILED:
        return _error()

    error_in = view.dialect.error_in
    if error_in == "message":
        return _error(_FAILURE_CODE, "", task.error)
    if error_in == "raw_message":
        return _error(_FAILURE_CODE, task.error, "")
    return _error(_FAILURE_CODE, task.error, task.error)


def _output(view: View, task: Task, now: float) -> JSON | None:
    if task.model == MIDJOURNEY:
        return _midjourney_output(view, task, now)

    system = find_system(task.model, task.verb)
    if system is None:
        return None
    return output_of(task, system.output, output_files(view, task), now)


def _midjourney_output(view: View, task: Task, now: float) -> JSON:
    dialect = view.dialect
    result = task_result(view, task, now, crops_in=dialect.unified_crops_in)

    output: JSON = {name: result[name] for name in _SHARED if name in result}
    if "task_progress" in result:
        output["progress"] = result["task_progress"]
    if task.kind is Kind.SEED:
        output["seed"] = result["seed"]
    if task.kind is Kind.TEXT:
        output[dialect.describe_in] = result.get(dialect.describe_in, "")
    return output


def _meta(view: View, task: Task) -> JSON:
    meta = JSON(
        created_at=timestamp(view, task, task.created),
        started_at=timestamp(view, task, task.started),
        ended_at=timestamp(view, task, task.ended),
        usage=usage_of(task).as_json(),
        is_using_private_pool=task.service_mode == "private",
    )
    if task.model == MIDJOURNEY:
        meta |= {"model_version": "unknown", "process_mode": task.mode, "failover_triggered": False}
    return meta
