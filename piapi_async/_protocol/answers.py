"""How the bytes of a response become JSON, without the secrets in them.  Pure.

What a response means is judged in `_verdict`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from .._text import excerpt
from ..errors import UnexpectedAnswer

MAX_ANSWER = 16 * 1024 * 1024
"""At most so many bytes of a response are read; no honest one comes near (our choice)."""


# -- bytes to JSON ---------------------------------------------------------------------------------

# It begins with a plain word, and so is found a hundred times faster than `_SECRET`.
_FILLED = re.compile(rb'secret"\s*+:\s*+"(?!")')
_SECRET = re.compile(
    rb'("(?:webhook_)?secret"\s*+:\s*+)"(?!")'  # the name, and a value that is not empty
    rb'[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)',  # to its end, or to that of a body that was cut
    re.DOTALL,
)


def blank_secrets(body: bytes) -> bytes:
    """Return the body with every webhook's secret emptied.

    The host echoes the whole request to anyone with a task id: `webhook_secret` in the legacy
    protocol, `secret` of a `webhook_config` in the unified one.
    """
    if _FILLED.search(body) is None:
        return body  # the usual answer; `sub` alone would copy it
    return _SECRET.sub(rb'\1""', body)


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, webhook secrets blanked; else raise `UnexpectedAnswer`."""
    return parse_object(blank_secrets(body))


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`, with the secrets in it; else raise `UnexpectedAnswer`."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        text = excerpt(blank_secrets(body))
        message = f"The response is not JSON ({error}); it begins: {text or 'nothing, it is empty'}"
        raise UnexpectedAnswer(message, excerpt=text) from None

    if type(data) is dict:
        return data
    text = excerpt(blank_secrets(body))
    raise UnexpectedAnswer(f"The response is not a JSON object but {text}", excerpt=text)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a `Retry-After` header asks for (RFC 9110 §10.2.3), None for nonsense.

    A date in the past is 0.  A date is measured from the response's own `Date`, so that a wrong
    clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            now = parsedate_to_datetime(headers.get("date", ""))
            seconds = (parsedate_to_datetime(value) - now).total_seconds()
        except (ValueError, TypeError, OverflowError):  # unreadable, or only one has a time zone
            return None

    if not math.isfinite(seconds):
        return None
    return max(0.0, seconds)
