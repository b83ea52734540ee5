"""Exit codes: one table, which gives an error its code and the help text its paragraph.

Errors stand here by name, so that `--help` imports none of them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """The exit codes of commands: number, meaning, and the errors that end so."""

    meaning: str
    errors: tuple[str, ...]

    def __new__(cls, code: int, meaning: str, *errors: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning, member.errors = meaning, errors
        return member

    DONE = 0, "done"
    OTHER = 1, "something else went wrong", "PiAPIError"
    USAGE = 2, "usage"
    REFUSED = 3, "refused by the host", "APIError"
    FAILED = 4, "the task failed or was cancelled", "TaskFailed", "TaskCancelled"
    TIMED_OUT = 5, "timed out; the task goes on", "WaitTimeout"
    UNKNOWN = 6, "it is not known whether the task was submitted", "SubmissionUnknown"
    NO_ANSWER = 7, "no connection, or no readable response", "TransportError", "UnexpectedAnswer"
    UNSAVED = 8, "done, but the files were not saved", "DownloadError"
    LEFT = 9, "done, but items are left (batch --max-submits, --max-cost)"
    INTERRUPTED = 130, "interrupted (Ctrl-C, SIGTERM, SIGHUP)"


def exit_code(error: Exception) -> ExitCode:
    """Return the code that a command ends with after `error`, a `PiAPIError`."""
    codes = {name: code for code in ExitCode for name in code.errors}
    return next(codes[cls.__name__] for cls in type(error).__mro__ if cls.__name__ in codes)


def exit_codes_help() -> str:
    """Return the table as a paragraph of a help text, which click leaves as it is."""
    rows = [f"  {code.value:<3}  {code.meaning}" for code in ExitCode]
    return "\n".join(["\b", "Exit codes:", *rows])
