"""Tasks that ended in an earlier run."""

from __future__ import annotations

import contextlib
from typing import TypeVar

import orjson

from .._protocol.family import Family
from ..errors import NotFoundError, PiAPIError, TaskCancelled, TaskFailed, WaitTimeout, end_error
from ..handle import TaskHandle
from ..ledger import LedgerEntry
from ..tasks import Task, TaskId, TaskState

R = TypeVar("R")

WITHOUT_RESULT = frozenset({TaskState.FAILED.value, TaskState.CANCELLED.value})
"""How a task ends that is worth another attempt."""

_PATIENCE = 300.0  # seconds; a task that has ended does not come later, so that nobody waits for ever


async def read_ended(
    handle: TaskHandle[R], entry: LedgerEntry, family: Family[R], timeout: float | None
) -> Task[R]:
    """Return a task that ended in an earlier run, from the host or else from the ledger.

    The host's links may be fresher.  Of a task without a result its state says enough, if the host
    has forgotten it and the ledger has no more.  Where the ledger has no answer, as it was compacted,
    the host alone has the result: then passing faults are waited out for `timeout` seconds, five
    minutes if it is None.

    Raises `TaskFailed` or `TaskCancelled` if it ended so, and if the ledger has no answer
    `NotFoundError` where the host has none either, or what `TaskHandle.wait` raises.
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
        fault = error.__cause__
        if not answer:
            if isinstance(fault, NotFoundError) and fault.message:  # the host's own word, not an edge's page
                raise _forgotten(fault, entry) from error
            return await _wait_for_result(handle, entry, timeout)
        if not isinstance(fault, NotFoundError):  # the fault may pass
            with contextlib.suppress(PiAPIError):
                task = await handle.refresh()

    if task is None or not task.state.terminal:  # an end is never taken back
        task = family.read(orjson.loads(answer), TaskId(handle.task_id))
    failure = end_error(task)
    if failure is not None:
        raise failure
    return task


async def _wait_for_result(handle: TaskHandle[R], entry: LedgerEntry, timeout: float | None) -> Task[R]:
    """Return a task that has ended, once the host shows it.  Raises as `TaskHandle.wait`."""
    patience = timeout
    if patience is None:
        patience = _PATIENCE
    try:
        return await handle.wait(patience)
    except WaitTimeout as error:
        last = ""
        if error.__cause__ is not None:
            last = f" (the last poll failed: {str(error.__cause__).rstrip('.')})"
        text = (
            f"Task {entry.task_id} of the key {entry.key!r} ended in an earlier run, but the host, which alone "
            f"has its result, has not shown it within {patience:g} s{last}. Nothing was sent now and nothing was "
            "paid: run again later"
        )
        error.args = (text,)
        raise


def _forgotten(denial: NotFoundError, entry: LedgerEntry) -> NotFoundError:
    """Return the host's denial of a task whose result the ledger does not have either."""
    return NotFoundError(
        f"Task {entry.task_id} of the key {entry.key!r} ended well in an earlier run, but its result is gone: "
        f"the host has it no more ({denial.message}), and the ledger has not kept it. Nothing was sent now and "
        "nothing was paid. If its files were not saved then, submit it under another key, which pays anew",
        status=denial.status,
        body=denial.body,
        request=denial.request,
    )
