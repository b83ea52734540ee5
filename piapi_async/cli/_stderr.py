"""Messages to the person, on stderr.

Control characters of the host's text are shown as escapes: on a terminal they could clear the screen
or forge a line.  A stderr that is closed ends nothing: what must not be lost goes to a file then.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TextIO, cast

import orjson
from rich.console import Console


class _Stderr:
    """The present `sys.stderr`; an error in writing to it is noted, not raised."""

    gone = False
    """Whether the last write failed: the stream, its reader or its terminal is gone."""
    as_json = False
    """Whether each message is written as a JSON object."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        if self.as_json or sys.stderr is None or sys.stderr.closed:
            return False
        return sys.stderr.isatty()

    def fileno(self) -> int:
        return sys.stderr.fileno()

    def write(self, text: str) -> int:
        """Write a text, if that is possible."""
        self._attempt(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if that is possible."""
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, write: Callable[[TextIO], object]) -> None:
        try:
            write(sys.stderr)
        except (OSError, ValueError, AttributeError):  # the last if there is no stderr at all
            self.gone = True


_stderr = _Stderr()
console = Console(file=cast("IO[str]", _stderr), highlight=False, emoji=False)

# C0 but for tab and newline, DEL, C1 (one of its bytes begins an escape sequence), and what changes
# the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_LAST_OF_LATIN_1 = 0xFF


def harmless(text: str) -> str:
    """Return a text with its control characters shown as escapes."""
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= _LAST_OF_LATIN_1:  # as repr does
        return f"\\x{code:02x}"
    return f"\\u{code:04x}"


def say(text: str) -> bool:
    """Print a message, without wrapping ids apart; return whether it was written."""
    if _stderr.as_json:
        return say_json("error" if text.startswith("Error: ") else "info", text, {})

    _stderr.gone = False
    console.print(harmless(text), markup=False, soft_wrap=True)
    return not _stderr.gone


def use_json(*, on: bool) -> None:
    """Write every message as a JSON object from now on, or as a line for people."""
    _stderr.as_json = on


def say_json(level: str, text: str, attributes: Mapping[str, Any]) -> bool:
    """Print a message as one line of JSON; return whether it was written."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = orjson.dumps({"time": now, "level": level, "message": text, **attributes}, default=str)
    _stderr.gone = False
    _stderr.write(f"{line.decode()}\n")
    _stderr.flush()
    return not _stderr.gone


def tell(text: str) -> None:
    """Print what must not be lost, such as an id that was paid for; to a file if stderr is gone."""
    if say(text):
        return

    name = f"piapi-async-{os.getpid()}-untold.txt"
    for folder in (Path(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError), (folder / name).open("a", encoding="utf-8") as file:
            file.write(f"{harmless(text)}\n")
            return
