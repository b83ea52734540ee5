"""HTTP as plain values, what a request is, and how an answer's bytes become JSON.  Pure.

Nothing here knows a verb or a model.  A request value says how it goes out (`to_http`) and what comes back means
(`parse`); between the two stands `_transport`, which only moves bytes.  What an answer means is judged in `_verdict`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs
import orjson
from attrs import field, frozen

from ..errors import UnexpectedAnswer

if TYPE_CHECKING:
    from ..tasks import Created, Family, TaskId  # noqa: F401 - ruff does not look into the quoted base class

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer that are read at most; no honest answer comes near."""

_NO_HEADERS: Mapping[str, str] = {}

A_co = TypeVar("A_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


@frozen(slots=False)  # made for every call: into a dict that costs less
class HTTPRequest:
    """One request: `path` is absolute, with its query if any; `body` is sent as it stands (JSON when not empty)."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)  # may hold a webhook secret
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)


@frozen
class HTTPResponse:
    """One answer, unjudged: `headers` are looked up in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)  # a host may echo the key there


class Request(Protocol[A_co]):
    """Anything the client can send, and what its answer means."""

    def to_http(self) -> HTTPRequest:
        """Give the request as it goes out, without the key."""
        ...

    def parse(self, response: HTTPResponse, /) -> A_co:
        """Give what the answer means; raise `APIError` (refused) or `UnexpectedAnswer` (not understood)."""
        ...


class TaskRequest(Request["TaskId | Created"], Protocol[R_co]):
    """A request that makes a task, and costs money; its tasks belong to `family` and end in an `R_co`.

    Its `parse` returns the new task's id, or a `Created` if the answer tells its price too.  Whatever it raises
    instead, what that means for the money is judged by the answer itself, not by the error.
    """

    @property
    def family(self) -> Family[R_co]:
        """How the tasks it makes are read and cancelled."""
        ...


class Attaching(Protocol):
    """A request that may hold files which are here, and must be uploaded before it can be sent."""

    def local_files(self) -> Sequence[PurePath]:
        """Give these files, each once."""
        ...

    def with_links(self, links: Mapping[PurePath, str], /) -> Self:
        """Give the request with links in the place of its files."""
        ...


def post(path: str, body: object) -> HTTPRequest:
    """Give a POST of `body` as JSON."""
    return HTTPRequest("POST", path, orjson.dumps(body))


def label(request: Request[Any]) -> str:
    """Name a request in an error text by its class and first field, if that is set: ``Reroll('6886fc4d-…')``."""
    cls = type(request)
    if not attrs.has(cls):
        return cls.__name__
    subject = next((getattr(request, f.name) for f in attrs.fields(cls) if f.init and not f.kw_only), "")
    if subject is None:
        return f"{cls.__name__}()"
    if not isinstance(subject, str):
        subject = ", ".join(subject) if isinstance(subject, (tuple, list)) else str(subject)
    return f"{cls.__name__}({shorten(subject, 60)!r})"


def shorten(text: str, length: int = 300) -> str:
    """Cut a text to about `length` characters, on one line, for people to read."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def excerpt(body: bytes) -> str:
    """Give the beginning of an answer, for people to read."""
    return shorten(body[:1200].decode("utf-8", "replace"))


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
