"""Predicates and converters for the values of a request: text, numbers, URLs, files, JSON.  Pure."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeGuard, cast
from urllib.parse import urlsplit

import attrs
import orjson

# -- strings and paths -----------------------------------------------------------------------------

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_text(value: object) -> TypeGuard[str]:
    """Return whether a value is a `str` that JSON can carry; half of a surrogate pair is not."""
    return isinstance(value, str) and (value.isascii() or not _LONE_SURROGATE.search(value))


def is_path(value: PurePath) -> bool:
    """Return whether a file can have this path and JSON can carry it, as it can any UTF-8."""
    return is_text(str(value)) and "\0" not in str(value)


# -- numbers ---------------------------------------------------------------------------------------

_JSON_BITS = 63


def is_whole(value: object) -> TypeGuard[int]:
    """Return whether a value is an `int`, and no `bool`, that every JSON decoder can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and value.bit_length() <= _JSON_BITS


_ZOOM = r"1(\.\d+)?|2(\.0+)?"


def is_zoom(value: object) -> bool:
    """Return whether a `str` is a number from 1 to 2, between which a "custom zoom" lies."""
    return isinstance(value, str) and re.fullmatch(_ZOOM, value) is not None


_RATIO = r"0*[1-9]\d*:0*[1-9]\d*"


def is_ratio(value: object) -> bool:
    """Return whether a value is a ratio of two whole numbers above 0, such as "16:9"."""
    return isinstance(value, str) and re.fullmatch(_RATIO, value) is not None


def to_word(value: str | float) -> str:
    """Return a number as the string that the wire has for it; anything else stays as it is."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}"
    return cast("str", value)


# -- URLs ------------------------------------------------------------------------------------------


def is_http_url(value: object) -> TypeGuard[str]:
    """Return whether a value is an absolute http(s) URL."""
    if not is_text(value):
        return False

    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, an unclosed bracket
        return False


def is_loopback(host: str) -> bool:
    """Return whether a host name means this machine, without asking any resolver."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


_WEBHOOK_PORTS = frozenset({None, 80, 443})


def takes_webhooks(url: str) -> bool:
    """Return whether the host delivers to the port of a URL: 80 and 443 (the vendor's page).

    On this machine any port will do, for tests.
    """
    parts = urlsplit(url)
    return parts.port in _WEBHOOK_PORTS or is_loopback(parts.hostname or "")


# -- base64 ----------------------------------------------------------------------------------------


def is_base64(value: object) -> bool:
    """Return whether a value is base64, in one line and not empty."""
    try:
        return isinstance(value, str) and bool(base64.b64decode(value, validate=True))
    except ValueError:
        return False


def to_mask(value: str | bytes) -> str:
    """Return an image as base64 in one line: encode its bytes, or cut the prefix of a data: URI off."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if not isinstance(value, str):
        return value  # for the check to refuse

    text = value
    if value.startswith("data:"):
        text = value.partition(",")[2]
    return "".join(text.split())


# -- files and JSON --------------------------------------------------------------------------------

UPLOADABLE = frozenset({".jpg", ".jpeg", ".png", ".webp", ".mp4", ".wav", ".mp3"})
"""The kinds of files that the upload host takes, by suffix (the vendor's page)."""

_OTHER_LINKS = ("data:", "asset://")  # asset: the vendor's Private Asset Library, which Seedance reads


def is_link(value: object) -> bool:
    """Return whether a value is a link that hosts read, or a local file that can be uploaded."""
    if isinstance(value, PurePath):
        return value.suffix.lower() in UPLOADABLE and is_path(value)
    if is_http_url(value):
        return True
    return is_text(value) and value.startswith(_OTHER_LINKS)


def is_link_or_base64(value: object) -> bool:
    """Return whether a value is a link or base64, perhaps in lines, as many programs write it."""
    if is_link(value):
        return True
    return isinstance(value, str) and is_base64("".join(value.split()))


def is_object(value: object) -> bool:
    """Return whether a value is a dict that JSON can carry, paths and settings in it included."""
    if not isinstance(value, Mapping):
        return False
    if not value:  # the usual `extra`
        return True
    if not all(isinstance(name, str) for name in value):
        return False

    try:
        orjson.dumps(dict(value), default=_stand_in)
        json.dumps(value, default=_stand_in, allow_nan=False)  # orjson would send null for NaN
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _stand_in(value: object) -> object:
    """Return what stands for a value that JSON does not know, as far as the check is concerned."""
    if isinstance(value, PurePath) and is_path(value):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if attrs.has(type(value)):
        return attrs.asdict(value, recurse=False)  # type: ignore[arg-type]  # `has` is no type guard
    raise TypeError(type(value).__name__)


def to_own(value: Any) -> Any:  # noqa: ANN401 - the check refuses what is not an object
    """Return a copy, so that a request stays as it was made even if its maker changes the dict."""
    try:
        return _copied(value)
    except RecursionError:  # it contains itself
        return value


def _copied(value: Any) -> Any:  # noqa: ANN401 - JSON, files, settings
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value


def to_regions(value: Any) -> Any:  # noqa: ANN401 - the check refuses what is neither
    """Return parts of a picture as JSON has them: under `areas`, or under `url` if an image marks them."""
    if isinstance(value, str):
        return {"url": value}
    if isinstance(value, (list, tuple)):
        return {"areas": [to_own(area) for area in value]}
    return to_own(value)


def to_tuple(value: Any) -> Any:  # noqa: ANN401 - the check refuses what is not a list
    """Return a tuple of a list's items; a lone string, which is iterable too, stays as it is."""
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
        return value
    return tuple(map(to_own, value))
