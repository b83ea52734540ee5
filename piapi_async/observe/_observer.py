"""What an observer is.  Pure."""

from __future__ import annotations

from typing import Protocol

from ._events import Event


class Observer(Protocol):
    """What is told of every event of the clients that it was given to."""

    def on_event(self, event: Event, /) -> None:
        """Take in an event.  It is called in the event loop, so it must be quick; what it raises drops it."""
        ...


class TracingObserver(Observer, Protocol):
    """An observer that has something to tell a later process about a submission.

    The ledger keeps the text beside the submission.  When a later process submits the same key, its
    observers find the text in `SubmissionAccepted.trace`.
    """

    def trace_of(self, submission: int, /) -> str | None:
        """Return the text to keep for a submission that has started, None if there is none."""
        ...
