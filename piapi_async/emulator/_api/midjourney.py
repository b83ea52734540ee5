"""The Midjourney protocol under /mj/v2: the shape of its tasks, and its requests.  Pure.

The fetch object and what each plan sees of it are the vendor's pages; what nobody publishes is a
field of `Dialect`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from .._service.geometry import picture_size, trims
from .._service.requests import MIDJOURNEY, Kind, Protocol, Refusal
from .._service.tasks import Stage, Task, seed_of
from .._service.verbs import VERBS, midjourney_request
from .dialect import JSON

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call
    from .view import View

#: What a finished task has cost, and what it freezes before that (vendor page).
_QUOTA_USED, _QUOTA_FROZEN = 3, 30

#: Fields of a create whose unset value is not "".
_UNSET: JSON = {"skip_prompt_check": False, "notify_progress": False, "bot_id": 0}

_GRID_ACTIONS = (
    "reroll",
    *(f"{verb}{index}" for verb in ("upscale", "variation") for index in range(1, 5)),
)
_SINGLE_ACTIONS = (
    *("upscale_2x", "upscale_4x", "upscale_subtle", "upscale_creative"),
    *("high_variation", "low_variation", "inpaint", "outpaint_1.5x", "outpaint_2x"),
    *("pan_left", "pan_right", "pan_up", "pan_down"),
)


# -- requests -----------------------------------------------------------------------------------


def create(host: Host, call: Call) -> JSON:
    """Create a task, and return its id."""
    request = midjourney_request(call.route.name, call.json())
    return host.view.dialect.created(host.create(request, call).task_id)


def fetch(host: Host, call: Call) -> JSON:
    """Return one task."""
    task_id = call.json().get("task_id")
    if not isinstance(task_id, str) or not task_id:
        raise Refusal("task_id is required")

    task = host.read(task_id, call.now)
    if task.model != MIDJOURNEY:
        raise host.unknown_task()
    return task_object(host.view, task, call.now)


def multi_fetch(host: Host, call: Call) -> JSON:
    """Return several tasks by their ids."""
    dialect, now = host.view.dialect, call.now
    if not dialect.multi_fetch:
        raise Refusal("no such endpoint: /mj/v2/multi_fetch", status=dialect.multi_fetch_off_status)

    task_ids = _task_ids(call.json())
    if len(task_ids) > dialect.multi_fetch_max:
        raise Refusal(f"too many task_ids: {len(task_ids)}, at most {dialect.multi_fetch_max}")

    host.seen.count_read(task_ids, host.engine.tasks)
    data: JSON = {}
    for task_id in task_ids:
        task = host.find(task_id, now, Protocol.MIDJOURNEY)
        if task is not None and task.model == MIDJOURNEY:
            host.seen.note_shown(task, now)
            data[task_id] = task_object(host.view, task, now)
        elif dialect.multi_unknown == "null":
            data[task_id] = None
    return {"data": data}


def cancel(host: Host, call: Call) -> JSON:
    """Cancel those of several tasks that have not started."""
    task_ids = _task_ids(call.json())
    account = host.account_id(call.key)
    tasks = [host.engine.tasks.get(task_id) for task_id in task_ids]
    if any(task is None or task.account != account for task in tasks):
        raise host.unknown_task()

    cancelled = [host.engine.cancel(task_id, now=call.now) for task_id in task_ids]
    if not any(cancelled) and host.view.dialect.late_cancel == "refuse":
        raise Refusal("task has already started")
    return host.view.dialect.cancelled()


def _task_ids(body: JSON) -> list[str]:
    task_ids = body.get("task_ids")
    if not isinstance(task_ids, list) or not task_ids or not all(isinstance(item, str) for item in task_ids):
        raise Refusal("task_ids must be a list of task ids")
    return task_ids


# -- the shape of a task ------------------------------------------------------------------------


def task_object(view: View, task: Task, now: float) -> JSON:
    """Return the whole fetch object, which has the same fields in every state (vendor page)."""
    body = JSON(
        task_id=task.task_id,
        status=view.word(task, {}),
        process_time=_process_time(task, now),
        retry_count=task.retries,
        meta=_meta(view, task),
        task_result=task_result(view, task, now, crops_in=view.dialect.crops_in),
    )
    return view.with_number_style(body)


def _process_time(task: Task, now: float) -> int:
    if task.started is None:
        return 0
    until = now if task.ended is None else task.ended
    return int(until - task.started)


def _meta(view: View, task: Task) -> JSON:
    given = task.given
    meta = JSON(
        account_id=task.account,
        task_type=task.verb,
        origin_task_id=task.origin,
        bot_hash="",
        bot_id=given.get("bot_id", 0),
        model_version="unknown",
        process_mode=task.mode,
        quota_frozen=_QUOTA_FROZEN,
        frozen_credit=0,
    )

    _add_time(view, meta, "created", task.created)
    _add_time(view, meta, "started", task.started)
    _add_time(view, meta, "ended", task.ended)

    meta["task_request"] = _echoed_request(task)
    meta["task_param"] = {
        "prompt": task.prompt,
        "index": given.get("index", ""),
        "zoom_ratio": given.get("zoom_ratio", ""),
        "aspect_ratio": given.get("aspect_ratio", ""),
        "direction": given.get("direction", ""),
    }
    return meta


def _add_time(view: View, meta: JSON, name: str, at: float | None) -> None:
    if at is not None:
        seconds = int(view.epoch + at)
        meta[f"{name}_at"] = seconds
        meta[f"{name}_at_utc"] = _utc(seconds)
    elif view.dialect.unreached == "zero":
        meta[f"{name}_at"], meta[f"{name}_at_utc"] = 0, ""
    elif view.dialect.unreached == "null":
        meta[f"{name}_at"] = meta[f"{name}_at_utc"] = None


@lru_cache(maxsize=1024)  # tasks of one second have it in common, and each is read again and again
def _utc(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _echoed_request(task: Task) -> JSON:
    """Return the request as the service echoes it.

    It has every field of the verb, unset ones in their empty form.
    """
    return {**_empty_request(task.verb), "process_mode": task.mode, **task.given}


@cache
def _empty_request(verb: str) -> JSON:
    names = (*VERBS[verb].fields, "prompt", "process_mode", "skip_prompt_check")
    return {name: _UNSET.get(name, "") for name in names}


def task_result(view: View, task: Task, now: float, *, crops_in: str) -> JSON:
    """Return what came out so far, with the crops of a grid in either list or in both."""
    finished = task.stage is Stage.FINISHED
    image = ""
    if finished and task.kind in (Kind.GRID, Kind.SINGLE):
        image = view.link(f"/mj/{task.task_id}.png")

    crops = None
    if image and task.kind is Kind.GRID:
        crops = _crops(view, task)

    result = JSON(
        discord_image_url=image and view.link(f"/discord/mj/{task.task_id}.png"),
        image_url=image,
        image_urls=None if crops_in == "temporary_image_urls" else crops,
        temporary_image_urls=None if crops_in == "image_urls" else crops,
        permanent_url="",
        task_progress=task.progress(now),
        intermediate_image_urls=_previews(view, task, now),
        image_id=image and f"{task.art_seed:08x}",
        seed=_seed(task),
        result_message_id=image and f"11{task.art_seed:017d}",
        quota_used=_QUOTA_USED if finished else 0,
        credit=0,
        message="",
        warning="",
        error_messages=[task.error] if task.stage is Stage.FAILED else [],
        need_retry=False,
        actions=actions(task),
    )

    if finished and task.kind is Kind.TEXT:
        result[view.dialect.describe_in] = describe(task)
    _gate(view, result)
    return result


def _gate(view: View, result: JSON) -> None:
    """Take out of a result what the account's plan does not include."""
    plan, gated = view.plan, view.dialect.gated
    for name, included, empty in (
        ("task_progress", plan.progress, 0),
        ("intermediate_image_urls", plan.intermediate, []),
        ("discord_image_url", plan.discord, ""),
        ("temporary_image_urls", plan.temporary, []),
    ):
        if included:
            continue
        if gated == "absent":
            del result[name]
        elif gated == "empty":
            result[name] = empty
        else:
            result[name] = None


