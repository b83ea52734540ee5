"""What the client logs, on stderr: lines for people, or one JSON object each."""

from __future__ import annotations

import logging

from ..observe._log import attributes_of
from ._stderr import say, say_json, use_json

_STEPS = frozenset(
    {
        "SubmissionStarted",
        "SubmissionAccepted",
        "SubmissionRefused",
        "SubmissionBecameUnknown",
        "SubmissionRecovered",
        "TaskEnded",
    }
)
"""Events in a task's life, which a command shows in its own way unless it is told to be verbose."""

_REQUESTS = 2  # how often -v must be given for a line about each of them


def show_log(*, verbosity: int, as_json: bool) -> None:
    """Show what the client logs: with a `verbosity` of 1 each step of a task, of 2 each request."""
    use_json(on=as_json)
    logger = logging.getLogger("piapi_async")
    logger.setLevel(logging.DEBUG if verbosity >= _REQUESTS else logging.INFO)

    others = [handler for handler in logger.handlers if not isinstance(handler, _StderrHandler)]
    logger.handlers = [*others, _StderrHandler(verbosity, as_json=as_json)]


class _StderrHandler(logging.Handler):
    """Writes the lines of the log among the command's own."""

    def __init__(self, verbosity: int, *, as_json: bool) -> None:
        super().__init__()
        self._verbosity = verbosity
        self._as_json = as_json
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        if not self._verbosity and getattr(record, "event", None) in _STEPS:
            return
        if self._as_json:
            say_json(record.levelname.lower(), record.getMessage(), attributes_of(record))
        elif self._verbosity:
            say(self.format(record))
        else:
            say(record.getMessage())
