"""The envelope ``{"code": 200, "data": …, "message": "success"}``, used by all but legacy Midjourney.  Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attrs import evolve

from ._lenient import read_int, text_at
from ._wire import HTTPResponse, Request, read_object, refusal, says_failed
from .errors import UnexpectedAnswer
from .tasks import TaskId


def read_envelope(response: HTTPResponse, request: Request[Any], *, makes_task: bool = False) -> dict[str, Any]:
    """Give the envelope of a good answer; raise the right `APIError`, or `UnexpectedAnswer`.

    A refusal is told by the HTTP status or, with HTTP 200, by the `code` in the body.
    """
    if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own classes
        raise refusal(response, request, makes_task=makes_task)
    answer = read_object(response.body)
    code = _read_code(answer)
    if code in (None, 0) or 200 <= code < 300:  # noqa: PLR2004 - the codes are HTTP's
        return answer
    if makes_task and (task_id := _read_id(answer)):  # whoever is told "no" pays again
        raise UnexpectedAnswer(f"The answer refuses (code {code}) and yet names a task, {task_id}", path="code")
    said = evolve(response, status=code) if 400 <= code < 600 else response  # noqa: PLR2004 - the codes are HTTP's
    # A 5xx without words may be an edge's, as it may be where it is the HTTP status.
    message = text_at(answer, "message").strip() or ("" if said.status >= 500 else "failed")  # noqa: PLR2004 - HTTP's
    raise refusal(said, request, message=message, makes_task=makes_task)


def _read_code(answer: dict[str, Any]) -> int | None:
    try:
        return read_int(answer.get("code"))
    except TypeError as error:
        raise UnexpectedAnswer(f"The answer is not understood at code: {error}", path="code") from None


def _read_id(answer: dict[str, Any]) -> str:
    data = answer.get("data")
    if not isinstance(data, dict) or isinstance(data.get("task_id"), bool):
        return ""
    return text_at(data, "task_id", "data").strip()


def read_data(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Give the `data` object of a good answer; raises as `read_envelope`."""
    data = read_envelope(response, request).get("data")
    if isinstance(data, dict):
        return data
    raise UnexpectedAnswer("The answer holds no object at data", path="data")


def read_new_task(response: HTTPResponse, request: Request[Any]) -> TaskId:
    """Give the id of the task that a request has made; what is neither that nor a refusal is `UnexpectedAnswer`."""
    answer = read_envelope(response, request, makes_task=True)
    if task_id := _read_id(answer):
        return TaskId(task_id)
    # Without a code it is no envelope, and a message of its own is a no; a good code is a yes, whatever stands beside.
    message, bare = text_at(answer, "message").strip(), answer.get("code") is None
    if bare and (says_failed(answer) or (message and not isinstance(answer.get("data"), dict))):
        raise refusal(response, request, message=message or "failed", makes_task=True)
    raise UnexpectedAnswer("The answer holds no task id", path="data.task_id")


def error_text(error: object) -> str:
    """Give a failed task's reasons, wherever the host has put them."""
    values = [error.get(name) for name in ("message", "raw_message", "detail")] if isinstance(error, dict) else [error]
    texts = (value.strip() for value in values if isinstance(value, str))
    return "; ".join(dict.fromkeys(filter(None, texts)))


def read_time(value: object) -> datetime | None:
    """Give a time, None for the year 1 that stands for "not reached" and for what is no time at all."""
    try:
        time = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if time is None or time.year <= 1:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
