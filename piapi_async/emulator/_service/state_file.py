"""The tasks as a JSON file, so that an emulator that is started again still knows them.

The event loop only copies what may change of the tasks that have not ended (`snapshot`).
Everything else, encoding and writing included, is for a thread; a task that has ended is encoded
once and remembered.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from attrs import Factory, define, frozen

from .state_reading import EVENT_NAMES, STORED_AS, VERSION, Saved, read_state
from .tasks import END_STAGES, Task

if TYPE_CHECKING:
    from .engine import TaskEngine

#: What changes in the life of a task; the values themselves are immutable.
_MOVING = (
    "stage",
    "admitted",
    "started",
    "ended",
    "retries",
    "error",
    "attempt",
    "length",
    "steps",
)
_STILL = tuple(name for name in attrs.fields_dict(Task) if name not in (*_MOVING, "script"))


class StateError(ValueError):
    """The state file of an emulator cannot be read or written; the text says why, and what to do."""


@frozen
class Snapshot:
    """The tasks at one moment.

    `moving` has, by serial number, the values that may change of those that have not ended.
    """

    tasks: tuple[Task, ...]
    moving: dict[int, tuple[object, ...]]
    head: dict[str, float]


def snapshot(engine: TaskEngine, *, epoch: float, saved_at: float) -> Snapshot:
    """Return what a `StateFile` writes; cheap enough for an event loop with tens of thousands of tasks."""
    tasks = tuple(engine.tasks.values())
    moving = {task.serial: _moving_values(task) for task in tasks if task.stage not in END_STAGES}
    head = {
        "version": VERSION,
        "now": engine.now,
        "serial": engine.serial,
        "epoch": epoch,
        "saved_at": saved_at,
    }
    return Snapshot(tasks, moving, head)


def _moving_values(task: Task) -> tuple[object, ...]:
    """Return the values of the fields `_MOVING`, written out because this runs in the event loop."""
    return (
        task.stage,
        task.admitted,
        task.started,
        task.ended,
        task.retries,
        task.error,
        task.attempt,
        task.length,
        task.steps,
    )


@define
class StateFile:
    """One file.  `write` may be called from any thread, but from one at a time."""

    path: Path
    _ended: dict[int, bytes] = Factory(dict)

    def check(self) -> None:
        """Raise `StateError` if the file could never be written."""
        folder = self.path.parent
        if not folder.is_dir():
            raise StateError(f"{self.path} cannot keep the tasks: {folder} is not a directory; make it first")
        if self.path.is_dir():
            raise StateError(f"{self.path} cannot keep the tasks: it is a directory; name a file")

    def load(self) -> Saved | None:
        """Return what was saved, None if there is no file.

        Raise `StateError` if it is damaged or not an emulator's.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"{self.path} cannot be read: {error.strerror or error}") from error

        try:
            return read_state(orjson.loads(content))
        except ValueError as error:
            raise StateError(
                f"{self.path} is not an emulator's state file, or is damaged: {error}.  Move it away "
                "and the emulator starts afresh, without its tasks; or name another file"
            ) from error

    def write(self, snapshot: Snapshot) -> None:
        """Replace the file in one step: a reader sees the old content or the new, never half of it."""
        head = orjson.dumps(snapshot.head)[:-1]
        tasks = b",".join([self._encoded(task, snapshot) for task in snapshot.tasks])

        try:
            _replace(self.path, head, b',"tasks":[', tasks, b"]}")
        except OSError as error:
            reason = error.strerror or error
            raise StateError(f"the tasks cannot be saved in {self.path}: {reason}") from error

    def _encoded(self, task: Task, snapshot: Snapshot) -> bytes:
        moving = snapshot.moving.get(task.serial)
        if moving is not None:
            return _encode(task, moving)

        encoded = self._ended.get(task.serial)
        if encoded is None:
            encoded = self._ended[task.serial] = _encode(task, _moving_values(task))
        return encoded


def _encode(task: Task, moving: tuple[object, ...]) -> bytes:
    fields: dict[str, Any] = {name: getattr(task, name) for name in _STILL}
    fields |= zip(_MOVING, moving, strict=True)
    fields["steps"] = [(at, EVENT_NAMES[event]) for at, event in fields["steps"]]
    fields["script"] = {
        "fails": task.script.fails,
        "retries": task.script.retries,
        "seconds": task.script.seconds,
    }
    return orjson.dumps({STORED_AS.get(name, name): value for name, value in fields.items()})


def _replace(path: Path, *content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
