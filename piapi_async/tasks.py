"""What a task is, whichever API runs it.  Pure.

A `Task` is one observation of a task, never changed afterwards.  A `TaskRef`, which `_refs` makes, is
all that is needed to find it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum, StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
import orjson
from attrs import evolve, field, frozen

from ._refs import HasRef, TaskId, TaskLike, TaskRef, check_task_id, ref_in, to_task_id
from ._text import brief

__all__ = [
    "Cost",
    "Created",
    "FileKind",
    "FileRole",
    "HasRef",
    "Task",
    "TaskFile",
    "TaskId",
    "TaskLike",
    "TaskRef",
    "TaskState",
    "check_task_id",
    "ref_in",
    "to_task_id",
]

R_co = TypeVar("R_co", covariant=True)


class TaskState(Enum):
    """Where a task is in its life, whatever word the host uses for it.

    ``state.terminal`` tells whether nothing more will happen to the task: it is DONE, FAILED or
    CANCELLED.
    """

    WAITING = "waiting"
    """Not started: staged, queued, or a word we do not know."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    terminal: bool
    """Whether nothing more will happen to the task."""

    def __init__(self, word: str) -> None:
        self.terminal = word in {"done", "failed", "cancelled"}


@frozen
class Usual:
    """How long tasks of one kind usually take, as a lognormal distribution.

    Half of them take less than `median` seconds; `spread` is the standard deviation of the natural
    logarithm.  `known` tells that it was seen, not guessed.
    """

    median: float
    spread: float = 0.6
    known: bool = False

    def after(self, deviations: float) -> float:
        """Return the seconds after which a share of the tasks has ended, given in deviations."""
        return self.median * math.exp(deviations * self.spread)

    def ended(self, age: float) -> float:
        """Return the share of the tasks that has ended at an age in seconds."""
        if age <= 0.0:
            return 0.0
        return math.erfc(math.log(self.median / age) / (self.spread * math.sqrt(2.0))) / 2.0


@frozen
class Cost:
    """What a task costs: an amount in the host's own unit, "" if it names none.

    PiAPI's units are "point" and "llm"; by its price list both are ten-millionths of a US dollar
    (2,500,000 for what costs $0.25).  The legacy protocol counts a "quota" of undisclosed price.
    """

    amount: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}".rstrip()


@frozen
class Created:
    """A task that was created: its id and, if the host says so, what it is expected to cost."""

    task_id: TaskId
    frozen: Cost | None = None


@frozen
class Life:
    """The facts of a task that never decide anything; all may be missing.

    What it cost is read by itself, as batches ask for it of every task.
    """

    task_type: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class FileKind(Enum):
    """What a file of a result is."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    MODEL = "model"
    """A scene or object in three dimensions."""
    FILE = "file"
    """Of a kind that neither its name nor its link shows."""


class FileRole(StrEnum):
    """What a file is among those of its task."""

    RESULT = "result"
    """What was asked for."""
    COPY = "copy"
    """What results show, once more: a grid as one picture, the same picture on another host."""
    WATERMARKED = "watermarked"
    """A result once more, with the maker's mark on it."""
    COVER = "cover"
    """A still, a thumbnail, cover art."""


@frozen
class TaskFile:
    """A file that a task made.

    `url` is its link, which expires; `path` the place inside the JSON that named it; `saved_as`
    where it was saved, None if it was not.
    """

    url: str
    path: str
    kind: FileKind
    role: FileRole = FileRole.RESULT
    saved_as: Path | str | None = None

    def to_dict(self) -> dict[str, str | None]:
        """Return the file as JSON values."""
        saved_as = None
        if self.saved_as is not None:
            saved_as = str(self.saved_as)

        return {
            "url": self.url,
            "kind": self.kind.value,
            "role": self.role.value,
            "path": self.path,
            "saved_as": saved_as,
        }


def _no_actions(_: TaskId, word: str, __: Mapping[str, Any]) -> Any:  # noqa: ANN401 - never returns
    raise ValueError(f"action: {brief(word)} is not allowed; tasks of this family have no actions")


def _no_cost(_: Mapping[str, Any]) -> Cost | None:
    return None


