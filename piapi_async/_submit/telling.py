"""What observers and the log are told of how a submission ends."""

from __future__ import annotations

import logging

from .._calls.throttle import now
from ..errors import LedgerError, SubmissionUnknown
from ..observe._emitter import Events
from ..tasks import TaskId
from .submission import Submission, SubmissionState, SubmitResult


def tell_accepted(events: Events, submission: Submission, result: SubmitResult) -> None:
    """Tell that a submission has a task, new or the one that its key stood for."""
    entry = result.ledger_entry
    if entry is None and result.found == "webhook":  # what is found in the history is told there
        tell_found(events, submission, result.task_id, result.found)
    if submission.subject is None:  # nobody listens
        return

    events.accepted(
        submission.subject,
        result.task_id,
        now(),
        resumed=entry is not None,
        frozen=result.frozen,
        trace=None if entry is None else entry.trace,
    )


def tell_found(events: Events, submission: Submission, task_id: TaskId, how: str) -> None:
    """Tell that the task of a submission whose response was lost is found; see `SubmissionRecovered`."""
    events.recovered(
        task_id, submission.family.name, how, key=submission.claim.key, subject=submission.subject
    )


def tell_failed(events: Events, submission: Submission, error: BaseException) -> None:
    """Tell that a submission has ended with an error, and what that means for the money."""
    state = submission.state
    if submission.task_id is not None and state is SubmissionState.ACCEPTED:  # it could not be recorded
        ledger_error = error if isinstance(error, LedgerError) else None
        events.accepted(
            submission.subject, submission.task_id, now(), frozen=submission.frozen, ledger_error=ledger_error
        )
        return

    unknown = state is SubmissionState.UNKNOWN or (
        state is SubmissionState.SENDING and submission.send_state.begun
    )
    events.not_accepted(submission.subject, error, now(), unknown=unknown)


def report_left(
    events: Events, submission: Submission, end: SubmitResult | BaseException, *, recorded: bool
) -> None:
    """Log the end of a submission whose caller has gone: its task may have been paid for.

    `recorded`: a ledger has it.
    """
    known = {"request": type(submission.request).__name__, "key": submission.claim.key}
    if isinstance(end, LedgerError):
        events.notice(logging.ERROR, str(end), error=type(end).__name__, **known)
    elif isinstance(end, SubmissionUnknown) or getattr(end, "ref", None) is not None:
        # A refusal that names a task is the last that is heard of it.
        events.notice(logging.WARNING, str(end), error=type(end).__name__, **known)
    elif isinstance(end, SubmitResult) and not recorded:
        text = f"a submission whose caller had gone was accepted: task {end.task_id}"
        events.notice(logging.WARNING, text, task_id=end.task_id, **known)
