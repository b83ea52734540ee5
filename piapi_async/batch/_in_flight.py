"""Tasks in flight, and what is said of them if a batch is left before they have ended."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from attrs import define

from .._protocol.family import TaskRequest
from ..errors import DownloadError, SubmissionUnknown, TaskCancelled, TaskFailed, WaitTimeout
from ..handle import TaskHandle
from ..ledger import LedgerEntry, LedgerState
from ..ledger._entries import EndedAttempt
from ..observe._emitter import Events
from ..tasks import Task
from ._outcome import BatchItem, Outcome

R = TypeVar("R")

_NAMED_IN_NOTE = 100  # tasks that a note names if the outcomes name all of them


@define(eq=False)  # every item makes one, and a frozen one would take twice as long
class InFlight(Generic[R]):
    """An item whose task exists.

    `entry` is what the ledger had of it before, None if this run submitted it; `retried` tells that
    this run has asked for another attempt; `found` is how its task was found if the response was
    lost.
    """

    index: int
    item: BatchItem[R]
    key: str
    handle: TaskHandle[R]
    entry: LedgerEntry | None
    retried: bool = False
    found: str = ""

    @property
    def request(self) -> TaskRequest[R]:
        """What was submitted."""
        return self.item.request

    @property
    def had_ended(self) -> bool:
        """Whether its task ended in an earlier run."""
        return self.entry is not None and self.entry.state is LedgerState.ENDED

    def outcome(
        self,
        *,
        task: Task[R] | None = None,
        files: tuple[Path | str, ...] = (),
        error: Exception | None = None,
        download_error: DownloadError | None = None,
    ) -> Outcome[R]:
        """Return the item's outcome."""
        ref = None
        if task is not None:
            ref = task.ref
        return Outcome(
            index=self.index,
            request=self.item.request,
            key=self.key,
            ref=ref or self.handle.ref,
            task=task,
            files=files,
            error=error,
            download_error=download_error,
            resumed=self.entry is not None,
            recovered=self.found,
            extra=self.item.extra,
        )

    def failed_attempt(self, outcome: Outcome[R]) -> EndedAttempt | None:
        """Return the attempt of an earlier run that has come to nothing, None for any other outcome.

        What this run has submitted is no such attempt: it submits an item once.
        """
        error = outcome.error
        if self.entry is None or self.retried or not isinstance(error, (TaskFailed, TaskCancelled)):
            return None
        return EndedAttempt(self.entry.attempt, self.handle.ref.task_id, error.task.state.value)

    def leave(self) -> Outcome[R]:
        """Return the outcome for a reader who does not wait for the end."""
        task, error = self.handle.task, self.handle.error
        has_ended = task is not None and task.state.terminal
        if error is not None or has_ended:
            return self.outcome(task=task, error=error)

        ref = self.handle.ref
        timeout = WaitTimeout(
            f"The batch was left while task {ref} was under way. It goes on and stays paid for: "
            "piapi.attach(outcome.error.ref).wait().",
            ref=ref,
            task=task,
        )
        return self.outcome(task=task, error=timeout)


def in_order(outcomes: Iterable[Outcome[R]]) -> list[Outcome[R]]:
    """Return outcomes in the order of the input."""
    return sorted(outcomes, key=lambda outcome: outcome.index)


def attach(error: BaseException, outcomes: list[Outcome[Any]]) -> None:
    """Put the outcomes of a run on the exception that ends it, of whatever class that is."""
    refs = [str(outcome.ref) for outcome in outcomes if outcome.ref is not None]
    try:
        error.outcomes = outcomes  # type: ignore[attr-defined]  # as documented
    except Exception:  # noqa: BLE001 - a class may refuse attributes in any way
        note = f"The tasks of the batch: {', '.join(refs)}"
    else:
        last = refs[-_NAMED_IN_NOTE:]
        note = (
            "The batch's outcomes are in .outcomes of this error; "
            f"the last {len(last)} of {len(refs)} tasks: {', '.join(last)}"
        )

    if refs:
        error.add_note(note)


def log_left(events: Events, outcomes: Iterable[Outcome[Any]], *, recorded: bool) -> None:
    """Log the tasks that were paid for, or may have been, and whose outcome the reader has not taken.

    `recorded`: a ledger has them.
    """
    refs = []
    for outcome in outcomes:
        if outcome.ref is not None:
            refs.append(outcome.ref)
        elif isinstance(outcome.error, SubmissionUnknown) or getattr(outcome.error, "ref", None) is not None:
            events.notice(logging.WARNING, str(outcome.error), key=outcome.key or None)

    if not refs:
        return
    level, where = logging.WARNING, ""
    if recorded:
        level, where = logging.INFO, "; the ledger has them"
    tasks = ", ".join(map(str, refs))
    text = (
        f"the batch was left before the outcomes of {len(refs)} tasks were taken; they go "
        "on and stay paid for"
    )
    events.notice(level, f"{text}{where}: {tasks}")
