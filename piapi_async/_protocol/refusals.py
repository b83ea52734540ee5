"""Which error a refusal is raised as, and in which words.  Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from .._http import HTTPResponse, Request
from .._text import excerpt, label, shorten
from ..errors import (
    APIError,
    AuthenticationError,
    InsufficientCreditError,
    InvalidRequestError,
    NotFoundError,
    ParentOutdatedError,
    RateLimitError,
    ServerError,
    UnexpectedAnswer,
)
from ..tasks import TaskId
from .answers import blank_secrets, read_object, read_retry_after
from .words import BANNED, MODERATED, VALUES, Words, is_good

BUSY = r"(?i)no available bot|bot is inactive|overloaded|rate limit|too many requests"
_OUTDATED = r"(?i)parent task is outdated"
_NOT_FOUND = r"(?i)not found|not exist|no such task"
# "failed to freeze credit", "account credit not enough", "insufficient credits" were observed.
_MONEY = (
    r"(?i)failed to freeze|insufficient (?:account )?(?:credit|balance|fund|quota|point)"
    r"|(?:credits?|balance|quota|points?|funds?) (?:is |are )?(?:not enough|insufficient|exhausted)"
    r"|not enough (?:account )?(?:credit|balance|quota|point|fund)"
    r"|(?:no|out of) (?:more )?credit"
)
# Of a 403 that is not about the key: LegNext's pages, and a live answer of its `edit`.
_LIMITED = r"(?i)daily (?:\w+ )?limit|too many (?:errors|failed)"
_CLOSED = r"(?i)whitelist|feature is (?:only|not) available"
ANY = ""
CLIENT_FAULTS = range(400, 500)
SERVER_FAULTS = range(500, 600)


# -- errors ----------------------------------------------------------------------------------------

_NOT_BUSY = frozenset(CLIENT_FAULTS) - {408, 429} | frozenset(SERVER_FAULTS) | {200}

# The first row that fits (status, text) names the error and what the reader can do.  The texts were
# observed on the legacy hosts; which of them a host uses is not documented.
_REFUSALS: tuple[tuple[range | frozenset[int], str, type[APIError], str], ...] = (
    (VALUES, BANNED, InvalidRequestError, ""),  # it may quote any word of the prompt
    (frozenset({403}), MODERATED, InvalidRequestError, ""),
    (frozenset({402}), ANY, InsufficientCreditError, "Buy credit, then submit again."),
    (_NOT_BUSY, _MONEY, InsufficientCreditError, "Buy credit, then submit again."),
    (frozenset({401, 403}), BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({403}), _LIMITED, RateLimitError, "Wait until the host's limit has passed."),
    (frozenset({403}), _CLOSED, APIError, "Ask the host to open it to your account."),
    (frozenset({401, 403}), ANY, AuthenticationError, "Check the API key and what its plan allows."),
    (frozenset({408}), ANY, APIError, ""),
    (frozenset({429}), ANY, RateLimitError, "Slow down, or set rate_limit=(requests, seconds)."),
    (
        frozenset({200, *CLIENT_FAULTS}),
        _OUTDATED,
        ParentOutdatedError,
        "Submit the parent's Imagine again and derive from that task.",
    ),
    (CLIENT_FAULTS, BUSY, RateLimitError, "The host is busy; try later."),
    (frozenset({404, 410}), ANY, NotFoundError, "Check the task id and the host."),
    (VALUES, _NOT_FOUND, NotFoundError, "Check the task id and the host."),
    (frozenset({400, 422}), ANY, InvalidRequestError, ""),
    (
        range(300, 400),
        ANY,
        APIError,
        "Redirects are not followed, so that the key goes to one host only; set base_url.",
    ),
    (SERVER_FAULTS, ANY, ServerError, ""),
)


def refusal(response: HTTPResponse, request: Request[Any], *, message: str | None = None) -> APIError:
    """Return the error for the refusal of a read.

    `message` is the server's text, if the caller has read it already.  The `message` of the error
    is "" if the body is not the host's but an edge's page or a gateway's phrase.
    """
    data = {"message": message}
    if message is None:
        data = _object_in(response.body)

    words = Words.of(data, request)
    return create_error(response, request, response.status, words, certain=True, makes_task=False)


def not_understood(response: HTTPResponse, words: Words, named: TaskId | None) -> UnexpectedAnswer:
    """Return the error for a 2xx that is neither a yes nor a no."""
    body = excerpt(blank_secrets(response.body))
    found = "names no task, and does not say that none was made"
    if words.bare_id:
        found = f"may name a task, {words.bare_id}"
    elif named is not None:
        found = f"names a task, {named}, and is not understood otherwise"

    message = f"The response (HTTP {response.status}) {found}: {body}"
    return UnexpectedAnswer(message, path="task_id", excerpt=body)


def create_error(
    response: HTTPResponse,
    request: Request[Any],
    status: int,
    words: Words,
    *,
    certain: bool,
    makes_task: bool = True,
) -> APIError:
    """Return the error for a response; it is `certain` if it says for sure that nothing was made."""
    body = excerpt(blank_secrets(response.body))
    cls, advice = _class_of(status, words)

    said = ""
    if words.text:
        said = f": {shorten(words.text)}"
    elif body:
        said = f"; the body begins: {body}"
    how = "was answered with an error"
    if certain and (words.text or status not in SERVER_FAULTS):
        how = "was refused"

    text = f"{label(request)} {how}: HTTP {status}{said}."
    if makes_task and certain:
        text += " No task was made, nothing was paid."
    if advice and certain:
        text += f" {advice}"

    details: dict[str, Any] = {
        "status": status,
        "message": words.text,
        "body": body,
        "request": request,
    }
    if cls is RateLimitError:
        details["retry_after"] = read_retry_after(response.headers)
    return cls(text, **details)


def _class_of(status: int, words: Words) -> tuple[type[APIError], str]:
    """Return the class of the error, and what the reader can do."""
    if is_good(status):
        status = HTTPStatus.OK

    for statuses, pattern, cls, advice in _REFUSALS:
        if status in statuses and (pattern == ANY or words.match(pattern)):
            return cls, advice
    return APIError, ""


def _object_in(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, an empty one if there is none."""
    try:
        return read_object(body)
    except UnexpectedAnswer:
        return {}


# -- reads -----------------------------------------------------------------------------------------


def read_answer(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Return the JSON object of a good response; else raise `APIError` or `UnexpectedAnswer`."""
    if is_good(response.status):
        return read_object(response.body)
    raise refusal(response, request)
