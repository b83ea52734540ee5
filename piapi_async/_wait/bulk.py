"""Calls about any number of tasks, in as many requests as the host needs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, TypeAlias

import anyio

from .._calls.groups import unwrapped_group
from .._calls.sender import Sender
from .._protocol.family import Family
from .._verdict import Verdict, judge_multi_fetch, judge_read
from ..errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    NotFoundError,
    PiAPIError,
    UnexpectedAnswer,
)
from ..tasks import Task, TaskId
from .schedule import PollSchedule

_SINGLES_AT_ONCE = 8
_LEAVING_SECONDS = 5.0  # in which a caller who leaves has a task cancelled

Found: TypeAlias = dict[str, Task[Any] | None]
"""Tasks by id; None for one that the host does not know."""


async def fetch_many(
    sender: Sender,
    schedule: PollSchedule,
    family: Family[Any],
    task_ids: Sequence[TaskId],
) -> Found:
    """Return tasks by id, with None for one that the host does not know.

    A request asks for as many as the schedule knows the host to take.
    """
    ids = list(dict.fromkeys(task_ids))
    found: Found = {}
    while len(found) < len(ids):
        rest = ids[len(found) :]
        size = schedule.size(family)
        if size > 1 and len(rest) > 1:
            found |= await _fetch_chunk(sender, schedule, family, rest[:size])
        else:
            found |= await _fetch_singly(sender, family, rest[:_SINGLES_AT_ONCE])
    return found


async def _fetch_chunk(
    sender: Sender,
    schedule: PollSchedule,
    family: Family[Any],
    ids: Sequence[TaskId],
) -> Found:
    """Read several tasks in one request; return {} if that taught the schedule to ask for fewer.

    If all are refused because one is unknown, the first few are read singly; so are those whose
    entries cannot be read.
    """
    assert family.fetch_many is not None  # noqa: S101 - the schedule gives such families the size 1
    try:
        readings = await sender.call(family.fetch_many(ids), judge_multi_fetch)
    except (APIError, UnexpectedAnswer) as error:
        if not schedule.learn(family, len(ids), error):
            raise
        if isinstance(error, NotFoundError):
            return await _fetch_singly(sender, family, ids[:_SINGLES_AT_ONCE])
        return {}

    found: dict[str, Any] = {task_id: readings.get(task_id) for task_id in ids}
    unreadable = [task_id for task_id in ids if isinstance(found[task_id], UnexpectedAnswer)]
    for start in range(0, len(unreadable), _SINGLES_AT_ONCE):
        found |= await _fetch_singly(sender, family, unreadable[start : start + _SINGLES_AT_ONCE])
    return found


async def _fetch_singly(sender: Sender, family: Family[Any], ids: Sequence[TaskId]) -> Found:
    """Read several tasks at once, each in a request of its own; the first error ends it."""
    found: Found = dict.fromkeys(ids)

    async def fetch(task_id: TaskId) -> None:
        found[task_id] = await _fetch_or_none(sender, family, task_id)

    async with unwrapped_group() as group:
        for task_id in ids:
            group.start_soon(fetch, task_id)
    return found


async def _fetch_or_none(sender: Sender, family: Family[Any], task_id: TaskId) -> Task[Any] | None:
    try:
        return await sender.call(family.fetch(task_id), judge_read)
    except NotFoundError as error:
        if not error.message:  # an edge says so, not the host
            raise
        return None


async def cancel_all(sender: Sender, family: Family[Any], task_ids: Sequence[TaskId]) -> None:
    """Ask the host to cancel tasks.

    If that takes several requests, all are made before the first refusal is raised.  A host that is
    away, or refuses the key, is not asked again for each.
    """
    if not task_ids:
        return

    refusal: APIError | None = None
    for request in family.cancel(task_ids):
        try:
            await sender.call(request, judge_read)
        except APIError as error:
            if isinstance(error, AuthenticationError) or judge_read(error) is Verdict.RETRY:
                raise
            refusal = refusal or error  # one that has begun is no reason to let the others begin

    if refusal is not None:
        raise refusal


async def cancel_for_leaver(sender: Sender, family: Family[Any], task_id: TaskId) -> bool:
    """Cancel a task whose caller is being cancelled, or has gone: briefly; return whether the host agreed.

    A client that is being closed waits for this.
    """
    with anyio.move_on_after(_LEAVING_SECONDS, shield=True), contextlib.suppress(PiAPIError):
        try:
            await cancel_all(sender, family, [task_id])
        except ClientClosed:
            for request in family.cancel([task_id]):
                await sender.last_read(request)
        return True
    return False
