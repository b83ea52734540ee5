"""The rule: what an answer means for the money, and whether the call behind it may be made again.  Pure.

What became of a submission, first match first; the README shows the same table:

| what came | what we do |
|---|---|
| nothing left this machine (refused, DNS, TLS, no connection in time); 521, 523, 525, 526 of an edge | try again |
| a 2xx that names a task and does not say that it failed | accepted |
| any other answer that names a task | read that task once: it lives, it failed, or `SubmissionUnknown` |
| 429; a 4xx in which the host says that it is busy | try again; `Retry-After` holds the whole client |
| a no in the host's own words: a 4xx, a 5xx, a 2xx that says it failed; a 3xx but 303 | raise it: no task was made |
| all else: lost after sending began, 408, 303, an edge's page, a gateway's phrase, a 2xx without a no | unknown |

A no must be said: it is never inferred from the absence of a yes, nor from a status that a proxy, a gateway or a crash
can give by itself.  The one judgement that is made here, a `Judgement`, is what everything else follows from: whether
the submission is sent again, the error and its text, whether the ledger frees the key or keeps it as *unknown*, and the
exit code of the command line (which goes by the error's class).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any

from attrs import frozen

from ._protocol.answers import (
    HTTPResponse,
    Request,
    blank_secrets,
    excerpt,
    label,
    read_object,
    read_retry_after,
    shorten,
)
from ._protocol.reading import read_cost, read_int
from .errors import (
    APIError,
    AuthenticationError,
    InsufficientCreditError,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    PiAPIError,
    RateLimitError,
    ServerError,
    TransportError,
    UnexpectedAnswer,
)
from .tasks import Cost, Created, TaskId, check_task_id


class Verdict(Enum):
    """What to do after a call that did not succeed."""

    RETRY = "nothing happened; the same call may be made again"
    RAISE = "the answer is no"
    NAMED = "the answer names a task, which can be read, and tells"
    UNKNOWN = "a task may have been made: never repeat by guess"


@frozen
class Judgement:
    """What became of an attempt to make a task: the verdict, and the error that says the same.

    `named` is the task that the answer names, where the verdict is `NAMED`.
    """

    verdict: Verdict
    error: PiAPIError
    named: TaskId | None = None


# -- creates ------------------------------------------------------------------------------------------------------


def read_created(response: HTTPResponse, request: Request[Any]) -> TaskId | Created:
    """Return the task that a request has made, with its price if the answer tells; raise what it says instead.

    That is `APIError`, or `UnexpectedAnswer` for a 2xx that is not understood.  All protocols that make tasks are read
    here.
    """
    if _is_good(response.status):
        answer = read_object(response.body)
        task_id = named_task(answer)
        if task_id is not None and not _says_no(answer):
            frozen = _expected_cost(answer)
            return task_id if frozen is None else Created(task_id, frozen)
    raise judge_create(response, request).error


def _expected_cost(answer: Mapping[str, Any]) -> Cost | None:
    """Return what a new task is expected to cost: it is frozen, or taken at once (both were observed)."""
    usage: Any = answer
    for name in ("data", "meta", "usage"):
        usage = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(usage, dict):
        return None
    for amount in (usage.get("frozen"), usage.get("consume")):
        cost = read_cost(amount, usage.get("type")) if amount else None
        if cost is not None and cost.amount:
            return cost
    return None


def judge_create(response: HTTPResponse, request: Request[Any]) -> Judgement:
    """Judge an answer to a create that is not simply the id of a new task."""
    try:
        data = read_object(response.body)
    except UnexpectedAnswer as error:
        if _is_good(response.status):
            return Judgement(Verdict.UNKNOWN, error)
        data = {}
    words = _Words.of(data, request)
    status = _effective_status(response.status, data)
    named = named_task(data)
    verdict = Verdict.NAMED if named is not None else _judge_unnamed(status, words)
    understood = not _is_good(status) or verdict is Verdict.RAISE or _says_no(data)
    if not understood:
        return Judgement(verdict, _not_understood(response, words, named), named)
    return Judgement(verdict, _error(response, request, status, words, verdict), named)


def judge_unanswered(error: PiAPIError) -> Judgement:
    """Judge an attempt to make a task that ended without an answer that could be read to its end."""
    never_sent = isinstance(error, TransportError) and not error.sent
    if never_sent:
        return Judgement(judge_read(error), error)
    if isinstance(error, (TransportError, UnexpectedAnswer)):
        return Judgement(Verdict.UNKNOWN, error)
    return Judgement(Verdict.RAISE, error)


# An edge (Cloudflare's numbers) that could not reach the host: refused, unreachable, no TLS, a wrong certificate.
_NEVER_DELIVERED = frozenset({521, 523, 525, 526})


def _judge_unnamed(status: int, words: _Words) -> Verdict:
    """Judge an answer that names no task for certain."""
    judge = _BY_CLASS.get(status // 100)
    return Verdict.UNKNOWN if judge is None or words.bare_id else judge(status, words)


def _judge_good(_status: int, words: _Words) -> Verdict:
    """Judge a 2xx: it is a no only where the host says so."""
    if words.spoiled:
        return Verdict.UNKNOWN
    says_no = _says_no(words.data) or (words.match(_KNOWN_REFUSAL) and not words.yes)
    return Verdict.RAISE if says_no else Verdict.UNKNOWN


def _judge_redirect(status: int, _words: _Words) -> Verdict:
    """Judge a 3xx: a 303 says where the outcome of what was done can be seen (RFC 9110 §15.4.4)."""
    return Verdict.UNKNOWN if status == HTTPStatus.SEE_OTHER else Verdict.RAISE


def _judge_client_fault(status: int, words: _Words) -> Verdict:
    """Judge a 4xx: it is a no, or "busy", only in the host's own words."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Verdict.RETRY
    if status == HTTPStatus.REQUEST_TIMEOUT:
        return Verdict.UNKNOWN
    if words.banned(status):  # it may quote any word of the prompt
        return Verdict.RAISE
    if not words.own:
        return Verdict.UNKNOWN
    return Verdict.RETRY if words.match(_BUSY) else Verdict.RAISE


