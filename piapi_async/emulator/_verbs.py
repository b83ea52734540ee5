"""The ten create verbs as data: which fields each takes, what it makes, what it may be made from.  Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from urllib.parse import urlsplit

from attrs import frozen


class Kind(StrEnum):
    """What a finished task holds."""

    GRID = "grid"
    SINGLE = "single"
    SEED = "seed"
    TEXT = "text"


class Refused(Exception):
    """The service says no: `status` is the HTTP status, `message` the human text."""

    def __init__(self, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@frozen
class Verb:
    """One create verb: the fields it needs and takes, the kind of parent it wants ("" = none) and what it makes."""

    name: str
    makes: Kind
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    parent: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field of the body that means something, the webhook's included."""
        return self.required + self.optional + WEBHOOK_FIELDS


#: Every create verb takes these (vendor page).
WEBHOOK_FIELDS = ("webhook_endpoint", "webhook_secret", "notify_progress")

DIGITS = ("1", "2", "3", "4")
#: What may follow an upscaled image (observed); the same field takes a digit on a grid.
WORDS = {"upscale": ("2x", "4x", "subtle", "creative"), "variation": ("high_variation", "low_variation")}

_ANY_IMAGE = "grid or single"

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("imagine", Kind.GRID, ("prompt",), ("process_mode", "aspect_ratio", "skip_prompt_check", "bot_id")),
        Verb("reroll", Kind.GRID, ("origin_task_id",), ("prompt", "skip_prompt_check"), "grid"),
        Verb("upscale", Kind.SINGLE, ("origin_task_id", "index"), (), _ANY_IMAGE),
        Verb(
            "variation",
            Kind.GRID,
            ("origin_task_id", "index"),
            ("prompt", "aspect_ratio", "skip_prompt_check"),
            _ANY_IMAGE,
        ),
        Verb("inpaint", Kind.GRID, ("origin_task_id", "mask"), ("prompt", "skip_prompt_check"), "single"),
        Verb("outpaint", Kind.GRID, ("origin_task_id", "zoom_ratio"), ("aspect_ratio", "prompt"), "single"),
        Verb("pan", Kind.GRID, ("origin_task_id", "direction"), ("prompt",), "single"),
        Verb("describe", Kind.TEXT, ("image_url",), ("process_mode",)),
        Verb("blend", Kind.GRID, ("image_urls",), ("process_mode", "dimension")),
        Verb("seed", Kind.SEED, ("origin_task_id",), (), _ANY_IMAGE),
    )
}


def accept(verb: Verb, body: Mapping[str, object], *, dimensions: tuple[str, ...]) -> dict[str, object]:
    """Return the fields of `body` that count, checked; `Refused` in the words a human would use.

    `""` means unset for optional strings (vendor page); null is read likewise.  Unknown fields are ignored.
    """
    given = {name: body[name] for name in verb.fields if body.get(name) not in (None, "")}
    if verb.name == "seed" and "origin_task_id" not in given and body.get("task_id"):
        given["origin_task_id"] = body["task_id"]  # the older name of the field
    for name in verb.required:
        if name not in given:
            raise Refused(f"{name} is required")
    for name, value in given.items():
        if problem := CHECKS[name](value):
            raise Refused(f"invalid {name}: {problem}")
    if "dimension" in given and given["dimension"] not in dimensions:
        raise Refused(f"invalid dimension: must be one of {', '.join(dimensions)}")
    if "index" in given:
        given["index"] = str(given["index"])
        known = DIGITS + WORDS[verb.name]
        if given["index"] not in known:
            raise Refused(f"invalid index: must be one of {', '.join(known)}")
    return given


def parent_problem(verb: Verb, parent: Kind, index: str) -> str:
    """Say why a finished task of kind `parent` cannot be the origin of this verb; "" when it can."""
    if parent not in verb.parent:
        return f"{verb.name} needs a {verb.parent} image task, the parent task is a {parent}"
    if index in DIGITS and parent is not Kind.GRID:
        return f"index {index} needs a grid, the parent task is a {parent}"
    if index in WORDS.get(verb.name, ()) and parent is not Kind.SINGLE:
        return f"index {index} needs an upscaled image, the parent task is a {parent}"
    return ""


def wanted_parent(verb: Verb, index: str) -> Kind:
    """Return the kind an unknown parent is adopted as: a grid wherever a grid will do."""
    return Kind.SINGLE if parent_problem(verb, Kind.GRID, index) else Kind.GRID


def _text(value: object) -> str:
    if not isinstance(value, str):
        return "must be a string"
    return "" if value.strip() else "must not be blank"


def _flag(value: object) -> str:
    return "" if isinstance(value, bool) else "must be true or false"


def _whole(value: object) -> str:
    return "" if isinstance(value, int) and not isinstance(value, bool) else "must be an integer"


def _index(value: object) -> str:
    # A number is accepted beside the documented string (observed).
    return "" if isinstance(value, str) or not _whole(value) else "must be a string"


def _word(*words: str) -> Callable[[object], str]:
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def _ratio(value: object) -> str:
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", value) if isinstance(value, str) else None
    return "" if match and int(match[1]) and int(match[2]) else 'must look like "4:3"'


def _zoom(value: object) -> str:
    number = re.fullmatch(r"[12](\.\d+)?", value) if isinstance(value, str) else None
    return "" if number and float(number[0]) <= 2 else 'must be a string from "1" to "2"'  # noqa: PLR2004 - the range


def _mask(value: object) -> str:
    if not isinstance(value, str):
        return "must be a string"
    if value.startswith("data:"):
        return "must be base64 without a data: prefix"
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "must be base64"
    return ""


def _link(value: object) -> str:
    if not isinstance(value, str):
        return "must be a string"
    try:
        parts = urlsplit(value)
    except ValueError:
        return "must be a URL"
    return "" if parts.scheme in ("http", "https") and parts.hostname else "must be an http or https URL"


def _links(value: object) -> str:
    if not isinstance(value, list) or not 2 <= len(value) <= 5:  # noqa: PLR2004 - two to five (vendor page)
        return "must be a list of 2 to 5 URLs"
    return next(filter(None, map(_link, value)), "")


def _endpoint(value: object) -> str:
    if problem := _link(value):
        return problem
    parts = urlsplit(str(value))
    try:
        port = parts.port
    except ValueError:
        return "must be a URL"
    if port in (None, 80, 443) or is_loopback(parts.hostname or ""):
        return ""
    return "port must be 80 or 443"


def is_loopback(host: str) -> bool:
    """Say whether `host` names this machine; its ports are free (our choice: a desk has no port 80 to give)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CHECKS: Mapping[str, Callable[[object], str]] = {
    "prompt": _text,
    "process_mode": _word("relax", "fast", "turbo", "mixed"),
    "aspect_ratio": _ratio,
    "skip_prompt_check": _flag,
    "bot_id": _whole,
    "origin_task_id": _text,
    "index": _index,
    "mask": _mask,
    "zoom_ratio": _zoom,
    "direction": _word("up", "down", "left", "right"),
    "image_url": _link,
    "image_urls": _links,
    "dimension": _text,
    "webhook_endpoint": _endpoint,
    "webhook_secret": _text,
    "notify_progress": _flag,
}
