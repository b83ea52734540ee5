"""Odd responses that were observed of hosts, their gateways and their edges, as data.  Pure.

Three groups: responses to a create that do not say plainly whether a task was made (`UNCLEAR`);
pages of an edge (`edge_page`); and other shapes and places of the links, entries and reasons of
tasks (`with_links`, `without_files`, `with_entries`, `with_reasons`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard

from piapi_async._http import HTTPResponse

JSON_TYPE = {"content-type": "application/json"}
_SEE_OTHER = 303

_SPRING: dict[str, Any] = {
    "timestamp": "2026-08-01T00:00:00.000+00:00",
    "status": 500,
    "error": "Internal Server Error",
    "message": "I/O error on POST request",
    "path": "/api/v1/task",
}

#: Responses to a create, given the task's id: status and body.
UNCLEAR: Mapping[str, Callable[[str], tuple[int, dict[str, Any]]]] = {
    # A yes without an id, or with one in an unusual place.
    "no_id": lambda _: (200, {"status": "success", "message": "success"}),
    "created": lambda _: (201, {"message": "Task created"}),
    "camel_id": lambda task_id: (
        200,
        {"status": "success", "message": "ok", "taskId": task_id},
    ),
    "bare": lambda task_id: (
        200,
        {"task_id": task_id, "status": "success", "message": "success"},
    ),
    "list": lambda task_id: (200, {"message": "success", "data": [{"task_id": task_id}]}),
    "see_other": lambda _: (_SEE_OTHER, {}),
    # A no that names a task.
    "failed_with_id": lambda task_id: (
        200,
        {"task_id": task_id, "status": "failed", "message": "failed"},
    ),
    "no_credit": lambda task_id: (500, _no_credit(task_id)),
    "busy": lambda task_id: (
        429,
        {"task_id": task_id, "status": "success", "message": "too many requests"},
    ),
    "busy_data": lambda task_id: (
        429,
        {"code": 429, "data": {"task_id": task_id}, "message": "too many requests"},
    ),
    "overloaded": lambda task_id: (
        400,
        {"data": {"task_id": task_id}, "message": "overloaded"},
    ),
    # A no that only quotes the words of a busy host.
    "quoted": lambda _: (
        400,
        {"code": 400, "data": None, "message": "invalid prompt: 'an overloaded donkey'"},
    ),
    # Stock phrases of gateways and frameworks, for a request that the host behind them may have
    # served.
    "kong": lambda _: (
        502,
        {"message": "An invalid response was received from the upstream server"},
    ),
    "aws": lambda _: (502, {"message": "Internal server error"}),
    "aws_late": lambda _: (504, {"message": "Endpoint request timed out"}),
    "unavailable": lambda _: (503, {"message": "Service Unavailable"}),
    "spring": lambda _: (500, _SPRING),
    "eof": lambda _: (500, {"code": 500, "message": "unexpected EOF"}),
}


def _no_credit(task_id: str) -> dict[str, Any]:
    """Return what Udio sent in 2025 to an account without credit (observed).

    The cause is only in `raw_message`.
    """
    zero = "0001-01-01T00:00:00Z"
    message = "failed to pre-process task runtime"
    cause = "failed to freeze account point quota: account point quota not enough; account credit not enough"
    usage = {"type": "point", "frozen": 500_000, "consume": 0}
    data = {
        "task_id": task_id,
        "model": "music-u",
        "task_type": "generate_music",
        "status": "failed",
        "config": {"service_mode": "", "webhook_config": {"endpoint": "", "secret": ""}},
        "input": None,
        "output": {"songs": None},
        "meta": {"created_at": zero, "started_at": zero, "ended_at": zero, "usage": usage},
        "detail": None,
        "logs": None,
        "error": {"code": 10_000, "raw_message": cause, "message": message, "detail": None},
    }
    return {"code": 500, "data": data, "message": message}


# -- pages of an edge -----------------------------------------------------------------------------

_PAGE = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"
)
_CHALLENGE = "<noscript>Enable JavaScript and cookies to continue</noscript></body>"
_TITLES: Mapping[int, str] = {
    403: "Just a moment...",
    408: "408 Request Time-out",
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    511: "Network Authentication Required",
    520: "520: Web server is returning an unknown error",
    521: "521: Web server is down",
    522: "522: Connection timed out",
    523: "523: Origin is unreachable",
    524: "524: A timeout occurred",
    525: "525: SSL handshake failed",
    526: "526: Invalid SSL certificate",
    530: "530: Origin DNS error",
}


def error_page(title: str) -> str:
    """Return the HTML of an error page as nginx sends it."""
    return _PAGE.format(title)


def edge_page(status: int) -> HTTPResponse:
    """Return what an edge in front of the service sends in place of it: a page for people."""
    body = error_page(_TITLES.get(status, f"Error {status}"))
    headers = {
        "content-type": "text/html; charset=UTF-8",
        "server": "cloudflare",
        "cf-ray": "8a1b2c3d4e5f6789-FRA",
    }
    if status == 403:  # noqa: PLR2004 - the challenge of a bot check
        headers["cf-mitigated"] = "challenge"
        body = body.replace("</body>", _CHALLENGE)
    return HTTPResponse(status, body.encode(), headers)


# -- the parts of a task --------------------------------------------------------------------------

#: The field of a task that has its result, in Midjourney's protocol and the unified one.
_RESULTS = ("task_result", "output")
_FAILED = frozenset({"failed", "failure", "error"})

#: Wrappers of a link.
WRAPPED: Mapping[str, Callable[[str], object]] = {
    "url": lambda link: {"url": link},
    "href": lambda link: {"href": link},
    "image_url": lambda link: {"image_url": link},
    "list": lambda link: [link],
}
#: Replacements of a whole result, given its links.
REPLACED: Mapping[str, Callable[[list[str]], object]] = {
    "odd_key": lambda links: {"resultUrl": links[0]},
    "deep": lambda links: {"data": {"uri": links[0]}},
    "bare": lambda links: links[0],
    "bare_list": lambda links: links,
}


def links_in(value: object) -> list[str]:
    """Return every link of a result, in order, each once."""
    if isinstance(value, dict):
        return _unique(link for item in value.values() for link in links_in(item))
    if isinstance(value, list):
        return _unique(link for item in value for link in links_in(item))
    if _is_link(value):
        return [value]
    return []


def _unique(links: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(links))


def with_links(value: object, shape: str) -> object:
    """Return a response with the links of its tasks' results in another shape."""

    def turned(result: object) -> object:
        links = links_in(result)
        if not links:
            return result
        if shape in REPLACED:
            return REPLACED[shape](links)
        return _wrapped(result, WRAPPED[shape])

    return _map_results(value, turned)


