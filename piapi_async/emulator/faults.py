"""What can go wrong, as values, and when it does.  Pure: the server carries it out.

    emulator.fail("reroll", Drop(after_body=True), times=1)

Routes are the verbs ("reroll", "upscale" ...), "fetch", "multi_fetch", "cancel", "image"; of the unified protocol
"task_create", "task_read", "task_cancel", "tasks_cancel" and "file"; and the others in `_routes`.  "create", "read",
"cancel" and "download" are any that do so, in whichever protocol, and "*" is any at all.  Seconds of faults are seconds
of the event loop, not sped up: they are held against a client's time-outs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import attrs
import orjson
from attrs import Factory, define, field, frozen
from attrs.validators import ge, gt, in_, instance_of, optional

from piapi_async._http import HTTPResponse

from ._api import odd_shapes as shapes
from ._api.routes import KNOWN_ROUTES, names_of
from ._service.tasks import Fate

_NUMBER: Any = instance_of((int, float))
_SECONDS: Any = [_NUMBER, ge(0)]
#: Longer strings of digits stay strings: they would not fit 64 bits.
_DIGITS = 18
_FLAG = instance_of(bool)


@frozen(kw_only=True)
class Drop:
    """The connection is reset: before the body is read, after it, or in the middle of the answer.

    After the body it is open whether a task was made: `made` decides (default True, the case that costs money).
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

    Idle connections are closed in the next turn of the loop, busy ones after their answer.
    The nth request of its route is the first that would find the port closed; with nth=1 it closes at once.
    """

    seconds: float = field(default=1.0, validator=_SECONDS)


#: What an edge in front of the service answers in place of it.
_EDGE = "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"
_PHRASES = {
    408: "Request Time-out",
    502: "Bad Gateway",
    503: "Service Temporarily Unavailable",
    504: "Gateway Time-out",
}
_MESSAGES = {400: "invalid request", 401: "Invalid API key", 429: "too many requests", 500: "failed to make a task"}


@frozen
class Status:
    """An HTTP status other than the true one.

    `body`: text, an object (sent as JSON), "" for none; by default PiAPI's refusal, or an edge's HTML for 408 and 502
    to 504.  `made` says whether a task was made all the same.
    """

    status: int = field(validator=[instance_of(int), ge(200)])
    retry_after: float | str | None = field(
        default=None, kw_only=True, validator=optional(instance_of((int, float, str)))
    )
    body: str | Mapping[str, Any] | None = field(
        default=None, kw_only=True, validator=optional(instance_of((str, Mapping)))
    )
    made: bool = field(default=False, kw_only=True, validator=_FLAG)

    def answer(self, refuse: Callable[[int, str], Mapping[str, object]]) -> HTTPResponse:
        """Return the answer to be sent; `refuse` gives the body that the protocol has for a status and a text."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        if isinstance(self.body, str) or (self.body is None and self.status in _PHRASES):
            text = _EDGE.format(f"{self.status} {_PHRASES[self.status]}") if self.body is None else self.body
            return HTTPResponse(self.status, str(text).encode(), {**headers, "content-type": "text/html"})
        message = _MESSAGES.get(self.status, f"status {self.status}")
        body = refuse(self.status, message) if self.body is None else self.body
        return HTTPResponse(self.status, orjson.dumps(dict(body)), {**headers, "content-type": "application/json"})


@frozen
class EdgePage:
    """A page of an edge in front of the service, in HTML: a bot check (403), a captive portal (511), 502 to 530.

    `made` says whether a task was made all the same.
    """

    status: int = field(default=403, validator=[instance_of(int), ge(400)])
    made: bool = field(default=False, kw_only=True, validator=_FLAG)

    def answer(self, _refuse: Callable[[int, str], Mapping[str, object]]) -> HTTPResponse:
        """Return the page."""
        return shapes.edge_page(self.status)


@frozen
class Unclear:
    """A create is answered in a shape that does not say plainly whether a task was made: one of `_shapes.UNCLEAR`.

    Without an id, or with one in an odd place; busy or failed, and yet naming a task; a stock phrase of a gateway.
    `made` says whether a task was made; where none was, one that nobody knows is named.  What the service refuses by
    itself stays refused.
    """

    shape: str = field(validator=in_(shapes.UNCLEAR))
    made: bool = field(default=True, kw_only=True, validator=_FLAG)

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer to an accepted create in this shape."""
        task_id = _id_in(answer)
        if not task_id:
            return answer
        status, body = shapes.UNCLEAR[self.shape](task_id)
        headers = dict(shapes.JSON_TYPE)
        if self.shape == "see_other":
            headers["location"] = f"/api/v1/task/{task_id}"
        return HTTPResponse(status, orjson.dumps(body), headers)

    def answer(self, _refuse: Callable[[int, str], Mapping[str, object]]) -> HTTPResponse:
        """Return the answer where no task was made."""
        return self.spoil(HTTPResponse(200, orjson.dumps({"task_id": _NOBODYS})))


#: The id of no task.
_NOBODYS = "00000000-0000-4000-8000-000000000000"


def _id_in(answer: HTTPResponse) -> str:
    """Return the id of the task that an accepted create made, "" where it was refused."""
    body = orjson.loads(answer.body)
    places = (body, body.get("data"))
    found = next((place["task_id"] for place in places if isinstance(place, dict) and place.get("task_id")), "")
    return str(found) if answer.status < 300 else ""  # noqa: PLR2004 - HTTP's own


@frozen
class SlowFirstByte:
    """The request is served, the answer starts `seconds` later."""

    seconds: float = field(validator=_SECONDS)


@frozen
class SlowBody:
    """The headers come at once, the body in `pieces` over `seconds`."""

    seconds: float = field(validator=_SECONDS)
    pieces: int = field(default=10, validator=[instance_of(int), gt(0)])


@frozen
class Truncated:
    """A whole HTTP answer whose JSON stops after the share `keep` (0..1)."""

    keep: float = field(default=0.5, validator=[_NUMBER, ge(0)])

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with its body cut."""
        return attrs.evolve(answer, body=answer.body[: int(len(answer.body) * self.keep)])


