"""What a task is, whichever API runs it.  Pure.

A `Task` is one observation of a task, never changed afterwards.  A `TaskRef` is all one needs to
find it again.  A `Family` says how the tasks of one API are read and cancelled; the client, the
poller and the ledger know no more of an API than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum, StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NewType, TypeVar

import orjson
from attrs import evolve, field, frozen

R_co = TypeVar("R_co", covariant=True)

TaskId = NewType("TaskId", str)
"""A task id as the server spelt it; made by `read_task_id` and where a user hands one in, nowhere else."""


class TaskState(Enum):
    """Where a task is in its life, whatever word the host uses for it."""

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
class Cost:
    """What a task costs: an amount in the host's own unit.

    PiAPI's are "point" and "llm", and by its price list both are ten-millionths of a US dollar
    (2,500,000 for what costs $0.25); the legacy protocol counts a "quota", whose price it does not
    tell.  "" where no unit is named.
    """

    amount: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}".rstrip()


@frozen
class Created:
    """What an answer to a create tells: the new task's id and, if the host says, what the task is expected to cost."""

    task_id: TaskId
    frozen: Cost | None = None


@frozen
class Life:
    """The facts of a task that never decide anything; all may be missing."""

    task_type: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    cost: Cost | None = None


class FileKind(Enum):
    """What a file of a result is."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    MODEL = "model"
    """A scene or object in three dimensions."""
    FILE = "file"
    """Of a kind that neither its name nor its link tells."""


class FileRole(StrEnum):
    """What a file is among those of its task."""

    RESULT = "result"
    """What was asked for."""
    WATERMARKED = "watermarked"
    """A result once more, with the maker's mark on it."""
    COVER = "cover"
    """A still, a thumbnail, a picture for the sleeve."""


@frozen
class TaskFile:
    """A file that a task made.

    `url` is its link, which expires; `path` the place of the answer that named it; `saved_as` where
    it was saved, None for a file that was not.
    """

    url: str
    path: str
    kind: FileKind
    role: FileRole = FileRole.RESULT
    saved_as: Path | str | None = None


@frozen(eq=False)
class Reader(Generic[R_co]):
    """How one API's answers are read in depth: the result, the life, the files."""

    result: Callable[[Mapping[str, Any]], R_co]
    life: Callable[[Mapping[str, Any]], Life]
    files: Callable[[Mapping[str, Any]], tuple[TaskFile, ...]]


@frozen(kw_only=True, slots=False)  # made for every look: into a dict that costs a quarter less
class Task(Generic[R_co]):
    """One look at a task.

    `status` is the word on the wire and `state` what it means; `progress` is 0..100 or None where
    the host does not tell; `error` is "" or the host's reasons, joined; `images` are the links of
    the result in reading order, and expire: download them.  `raw` is the JSON as received, with any
    webhook secret blanked.

    The rest is read from `raw` when it is first asked for, because most looks find a task that is
    still waiting.  The status word alone decides `state`: of a detail that cannot be read the field
    is empty, and `raw` has it.
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

    @cached_property
    def result(self) -> R_co:
        """The result in the API's own terms; its fields are empty while there is none."""
        return self._reader.result(self.raw)

    @cached_property
    def files(self) -> tuple[TaskFile, ...]:
        """Every file of the result: what was asked for first, then watermarked copies, then covers."""
        return self._reader.files(self.raw)

    @cached_property
    def _life(self) -> Life:
        return self._reader.life(self.raw)

    @property
    def task_type(self) -> str:
        """The verb that made the task, "" where the host does not tell."""
        return self._life.task_type

    @property
    def cost(self) -> Cost | None:
        """What the host says it has consumed for the task so far, None where it does not tell."""
        return self._life.cost

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


def with_files(task: Task[R_co], files: tuple[TaskFile, ...]) -> Task[R_co]:
    """Return the same observation with other files: as they were saved."""
    copy = evolve(task)
    copy.__dict__["files"] = files
    return copy


def found_at(task: Task[Any], ref: TaskRef) -> None:
    """Note where a task is.  For a client, before it hands the observation out."""
    task.__dict__["ref"] = ref


@frozen
class TaskRef:
    """Where a task is to be found: the host's origin, the family's name, the id.  Holds no key; keep it anywhere."""

    origin: str
    family: str
    task_id: TaskId

    def __str__(self) -> str:
        return self.task_id

    def to_json(self) -> str:
        """Give the ref as one line of JSON."""
        return orjson.dumps({"origin": self.origin, "family": self.family, "task_id": self.task_id}).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> TaskRef:
        """Give the ref written by `to_json`; raise `ValueError` for anything else."""
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not a TaskRef: {error}") from None
        fields = ("origin", "family", "task_id")
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) and data[name] for name in fields):
            raise ValueError(f"not a TaskRef: it needs the texts {', '.join(fields)}")
        return cls(data["origin"], data["family"], TaskId(data["task_id"]))


def check_task_id(value: str) -> TaskId:
    """Return a user's task id, stripped; raise `ValueError` for what cannot be one, `TypeError` for no text."""
    if not isinstance(value, str):
        raise TypeError(f"a task id is a text, not {value!r}")
    if not value.strip():
        raise ValueError("the task id is empty")
    if value.strip() in {".", ".."}:  # as a segment of a path they mean another path, and cannot be quoted
        raise ValueError(f"{value!r} is no task id")
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON cannot carry
        raise ValueError(f"{value!r} is no task id") from None
    return TaskId(value.strip())
