"""What the service says, as JSON-ready values.  Pure.

The shape of the fetch object and the gating by plan are the vendor's pages; whatever nobody published is a field of
`Dialect`, so that a client can be tried against each of the possible hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import field, frozen, validators

from .._media.cdn import signed
from .._service.requests import Kind
from .._service.tasks import Stage, Task, seed_of
from .._service.verbs import VERBS

JSON = dict[str, object]


@frozen
class Plan:
    """Which optional fields of `task_result` an account sees, and how many jobs it may run at once."""

    name: str
    concurrency: int
    progress: bool
    intermediate: bool
    discord: bool
    temporary: bool


#: The six columns of the vendor's page on task results; concurrency as observed (about 1 / 5 / 30).
PLANS: Mapping[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free-payg", 1, progress=False, intermediate=False, discord=False, temporary=False),
        Plan("free-hya", 1, progress=False, intermediate=False, discord=True, temporary=True),
        Plan("creator-payg", 5, progress=True, intermediate=False, discord=False, temporary=False),
        Plan("creator-hya", 5, progress=True, intermediate=True, discord=True, temporary=True),
        Plan("pro-payg", 30, progress=True, intermediate=False, discord=True, temporary=True),
        Plan("pro-hya", 30, progress=True, intermediate=True, discord=True, temporary=True),
    )
}


def _one_of(*words: str) -> Any:  # noqa: ANN401 - an attrs field, which is of any type
    return field(default=words[0], validator=validators.in_(words))


@frozen(kw_only=True)
class Dialect:
    """The answers nobody published, each decided here and each to be changed.

    `gated`: how a field the plan does not include looks.  `success`: the boolean of a host of 2023, beside `status`
    or instead of it.  `unreached`: a time not reached yet.  `multi_unknown`: an id multi-fetch does not know.
    `error_body`: with `task_id` and `status`, or the message alone.  `late_cancel`: of tasks that all have started.
    `words`: other words for stages, e.g. `{"pending": "starting"}`.  `ranges`: files are served in parts, too.
    `account`: an older host told it without `data`.
    `one_account`: all keys are of the same account.  `history`: whether there is one; a task is in it `history_lag`
    emulated seconds after its create or its end (`history_from`), and `history_page` is the most that a page has.  Of
    the unified protocol alone: `unified_crops_in`, `error_in`: which text of `error` is filled, `capitalised`:
    "Completed" for "completed".
    """

    gated: Literal["absent", "null", "empty"] = _one_of("absent", "null", "empty")
    success: Literal["none", "beside", "instead"] = _one_of("none", "beside", "instead")
    unreached: Literal["zero", "null", "absent"] = _one_of("zero", "null", "absent")
    crops_in: Literal["temporary_image_urls", "image_urls", "both"] = _one_of(
        "temporary_image_urls", "image_urls", "both"
    )
    unified_crops_in: Literal["image_urls", "temporary_image_urls", "both"] = _one_of(
        "image_urls", "temporary_image_urls", "both"
    )
    error_in: Literal["both", "message", "raw_message"] = _one_of("both", "message", "raw_message")
    capitalised: bool = False
    error_body: Literal["full", "message"] = _one_of("full", "message")
    fetch_needs_key: bool = False
    multi_fetch: bool = True
    multi_fetch_off_status: int = 404
    multi_fetch_max: int = 20
    multi_unknown: Literal["null", "missing"] = _one_of("null", "missing")
    unknown_task_status: int = 400
    unknown_task_message: str = "task not found"
    invalid_key_message: str = "Invalid API key"
    late_cancel: Literal["refuse", "ignore"] = _one_of("refuse", "ignore")
    queue_full_retry_after: str = ""
    describe_in: Literal["message", "prompt"] = _one_of("message", "prompt")
    numbers_as_strings: bool = False
    ranges: bool = True
    account: Literal["data", "flat"] = _one_of("data", "flat")
    one_account: bool = False
    history: bool = True
    history_off_status: int = 404
    history_lag: float = field(default=0.0, validator=validators.ge(0))
    history_from: Literal["create", "end"] = _one_of("create", "end")
    history_page: int = field(default=100, validator=validators.ge(1))
    words: Mapping[str, str] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for word in self.words:
            if word not in list(Stage):
                raise ValueError(f"words: {word!r} is no stage; stages are {', '.join(Stage)}")

    def created(self, task_id: str) -> JSON:
        """Return the answer to an accepted create."""
        return self._said(JSON(task_id=task_id, status="success", message=""), success=True)

    def cancelled(self) -> JSON:
        """Return the answer to an accepted cancel."""
        return self._said(JSON(status="success", message=""), success=True)

    def refused(self, message: str) -> JSON:
        """Return the body of any refusal."""
        if self.error_body == "message":
            return JSON(message=message)
        return self._said(JSON(task_id="", status="failed", message=message), success=False)

    def _said(self, answer: JSON, *, success: bool) -> JSON:
        if self.success == "instead":
            del answer["status"]
        return answer if self.success == "none" else JSON(answer, success=success)


@frozen
class View:
    """How one account of one host sees tasks: `origin` is where links point, `epoch` the unix time of second 0."""

    plan: Plan
    dialect: Dialect
    origin: str = ""
    epoch: float = 0.0
    picture_size: int = 1024
    signed: bool = False

    def link(self, path: str) -> str:
        """Return the address of a picture or a file."""
        return f"{self.origin}{signed(path) if self.signed else path}"

    def fetched(self, task: Task, now: float) -> JSON:
        """Return the whole fetch object, as in every state (vendor page)."""
        answer = JSON(
            task_id=task.task_id,
            status=self.dialect.words.get(task.stage, str(task.stage)),
            process_time=self._process_time(task, now),
            retry_count=task.retries,
            meta=self._meta(task),
            task_result=self.result(task, now, crops_in=self.dialect.crops_in),
        )
        return self.written(answer)

    def written(self, answer: JSON) -> JSON:
        """Return an answer with its numbers as this host writes them."""
        return _numbers_as_strings(answer) if self.dialect.numbers_as_strings else answer

    def _process_time(self, task: Task, now: float) -> int:
        if task.started is None:
            return 0
        return int((now if task.ended is None else task.ended) - task.started)

    def _meta(self, task: Task) -> JSON:
        given = task.given
        meta = JSON(
            account_id=task.account,
            task_type=task.verb,
            origin_task_id=task.origin,
            bot_hash="",
            bot_id=given.get("bot_id", 0),
            model_version="unknown",
            process_mode=task.mode,
            quota_frozen=30,
            frozen_credit=0,
        )
        for name, at in (("created", task.created), ("started", task.started), ("ended", task.ended)):
            self._time(meta, name, at)
        meta["task_request"] = _request(task)
        meta["task_param"] = {
            "prompt": task.prompt,
            **{name: given.get(name, "") for name in ("index", "zoom_ratio", "aspect_ratio", "direction")},
        }
        return meta

    def _time(self, meta: JSON, name: str, at: float | None) -> None:
        if at is not None:
            seconds = int(self.epoch + at)
            meta[f"{name}_at"] = seconds
            meta[f"{name}_at_utc"] = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        elif self.dialect.unreached != "absent":
            zero = self.dialect.unreached == "zero"
            meta[f"{name}_at"] = 0 if zero else None
            meta[f"{name}_at_utc"] = "" if zero else None

    def result(self, task: Task, now: float, *, crops_in: str) -> JSON:
        """Return what came out so far, with the crops of a grid in either list or in both."""
        done = task.stage is Stage.FINISHED
        image = self.link(f"/mj/{task.task_id}.png") if done and task.kind in (Kind.GRID, Kind.SINGLE) else ""
        crops = self._crops(task) if image and task.kind is Kind.GRID else None
        temporary, direct = crops_in != "image_urls", crops_in != "temporary_image_urls"
        result = JSON(
            discord_image_url=image and self.link(f"/discord/mj/{task.task_id}.png"),
            image_url=image,
            image_urls=crops if direct else None,
            temporary_image_urls=crops if temporary else None,
            permanent_url="",
            task_progress=task.progress(now),
            intermediate_image_urls=self._previews(task, now),
            image_id=f"{task.art_seed:08x}" if image else "",
            seed=_seed(task) if done else "",
            result_message_id=f"11{task.art_seed:017d}" if image else "",
            quota_used=3 if done else 0,
            credit=0,
            message="",
            warning="",
            error_messages=[task.error] if task.stage is Stage.FAILED else [],
            need_retry=False,
            actions=actions(task) if done else [],
        )
        if done and task.kind is Kind.TEXT:
            result[self.dialect.describe_in] = describe(task)
        self._gate(result)
        return result

    def _gate(self, result: JSON) -> None:
        plan, gated = self.plan, self.dialect.gated
        for name, seen, empty in (
            ("task_progress", plan.progress, 0),
            ("intermediate_image_urls", plan.intermediate, []),
            ("discord_image_url", plan.discord, ""),
            ("temporary_image_urls", plan.temporary, []),
        ):
            if seen:
                continue
            if gated == "absent":
                del result[name]
            else:
                result[name] = empty if gated == "empty" else None

    def _crops(self, task: Task) -> list[str]:
        width, height = picture_size(task.aspect_ratio, self.picture_size)
        return [self.link(f"/cdn-cgi/image/trim={trim}/mj/{task.task_id}.png") for trim in trims(width, height)]

    def _previews(self, task: Task, now: float) -> list[str] | None:
        if task.kind is not Kind.GRID or task.stage not in (Stage.PROCESSING, Stage.FINISHED):
            return None
        seen = range(25, min(task.progress(now), 99) + 1, 25)
        return [self.link(f"/mj/{task.task_id}_{percent}.png") for percent in seen] or None


def picture_size(aspect_ratio: str, size: int) -> tuple[int, int]:
    """Return width and height in pixels of one picture: about `size` squared in area, in multiples of 8."""
    across, down = (int(part) for part in aspect_ratio.split(":"))
    ratio = min(max(across / down, 0.25), 4.0)
    width = max(8, round(size * ratio**0.5 / 8) * 8)
    return width, max(8, round(size / ratio**0.5 / 8) * 8)


def trims(width: int, height: int) -> tuple[str, str, str, str]:
    """Return the four crops of a grid in reading order, as top;right;bottom;left to cut off (observed)."""
    return (f"0;{width};{height};0", f"0;0;{height};{width}", f"{height};{width};0;0", f"{height};0;0;{width}")


def actions(task: Task) -> list[str]:
    """Return the words for what may follow a finished task."""
    if task.kind is Kind.GRID:
        return ["reroll", *(f"{verb}{index}" for verb in ("upscale", "variation") for index in range(1, 5))]
    if task.kind is Kind.SINGLE:
        words = ["upscale_2x", "upscale_4x", "upscale_subtle", "upscale_creative", "high_variation", "low_variation"]
        return [*words, "inpaint", "outpaint_1.5x", "outpaint_2x", "pan_left", "pan_right", "pan_up", "pan_down"]
    return []


def describe(task: Task) -> str:
    """Return four prompts for an image, made up from its address: the same for the same image."""
    hues = ("in amber light", "under a violet dusk", "in early mist", "against a turquoise sky")
    looks = ("layered paper", "soft gouache", "wide film still", "fine ink and wash")
    turn = seed_of(str(task.given["image_url"]))
    lines = (
        f"{index + 1} a quiet landscape {hues[(turn + index) % 4]}, {looks[(turn // 4 + index) % 4]} --ar 1:1"
        for index in range(4)
    )
    return "\n\n".join(lines)


def _seed(task: Task) -> str:
    # A seed task answers the seed of its parent: the number that parent's pictures were drawn from.
    return str(seed_of(task.origin)) if task.kind is Kind.SEED else ""


def _request(task: Task) -> JSON:
    """Return the request as the service echoes it: every field of the verb, unset ones in their empty form."""
    verb = VERBS[task.verb]
    empty: JSON = {"skip_prompt_check": False, "notify_progress": False, "bot_id": 0, "process_mode": task.mode}
    named = dict.fromkeys((*verb.fields, "prompt", "process_mode", "skip_prompt_check"))
    return {name: task.given.get(name, empty.get(name, "")) for name in named}


def _numbers_as_strings(value: JSON) -> JSON:
    turned: JSON = {}
    for name, item in value.items():
        if isinstance(item, dict):
            turned[name] = _numbers_as_strings(item)
        else:
            number = isinstance(item, int) and not isinstance(item, bool)
            turned[name] = str(item) if number else item
    return turned
