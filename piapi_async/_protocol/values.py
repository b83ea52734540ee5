"""What a field of a request may hold: validators and converters for attrs.  Pure.

A validator raises `ValueError` that names the field, the value and what is allowed.  It refuses only what the host
certainly refuses: the rule is told in `_inputs`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, TypeGuard, cast
from urllib.parse import urlsplit

from attrs import Attribute

from .answers import is_loopback

AROUND: Mapping[str, Any] = {"around": True}
"""Marks a field that is no input: what many requests share, the webhook's and the like."""


def inputs_first(_cls: type[Any], fields: list[Attribute[Any]]) -> list[Attribute[Any]]:
    """Order a request's fields for its signature: attrs puts inherited ones first, a reader looks for the inputs."""
    return sorted(fields, key=lambda f: bool(f.metadata.get("around")))


def refuse(instance: object, attribute: Attribute[Any], value: object, allowed: str) -> ValueError:
    return ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; {allowed}")


def is_text(value: object) -> TypeGuard[str]:
    """Tell whether JSON can carry it: half of a surrogate pair, as a cut emoji leaves, it cannot."""
    return isinstance(value, str) and not _HALF_PAIR.search(value)


_HALF_PAIR = re.compile("[\ud800-\udfff]")


def is_path(value: PurePath) -> bool:
    """Tell whether a file can have that path, and JSON can carry it: a name that is not UTF-8 it cannot."""
    return is_text(str(value)) and "\0" not in str(value)


def required_text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not is_text(value) or not value.strip():
        raise refuse(instance, attribute, value, "it must be a text that is not empty")


def optional_text(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not is_text(value):
        raise refuse(instance, attribute, value, "it must be a text or None")


def optional_flag(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise refuse(instance, attribute, value, "it must be True, False or None")


_JSON_BITS = 63


def optional_whole(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value.bit_length() > _JSON_BITS):
        raise refuse(instance, attribute, value, "it must be a whole number or None")


def one_of(*words: str) -> Callable[[object, Attribute[Any], object], None]:
    """Return the check for one of some words, to which no host adds any."""

    def check(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value not in words:
            raise refuse(instance, attribute, value, f"use one of {', '.join(map(repr, words))}")

    return check


_ZOOM = re.compile(r"1(\.\d+)?|2(\.0+)?")


def is_zoom(value: object) -> bool:
    """Tell whether a text is a number from 1 to 2: the buttons are 1.5 and 2, a "custom zoom" lies between."""
    return isinstance(value, str) and _ZOOM.fullmatch(value) is not None


def zoom(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not is_zoom(value):
        raise refuse(instance, attribute, value, "use a number from 1 to 2, such as 1.5")


_RATIO = re.compile(r"0*[1-9]\d*:0*[1-9]\d*")


def is_ratio(value: object) -> bool:
    return isinstance(value, str) and _RATIO.fullmatch(value) is not None


def optional_ratio(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is None or value == "" or is_ratio(value):
        return
    raise refuse(instance, attribute, value, "use two whole numbers such as '4:3', or None")


def is_http_url(value: object) -> TypeGuard[str]:
    if not is_text(value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an unclosed bracket
        return False


def image_url(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not is_http_url(value):
        raise refuse(instance, attribute, value, "it must be an http(s) URL that the host can reach")


def image_urls(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not 2 <= len(value) <= 5:  # noqa: PLR2004 - the vendor's bounds
        raise refuse(instance, attribute, value, "it must be 2 to 5 image URLs")
    for url in value:
        image_url(instance, attribute, url)


def webhook_endpoint(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is None or value == "":
        return
    if not is_http_url(value):
        raise refuse(instance, attribute, value, "it must be an http(s) URL that the host can reach, or None")
    parts = urlsplit(str(value))
    if parts.port not in {None, 80, 443} and not is_loopback(parts.hostname or ""):
        raise refuse(instance, attribute, value, "the host delivers to port 80 or 443 only")


def webhook_secret(instance: Any, attribute: Attribute[Any], value: object) -> None:  # noqa: ANN401 - any verb
    if value is not None and not is_text(value):
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: it must be a text or None")
    if isinstance(value, str) and not value.isascii():  # it comes back in a header, which frameworks decode differently
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: it must be ASCII")
    if value and not instance.webhook_endpoint:
        raise ValueError(f"{type(instance).__name__}.webhook_secret: set webhook_endpoint too, or leave both out")


def aware(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise refuse(instance, attribute, value, "it must be a datetime with a time zone")


def optional_aware(instance: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None:
        aware(instance, attribute, value)


def is_base64(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(base64.b64decode(value, validate=True))
    except ValueError:
        return False


def mask(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not is_base64(value):
        shown = f"{value[:40]}…" if isinstance(value, str) and len(value) > 40 else value  # noqa: PLR2004 - to read
        raise refuse(instance, attribute, shown, "it must be a base64 text, a data: URI or the image's bytes")


def to_mask(value: str | bytes) -> str:
    """Give base64 text, of an image's bytes or without the prefix of a data: URI."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if not isinstance(value, str):
        return value  # for the validator to refuse
    text = value.partition(",")[2] if value.startswith("data:") else value
    return "".join(text.split())


def to_word(value: str | float) -> str:
    """Give a number as the text the wire has for it; True is a number only to Python."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    return cast("str", value)


def to_tuple(value: Sequence[str]) -> tuple[str, ...]:
    """Give a tuple; a lone text, which is a sequence too, is left for the validator to refuse."""
    return cast("tuple[str, ...]", value) if isinstance(value, str) or not isinstance(value, Iterable) else tuple(value)
