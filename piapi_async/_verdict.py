"""The rule: what a response means for the money, and whether the call may be repeated.  Pure.

What came of a submission, first match first; the README shows the same table:

| what came | what we do |
|---|---|
| nothing left this machine (refused, DNS, TLS, no connection in time); 521, 523, 525, 526 of an edge | try again |
| a 2xx that names a task and does not say that it failed | accepted |
| any other answer that names a task | read that task: it lives, it failed, or `SubmissionUnknown` |
| 429; a 4xx in which the host says that it is busy | try again; `Retry-After` holds the whole client |
| a no in the host's own words: a 4xx, a 5xx, a 2xx that says it failed; a 3xx but 303 | raise it: no task was made |
| all else: lost after sending began, 408, 303, an edge's page, a gateway's phrase, no clear no | unknown |

A no must be said: it is never inferred from the absence of a yes, nor from a status that a proxy, a
gateway or a crash can give by itself.  A caller who is told "refused" pays again.

Everything follows from the one `Judgement` that is made here: whether the submission is sent again,
the error and its text, whether the ledger frees the key or keeps it as *unknown*, and the exit code
of the command line (by the error's class).
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
from ._protocol.reading import object_at, read_cost
from ._protocol.refusals import BUSY, CLIENT_FAULTS, SERVER_FAULTS, create_error, not_understood
from ._protocol.words import (
    Words,
    claims_success,
    is_good,
    is_own,
    named_task,
    read_code,
    says_no,
    text_of,
)
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
    RAISE = "the host said no"
    NAMED = "the response names a task, which can be read, and tells"
    UNKNOWN = "a task may have been made: never repeat by guess"


@frozen(eq=False, repr=False)
class Judgement:
    """What came of an attempt to make a task: the verdict, and the error that says the same.

    `named` is the task that the response names, if the verdict is `NAMED`.
    """

    verdict: Verdict
    error: PiAPIError
    named: TaskId | None = None


# -- creates ---------------------------------------------------------------------------------------


def read_created(response: HTTPResponse, request: Request[Any]) -> TaskId | Created:
    """Return the task that a request has made, with its price if the response tells.

    Raises `APIError` for a refusal, `UnexpectedAnswer` for a 2xx that is not understood.  The
    creates of all protocols are read here.
    """
    if is_good(response.status):
        answer = read_object(response.body)
        task_id = named_task(answer)
        if task_id is not None and not says_no(answer) and not is_own(task_id, request, response.sent):
            frozen = _expected_cost(answer)
            if frozen is None:
                return task_id
            return Created(task_id, frozen)
    raise judge_create(response, request).error


def _expected_cost(answer: Mapping[str, Any]) -> Cost | None:
    """Return what a new task is expected to cost, which is frozen or taken at once (observed)."""
    if "meta" not in answer and "data" not in answer:  # the legacy protocol's
        return None
    meta = object_at(answer, "meta") or object_at(object_at(answer, "data"), "meta")
    if not meta:
        return None

    usage = object_at(meta, "usage")
    for name in ("frozen", "consume"):
        cost = read_cost(usage.get(name), usage.get("type"))
        if cost is not None and cost.amount:
            return cost
    return None


def judge_create(response: HTTPResponse, request: Request[Any]) -> Judgement:
    """Judge the response to a create that is not simply the id of a new task."""
    try:
        data = read_object(response.body)
    except UnexpectedAnswer as error:
        if is_good(response.status):
            return Judgement(Verdict.UNKNOWN, error)
        data = {}

    words = Words.of(data, request, response.body)
    status = _effective_status(response.status, data)
    named = named_task(data)
    if named is not None and is_own(named, request, response.sent):
        named = None

    verdict = Verdict.NAMED
    if named is None:
        verdict = _judge_unnamed(status, words)

    understood = not is_good(status) or verdict is Verdict.RAISE or says_no(data)
    if not understood:
        return Judgement(verdict, not_understood(response, words, named), named)

    refused = create_error(response, request, status, words, certain=verdict in _CERTAIN)
    return Judgement(verdict, refused, named)


def judge_unanswered(error: PiAPIError) -> Judgement:
    """Judge an attempt to make a task that ended without a whole response."""
    never_sent = isinstance(error, TransportError) and not error.sent
    if never_sent:
        return Judgement(judge_read(error), error)
    if isinstance(error, (TransportError, UnexpectedAnswer)):
        return Judgement(Verdict.UNKNOWN, error)
    return Judgement(Verdict.RAISE, error)


def may_pass(error: PiAPIError) -> bool:
    """Return whether a submission that ended with an error, not unknown, may be sent again later.

    Nothing was paid in any case; here the reason passes by itself.  One that names a task has made
    that task, which is why it is its caller's to know.
    """
    if isinstance(error, APIError) and error.ref is not None:
        return False

    match error:
        case TransportError(sent=False, untrusted=False) | RateLimitError():
            return True
        case ServerError(status=status):
            return status in _NEVER_DELIVERED
    return False


_CERTAIN = (Verdict.RAISE, Verdict.RETRY)
"""With these it is certain that no task was made."""

# Something on the way did not wait for the outcome; 499 is nginx's, and gRPC gateways' "canceled".
_GAVE_UP = frozenset({HTTPStatus.REQUEST_TIMEOUT, 499})

# An edge (Cloudflare's numbers) that could not reach the host: refused, unreachable, no TLS, a wrong
# certificate.
_NEVER_DELIVERED = frozenset({521, 523, 525, 526})


def _judge_unnamed(status: int, words: Words) -> Verdict:
    """Judge a response that names no task for certain."""
    judge = _BY_CLASS.get(status // 100)
    if judge is None or words.bare_id:
        return Verdict.UNKNOWN
    return judge(status, words)


def _judge_good(_status: int, words: Words) -> Verdict:
    """Judge a 2xx: it is a no only if the host says so."""
    if words.spoiled:
        return Verdict.UNKNOWN
    if says_no(words.data):
        return Verdict.RAISE
    if words.yes or re.search(_MADE, words.texts):
        return Verdict.UNKNOWN
    if words.match(_KNOWN_REFUSAL):
        return Verdict.RAISE
    return Verdict.UNKNOWN


def _claims_success(words: Words) -> bool:
    """Return whether a response says yes although its status is a no and its text no refusal."""
    if not claims_success(words.data):
        return False
    return not words.match(_KNOWN_REFUSAL) and not words.match(BUSY)


def _judge_redirect(status: int, words: Words) -> Verdict:
    """Judge a 3xx: a 303 says where the outcome of what was done is seen (RFC 9110 §15.4.4)."""
    if status == HTTPStatus.SEE_OTHER or _claims_success(words):
        return Verdict.UNKNOWN
    return Verdict.RAISE


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
    if words.match(BUSY):
        return Verdict.RETRY
    return Verdict.RAISE


def _judge_server_fault(status: int, words: Words) -> Verdict:
    """Judge a 5xx: an edge may send 502 or 504 although the host behind it has accepted."""
    if not words.own:
        if status in _NEVER_DELIVERED and not words.spoiled:
            return Verdict.RETRY
        return Verdict.UNKNOWN

    if words.failed:
        return Verdict.RAISE
    if not words.yes and _is_explained(status, words):
        return Verdict.RAISE
    return Verdict.UNKNOWN


def _is_explained(status: int, words: Words) -> bool:
    """Return whether a 5xx has the host's reason: a text and a code or, for 500 alone, a message."""
    if words.texts and words.code is not None and words.code >= HTTPStatus.BAD_REQUEST:
        return True
    if status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    return bool(text_of(words.data.get("message")))


