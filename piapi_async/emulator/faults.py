"""What can go wrong, as values.  Pure: the server carries it out.

    emulator.fail("reroll", Drop(after_body=True), times=1)

Routes are the verbs ("reroll", "upscale" …), "fetch", "multi_fetch", "cancel", "image"; of the
unified protocol "task_create", "task_read", "task_cancel", "tasks_cancel" and "file"; and the
others in `_api/routes`.  "create", "read", "cancel" and "download" are all routes of that purpose,
in whichever protocol, and "*" is every route.  Seconds of faults are seconds of the event loop, not
sped up: they are meant for a client's time-outs.

A fault is one of four kinds.  A `ResponseFault` changes the response (`apply`).  Another
`WireFault` concerns the connection, or sends a response of its own (`response`).  A `TaskFault`
decides how the task goes (`script`).  `Refuse` closes the port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import orjson
from attrs import field, frozen
from attrs.validators import ge, gt, in_, instance_of, optional

from piapi_async._http import HTTPResponse

from ._api import odd_shapes
from ._service.tasks import Script

_NUMBER: Any = instance_of((int, float))
_SECONDS: Any = [_NUMBER, ge(0)]
_FLAG = instance_of(bool)
#: Longer strings of digits stay strings: they would not fit 64 bits.
_DIGITS = 18

#: Returns the body that a protocol has for a refusal, given status and message.
RefusalBody = Callable[[int, str], Mapping[str, object]]


# -- connections --------------------------------------------------------------------------------


@frozen(kw_only=True)
class Drop:
    """The connection is reset: before the body is read, after it, or in the middle of the response.

    After the body it is open whether a task was made: `made` decides (default True, the case that
    costs money).
    """

    before_body: bool = field(default=False, validator=_FLAG)
    after_body: bool = field(default=False, validator=_FLAG)
    inside_answer: bool = field(default=False, validator=_FLAG)
    made: bool | None = field(default=None, validator=optional(_FLAG))

    def __attrs_post_init__(self) -> None:
        if self.before_body + self.after_body + self.inside_answer != 1:
            raise ValueError("exactly one of before_body, after_body, inside_answer must be true")
        if self.before_body and self.made:
            raise ValueError("made cannot be true before the body is read")
        if self.inside_answer and self.made is False:
            raise ValueError("made cannot be false inside the answer")


@frozen
class Refuse:
    """The port is closed for so many seconds, as if the service were down: connecting is refused.

    Idle connections are closed in the next turn of the loop, busy ones after their response. The
    nth request of its route is the first that would find the port closed; with nth=1 it closes at
    once.
    """

    seconds: float = field(default=1.0, validator=_SECONDS)


@frozen
class SlowFirstByte:
    """The request is served, and the response starts `seconds` later."""

    seconds: float = field(validator=_SECONDS)


@frozen
class SlowBody:
    """The headers come at once, the body in `pieces` over `seconds`."""

    seconds: float = field(validator=_SECONDS)
    pieces: int = field(default=10, validator=[instance_of(int), gt(0)])


@frozen
class StaleKeepAlive:
    """The response promises to keep the connection, which is closed `seconds` later all the same."""

    seconds: float = field(default=0.0, validator=_SECONDS)


@frozen
class Unasked:
    """The response is followed, `seconds` later on the kept connection, by another that was not asked for.

    It is the same once more or, unless `again`, the 408 with which load balancers close idle
    connections.
    """

    seconds: float = field(default=0.05, validator=_SECONDS)
    again: bool = field(default=True, validator=_FLAG)


# -- responses in place of the service's --------------------------------------------------------

#: Statuses that an edge in front of the service sends, with its phrases.
_PHRASES = {
    408: "Request Time-out",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
_MESSAGES = {
    400: "invalid request",
    401: "Invalid API key",
    429: "too many requests",
    500: "failed to make a task",
}


@frozen
class Status:
    """An HTTP status other than the true one.

    `body`: a string, a dict (sent as JSON), "" for an empty one; by default PiAPI's refusal, or an
    edge's HTML for 408 and 502 to 504.  `made`: whether a task was made all the same.
    """

    status: int = field(validator=[instance_of(int), ge(200)])
    retry_after: float | str | None = field(
        default=None,
        kw_only=True,
        validator=optional(instance_of((int, float, str))),
    )
    body: str | Mapping[str, Any] | None = field(
        default=None,
        kw_only=True,
        validator=optional(instance_of((str, Mapping))),
    )
    made: bool = field(default=False, kw_only=True, validator=_FLAG)

    def response(self, refusal_body: RefusalBody) -> HTTPResponse:
        """Return the response to be sent."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}

        text = self._text()
        if text is not None:
            return HTTPResponse(self.status, text.encode(), {**headers, "content-type": "text/html"})

        message = _MESSAGES.get(self.status, f"status {self.status}")
        body = refusal_body(self.status, message) if self.body is None else self.body
        content = orjson.dumps(dict(body))  # type: ignore[arg-type]
        return HTTPResponse(self.status, content, {**headers, "content-type": "application/json"})

    def _text(self) -> str | None:
        """Return the body if it is text, None if it is JSON."""
        if isinstance(self.body, str):
            return self.body
        if self.body is None and self.status in _PHRASES:
            return odd_shapes.error_page(f"{self.status} {_PHRASES[self.status]}")
        return None


