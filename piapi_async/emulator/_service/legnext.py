"""LegNext's verbs as data: their fields on the wire, what they make, and from which parents.  Pure.

The fields and their bounds are those of docs.legnext.ai and of the vendor's OpenAPI files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import frozen

from .checks import Check, link, number, short, table
from .requests import MIDJOURNEY, CreateRequest, Kind, Protocol, Refusal

#: Jobs of one account that are worked on at a time.
CONCURRENCY = 6
#: Seconds for which a job can be a parent.
PARENT_MAX_AGE = 3 * 24 * 3600.0
#: What a video's files are called.
CLIPS = tuple(f"video-{index}.mp4" for index in range(4))

_PICTURE = "grid or single"
_LONGEST = 8192
_AREA = ("width", "height", "points")


def _numbered(most: int) -> Check:
    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            return f"must be an integer from 0 to {most}"
        return ""

    return check


def _links(value: object) -> str:
    if not isinstance(value, list) or not 2 <= len(value) <= 5:  # noqa: PLR2004 - two to five
        return "must be a list of 2 to 5 URLs"
    return next(filter(None, map(link, value)), "")


def _ratio(value: object) -> str:
    if value not in ("2:3", "1:1", "3:2"):
        return "must be one of 2:3, 1:1, 3:2"
    return ""


def _mask(value: object) -> str:
    if not isinstance(value, dict):
        return "must be an object"
    if "url" in value:
        return link(value["url"])
    areas = value.get("areas")
    if not isinstance(areas, list) or not areas:
        return "must have areas or a url"
    for area in areas:
        if not isinstance(area, dict) or any(name not in area for name in _AREA):
            return f"areas must have {', '.join(_AREA)}"
    return ""


_TEXT = short(_LONGEST)
_CHECKS: Mapping[str, Check] = {
    "text": _TEXT,
    "prompt": _TEXT,
    "remixPrompt": _TEXT,
    "jobId": _TEXT,
    "imageNo": _numbered(3),
    "videoNo": _numbered(3),
    "type": _numbered(3),
    "mode": _numbered(1),
    "direction": _numbered(3),
    "scale": number(1.1, 3),
    "videoType": _numbered(1),
    "mask": _mask,
    "canvas": table,
    "imgPos": table,
    "imgUrl": link,
    "imgUrls": _links,
    "aspect_ratio": _ratio,
    "callback": link,
}


@frozen(kw_only=True)
class Verb:
    """One verb: what it `makes`, from which kinds of `parent` ("" for none), and what it costs in points."""

    name: str
    makes: Kind = Kind.GRID
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    parent: str = ""
    points: int = 120

    @property
    def task_type(self) -> str:
        """Return the name that answers have for it."""
        return self.name.replace("-", "_")


_JOB = ("jobId", "imageNo")
_VIDEO = ("jobId", "videoNo")
_FRAME = ("canvas", "imgPos", "remixPrompt")

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb(name="diffusion", required=("text",), points=80),
        Verb(name="reroll", required=("jobId",), parent="grid", points=80),
        Verb(name="upscale", makes=Kind.SINGLE, required=(*_JOB, "type"), parent=_PICTURE),
        Verb(name="variation", required=(*_JOB, "type"), optional=("remixPrompt",), parent=_PICTURE),
        Verb(name="remix", required=(*_JOB, "remixPrompt"), optional=("mode",), parent=_PICTURE),
        Verb(name="pan", required=(*_JOB, "direction", "scale"), optional=("remixPrompt",), parent=_PICTURE),
        Verb(name="outpaint", required=(*_JOB, "scale"), optional=("remixPrompt",), parent=_PICTURE),
        Verb(name="inpaint", required=(*_JOB, "mask"), optional=("remixPrompt",), parent=_PICTURE),
        Verb(name="edit", required=(*_JOB, *_FRAME), optional=("mask",), parent=_PICTURE),
        Verb(name="enhance", required=_JOB, parent=_PICTURE),
        Verb(name="upload-paint", required=("imgUrl", *_FRAME, "mask")),
        Verb(name="retexture", required=("imgUrl", "remixPrompt")),
        Verb(name="remove-background", makes=Kind.SINGLE, required=("imgUrl",)),
        Verb(name="blend", required=("imgUrls", "aspect_ratio")),
        Verb(name="describe", makes=Kind.TEXT, required=("imgUrl",), points=20),
        Verb(name="shorten", makes=Kind.TEXT, required=("prompt",), points=20),
        Verb(
            name="video-diffusion",
            makes=Kind.FILES,
            required=(),
            optional=("prompt", *_JOB, "videoType"),
            parent=_PICTURE,
            points=480,
        ),
        Verb(
            name="extend-video",
            makes=Kind.FILES,
            required=_VIDEO,
            optional=("prompt",),
            parent=Kind.FILES,
            points=480,
        ),
        Verb(name="video-upscale", makes=Kind.FILES, required=_VIDEO, parent=Kind.FILES, points=480),
    )
}
BY_TASK_TYPE: Mapping[str, Verb] = {verb.task_type: verb for verb in VERBS.values()}

_SIDES = ("down", "right", "up", "left")
_MODES = ("relax", "fast", "turbo")

#: What tasks know a field by, and how its value is said there.
_KNOWN_AS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "jobId": ("origin_task_id", str),
    "imageNo": ("index", lambda value: str(int(str(value)) + 1)),
    "videoNo": ("index", lambda value: str(int(str(value)) + 1)),
    "direction": ("direction", lambda value: _SIDES[int(str(value))]),
    "scale": ("zoom_ratio", lambda value: f"{min(float(str(value)), 2):g}"),
    "text": ("prompt", str),
    "remixPrompt": ("prompt", str),
    "imgUrl": ("image_url", str),
    "callback": ("webhook_endpoint", str),
}


def legnext_request(name: str, body: Mapping[str, object], route: str) -> CreateRequest:
    """Return a create of LegNext, checked; raise `Refusal` if it is invalid."""
    verb = VERBS[name]
    given = _checked(verb, body)

    prompt = str(given.get("prompt", ""))
    derives = "origin_task_id" in given
    mode = next((word for word in _MODES if f"--{word}" in prompt), "")
    if verb.makes is Kind.FILES:
        mode = "video"
    return CreateRequest(
        name=verb.task_type,
        route=route,
        protocol=Protocol.LEGNEXT,
        model=MIDJOURNEY,
        makes=verb.makes,
        given=given,
        parent=verb.parent if derives else "",
        prompt=prompt,
        mode=mode,
        aspect_ratio=_aspect_ratio(prompt, body),
    )


def _checked(verb: Verb, body: Mapping[str, object]) -> dict[str, object]:
    """Return the fields that count, by the names that tasks know them by; null is unset."""
    names = (*verb.required, *verb.optional, "callback")
    given = {name: body[name] for name in names if body.get(name) not in (None, "")}
    for name in verb.required:
        if name not in given:
            raise Refusal(f"{name} is required")
    for name, value in given.items():
        if problem := _CHECKS[name](value):
            raise Refusal(f"invalid {name}: {problem}")
    if verb.name == "video-diffusion" and "prompt" not in given and not set(_JOB) <= given.keys():
        raise Refusal("prompt, or jobId and imageNo, are required")

    known: dict[str, object] = {}
    for name, value in given.items():
        known_as, say = _KNOWN_AS.get(name, (name, lambda value: value))
        known[known_as] = say(value)
    return known


def check_remembered(task_type: str, given: Mapping[str, object]) -> None:
    """Raise `Refusal` for a task that no create could have left, as a state file may have it."""
    if task_type not in BY_TASK_TYPE:
        raise Refusal(f"there is no task_type {task_type[:100]!r}")
    for name in ("origin_task_id", "index", "direction", "zoom_ratio", "webhook_endpoint"):
        if name in given and not isinstance(given[name], str):
            raise Refusal(f"invalid {name}: must be a string")
    if given.get("direction", "up") not in _SIDES:
        raise Refusal("invalid direction")
    if not re.fullmatch(r"[1-4]", str(given.get("index", "1"))):
        raise Refusal("invalid index")
    if not re.fullmatch(r"[12](\.\d+)?", str(given.get("zoom_ratio", "1"))):
        raise Refusal("invalid zoom_ratio")


def _aspect_ratio(prompt: str, body: Mapping[str, object]) -> str:
    found = re.search(r"--ar(?:pect)? +([1-9]\d{0,2}:[1-9]\d{0,2})(?!\S)", prompt)
    if found is not None:
        return found[1]
    return str(body.get("aspect_ratio") or "")
