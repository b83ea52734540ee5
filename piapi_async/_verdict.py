"""The rule: what an answer means for the money, and whether the call behind it may be made again.  Pure.

What became of a submission, first match first; the README shows the same table:

| what came | what we do |
|---|---|
| nothing left this machine (refused, DNS, TLS, no connection in time); 521, 523, 525, 526 of an edge | try again |
| a 2xx that names a task and does not say that it failed | accepted |
| any other answer that names a task | read that task once: it lives, it failed, or `SubmissionUnknown` |
| 429; a 4xx in which the host says that it is busy | try again; `Retry-After` holds the whole client |
| a no in the host's own words: a 4xx, a 5xx, a 2xx that says it failed; a 3xx but 303 | raise it: no task was made |
| all else: lost after sending began, 408, 303, an edge's page, a gateway's phrase, no clear no | unknown |

A no must be said: it is never inferred from the absence of a yes, nor from a status that a proxy, a gateway or a crash
can give by itself.  The one judgement that is made here, a `Judgement`, is what everything else follows from: whether
the submission is sent again, the error and its text, whether the ledger frees the key or keeps it as *unknown*, and the
exit code of the command line (which goes by the error's class).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from http import HTTPStatus
from typing import Any

from attrs import frozen

from ._http import HTTPResponse, Request
from ._protocol.answers import read_object
from ._protocol.reading import read_cost
from ._protocol.refusals import BUSY, CLIENT_FAULTS, SERVER_FAULTS, create_error, not_understood
from ._protocol.words import Words, claims_success, is_good, is_own, named_task, read_code, says_no, text_of
from .errors import (
    APIError,
    PiAPIError,
    RateLimitError,
    ServerError,
    TransportError,
    UnexpectedAnswer,
)
from .tasks import Cost, Created, TaskId


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
    if is_good(response.status):
        answer = read_object(response.body)
        task_id = named_task(answer)
        if task_id is not None and not says_no(answer) and not is_own(task_id, request):
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
        if is_good(response.status):
            return Judgement(Verdict.UNKNOWN, error)
        data = {}
    words = Words.of(data, request, response.body)
    status = _effective_status(response.status, data)
    named = named_task(data)
    if named is not None and is_own(named, request):
        named = None
    verdict = Verdict.NAMED if named is not None else _judge_unnamed(status, words)
    understood = not is_good(status) or verdict is Verdict.RAISE or says_no(data)
    if not understood:
        return Judgement(verdict, not_understood(response, words, named), named)
    return Judgement(verdict, create_error(response, request, status, words, certain=verdict in _CERTAIN), named)


def judge_unanswered(error: PiAPIError) -> Judgement:
    """Judge an attempt to make a task that ended without an answer that could be read to its end."""
    never_sent = isinstance(error, TransportError) and not error.sent
    if never_sent:
        return Judgement(judge_read(error), error)
    if isinstance(error, (TransportError, UnexpectedAnswer)):
        return Judgement(Verdict.UNKNOWN, error)
    return Judgement(Verdict.RAISE, error)


_CERTAIN = (Verdict.RAISE, Verdict.RETRY)  # that no task was made

# Somebody on the way did not wait for the outcome; 499 is nginx's, and gRPC gateways' for "canceled".
_GAVE_UP = frozenset({HTTPStatus.REQUEST_TIMEOUT, 499})

# An edge (Cloudflare's numbers) that could not reach the host: refused, unreachable, no TLS, a wrong certificate.
_NEVER_DELIVERED = frozenset({521, 523, 525, 526})


def _judge_unnamed(status: int, words: Words) -> Verdict:
    """Judge an answer that names no task for certain."""
    judge = _BY_CLASS.get(status // 100)
    return Verdict.UNKNOWN if judge is None or words.bare_id else judge(status, words)


def _judge_good(_status: int, words: Words) -> Verdict:
    """Judge a 2xx: it is a no only where the host says so."""
    if words.spoiled:
        return Verdict.UNKNOWN
    told = words.match(_KNOWN_REFUSAL) and not words.yes and not _MADE.search(words.texts)
    no = says_no(words.data) or told
    return Verdict.RAISE if no else Verdict.UNKNOWN


def _claims_success(words: Words) -> bool:
    """Tell whether an answer says yes, though its status is a no: not where its text is a refusal, or "busy"."""
    return claims_success(words.data) and not words.match(_KNOWN_REFUSAL) and not words.match(BUSY)


def _judge_redirect(status: int, words: Words) -> Verdict:
    """Judge a 3xx: a 303 says where the outcome of what was done can be seen (RFC 9110 §15.4.4)."""
    unclear = status == HTTPStatus.SEE_OTHER or _claims_success(words)
    return Verdict.UNKNOWN if unclear else Verdict.RAISE


def _judge_client_fault(status: int, words: Words) -> Verdict:
    """Judge a 4xx: it is a no, or "busy", only in the host's own words."""
    if status in _GAVE_UP or _claims_success(words):
        return Verdict.UNKNOWN
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Verdict.RETRY
    if words.banned(status):  # it may quote any word of the prompt
        return Verdict.RAISE
    if not words.own:
        return Verdict.UNKNOWN
    return Verdict.RETRY if words.match(BUSY) else Verdict.RAISE


def _judge_server_fault(status: int, words: Words) -> Verdict:
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
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and text_of(words.data.get("message")):
        return Verdict.RAISE
    return Verdict.UNKNOWN


_BY_CLASS: Mapping[int, Callable[[int, Words], Verdict]] = {
    2: _judge_good,
    3: _judge_redirect,
    4: _judge_client_fault,
    5: _judge_server_fault,
}
_MADE = re.compile(
    r"(?<!not )(?<!not be )(?<!n't be )\b(?:accepted|created|queued|submitted|successful(?:ly)?)\b", re.IGNORECASE
)
_KNOWN_REFUSAL = re.compile(
    r"banned|sensitive|\binvalid|insufficient|not enough|quota|outdated|not found|not exist|no such"
    r"|not (?:allowed|supported|permitted|authorized|valid)|no longer support|unsupported|unauthorized|permission"
    r"|denied|\brequired\b|(?:no|out of) (?:more )?credit|too (?:long|large|big|short|small)|prohibited|violat"
    r"|failed to freeze|refused|rejected|disabled|suspended|expired",
    re.IGNORECASE,
)


def _effective_status(status: int, answer: Mapping[str, Any]) -> int:
    """Return the HTTP status, or the `code` of an envelope that came with a 2xx: the same by another name."""
    code = read_code(answer) if is_good(status) else None
    if code is not None and (code in CLIENT_FAULTS or code in SERVER_FAULTS):
        return code
    return status


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
