"""The envelope ``{"code": 200, "data": …, "message": "success"}``, used by all but legacy Midjourney.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import evolve

from .._http import HTTPResponse, Request
from ..errors import UnexpectedAnswer
from ..tasks import TaskId
from .answers import read_object
from .reading import is_end, read_int, text_at
from .refusals import read_answer, refusal


def read_envelope(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Return the envelope of a good answer to a read; raise the right `APIError`, or `UnexpectedAnswer`.

    A refusal is told by the HTTP status or, with HTTP 200, by the `code` in the body.
    """
    answer = read_answer(response, request)
    code = _read_code(answer)
    if code in (None, 0) or 200 <= code < 300:  # noqa: PLR2004 - the codes are HTTP's
        return answer
    said = evolve(response, status=code) if 400 <= code < 600 else response  # noqa: PLR2004 - the codes are HTTP's
    raise refusal(said, request)


def _read_code(answer: dict[str, Any]) -> int | None:
    try:
        return read_int(answer.get("code"))
    except TypeError as error:
        raise UnexpectedAnswer(f"The answer is not understood at code: {error}", path="code") from None


def read_data(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Give the `data` object of a good answer; raises as `read_envelope`."""
    data = read_envelope(response, request).get("data")
    if isinstance(data, dict):
        return data
    raise UnexpectedAnswer("The answer holds no object at data", path="data")


def read_task_object(response: HTTPResponse, request: Request[Any], asked: TaskId) -> dict[str, Any]:
    """Return the object of an answer that tells of the task that was asked for, with or without an envelope.

    An end is an end: an object that names this task beside a word for an end is believed, whatever status or code the
    answer has.  Raises the right `APIError` for a refusal, `UnexpectedAnswer` for what is neither.
    """
    good = 200 <= response.status < 300  # noqa: PLR2004 - HTTP's own classes
    try:
        answer = read_object(response.body)
    except UnexpectedAnswer:
        if good:
            raise
        raise refusal(response, request) from None

    task = _task_in(answer)
    if task.get("task_id") == asked and is_end(task.get("status")):
        return task
    if good and _is_told(answer, task):
        return task

    read_envelope(response, request)  # raises, where the answer refuses
    message = text_at(answer, "message").strip()
    if message and not _says_yes(answer):  # some hosts refuse with 200 and no code
        raise refusal(response, request, message=message)
    raise UnexpectedAnswer("The answer holds no task", path="data")


def _task_in(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the object with the task: `data`, unless only what is around it has a status."""
    inner = answer.get("data")
    if isinstance(inner, dict) and ("status" in inner or "status" not in answer):
        return inner
    return answer


def _is_told(answer: dict[str, Any], task: dict[str, Any]) -> bool:
    """Return whether an answer tells of a task: it has an envelope that says so, or what only a task has."""
    if task is not answer:
        return answer.get("code") in (None, 0, 200) or _says_yes(answer)
    if task.get("task_id") or any(name in task for name in _OF_A_TASK):
        return True
    # A lone word may be an envelope's: "failed" with a message is a refusal, "success" with one a yes to nothing.
    return "status" in task and "code" not in task and not task.get("message")


def _says_yes(answer: dict[str, Any]) -> bool:
    """Return whether an envelope has a good code, or what stands for one."""
    code = _read_code(answer)
    if code is None:
        return answer.get("status") == "success" or "data" in answer
    return 200 <= code < 300  # noqa: PLR2004 - the codes are HTTP's


_OF_A_TASK = frozenset({"task_result", "output", "meta", "works", "generation", "image"})


def read_time(value: object) -> datetime | None:
    """Give a time, None for the year 1 that stands for "not reached" and for what is no time at all."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if time is None or time.year <= 1:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
