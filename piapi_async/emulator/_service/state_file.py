"""The tasks as a JSON file, so that an emulator that is started again still knows them.

Only what may change is looked at in the event loop; what a task that has ended looks like is written down once.  All
else, the writing of bytes included, is for a thread.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from attrs import Factory, define, frozen

from .state_reading import VERSION, Saved, recalled
from .tasks import ENDS, Task

if TYPE_CHECKING:
    from .engine import Machine

#: What changes in the life of a task; its values never change themselves.
_MOVING = ("stage", "admitted", "started", "ended", "retries", "error", "attempt", "length", "script")
_STILL = tuple(name for name in attrs.fields_dict(Task) if name not in (*_MOVING, "fate"))


class StateError(ValueError):
    """The file that an emulator keeps its tasks in cannot be read or written; the text says why, and what to do."""


@frozen
class Snapshot:
    """The tasks at one moment: `moving` is, by serial number, what may change of those that have not ended."""

    tasks: tuple[Task, ...]
    moving: dict[int, tuple[object, ...]]
    head: dict[str, float]


def snapshot(machine: Machine, *, epoch: float, saved_at: float) -> Snapshot:
    """Return what a `StateFile` writes; cheap enough for an event loop with tens of thousands of tasks."""
    tasks = tuple(machine.tasks.values())
    moving = {task.serial: _moved(task) for task in tasks if task.stage not in ENDS}
    head = {"version": VERSION, "now": machine.now, "serial": machine.serial, "epoch": epoch, "saved_at": saved_at}
    return Snapshot(tasks, moving, head)


def _moved(task: Task) -> tuple[object, ...]:
    return (
        task.stage,
        task.admitted,
        task.started,
        task.ended,
        task.retries,
        task.error,
        task.attempt,
        task.length,
        task.script,
    )


@define
class StateFile:
    """One file.  `write` is for one thread at a time, and may be another one than the event loop's."""

    path: Path
    _ended: dict[int, bytes] = Factory(dict)

    def check(self) -> None:
        """Raise `StateError` if nothing could ever be written there."""
        if not self.path.parent.is_dir():
            raise StateError(f"{self.path} cannot keep the tasks: {self.path.parent} is not a directory; make it first")
        if self.path.is_dir():
            raise StateError(f"{self.path} cannot keep the tasks: it is a directory; name a file")

    def load(self) -> Saved | None:
        """Return what was saved, None where nothing was; `StateError` for a file that is damaged or not ours."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror or error}") from error
        try:
            return recalled(orjson.loads(content))
        except ValueError as error:
            raise StateError(
                f"{self.path} is not an emulator's state file, or is damaged: {error}.  Move it away and the emulator "
                "starts afresh, without its tasks; or name another file"
            ) from error

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file in one step: a reader sees the old content or the new, never half of it."""
        head = orjson.dumps(snapshot.head)[:-1]
        tasks = b",".join([self._dumped(task, snapshot) for task in snapshot.tasks])
        try:
            _replace(self.path, head, b',"tasks":[', tasks, b"]}")
        except OSError as error:
            raise StateError(f"the tasks cannot be saved in {self.path}: {error.strerror or error}") from error

    def _dumped(self, task: Task, snapshot: Snapshot) -> bytes:
        moving = snapshot.moving.get(task.serial)
        if moving is not None:
            return _dump(task, moving)
        written = self._ended.get(task.serial)
        if written is None:
            written = self._ended[task.serial] = _dump(task, _moved(task))
        return written


def _dump(task: Task, moving: tuple[object, ...]) -> bytes:
    fields: dict[str, Any] = {name: getattr(task, name) for name in _STILL}
    fields |= zip(_MOVING, moving, strict=True)
    fields["script"] = [(at, event.name) for at, event in fields["script"]]
    fields["fate"] = {"fails": task.fate.fails, "retries": task.fate.retries, "seconds": task.fate.seconds}
    return orjson.dumps(fields)


def _replace(path: Path, *content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
