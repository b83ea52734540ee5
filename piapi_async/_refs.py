"""Where a task is: its id, and the ref that finds it again from anywhere.  Pure.

A ref has two forms: a line of JSON, and a token, which fits into a chat button.
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256
from typing import Any, NewType, Protocol, TypeAlias

import orjson
from attrs import frozen

from ._text import brief

TaskId = NewType("TaskId", str)
"""A task id as the server spelt it; `check_task_id` makes one of what a user passes."""


class HasRef(Protocol):
    """What knows where its task is: a `Task`, a `TaskHandle`, an `Outcome`, a `LedgerEntry`."""

    @property
    def ref(self) -> TaskRef | None:
        """Where the task is."""
        ...


@frozen
class TaskRef:
    """Where a task is: the host's origin, the family's name, the id.  Holds no key; keep it anywhere."""

    origin: str
    family: str
    task_id: TaskId

    def __str__(self) -> str:
        return self.task_id

    def to_json(self) -> str:
        """Return the ref as one line of JSON."""
        fields = {"origin": self.origin, "family": self.family, "task_id": self.task_id}
        return orjson.dumps(fields).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> TaskRef:
        """Return the ref written by `to_json`; raise `ValueError` for anything else."""
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"not a TaskRef: {error}") from None

        names = ("origin", "family", "task_id")
        values = [data.get(name) for name in names] if isinstance(data, dict) else [None]
        if not all(isinstance(value, str) and value for value in values):
            raise ValueError(f"not a TaskRef: {', '.join(names)} must be non-empty strings")
        return cls(*values)

    def to_token(self) -> str:
        """Return the ref as URL-safe text, at most 60 characters for ids up to the length of a UUID.

        It is for where there is little room, as in a chat button's payload (64 bytes, 100
        characters).  The origin is in it as a digest only, so `from_token` wants it.
        """
        data = _head(self.family, self.task_id) + _digest(self)
        return base64.urlsafe_b64encode(data + _packed(self.task_id)).rstrip(b"=").decode()

    @classmethod
    def from_token(cls, token: str, *, origin: str) -> TaskRef:
        """Return the ref whose `to_token` this is, at an origin: ``from_token(token, origin=piapi.origin)``.

        Raises `ValueError` for a token of another origin's task, and for one that was cut off or
        changed.
        """
        try:
            ref = cls(origin, *_unpack(_decoded(token)))
        except (IndexError, ValueError):
            raise ValueError(f"{brief(token)} is no token of a task, or not the whole of one") from None

        if ref.to_token() != token:
            raise ValueError(f"{brief(token)} is no token of a task at {origin}, or not the whole of one")
        return ref


TaskLike: TypeAlias = str | TaskRef | HasRef
"""What stands for a task wherever an id is wanted."""


# -- tokens ----------------------------------------------------------------------------------------
#
# head, digest, id.  The head is a byte: two bits for how the id is written, six for the family.  A
# stored form: tokens stand in old messages, so nothing of it may change, and families are added at
# the end.

_FAMILIES = ("legacy", "unified", "face-swap", "dream-machine", "legacy-kling", "legnext")
_OTHER = 63  # a family of somebody's own: its length and name follow
_AS_TEXT, _AS_UUID = 0, 1
_DIGEST = 6  # bytes

_UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def _head(family: str, task_id: str) -> bytes:
    kind = _AS_UUID if re.fullmatch(_UUID, task_id) else _AS_TEXT
    if family in _FAMILIES:
        return bytes([_FAMILIES.index(family) << 2 | kind])

    name = family.encode()
    return bytes([_OTHER << 2 | kind, len(name)]) + name


def _digest(ref: TaskRef) -> bytes:
    return sha256(f"{ref.origin}\0{ref.family}\0{ref.task_id}".encode()).digest()[:_DIGEST]


def _packed(task_id: str) -> bytes:
    if re.fullmatch(_UUID, task_id):
        return bytes.fromhex(task_id.replace("-", ""))
    return task_id.encode()


def _decoded(token: str) -> bytes:
    return base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)


def _unpack(data: bytes) -> tuple[str, TaskId]:
    """Return family and id; raise `IndexError` or `ValueError` for what is no token."""
    code, kind = divmod(data[0], 4)
    rest = data[1:]
    if code == _OTHER:
        length = rest[0]
        family, rest = rest[1 : 1 + length].decode(), rest[1 + length :]
    else:
        family = _FAMILIES[code]

    packed = rest[_DIGEST:]
    if kind != _AS_UUID:
        return family, TaskId(packed.decode())

    digits = packed.hex()
    return family, TaskId("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))


# -- what stands for a task ------------------------------------------------------------------------

_ALLOWED = "pass task.task_id, or the task itself, its handle or its ref"


def ref_in(task: object) -> TaskRef | None:
    """Return where a task is, None for what does not know it."""
    if isinstance(task, TaskRef):
        return task
    ref = getattr(task, "ref", None)
    if isinstance(ref, TaskRef):
        return ref
    return None


def to_task_id(task: Any) -> Any:  # noqa: ANN401 - as the caller gave it
    """Return the id of what stands for a task; anything else stays as it is."""
    if isinstance(task, str):
        return task
    ref = ref_in(task)
    if ref is not None:
        return ref.task_id
    task_id = getattr(task, "task_id", None)  # of a task that was made by hand
    if isinstance(task_id, str):
        return task_id
    return task


def check_task_id(task: TaskLike) -> TaskId:
    """Return the id of what stands for a task, stripped; raise `ValueError` for what cannot be one.

    Raises `TypeError` for what stands for no task.
    """
    if not isinstance(task, str):
        task = to_task_id(task)
        if not isinstance(task, str):
            raise TypeError(f"a task id must be a str, not {brief(task)}: {_ALLOWED}")

    task_id = task.strip()
    if not task_id:
        raise ValueError("the task id is empty")
    if task_id in {".", ".."}:  # as a segment of a path they mean another path, and cannot be quoted
        raise ValueError(f"{brief(task)} is not a task id")
    if task_id.isascii():  # nearly always
        return TaskId(task_id)
    try:
        task_id.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON cannot carry
        raise ValueError(f"{brief(task)} is not a task id") from None
    return TaskId(task_id)
