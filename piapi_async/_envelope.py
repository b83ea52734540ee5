"""The envelope ``{"code": 200, "data": …, "message": "success"}``, used by all but legacy Midjourney.  Pure."""

from __future__ import annotations

from typing import Any

from attrs import evolve

from ._lenient import read_int, text_at
from ._wire import HTTPResponse, Request, read_object, refusal
from .errors import UnexpectedAnswer
from .tasks import TaskId

_GOOD = frozenset({0, 200})


def read_envelope(response: HTTPResponse, request: Request[Any], *, makes_task: bool = False) -> dict[str, Any]:
    """Give the envelope of a good answer; raise the right `APIError`, or `UnexpectedAnswer`.

    A refusal is told by the HTTP status or, with HTTP 200, by the `code` in the body.
    """
    if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own classes
        raise refusal(response, request, makes_task=makes_task)
    answer = read_object(response.body)
    try:
        code = read_int(answer.get("code"))
    except TypeError as error:
        raise UnexpectedAnswer(f"The answer is not understood at code: {error}", path="code") from None
    if code is None or code in _GOOD:
        return answer
    said = evolve(response, status=code) if 400 <= code < 600 else response  # noqa: PLR2004 - HTTP's own classes
    raise refusal(said, request, message=text_at(answer, "message").strip() or "failed", makes_task=makes_task)


def read_data(response: HTTPResponse, request: Request[Any]) -> dict[str, Any]:
    """Give the `data` object of a good answer; raises as `read_envelope`."""
    data = read_envelope(response, request).get("data")
    if isinstance(data, dict):
        return data
    raise UnexpectedAnswer("The answer holds no object at data", path="data")


def read_new_task(response: HTTPResponse, request: Request[Any]) -> TaskId:
    """Give the id of the task that a request has made; what is neither that nor a refusal is `UnexpectedAnswer`."""
    answer = read_envelope(response, request, makes_task=True)
    data, message = answer.get("data"), text_at(answer, "message").strip()
    task_id = text_at(data, "task_id", "data").strip() if isinstance(data, dict) else ""
    if task_id:
        return TaskId(task_id)
    if message and message.lower() != "success":
        raise refusal(response, request, message=message, makes_task=True)
    raise UnexpectedAnswer("The answer holds no task id", path="data.task_id")
