"""From an HTTP request to an HTTP response: which function serves which route.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson
from attrs import define, evolve

from piapi_async._http import HTTPRequest, HTTPResponse

from .._service.legnext import VERBS as LEGNEXT_VERBS
from .._service.requests import Protocol, Refusal
from .._service.tasks import Task
from .._service.verbs import VERBS
from . import account, history, legnext, midjourney, older, unified
from .dialect import JSON
from .host import Host
from .routes import Call, find_call

_HEADERS = {"content-type": "application/json"}
_TOO_MANY_REQUESTS = 429

#: The functions that serve the routes, by name.
SERVICES: Mapping[str, Callable[[Host, Call], JSON]] = {
    **dict.fromkeys(VERBS, midjourney.create),
    "fetch": midjourney.fetch,
    "multi_fetch": midjourney.multi_fetch,
    "cancel": midjourney.cancel,
    "task_create": unified.create,
    "task_read": unified.read,
    "task_cancel": unified.cancel,
    "tasks_cancel": unified.cancel_many,
    "face_swap_create": older.create,
    "face_swap_read": older.read,
    "luma_create": older.create,
    "luma_read": older.read,
    "kling_create": older.create,
    "kling_read": older.read,
    **{f"legnext_{verb.task_type}": legnext.create for verb in LEGNEXT_VERBS.values()},
    "legnext_read": legnext.read,
    "legnext_balance": legnext.balance,
    "upload": account.upload,
    "account_info": account.account_info,
    "active_tasks": account.active_tasks,
    "history": history.rows,
}

#: Routes that need no key, unless the dialect says otherwise.
_OPEN_ROUTES = ("fetch", "multi_fetch", "legnext_read")


@define
class Router:
    """Serves the requests to one host."""

    host: Host

    def respond(self, request: HTTPRequest, now: float) -> HTTPResponse:
        """Return the response of the service at `now`, emulated seconds."""
        call = find_call(request.method, request.path)
        if call is None:
            path = request.path.partition("?")[0]
            return self.refuse(path, 404, f"no such endpoint: {path[:200]}")

        call.body, call.key, call.now = request.body, request.headers.get("x-api-key", ""), now
        return self.serve(call)

    def serve(self, call: Call) -> HTTPResponse:
        """Return the response of the service to a call that has been read."""
        protocol = call.route.protocol
        if not call.allowed:
            return _json(405, self.refusal_body(protocol, 405, "method not allowed"))

        try:
            return _json(200, self._serve(call))
        except Refusal as refusal:
            self.host.seen.count_refusal(refusal.message)
            return self._refused(protocol, refusal)

    def refuse(self, path: str, status: int, message: str) -> HTTPResponse:
        """Return a refusal in the protocol that has such paths."""
        protocol = Protocol.UNIFIED if path.startswith("/api/") else Protocol.MIDJOURNEY
        return _json(status, self.refusal_body(protocol, status, message))

    def refusal_body(self, protocol: Protocol, status: int, message: str) -> JSON:
        """Return the body of a refusal in a protocol."""
        if protocol is Protocol.MIDJOURNEY:
            return self.host.view.dialect.refused(message)
        if protocol is Protocol.UNIFIED:
            return unified.refusal_body(status, message)
        if protocol is Protocol.LEGNEXT:
            return legnext.refusal_body(self.host.view, status, message)
        return {"code": status, "data": None, "message": message}

    def webhook_body(self, task: Task, now: float) -> JSON:
        """Return what is posted to the webhook of a task, in the protocol that created it."""
        if task.protocol is Protocol.MIDJOURNEY:
            return midjourney.task_object(self.host.view, task, now)
        if task.protocol is Protocol.LEGNEXT:
            return legnext.job(self.host.view, task, now)
        if task.protocol is Protocol.UNIFIED:
            return unified.webhook_body(self.host.view, task, now)
        return older.task_body(self.host.view, task)

    def _serve(self, call: Call) -> JSON:
        dialect = self.host.view.dialect
        needs_key = call.route.name not in _OPEN_ROUTES or dialect.fetch_needs_key
        if needs_key and call.key not in self.host.api_keys:
            raise Refusal(dialect.invalid_key_message, status=401)
        return SERVICES[call.route.name](self.host, call)

    def _refused(self, protocol: Protocol, refusal: Refusal) -> HTTPResponse:
        body = self.refusal_body(protocol, refusal.status, refusal.message)
        response = _json(refusal.status, body)

        wait = self.host.view.dialect.queue_full_retry_after
        if wait and refusal.status == _TOO_MANY_REQUESTS:
            return evolve(response, headers={**_HEADERS, "retry-after": wait})
        return response


def _json(status: int, body: JSON) -> HTTPResponse:
    return HTTPResponse(status, orjson.dumps(body), _HEADERS)
