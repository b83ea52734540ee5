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

    The host's links may be fresher, but an end is never taken back: what was done is done, whatever
    the host makes of it later, as where it expires.  Of a task without a result its state says
    enough, if the host has forgotten it and the ledger has no more.  Where the ledger has no answer,
    as it was compacted, the host alone has the result: then passing faults are waited out for
    `timeout` seconds, five minutes if it is None.

    Raises `TaskFailed` or `TaskCancelled` if it ended so, and if the ledger has no answer
    `NotFoundError` where the host has none either, or what `TaskHandle.wait` raises.
    """
    answer = entry.answer
    was_done = entry.outcome not in WITHOUT_RESULT
    if not answer and not was_done:
        answer = orjson.dumps({family.id_field: entry.task_id, "status": entry.outcome})

    task: Task[R] | None = None
    try:
        return await handle.wait(timeout=0)  # one poll, together with all that are read at the time
    except (TaskFailed, TaskCancelled) as error:
        if not was_done:
            raise
        if not answer:
            raise _forgotten(entry, error.task.status) from error
    except PiAPIError as error:
        if not answer:
            return await _read_from_host_alone(handle, entry, error, timeout)
        if not isinstance(error.__cause__, NotFoundError):  # the fault may pass
            with contextlib.suppress(PiAPIError):
                task = await handle.refresh()

    if task is None or not task.state.terminal or (was_done and end_error(task) is not None):
        task = family.read(orjson.loads(answer), TaskId(handle.task_id))
    failure = end_error(task)
    if failure is not None:
        raise failure
    return task


async def _read_from_host_alone(
    handle: TaskHandle[R], entry: LedgerEntry, error: PiAPIError, timeout: float | None
) -> Task[R]:
    """Return a task whose result the host alone has, after a first read that ended in an error."""
    denial = error.__cause__
    if isinstance(denial, NotFoundError) and denial.message:  # the host's own word, not an edge's page
        raise _forgotten(entry, denial.message, denial) from error

    try:
        return await _wait_for_result(handle, entry, timeout)
    except (TaskFailed, TaskCancelled) as failure:  # but it was done
        raise _forgotten(entry, failure.task.status) from failure


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


def _forgotten(entry: LedgerEntry, word: str, denial: NotFoundError | None = None) -> NotFoundError:
    """Return the error that neither the host, in its `word`, nor the ledger has a result any more."""
    status, body, request = 200, "", None
    if denial is not None:
        status, body, request = denial.status, denial.body, denial.request
    return NotFoundError(
        f"Task {entry.task_id} of the key {entry.key!r} ended well in an earlier run, but its result is gone: "
        f"the host has it no more ({word}), and the ledger has not kept it. Nothing was sent now and "
        "nothing was paid. If its files were not saved then, submit it under another key, which pays anew",
        status=status,
        body=body,
        request=request,
    )
