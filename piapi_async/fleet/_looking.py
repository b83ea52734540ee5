"""Looks for the task of a submission whose response was lost, before it is left unknown."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson
from attrs import define
from dbos import WorkflowStatus
from sqlalchemy.exc import DBAPIError

from .._calls.threads import in_thread
from .._runtime import Runtime
from .._submit.finder import Finder
from .._submit.known_ids import KnownIds
from .._submit.searching import NOTHING
from ..ledger._recovery import OpenRow, Taken
from ..tasks import TaskId, TaskRef
from . import _codec as codec
from ._codec import RecordedRequest, encode_ref
from ._database import ITEM, Database, chunks
from ._keys import item_of, key_of
from ._persistence import Persistence

Json = dict[str, Any]

_LONGEST_PAUSE = 8.0  # seconds between two looks into the history
_HOPELESS = 2  # looks in a row that end the search: the first may have seen a stranger's task alone
_AT_WORK = ["PENDING", "ENQUEUED"]


@define(eq=False)
class FleetRecords:
    """The submissions of all workers that ask for the same as one that is looked for.

    `lifetime` is the seconds after the mint of a token in which its request may arrive at the host.
    """

    database: Database
    digest: str
    family: str
    lifetime: float

    async def open_rows(self, origin: str, family: str) -> list[OpenRow]:
        """Return those without a task: each is unknown, or may still be answered at another worker."""
        del origin  # a fleet has one
        if family != self.family:
            return []
        return await in_thread(self._read)

    async def known_ids(
        self, origin: str, ids: Sequence[TaskId], since: float, until: float
    ) -> dict[str, str]:
        """Return which tasks are somebody's, whenever they were made."""
        del since, until
        known = await in_thread(partial(self.database.known_tasks, origin, ids))
        return dict.fromkeys(known, "")

    async def give_unknown(self, row: OpenRow, task_id: TaskId, found: str) -> Taken:
        """Make a task a submission's, unless it is another's by now."""
        del found

        def take() -> bool:
            ref = TaskRef(self.database.origin(), self.family, task_id)
            return self.database.take_task(ref, row.key, found=True)

        if await in_thread(take):
            return Taken(task_id)
        return Taken(None, "another submission of this fleet")

    def _read(self) -> list[OpenRow]:
        client = self.database.client
        listed = client.list_workflows(name=ITEM, status=_AT_WORK, load_input=False, load_output=False)
        items = [each.workflow_id for each in listed if (each.attributes or {}).get("digest") == self.digest]
        unknown = [note for note in self.database.notes_in(codec.UNKNOWN) if note.digest == self.digest]
        items += [item_of(note.key, note.attempt) for note in unknown]

        rows: list[OpenRow] = []
        for few in chunks(items):
            for each in client.list_workflows(workflow_ids=list(few), load_output=False):
                row = self._row_of(each)
                if row is not None:
                    rows.append(row)
        return rows

    def _row_of(self, item: WorkflowStatus) -> OpenRow | None:
        """Return an item as a submission without a task; None if nothing of it can be on its way."""
        if item.input is None or self.database.task_of(item.workflow_id) is not None:
            return None

        intent: Json | None = None
        sent: Json | None = None
        for step in self.database.client.list_workflow_steps(item.workflow_id):
            if step["function_name"] == "intend":
                intent, sent = step["output"], None
            elif step["function_name"] == "send":
                sent = step["output"]
        if intent is None or (sent is not None and "unknown" not in sent):
            return None

        request = item.input["args"][0]["request"]
        return OpenRow(
            key=item.workflow_id,
            attempt=key_of(item.workflow_id)[1],
            request=f"{request['path']} {request['body']}",
            body=_endpoint_of(intent),
            sending=sent is None,
            unknown=sent is not None,
            at=intent["at"],
            since=intent["at"],
            until=intent["at"] + self.lifetime,
            offset=intent["offset"],
        )


def _endpoint_of(intent: Json) -> str | None:
    """Return what the worker has added to a body of its own, as `body_as_sent` has it; None for nothing."""
    endpoint = intent["hook"]["endpoint"]
    if endpoint is None:
        return None
    return orjson.dumps({"config": {"endpoint": endpoint}}).decode()


@define(eq=False)
class Lookout:
    """Looks for the tasks of lost submissions, in three places.

    A worker that was given up may still have its answer: it enters the task in the database, although
    the engine refuses the rest.  It began to send before it was given up, so that its answer comes
    within the time-out of one attempt; `lease` is added for good measure.  A webhook delivery may
    reach any worker, which then enters the task too (see `_deliveries`); it is waited for as long as
    the receiver's `adopt_timeout` says.  And the host may have a history, in which the task is
    looked for as long as the client's `recover` says.
    """

    runtime: Runtime
    database: Database
    persistence: Persistence
    lease: float

    @property
    def grace(self) -> float:
        """Seconds for which an answer may still come."""
        return self.runtime.sender.timeout + self.lease

    async def look(
        self, item: str, request: RecordedRequest, intent: Mapping[str, Any], unknown: Json, digest: str
    ) -> Json:
        """Return the task of an item as ``{"ref": …}``, or that it stays unknown."""
        finder = self._finder(digest, request.family.name)
        loop = asyncio.get_running_loop()
        began = loop.time()
        pause = min(1.0, self.lease / 2)
        next_look = pause
        hopeless = 0  # looks in a row
        while True:
            known = await self.persistence.in_thread(
                partial(self.database.task_of, item), f"the look for {item}", key=key_of(item)[0]
            )
            if known is not None:
                return {"ref": encode_ref(known[0]), "found": known[1]}

            waited = loop.time() - began
            history = 0.0
            if finder.can_find(request.family) and hopeless < _HOPELESS:
                history = finder.patience
            if history and waited >= next_look:
                is_hopeless = await self._look_in_history(finder, item)
                hopeless += 1
                if not is_hopeless:
                    hopeless = 0
                next_look = loop.time() - began + min(2 * waited, _LONGEST_PAUSE)
                if waited >= history:
                    next_look = math.inf
                continue
            if waited >= max(self.grace, history, intent["hook"]["seconds"]):
                return {"unknown": unknown}
            await asyncio.sleep(pause)

    async def _look_in_history(self, finder: Finder, item: str) -> bool:
        """Look once; return whether it saw why no later look will find more."""
        try:
            findings = await finder.look_again({item})
            return findings.get(item, NOTHING).is_final
        except DBAPIError as error:  # whose tasks are known: the next look may be luckier
            text = f"the look for {item} waits for the fleet's database: {error.orig}"
            self.runtime.events.notice(logging.WARNING, text, key=key_of(item)[0], error=type(error).__name__)
            return False

    def _finder(self, digest: str, family: str) -> Finder:
        runtime = self.runtime
        lifetime = self.lease / 2 + runtime.sender.timeout
        records = FleetRecords(self.database, digest, family, lifetime)
        return Finder(
            runtime.sender, runtime.origin, records, runtime.submitter.finder.patience, KnownIds(), set()
        )
