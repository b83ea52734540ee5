"""HTTP as plain values, what a request is, and how an answer becomes data or the right error.  Pure.

Nothing here knows a verb or a model.  A request value says how it goes out (`to_http`) and what comes back means
(`parse`); between the two stands `_transport`, which only moves bytes.  Judging an answer is a table (`_REFUSALS`) and
small functions, so that every error path is tested without a server.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import attrs
import orjson
from attrs import field, frozen

from .errors import (
    APIError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    ServerError,
    TransportError,
    UnexpectedAnswer,
)

if TYPE_CHECKING:
    from .tasks import Family, TaskId  # noqa: F401 - ruff does not look into the quoted base class

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
    body: bytes = b""
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)


@frozen
class HTTPResponse:
    """One answer, unjudged: `headers` are looked up in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = _NO_HEADERS


class Request(Protocol[A_co]):
    """Anything the client can send, and what its answer means."""

    def to_http(self) -> HTTPRequest:
        """Give the request as it goes out, without the key."""
        ...

    def parse(self, response: HTTPResponse, /) -> A_co:
        """Give what the answer means; raise `APIError` (refused) or `UnexpectedAnswer` (not understood)."""
        ...


class TaskRequest(Request["TaskId"], Protocol[R_co]):
    """A request that makes a task, and costs money; its tasks belong to `family` and end in an `R_co`."""

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
    """Name a request in an error text by its class and first field: ``Reroll('6886fc4d-…')``."""
    cls = type(request)
    if not attrs.has(cls):
        return cls.__name__
    subject = next((getattr(request, f.name) for f in attrs.fields(cls) if f.init and not f.kw_only), "")
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


def is_loopback(host: str) -> bool:
    """Tell whether a host name means this machine, without asking any resolver."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


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


def read_answer(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Give the JSON object of a good answer; raise the right `APIError` or `UnexpectedAnswer` for any other."""
    if 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own classes
        return read_object(response.body)
    raise refusal(response, request)


# -- refusals -----------------------------------------------------------------------------------------------------

