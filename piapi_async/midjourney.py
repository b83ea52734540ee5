"""The legacy Midjourney protocol: ten verbs that make a task, three calls about tasks.  Pure.

Each verb is a small frozen value; what it may hold is checked when it is made, so that a typing error costs nothing.
``None`` is "not said" and is not sent; ``""`` is sent as it stands (the host takes it for "unset").  The wire rules are
the vendor's (piapi.ai/docs, section Midjourney API) unless a comment says "observed".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import attrs
from attrs import field, frozen

from ._protocol import values as fields
from ._protocol.answers import HTTPRequest, HTTPResponse, post
from ._protocol.decoding import Structure
from ._protocol.envelope import read_task_object
from ._protocol.reading import (
    classify,
    failure_text,
    from_unix,
    join,
    links_in,
    pick_images,
    read_cost,
    read_percent,
    read_status,
    text_at,
)
from ._protocol.result_files import find_files
from ._verdict import read_answer, read_created, refusal, says_failed
from .errors import UnexpectedAnswer
from .tasks import Created, Family, Life, Reader, Task, TaskFile, TaskId, TaskState, check_task_id

__all__ = [
    "LEGACY",
    "Blend",
    "Describe",
    "Imagine",
    "Inpaint",
    "MidjourneyResult",
    "Outpaint",
    "Pan",
    "Reroll",
    "Seed",
    "Upscale",
    "Variation",
]

UpscaleIndex = Literal["1", "2", "3", "4", "2x", "4x", "subtle", "creative"] | int
VariationIndex = Literal["1", "2", "3", "4", "high_variation", "low_variation"] | int


def _to_upscale_index(value: UpscaleIndex) -> str:
    return fields.to_word(value)


def _to_variation_index(value: VariationIndex) -> str:
    return fields.to_word(value)


# -- the verbs ----------------------------------------------------------------------------------------------------

_mode = fields.optional_text  # relax, fast, turbo and the older mixed today; hosts add to them ("draft")


@frozen(kw_only=True, repr=False)
class _Verb:
    """What all verbs share: the webhook fields, and how they go out and come back."""

    verb: ClassVar[str]

    webhook_endpoint: str | None = field(default=None, validator=fields.webhook_endpoint, metadata=fields.AROUND)
    webhook_secret: str | None = field(
        default=None, repr=False, validator=fields.webhook_secret, metadata=fields.AROUND
    )
    notify_progress: bool | None = field(default=None, validator=fields.optional_flag, metadata=fields.AROUND)

    @property
    def family(self) -> Family[MidjourneyResult]:
        return LEGACY

    def __repr__(self) -> str:
        """Show what was said, and no secret."""
        shown = (
            (f, value if f.name != "mask" else f"<{len(value)} characters of base64>")
            for f in sorted(attrs.fields(type(self)), key=lambda f: (f.kw_only, f.inherited))
            if f.repr and (value := getattr(self, f.name)) is not None
        )
        first, *others = (f"{f.name}={value!r}" for f, value in shown)
        return f"{type(self).__name__}({', '.join((first.partition('=')[2], *others))})"

    def to_http(self) -> HTTPRequest:
        said = {f.name: value for f in self.__attrs_attrs__ if (value := getattr(self, f.name)) is not None}
        return post(f"/mj/v2/{self.verb}", said)

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        return read_created(response, self)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Imagine(_Verb):
    """Draw a grid of four from a prompt."""

    verb = "imagine"
    prompt: str = field(validator=fields.required_text)
    process_mode: str | None = field(default=None, kw_only=True, validator=_mode)
    aspect_ratio: str | None = field(default=None, kw_only=True, validator=fields.optional_ratio)
    skip_prompt_check: bool | None = field(default=None, kw_only=True, validator=fields.optional_flag)
    bot_id: int | None = field(default=None, kw_only=True, validator=fields.optional_whole)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Reroll(_Verb):
    """Draw a grid anew; `prompt` replaces the parent's."""

    verb = "reroll"
    origin_task_id: str = field(validator=fields.required_text)
    prompt: str | None = field(default=None, kw_only=True, validator=fields.optional_text)
    skip_prompt_check: bool | None = field(default=None, kw_only=True, validator=fields.optional_flag)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Upscale(_Verb):
    """Take one picture of a grid (`index` 1 to 4), or enlarge an upscaled one (2x, 4x, subtle, creative)."""

    verb = "upscale"
    origin_task_id: str = field(validator=fields.required_text)
    index: str = field(  # the four words were observed
        converter=_to_upscale_index,
        validator=fields.one_of("1", "2", "3", "4", "2x", "4x", "subtle", "creative"),
    )


