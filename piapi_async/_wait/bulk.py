"""Calls about any number of tasks, whatever the host takes in one request."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from .._calls.sender import Sender
from .._protocol.family import Family
from .._verdict import Verdict, judge_multi_fetch, judge_read
from ..errors import APIError, AuthenticationError, NotFoundError, UnexpectedAnswer
from ..tasks import Task, TaskId
from .schedule import PollSchedule

_AT_ONCE = 8  # reads of single tasks


async def fetch_many(
    sender: Sender, schedule: PollSchedule, family: Family[Any], task_ids: Sequence[TaskId]
) -> dict[str, Task[Any] | None]:
    """Read tasks, in requests as large as the schedule knows the host to take; None for one the host does not know."""
    ids = list(dict.fromkeys(task_ids))
    found: dict[str, Task[Any] | None] = {}
    while rest := ids[len(found) :]:
        if (size := min(schedule.size(family), len(rest))) > 1:
            found |= await _fetch_chunk(sender, schedule, family, rest[:size])
        else:
            found |= await _fetch_singly(sender, family, rest[:_AT_ONCE])
    return found


async def _fetch_chunk(
    sender: Sender, schedule: PollSchedule, family: Family[Any], ids: Sequence[TaskId]
) -> dict[str, Task[Any] | None]:
    """Read several tasks in one request; nothing where that taught the schedule to ask for fewer.

    Where all are refused because one is unknown, the first few are read one by one; so are those whose entries cannot
    be read.
    """
    assert family.fetch_many is not None  # noqa: S101 - the schedule gives such families the size 1
    try:
        sightings = await sender.call(family.fetch_many(ids), judge_multi_fetch)
    except (APIError, UnexpectedAnswer) as error:
        if schedule.learn(family, len(ids), error):
            return await _fetch_singly(sender, family, ids[:_AT_ONCE]) if isinstance(error, NotFoundError) else {}
        raise
    found: dict[str, Any] = {task_id: sightings.get(task_id) for task_id in ids}
    unread = [task_id for task_id in ids if isinstance(found[task_id], UnexpectedAnswer)]
    for start in range(0, len(unread), _AT_ONCE):
        found |= await _fetch_singly(sender, family, unread[start : start + _AT_ONCE])
    return found


async def _fetch_singly(sender: Sender, family: Family[Any], ids: Sequence[TaskId]) -> dict[str, Task[Any] | None]:
    """Read several tasks at once, each in a request of its own; the first error ends it."""
    reads = [asyncio.create_task(_fetch_or_none(sender, family, task_id)) for task_id in ids]
    try:
        return dict(zip(ids, await asyncio.gather(*reads), strict=True))
    finally:
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def _fetch_or_none(sender: Sender, family: Family[Any], task_id: TaskId) -> Task[Any] | None:
    try:
        return await sender.call(family.fetch(task_id), judge_read)
    except NotFoundError as error:
        if not error.message:  # an edge says so, and not the host
            raise
        return None


async def cancel_all(sender: Sender, family: Family[Any], task_ids: Sequence[TaskId]) -> None:
    """Ask to cancel tasks; where that takes several requests all are made, and the first refusal is raised then.

    A host that is away, or does not take the key, is not asked again for each.
    """
    refused: APIError | None = None
    for request in family.cancel(task_ids) if task_ids else ():
        try:
            await sender.call(request, judge_read)
        except APIError as error:
            if isinstance(error, AuthenticationError) or judge_read(error) is Verdict.RETRY:
                raise
            refused = refused or error  # one that has begun is no reason to let the others begin
    if refused is not None:
        raise refused
