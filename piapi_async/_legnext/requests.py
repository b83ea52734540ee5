"""LegNext's verbs: small frozen values in Midjourney's words, which become the vendor's numbers.  Pure.

The family stands here, too: what can be made from a finished job is one of these verbs.

On the wire names are spelt in camelCase, pictures are counted from 0, and a direction or a strength
is a number.  The vendor's own sources disagree on these numbers, and a wrong one is paid for: that
is why there are words here, as in the legacy protocol.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import attrs
import orjson
from attrs import field, frozen

from .._http import HTTPRequest, HTTPResponse
from .._protocol.actions import action_request
from .._protocol.checks import Converted, around
from .._protocol.envelope import read_task_object
from .._protocol.family import Family, no_cancel
from .._protocol.fields import (
    choice,
    item,
    number,
    parent,
    regions,
    text,
    url,
    urls,
    whole,
)
from .._protocol.kinds import UNKNOWN, Kind, kind_of
from .._protocol.reading import read_usage
from .._protocol.requests import CheckedRequest, request, set_fields
from .._protocol.webhook_fields import webhook_url
from .._text import brief
from .._verdict import read_created
from ..tasks import Created, Reader, Task, TaskId, TaskLike, check_task_id
from .tasks import SERVICE, LegNextResult, read_files, read_life, read_result, read_task

_LONGEST_PROMPT = 8192
_LONGEST_URL = 1024

# A grid that was drawn with --draft has up to 24 pictures (a customer's plugin); others have four.
_MOST_PICTURES = 24
_VIDEOS = 4

# -- parts of requests -----------------------------------------------------------------------------


@frozen
class Canvas:
    """The size of a new picture, in pixels."""

    width: int
    height: int


@frozen
class Position:
    """The size of an old picture on a canvas, and its offset from the top left, in pixels."""

    width: int
    height: int
    x: int
    y: int


@frozen
class Area:
    """A part of a picture: a polygon whose `points` are x, y, x, y, … clockwise from the top left.

    `width` and `height` are those of the whole picture, 500 to 4096 pixels.
    """

    width: int
    height: int
    points: Sequence[int]


_Numbers = Mapping[str, Mapping[str, int]]
"""What the wire has for the words of some fields."""

Regions = str | Sequence[Area | Mapping[str, Any]] | Mapping[str, Any]
"""Parts of a picture: polygons, or the URL of an image that is white there."""

# -- what all have in common -----------------------------------------------------------------------

_SPELT = {
    "job_id": "jobId",
    "prompt": "remixPrompt",
    "image_url": "imgUrl",
    "image_urls": "imgUrls",
    "img_pos": "imgPos",
    "video_type": "videoType",
    "webhook_endpoint": "callback",
}
"""How the names of fields are spelt on the wire; others are spelt alike, `aspect_ratio` among them."""


_HINTS = {
    "origin_task_id": "on LegNext it is job_id",
    "aspect_ratio": 'on LegNext it stands in the text, as in "a cat --ar 16:9"',
    "process_mode": 'on LegNext it stands in the text, as in "a cat --turbo"',
}
"""What to write instead of fields of PiAPI's Midjourney verbs, where a verb has none of that name."""


@request
class _Verb(CheckedRequest):
    """What all verbs share: `_index` is what the wire calls the picture, `_numbers` what it has for words."""

    verb: ClassVar[str]
    _index: ClassVar[str] = "imageNo"
    _numbers: ClassVar[_Numbers] = {}
    _own_prompt: ClassVar[bool] = False  # else it replaces the parent's, and has another name
    hints: ClassVar[Mapping[str, str]] = _HINTS

    webhook_endpoint: str | None = around(webhook_url(any_port=True))

    @property
    def family(self) -> Family[LegNextResult]:
        return LEGNEXT

    @property
    def kind(self) -> Kind:
        """The kind of its jobs: the verb, in the mode that a prompt asks for."""
        return kind_of("midjourney", self.verb, self._mode)

    @property
    def _mode(self) -> str:
        return "fast"

    def to_http(self) -> HTTPRequest:
        names = _names_on_the_wire(self._class)
        body = {names[name]: self._on_the_wire(name, value) for name, value in set_fields(self).items()}
        return HTTPRequest("POST", f"/api/v1/{self.verb}", orjson.dumps(body, default=attrs.asdict))

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        return read_created(response, self)

    def _on_the_wire(self, name: str, value: Any) -> Any:  # noqa: ANN401 - anything that becomes JSON
        if name == "index":
            return value - 1
        if name in self._numbers:
            return self._numbers[name][value]
        return value


@cache
def _names_on_the_wire(cls: Any) -> Mapping[str, str]:  # noqa: ANN401 - a class
    names = {f.name: _SPELT.get(f.name, f.name) for f in attrs.fields(cls)}
    names["index"] = cls._index
    if cls._own_prompt:
        names["prompt"] = "prompt"
    return names


