"""What a command shows: how tasks go, on stderr, and what came of them, on stdout."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any, Self

import attrs
import click
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..tasks import Task
from ._setup import console, say


def print_task(task: Task[Any], files: list[Path] | None = None) -> None:
    """Print a task, and the files saved of it, as one JSON object."""
    data: dict[str, Any] = {
        "task_id": task.task_id,
        "status": task.status,
        "state": task.state.value,
        "progress": task.progress,
        "error": task.error,
        "images": task.images,
        "result": attrs.asdict(task.result) if attrs.has(type(task.result)) else task.result,
    }
    if task.images != tuple(file.url for file in task.files):  # there is more than pictures, or elsewhere
        data["links"] = [{"url": file.url, "kind": file.kind.value, "at": file.path} for file in task.files]
    if files is not None:
        data["files"] = [str(path) for path in files]
    echo(json.dumps(data, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))


def echo(text: str) -> None:
    """Print a result; where that cannot be done, say it on stderr, for it was paid for."""
    try:
        click.echo(text)
        sys.stdout.flush()
    except OSError as error:
        say(f"Error: the result cannot be written ({error.strerror}): {text}")
        with contextlib.suppress(OSError):  # what is still buffered would fail again at exit
            sys.stdout.close()
        sys.exit(1)


class Meter:
    """Shows how tasks go: bars on a terminal, elsewhere a line when a task has got noticeably further."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._rows: dict[str, TaskID] = {}
        self._said: dict[str, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, task: Task[Any]) -> None:
        """Show a task as it is now."""
        if console.is_terminal:
            if task.task_id not in self._rows:
                self._rows[task.task_id] = self._bars.add_task(task.task_id, total=100, status="")
            self._bars.update(self._rows[task.task_id], completed=task.progress or 0, status=task.status)
            return
        step = (task.status, (task.progress or 0) // 25)
        if self._said.get(task.task_id) != step:
            self._said[task.task_id] = step
            say(f"{task.task_id} {task.status}" + (f" {task.progress} %" if task.progress is not None else ""))
