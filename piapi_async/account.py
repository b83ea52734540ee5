"""What stands beside the task API: the account, its history, what is active and can be cancelled, uploads.  Pure.

The wire is that of the vendor's pages (piapi.ai/docs, sections "PiAPI Account Management" and "File
Upload API").
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from attrs import field, frozen

from ._http import HTTPRequest, HTTPResponse, post
from ._protocol.decoding import Structure
from ._protocol.envelope import read_data, read_envelope
from ._protocol.fields import choice, moment, text, whole
from ._protocol.reading import read_cost, read_int, read_time, text_at
from ._protocol.requests import CheckedRequest, request
from ._protocol.values import UPLOADABLE, is_text
from .errors import UnexpectedAnswer
from .tasks import Cost

__all__ = [
    "Account",
    "AccountInfo",
    "ActiveTasks",
    "CancelPending",
    "Credits",
    "GetActiveTasks",
    "GetHistory",
    "HistoryEntry",
    "HistoryPage",
    "Upload",
]

MAX_UPLOAD = 10 * 1024 * 1024
"""Bytes of a file that the upload host takes."""

_LONGEST_NAME = 128


@frozen
class Credits:
    """What an account has left and has used, in the host's own unit; None where the host does not tell."""

    available: float | None = None
    frozen: float | None = None
    """Set aside for tasks that have not ended."""
    used: float | None = None
    total: float | None = None
    expired: float | None = None


@frozen
class Account:
    """The account behind a key, as far as the host tells; `raw` is all of it."""

    id: str = ""
    name: str = ""
    plan: str = ""
    equivalent_in_usd: float | None = None
    """What its credits are worth, in US dollars."""
    max_concurrent_task_count: int | None = None
    """How many of its tasks the host works on at a time; more are queued."""
    credits: Credits = field(factory=Credits)
    """Its credit packs."""
    wallet: Credits = field(factory=Credits)
    """Its points, which are paid as they are used."""
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)


@frozen
class ActiveTasks:
    """What of one provider's work is under way; `active_tasks` as the host tells of it."""

    staged_count: int = 0
    pending_count: int = 0
    processing_count: int = 0
    active_tasks: tuple[Any, ...] = ()


@frozen
class _Packs:
    total_credits: float | None = None
    available_credits: float | None = None
    frozen_credits: float | None = None
    used_credits: float | None = None
    expired_credits: float | None = None


@frozen
class _Wallet:
    point_remain: float | None = None
    point_frozen: float | None = None
    point_used: float | None = None


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
class _Limits:
    max_concurrent_task_count: int | None = None
    remaining: float | None = None
    credit_pack_info: _Packs = field(factory=_Packs)
    wallet: _Wallet = field(factory=_Wallet)


@frozen
class _Counts:
    staged_count: int | None = None
    pending_count: int | None = None
    processing_count: int | None = None


_read_facts = Structure(_Facts)
_read_limits = Structure(_Limits)
_read_counts = Structure(_Counts)