def _judge_server_fault(status: int, words: _Words) -> Verdict:
    """Judge a 5xx: an edge answers 502 or 504 for a request that the host behind it has accepted."""
    if not words.own:
        not_delivered = status in _NEVER_DELIVERED and not words.spoiled
        return Verdict.RETRY if not_delivered else Verdict.UNKNOWN
    if words.failed:
        return Verdict.RAISE
    if words.yes:
        return Verdict.UNKNOWN
    if words.texts and words.code is not None and words.code >= HTTPStatus.BAD_REQUEST:
        return Verdict.RAISE
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and _text_of(words.data.get("message")):
        return Verdict.RAISE
    return Verdict.UNKNOWN


_BY_CLASS: Mapping[int, Callable[[int, _Words], Verdict]] = {
    2: _judge_good,
    3: _judge_redirect,
    4: _judge_client_fault,
    5: _judge_server_fault,
}


# -- what an answer says ------------------------------------------------------------------------------------------

_ID_FIELDS = ("task_id", "taskId", "job_id")
_WRAPPERS = ("data", "task", "job", "result")


def named_task(answer: Mapping[str, Any]) -> TaskId | None:
    """Return the task that an answer names, at its top or in its `data`; None if it names none."""
    task_id = answer.get("task_id")
    if type(task_id) is str and task_id:  # the legacy protocol's
        return _as_id(task_id)
    data = answer.get("data")
    if type(data) is dict and type(task_id := data.get("task_id")) is str and task_id:  # the envelope's
        return _as_id(task_id)
    return next(filter(None, map(_as_id, _ids_in(answer, depth=2))), None)


def _ids_in(place: Mapping[str, Any], depth: int) -> Iterator[object]:
    for name in _ID_FIELDS:
        yield place.get(name)
    for name in _WRAPPERS if depth else ():
        inner = place.get(name)
        if isinstance(inner, dict):
            yield from _ids_in(inner, depth - 1)


def _as_id(value: object) -> TaskId | None:
    """Return what stands where an id should as an id, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    try:
        return check_task_id(str(value))
    except ValueError:
        return None


def _bare_id(answer: Mapping[str, Any]) -> str:
    """Return what may be a task's id and may be something else: a bare `id`, or one in a list; "" for neither."""
    data = answer.get("data")
    for place in (answer, data):
        if isinstance(place, dict) and (found := _as_id(place.get("id"))):
            return found
    for item in data if isinstance(data, list) else ():
        if isinstance(item, dict) and (found := named_task(item) or _as_id(item.get("id"))):
            return found
    return ""