_BY_CLASS: Mapping[int, Callable[[int, Words], Verdict]] = {
    2: _judge_good,
    3: _judge_redirect,
    4: _judge_client_fault,
    5: _judge_server_fault,
}
_MADE = r"(?i)(?<!not )(?<!not be )(?<!n't be )\b(?:accepted|created|queued|submitted|successful(?:ly)?)\b"
_KNOWN_REFUSAL = (
    r"(?i)banned|sensitive|\binvalid|insufficient|not enough|quota|outdated|not found|not exist|no such"
    r"|not (?:allowed|supported|permitted|authorized|valid)|no longer support|unsupported"
    r"|unauthorized|permission|denied|\brequired\b|(?:no|out of) (?:more )?credit"
    r"|too (?:long|large|big|short|small)|prohibited|violat|failed to freeze|refused|rejected"
    r"|disabled|suspended|expired"
)


def _effective_status(status: int, answer: Mapping[str, Any]) -> int:
    """Return the HTTP status, or the `code` of an envelope with a 2xx, which means the same."""
    if not is_good(status):
        return status

    code = read_code(answer)
    if code is not None and (code in CLIENT_FAULTS or code in SERVER_FAULTS):
        return code
    return status


# -- reads -----------------------------------------------------------------------------------------


def judge_read(error: PiAPIError) -> Verdict:
    """Decide whether a failed read is worth another try: reading twice costs nothing.

    A status without the host's own words (`message` is "") is an edge's and passes, whatever it is.
    """
    match error:
        case TransportError(untrusted=True):
            return Verdict.RAISE
        case TransportError() | RateLimitError() | ServerError() | UnexpectedAnswer():
            return Verdict.RETRY
        case APIError(status=408) | APIError(message=""):
            return Verdict.RETRY
    return Verdict.RAISE


def judge_multi_fetch(error: PiAPIError) -> Verdict:
    """Decide as `judge_read`, but raise what says that the host has no multi-fetch."""
    match error:
        case UnexpectedAnswer() | APIError(status=404 | 405 | 501):
            return Verdict.RAISE
    return judge_read(error)
