"""From a submitted task to its end: wait, save its files, print it."""

from __future__ import annotations

from typing import Any

from .._client.earlier import read_ended
from .._families import FAMILIES
from ..client import PiAPI
from ..errors import NotFoundError
from ..handle import TaskHandle
from ..ledger import LedgerEntry, LedgerState
from ..tasks import Task
from ._meter import Meter
from ._output import print_task
from ._resume import how_to_wait
from ._saving import Saving
from ._setup import Setup
from ._stderr import say, tell


async def finish(
    setup: Setup,
    piapi: PiAPI,
    handle: TaskHandle[Any],
    meter: Meter,
    *,
    timeout: float | None,
    saving: Saving,
    verb: str | None = None,
    known: LedgerEntry | None = None,
) -> None:
    """Wait for a task and show how it goes, save its files, print it.

    `verb` is that of the request by which this command created the task, so that the task exists even
    if no response told of it; None for a task of unknown origin.  `known` is what the ledger had of it
    before, if that was so.
    """
    has_ended = known is not None and known.state is LedgerState.ENDED and known.task_id == handle.task_id
    how = how_to_wait(setup, handle.task_id, handle.ref.family, saving)
    try:
        if known is not None and has_ended:
            task = await read_ended(handle, known, FAMILIES[handle.ref.family], timeout)
        else:
            async for task in handle.updates(timeout):
                meter.show(task)
            task = await handle.wait()
    except BaseException as error:  # whatever ended the wait: the id is worth money
        with meter.ended(handle.task_id):
            if not has_ended:
                _tell_how_to_resume(handle, error, how, submitted=verb is not None)
        raise

    just_ended = verb is not None and not has_ended  # else it may have ended long ago
    try:
        task = await saving.save(piapi, task, verb=verb or "", just_ended=just_ended)
    except BaseException:
        with meter.ended(handle.task_id):
            print_task(task)
            say(f"Task {handle.task_id} is done. To save its files: {how}")
        raise

    with meter.ended(handle.task_id):
        say_saved(task)
        print_task(task)


def say_saved(task: Task[Any]) -> None:
    """Say where files were saved."""
    for file in task.files:
        if file.saved_as is not None:
            say(f"saved {file.saved_as}")


def _tell_how_to_resume(handle: TaskHandle[Any], error: BaseException, how: str, *, submitted: bool) -> None:
    """Say what becomes of a task whose wait ended before it did."""
    seen = handle.task is not None
    if handle.task is not None and handle.task.state.terminal:
        return

    if seen or submitted:
        tell(f"Task {handle.task_id} goes on. To wait for it: {how}")
    elif not isinstance(error, NotFoundError):  # whose text says what to check
        say(f"No response told of task {handle.task_id}: check the id and --family. To wait for it: {how}")