@frozen(eq=False)
class Reader(Generic[R_co]):
    """How the JSON of one API's task is read in depth: the result, the life, the cost, the files.

    `unpack` makes that JSON of the bytes that a waiting task keeps; see `waiting_task`.
    """

    result: Callable[[Mapping[str, Any]], R_co]
    life: Callable[[Mapping[str, Any]], Life]
    files: Callable[[Mapping[str, Any]], tuple[TaskFile, ...]]
    unpack: Callable[[bytes], Mapping[str, Any]] = orjson.loads
    cost: Callable[[Mapping[str, Any]], Cost | None] = _no_cost
    derive: Callable[[TaskId, str, Mapping[str, Any]], Any] = _no_actions
    """Makes the request behind a word of `result.actions`, with further inputs."""


@frozen(kw_only=True, slots=False)  # made for every poll, a quarter faster into a dict
class Task(Generic[R_co]):
    """One observation of a task.

    `status` is the host's word and `state` what it means; `progress` is 0..100, None if the host
    does not say; `error` holds the host's reasons, joined, "" without any; `images` are the links
    of the result in reading order, which expire: download them.  `raw` is the JSON as received,
    with any webhook secret blanked.

    The rest is read from `raw` when it is first asked for, because most polls find a task that is
    still waiting.  The status word alone decides `state`; a detail that cannot be read is empty,
    and `raw` has it.
    """

    task_id: TaskId
    status: str
    state: TaskState
    progress: int | None = None
    error: str = ""
    images: tuple[str, ...] = ()
    raw: Mapping[str, Any] = field(repr=False, eq=False)
    _reader: Reader[R_co] = field(repr=False, eq=False)
    ref: TaskRef | None = field(default=None, repr=False, eq=False)
    """Where the task is, for a task that a client has read; None for one that was made by hand."""

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the bytes of a response, in which secrets may still stand."""
        _ = self.raw
        return self.__dict__

    @cached_property
    def result(self) -> R_co:
        """The result in the API's own terms; its fields are empty while there is none."""
        return self._reader.result(self.raw)

    @cached_property
    def files(self) -> tuple[TaskFile, ...]:
        """Every file of the result: what was asked for first, then copies, then covers.

        The whole grid of Midjourney is a copy of its four pictures.
        """
        return self._reader.files(self.raw)

    @cached_property
    def _life(self) -> Life:
        return self._reader.life(self.raw)

    @property
    def task_type(self) -> str:
        """The verb that made the task, "" if the host does not say."""
        return self._life.task_type

    @property
    def cost(self) -> Cost | None:
        """What the host says it has consumed for the task so far, None if it does not say."""
        return self._reader.cost(self.raw)

    @property
    def created_at(self) -> datetime | None:
        """When the task was made (UTC)."""
        return self._life.created_at

    @property
    def started_at(self) -> datetime | None:
        """When the work on it began (UTC), None before."""
        return self._life.started_at

    @property
    def ended_at(self) -> datetime | None:
        """When it ended (UTC), None before."""
        return self._life.ended_at

    @property
    def done(self) -> bool:
        """Whether the task has ended, well or not: nothing more will happen to it."""
        return self.state.terminal

    @property
    def ok(self) -> bool:
        """Whether the task has ended well, so that there is a result."""
        return self.state is TaskState.DONE

    def action(self, word: str, **inputs: Any) -> Any:  # noqa: ANN401 - of the family's classes
        """Return the request behind a word of `result.actions`, as chat bots show them on buttons.

        ``await piapi.run(task.action("upscale2"))`` runs ``Upscale(task, 2)``.  `inputs` are what a
        word does not tell: ``task.action("inpaint", mask=…)``.  Whether the host offers that for this
        task is the host's to say.

        Raises `ValueError` for a word that is not known, for one that needs inputs which were not given,
        and for a family without actions.
        """
        return self._reader.derive(self.task_id, word, inputs)

    def to_dict(self) -> dict[str, Any]:
        """Return what the command line prints of a task: JSON values alone, times in ISO 8601."""
        cost = None
        if self.cost is not None:
            cost = {"amount": self.cost.amount, "unit": self.cost.unit}

        return {
            "task_id": self.task_id,
            "task_type": self.task_type,
            "status": self.status,
            "state": self.state.value,
            "progress": self.progress,
            "error": self.error,
            "images": list(self.images),
            "result": _to_json_value(self.result),
            "files": [file.to_dict() for file in self.files],
            "cost": cost,
            "created_at": _iso(self.created_at),
            "started_at": _iso(self.started_at),
            "ended_at": _iso(self.ended_at),
        }

    def to_json(self) -> str:
        """Return `to_dict` as one line of JSON."""
        return orjson.dumps(self.to_dict(), default=str).decode()

    def __repr__(self) -> str:
        facts = [self.status]
        if self.state is TaskState.RUNNING and self.progress is not None:
            facts.append(f"{self.progress} %")
        if self.state is TaskState.DONE:
            number = sum(file.role is not FileRole.COPY for file in self.files)
            facts.append(f"{number} files")
        if self.error:
            facts.append(self.error)
        return f"<Task {self.task_id}: {', '.join(facts)}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the pictures, players for videos and sounds, links to the rest."""
        from ._html import task_html  # noqa: PLC0415 - few programs run in a notebook

        return task_html(f"Task {self.task_id}", self.to_dict(), self.error)