def _crops(view: View, task: Task) -> list[str]:
    width, height = picture_size(task.aspect_ratio, view.picture_size)
    paths = (f"/cdn-cgi/image/trim={trim}/mj/{task.task_id}.png" for trim in trims(width, height))
    return [view.link(path) for path in paths]


def _previews(view: View, task: Task, now: float) -> list[str] | None:
    if task.kind is not Kind.GRID or task.stage not in (Stage.PROCESSING, Stage.FINISHED):
        return None

    reached = range(25, min(task.progress(now), 99) + 1, 25)
    return [view.link(f"/mj/{task.task_id}_{percent}.png") for percent in reached] or None


def _seed(task: Task) -> str:
    # A seed task has the seed of its parent: the number that the parent's pictures were drawn from.
    if task.kind is Kind.SEED and task.stage is Stage.FINISHED:
        return str(seed_of(task.origin))
    return ""


def actions(task: Task) -> list[str]:
    """Return the words for what may follow a finished task."""
    if task.stage is not Stage.FINISHED:
        return []
    if task.kind is Kind.GRID:
        return [*_GRID_ACTIONS]
    if task.kind is Kind.SINGLE:
        return [*_SINGLE_ACTIONS]
    return []


def describe(task: Task) -> str:
    """Return four prompts for an image, made up from its URL: the same for the same image."""
    hues = ("in amber light", "under a violet dusk", "in early mist", "against a turquoise sky")
    looks = ("layered paper", "soft gouache", "wide film still", "fine ink and wash")
    turn = seed_of(str(task.given["image_url"]))

    lines = (
        f"{index + 1} a quiet landscape {hues[(turn + index) % 4]}, {looks[(turn // 4 + index) % 4]} --ar 1:1"
        for index in range(4)
    )
    return "\n\n".join(lines)
