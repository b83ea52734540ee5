"""Submissions without a task, wherever they are recorded: a delivery may be for one of another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from attrs import frozen

from .._families import FAMILIES
from .._protocol.family import Family
from ..tasks import Task, TaskId, TaskRef
from .nonces import nonce_of

if TYPE_CHECKING:
    from ..ledger._writer import LedgerWriter


class OpenSubmissions(Protocol):
    """The records of submissions, of any process, that have no task yet."""

    async def names(self, task_ids: Sequence[TaskId], secret: str) -> Mapping[str, str]:
        """Return their names here, by the nonces of their endpoints; `task_ids` are those delivered."""
        ...

    async def family_of(self, name: str) -> Family[Any] | None:
        """Return the protocol of one, None if it is no longer open, or not of this host."""
        ...

    async def attach(self, name: str, family: Family[Any], task: Task[Any]) -> str | None:
        """Record its task; return its key, None if the task is another's."""
        ...


@frozen(eq=False, repr=False)
class LedgerSubmissions:
    """Those of a ledger, which is their keys'."""

    ledger: LedgerWriter
    origin: str

    async def names(self, task_ids: Sequence[TaskId], secret: str) -> Mapping[str, str]:
        """Return their keys by their nonces.  Raises `LedgerError`."""
        del task_ids
        return {nonce_of(key, secret, attempt=attempt): key for key, attempt in await self.ledger.open_keys()}

    async def family_of(self, name: str) -> Family[Any] | None:
        """Return the protocol that a key belongs to, None for an unknown one.  Raises `LedgerError`."""
        entry = await self.ledger.find(name)
        if entry is None or entry.origin != self.origin:
            return None
        return FAMILIES.get(entry.family)

    async def attach(self, name: str, family: Family[Any], task: Task[Any]) -> str | None:
        """Record the task of a key, and its end if it has one.  Raises `LedgerError`."""
        if not await self.ledger.attach_task(name, task.task_id):
            return None
        if task.state.terminal:
            self.ledger.end(TaskRef(self.origin, family.name, task.task_id), task.state.value, task.raw)
        return name
