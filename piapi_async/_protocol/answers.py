"""HTTP as plain values, what a request is, and how an answer's bytes become JSON.  Pure.

Nothing here knows a verb or a model.  A request value says how it goes out (`to_http`) and what comes back means
(`parse`); between the two stands `_transport`, which only moves bytes.  What an answer means is judged in `_verdict`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from ..errors import UnexpectedAnswer

if TYPE_CHECKING:
    from .family import Family  # noqa: F401 - ruff does not look into the quoted base class
from .._text import excerpt

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer that are read at most; no honest answer comes near."""


# -- bytes to JSON ------------------------------------------------------------------------------------------------

# It begins with a plain word, and so is found a hundred times faster than the whole.
_FILLED = re.compile(rb'secret"\s*+:\s*+"(?!")')
_SECRET = re.compile(rb'("(?:webhook_)?secret"\s*+:\s*+)"(?!")[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def blank_secrets(body: bytes) -> bytes:
    """Give the body with every webhook's secret emptied: the host echoes the whole request to whoever asks.

    It is `webhook_secret` in the legacy protocol, `secret` of a `webhook_config` in the unified one.
    """
    if _FILLED.search(body) is None:
        return body  # the usual answer; `sub` alone would copy it
    return _SECRET.sub(rb'\1""', body)


def read_object(body: bytes) -> dict[str, Any]:
    """Give the JSON object in `body`, webhook secrets blanked; raise `UnexpectedAnswer` for anything else."""
    body = blank_secrets(body)
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnexpectedAnswer(
            f"The answer is not JSON ({error}); it begins: {excerpt(body) or 'nothing, it is empty'}",
            excerpt=excerpt(body),
        ) from None
    if type(data) is dict:
        return data
    text = excerpt(body)
    raise UnexpectedAnswer(f"The answer is not a JSON object but {text}", excerpt=text)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a `Retry-After` header asks for (RFC 9110 §10.2.3), None for nonsense, 0 for the past.

    An HTTP date is measured from the answer's own `Date`, so that a wrong clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds()
        except (ValueError, TypeError, OverflowError):  # unreadable, or one with and one without a zone
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