@frozen(repr=False, field_transformer=fields.inputs_first)
class Variation(_Verb):
    """Vary one picture of a grid (`index` 1 to 4), or an upscaled one (high_variation, low_variation)."""

    verb = "variation"
    origin_task_id: str = field(validator=fields.required_text)
    index: str = field(  # the two words were observed
        converter=_to_variation_index,
        validator=fields.one_of("1", "2", "3", "4", "high_variation", "low_variation"),
    )
    prompt: str | None = field(default=None, kw_only=True, validator=fields.optional_text)
    aspect_ratio: str | None = field(default=None, kw_only=True, validator=fields.optional_ratio)
    skip_prompt_check: bool | None = field(default=None, kw_only=True, validator=fields.optional_flag)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Inpaint(_Verb):
    """Draw the masked part of an upscaled picture anew."""

    verb = "inpaint"
    origin_task_id: str = field(validator=fields.required_text)
    # Base64 text, a data: URI, or an image's bytes.
    mask: str = field(kw_only=True, converter=fields.to_mask, validator=fields.mask)
    prompt: str | None = field(default=None, kw_only=True, validator=fields.optional_text)
    skip_prompt_check: bool | None = field(default=None, kw_only=True, validator=fields.optional_flag)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Outpaint(_Verb):
    """Zoom out of an upscaled picture; `zoom_ratio` 1 makes it square or gives it `aspect_ratio`."""

    verb = "outpaint"
    origin_task_id: str = field(validator=fields.required_text)
    zoom_ratio: str = field(kw_only=True, converter=fields.to_word, validator=fields.zoom)
    aspect_ratio: str | None = field(default=None, kw_only=True, validator=fields.optional_ratio)
    prompt: str | None = field(default=None, kw_only=True, validator=fields.optional_text)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Pan(_Verb):
    """Extend an upscaled picture to one side."""

    verb = "pan"
    origin_task_id: str = field(validator=fields.required_text)
    direction: Literal["up", "down", "left", "right"] = field(
        kw_only=True, validator=fields.one_of("up", "down", "left", "right")
    )
    prompt: str | None = field(default=None, kw_only=True, validator=fields.optional_text)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Describe(_Verb):
    """Find prompts for a picture; the text is `result.message`."""

    verb = "describe"
    image_url: str = field(validator=fields.image_url)
    process_mode: str | None = field(default=None, kw_only=True, validator=_mode)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Blend(_Verb):
    """Mix two to five pictures into one grid; `dimension` square, portrait or landscape."""

    verb = "blend"
    image_urls: tuple[str, ...] = field(converter=fields.to_tuple, validator=fields.image_urls)
    process_mode: str | None = field(default=None, kw_only=True, validator=_mode)
    dimension: str | None = field(default=None, kw_only=True, validator=fields.optional_text)


@frozen(repr=False, field_transformer=fields.inputs_first)
class Seed(_Verb):
    """Ask for the seed of a finished task; it is `result.seed`."""

    verb = "seed"
    origin_task_id: str = field(validator=fields.required_text)


# -- calls about tasks --------------------------------------------------------------------------------------------


def _to_ids(task_ids: Sequence[TaskId]) -> tuple[TaskId, ...]:
    return tuple(task_ids)


@frozen
class Fetch:
    """Read one task."""

    task_id: TaskId = field(converter=check_task_id)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/fetch", {"task_id": self.task_id})

    def parse(self, response: HTTPResponse, /) -> Task[MidjourneyResult]:
        return _read_task(read_task_object(response, self, self.task_id), self.task_id)


@frozen
class MultiFetch:
    """Read many tasks in one request (observed; not every host has it)."""

    task_ids: tuple[TaskId, ...] = field(converter=_to_ids)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/multi_fetch", {"task_ids": self.task_ids})

    def parse(self, response: HTTPResponse, /) -> dict[TaskId, Task[MidjourneyResult] | UnexpectedAnswer | None]:
        answer = read_answer(response, self)
        tasks = answer.get("data")
        if not isinstance(tasks, dict):
            if (message := text_at(answer, "message").strip()) and "data" not in answer:
                raise refusal(response, self, message=message)
            raise UnexpectedAnswer("The answer holds no object of tasks at data", path="data")
        return {task_id: _read_entry(tasks.get(task_id), task_id) for task_id in self.task_ids}