@frozen
class AccountInfo:
    """Read the account."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", "/account/info")

    def parse(self, response: HTTPResponse, /) -> Account:
        answer = read_envelope(response, self)
        data = answer.get("data")
        if not isinstance(data, dict):
            if "data" in answer or not _FLAT.intersection(answer):
                raise UnexpectedAnswer("The response has no object at data", path="data")
            data = answer  # an older shape, without an envelope (observed)
        facts, limits = _read_facts(data, "data"), _read_limits.salvage(data)
        packs, wallet = limits.credit_pack_info, limits.wallet
        left = packs.available_credits if packs.available_credits is not None else limits.remaining
        return Account(
            facts.id or facts.account_id,
            facts.name or facts.account_name,
            facts.plan or facts.account_plan,
            facts.equivalent_in_usd,
            limits.max_concurrent_task_count,
            Credits(left, packs.frozen_credits, packs.used_credits, packs.total_credits, packs.expired_credits),
            Credits(wallet.point_remain, wallet.point_frozen, wallet.point_used),
            data,
        )


_FLAT = frozenset({"account_id", "account_name"})
"""What the older answer has at its top."""


# -- history ---------------------------------------------------------------------------------------

LARGEST_PAGE = 100


@frozen
class HistoryEntry:
    """One row of the account's task history: that a task was paid for, or paid back.

    It holds neither input nor result; ``await piapi.fetch(entry.task_id, family=UNIFIED)`` reads
    them.
    """

    id: str = ""
    """The row's own id."""
    task_id: str = ""
    model: str = ""
    status: str = ""
    """The task's status word when the row was last changed."""
    action: str = ""
    """What the row is about, such as "pay"."""
    cost: Cost | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    service_mode: str = ""
    api_key_id: str = ""
    """Which of the account's keys made the task."""
    raw: Mapping[str, Any] = field(factory=dict, repr=False, eq=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values, without `raw`."""
        times = {"created_at": self.created_at, "updated_at": self.updated_at}
        return {
            "id": self.id,
            "task_id": self.task_id,
            "model": self.model,
            "status": self.status,
            "action": self.action,
            "cost": None if self.cost is None else {"amount": self.cost.amount, "unit": self.cost.unit},
            **{name: None if time is None else time.isoformat() for name, time in times.items()},
            "service_mode": self.service_mode,
            "api_key_id": self.api_key_id,
        }


@frozen
class HistoryPage:
    """One page of the history; `total` is how many rows there are on all, None where the host does not tell."""

    entries: tuple[HistoryEntry, ...]
    size: int
    total: int | None


@frozen
class _Row:
    id: str = ""
    task_id: str = ""
    task_model: str = ""
    status: str = ""
    action: str = ""
    service_mode: str = ""
    api_key_id: str = ""


_read_row = Structure(_Row)


@request
class GetHistory(CheckedRequest):
    """Read one page of the account's task history, counted from 1; `since` and `until` bound when rows were made."""

    page: int = whole(1, default=1, kw_only=False)
    page_size: int = whole(1, default=LARGEST_PAGE, kw_only=False)
    model: str | None = text(default=None, kw_only=False)
    since: datetime | None = moment(default=None, kw_only=False)
    until: datetime | None = moment(default=None, kw_only=False)

    def to_http(self) -> HTTPRequest:
        query: dict[str, Any] = {"page": self.page, "page_size": self.page_size}
        if self.model:
            query["model"] = self.model
        if self.since is not None:
            query["start_time"] = math.floor(self.since.timestamp())
        if self.until is not None:
            query["end_time"] = math.ceil(self.until.timestamp())
        return HTTPRequest("GET", f"/api/open/tasks/histories?{urlencode(query)}")

    def parse(self, response: HTTPResponse, /) -> HistoryPage:
        data = read_data(response, self)
        rows = data.get("data")
        if rows is None:
            rows = []
        if not isinstance(rows, list):
            raise UnexpectedAnswer("The response has no list at data.data", path="data.data")
        entries = tuple(_read_entry(row) for row in rows if isinstance(row, dict))
        return HistoryPage(entries, _count(data.get("size")) or self.page_size, _count(data.get("total")))


def _read_entry(raw: dict[str, Any]) -> HistoryEntry:
    row, detail = _read_row.salvage(raw), raw.get("detail")
    inner = _read_row.salvage(detail) if isinstance(detail, dict) else _Row()
    model = detail.get("model") if isinstance(detail, dict) else None
    return HistoryEntry(
        id=row.id,
        task_id=row.task_id or inner.task_id,
        model=row.task_model or (model if isinstance(model, str) else ""),
        status=row.status,
        action=row.action,
        cost=read_cost(raw.get("usage"), raw.get("usage_type")),
        created_at=read_time(raw.get("created_at")),
        updated_at=read_time(raw.get("updated_at")),
        service_mode=row.service_mode,
        api_key_id=row.api_key_id,
        raw=raw,
    )


def _count(value: object) -> int | None:
    try:
        return read_int(value)
    except TypeError:
        return None


# -- what is under way -----------------------------------------------------------------------------


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


@request
class CancelPending(CheckedRequest):
    """Ask to cancel the account's pending tasks of a model that were made before a time."""

    created_before: datetime = moment(kw_only=False)
    model: str = choice(*_CANCELLABLE, default="all", kw_only=False)

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
        if not is_text(self.name) or "\0" in self.name:
            raise ValueError(f"upload: the name {self.name!r} is not allowed; JSON, or a file, cannot have it")
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
            raise UnexpectedAnswer("The response has no URL at data.url", path="data.url")
        return url
