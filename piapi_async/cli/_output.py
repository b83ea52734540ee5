"""What a command shows: how tasks go, on stderr, and what came of them, on stdout.

Two rules hold for every text.  What the host says reaches no terminal as it stands: control characters are shown as
escapes, for they could clear the screen or write another line.  And a result that was paid for is told whatever stdout
is: JSON falls back to escapes where the encoding has no such character, and a result that cannot be written to stdout
is said on stderr.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn, Self, TextIO, cast

import attrs
import click
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Task as Row
from rich.progress import TaskID as RowID
from rich.text import Text

from ..tasks import Task, TaskFile
from ._exit import ExitCode

_WIDE = 80  # columns, from which on a whole task id has room


class _Stderr:
    """The person's end of stderr; that nobody listens there must end nothing that was paid for."""

    gone = False
    """Whether the last writing failed: the stream is closed, its reader or its terminal has gone."""

    @property
    def encoding(self) -> str:
        return getattr(sys.stderr, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()

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
        except (OSError, ValueError, AttributeError):  # the last where there is no stderr at all
            self.gone = True


_stderr = _Stderr()
console = Console(file=cast("IO[str]", _stderr), highlight=False, emoji=False)

# C0 but for tab and newline, DEL, C1 (of which one byte begins an escape sequence), and what turns the writing around.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Return a text with its control characters shown as escapes."""
    return _CONTROL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - as repr does


def say(text: str) -> bool:
    """Talk to the person, on stderr, without markup and without wrapping ids apart; return whether it was written."""
    _stderr.gone = False
    console.print(harmless(text), markup=False, soft_wrap=True)
    return not _stderr.gone


def tell(text: str) -> None:
    """Say what must not be lost, an id or a result that is paid for: where nobody hears it, it is kept in a file."""
    if say(text):
        return
    name = f"piapi-async-{os.getpid()}-untold.txt"
    for folder in (Path(), Path(tempfile.gettempdir())):
        with contextlib.suppress(OSError), (folder / name).open("a", encoding="utf-8") as file:
            file.write(f"{harmless(text)}\n")
            return


# -- results ------------------------------------------------------------------------------------------------------


def on_terminal() -> bool:
    """Return whether a person reads stdout."""
    return sys.stdout is not None and sys.stdout.isatty()


def check_stdout() -> None:
    """Raise `click.ClickException` if results could not be told; asked before anything is sent."""
    if sys.stdout is None or sys.stdout.closed:
        raise click.ClickException("standard output is closed, so no result could be told. Nothing was sent.")
    try:
        number = sys.stdout.fileno()
    except (OSError, ValueError):  # no file behind it: somebody in this process reads it
        return
    if trouble := _trouble_with(number):
        raise click.ClickException(f"standard output {trouble}, so no result could be told. Nothing was sent.")


def _trouble_with(number: int) -> str:
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
        return "is read by nobody any more"
    return ""


def to_json(data: object, *, encoding: str = "utf-8", indent: int | None = None) -> str:
    """Return JSON that an encoding has all characters for, and a terminal shows as it stands."""
    try:
        text = _NOT_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", _dumps(data, indent))
        text.encode(encoding)
    except (UnicodeError, LookupError):
        return json.dumps(data, indent=indent, default=str)
    return text


def _dumps(data: object, indent: int | None) -> str:
    return json.dumps(data, ensure_ascii=False, indent=indent, default=str)


def print_json(data: object) -> None:
    """Print a result: to be read on a terminal, elsewhere on one line."""
    echo(to_json(data, encoding=stdout_encoding(), indent=2 if on_terminal() else None))


def echo(text: str) -> None:
    """Print a result; where that cannot be done, say it on stderr, for it was paid for, and leave."""
    try:
        write_out(harmless(text))
    except (OSError, ValueError) as error:
        tell(f"Error: the result cannot be written to standard output ({reason_of(error)}): {text}")
        leave_stdout()
        sys.exit(ExitCode.OTHER)


def write_out(line: str) -> None:
    """Write a line to stdout at once; raise `OSError` or `ValueError` if that cannot be done."""
    if sys.stdout is None:
        raise ValueError("it is closed")
    try:
        sys.stdout.write(f"{line}\n")
    except UnicodeError:  # an id or a link in an alphabet that stdout has not
        sys.stdout.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    sys.stdout.flush()


def print_line(data: object) -> None:
    """Print one of many results, on a line of its own; raise as `write_out`."""
    write_out(to_json(data, encoding=stdout_encoding()))


def stdout_encoding() -> str:
    """Return what characters stdout can take."""
    return getattr(sys.stdout, "encoding", None) or "utf-8"


def leave_stdout() -> None:
    """Close stdout once it has failed; what is still buffered would fail again at exit."""
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.close()


def reason_of(error: OSError | ValueError) -> str:
    """Return why something could not be written."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


@contextlib.contextmanager
def listing() -> Iterator[None]:
    """Let a listing end quietly when its reader has read enough (``| head``)."""
    try:
        yield
    except BrokenPipeError:
        _end_listing()


def _end_listing() -> NoReturn:
    leave_stdout()
    sys.exit(ExitCode.OTHER)


def task_fields(task: Task[Any]) -> dict[str, Any]:
    """Return a task, and where its files were saved, as JSON values: what single commands and batches print."""
    return {
        "task_id": task.task_id,
        "status": task.status,
        "state": task.state.value,
        "progress": task.progress,
        "error": task.error,
        "images": task.images,
        "result": attrs.asdict(task.result) if attrs.has(type(task.result)) else task.result,
        "files": [_file_fields(file) for file in task.files],
        "cost": None if task.cost is None else {"amount": task.cost.amount, "unit": task.cost.unit},
    }


def _file_fields(file: TaskFile) -> dict[str, str | None]:
    return {
        "url": file.url,
        "kind": file.kind.value,
        "role": file.role.value,
        "path": file.path,
        "saved_as": None if file.saved_as is None else str(file.saved_as),
    }


def print_task(task: Task[Any]) -> None:
    """Print a task, and where its files were saved, as one JSON object."""
    print_json(task_fields(task))


# -- how it goes --------------------------------------------------------------------------------------------------


class _Elapsed(ProgressColumn):
    """Time since the submission."""

    max_refresh = 0.5

    def render(self, task: Row) -> Text:
        return Text(clock(time.monotonic() - task.fields["since"]), style="progress.elapsed")


def clock(seconds: float) -> str:
    """Return a length of time as ``0:01:05``."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


class Meter:
    """Shows how tasks go: bars on a terminal, elsewhere a line when a task has got noticeably further."""

    def __init__(self) -> None:
        wide = console.width >= _WIDE
        spinner = "dots" if console.encoding.lower().startswith("utf") else "line"
        self._id_length = 40 if wide else 9
        self._bars = Progress(
            SpinnerColumn(spinner),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20 if wide else 8),
            TextColumn("{task.fields[status]}", markup=False),
            _Elapsed(),
            console=console,
            transient=True,
            # stdout is for results, wherever it leads; rich would print them among the bars.
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, RowID] = {}
        self._said: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def submitting(self) -> None:
        """Begin to count the time of a task that has no id yet."""
        self._rows[""] = self._add("submitting")

    def submitted(self, task_id: str) -> None:
        """Show the task under its id."""
        row = self._rows.pop("", None)
        if row is None:
            row = self._add("")
        self._rows[task_id] = row
        self._bars.update(row, description=self._name(task_id), status="submitted")

    def show(self, task: Task[Any]) -> None:
        """Show a task as it is now."""
        if console.is_terminal:
            if task.task_id not in self._rows:
                self._rows[task.task_id] = self._add(self._name(task.task_id), _age_of(task))
            row = self._rows[task.task_id]
            self._bars.update(row, completed=task.progress or 0, status=harmless(task.status))
            return
        step = (task.status, (task.progress or 0) // 25)
        if self._said.get(task.task_id) != step:
            self._said[task.task_id] = step
            progress = f" {task.progress} %" if task.progress is not None else ""
            say(f"{task.task_id} {task.status}{progress}")

    @contextlib.contextmanager
    def ended(self, task_id: str) -> Iterator[None]:
        """Take a task away, and leave the terminal clean for its result."""
        if (row := self._rows.pop(task_id, None)) is not None:
            self._bars.remove_task(row)
        self._bars.stop()
        yield
        if self._rows:
            # A display that is started again would wipe out what was written meanwhile.
            self._bars.live = Live(
                get_renderable=self._bars.get_renderable,
                console=console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bars.start()

    def _add(self, name: str, age: float = 0.0) -> RowID:
        return self._bars.add_task(name, total=100, status="", since=time.monotonic() - age)

    def _name(self, task_id: str) -> str:
        text = harmless(task_id)
        return text if len(text) <= self._id_length else f"{text[: self._id_length - 1]}…"


def _age_of(task: Task[Any]) -> float:
    """Return the seconds since a task was made, 0 where the host does not tell or its clock is ahead."""
    made = task.created_at
    return 0.0 if made is None else max(0.0, time.time() - made.timestamp())
