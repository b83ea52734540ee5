"""The unified protocol: tasks of every system in one envelope, over the machine that the legacy protocol has.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .._service.catalog import HAILUO, asked_unified, find_system
from .._service.requests import MIDJOURNEY, Kind, Refused
from .._service.tasks import Stage, Task
from .dialect import JSON, View
from .outputs import ZERO_TIME, Shelf, output_of

if TYPE_CHECKING:
    from .host import Desk
    from .routes import Call

#: Stages whose word is another one here; a retry inside is not shown (ours).
_WORDS = {Stage.FINISHED: "completed", Stage.RETRY: "processing"}
#: What a task costs by what it makes, in points (the orders of magnitude of the vendor's examples).
_POINTS = {"image": 200_000, "audio": 200_000, "model": 400_000, "video": 2_000_000}
#: These freeze points until the end, and give no list of logs (observed).
_POINTED = frozenset(("luma", *HAILUO))
#: Which models a bulk cancel may speak of (vendor page), and the models they begin.
_BULK = {"all": "", "kling": "kling", "midjourney": "midjourney", "luma": "luma", "suno": "music-s"}
#: What the output of Midjourney shares with the legacy result.
_SHARED = (
    *("image_url", "image_urls", "temporary_image_urls", "discord_image_url", "actions"),
    "intermediate_image_urls",
)


# -- the requests -----------------------------------------------------------------------------------------------------


def create(desk: Desk, call: Call) -> JSON:
    """Make a task, and show it as it is then."""
    return envelope(fetched(desk.view, desk.create(asked_unified(call.json(), call.route.name), call), call.now))


def read(desk: Desk, call: Call) -> JSON:
    """Show a task."""
    return envelope(fetched(desk.view, desk.look(call.task_id, call.now), call.now))


def cancel(desk: Desk, call: Call) -> JSON:
    """Take a task back that has not started."""
    task = desk.machine.get(call.task_id, now=call.now)
    if task is None or task.account != desk.account(call.key):
        raise desk.unknown()
    if not desk.machine.cancel(task.task_id, now=call.now) and desk.view.dialect.late_cancel == "refuse":
        raise Refused("task has already started")
    return {"code": 200, "message": f"task {task.task_id} canceled"}


def cancel_many(desk: Desk, call: Call) -> JSON:
    """Take back what was made before a time and has not started."""
    before, model = call.query.get("created_before", ""), call.query.get("model", "all")
    if not before.isdecimal():
        raise Refused("created_before is required and must be a unix time in seconds")
    if model not in _BULK:
        raise Refused(f"invalid model: must be one of {', '.join(_BULK)}")
    account, latest = desk.account(call.key), int(before) - desk.view.epoch
    desk.machine.advance(call.now)
    taken_back = [
        task.task_id
        for task in list(desk.machine.tasks.values())
        if task.account == account
        and task.created < latest
        and task.model.startswith(_BULK[model])
        and desk.machine.cancel(task.task_id, now=call.now)
    ]
    return {"code": 200, "message": f"{len(taken_back)} tasks canceled"}


# -- the answers ------------------------------------------------------------------------------------------------------


def envelope(data: JSON) -> JSON:
    """Return what every good answer looks like."""
    return {"code": 200, "data": data, "message": "success"}


def refused(status: int, message: str) -> JSON:
    """Return the body of a refusal: a task with nothing in it."""
    meta = {"created_at": ZERO_TIME, "started_at": ZERO_TIME, "ended_at": ZERO_TIME}
    usage = {"type": "", "frozen": 0, "consume": 0}
    data = JSON(
        task_id="",
        model="",
        task_type="",
        status="",
        config=_config("", "", ""),
        input=None,
        output=None,
        meta={**meta, "usage": usage, "is_using_private_pool": False},
        detail=None,
        logs=[],
        error=_error(),
    )
    return {"code": status, "data": data, "message": message}


def told(view: View, task: Task, now: float) -> JSON:
    """Return what a webhook is told."""
    return {"timestamp": int(view.epoch + now), "data": fetched(view, task, now)}


def fetched(view: View, task: Task, now: float) -> JSON:
    """Return a task as it is read, whichever protocol made it."""
    hook = (str(task.given.get(f"webhook_{name}", "")) for name in ("endpoint", "secret"))
    return view.written(
        JSON(
            task_id=task.task_id,
            model=task.model,
            task_type=task.verb,
            status=word_of(view, task),
            config=_config(task.service_mode, *hook),
            input=task.input,
            output=_output(view, task, now),
            meta=_meta(view, task),
            detail=None,
            logs=None if task.model in _POINTED else [],
            error=_failure(view, task),
        )
    )


def shelf_of(view: View, task: Task) -> Shelf:
    """Return where the files of a task stand."""
    return Shelf(task, view.link, view.picture_size, moment(view, task, task.created))


def files_of(view: View, task: Task) -> list[str]:
    """Return the names of a finished task's files."""
    system = find_system(task.model, task.verb)
    if system is None or task.stage is not Stage.FINISHED:
        return []
    shelf = shelf_of(view, task)
    output_of(task, system.output, shelf, now=0.0)
    return shelf.names


