"""What stands beside the task API: the account, what is active on it and can be cancelled, uploads.  Pure.

The wire is that of the vendor's pages (piapi.ai/docs, sections "PiAPI Account Management" and "File Upload API").
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import field, frozen

from . import _fields as fields
from ._envelope import read_data, read_envelope
from ._inputs import UPLOADABLE
from ._lenient import Structure, text_at
from ._wire import HTTPRequest, HTTPResponse, post
from .errors import UnexpectedAnswer

__all__ = ["Account", "AccountInfo", "ActiveTasks", "CancelPending", "GetActiveTasks", "Upload"]

MAX_UPLOAD = 10 * 1024 * 1024
"""Bytes of a file that the upload host takes."""

_LONGEST_NAME = 128


@frozen
class Account:
    """The account behind a key, as far as the host tells; `raw` is all of it."""

    id: str = ""
    name: str = ""
    plan: str = ""
    equivalent_in_usd: float | None = None
    """What its credits are worth, in US dollars."""
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)


@frozen
class ActiveTasks:
    """What of one provider's work is under way; `active_tasks` as the host tells of it."""

    staged_count: int = 0
    pending_count: int = 0
    processing_count: int = 0
    active_tasks: tuple[Any, ...] = ()


@frozen
class _Facts:
    id: str = ""
    account_id: str = ""
    name: str = ""
    account_name: str = ""
    plan: str = ""
    account_plan: str = ""
    equivalent_in_usd: float | None = None


@frozen
class _Counts:
    staged_count: int | None = None
    pending_count: int | None = None
    processing_count: int | None = None


_read_facts = Structure(_Facts)
_read_counts = Structure(_Counts)


@frozen
class AccountInfo:
    """Read the account."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", "/account/info")

    def parse(self, response: HTTPResponse, /) -> Account:
        data = read_data(response, self)
        facts = _read_facts(data, "data")
        return Account(
            facts.id or facts.account_id,
            facts.name or facts.account_name,
            facts.plan or facts.account_plan,
            facts.equivalent_in_usd,
            data,
        )


@frozen
class GetActiveTasks:
    """Read what is under way, by provider."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", "/account/active_tasks")

    def parse(self, response: HTTPResponse, /) -> dict[str, ActiveTasks]:
        data = read_data(response, self)
        return {provider: _active(entry, f"data.{provider}") for provider, entry in data.items()}


def _active(entry: object, path: str) -> ActiveTasks:
    counts = _read_counts(entry, path)
    tasks = entry.get("active_tasks") if isinstance(entry, dict) else None
    return ActiveTasks(
        counts.staged_count or 0,
        counts.pending_count or 0,
        counts.processing_count or 0,
        tuple(tasks) if isinstance(tasks, list) else (),
    )


_CANCELLABLE = ("kling", "midjourney", "suno", "luma", "all")


@frozen
class CancelPending:
    """Ask to cancel the account's pending tasks of a model that were made before a time."""

    created_before: datetime = field(validator=fields.aware)
    model: str = field(default="all", validator=fields.one_of(*_CANCELLABLE))

    def to_http(self) -> HTTPRequest:
        before = int(self.created_before.timestamp())
        return HTTPRequest("DELETE", f"/api/v1/tasks?created_before={before}&model={self.model}")

    def parse(self, response: HTTPResponse, /) -> None:
        read_envelope(response, self)


@frozen
class Upload:
    """Put a file where the host's models can read it, for 24 hours; the answer is its URL."""

    name: str
    data: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        suffix = "." + self.name.rpartition(".")[2].lower() if "." in self.name else ""
        if suffix not in UPLOADABLE:
            kinds = ", ".join(sorted(kind[1:] for kind in UPLOADABLE))
            raise ValueError(f"upload: the name {self.name!r} is not allowed; it must end in one of {kinds}")
        if len(self.name) > _LONGEST_NAME:
            raise ValueError(f"upload: a name of {len(self.name)} characters is not allowed; {_LONGEST_NAME} at most")
        if not self.data:
            raise ValueError(f"upload: {self.name} is empty")
        if len(self.data) > MAX_UPLOAD:
            raise ValueError(f"upload: {self.name} has {len(self.data)} bytes; the host takes 10 MiB at most")

    def to_http(self) -> HTTPRequest:
        return post("", {"file_name": self.name, "file_data": base64.b64encode(self.data).decode()})

    def parse(self, response: HTTPResponse, /) -> str:
        url = text_at(read_data(response, self), "url", "data")
        if not url.startswith(("http://", "https://")):
            raise UnexpectedAnswer("The answer holds no URL at data.url", path="data.url")
        return url