@frozen
class Cancel:
    """Ask to cancel tasks; only those that have not started can be."""

    task_ids: tuple[TaskId, ...] = field(converter=_to_ids)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/cancel", {"task_ids": self.task_ids})  # the body is our reading: it is not documented

    def parse(self, response: HTTPResponse, /) -> None:
        answer = read_answer(response, self)
        if says_failed(answer):
            raise refusal(response, self, message=text_at(answer, "message") or "failed")


def _cancel(task_ids: Sequence[TaskId]) -> tuple[Cancel]:
    return (Cancel(task_ids),)


# -- answers ------------------------------------------------------------------------------------------------------


@frozen
class MidjourneyResult:
    """The `task_result` of an answer, field by field; what the wire did not have is empty.

    Which fields are filled depends on the verb and on the account's plan.  `Task.images` picks the links.
    """

    image_url: str = ""
    image_urls: tuple[str, ...] = ()
    temporary_image_urls: tuple[str, ...] = ()
    discord_image_url: str = ""
    permanent_url: str = ""
    intermediate_image_urls: tuple[str, ...] = ()
    task_progress: int | None = None
    image_id: str = ""
    seed: str = ""
    result_message_id: str = ""
    quota_used: float | None = None
    credit: float | None = None
    message: str = ""
    warning: str = ""
    error_messages: tuple[str, ...] = ()
    need_retry: bool = False
    actions: tuple[str, ...] = ()


@frozen
class _Meta:
    task_type: str = ""
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


_structure_result = Structure(MidjourneyResult)
_structure_meta = Structure(_Meta)


def _read_result(raw: Mapping[str, Any]) -> MidjourneyResult:
    return _structure_result.salvage(raw.get("task_result"))


def _read_life(raw: Mapping[str, Any]) -> Life:
    meta = _structure_meta.salvage(raw.get("meta"))
    times = (from_unix(meta.created_at), from_unix(meta.started_at), from_unix(meta.ended_at))
    result = raw.get("task_result")
    used = result.get("quota_used") if isinstance(result, dict) else None
    return Life(meta.task_type, *times, cost=read_cost(used, "quota"))


def _files(raw: Mapping[str, Any]) -> tuple[TaskFile, ...]:
    """Return the links of `Task.images`, whose pictures other fields hold once more; else whatever is a link."""
    wire = raw.get("task_result")
    if isinstance(wire, dict):
        name, _ = pick_images(wire)
        wire = {name: wire[name]} if name else wire
    return find_files(wire, "task_result")


_READER = Reader(_read_result, _read_life, _files)


def _read_task(data: dict[str, Any], asked: TaskId, path: str = "") -> Task[MidjourneyResult]:
    """Return the task that an object tells of; only one without a status, or of another task, cannot be read."""
    status = read_status(data, asked, path)
    state = classify(status)
    wire = data.get("task_result")
    if type(wire) is dict:
        progress, images = read_percent(wire.get("task_progress")), pick_images(wire)[1]
    else:
        progress, images = None, links_in(wire)
    return Task(
        task_id=asked,
        status=status,
        state=state,
        progress=progress,
        error=failure_text(data, wire) if state is TaskState.FAILED else "",
        images=images,
        raw=data,
        reader=_READER,
    )


def _read_entry(data: object, asked: TaskId) -> Task[MidjourneyResult] | UnexpectedAnswer | None:
    """Return one task of many; an entry that cannot be read is no reason to lose its neighbours."""
    if data is None:
        return None
    path = join("data", asked)
    if type(data) is not dict:
        return UnexpectedAnswer(f"The answer about {asked} is not an object", path=path)
    try:
        return _read_task(data, asked, path)
    except UnexpectedAnswer as error:
        return error


LEGACY: Family[MidjourneyResult] = Family(
    name="legacy", fetch=Fetch, fetch_many=MultiFetch, cancel=_cancel, read=_read_task
)
"""Tasks of the legacy Midjourney protocol, `/mj/v2/…`."""