@frozen
class WrongTypes:
    """Numbers arrive as strings and strings of digits as numbers; when `broken`, objects inside arrive as lists too."""

    broken: bool = field(default=False, validator=_FLAG)

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with the types of its JSON changed."""
        return attrs.evolve(answer, body=orjson.dumps(self._turn(orjson.loads(answer.body), depth=0)))

    def _turn(self, value: object, *, depth: int) -> object:
        if isinstance(value, dict):
            turned = {name: self._turn(item, depth=depth + 1) for name, item in value.items()}
            return [turned] if self.broken and depth else turned
        if isinstance(value, list):
            return [self._turn(item, depth=depth + 1) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return (
            int(value)
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS
            else value
        )


@frozen
class UnknownStatus:
    """Every `status` in the answer is this word."""

    word: str = field(default="starting", validator=instance_of(str))

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with the word in place."""
        body = re.sub(rb'"status":"[^"]*"', b'"status":' + orjson.dumps(self.word).replace(b"\\", b"\\\\"), answer.body)
        return attrs.evolve(answer, body=body)


@frozen
class LinksAs:
    """The links of results stand in another shape: wrapped ("url", "href", "image_url", "list"), or the whole replaced.

    "odd_key": `{"resultUrl": link}`; "deep": `{"data": {"uri": link}}`; "bare": the link; "bare_list": all of them.
    """

    shape: str = field(default="url", validator=in_((*shapes.WRAPPED, *shapes.REPLACED)))

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with its links in that shape."""
        return _rewritten(answer, lambda value: shapes.with_links(value, self.shape))


@frozen
class NoFiles:
    """Results that would have links are null, or empty objects with `empty`."""

    empty: bool = field(default=False, validator=_FLAG)

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer without links."""
        result: object = {} if self.empty else None
        return _rewritten(answer, lambda value: shapes.without_files(value, result))


@frozen
class ReasonsAs:
    """The reason of a failed task has another shape ("text", "objects", "object", "nested", "number") or place.

    Places: "message", beside the result; "detail", of the error; "logs", the last of them, under a general message.
    """

    shape: str = field(default="objects", validator=in_((*shapes.REASONS, *shapes.ELSEWHERE)))

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with its reasons so."""
        return _rewritten(answer, lambda value: shapes.with_reasons(value, self.shape))


@frozen
class EntriesAs:
    """The entries of a multi-fetch cannot be read as tasks.

    They are under one another's ids ("swapped"), or are "no_status", "enveloped", "text", "list_result".
    """

    shape: str = field(default=shapes.SWAPPED, validator=in_((shapes.SWAPPED, *shapes.ENTRIES)))

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer with its entries so; what is no multi-fetch stays as it is."""
        return _rewritten(answer, lambda value: shapes.with_entries(value, self.shape))


def _rewritten(answer: HTTPResponse, turn: Callable[[object], object]) -> HTTPResponse:
    """Return an answer with its JSON changed; a picture stays as it is."""
    if answer.headers.get("content-type") != "application/json":
        return answer
    return attrs.evolve(answer, body=orjson.dumps(turn(orjson.loads(answer.body))))


@frozen
class Huge:
    """The answer carries `bytes` more bytes in a field nobody knows."""

    bytes: int = field(default=32 * 2**20, validator=[instance_of(int), gt(0)])

    def spoil(self, answer: HTTPResponse) -> HTTPResponse:
        """Return the answer, grown."""
        padding = b"x" * self.bytes
        if answer.body.startswith(b"{") and answer.body != b"{}":
            return attrs.evolve(answer, body=b'{"padding":"' + padding + b'",' + answer.body[1:])
        return attrs.evolve(answer, body=answer.body + padding)


@frozen
class StaleKeepAlive:
    """The answer promises to keep the connection; it is closed `seconds` later all the same."""

    seconds: float = field(default=0.0, validator=_SECONDS)


@frozen
class Unasked:
    """The answer is followed, `seconds` later on the kept connection, by one that nobody asked for.

    It is the same once more, or, unless `again`, the 408 with which balancers close connections that were idle.
    """

    seconds: float = field(default=0.05, validator=_SECONDS)
    again: bool = field(default=True, validator=_FLAG)


