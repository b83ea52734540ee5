"""The front desk: one HTTP request in, one HTTP answer out.  Pure: no sockets, and the caller says what time it is."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from attrs import define, evolve, field

from piapi_async._wire import HTTPRequest, HTTPResponse

from ._seen import Seen
from ._verbs import VERBS, Refused

if TYPE_CHECKING:
    from ._answers import JSON, View
    from ._life import Task
    from ._machine import Machine

_HEADERS = {"content-type": "application/json"}

#: Path -> the name by which faults, latencies and counts speak of it.
ROUTES: Mapping[str, str] = {f"/mj/v2/{name}": name for name in (*VERBS, "fetch", "multi_fetch", "cancel")}


@define
class Desk:
    """Answers requests over a machine's tasks, as one host with one set of API keys."""

    machine: Machine
    view: View
    api_keys: frozenset[str]
    seen: Seen = field(factory=Seen)
    made: Task | None = None
    _accounts: dict[str, str] = field(factory=dict)

    def answer(self, request: HTTPRequest, now: float) -> HTTPResponse:
        """Return the answer of the service at `now`; `made` is then the task this request made, if any."""
        self.made = None
        path = request.path.partition("?")[0]
        route = ROUTES.get(path)
        if route is None:
            return self._say(404, self._refusal(f"no such endpoint: {path}"))
        if request.method != "POST":
            return self._say(405, self._refusal("method not allowed"))
        try:
            return self._say(200, self._serve(route, request, now))
        except Refused as refusal:
            self.seen.refused[refusal.message] += 1
            return self._refuse(refusal)

    def account(self, key: str) -> str:
        """Return the account id behind a key: always the same one, and the key cannot be read from it."""
        if key not in self._accounts:
            self._accounts[key] = str(uuid.UUID(bytes=hashlib.sha256(key.encode()).digest()[:16], version=4))
        return self._accounts[key]

    def _serve(self, route: str, request: HTTPRequest, now: float) -> JSON:
        key = request.headers.get("x-api-key", "")
        open_door = route in ("fetch", "multi_fetch") and not self.view.dialect.fetch_needs_key
        if key not in self.api_keys and not open_door:
            raise Refused(self.view.dialect.invalid_key_message, status=401)
        if route in VERBS:
            return self._create(route, _body(request), key, now)
        answers: Mapping[str, Callable[[JSON, str, float], JSON]] = {
            "fetch": self._fetch,
            "multi_fetch": self._multi_fetch,
            "cancel": self._cancel,
        }
        return answers[route](_body(request), key, now)

    def _create(self, verb: str, body: JSON, key: str, now: float) -> JSON:
        self.made = self.machine.create(verb, body, account=self.account(key), now=now)
        self.seen.created(self.made, key)
        return self.view.dialect.created(self.made.task_id)

    def _fetch(self, body: JSON, _key: str, now: float) -> JSON:
        task_id = body.get("task_id")
        if not isinstance(task_id, str) or not task_id:
            raise Refused("task_id is required")
        self.seen.asked([task_id])
        task = self.machine.get(task_id, now=now)
        if task is None:
            raise self._unknown()
        self.seen.shown(task, now)
        return self.view.fetched(task, now)

    def _multi_fetch(self, body: JSON, _key: str, now: float) -> JSON:
        dialect = self.view.dialect
        if not dialect.multi_fetch:
            raise Refused("no such endpoint: /mj/v2/multi_fetch", status=dialect.multi_fetch_off_status)
        task_ids = _ids(body)
        if len(task_ids) > dialect.multi_fetch_max:
            raise Refused(f"too many task_ids: {len(task_ids)}, at most {dialect.multi_fetch_max}")
        self.seen.asked(task_ids)
        data: JSON = {}
        for task_id in task_ids:
            task = self.machine.get(task_id, now=now)
            if task is not None:
                self.seen.shown(task, now)
                data[task_id] = self.view.fetched(task, now)
            elif dialect.multi_unknown == "null":
                data[task_id] = None
        return {"data": data}

    def _cancel(self, body: JSON, key: str, now: float) -> JSON:
        task_ids, account = _ids(body), self.account(key)
        tasks = [self.machine.tasks.get(task_id) for task_id in task_ids]
        if any(task is None or task.account != account for task in tasks):
            raise self._unknown()
        taken_back = [self.machine.cancel(task_id, now=now) for task_id in task_ids]
        if not any(taken_back) and self.view.dialect.late_cancel == "refuse":
            raise Refused("task has already started")
        return self.view.dialect.cancelled()

    def _unknown(self) -> Refused:
        dialect = self.view.dialect
        return Refused(dialect.unknown_task_message, status=dialect.unknown_task_status)

    def _refusal(self, message: str) -> JSON:
        return self.view.dialect.refused(message)

    def _refuse(self, refusal: Refused) -> HTTPResponse:
        answer = self._say(refusal.status, self._refusal(refusal.message))
        wait = self.view.dialect.queue_full_retry_after
        if refusal.status == 429 and wait:  # noqa: PLR2004 - Too Many Requests
            return evolve(answer, headers={**_HEADERS, "retry-after": wait})
        return answer

    def _say(self, status: int, answer: JSON) -> HTTPResponse:
        return HTTPResponse(status, orjson.dumps(answer), _HEADERS)


def _body(request: HTTPRequest) -> JSON:
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        raise Refused(f"invalid JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refused("invalid JSON: an object is expected")
    return body


def _ids(body: JSON) -> list[str]:
    task_ids = body.get("task_ids")
    if not isinstance(task_ids, list) or not task_ids or not all(isinstance(item, str) for item in task_ids):
        raise Refused("task_ids must be a list of task ids")
    return task_ids
