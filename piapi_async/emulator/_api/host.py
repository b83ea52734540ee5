"""The front desk: one HTTP request in, one HTTP answer out.  Pure: no sockets, and the caller says what time it is."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import orjson
from attrs import define, evolve, field

from piapi_async._http import HTTPRequest, HTTPResponse

from .._service.observed import Seen
from .._service.requests import MIDJOURNEY, Ask, Door, Refused
from .._service.verbs import VERBS, asked
from . import account as _beside
from . import history as _history
from . import older as _classic
from . import unified as _unified
from .account import Uploads
from .routes import Call, find

if TYPE_CHECKING:
    from .._service.engine import Machine
    from .._service.tasks import Task
    from .dialect import JSON, View

_HEADERS = {"content-type": "application/json"}


@define
class Desk:
    """Answers requests over a machine's tasks, as one host with one set of API keys."""

    machine: Machine
    view: View
    api_keys: frozenset[str]
    seen: Seen = field(factory=Seen)
    uploads: Uploads = field(factory=Uploads)
    made: Task | None = None
    _ids: dict[str, str] = field(factory=dict)

    # -- from a request to an answer ------------------------------------------------------------------------------

    def answer(self, request: HTTPRequest, now: float) -> HTTPResponse:
        """Return the answer of the service at `now`; `made` is then the task this request made, if any."""
        self.made = None
        key = request.headers.get("x-api-key", "")
        call = find(request.method, request.path, body=request.body, key=key, now=now)
        if call is None:
            path = request.path.partition("?")[0]
            return self.refuse(path, 404, f"no such endpoint: {path[:200]}")
        door = call.route.door
        if not call.allowed:
            return self._say(405, self.refusal(door, 405, "method not allowed"))
        try:
            return self._say(200, self._serve(call))
        except Refused as refusal:
            self.seen.refuse(refusal.message)
            return self._refuse(door, refusal)

    def refuse(self, path: str, status: int, message: str) -> HTTPResponse:
        """Return the refusal of a request to `path` whatever it asks for."""
        door = Door.UNIFIED if path.startswith("/api/") else Door.MIDJOURNEY
        return self._say(status, self.refusal(door, status, message))

    def refusal(self, door: Door, status: int, message: str) -> JSON:
        """Return the body of a refusal, as the protocol has it."""
        if door is Door.MIDJOURNEY:
            return self.view.dialect.refused(message)
        if door is Door.UNIFIED:
            return _unified.refused(status, message)
        return {"code": status, "data": None, "message": message}

    def told(self, task: Task, now: float) -> JSON:
        """Return what the webhook of a task is told, in the protocol that the task came by."""
        if task.door is Door.MIDJOURNEY:
            return self.view.fetched(task, now)
        if task.door is Door.UNIFIED:
            return _unified.told(self.view, task, now)
        return _classic.told(self.view, task, now)

    def account(self, key: str) -> str:
        """Return the account id behind a key: always the same one, and the key cannot be read from it."""
        return self._id("" if self.view.dialect.one_account else key)

    def key_id(self, key: str) -> str:
        """Return the id of a key."""
        return self._id(f"key of {key}")

    def _id(self, of: str) -> str:
        if of not in self._ids:
            self._ids[of] = str(uuid.UUID(bytes=hashlib.sha256(of.encode()).digest()[:16], version=4))
        return self._ids[of]

    def create(self, ask: Ask, call: Call) -> Task:
        """Make what is asked for."""
        account, key_id = self.account(call.key), self.key_id(call.key)
        self.made = self.machine.create(ask, account=account, now=call.now, key_id=key_id)
        self.seen.created(self.made, call.key)
        return self.made

    def look(self, task_id: str, now: float) -> Task:
        """Return a task that somebody reads; `Refused` if there is none."""
        self.seen.asked([task_id], self.machine.tasks)
        task = self.machine.get(task_id, now=now)
        if task is None:
            raise self.unknown()
        self.seen.shown(task, now)
        return task

    def unknown(self) -> Refused:
        """Return the refusal of an id that nobody knows."""
        dialect = self.view.dialect
        return Refused(dialect.unknown_task_message, status=dialect.unknown_task_status)

    def _serve(self, call: Call) -> JSON:
        open_door = call.route.name in ("fetch", "multi_fetch") and not self.view.dialect.fetch_needs_key
        if call.key not in self.api_keys and not open_door:
            raise Refused(self.view.dialect.invalid_key_message, status=401)
        return _SERVES[call.route.name](self, call)

    # -- the legacy protocol --------------------------------------------------------------------------------------

    def _create(self, call: Call) -> JSON:
        return self.view.dialect.created(self.create(asked(call.route.name, call.json()), call).task_id)

    def _fetch(self, call: Call) -> JSON:
        task_id = call.json().get("task_id")
        if not isinstance(task_id, str) or not task_id:
            raise Refused("task_id is required")
        task = self.look(task_id, call.now)
        if task.model != MIDJOURNEY:
            raise self.unknown()
        return self.view.fetched(task, call.now)

    def _multi_fetch(self, call: Call) -> JSON:
        dialect, now = self.view.dialect, call.now
        if not dialect.multi_fetch:
            raise Refused("no such endpoint: /mj/v2/multi_fetch", status=dialect.multi_fetch_off_status)
        task_ids = _ids(call.json())
        if len(task_ids) > dialect.multi_fetch_max:
            raise Refused(f"too many task_ids: {len(task_ids)}, at most {dialect.multi_fetch_max}")
        self.seen.asked(task_ids, self.machine.tasks)
        data: JSON = {}
        for task_id in task_ids:
            task = self.machine.get(task_id, now=now)
            if task is not None and task.model == MIDJOURNEY:
                self.seen.shown(task, now)
                data[task_id] = self.view.fetched(task, now)
            elif dialect.multi_unknown == "null":
                data[task_id] = None
        return {"data": data}

    def _cancel(self, call: Call) -> JSON:
        task_ids, account = _ids(call.json()), self.account(call.key)
        tasks = [self.machine.tasks.get(task_id) for task_id in task_ids]
        if any(task is None or task.account != account for task in tasks):
            raise self.unknown()
        taken_back = [self.machine.cancel(task_id, now=call.now) for task_id in task_ids]
        if not any(taken_back) and self.view.dialect.late_cancel == "refuse":
            raise Refused("task has already started")
        return self.view.dialect.cancelled()

    def _refuse(self, door: Door, refusal: Refused) -> HTTPResponse:
        answer = self._say(refusal.status, self.refusal(door, refusal.status, refusal.message))
        wait = self.view.dialect.queue_full_retry_after
        if refusal.status == 429 and wait:  # noqa: PLR2004 - Too Many Requests
            return evolve(answer, headers={**_HEADERS, "retry-after": wait})
        return answer

    def _say(self, status: int, answer: JSON) -> HTTPResponse:
        return HTTPResponse(status, orjson.dumps(answer), _HEADERS)


def _ids(body: JSON) -> list[str]:
    task_ids = body.get("task_ids")
    if not isinstance(task_ids, list) or not task_ids or not all(isinstance(item, str) for item in task_ids):
        raise Refused("task_ids must be a list of task ids")
    return task_ids


_SERVES: Mapping[str, Callable[[Desk, Call], JSON]] = {
    **dict.fromkeys(VERBS, Desk._create),  # noqa: SLF001 - the table of the class's own methods
    "fetch": Desk._fetch,  # noqa: SLF001
    "multi_fetch": Desk._multi_fetch,  # noqa: SLF001
    "cancel": Desk._cancel,  # noqa: SLF001
    "task_create": _unified.create,
    "task_read": _unified.read,
    "task_cancel": _unified.cancel,
    "tasks_cancel": _unified.cancel_many,
    **dict.fromkeys(("face_swap_create", "luma_create", "kling_create"), _classic.create),
    **dict.fromkeys(("face_swap_read", "luma_read", "kling_read"), _classic.read),
    "upload": _beside.upload,
    "account_info": _beside.account_info,
    "active_tasks": _beside.active_tasks,
    "history": _history.rows,
}