def says_failed(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer's own status word (or a 2023 host's `success` flag) says that it was refused."""
    status = answer.get("status")
    return (isinstance(status, str) and status.strip().lower() in {"failed", "error"}) or answer.get("success") is False


def read_code(answer: Mapping[str, Any]) -> int | None:
    """Return the `code` of an envelope, None where there is no number."""
    code = answer.get("code")
    if type(code) is int:
        return code
    if isinstance(code, (dict, list, bool)):
        return None
    return read_int(code)


def _says_no(answer: Mapping[str, Any]) -> bool:
    """Tell whether a 2xx says that the request has failed, by its status word, flag or code."""
    if says_failed(answer) or _is_word(answer.get("data"), "failed"):
        return True
    code = answer.get("code")
    if code is None or code == HTTPStatus.OK:  # nearly always
        return False
    code = read_code(answer)
    return code is not None and code >= HTTPStatus.BAD_REQUEST


def _is_word(place: object, word: str) -> bool:
    """Tell whether an object's status is a word."""
    status = place.get("status") if isinstance(place, dict) else None
    return isinstance(status, str) and status.strip().lower() == word


_YES = frozenset(
    {
        *("success", "succeeded", "ok", "accepted", "created", "queued", "submitted", "staged", "pending"),
        *("starting", "processing", "running", "finished", "completed"),
    }
)


