"""Which item of the fleet a webhook delivery is for, if its response was lost, whichever worker has sent it.

Workers behind one URL, with one secret, each receive a share of the deliveries.  The nonce of an
endpoint is made from the item, so that any of them knows it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from attrs import frozen
from sqlalchemy.exc import DBAPIError

from .._calls.threads import in_thread
from .._families import FAMILIES
from .._protocol.family import Family
from .._submit.nonces import nonce_of
from ..errors import PiAPIError
from ..tasks import Task, TaskId, TaskRef
from . import _codec as codec
from ._database import ITEM, Database
from ._jobs import listed_item
from ._keys import item_of, key_of, nonce_key_of

_MOST = 1000  # items; those that were begun are the oldest, and first


@frozen
class FleetSubmissions:
    """The items without a task, of all workers, as `Correlation` asks for them."""

    database: Database
    origin: str

    async def names(self, task_ids: Sequence[TaskId], secret: str) -> Mapping[str, str]:
        """Return the items by their nonces; {} if all these tasks are somebody's.  Raises `PiAPIError`."""
        items = await self._read(partial(self._open_items, task_ids))
        return {nonce_of(nonce_key_of(item), secret): item for item in items}

    async def family_of(self, name: str) -> Family[Any] | None:
        """Return the protocol of an item, None if it has a task.  Raises `PiAPIError`."""
        family = await self._read(partial(self._family_of, name))
        return FAMILIES.get(family or "")

    async def attach(self, name: str, family: Family[Any], task: Task[Any]) -> str | None:
        """Record the task of an item; whoever looks for it, or has it as unknown, finds it there."""
        ref = TaskRef(self.origin, family.name, task.task_id)
        if not await self._read(partial(self.database.take_task, ref, name)):
            return None
        return key_of(name)[0]

    async def _read(self, work: Any) -> Any:  # noqa: ANN401 - any call of the database
        try:
            return await in_thread(work)
        except DBAPIError as error:
            raise PiAPIError(f"the fleet's database is out of reach: {error.orig}") from error

    def _open_items(self, task_ids: Sequence[TaskId]) -> list[str]:
        database = self.database
        # Most deliveries are about tasks of other workers: one small query tells.
        if database.known_tasks(self.origin, task_ids).issuperset(task_ids):
            return []

        items = [item_of(note.key, note.attempt) for note in database.notes_in(codec.UNKNOWN)]
        for status in ("PENDING", "ENQUEUED"):
            listed = database.client.list_workflows(
                name=ITEM, status=status, limit=_MOST, load_input=False, load_output=False
            )
            items += [each.workflow_id for each in listed]
        return items

    def _family_of(self, item: str) -> str | None:
        listed = listed_item(self.database, item, load=True)
        if listed is None or listed.input is None or self.database.task_of(item) is not None:
            return None
        return str(listed.input["args"][0]["request"]["family"])
