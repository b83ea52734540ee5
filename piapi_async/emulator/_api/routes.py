"""Which requests the service serves, and the names that faults and latencies know them by.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from urllib.parse import parse_qsl, unquote

import orjson
from attrs import define, frozen

from .._service.legnext import VERBS as LEGNEXT_VERBS
from .._service.requests import Protocol, Refusal
from .._service.verbs import VERBS
from .dialect import JSON


@frozen
class Route:
    """One endpoint: `name` is what faults, latencies and counts know it by, `group` what it does.

    A path that ends in "/" is followed by a task id.
    """

    name: str
    method: str
    path: str
    protocol: Protocol
    group: str = ""


ROUTES: Mapping[str, Route] = {
    route.name: route
    for route in (
        *(Route(verb, "POST", f"/mj/v2/{verb}", Protocol.MIDJOURNEY, "create") for verb in VERBS),
        Route("fetch", "POST", "/mj/v2/fetch", Protocol.MIDJOURNEY, "read"),
        Route("multi_fetch", "POST", "/mj/v2/multi_fetch", Protocol.MIDJOURNEY, "read"),
        Route("cancel", "POST", "/mj/v2/cancel", Protocol.MIDJOURNEY, "cancel"),
        Route("task_create", "POST", "/api/v1/task", Protocol.UNIFIED, "create"),
        Route("task_read", "GET", "/api/v1/task/", Protocol.UNIFIED, "read"),
        Route("task_cancel", "DELETE", "/api/v1/task/", Protocol.UNIFIED, "cancel"),
        Route("tasks_cancel", "DELETE", "/api/v1/tasks", Protocol.UNIFIED, "cancel"),
        Route("face_swap_create", "POST", "/api/face_swap/v1/async", Protocol.FACE_SWAP, "create"),
        Route("face_swap_read", "POST", "/api/face_swap/v1/fetch", Protocol.FACE_SWAP, "read"),
        Route("luma_create", "POST", "/api/luma/v1/video", Protocol.LUMA, "create"),
        Route("luma_read", "GET", "/api/luma/v1/video/", Protocol.LUMA, "read"),
        Route("kling_create", "POST", "/api/kling/v1/video", Protocol.KLING, "create"),
        Route("kling_read", "GET", "/api/kling/v1/video/", Protocol.KLING, "read"),
        *(
            Route(f"legnext_{verb.task_type}", "POST", f"/api/v1/{name}", Protocol.LEGNEXT, "create")
            for name, verb in LEGNEXT_VERBS.items()
        ),
        Route("legnext_read", "GET", "/api/v1/job/", Protocol.LEGNEXT, "read"),
        Route("legnext_balance", "GET", "/api/account/balance", Protocol.LEGNEXT),
        Route("upload", "POST", "/api/ephemeral_resource", Protocol.ACCOUNT),
        Route("account_info", "GET", "/account/info", Protocol.ACCOUNT),
        Route("active_tasks", "GET", "/account/active_tasks", Protocol.ACCOUNT),
        Route("history", "GET", "/api/open/tasks/histories", Protocol.ACCOUNT),
    )
}

#: Routes of the same purpose in all protocols, and files; faults and latencies may be given for a
#: whole group.
GROUPS: Mapping[str, frozenset[str]] = {
    **{
        group: frozenset(route.name for route in ROUTES.values() if route.group == group)
        for group in ("create", "read", "cancel")
    },
    "download": frozenset({"image", "file"}),
}

#: Every name that faults and latencies know.
KNOWN_ROUTES = frozenset({*ROUTES, *GROUPS, "image", "file", "*"})


@cache
def names_of(route: str) -> tuple[str, ...]:
    """Return the names that include a route, the closest first."""
    groups = (group for group, routes in GROUPS.items() if route in routes)
    return (route, *groups, "*")


def _by_path() -> dict[str, dict[str, Route]]:
    paths: dict[str, dict[str, Route]] = {}
    for route in ROUTES.values():
        paths.setdefault(route.path, {})[route.method] = route
    return paths


_PATHS: Mapping[str, Mapping[str, Route]] = _by_path()


@define  # every request makes one, and a frozen one would take twice as long
class Call:
    """One request to a route; `allowed`: its method is the route's.

    `body`, `key` and `now` are filled in once the request has been read.
    """

    route: Route
    task_id: str
    allowed: bool
    query: Mapping[str, str]
    body: bytes = b""
    key: str = ""
    now: float = 0.0

    def json(self) -> JSON:
        """Return the body; raise `Refusal` if it is not a JSON object."""
        try:
            body = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Refusal(f"invalid JSON: {error}") from error

        if not isinstance(body, dict):
            raise Refusal("invalid JSON: an object is expected")
        return body


def find_call(method: str, path: str) -> Call | None:
    """Return the call that a request to a path, with its query, is; None if nothing is served there."""
    path, _, query = path.partition("?")
    front, _, last = path.rpartition("/")
    task_id = unquote(last) if f"{front}/" in _PATHS else ""

    routes = _PATHS.get(f"{front}/" if task_id else path)
    if routes is None or path.endswith("/"):
        return None

    route = routes.get(method)
    return Call(
        route or next(iter(routes.values())),
        task_id=task_id,
        allowed=route is not None,
        query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
    )