def _says_yes(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer says by its status, flag, code or whole message that the request has succeeded."""
    for word in (answer.get("status"), answer.get("message")):
        if isinstance(word, str) and word.strip().lower() in _YES:
            return True
    code = read_code(answer)
    return answer.get("success") is True or (code is not None and (code == 0 or _is_good(code)))


def _texts(answer: Mapping[str, Any]) -> Iterator[str]:
    """Return the texts of an answer that say why, the most telling first."""
    data, error = answer.get("data"), answer.get("error")
    inner = data.get("error") if isinstance(data, dict) else None
    for place in (inner, error):
        if isinstance(place, dict):
            yield from (_text_of(place.get(name)) for name in ("raw_message", "message", "detail"))
    yield _text_of(answer.get("message"))
    yield from (_text_of(place) for place in (inner, error))
    yield from (_text_of(answer.get(name)) for name in ("description", "detail"))


# Characters of a host's text that are read, and kept in an error: a text is for people, and costs time and memory.
_LONGEST_TEXT = 1000


def _text_of(value: object) -> str:
    return value[:_LONGEST_TEXT].strip() if isinstance(value, str) else ""


_OWN_FIELDS = ("status", "code", "data", "error", "description", "message")
_QUOTED = re.compile(r"""(?<!\w)(["'`])(?:(?!\1).)+\1(?!\w)|“[^”]*”|«[^»]*»|\u2018[^\u2019]*\u2019""", re.DOTALL)


@frozen
class _Words:
    """What a JSON object says, as far as a judgement needs it.

    `text` is the host's most telling text, "" where it is not the host that speaks; `texts` are all texts without what
    they quote; `own` tells whether the host itself speaks, `spoiled` whether a gateway or a crash does; `failed` and
    `yes` whether the object says so.
    """

    data: Mapping[str, Any]
    text: str
    texts: str
    code: int | None
    own: bool
    spoiled: bool
    failed: bool
    yes: bool
    bare_id: str
    _request: Request[Any]

    @classmethod
    def of(cls, data: Mapping[str, Any], request: Request[Any]) -> _Words:
        found = list(dict.fromkeys(filter(None, _texts(data))))
        unquoted = [_QUOTED.sub("…", text) for text in found]
        spoiled = any(_is_stock(text, request) for text in unquoted)
        speaks = data.get("success") is False or any(data.get(name) not in _EMPTY for name in _OWN_FIELDS)
        failed = _is_word(data, "failed") or _is_word(data.get("data"), "failed")
        code = read_code(data)
        return cls(
            data=data,
            text=_told(found, code, failed=failed or says_failed(data)) if speaks and not spoiled else "",
            texts="; ".join(unquoted),
            code=code,
            own=speaks and not spoiled,
            spoiled=spoiled,
            failed=failed,
            yes=_says_yes(data),
            bare_id=_bare_id(data),
            request=request,
        )

    def match(self, pattern: re.Pattern[str]) -> bool:
        """Tell whether the host itself says something, and does not merely quote the request."""
        return _is_evidence(pattern, self.texts, self._request)

    def banned(self, status: int) -> bool:
        """Tell whether the prompt was refused for its words."""
        return status in _VALUES and _BANNED.search(self.texts) is not None


_EMPTY: tuple[object, ...] = (None, "", [], {})


def _told(texts: list[str], code: int | None, *, failed: bool) -> str:
    """Return the most telling of a host's texts, or what it says without any."""
    if texts:
        return texts[0]
    if failed:
        return "failed"
    return f"code {code}" if code else ""


def _is_evidence(pattern: re.Pattern[str], text: str, request: Request[Any]) -> bool:
    """Tell whether a text says one of some phrases by itself: one that the request holds too may be a quotation."""
    found = {match.group().lower() for match in pattern.finditer(text)}
    if not found:
        return False
    sent = _sent_words(request)
    return any(phrase not in sent for phrase in found)


def _sent_words(request: Request[Any]) -> str:
    """Return what was sent, in small letters; "" for a request class that cannot say."""
    try:
        return request.to_http().body.decode("utf-8", "replace").lower()
    except Exception:  # noqa: BLE001 - a request class of the user's may raise anything, and its answer is still judged
        return ""


# What gateways, balancers and crashes say by themselves: observed of AWS, Kong, Envoy, nginx, Cloudflare, Spring, Go.
_STOCK_WORDS = re.compile(
    r"internal[ _]?server[ _]?error|bad gateway|missing authentication token|no healthy|\bupstream\b"
    r"|service[ _]?(?:is )?(?:temporarily |currently )?unavailable|temporarily unavailable"
    r"|tim(?:e|ed|ing)[\s_-]?out|deadline exceeded|\beof\b|broken pipe|reset by peer"
    r"|connection (?:was )?(?:reset|refused|closed)|(?:context|request|operation|stream) (?:was )?cancell?ed"
    r"|an? (?:unknown|unexpected|unhandled) (?:error|exception)|something went wrong|stack trace|panic:"
    r"|nil pointer|null ?pointer",
    re.IGNORECASE,
)
_STOCK_PHRASES = frozenset(
    {
        *(status.phrase.lower() for status in HTTPStatus if status >= HTTPStatus.INTERNAL_SERVER_ERROR),
        *("forbidden", "access denied", "server error", "unknown error", "unexpected error", "an error occurred"),
        *("canceled", "cancelled", "reset", "eof", "unavailable", "error", "an error has occurred", "gateway error"),
    }
)


def _is_stock(text: str, request: Request[Any]) -> bool:
    """Tell whether a text is a gateway's or a crash's, which says nothing of what the host behind it has done."""
    return text.strip(" .!").lower() in _STOCK_PHRASES or _is_evidence(_STOCK_WORDS, text, request)


_BUSY = re.compile(r"no available bot|bot is inactive|overloaded|rate limit|too many requests", re.IGNORECASE)
_BANNED = re.compile(r"banned|sensitive word", re.IGNORECASE)
_OUTDATED = re.compile(r"parent task is outdated", re.IGNORECASE)
_NOT_FOUND = re.compile(r"not found|not exist|no such task", re.IGNORECASE)
_MONEY = re.compile(  # "failed to freeze credit", "account credit not enough", "insufficient credits": observed
    r"failed to freeze|insufficient (?:account )?(?:credit|balance|fund|quota|point)"
    r"|(?:credits?|balance|quota|points?|funds?) (?:is |are )?(?:not enough|insufficient|exhausted)"
    r"|not enough (?:account )?(?:credit|balance|quota|point|fund)|(?:no|out of) (?:more )?credit",
    re.IGNORECASE,
)
_KNOWN_REFUSAL = re.compile(
    r"banned|sensitive|\binvalid|insufficient|not enough|quota|outdated|not found|not exist|no such"
    r"|not (?:allowed|supported|permitted|authorized|valid)|no longer support|unsupported|unauthorized|permission"
    r"|denied|\brequired\b|(?:no|out of) (?:more )?credit|too (?:long|large|big|short|small)|prohibited|violat"
    r"|failed to freeze|refused|rejected|disabled|suspended|expired",
    re.IGNORECASE,
)
_ANY = re.compile("")


# -- statuses -----------------------------------------------------------------------------------------------------

_VALUES = frozenset({200, 400, 422})
_CLIENT_FAULTS = range(400, 500)
_SERVER_FAULTS = range(500, 600)


def _is_good(status: int) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 - HTTP's own classes


def _effective_status(status: int, answer: Mapping[str, Any]) -> int:
    """Return the HTTP status, or the `code` of an envelope that came with a 2xx: the same by another name."""
    code = read_code(answer) if _is_good(status) else None
    if code is not None and (code in _CLIENT_FAULTS or code in _SERVER_FAULTS):
        return code
    return status


# -- errors -------------------------------------------------------------------------------------------------------

_NOT_BUSY = frozenset(_CLIENT_FAULTS) - {408, 429} | frozenset(_SERVER_FAULTS) | {200}

# The first row that fits (status, text) names the error and what the reader can do.  The texts were observed on the
# legacy hosts; which of them a host uses is not documented.
_REFUSALS: tuple[tuple[range | frozenset[int], re.Pattern[str], type[APIError], str], ...] = (
    (_VALUES, _BANNED, InvalidRequestError, ""),  # it may quote any word of the prompt
    (frozenset({402}), _ANY, InsufficientCreditError, "Buy credit, then submit again."),
    (_NOT_BUSY, _MONEY, InsufficientCreditError, "Buy credit, then submit again."),
    (frozenset({401, 403}), _BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({401, 403}), _ANY, AuthenticationError, "Check the API key and what its plan allows."),
    (frozenset({408}), _ANY, APIError, ""),
    (frozenset({429}), _ANY, RateLimitError, "Slow down, or set rate_limit=(requests, seconds)."),
    (
        frozenset({200, *_CLIENT_FAULTS}),
        _OUTDATED,
        ParentOutdatedError,
        "Submit the parent's Imagine anew and derive from that task.",
    ),
    (_CLIENT_FAULTS, _BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({404, 410}), _ANY, NotFoundError, "Check the task id and the host."),
    (_VALUES, _NOT_FOUND, NotFoundError, "Check the task id and the host."),
    (frozenset({400, 422}), _ANY, InvalidRequestError, ""),
    (
        range(300, 400),
        _ANY,
        APIError,
        "Redirects are not followed, so that the key goes to one host only; set base_url.",
    ),
    (_SERVER_FAULTS, _ANY, ServerError, ""),
)


def refusal(response: HTTPResponse, request: Request[Any], *, message: str | None = None) -> APIError:
    """Return the error for an answer to a read that refuses.

    `message` is the server's text where the caller has read it already.  The error's own is "" where the body is not
    the host's: an edge's page, a gateway's phrase.
    """
    data = _object_in(response.body) if message is None else {"message": message}
    return _error(response, request, response.status, _Words.of(data, request), Verdict.RAISE, makes_task=False)


def _not_understood(response: HTTPResponse, words: _Words, named: TaskId | None) -> UnexpectedAnswer:
    """Return the error for a 2xx that is neither a yes nor a no."""
    body = excerpt(blank_secrets(response.body))
    found = "names no task, and does not say that none was made"
    if words.bare_id:
        found = f"may name a task, {words.bare_id}"
    elif named is not None:
        found = f"names a task, {named}, and is not understood otherwise"
    return UnexpectedAnswer(f"The answer (HTTP {response.status}) {found}: {body}", path="task_id", excerpt=body)


def _error(
    response: HTTPResponse,
    request: Request[Any],
    status: int,
    words: _Words,
    verdict: Verdict,
    *,
    makes_task: bool = True,
) -> APIError:
    body = excerpt(blank_secrets(response.body))
    cls, advice = _class_of(status, words)
    said = ""
    if words.text:
        said = f": {shorten(words.text)}"
    elif body:
        said = f"; the body begins: {body}"
    certain = verdict in (Verdict.RAISE, Verdict.RETRY)
    how = "was refused" if certain and (words.text or status not in _SERVER_FAULTS) else "was answered with an error"
    sentence = f"{label(request)} {how}: HTTP {status}{said}."
    if makes_task and certain:
        sentence += " No task was made, nothing was paid."
    details: dict[str, Any] = {"status": status, "message": words.text, "body": body, "request": request}
    if cls is RateLimitError:
        details["retry_after"] = read_retry_after(response.headers)
    return cls(f"{sentence} {advice}" if advice and certain else sentence, **details)


def _class_of(status: int, words: _Words) -> tuple[type[APIError], str]:
    status = HTTPStatus.OK if _is_good(status) else status
    for statuses, pattern, cls, advice in _REFUSALS:
        if status in statuses and (pattern is _ANY or words.match(pattern)):
            return cls, advice
    return APIError, ""


def _object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, an empty one where there is none."""
    try:
        return read_object(body)
    except UnexpectedAnswer:
        return {}


# -- reads --------------------------------------------------------------------------------------------------------


def read_answer(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Return the JSON object of a good answer; raise the right `APIError` or `UnexpectedAnswer` for any other."""
    if _is_good(response.status):
        return read_object(response.body)
    raise refusal(response, request)


def judge_read(error: PiAPIError) -> Verdict:
    """Decide whether a failed read is worth another try: reading twice costs nothing.

    A status without the host's own words (`message` is "") is an edge's, whatever it is, and passes.
    """
    match error:
        case TransportError(untrusted=True):
            return Verdict.RAISE
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