# -- drawing ---------------------------------------------------------------------------------------

_REPAINT = {"subtle": 0, "strong": 1}


@request
class Imagine(_Verb):
    """Draw a grid of four; `text` has the prompt and Midjourney's switches: ``--ar 16:9 --v 7 --turbo``."""

    verb = "diffusion"
    hints: ClassVar[Mapping[str, str]] = {**_HINTS, "prompt": "on LegNext it is text"}
    text: str = text(most=_LONGEST_PROMPT, kw_only=False)

    @property
    def _mode(self) -> str:
        return next((mode for mode in ("turbo", "relax") if f"--{mode}" in self.text), "fast")


@request
class Reroll(_Verb):
    """Draw a grid anew, from the same prompt; for another prompt there are `Variation` and `Remix`."""

    verb = "reroll"
    hints: ClassVar[Mapping[str, str]] = {
        **_HINTS,
        "prompt": "a reroll on LegNext keeps its grid's; legnext/variation and legnext/remix take another",
    }
    job_id: Converted[TaskLike, str] = parent(kw_only=False)


@request
class Blend(_Verb):
    """Mix two to five images into one grid."""

    verb = "blend"
    image_urls: Converted[Sequence[str], tuple[str, ...]] = urls(2, 5, kw_only=False)
    aspect_ratio: Literal["2:3", "1:1", "3:2"] = choice("2:3", "1:1", "3:2", default="1:1")


# -- from one picture of a grid --------------------------------------------------------------------


@request
class Upscale(_Verb):
    """Enlarge one picture of a grid, `index` 1 to 4: by little, freely, or to two or four times the size."""

    verb = "upscale"
    # 0 and 1 are documented; 2 and 3 are what the vendor's n8n node sends.
    _numbers: ClassVar[_Numbers] = {"type": {"subtle": 0, "creative": 1, "2x": 2, "4x": 3}}
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    type: Literal["subtle", "creative", "2x", "4x"] = choice(
        "subtle", "creative", "2x", "4x", default="subtle"
    )


@request
class Variation(_Verb):
    """Draw a grid like one picture of another; `prompt` replaces the parent's, ``--ar`` included."""

    verb = "variation"
    _numbers: ClassVar[_Numbers] = {"type": _REPAINT}
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    type: Literal["subtle", "strong"] = choice("subtle", "strong", default="strong")
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None)


@request
class Remix(_Verb):
    """Draw a grid from one picture with another prompt."""

    verb = "remix"
    # So say the vendor's pages and OpenAPI files; the README of its package has "0 low, 1 high".
    _numbers: ClassVar[_Numbers] = {"mode": {"strong": 0, "subtle": 1}}
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    prompt: str = text(most=_LONGEST_PROMPT)
    mode: Literal["subtle", "strong"] | None = choice("subtle", "strong", default=None)


@request
class Pan(_Verb):
    """Extend one picture to one side, by a `scale` of 1.1 to 3."""

    verb = "pan"
    # So say the vendor's pages, OpenAPI files and n8n node; its Python package has another order,
    # in which "up" is drawn downwards.
    _numbers: ClassVar[_Numbers] = {"direction": {"down": 0, "right": 1, "up": 2, "left": 3}}
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    direction: Literal["up", "down", "left", "right"] = choice("up", "down", "left", "right")
    scale: float = number(1.1, 3, default=1.5)
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None)


@request
class Outpaint(_Verb):
    """Zoom out of one picture, by a `scale` of 1.1 to 2."""

    verb = "outpaint"
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    scale: float = number(1.1, 2)
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None)


@request
class Inpaint(_Verb):
    """Draw parts of one picture anew; `mask` is a list of `Area`, or the URL of an image, white there."""

    verb = "inpaint"
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    # The vendor's pages and OpenAPI files have JSON here; its Python package sends a form.
    mask: Converted[Regions, Mapping[str, Any]] = regions(Area)
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None)


@request
class Edit(_Verb):
    """Set one picture on a canvas and draw what is around it; some accounts alone may do that."""

    verb = "edit"
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)
    canvas: Canvas | Mapping[str, Any] = item(Canvas)
    img_pos: Position | Mapping[str, Any] = item(Position)
    prompt: str = text(most=_LONGEST_PROMPT)
    mask: Converted[Regions | None, Mapping[str, Any] | None] = regions(Area, default=None)


@request
class Enhance(_Verb):
    """Draw one picture of a draft in full; the parent must have been drawn with ``--v 7 --draft``."""

    verb = "enhance"
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _MOST_PICTURES, kw_only=False)


# -- from a picture of your own --------------------------------------------------------------------


@request
class UploadPaint(_Verb):
    """Set a picture on a canvas, and draw what is around it and where the `mask` is."""

    verb = "upload-paint"
    image_url: str = url(most=_LONGEST_URL, kw_only=False)
    canvas: Canvas | Mapping[str, Any] = item(Canvas)
    img_pos: Position | Mapping[str, Any] = item(Position)
    prompt: str = text(most=_LONGEST_PROMPT)
    mask: Converted[Regions, Mapping[str, Any]] = regions(Area)


