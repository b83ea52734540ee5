"""The log: events as lines that a person can read, with attributes that a machine can filter by.

All lines of the package are written here.  Those of INFO do not hold prompts: they name the class of a
request and not its content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from attrs import define

from ..errors import APIError
from ._events import (
    CallRetried,
    Event,
    FileSaved,
    LedgerWritten,
    Notice,
    PollMade,
    RateLimited,
    SubmissionAccepted,
    SubmissionBecameUnknown,
    SubmissionRecovered,
    SubmissionRefused,
    SubmissionStarted,
    TaskEnded,
    TaskRead,
    TaskStateChanged,
    WebhookReceived,
)

logger = logging.getLogger("piapi_async")

Line: TypeAlias = tuple[int, str, tuple[object, ...]]
"""A line's level, its text and the values to put into that."""

ATTRIBUTES = ("task_id", "request", "key", "origin", "family", "submission", "seconds")
"""What lines carry of their events."""


@define(eq=False, repr=False)
class LogObserver:
    """Writes the log of one client."""

    def on_event(self, event: Event) -> None:
        """Write the line of an event, if it has one and anybody reads lines of its level."""
        make_line = _LINES.get(type(event))
        if make_line is None:
            return

        level, text, values = make_line(event)
        if logger.isEnabledFor(level):
            logger.log(level, text, *values, exc_info=_traceback_of(event), extra=_attributes(event))


def attributes_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the attributes of a line that have a value."""
    values = {name: getattr(record, name, None) for name in ("event", *ATTRIBUTES, "state", "error")}
    return {name: value for name, value in values.items() if value not in (None, "")}


def _attributes(event: Event) -> dict[str, Any]:
    """Return what a line carries beside its text: the same attributes on every line."""
    attributes = {name: getattr(event, name, None) for name in ATTRIBUTES}
    attributes["event"] = type(event).__name__
    state = getattr(event, "state", None)
    attributes["state"] = None if state is None else state.value
    error = getattr(event, "error", None)
    attributes["error"] = None if error is None else type(error).__name__
    if isinstance(event, Notice):
        attributes.update(_known(event.details))
    return attributes


def _known(details: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in details.items() if name in ATTRIBUTES or name == "error"}


def _traceback_of(event: Event) -> BaseException | None:
    if isinstance(event, Notice):
        exception: BaseException | None = event.details.get("exception")
        return exception
    return None


# -- the lines -------------------------------------------------------------------------------------


def _started(event: SubmissionStarted) -> Line:
    return logging.INFO, "%s is being submitted", (event.request,)


def _accepted(event: SubmissionAccepted) -> Line:
    if event.resumed:
        return logging.INFO, "%s had been submitted before: task %s", (event.request, event.task_id)
    return logging.INFO, "%s was accepted: task %s", (event.request, event.task_id)


def _refused(event: SubmissionRefused) -> Line:
    error = event.error
    if isinstance(error, APIError):
        return (
            logging.INFO,
            "%s was refused: HTTP %s (%s)",
            (event.request, error.status, type(error).__name__),
        )
    return logging.INFO, "%s was not submitted (%s)", (event.request, type(error).__name__)


def _unknown(event: SubmissionBecameUnknown) -> Line:
    text = "%s may have been accepted: its submission is unknown, and will not be repeated"
    return logging.INFO, text, (event.request,)


def _recovered(event: SubmissionRecovered) -> Line:
    text = "a submission whose response was lost was found again (%s): task %s"
    return logging.INFO, text, (event.how, event.task_id)


def _state_changed(event: TaskStateChanged) -> Line:
    return logging.DEBUG, "task %s is %s (%s)", (event.task_id, event.state.value, event.status)


def _ended(event: TaskEnded) -> Line:
    return logging.INFO, "task %s has ended: %s", (event.task_id, event.state.value)


def _read(event: TaskRead) -> Line:
    return logging.DEBUG, "task %s was read: %s", (event.task_id, event.task.status)


def _webhook(event: WebhookReceived) -> Line:
    return logging.DEBUG, "a webhook reports task %s: %s", (event.task_id, event.state.value)


def _saved(event: FileSaved) -> Line:
    return logging.DEBUG, "task %s: %s was saved in %.1f s", (event.task_id, event.path, event.seconds)


def _polled(event: PollMade) -> Line:
    if event.error is not None:
        return logging.DEBUG, "a poll of %d tasks failed: %s", (event.tasks, event.error)
    return logging.DEBUG, "a poll of %d tasks took %.0f ms", (event.tasks, event.seconds * 1000)


def _rate_limited(event: RateLimited) -> Line:
    return logging.DEBUG, "the host asks to slow down; all requests wait for %.1f s", (event.pause,)


def _retried(event: CallRetried) -> Line:
    text = "%s; trying again in %.1f s (%d of %d)"
    return logging.INFO, text, (event.reason, event.pause, event.attempt, event.attempts)


def _ledger_written(event: LedgerWritten) -> Line:
    text = "the ledger has committed %d operations in %.0f ms"
    return logging.DEBUG, text, (event.operations, event.seconds * 1000)


def _notice(event: Notice) -> Line:
    return event.level, "%s", (event.text,)


_LINES: Mapping[type[Event], Callable[[Any], Line]] = {
    SubmissionStarted: _started,
    SubmissionAccepted: _accepted,
    SubmissionRefused: _refused,
    SubmissionBecameUnknown: _unknown,
    SubmissionRecovered: _recovered,
    TaskStateChanged: _state_changed,
    TaskEnded: _ended,
    TaskRead: _read,
    WebhookReceived: _webhook,
    FileSaved: _saved,
    PollMade: _polled,
    RateLimited: _rate_limited,
    CallRetried: _retried,
    LedgerWritten: _ledger_written,
    Notice: _notice,
}
