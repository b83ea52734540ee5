"""What a ledger remembers of one submission, and what makes two submissions the same.  Pure."""

from __future__ import annotations

import os
import shlex
import time
from enum import Enum
from hashlib import sha256
from typing import Any

import orjson
from attrs import Factory, field, frozen

from .._http import HTTPRequest
from .._text import brief
from ..tasks import TaskId, TaskRef


class LedgerState(Enum):
    """How far a submission got."""

    SENDING = "sending"
    """Its POST may be on its way, in a process that is alive."""
    ACCEPTED = "accepted"
    """The host named its task."""
    ENDED = "ended"
    """Its task was seen to end."""
    UNKNOWN = "unknown"
    """A task may exist; only a person or a webhook can tell."""


@frozen(kw_only=True)
class LedgerEntry:
    """One submission as the ledger has it.

    `request` is what was sent, as ``/path {json}`` without webhook fields; `at` the Unix time in
    seconds at which it was first recorded; `outcome` the state in which the task ended ("" before
    that), `answer` the host's JSON of that end; `note` what `PiAPI.submit` was given as such, `trace`
    what an observer of the process that sent it has left for later ones.  `attempt` counts from 1: a
    batch with `retry_failed` submits a key anew whose task has failed, and the entry is that of the
    last one.
    """

    key: str
    state: LedgerState
    origin: str
    family: str
    request: str
    task_id: TaskId | None
    at: float
    outcome: str = ""
    answer: bytes = field(default=b"", repr=False)
    found: str = ""
    """How its task was found if the response was lost: "history", "webhook", "read" or "hand"."""
    note: Any = None
    attempt: int = 1
    trace: str | None = field(default=None, repr=False)

    @property
    def ref(self) -> TaskRef | None:
        """A reference to the task, None while its id is not known."""
        if self.task_id is None:
            return None
        return TaskRef(self.origin, self.family, self.task_id)


@frozen
class EndedAttempt:
    """An attempt that was seen to end, for a new one to take its place; `outcome` as in `LedgerEntry`."""

    number: int
    task_id: TaskId
    outcome: str


@frozen
class Kept:
    """What stands beside a submission for those who come later: a caller's note, as JSON, an observer's text."""

    note: str | None = None
    trace: str | None = None


NOTHING_KEPT = Kept()


def _digest(identity: SubmissionKey) -> bytes:
    return sha256(identity.request.encode()).digest()


@frozen(kw_only=True)
class SubmissionKey:
    """The stored identity of a submission.

    `request` is ``/path {json}`` without webhook fields; `digest`, which follows from it, is
    compared when `key` is submitted again.  Both are stored for ever: a change of their form would
    make a rerun pay again.
    """

    key: str
    origin: str
    family: str
    request: str
    digest: bytes = field(default=Factory(_digest, takes_self=True), repr=False, eq=False)

    @classmethod
    def of(cls, request: HTTPRequest, *, key: str | None, origin: str, family: str) -> SubmissionKey:
        """Return the identity of a request; a key is minted if there is none."""
        body = None
        if request.body:
            body = orjson.loads(request.body)

        # A mask may have megabytes: none of its copies is kept for longer than it is needed.
        text = request.path.encode() + b" "
        del request
        data = orjson.dumps(_without_webhooks(body), option=orjson.OPT_SORT_KEYS)
        del body
        text += data
        del data
        if key is None:
            key = _mint_key()
        digest = sha256(text).digest()
        return cls(key=key, origin=origin, family=family, request=text.decode(), digest=digest)

    def with_key(self, key: str) -> SubmissionKey:
        """Return the same submission under another key."""
        return SubmissionKey(
            key=key,
            origin=self.origin,
            family=self.family,
            request=self.request,
            digest=self.digest,
        )


def check_key(key: object) -> None:
    """Raise `ValueError` or `TypeError` for a key that no ledger takes."""
    if not isinstance(key, str):
        raise TypeError(f"key: {brief(key)} is not allowed; it must be a str")
    if not key.strip() or not key.isprintable():
        raise ValueError(f"key: {brief(key)} is not allowed; it must be a non-empty, printable string")


_LONGEST_NOTE = 16 * 1024  # bytes
_PLAIN_JSON = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)


def note_as_json(note: object) -> str | None:
    """Return a caller's note as the ledger keeps it, None for none.

    Raises `TypeError` for what is not JSON, `ValueError` for more than 16 kB of it.
    """
    if note is None:
        return None
    try:
        text = orjson.dumps(note, option=_PLAIN_JSON)
    except orjson.JSONEncodeError as error:
        raise TypeError(f"note: {brief(note)} is not allowed; it must be JSON: {error}") from None
    if len(text) > _LONGEST_NOTE:
        raise ValueError(f"note: {len(text)} bytes of JSON are not allowed; at most {_LONGEST_NOTE} are")
    return text.decode()


def _mint_key() -> str:
    # The time comes first: keys made one after the other are on one page of the database's index.
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


_WEBHOOK_FIELDS = frozenset({"webhook_endpoint", "webhook_secret", "notify_progress", "webhook_config"})


def _without_webhooks(value: Any) -> Any:  # noqa: ANN401 - JSON
    # Where the end is delivered does not change what is bought, and a secret has no place in a
    # file.
    if not isinstance(value, dict):
        return value
    return {name: _without_webhooks(item) for name, item in value.items() if name not in _WEBHOOK_FIELDS}


def resolve_command(path: object, key: str) -> str:
    """Return the command that tells a ledger what became of a key, but for its last words, for a shell."""
    return shlex.join(["piapi-async", "ledger", "resolve", str(path), key])
