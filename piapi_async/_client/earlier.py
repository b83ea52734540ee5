"""Tasks that ended in an earlier run."""

from __future__ import annotations

import contextlib
from typing import TypeVar

import orjson

from .._protocol.family import Family
from ..errors import NotFoundError, PiAPIError, TaskCancelled, TaskFailed, end_error
from ..handle import TaskHandle
from ..ledger import LedgerEntry
from ..tasks import Task, TaskId, TaskState

R = TypeVar("R")

WITHOUT_RESULT = frozenset({TaskState.FAILED.value, TaskState.CANCELLED.value})
"""How a task ends that is worth another attempt."""


async def read_ended(handle: TaskHandle[R], entry: LedgerEntry, family: Family[R]) -> Task[R]:
    """Return a task that ended in an earlier run, from the host or else from the ledger.

    The host's links may be fresher.  Of a task without a result its state says enough, if the host
    has forgotten it and the ledger has no more.

    Raises `TaskFailed` or `TaskCancelled` if it ended so, and what reading it raises if the ledger
    has no answer.
    """
    answer = entry.answer
    if not answer and entry.outcome in WITHOUT_RESULT:
        answer = orjson.dumps({family.id_field: entry.task_id, "status": entry.outcome})

    task: Task[R] | None = None
    try:
        return await handle.wait(timeout=0)  # one poll, together with all that are read at the time
    except (TaskFailed, TaskCancelled):
        raise
    except PiAPIError as error:
        is_forgotten = isinstance(error.__cause__, NotFoundError)
        if not answer:
            task = await handle.refresh()
        elif not is_forgotten:  # the fault may pass
            with contextlib.suppress(PiAPIError):
                task = await handle.refresh()

    has_ended = task is not None and task.state.terminal
    if answer and not has_ended:  # an end is never taken back
        task = family.read(orjson.loads(answer), TaskId(handle.task_id))

    assert task is not None  # noqa: S101 - without an answer it was read above
    failure = end_error(task)
    if failure is not None:
        raise failure
    return task
