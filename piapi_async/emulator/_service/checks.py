"""Checks of single values.  Each returns what is wrong in the words of a refusal, "" if nothing is.  Pure."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

Check = Callable[[object], str]

#: Prefix of the digest that a remembered task has in place of a long value, such as a picture in
#: base64.
DIGEST = "sha256:"

#: Beginning of a value that is looked at; the whole may have ten megabytes.
_START = 1000


def text(value: object) -> str:
    """Check a string that is not blank."""
    if not isinstance(value, str):
        return "must be a string"
    if not value.strip():
        return "must not be blank"
    return ""


def string(value: object) -> str:
    """Check a string, which may be blank."""
    if not isinstance(value, str):
        return "must be a string"
    return ""


def flag(value: object) -> str:
    """Check a boolean."""
    if not isinstance(value, bool):
        return "must be true or false"
    return ""


def whole(value: object) -> str:
    """Check an integer."""
    if not isinstance(value, int) or isinstance(value, bool):
        return "must be an integer"
    return ""


def index(value: object) -> str:
    """Check the number of a picture, or a word."""
    # A number is accepted beside the documented string (observed).
    if not isinstance(value, str) and whole(value):
        return "must be a string"
    return ""


def word(*words: str) -> Check:
    """Return the check of one of these words."""

    def check(value: object) -> str:
        if value not in words:
            return f"must be one of {', '.join(words)}"
        return ""

    return check


def ratio(value: object) -> str:
    """Check a ratio such as "4:3"."""
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", value) if isinstance(value, str) else None
    if match is None or not int(match[1]) or not int(match[2]):
        return 'must look like "4:3"'
    return ""


def zoom(value: object) -> str:
    """Check how far to zoom out."""
    match = re.fullmatch(r"[12](\.\d+)?", value) if isinstance(value, str) else None
    if match is None or float(match[0]) > 2:  # noqa: PLR2004 - the range
        return 'must be a string from "1" to "2"'
    return ""


def mask(value: object) -> str:
    """Check base64 without a prefix."""
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
    """Check an http or https URL."""
    if not isinstance(value, str):
        return "must be a string"

    try:
        parts = urlsplit(value)
    except ValueError:
        return "must be a URL"

    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be an http or https URL"
    return ""


def links(value: object) -> str:
    """Check two to five URLs (vendor page)."""
    if not isinstance(value, list) or not 2 <= len(value) <= 5:  # noqa: PLR2004 - two to five
        return "must be a list of 2 to 5 URLs"
    return next(filter(None, map(link, value)), "")


def endpoint(value: object) -> str:
    """Check where a webhook is to be sent."""
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


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Return whether `host` names this machine.

    Any port of it may take webhooks (our choice: tests listen on free ports, not on 80).
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def short(most: int) -> Check:
    """Return the check of a string that is not blank and has at most so many characters."""

    def check(value: object) -> str:
        if problem := text(value):
            return problem
        if len(str(value)) > most:
            return f"must have at most {most} characters"
        return ""

    return check


def number(least: float, most: float) -> Check:
    """Return the check of a number in that range."""

    def check(value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "must be a number"
        if not least <= value <= most:
            return f"must lie in {least:g}..{most:g}"
        return ""

    return check


def items(value: object) -> str:
    """Check a list; it may be empty, as some that the vendor's own client sends are."""
    if not isinstance(value, list):
        return "must be a list"
    return ""


def scalar(value: object) -> str:
    """Check a string or a number."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return "must be a string or a number"
    return ""


def source(value: object) -> str:
    """Check where a picture, a video or a sound comes from: a link, a data: URI or bare base64."""
    if not isinstance(value, str):
        return "must be a string"

    start = value[:_START]
    if re.match(r"data:[\w./+-]+;base64,", start) or not link(start):
        return ""
    if re.fullmatch(r"[A-Za-z0-9+/_=\s-]+", start):
        return ""
    return "must be an http or https URL, or base64"


def table(value: object) -> str:
    """Check a JSON object."""
    if not isinstance(value, dict):
        return "must be an object"
    return ""


def remembered(check: Check) -> Check:
    """Return the check of a value as a remembered task has it: a long one is its digest."""
    if check not in _OF_ANY_LENGTH:
        return check

    def check_remembered(value: object) -> str:
        if isinstance(value, str) and _DIGEST.fullmatch(value):
            return ""
        return check(value)

    return check_remembered


_DIGEST = re.compile(rf"{DIGEST}[0-9a-f]{{64}}")
_OF_ANY_LENGTH: tuple[Check, ...] = (text, string, mask, link, source)
