"""One host with one set of API keys: the state that all protocols share.  Pure."""

from __future__ import annotations

import hashlib
import uuid

from attrs import define, field

from .._service.engine import TaskEngine, is_known
from .._service.observed import Seen
from .._service.requests import CreateRequest, Protocol, Refusal
from .._service.tasks import Task
from .._service.uploads import Uploads
from .routes import Call
from .view import View


@define
class Host:
    """The engine with the tasks, how responses show them, and what was seen of clients."""

    engine: TaskEngine
    view: View
    api_keys: frozenset[str]
    seen: Seen = field(factory=Seen)
    uploads: Uploads = field(factory=Uploads)
    _ids: dict[str, str] = field(factory=dict)

    def create(self, request: CreateRequest, call: Call) -> Task:
        """Return the new task of a checked create; raise `Refusal` if the service does not take it now."""
        task = self.engine.create(
            request,
            account=self.account_of(request.protocol, call.key),
            now=call.now,
            key_id=self.key_id(call.key),
        )
        self.seen.count_create(task, call.key)
        return task

    def read(self, task_id: str, now: float, protocol: Protocol = Protocol.UNIFIED) -> Task:
        """Return a task that a client reads, and count that; raise `Refusal` if there is none."""
        self.seen.count_read([task_id], self.engine.tasks)

        task = self.find(task_id, now, protocol)
        if task is None:
            if protocol is Protocol.LEGNEXT:
                raise Refusal("job not found", status=404)
            raise self.unknown_task()

        self.seen.note_shown(task, now)
        return task

    def find(self, task_id: str, now: float, protocol: Protocol) -> Task | None:
        """Return a task as it is, None if the vendor of the protocol does not know it."""
        task = self.engine.get(task_id, now=now)
        if task is None or not is_known(task, protocol):
            return None
        return task

    def unknown_task(self) -> Refusal:
        """Return the refusal of an unknown id."""
        dialect = self.view.dialect
        return Refusal(dialect.unknown_task_message, status=dialect.unknown_task_status)

    def account_of(self, protocol: Protocol, key: str) -> str:
        """Return the account behind a key at the vendor of a protocol: LegNext has accounts of its own."""
        if protocol is Protocol.LEGNEXT:
            return self._id(f"{self.account_id(key)} at LegNext")
        return self.account_id(key)

    def account_id(self, key: str) -> str:
        """Return the account id behind a key: always the same one, from which the key cannot be told."""
        return self._id("" if self.view.dialect.one_account else key)

    def key_id(self, key: str) -> str:
        """Return the id of a key."""
        return self._id(f"key of {key}")

    def _id(self, of: str) -> str:
        if of not in self._ids:
            digest = hashlib.sha256(of.encode()).digest()
            self._ids[of] = str(uuid.UUID(bytes=digest[:16], version=4))
        return self._ids[of]