def moment(view: View, task: Task, at: float | None) -> str:
    """Return a time as the vendor writes it: to the second for Midjourney, else to the nanosecond (observed)."""
    if at is None:
        return ZERO_TIME
    whole, fraction = divmod(int((view.epoch + at) * 1_000_000), 1_000_000)
    text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}Z" if task.model == MIDJOURNEY else f"{text}.{fraction:06d}001Z"


def word_of(view: View, task: Task) -> str:
    """Return the word for where a task is in its life."""
    word = view.dialect.words.get(task.stage, _WORDS.get(task.stage, str(task.stage)))
    return word.capitalize() if view.dialect.capitalised else word


def _config(service_mode: str, endpoint: str, secret: str) -> JSON:
    return {"service_mode": service_mode, "webhook_config": {"endpoint": endpoint, "secret": secret}}


def _error(code: int = 0, raw_message: str = "", message: str = "") -> JSON:
    return {"code": code, "raw_message": raw_message, "message": message, "detail": None}


def _failure(view: View, task: Task) -> JSON:
    if task.stage is not Stage.FAILED:
        return _error()
    where = view.dialect.error_in
    raw, message = (task.error if where in ("both", name) else "" for name in ("raw_message", "message"))
    return _error(10_000, raw, message)


def _output(view: View, task: Task, now: float) -> JSON | None:
    if task.model == MIDJOURNEY:
        return _midjourney(view, task, now)
    system = find_system(task.model, task.verb)
    return None if system is None else output_of(task, system.output, shelf_of(view, task), now)


def _midjourney(view: View, task: Task, now: float) -> JSON:
    dialect = view.dialect
    result = view.result(task, now, crops_in=dialect.unified_crops_in)
    output: JSON = {name: result[name] for name in _SHARED if name in result}
    if "task_progress" in result:
        output["progress"] = result["task_progress"]
    if task.kind is Kind.SEED:
        output["seed"] = result["seed"]
    if task.kind is Kind.TEXT:
        output[dialect.describe_in] = result.get(dialect.describe_in, "")
    return output


def _meta(view: View, task: Task) -> JSON:
    meta: JSON = {
        f"{name}_at": moment(view, task, at)
        for name, at in (("created", task.created), ("started", task.started), ("ended", task.ended))
    }
    meta["usage"] = usage(task)
    meta["is_using_private_pool"] = task.service_mode == "private"
    if task.model == MIDJOURNEY:
        meta |= {"model_version": "unknown", "process_mode": task.mode, "failover_triggered": False}
    return meta


def usage(task: Task) -> JSON:
    """Return what a task has frozen and cost: nothing where it came to nothing."""
    lost = task.stage in (Stage.FAILED, Stage.CANCELLED)
    if task.model == MIDJOURNEY:
        return {"type": "mj", "frozen": 14, "consume": 8 if task.stage is Stage.FINISHED else 0}
    points = _POINTS[task.mode]
    if task.model in _POINTED:
        return {"type": "point", "frozen": points, "consume": points if task.stage is Stage.FINISHED else 0}
    return {"type": "llm", "frozen": 0, "consume": 0 if lost else points}