_BUSY = re.compile(r"no available bot|bot is inactive|overloaded|rate limit|too many requests", re.IGNORECASE)
_BANNED = re.compile(r"banned|sensitive word", re.IGNORECASE)
_TIME_OUT = re.compile(r"tim(?:e|ed|ing)[\s_-]?out|deadline exceeded", re.IGNORECASE)
_OUTDATED = re.compile(r"parent task is outdated", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|not exist|no such task", re.IGNORECASE)
_ANY = re.compile("")

_CLIENT_FAULT = range(400, 500)

# The first row that fits (status, text) names the error and what the reader can do.  The texts were observed on the
# legacy hosts; which of them a host uses is not documented.
_REFUSALS: tuple[tuple[range | frozenset[int], re.Pattern[str], type[APIError], str], ...] = (
    (frozenset({400, 422}), _BANNED, InvalidRequestError, ""),  # it may quote any word of the prompt
    (frozenset({403}), _BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({401, 403}), _ANY, AuthenticationError, "Check the API key and what its plan allows."),
    (frozenset({408}), _ANY, APIError, ""),
    (frozenset({429}), _ANY, RateLimitError, "Slow down, or set rate_limit=(requests, seconds)."),
    (_CLIENT_FAULT, _OUTDATED, ParentOutdatedError, "Submit the parent's Imagine anew and derive from that task."),
    (_CLIENT_FAULT, _BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({404, 410}), _ANY, NotFoundError, "Check the task id and the host."),
    (frozenset({200, 400, 422}), _NOT_FOUND, NotFoundError, "Check the task id and the host."),
    (frozenset({400, 422}), _ANY, InvalidRequestError, ""),
    (
        range(300, 400),
        _ANY,
        APIError,
        "Redirects are not followed, so that the key goes to one host only; set base_url.",
    ),
    (range(500, 600), _ANY, ServerError, ""),
)


def refusal(
    response: HTTPResponse, request: Request[Any], *, message: str | None = None, makes_task: bool = False
) -> APIError:
    """Give the error for an answer that refuses.

    `message` is the server's text where the caller has read it already; `makes_task` says that money was at stake.
    """
    text = _refusal_text(response.body) if message is None else message
    body = excerpt(blank_secrets(response.body))
    cls, advice = next(
        (
            (cls, advice)
            for statuses, pattern, cls, advice in _REFUSALS
            if response.status in statuses and pattern.search(text)
        ),
        (APIError, ""),
    )
    said = f": {shorten(text)}" if text else f"; the body begins: {body}" if body else ""
    how = "was refused" if text or (response.status < 500 and response.status != 408) else "was answered with an error"  # noqa: PLR2004 - HTTP's own
    sentence = f"{label(request)} {how}: HTTP {response.status}{said}."
    details: dict[str, Any] = {"status": response.status, "message": text, "body": body, "request": request}
    if cls is RateLimitError:
        details["retry_after"] = read_retry_after(response.headers)
    error = cls(" ".join(filter(None, (sentence, advice))), **details)
    if makes_task and judge_submit(error) is not Verdict.UNKNOWN and not _TIME_OUT.search(text):
        sentence += _price(response)
        error = cls(" ".join(filter(None, (sentence, advice))), **details)
    return error


def _price(response: HTTPResponse) -> str:
    """Say what a refused create has cost, as far as the answer lets one be sure."""
    try:
        data = read_object(response.body)
    except UnexpectedAnswer:
        data = {}
    inner = data.get("data")
    named = [place.get("task_id") for place in (data, inner) if isinstance(place, dict)]
    if task_id := next((found for found in named if isinstance(found, str) and found.strip()), ""):
        return f" Yet it names a task, {task_id.strip()}: look at that one before you submit again."
    # A gateway has messages of its own, for requests that the host behind it may have accepted.
    if response.status > 500 and not says_failed(data) and "code" not in data:  # noqa: PLR2004 - HTTP's own
        return " If a gateway said so, and not the host itself, a task may exist all the same."
    return " No task was made, nothing was paid."


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Give the seconds a `Retry-After` header asks for (RFC 9110 §10.2.3), None for nonsense, 0 for the past.

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


def _refusal_text(body: bytes) -> str:
    """Give the server's own words, or "" when the body is not one of PiAPI's refusals (a proxy's page, say).

    A refusal is a JSON object with a `message`, or one that says `"status": "failed"` without giving a reason.
    """
    try:
        data = read_object(body)
    except UnexpectedAnswer:
        return ""
    message = data.get("message")
    if isinstance(message, str) and message.strip():
        return message.strip()
    return "failed" if str(data.get("status")).lower() == "failed" else ""


def says_failed(data: Mapping[str, Any]) -> bool:
    """Tell whether an answer's own status word (or a 2023 host's `success` flag) says that it was refused."""
    status = data.get("status")
    return (isinstance(status, str) and status.lower() in {"failed", "error"}) or data.get("success") is False


class Verdict(Enum):
    """What to do after a call that did not succeed."""

    RETRY = "nothing happened; the same call may be made again"
    RAISE = "the answer is no"
    UNKNOWN = "a task may have been made: never repeat by guess"


def judge_submit(error: PiAPIError) -> Verdict:
    """Decide what a failed submit means for the money.

    Only what certainly made no task is repeated.  A 5xx is a refusal only in PiAPI's own words, for an edge proxy
    answers 502 or 504 for a request that the host behind it has accepted.
    """
    match error:
        case TransportError(sent=False) | RateLimitError():
            return Verdict.RETRY
        case TransportError() | UnexpectedAnswer() | APIError(status=408):
            return Verdict.UNKNOWN
        case ServerError(message=message):
            timed_out = _TIME_OUT.search(message) or (message == "failed" and _TIME_OUT.search(error.body))
            return Verdict.RAISE if message and not timed_out else Verdict.UNKNOWN
        case APIError(status=status) if not 200 <= status < 500:  # noqa: PLR2004 - a status that says nothing
            return Verdict.UNKNOWN
    return Verdict.RAISE


def judge_read(error: PiAPIError) -> Verdict:
    """Decide whether a failed read is worth another try: reading twice costs nothing.

    A status without the host's own words (`message` is "") is an edge's, whatever it is, and passes.
    """
    match error:
        case TransportError() | RateLimitError() | ServerError() | UnexpectedAnswer() | APIError(status=408):
            return Verdict.RETRY
        case APIError(message=""):
            return Verdict.RETRY
    return Verdict.RAISE


def judge_multi_fetch(error: PiAPIError) -> Verdict:
    """Decide as `judge_read`, except for what says that the host has no multi-fetch: one learns from that."""
    match error:
        case UnexpectedAnswer() | APIError(status=404 | 405 | 501):
            return Verdict.RAISE
    return judge_read(error)
