"""Exit codes: one table, from which come the code of an error, the help text and nothing else."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

from ..errors import (
    APIError,
    DownloadError,
    PiAPIError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TransportError,
    UnexpectedAnswer,
    WaitTimeout,
)


class ExitCode(IntEnum):
    """What a command ends with: its number, what that means, and the errors that end so."""

    meaning: str
    errors: tuple[type[PiAPIError], ...]

    def __new__(cls, code: int, meaning: str, *errors: type[PiAPIError]) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning, member.errors = meaning, errors
        return member

    DONE = 0, "done"
    OTHER = 1, "something else went wrong", PiAPIError
    USAGE = 2, "usage"
    REFUSED = 3, "refused by the host", APIError
    FAILED = 4, "the task failed or was cancelled", TaskFailed, TaskCancelled
    TIMED_OUT = 5, "timed out; the task goes on", WaitTimeout
    UNKNOWN = 6, "it is not known whether the task was submitted", SubmissionUnknown
    NO_ANSWER = 7, "no connection, or no readable answer", TransportError, UnexpectedAnswer
    UNSAVED = 8, "done, but the files were not saved", DownloadError
    LEFT = 9, "done, but items are left (batch --max-submits)"
    INTERRUPTED = 130, "interrupted (Ctrl-C, SIGTERM, SIGHUP)"


def exit_code(error: PiAPIError) -> ExitCode:
    """Return the code that a command ends with after `error`."""
    kinds = {kind: code for code in ExitCode for kind in code.errors}
    return next(kinds[cls] for cls in type(error).__mro__ if cls in kinds)


def exit_codes_help() -> str:
    """Return the table as a paragraph of a help text, in the form that click leaves as it stands."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code.value:<3}  {code.meaning}" for code in ExitCode)])