@frozen
class EdgePage:
    """An HTML page of an edge in front of the service: a bot check (403), a captive portal (511), 502 to 530.

    `made`: whether a task was made all the same.
    """

    status: int = field(default=403, validator=[instance_of(int), ge(400)])
    made: bool = field(default=False, kw_only=True, validator=_FLAG)

    def response(self, _refusal_body: RefusalBody) -> HTTPResponse:
        """Return the page."""
        return odd_shapes.edge_page(self.status)


@frozen
class Unclear:
    """The response to a create does not say plainly whether a task was made.

    `shape` is one of `_api/odd_shapes.UNCLEAR`.
    Without an id, or with one in an odd place; busy or failed, and yet naming a task; a stock
    phrase of a gateway. `made`: whether a task was made; if not, an id of no task is named.  What
    the service itself refuses stays refused.
    """

    shape: str = field(validator=in_(odd_shapes.UNCLEAR))
    made: bool = field(default=True, kw_only=True, validator=_FLAG)

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response to an accepted create in this shape."""
        task_id = _created_id(response)
        if not task_id:
            return response

        status, body = odd_shapes.UNCLEAR[self.shape](task_id)
        headers = dict(odd_shapes.JSON_TYPE)
        if self.shape == "see_other":
            headers["location"] = f"/api/v1/task/{task_id}"
        return HTTPResponse(status, orjson.dumps(body), headers)

    def response(self, _refusal_body: RefusalBody) -> HTTPResponse:
        """Return the response if no task was made."""
        return self.apply(HTTPResponse(200, orjson.dumps({"task_id": _NO_TASK})))


#: The id of no task.
_NO_TASK = "00000000-0000-4000-8000-000000000000"


def _created_id(response: HTTPResponse) -> str:
    """Return the id of the task that an accepted create made, "" if it was refused."""
    if response.status >= 300:  # noqa: PLR2004 - HTTP's own
        return ""

    body = orjson.loads(response.body)
    for place in (body, body.get("data")):
        for name in ("task_id", "job_id"):
            if isinstance(place, dict) and place.get(name):
                return str(place[name])
    return ""


# -- changes of the response --------------------------------------------------------------------


@frozen
class Truncated:
    """A whole HTTP response whose JSON stops after the share `keep` (0..1)."""

    keep: float = field(default=0.5, validator=[_NUMBER, ge(0)])

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response with its body cut."""
        kept = int(len(response.body) * self.keep)
        return attrs.evolve(response, body=response.body[:kept])


@frozen
class WrongTypes:
    """Numbers are strings and strings of digits numbers; if `broken`, inner objects are lists, too."""

    broken: bool = field(default=False, validator=_FLAG)

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response with the types of its JSON changed."""
        body = self._turn(orjson.loads(response.body), depth=0)
        return attrs.evolve(response, body=orjson.dumps(body))

    def _turn(self, value: object, *, depth: int) -> object:
        if isinstance(value, dict):
            turned = {name: self._turn(item, depth=depth + 1) for name, item in value.items()}
            if self.broken and depth:
                return [turned]
            return turned

        if isinstance(value, list):
            return [self._turn(item, depth=depth + 1) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
            return int(value)
        return value


@frozen
class UnknownStatus:
    """Every `status` in the response is this word."""

    word: str = field(default="starting", validator=instance_of(str))

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response with the word in place."""
        word = orjson.dumps(self.word).replace(b"\\", b"\\\\")
        body = re.sub(rb'"status":"[^"]*"', b'"status":' + word, response.body)
        return attrs.evolve(response, body=body)