def _to_json_value(result: object) -> object:
    """Return a result as JSON values, which that of an undocumented shape is already."""
    if attrs.has(type(result)):
        return attrs.asdict(result, value_serializer=_listed)  # type: ignore[arg-type]  # an instance of such a class
    return result


def _listed(_instance: object, _attribute: object, value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value


def _iso(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.isoformat()


class _Unread:
    """The `raw` of a task that keeps the bytes of a response in its place."""

    def __get__(self, task: Task[Any] | None, _: object) -> Any:  # noqa: ANN401 - as a property does
        if task is None:
            return self

        values = task.__dict__
        body = values.get("_body")
        if body is None:  # another thread has read it, or the task was never made whole
            if "raw" in values:
                return values["raw"]
            raise AttributeError("raw")
        raw = values["raw"] = values["_reader"].unpack(body)
        values.pop("_body", None)
        return raw


# What a waiting task nearly always has, and so does not keep, as there can be a hundred thousand of
# them: it is found in the class, where a task has nothing of its own.  A `__getattr__` would make
# every look at every attribute several times as slow.
for _name, _left_out in (("error", ""), ("images", ()), ("ref", None), ("raw", _Unread())):
    setattr(Task, _name, _left_out)
del _name, _left_out

_new = object.__new__  # for every reading of a task


def waiting_task(  # noqa: PLR0917 - for every poll; keywords would cost a third more
    task_id: TaskId,
    status: str,
    state: TaskState,
    progress: int | None,
    images: tuple[str, ...],
    body: bytes,
    reader: Reader[R_co],
) -> Task[R_co]:
    """Return a task that has not ended, whose `raw` is read when it is asked for.

    `body` is the bytes of which `reader.unpack` makes its `raw`, and blanks the secrets in it.  It
    keeps a quarter of the memory, and is made in half the time: nearly all readings of a task are
    looked at once, and only for what stands here.
    """
    task: Task[R_co] = _new(Task)
    values = task.__dict__  # not a new one: instances share the keys of theirs
    values["task_id"] = task_id
    values["status"] = status
    values["state"] = state
    values["progress"] = progress
    if images:
        values["images"] = images
    values["_body"] = body
    values["_reader"] = reader
    return task


def task_with_raw(  # noqa: PLR0917 - for every task that has ended; keywords would cost a half more
    task_id: TaskId,
    status: str,
    state: TaskState,
    progress: int | None,
    error: str,
    images: tuple[str, ...],
    raw: Mapping[str, Any],
    reader: Reader[R_co],
) -> Task[R_co]:
    """Return what `Task` returns when it is called, in half the time."""
    task: Task[R_co] = _new(Task)
    values = task.__dict__
    values["task_id"] = task_id
    values["status"] = status
    values["state"] = state
    values["progress"] = progress
    values["error"] = error
    values["images"] = images
    values["raw"] = raw
    values["_reader"] = reader
    values["ref"] = None
    return task


def with_files(task: Task[R_co], files: tuple[TaskFile, ...]) -> Task[R_co]:
    """Return the same observation with other files: as they were saved."""
    copy = evolve(task)
    copy.__dict__["files"] = files
    return copy


def found_at(task: Task[Any], ref: TaskRef) -> None:
    """Set a task's `ref`.  For the client, before it hands the observation out."""
    task.__dict__["ref"] = ref


def look_into(task: Task[Any]) -> Mapping[str, Any]:
    """Return what `task.raw` is, and let a waiting task go on to keep its bytes alone."""
    body = task.__dict__.get("_body")
    if body is None:
        return task.raw
    return task._reader.unpack(body)  # noqa: SLF001 - of this module
