"""The families of tasks as tests know them: the same reroll of a parent, said in each protocol.

A test that takes the fixture `case` runs once for each.  The emulator has the same machine behind both, so what a test
finds there (`task.origin`, `creates_by_parent`, the words of its refusals) is the same, too; where faults go to a group
of its routes ("create", "read", "cancel"), a test need not even ask which family it has.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen

from piapi_async import LEGACY, UNIFIED, CreateTask, Imagine, Reroll, legnext
from piapi_async._protocol.family import Family, TaskRequest


def _unified_reroll(parent: str, **fields: Any) -> CreateTask:
    around = {name: fields.pop(name) for name in ("webhook_endpoint", "webhook_secret") if name in fields}
    return CreateTask("midjourney", "reroll", {"origin_task_id": parent, **fields}, **around)


@frozen
class FamilyCase:
    """One family: how its rerolls are asked for, and what the emulator calls its routes.

    `accepted` and `busy` are answers to a create; `files` is how many files of a reroll's grid are saved; `done` is the
    word for a good end, and `unknown` what is said of an unknown id.  `many`: tasks are read together; `cancels`: they
    can be cancelled; `progress`: their progress is told; `secret`: a request takes a webhook secret.
    """

    family: Family[Any]
    imagine: Callable[[str], TaskRequest[Any]]
    reroll: Callable[..., TaskRequest[Any]]
    create: str
    read: str
    cancel: str
    accepted: bytes
    busy: bytes
    files: int
    done: str
    unknown: str = "task not found"
    many: bool = False
    cancels: bool = True
    progress: bool = True
    secret: bool = True

    def __str__(self) -> str:
        return self.family.name


LEGACY_CASE = FamilyCase(
    family=LEGACY,
    imagine=Imagine,
    reroll=Reroll,
    create="reroll",
    read="fetch",
    cancel="cancel",
    accepted=b'{"task_id": "t1", "status": "success", "message": ""}',
    busy=b'{"message": "no available bot"}',
    files=4,
    done="finished",
    many=True,
)
UNIFIED_CASE = FamilyCase(
    family=UNIFIED,
    imagine=lambda prompt: CreateTask("midjourney", "imagine", {"prompt": prompt}),
    reroll=_unified_reroll,
    create="task_create",
    read="task_read",
    cancel="task_cancel",
    accepted=json.dumps(
        {"code": 200, "data": {"task_id": "t1", "status": "pending"}, "message": "success"}
    ).encode(),
    busy=json.dumps({"code": 400, "data": None, "message": "no available bot"}).encode(),
    files=4,
    done="completed",
)


def _legnext_reroll(parent: str, *, webhook_secret: str = "", **fields: Any) -> TaskRequest[Any]:
    """Return what draws a grid anew there, and takes a prompt: a variation of the first picture."""
    return legnext.Variation(parent, 1, **fields)


LEGNEXT_CASE = FamilyCase(
    family=legnext.LEGNEXT,
    imagine=legnext.Imagine,
    reroll=_legnext_reroll,
    create="legnext_variation",
    read="legnext_read",
    cancel="cancel",
    accepted=json.dumps({"job_id": "t1", "status": "pending", "error": {"code": 0, "message": ""}}).encode(),
    busy=json.dumps({"code": 400, "message": "no available bot", "raw_message": "", "detail": None}).encode(),
    files=4,
    done="completed",
    unknown="job not found",
    cancels=False,
    progress=False,
    secret=False,
)
CASES = {case.family.name: case for case in (LEGACY_CASE, UNIFIED_CASE, LEGNEXT_CASE)}