@request
class Retexture(_Verb):
    """Keep what a picture shows, and draw it in another way."""

    verb = "retexture"
    image_url: str = url(most=_LONGEST_URL, kw_only=False)
    prompt: str = text(most=_LONGEST_PROMPT)


@request
class RemoveBackground(_Verb):
    """Cut out what a picture shows."""

    verb = "remove-background"
    image_url: str = url(most=_LONGEST_URL, kw_only=False)


@request
class Describe(_Verb):
    """Find prompts for an image; they are `result.prompts`."""

    verb = "describe"
    image_url: str = url(kw_only=False)


@request
class Shorten(_Verb):
    """Find shorter prompts that mean the same; they are `result.prompts`."""

    verb = "shorten"
    _own_prompt = True
    prompt: str = text(most=_LONGEST_PROMPT, kw_only=False)


# -- videos ----------------------------------------------------------------------------------------


@request
class VideoDiffusion(_Verb):
    """Make four videos: of a `prompt` that begins with an image's URL, or of one picture of a grid.

    The prompt takes the switches ``--motion low``, ``--motion high``, ``--raw`` and ``--end URL``.
    """

    verb = "video-diffusion"
    _own_prompt = True
    _numbers: ClassVar[_Numbers] = {"video_type": {"480p": 0, "720p": 1}}
    _needs = (("prompt", "job_id"),)
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None, kw_only=False)
    job_id: Converted[TaskLike | None, str | None] = parent(default=None)
    index: int | None = whole(1, _MOST_PICTURES, default=None)
    video_type: Literal["480p", "720p"] | None = choice("480p", "720p", default=None)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if (self.job_id is None) is not (self.index is None):
            raise ValueError("VideoDiffusion.index: give job_id and index, or neither")


@request
class ExtendVideo(_Verb):
    """Make one of four videos longer, by four seconds; at most four times."""

    verb = "extend-video"
    _index = "videoNo"
    _own_prompt = True
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _VIDEOS, kw_only=False)
    prompt: str | None = text(most=_LONGEST_PROMPT, default=None)


@request
class VideoUpscale(_Verb):
    """Enlarge one of four videos."""

    verb = "video-upscale"
    _index = "videoNo"
    job_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: int = whole(1, _VIDEOS, kw_only=False)


# -- jobs --------------------------------------------------------------------------------------------

_DERIVED: Mapping[str, type[_Verb]] = {
    cls.verb: cls
    for cls in (
        Reroll,
        Upscale,
        Variation,
        Remix,
        Pan,
        Outpaint,
        Inpaint,
        Edit,
        Enhance,
        ExtendVideo,
        VideoUpscale,
    )
}
"""What can be made from a finished job, by the name that begins a word of `actions`."""

_ACTION = re.compile(r"([a-z-]+?)-?([1-9]\d?)?")


def _derive(task_id: TaskId, word: str, inputs: Mapping[str, Any]) -> _Verb:
    """Return the request behind a word of `actions`: "reroll", or a verb and the number of a picture."""
    if not isinstance(word, str):
        raise TypeError(f"action: {brief(word)} is not allowed; it must be a word of result.actions")

    found = _ACTION.fullmatch(word.strip().lower().replace("_", "-"))
    if found is None or found[1] not in _DERIVED:
        known = ", ".join(_DERIVED)
        raise ValueError(
            f"action: {brief(word)} is not allowed; known are words such as upscale2, of {known}"
        )

    told = {}
    if found[2]:
        told["index"] = int(found[2])
    request: _Verb = action_request(_DERIVED[found[1]], task_id, word, told, inputs)
    return request


_READER = Reader(result=read_result, life=read_life, cost=read_usage, files=read_files, derive=_derive)


def _read_job(data: dict[str, Any], asked: TaskId) -> Task[LegNextResult]:
    return read_task(data, asked, _READER)


@frozen
class GetJob:
    """Read one job; there is no way to read many at a time."""

    task_id: TaskId = field(converter=check_task_id)

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", f"/api/v1/job/{quote(self.task_id, safe='')}")

    def parse(self, response: HTTPResponse, /) -> Task[LegNextResult]:
        return _read_job(read_task_object(response, self, self.task_id), self.task_id)


def _read_kind(raw: Mapping[str, Any]) -> Kind:
    task_type = raw.get("task_type")
    if not isinstance(task_type, str) or not task_type:
        return UNKNOWN
    return kind_of("midjourney", task_type, "fast")


LEGNEXT: Family[LegNextResult] = Family(
    name="legnext",
    service=SERVICE,
    id_field="job_id",
    fetch=GetJob,
    cancel=no_cancel("legnext"),
    read=_read_job,
    kind=_read_kind,
)
"""Jobs of LegNext's protocol."""
