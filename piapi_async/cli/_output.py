"""Results, on stdout.

A result that was paid for is told whatever stdout is: JSON falls back to escapes where the encoding
lacks a character, and a result that cannot be written to stdout goes to stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import stat
import sys
from typing import Any, NoReturn

import click

from ..tasks import Task
from ._exit import ExitCode
from ._stderr import harmless, tell

_NO_READER = "has no reader any more"
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def check_stdout() -> None:
    """Raise `click.ClickException` if results could not be written; called before anything is sent."""
    if sys.stdout is None or sys.stdout.closed:
        raise _useless("is closed")

    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # not a file: this process reads it itself
        return

    fault = _fault_of(number)
    if fault:
        raise _useless(fault)


class _NoReaderError(click.ClickException):
    """The reader of a pipe has gone."""


def _useless(fault: str) -> click.ClickException:
    kind = click.ClickException
    if fault == _NO_READER:
        kind = _NoReaderError
    return kind(f"standard output {fault}, so no result could be told. Nothing was sent.")


def _fault_of(number: int) -> str:
    try:
        status = os.fstat(number)
    except OSError:
        return "is closed"
    if sys.platform == "win32":
        return ""
    import fcntl  # noqa: PLC0415 - Windows has none

    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        return "cannot be written to"
    if stat.S_ISREG(status.st_mode) and not os.fstatvfs(number).f_bavail:
        return "is a file on a full disk"

    waiting = select.poll()
    waiting.register(number, select.POLLOUT)
    events = dict(waiting.poll(0)).get(number, 0)
    if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
        return _NO_READER
    return ""


# -- writing ------------------------------------------------------------------------------------


def to_json(data: object, *, encoding: str = "utf-8", indent: int | None = None) -> str:
    """Return JSON whose characters an encoding has, and which does nothing to a terminal."""
    try:
        text = json.dumps(data, ensure_ascii=False, indent=indent, default=str)
        text = _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return json.dumps(data, indent=indent, default=str)
    return text


def print_json(data: object) -> None:
    """Print a result: indented on a terminal, else on one line."""
    indent = None
    if on_terminal():
        indent = 2
    echo(to_json(data, encoding=stdout_encoding(), indent=indent))


def echo(text: str) -> None:
    """Print a result; if that fails, print it on stderr, as it was paid for, and exit."""
    try:
        write_out(harmless(text))
    except (OSError, ValueError) as error:
        tell(f"Error: the result cannot be written to standard output ({reason_of(error)}): {text}")
        leave_stdout()
        sys.exit(ExitCode.OTHER)


def write_out(line: str) -> None:
    """Write a line to stdout and flush it; raise `OSError` or `ValueError` if that fails."""
    if sys.stdout is None:
        raise ValueError("it is closed")

    try:
        sys.stdout.write(f"{line}\n")
    except UnicodeError:  # an id or a link in an alphabet that the encoding lacks
        sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def print_line(data: object) -> None:
    """Print one of many results, on a line of its own; raise like `write_out`."""
    write_out(to_json(data, encoding=stdout_encoding()))


def stdout_encoding() -> str:
    """Return the encoding of stdout."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def leave_stdout() -> None:
    """Close stdout after it has failed; what is still buffered would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.close()


def reason_of(error: OSError | ValueError) -> str:
    """Return why something could not be written."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def check_listing() -> None:
    """Raise `click.ClickException` if a list could not be written; exit quietly if its reader has gone."""
    try:
        check_stdout()
    except _NoReaderError:
        _end_quietly()


def end_if_unread(error: OSError) -> None:
    """Exit quietly if an error is that of a pipe whose reader has enough (``| head``)."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stdout is no file, or closed
        if isinstance(error, BrokenPipeError) and _fault_of(sys.stdout.fileno()) == _NO_READER:
            _end_quietly()


def _end_quietly() -> NoReturn:
    leave_stdout()
    sys.exit(ExitCode.OTHER)


# -- tasks --------------------------------------------------------------------------------------


def print_task(task: Task[Any]) -> None:
    """Print a task, and where its files were saved, as one JSON object."""
    print_json(task.to_dict())
