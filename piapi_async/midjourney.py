"""The legacy Midjourney protocol: ten verbs that make a task, three calls about tasks.  Pure.

Each verb is a small frozen value, whose fields are checked when it is made, so that a typing error
costs nothing.  ``None`` means "not set" and is not sent; ``""`` is sent (the host takes it for
"unset").  The wire rules are the vendor's (piapi.ai/docs, section Midjourney API) unless a comment
says "observed" or "our choice".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import orjson
from attrs import field, frozen

from ._http import HTTPRequest, HTTPResponse, post
from ._protocol.actions import action_request, read_action
from ._protocol.checks import Converted, around
from ._protocol.decoding import Structure
from ._protocol.envelope import check_confirmed, find_task_object, unpack_task, without_secrets
from ._protocol.family import Family
from ._protocol.fields import (
    choice,
    flag,
    mask,
    open_choice,
    parent,
    text,
    url,
    urls,
    whole,
    whole_ratio,
    word,
    zoom,
)
from ._protocol.kinds import UNKNOWN, Kind, kind_of
from ._protocol.reading import (
    IMAGE_FIELDS,
    failure_text,
    from_unix,
    links_in,
    object_at,
    pick_images,
    read_cost,
    read_percent,
    read_state,
    text_at,
)
from ._protocol.refusals import read_answer, refusal
from ._protocol.requests import CheckedRequest, request, set_fields
from ._protocol.result_files import find_files
from ._protocol.webhook_fields import webhook_secret, webhook_url
from ._protocol.words import says_failed
from ._verdict import read_created
from .account import PIAPI
from .errors import UnexpectedAnswer
from .tasks import (
    Cost,
    Created,
    Life,
    Reader,
    Task,
    TaskFile,
    TaskId,
    TaskLike,
    TaskState,
    check_task_id,
    task_with_raw,
    waiting_task,
)

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

ProcessMode = Literal["relax", "fast", "turbo", "mixed"]
Dimension = Literal["square", "portrait", "landscape"]
Direction = Literal["up", "down", "left", "right"]
ZoomRatio = Literal["1", "1.5", "2"] | float
UpscaleIndex = Literal["1", "2", "3", "4", "2x", "4x", "subtle", "creative"] | int
VariationIndex = Literal["1", "2", "3", "4", "high_variation", "low_variation"] | int


# -- the verbs -------------------------------------------------------------------------------------


@request
class _Verb(CheckedRequest):
    """What all verbs share: the webhook, how a request is sent, and how its response is read."""

    verb: ClassVar[str]

    webhook_endpoint: str | None = around(webhook_url())
    webhook_secret: str | None = around(webhook_secret())
    notify_progress: bool | None = around(flag(default=None))

    @property
    def family(self) -> Family[MidjourneyResult]:
        return LEGACY

    @property
    def kind(self) -> Kind:
        """The kind of its tasks: the verb, in the mode that it is asked for."""
        return kind_of("midjourney", self.verb, getattr(self, "process_mode", None) or "fast")

    def to_http(self) -> HTTPRequest:
        return post(f"/mj/v2/{self.verb}", set_fields(self))

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        return read_created(response, self)


@request
class Imagine(_Verb):
    """Draw a grid of four from a prompt."""

    verb = "imagine"
    prompt: str = text(kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)
    aspect_ratio: str | None = whole_ratio(default=None)
    skip_prompt_check: bool | None = flag(default=None)
    bot_id: int | None = whole(default=None)


@request
class Reroll(_Verb):
    """Draw a grid anew; `prompt` replaces the parent's."""

    verb = "reroll"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    prompt: str | None = text(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Upscale(_Verb):
    """Take one image of a grid (`index` 1 to 4), or enlarge an upscaled one.

    The words 2x, 4x, subtle and creative, which enlarge, were observed.
    """

    verb = "upscale"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: Converted[UpscaleIndex, str] = word(
        *("1", "2", "3", "4"),
        *("2x", "4x", "subtle", "creative"),
        kw_only=False,
    )


@request
class Variation(_Verb):
    """Vary one image of a grid (`index` 1 to 4), or an upscaled one.

    The words high_variation and low_variation, which vary an upscaled one, were observed.
    """

    verb = "variation"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: Converted[VariationIndex, str] = word(
        *("1", "2", "3", "4"),
        *("high_variation", "low_variation"),
        kw_only=False,
    )
    prompt: str | None = text(default=None)
    aspect_ratio: str | None = whole_ratio(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Inpaint(_Verb):
    """Draw the masked part of an upscaled image anew; `mask` is base64, a data: URI or an image's bytes."""

    verb = "inpaint"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    mask: Converted[str | bytes, str] = mask()
    prompt: str | None = text(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Outpaint(_Verb):
    """Zoom out of an upscaled image; `zoom_ratio` 1 makes it square or gives it `aspect_ratio`."""

    verb = "outpaint"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    zoom_ratio: Converted[ZoomRatio, str] = zoom()
    aspect_ratio: str | None = whole_ratio(default=None)
    prompt: str | None = text(default=None)


@request
class Pan(_Verb):
    """Extend an upscaled image to one side."""

    verb = "pan"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    direction: Direction = choice("up", "down", "left", "right")
    prompt: str | None = text(default=None)


@request
class Describe(_Verb):
    """Find prompts for an image; they are in `result.message`."""

    verb = "describe"
    image_url: str = url(kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)


@request
class Blend(_Verb):
    """Mix two to five images into one grid; `dimension` is square, portrait or landscape."""

    verb = "blend"
    image_urls: Converted[Sequence[str], tuple[str, ...]] = urls(2, 5, kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)
    dimension: Dimension | None = open_choice("square", "portrait", "landscape", default=None)


@request
class Seed(_Verb):
    """Ask for the seed of a finished task; it is `result.seed`."""

    verb = "seed"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)


# -- calls about tasks -----------------------------------------------------------------------------


def _to_ids(task_ids: Sequence[TaskId]) -> tuple[TaskId, ...]:
    return tuple(task_ids)


@frozen
class Fetch:
    """Read one task."""

    task_id: TaskId = field(converter=check_task_id)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/fetch", {"task_id": self.task_id})

    def parse(self, response: HTTPResponse, /) -> Task[MidjourneyResult]:
        data = find_task_object(response, self, self.task_id)
        return _read_task(data, self.task_id, response.body)


@frozen
class MultiFetch:
    """Read many tasks in one request (observed; not every host has it)."""

    task_ids: tuple[TaskId, ...] = field(converter=_to_ids)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/multi_fetch", {"task_ids": self.task_ids})

    def parse(self, response: HTTPResponse, /) -> dict[TaskId, _Entry]:
        answer = read_answer(response, self)
        tasks = answer.get("data")
        if isinstance(tasks, dict):
            return {task_id: _read_entry(tasks.get(task_id), task_id) for task_id in self.task_ids}

        message = text_at(answer, "message").strip()
        if message and "data" not in answer:
            raise refusal(response, self, message=message)
        raise UnexpectedAnswer("The response has no object of tasks at data", path="data")


@frozen
class Cancel:
    """Ask to cancel tasks; only those that have not started can be."""

    task_ids: tuple[TaskId, ...] = field(converter=_to_ids)

    def to_http(self) -> HTTPRequest:
        return post("/mj/v2/cancel", {"task_ids": self.task_ids})  # undocumented: our choice

    def parse(self, response: HTTPResponse, /) -> None:
        answer = read_answer(response, self)
        if says_failed(answer):
            raise refusal(response, self, message=text_at(answer, "message") or "failed")
        check_confirmed(answer)


def _cancel(task_ids: Sequence[TaskId]) -> tuple[Cancel]:
    return (Cancel(task_ids),)


# -- responses ---------------------------------------------------------------------------------------


@frozen
class MidjourneyResult:
    """The `task_result` of a task, field by field; what the host did not send is empty.

    Which fields are filled depends on the verb and on the account's plan.  `Task.images` picks the
    links.
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


@frozen(eq=False, repr=False)
class _Meta:
    task_type: str = ""
    created_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None


_Entry = Task[MidjourneyResult] | UnexpectedAnswer | None
"""A task of many, the error of one that could not be read, or None for an unknown id."""

_structure_result = Structure(MidjourneyResult)
_structure_meta = Structure(_Meta)


def _read_result(raw: Mapping[str, Any]) -> MidjourneyResult:
    return _structure_result.salvage(raw.get("task_result"))


def _read_life(raw: Mapping[str, Any]) -> Life:
    meta = _structure_meta.salvage(raw.get("meta"))
    return Life(
        task_type=meta.task_type,
        created_at=from_unix(meta.created_at),
        started_at=from_unix(meta.started_at),
        ended_at=from_unix(meta.ended_at),
    )


def _read_cost(raw: Mapping[str, Any]) -> Cost | None:
    return read_cost(object_at(raw, "task_result").get("quota_used"), "quota")


def _read_files(raw: Mapping[str, Any]) -> tuple[TaskFile, ...]:
    """Return the links of `Task.images`, and as copies those of other fields; without any, every link."""
    result = raw.get("task_result")
    if isinstance(result, dict) and pick_images(result):
        result = {name: result[name] for name in IMAGE_FIELDS if name in result}
    return find_files(result, "task_result", midjourney=True)


def _derive(task_id: TaskId, word: str, inputs: Mapping[str, Any]) -> _Verb:
    verb, told = read_action(word)
    request: _Verb = action_request(_DERIVED[verb], task_id, word, told, inputs)
    return request


_DERIVED: Mapping[str, type[_Verb]] = MappingProxyType(
    {cls.verb: cls for cls in (Reroll, Upscale, Variation, Inpaint, Outpaint, Pan, Seed)}
)
"""What can be made from a finished task, by the verbs of `read_action`."""

_READER = Reader(
    result=_read_result,
    life=_read_life,
    cost=_read_cost,
    files=_read_files,
    unpack=unpack_task,
    derive=_derive,
)


def _read_task(
    data: dict[str, Any], asked: TaskId, body: bytes | None = None, path: str = ""
) -> Task[MidjourneyResult]:
    """Return the task of an object; raise `UnexpectedAnswer` without a status, or for another task.

    `body` is the response that the object was found in, with any secrets, or b"" if it holds more
    than this task, without secrets.  Without a `body` the object itself is kept.
    """
    status, state = read_state(data, asked, path)
    result = data.get("task_result")

    if type(result) is dict:
        progress = read_percent(result.get("task_progress"))
        images = pick_images(result)
    else:
        progress = None
        images = links_in(result)

    if body is not None:
        if not state.terminal:
            return waiting_task(asked, status, state, progress, images, body or _rewritten(data), _READER)
        data = without_secrets(data, body)

    error = ""
    if state is TaskState.FAILED:
        error = failure_text(data, data.get("task_result"))

    return task_with_raw(asked, status, state, progress, error, images, data, _READER)


def _read_entry(data: object, asked: TaskId) -> _Entry:
    """Return one task of many; an entry that cannot be read does not cost its neighbours."""
    if data is None:
        return None

    path = f"data.{asked}"
    if type(data) is not dict:
        return UnexpectedAnswer(f"The response about {asked} is not an object", path=path)
    try:
        return _read_task(data, asked, None if "data" in data else b"", path)
    except UnexpectedAnswer as error:
        return error


def _rewritten(data: dict[str, Any]) -> bytes:
    """Return the bytes of one task of many: to write it again takes a third of the time of its parse."""
    return bytes(memoryview(orjson.dumps(data)))  # a copy: orjson's own bytes keep a buffer of 8 kB


def _read_kind(raw: Mapping[str, Any]) -> Kind:
    meta = object_at(raw, "meta")
    task_type, mode = meta.get("task_type"), meta.get("process_mode")
    if not isinstance(task_type, str) or not task_type:
        return UNKNOWN
    return kind_of("midjourney", task_type, mode if isinstance(mode, str) and mode else "fast")


LEGACY: Family[MidjourneyResult] = Family(
    name="legacy",
    service=PIAPI,
    tells_price=False,
    fetch=Fetch,
    fetch_many=MultiFetch,
    cancel=_cancel,
    read=_read_task,
    listed_as="midjourney",
    kind=_read_kind,
)
"""Tasks of the legacy Midjourney protocol, `/mj/v2/…`."""