@frozen
class LinksAs:
    """Links of results have another shape, or the whole result is replaced.

    The link wrapped: "url", "href", "image_url", "list".  In place of the result:
    "odd_key": `{"resultUrl": link}`; "deep": `{"data": {"uri": link}}`; "bare": the link;
    "bare_list": all of them.
    """

    shape: str = field(default="url", validator=in_((*odd_shapes.WRAPPED, *odd_shapes.REPLACED)))

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response with its links in that shape."""
        return _with_json(response, lambda value: odd_shapes.with_links(value, self.shape))


@frozen
class NoFiles:
    """Results that would have links are null, or empty objects with `empty`."""

    empty: bool = field(default=False, validator=_FLAG)

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response without links."""
        result: object = {} if self.empty else None
        return _with_json(response, lambda value: odd_shapes.without_files(value, result))


@frozen
class ReasonsAs:
    """The reason of a failed task has another shape or place.

    Shapes: "text", "objects", "object", "nested", "number".
    Places: "message", beside the result; "detail", of the error; "logs", the last of them, under a
    general message.
    """

    shape: str = field(
        default="objects",
        validator=in_((*odd_shapes.REASONS, *odd_shapes.ELSEWHERE)),
    )

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response with its reasons so."""
        return _with_json(response, lambda value: odd_shapes.with_reasons(value, self.shape))


@frozen
class EntriesAs:
    """The entries of a multi-fetch cannot be read as tasks.

    They are under one another's ids ("swapped"), or are "no_status", "enveloped", "text",
    "list_result".
    """

    shape: str = field(
        default=odd_shapes.SWAPPED,
        validator=in_((odd_shapes.SWAPPED, *odd_shapes.ENTRIES)),
    )

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response to a multi-fetch with its entries so; any other stays as it is."""
        return _with_json(response, lambda value: odd_shapes.with_entries(value, self.shape))


def _with_json(response: HTTPResponse, turn: Callable[[object], object]) -> HTTPResponse:
    """Return a response with its JSON changed; a picture stays as it is."""
    if response.headers.get("content-type") != "application/json":
        return response
    return attrs.evolve(response, body=orjson.dumps(turn(orjson.loads(response.body))))


@frozen
class Huge:
    """The response has `bytes` more bytes, in an unknown field if it is JSON."""

    bytes: int = field(default=32 * 2**20, validator=[instance_of(int), gt(0)])

    def apply(self, response: HTTPResponse) -> HTTPResponse:
        """Return the response, grown."""
        padding = b"x" * self.bytes
        if response.body.startswith(b"{") and response.body != b"{}":
            body = b'{"padding":"' + padding + b'",' + response.body[1:]
        else:
            body = response.body + padding
        return attrs.evolve(response, body=body)


# -- tasks --------------------------------------------------------------------------------------


@frozen
class TaskFails:
    """Not a fault of the wire: the task is accepted and ends `failed` with this text."""

    message: str = field(default="the job was stopped by Midjourney", validator=instance_of(str))

    @property
    def script(self) -> Script:
        """How the task goes."""
        return Script(fails=self.message)


@frozen
class TaskRetries:
    """Not a fault of the wire: the service retries the task internally, so many times."""

    retries: int = field(default=1, validator=[instance_of(int), ge(0)])

    @property
    def script(self) -> Script:
        """How the task goes."""
        return Script(retries=self.retries)


@frozen
class TaskTakes:
    """Not a fault at all: the task takes so many emulated seconds."""

    seconds: float = field(validator=[_NUMBER, gt(0)])

    @property
    def script(self) -> Script:
        """How the task goes."""
        return Script(seconds=float(self.seconds))


ResponseFault = Truncated | WrongTypes | UnknownStatus | Huge | LinksAs | NoFiles | ReasonsAs | EntriesAs
TaskFault = TaskFails | TaskRetries | TaskTakes
#: Faults of a request that is served, unless it is told that no task was made.
_ConnectionFault = SlowFirstByte | SlowBody | StaleKeepAlive | Unasked
ServedFault = Status | EdgePage | Unclear | _ConnectionFault | ResponseFault
WireFault = Drop | ServedFault
Fault = WireFault | Refuse | TaskFault

#: The faults by the names that files of faults have for them.
KINDS: Mapping[str, type[Fault]] = {
    "drop": Drop,
    "refuse": Refuse,
    "status": Status,
    "edge_page": EdgePage,
    "unclear": Unclear,
    "slow_first_byte": SlowFirstByte,
    "slow_body": SlowBody,
    "truncated": Truncated,
    "wrong_types": WrongTypes,
    "unknown_status": UnknownStatus,
    "links_as": LinksAs,
    "no_files": NoFiles,
    "reasons_as": ReasonsAs,
    "huge": Huge,
    "entries_as": EntriesAs,
    "stale_keep_alive": StaleKeepAlive,
    "unasked": Unasked,
    "task_fails": TaskFails,
    "task_retries": TaskRetries,
    "task_takes": TaskTakes,
}
