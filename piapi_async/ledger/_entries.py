"""What a ledger remembers of one submission, and what makes two submissions the same.  Pure."""

from __future__ import annotations

import os
import time
from enum import Enum
from hashlib import sha256
from typing import Any

import orjson
from attrs import field, frozen

from .._http import HTTPRequest
from ..tasks import TaskId, TaskRef


class LedgerState(Enum):
    """How far a submit got."""

    SENDING = "sending"
    """Its POST may be under way, in a process that lives."""
    ACCEPTED = "accepted"
    ENDED = "ended"
    UNKNOWN = "unknown"
    """A task may exist; only a person or a webhook can tell."""


@frozen(kw_only=True)
class LedgerEntry:
    """One submit as the ledger has it.

    `request` is what was sent, as ``/path {json}`` without webhook fields; `at` the unix time in seconds at which it
    was first recorded; `outcome` the state in which the task ended ("" before), `answer` the host's JSON of that end.
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

    @property
    def ref(self) -> TaskRef | None:
        """Where the task is to be found, None while its id is not known."""
        return None if self.task_id is None else TaskRef(self.origin, self.family, self.task_id)


@frozen(kw_only=True)
class SubmissionKey:
    """A submit as it is claimed: what makes two submits of one key the same."""

    key: str
    origin: str
    family: str
    request: str

    @property
    def digest(self) -> bytes:
        """What is compared when the key is submitted again."""
        return sha256(self.request.encode()).digest()

    @classmethod
    def of(cls, request: HTTPRequest, *, key: str | None, origin: str, family: str) -> SubmissionKey:
        """Give the intent behind a request; a key is minted where there is none."""
        body = orjson.loads(request.body) if request.body else None
        text = orjson.dumps(_without_webhooks(body), option=orjson.OPT_SORT_KEYS).decode()
        return cls(
            # The time first: keys that follow each other stand on one page of the file's index.
            key=f"{time.time_ns():016x}{os.urandom(8).hex()}" if key is None else key,
            origin=origin,
            family=family,
            request=f"{request.path} {text}",
        )


_WEBHOOK_FIELDS = frozenset({"webhook_endpoint", "webhook_secret", "notify_progress", "webhook_config"})


def _without_webhooks(value: Any) -> Any:  # noqa: ANN401 - JSON
    # Where the answer is delivered does not change what is bought, and a secret has no place in a file.
    if isinstance(value, dict):
        return {name: _without_webhooks(item) for name, item in value.items() if name not in _WEBHOOK_FIELDS}
    return value
