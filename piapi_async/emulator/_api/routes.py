"""Which requests the service serves, by name.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qsl, unquote

import orjson
from attrs import frozen

from .._service.requests import Door, Refused
from .._service.verbs import VERBS
from .dialect import JSON


@frozen
class Route:
    """One request: `name` is how faults, latencies and counts speak of it, `group` what it does, `door` its protocol.

    A path that ends in "/" is followed by a task id.
    """

    name: str
    method: str
    path: str
    door: Door
    group: str = ""


ROUTES: Mapping[str, Route] = {
    route.name: route
    for route in (
        *(Route(verb, "POST", f"/mj/v2/{verb}", Door.MIDJOURNEY, "create") for verb in VERBS),
        Route("fetch", "POST", "/mj/v2/fetch", Door.MIDJOURNEY, "read"),
        Route("multi_fetch", "POST", "/mj/v2/multi_fetch", Door.MIDJOURNEY, "read"),
        Route("cancel", "POST", "/mj/v2/cancel", Door.MIDJOURNEY, "cancel"),
        Route("task_create", "POST", "/api/v1/task", Door.UNIFIED, "create"),
        Route("task_read", "GET", "/api/v1/task/", Door.UNIFIED, "read"),
        Route("task_cancel", "DELETE", "/api/v1/task/", Door.UNIFIED, "cancel"),
        Route("tasks_cancel", "DELETE", "/api/v1/tasks", Door.UNIFIED, "cancel"),
        Route("face_swap_create", "POST", "/api/face_swap/v1/async", Door.FACE_SWAP, "create"),
        Route("face_swap_read", "POST", "/api/face_swap/v1/fetch", Door.FACE_SWAP, "read"),
        Route("luma_create", "POST", "/api/luma/v1/video", Door.LUMA, "create"),
        Route("luma_read", "GET", "/api/luma/v1/video/", Door.LUMA, "read"),
        Route("kling_create", "POST", "/api/kling/v1/video", Door.KLING, "create"),
        Route("kling_read", "GET", "/api/kling/v1/video/", Door.KLING, "read"),
        Route("upload", "POST", "/api/ephemeral_resource", Door.ACCOUNT),
        Route("account_info", "GET", "/account/info", Door.ACCOUNT),
        Route("active_tasks", "GET", "/account/active_tasks", Door.ACCOUNT),
        Route("history", "GET", "/api/open/tasks/histories", Door.ACCOUNT),
    )
}

#: What faults and latencies may also be given to: the routes that do the same, in whichever protocol.
GROUPS: Mapping[str, frozenset[str]] = {
    **{
        group: frozenset(route.name for route in ROUTES.values() if route.group == group)
        for group in ("create", "read", "cancel")
    },
    "download": frozenset({"image", "file"}),
}

#: Every name that faults and latencies know.
KNOWN_ROUTES = frozenset({*ROUTES, *GROUPS, "image", "file", "*"})


def names_of(route: str) -> Iterator[str]:
    """Give the names that speak of a route, the closest first."""
    yield route
    yield from (group for group, routes in GROUPS.items() if route in routes)
    yield "*"


def _by_path() -> dict[str, dict[str, Route]]:
    paths: dict[str, dict[str, Route]] = {}
    for route in ROUTES.values():
        paths.setdefault(route.path, {})[route.method] = route
    return paths


_PATHS: Mapping[str, Mapping[str, Route]] = _by_path()


@frozen
class Call:
    """One request to a route: `allowed` says whether its method is the route's."""

    route: Route
    task_id: str = ""
    allowed: bool = True
    query: Mapping[str, str] = {}
    body: bytes = b""
    key: str = ""
    now: float = 0.0

    def json(self) -> JSON:
        """Return the body; `Refused` if it is no JSON object."""
        try:
            body = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise Refused(f"invalid JSON: {error}") from error
        if not isinstance(body, dict):
            raise Refused("invalid JSON: an object is expected")
        return body


def find(method: str, path: str, *, body: bytes = b"", key: str = "", now: float = 0.0) -> Call | None:
    """Return the call a request makes, None where nothing is served."""
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
        query=dict(parse_qsl(query, keep_blank_values=True)),
        body=body,
        key=key,
        now=now,
    )
