"""Checks of single values: each says what is wrong, "" for nothing, in the words of a refusal.  Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from urllib.parse import urlsplit

Check = Callable[[object], str]


#: What a long value, a picture in base64 perhaps, is remembered as.
DIGEST = "sha256:"


def text(value: object) -> str:
    """Say what is wrong with a string that is not blank."""
    if not isinstance(value, str):
        return "must be a string"
    return "" if value.strip() else "must not be blank"


def string(value: object) -> str:
    """Say what is wrong with a string, which may be blank."""
    return "" if isinstance(value, str) else "must be a string"


def flag(value: object) -> str:
    """Say what is wrong with true or false."""
    return "" if isinstance(value, bool) else "must be true or false"


def whole(value: object) -> str:
    """Say what is wrong with an integer."""
    return "" if isinstance(value, int) and not isinstance(value, bool) else "must be an integer"


def index(value: object) -> str:
    """Say what is wrong with a number of a picture, or a word."""
    # A number is accepted beside the documented string (observed).
    return "" if isinstance(value, str) or not whole(value) else "must be a string"


def word(*words: str) -> Check:
    """Return the check of one of these words."""
    return lambda value: "" if value in words else f"must be one of {', '.join(words)}"


def ratio(value: object) -> str:
    """Say what is wrong with a ratio like "4:3"."""
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", value) if isinstance(value, str) else None
    return "" if match and int(match[1]) and int(match[2]) else 'must look like "4:3"'


def zoom(value: object) -> str:
    """Say what is wrong with how far to zoom out."""
    match = re.fullmatch(r"[12](\.\d+)?", value) if isinstance(value, str) else None
    return "" if match and float(match[0]) <= 2 else 'must be a string from "1" to "2"'  # noqa: PLR2004 - the range


def mask(value: object) -> str:
    """Say what is wrong with base64 that stands without a prefix."""
    if not isinstance(value, str):
        return "must be a string"
    if value.startswith("data:"):
        return "must be base64 without a data: prefix"
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "must be base64"
    return ""


def link(value: object) -> str:
    """Say what is wrong with an http or https URL."""
    if not isinstance(value, str):
        return "must be a string"
    try:
        parts = urlsplit(value)
    except ValueError:
        return "must be a URL"
    return "" if parts.scheme in ("http", "https") and parts.hostname else "must be an http or https URL"


def links(value: object) -> str:
    """Say what is wrong with two to five URLs."""
    if not isinstance(value, list) or not 2 <= len(value) <= 5:  # noqa: PLR2004 - two to five (vendor page)
        return "must be a list of 2 to 5 URLs"
    return next(filter(None, map(link, value)), "")


def endpoint(value: object) -> str:
    """Say what is wrong with where a webhook may be sent."""
    if problem := link(value):
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


def short(most: int) -> Check:
    """Return the check of a text of at most so many characters."""
    return lambda value: text(value) or (f"must have at most {most} characters" if len(str(value)) > most else "")


def number(least: float, most: float) -> Check:
    """Return the check of a number in that range."""

    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        return "" if least <= value <= most else f"must lie in {least:g}..{most:g}"

    return check


def items(value: object) -> str:
    """Say what is wrong with a list, which may be empty: the vendor's own client sends some that are."""
    return "" if isinstance(value, list) else "must be a list"


def scalar(value: object) -> str:
    """Say what is wrong with a word or a number."""
    good = isinstance(value, str | int | float) and not isinstance(value, bool)
    return "" if good else "must be a string or a number"


def source(value: object) -> str:
    """Say what is wrong with where a picture, a video or a sound comes from: a link, a data: URI or bare base64."""
    if not isinstance(value, str):
        return "must be a string"
    start = value[:1000]  # of what may be ten megabytes
    if re.match(r"data:[\w./+-]+;base64,", start) or not link(start):
        return ""
    return "" if re.fullmatch(r"[A-Za-z0-9+/_=\s-]+", start) else "must be an http or https URL, or base64"


def remembered(check: Check) -> Check:
    """Return the check of a value that a task was made with: a long one is kept as its digest."""
    if check not in _OF_ANY_LENGTH:
        return check
    return lambda value: "" if isinstance(value, str) and _DIGEST.fullmatch(value) else check(value)


_DIGEST = re.compile(rf"{DIGEST}[0-9a-f]{{64}}")
_OF_ANY_LENGTH: tuple[Check, ...] = (text, string, mask, link, source)


def table(value: object) -> str:
    """Say what is wrong with an object."""
    return "" if isinstance(value, dict) else "must be an object"