def without_files(value: object, replacement: object) -> object:
    """Return a response with `replacement` in place of every result that has links."""

    def turned(result: object) -> object:
        if links_in(result):
            return replacement
        return result

    return _map_results(value, turned)


def _is_link(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _wrapped(value: object, wrap: Callable[[str], object]) -> object:
    if isinstance(value, dict):
        return {name: _wrapped(item, wrap) for name, item in value.items()}
    if isinstance(value, list):
        return [_wrapped(item, wrap) for item in value]
    if _is_link(value):
        return wrap(value)
    return value


def _map_results(value: object, turn: Callable[[object], object]) -> object:
    if not isinstance(value, dict):
        return value

    turned = {}
    for name, item in value.items():
        if name in _RESULTS:
            turned[name] = turn(item)
        else:
            turned[name] = _map_results(item, turn)
    return turned


#: Other shapes of an entry of a multi-fetch.
ENTRIES: Mapping[str, Callable[[dict[str, Any]], object]] = {
    "no_status": lambda task: {name: value for name, value in task.items() if name != "status"},
    "enveloped": lambda task: {"code": 200, "data": task, "message": "success"},
    "text": lambda task: str(task["status"]),
    "list_result": lambda task: {**task, "task_result": [task["task_result"]]},
}
SWAPPED = "swapped"


def with_entries(value: object, shape: str) -> object:
    """Return the response to a multi-fetch with its entries in another shape, or each under another's id."""
    if not isinstance(value, dict):
        return value
    tasks = value.get("data")
    if not isinstance(tasks, dict) or "task_id" in tasks:
        return value

    if shape == SWAPPED:
        entries = list(tasks.values())
        rotated = entries[1:] + entries[:1]
        return {**value, "data": dict(zip(tasks, rotated, strict=True))}

    turn = ENTRIES[shape]
    turned = {}
    for task_id, task in tasks.items():
        turned[task_id] = turn(task) if isinstance(task, dict) else task
    return {**value, "data": turned}


#: Other shapes of the reason of a failure, where it usually stands.
REASONS: Mapping[str, Callable[[str], object]] = {
    "text": lambda reason: reason,
    "objects": lambda reason: [{"code": 7, "message": reason}],
    "object": lambda reason: {"reason": reason},
    "nested": lambda reason: [[reason]],
    "number": lambda _: 7,
}
#: Other places of it.
ELSEWHERE = ("message", "detail", "logs")


def with_reasons(value: object, shape: str) -> object:
    """Return a response with the reasons of its failed tasks in another shape or place."""
    if not isinstance(value, dict):
        return value
    if str(value.get("status")).lower() not in _FAILED:
        return {name: with_reasons(item, shape) for name, item in value.items()}

    if isinstance(value.get("task_result"), dict):
        return _midjourney_reason(value, shape)
    if isinstance(value.get("error"), dict):
        return _unified_reason(value, shape)
    return value


def _midjourney_reason(task: dict[str, Any], shape: str) -> dict[str, Any]:
    result = task["task_result"]
    reason = " ".join(result.get("error_messages") or ())
    if shape in REASONS:
        return {**task, "task_result": {**result, "error_messages": REASONS[shape](reason)}}

    found: Mapping[str, dict[str, Any]] = {
        "message": {"message": reason},
        "detail": {"detail": {"reason": reason}},
        "logs": {"logs": [reason]},
    }
    return {**task, "task_result": {**result, "error_messages": [], **found[shape]}}


def _unified_reason(task: dict[str, Any], shape: str) -> dict[str, Any]:
    error = task["error"]
    reason = error.get("raw_message") or error.get("message")
    general = {**error, "raw_message": "", "message": "task failed"}

    if shape in REASONS:
        return {**task, "error": {**error, "raw_message": "", "message": REASONS[shape](reason)}}
    if shape == "logs":
        return {**task, "error": general, "logs": ["Attempt 1 failed, retrying.", reason]}
    if shape == "detail":
        return {**task, "error": {**general, "message": "", "detail": {"reason": reason}}}
    return {**task, "error": None, "message": reason}
