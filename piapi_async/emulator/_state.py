"""The tasks as a JSON file, so that an emulator that is started again still knows them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import orjson
from attrs import frozen

from ._asks import Door, Kind
from ._life import Event, Fate, Stage, Task

if TYPE_CHECKING:
    from ._machine import Machine

VERSION = 1


@frozen
class Saved:
    """A snapshot: the tasks, emulated `now`, the unix times of emulated second 0 and of the saving."""

    tasks: tuple[Task, ...]
    now: float
    serial: int
    epoch: float
    saved_at: float


def snapshot(machine: Machine, *, epoch: float, saved_at: float) -> bytes:
    """Return the file's content."""
    return orjson.dumps(
        {
            "version": VERSION,
            "now": machine.now,
            "serial": machine.serial,
            "epoch": epoch,
            "saved_at": saved_at,
            "tasks": [_dump(task) for task in machine.tasks.values()],
        }
    )


def write(path: Path, content: bytes) -> None:
    """Replace the file in one step: a reader sees the old content or the new, never half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path) -> Saved | None:
    """Return what was saved, None where nothing was; `ValueError` for a file that is not ours."""
    if not path.exists():
        return None
    try:
        return _saved(orjson.loads(path.read_bytes()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an emulator's state file: {error!r}") from error


def _saved(content: dict[str, Any]) -> Saved:
    if content["version"] != VERSION:
        raise ValueError(f"version {content['version']}")
    return Saved(
        tuple(_load(task) for task in content["tasks"]),
        float(content["now"]),
        int(content["serial"]),
        float(content["epoch"]),
        float(content["saved_at"]),
    )


def _dump(task: Task) -> dict[str, Any]:
    fields = attrs.asdict(task)
    fields["script"] = [(at, event.name) for at, event in task.script]
    return fields


def _load(fields: dict[str, Any]) -> Task:
    script = tuple((float(at), Event[name]) for at, name in fields.pop("script"))
    stage, kind = Stage(fields.pop("stage")), Kind(fields.pop("kind"))
    door = Door(fields.pop("door", Door.MIDJOURNEY))  # a file of an earlier release has none
    return Task(
        **fields | {"script": script, "stage": stage, "kind": kind, "door": door, "fate": Fate(**fields["fate"])}
    )
