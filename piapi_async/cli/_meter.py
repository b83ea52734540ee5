"""The progress of tasks, on stderr."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, Self

from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn
from rich.progress import Task as Row
from rich.progress import TaskID as RowID
from rich.text import Text

from ..tasks import Task
from ._stderr import console, harmless, say

_WIDE = 80  # columns from which a whole task id has room
_STEP = 25  # percent of progress that are worth a line where there are no bars
_NO_ID_YET = ""


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
    """Shows how tasks go: bars on a terminal, elsewhere a line for every notable step."""

    def __init__(self) -> None:
        spinner, id_length, bar_width = "line", 9, 8
        if console.encoding.lower().startswith("utf"):
            spinner = "dots"
        if console.width >= _WIDE:
            id_length, bar_width = 40, 20

        self._id_length = id_length
        self._bars = Progress(
            SpinnerColumn(spinner),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=bar_width),
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
        """Start the clock of a task that has no id yet."""
        self._rows[_NO_ID_YET] = self._add("submitting")

    def submitted(self, task_id: str) -> None:
        """Show the task under its id."""
        row = self._rows.pop(_NO_ID_YET, None)
        if row is None:
            row = self._add("")
        self._rows[task_id] = row
        self._bars.update(row, description=self._name(task_id), status="submitted")

    def show(self, task: Task[Any]) -> None:
        """Show a task as it is now."""
        if console.is_terminal:
            self._show_bar(task)
            return

        step = (task.status, (task.progress or 0) // _STEP)
        if self._said.get(task.task_id) == step:
            return
        self._said[task.task_id] = step
        line = f"{task.task_id} {task.status}"
        if task.progress is not None:
            line += f" {task.progress} %"
        say(line)

    def _show_bar(self, task: Task[Any]) -> None:
        if task.task_id not in self._rows:
            self._rows[task.task_id] = self._add(self._name(task.task_id), _age_of(task))
        row = self._rows[task.task_id]
        self._bars.update(row, completed=task.progress or 0, status=harmless(task.status))

    @contextlib.contextmanager
    def ended(self, task_id: str) -> Iterator[None]:
        """Remove a task, and leave the terminal clean for its result."""
        row = self._rows.pop(task_id, None)
        if row is not None:
            self._bars.remove_task(row)
        self._bars.stop()
        yield
        if self._rows:
            # Restarting the old display would wipe out what was written meanwhile.
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
        if len(text) <= self._id_length:
            return text
        return f"{text[: self._id_length - 1]}…"


def _age_of(task: Task[Any]) -> float:
    """Return the seconds since a task was created, 0 if unknown or if the host's clock is ahead."""
    if task.created_at is None:
        return 0.0
    return max(0.0, time.time() - task.created_at.timestamp())
