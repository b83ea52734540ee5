"""The envelope ``{"code": 200, "data": …, "message": "success"}`` of all but legacy Midjourney.  Pure.

Hosts leave parts of it out, send a task without it, or refuse with HTTP 200 and a `code` of 4xx;
all of that was observed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from .._http import HTTPResponse, Request
from ..errors import UnexpectedAnswer
from ..tasks import TaskId
from .answers import blank_secrets, parse_object, read_object
from .reading import id_of, is_end, read_int, text_at
from .refusals import read_answer, refusal

# The codes of an envelope are HTTP's.
_GOOD = frozenset(range(200, 300))
_REFUSED = range(400, 600)

_OWN_WORDS = frozenset({"code", "status", "success", "message", "task_id"})
"""Fields of which the host's response to an action has one at least."""

_OF_A_TASK = frozenset({"task_result", "output", "meta", "works", "generation", "image"})
"""Fields that an object has only if it is a task."""


def read_envelope(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Return the envelope of a good response to a read.

    A refusal is told by the HTTP status or, with HTTP 200, by the `code` in the body.  Raises the
    right `APIError` for one, `UnexpectedAnswer` for what is not an envelope.
    """
    answer = read_answer(response, request)
    code = _read_code(answer)
    if code in (None, 0) or code in _GOOD:
        return answer

    if code in _REFUSED:
        response = evolve(response, status=code)
    raise refusal(response, request)


def check_confirmed(answer: Mapping[str, Any]) -> None:
    """Raise `UnexpectedAnswer` for the response to an action that says neither yes nor no.

    The host's response has one of its own words, or the task; what a gateway answers is no yes.  An
    empty object is one, as there is nothing that it would have to hold.
    """
    is_of_host = _OWN_WORDS.intersection(answer) or isinstance(answer.get("data"), dict)
    if answer and not is_of_host:
        raise UnexpectedAnswer("The response says neither that it was done nor that it was refused")


def read_data(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Return the `data` object of a good response; raises as `read_envelope`."""
    data = read_envelope(response, request).get("data")
    if isinstance(data, dict):
        return data
    raise UnexpectedAnswer("The response has no object at data", path="data")


def read_task_object(response: HTTPResponse, request: Request[Any], asked: TaskId) -> dict[str, Any]:
    """Return the object that tells of the task that was asked for, webhook secrets blanked.

    Raises as `find_task_object`.
    """
    return without_secrets(find_task_object(response, request, asked), response.body)


def without_secrets(task: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Return the object of a task that was found in `body`, webhook secrets blanked."""
    if blank_secrets(body) is body:
        return task
    return unpack_task(body)


def unpack_task(body: bytes) -> dict[str, Any]:
    """Return the object of the task that was found in `body` before, webhook secrets blanked."""
    return _task_in(read_object(body))


def find_task_object(response: HTTPResponse, request: Request[Any], asked: TaskId) -> dict[str, Any]:
    """Return the object that tells of the task that was asked for, with or without an envelope.

    Any secrets are still in it, for callers that go on to keep it as bytes.  An end is an end: an
    object that names this task beside a word for an end is believed, whatever the status or the
    code.  Raises the right `APIError` for a refusal, `UnexpectedAnswer` for anything else.
    """
    good = response.status in _GOOD
    try:
        answer = parse_object(response.body)
    except UnexpectedAnswer:
        if good:
            raise
        raise refusal(response, request) from None

    if good and answer.get("task_id") == asked and "data" not in answer:  # nearly always
        return answer

    task = _task_in(answer)
    if id_of(task) == asked and is_end(task.get("status")):
        return task
    if good and _is_task(task, answer):
        return task

    read_envelope(response, request)  # raises if the host refuses
    message = text_at(answer, "message").strip()
    if message and not _says_yes(answer):  # some hosts refuse with HTTP 200 and no code
        raise refusal(response, request, message=message)
    raise UnexpectedAnswer("The response has no task", path="data")


def _task_in(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the object with the task: `data`, unless only what is around it has a status."""
    inner = answer.get("data")
    if isinstance(inner, dict) and ("status" in inner or "status" not in answer):
        return inner
    return answer


def _is_task(task: dict[str, Any], answer: dict[str, Any]) -> bool:
    """Return whether an object is a task: its envelope says so, or it has what only a task has."""
    if task is not answer:
        return answer.get("code") in (None, 0, 200) or _says_yes(answer)
    if id_of(task) or any(name in task for name in _OF_A_TASK):
        return True

    # A status alone may be an envelope's: "failed" with a message is a refusal, and "success" with
    # one is a yes to nothing.
    return "status" in task and "code" not in task and not task.get("message")


def _says_yes(answer: dict[str, Any]) -> bool:
    """Return whether an envelope has a good code, or what stands for one."""
    code = _read_code(answer)
    if code is None:
        return answer.get("status") == "success" or "data" in answer
    return code in _GOOD


def _read_code(answer: dict[str, Any]) -> int | None:
    try:
        return read_int(answer.get("code"))
    except TypeError as error:
        message = f"The response is not understood at code: {error}"
        raise UnexpectedAnswer(message, path="code") from None