@frozen
class TaskFails:
    """Not a fault of the wire: the task is accepted and ends `failed` with this text."""

    message: str = field(default="the job was stopped by Midjourney", validator=instance_of(str))

    @property
    def fate(self) -> Fate:
        """What the task is bound to."""
        return Fate(fails=self.message)


@frozen
class TaskRetries:
    """Not a fault of the wire: the service retries the task inside, so many times."""

    retries: int = field(default=1, validator=[instance_of(int), ge(0)])

    @property
    def fate(self) -> Fate:
        """What the task is bound to."""
        return Fate(retries=self.retries)


@frozen
class TaskTakes:
    """Not a fault at all: the task takes so many emulated seconds."""

    seconds: float = field(validator=[_NUMBER, gt(0)])

    @property
    def fate(self) -> Fate:
        """What the task is bound to."""
        return Fate(seconds=float(self.seconds))


Spoiler = Truncated | WrongTypes | UnknownStatus | Huge | LinksAs | NoFiles | ReasonsAs | EntriesAs
Fateful = TaskFails | TaskRetries | TaskTakes
Mishap = Drop | Status | EdgePage | Unclear | SlowFirstByte | SlowBody | StaleKeepAlive | Unasked | Spoiler
Fault = Mishap | Refuse | Fateful

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


@define
class Rule:
    """One fault and its requests: from the `nth` of the route on, `times` of them (None = all), each by a `rate`."""

    route: str
    fault: Fault
    nth: int = 1
    times: int | None = 1
    rate: float | None = None
    met: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if self.route not in KNOWN_ROUTES:
            raise ValueError(f"unknown route {self.route!r}; known: {', '.join(sorted(KNOWN_ROUTES))}")
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError(f"nth and times count from 1: nth={self.nth}, times={self.times}")
        if self.rate is not None and not 0 <= self.rate <= 1:
            raise ValueError(f"rate must lie in 0..1: {self.rate}")

    def matches(self, route: str) -> bool:
        """Say whether this rule speaks of that route."""
        return self.route in names_of(route)

    def fires(self, rng: Random, *, ahead: int = 0) -> bool:
        """Count one request (or, `ahead` of one, none) and say whether it is hit."""
        self.met += 1 - ahead
        if self.met + ahead < self.nth or (self.times is not None and self.fired >= self.times):
            return False
        if self.rate is not None and rng.random() >= self.rate:
            return False
        self.fired += 1
        return True


@define
class Schedule:
    """All rules, in order: a request hit by one rule is not counted by those after it."""

    rng: Random
    rules: list[Rule] = Factory(list)

    def mishap(self, route: str) -> Mishap | None:
        """Return what befalls the next request of a route."""
        found: Mishap | None = self._next(route, Mishap)
        return found

    def fate(self, route: str) -> Fate | None:
        """Return what the task of the next create is bound to."""
        fault = self._next(route, Fateful)
        return None if fault is None else fault.fate

    def outage(self) -> Refuse | None:
        """Return the refusal whose turn has come: it takes effect before the next request."""
        for rule in self.rules:
            if isinstance(rule.fault, Refuse) and rule.fires(self.rng, ahead=1):
                return rule.fault
        return None

    def passed(self, route: str) -> None:
        """Count a request for the refusals."""
        for rule in self.rules:
            if isinstance(rule.fault, Refuse) and rule.matches(route):
                rule.met += 1

    def _next(self, route: str, kinds: Any) -> Any:  # noqa: ANN401 - a union of classes, and a member of it
        for rule in self.rules:
            if isinstance(rule.fault, kinds) and rule.matches(route) and rule.fires(self.rng):
                return rule.fault
        return None


def load_faults(path: str | Path) -> tuple[Rule, ...]:
    """Read rules from a TOML file of `[[fault]]` tables; `ValueError` names file, table and field.

    Each has `route`, `kind` and the kind's own fields, besides `nth`, `times` (default 1, or all with a rate), `rate`:

        [[fault]]
        route = "reroll"
        kind = "drop"
        after_body = true
    """
    try:
        tables = tomllib.loads(Path(path).read_text("utf-8")).get("fault", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: faults are written as [[fault]] tables")
    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(_rule(dict(table)))
        except (TypeError, ValueError) as error:
            reason = error.args[0] if error.args else error
            raise ValueError(f"{path}: fault {number}: {reason}") from error
    return tuple(rules)


def _rule(table: dict[str, Any]) -> Rule:
    route, kind = table.pop("route", "*"), table.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}")
    when = {name: table.pop(name) for name in ("nth", "times", "rate") if name in table}
    names = {attribute.name for attribute in attrs.fields(KINDS[kind])}
    if unknown := sorted(table.keys() - names):
        raise ValueError(f"{kind} has no field {unknown[0]!r}; it has: {', '.join(sorted(names)) or 'none'}")
    if when.get("rate") is not None:
        when.setdefault("times", None)
    return Rule(route, KINDS[kind](**table), **when)
