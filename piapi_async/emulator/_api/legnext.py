"""LegNext's protocol under /api/v1: bare jobs, two shapes of refusals, and a balance.  Pure.

The shape of a job is that of the vendor's live logs; its words are in camelCase where they are asked
for and in snake_case where they are told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._service.legnext import BY_TASK_TYPE, CLIPS, legnext_request
from .._service.requests import Kind, Protocol, Refusal
from .._service.tasks import Stage, Task, seed_of
from .dialect import JSON
from .midjourney import describe, task_result
from .unified import envelope, timestamp

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call
    from .view import View

_WORDS = {Stage.FINISHED: "completed"}
_FAILURE_CODE = 10_000
#: Points that an account begins with; a thousand are a US dollar.
_POINTS = 1_000_000
_POINTS_PER_USD = 1000

_PICTURE_ACTIONS = ("upscale", "variation", "remix", "pan", "outpaint", "inpaint", "edit")


# -- requests -----------------------------------------------------------------------------------


def create(host: Host, call: Call) -> JSON:
    """Create a job, and return it."""
    request = legnext_request(call.route.path.rpartition("/")[2], call.json(), call.route.name)
    try:
        task = host.create(request, call)
    except Refusal as refusal:
        raise _in_its_words(refusal) from None
    return job(host.view, task, call.now)


def _in_its_words(refusal: Refusal) -> Refusal:
    """Return what LegNext says of the same."""
    if "banned prompt words" in refusal.message:
        return Refusal("The prompt contains sensitive content", status=403)
    if "not found" in refusal.message or "outdated" in refusal.message:
        return Refusal("job not found or expired", status=404)
    return refusal


def read(host: Host, call: Call) -> JSON:
    """Return a job; whoever knows its id may read it."""
    task = host.read(call.task_id, call.now, Protocol.LEGNEXT)
    return job(host.view, task, call.now)


def balance(host: Host, call: Call) -> JSON:
    """Return what is left of an account's points."""
    account = host.account_of(Protocol.LEGNEXT, call.key)
    host.engine.advance(call.now)

    left = _POINTS
    for task in host.engine.tasks.values():
        if task.account == account and task.stage not in (Stage.FAILED, Stage.CANCELLED):
            left -= _points(task)

    data = JSON(
        account_id=int(account[:8], 16),
        balance_usd=left / _POINTS_PER_USD,
        available_credits=0,
        available_points=left,
        alert_threshold=0,
        low_balance_alert=False,
        updated_at="",
    )
    return envelope(data)


# -- bodies -------------------------------------------------------------------------------------


def refusal_body(view: View, status: int, message: str) -> JSON:
    """Return the body of a refusal, in the shape of the dialect."""
    error = JSON(code=status, message=message, raw_message=message, detail=None)
    if view.dialect.legnext_refusals == "nested":
        return {"error": error}
    return error


def job(view: View, task: Task, now: float) -> JSON:
    """Return a job, which is also what is posted to its callback."""
    error = ""
    if task.stage is Stage.FAILED:
        error = task.error

    webhook = {"endpoint": str(task.given.get("webhook_endpoint", "")), "secret": ""}
    return JSON(
        job_id=task.task_id,
        model="midjourney",
        task_type=task.verb,
        status=view.word(task, _WORDS),
        config={"service_mode": "public", "webhook_config": webhook},
        input=None,
        output=_output(view, task, now),
        meta=_meta(view, task),
        detail=None,
        logs=[],
        error=JSON(code=_FAILURE_CODE if error else 0, raw_message=error, message=error, detail=None),
    )


def _meta(view: View, task: Task) -> JSON:
    points = _points(task)
    usage = {"type": "point", "frozen": points, "consume": points if task.stage is Stage.FINISHED else 0}
    return JSON(
        created_at=timestamp(view, task, task.created),
        started_at=timestamp(view, task, task.started),
        ended_at=timestamp(view, task, task.ended),
        usage=usage,
    )


def _points(task: Task) -> int:
    if task.adopted or task.verb not in BY_TASK_TYPE:
        return 0
    return BY_TASK_TYPE[task.verb].points


def _output(view: View, task: Task, now: float) -> JSON:
    output = JSON(image_url="", image_urls=None, seed="")
    if task.kind is Kind.TEXT:
        return output | _texts(task)
    if task.stage is not Stage.FINISHED:
        return output

    result = task_result(view, task, now, crops_in="image_urls")
    if task.kind is Kind.GRID:
        pictures = list(range(4))
        output |= {"image_url": result["image_url"], "image_urls": result["image_urls"]}
        output["available_actions"] = {**dict.fromkeys(_PICTURE_ACTIONS, pictures), "reroll": True}
    elif task.kind is Kind.SINGLE:
        output["image_urls"] = [result["image_url"]]
        output["available_actions"] = {word: [0] for word in _PICTURE_ACTIONS}
    elif task.kind is Kind.FILES:
        output["video_urls"] = [view.link(f"/files/{task.task_id}/{name}") for name in CLIPS]
    output["seed"] = str(seed_of(task.task_id))
    return output


def _texts(task: Task) -> JSON:
    texts = JSON(promptEn="", finalPrompt="", description="", prompts=None)
    if task.stage is not Stage.FINISHED:
        return texts
    if "image_url" in task.given:
        texts["prompts"] = describe(task).split("\n\n")
        return texts

    words = str(task.given.get("prompt", "")).split()
    shorter = [" ".join(words[: max(1, len(words) - cut)]) for cut in range(1, 6)]
    return texts | {"promptEn": " ".join(words), "finalPrompt": shorter[-1], "prompts": shorter}
