"""The families of tasks as tests know them: the same reroll of a parent, said in either protocol.

A test that takes the fixture `case` runs once for each.  The emulator has the same machine behind both, so what a test
finds there (`task.origin`, `creates_by_parent`, the words of its refusals) is the same, too; where faults go to a group
of its routes ("create", "read", "cancel"), a test need not even ask which family it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen

from piapi_async import LEGACY, UNIFIED, CreateTask, Reroll
from piapi_async._protocol.family import Family, TaskRequest


def _unified_reroll(parent: str, **fields: Any) -> CreateTask:
    around = {name: fields.pop(name) for name in ("webhook_endpoint", "webhook_secret") if name in fields}
    return CreateTask("midjourney", "reroll", {"origin_task_id": parent, **fields}, **around)


@frozen
class FamilyCase:
    """One family: how its rerolls are asked for, and what the emulator calls its routes.

    `accepted` and `busy` are answers to a create; `files` is how many files of a reroll's grid are saved.
    """

    family: Family[Any]
    reroll: Callable[..., TaskRequest[Any]]
    create: str
    read: str
    cancel: str
    accepted: bytes
    busy: bytes
    files: int

    def __str__(self) -> str:
        return self.family.name


LEGACY_CASE = FamilyCase(
    family=LEGACY,
    reroll=Reroll,
    create="reroll",
    read="fetch",
    cancel="cancel",
    accepted=b'{"task_id": "t1", "status": "success", "message": ""}',
    busy=b'{"message": "no available bot"}',
    files=4,
)
UNIFIED_CASE = FamilyCase(
    family=UNIFIED,
    reroll=_unified_reroll,
    create="task_create",
    read="task_read",
    cancel="task_cancel",
    accepted=json.dumps({"code": 200, "data": {"task_id": "t1", "status": "pending"}, "message": "success"}).encode(),
    busy=json.dumps({"code": 400, "data": None, "message": "no available bot"}).encode(),
    files=6,
)
CASES = {case.family.name: case for case in (LEGACY_CASE, UNIFIED_CASE)}
