"""The calls beside those about tasks: account, history, active tasks, uploads.  Pure.

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
from ._protocol.envelope import check_confirmed, read_data, read_envelope
from ._protocol.family import Service
from ._protocol.fields import choice, moment, text, whole
from ._protocol.reading import object_at, read_cost, read_int, read_time, text_at
from ._protocol.requests import CheckedRequest, request
from ._protocol.values import UPLOADABLE, is_text
from .errors import UnexpectedAnswer
from .tasks import Cost

__all__ = [
    "PIAPI",
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
    """What an account has left and has used, in the host's own unit; None if it does not say."""

    available: float | None = None
    frozen: float | None = None
    """Set aside for tasks that have not ended."""
    used: float | None = None
    total: float | None = None
    expired: float | None = None


@frozen
class Account:
    """The account behind a key, as far as the host says; `raw` is all of it."""

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
    """What is in progress at one provider; `active_tasks` as the host sends them."""

    staged_count: int = 0
    pending_count: int = 0
    processing_count: int = 0
    active_tasks: tuple[Any, ...] = ()


@frozen(eq=False, repr=False)
class _Packs:
    total_credits: float | None = None
    available_credits: float | None = None
    frozen_credits: float | None = None
    used_credits: float | None = None
    expired_credits: float | None = None


@frozen(eq=False, repr=False)
class _Wallet:
    point_remain: float | None = None
    point_frozen: float | None = None
    point_used: float | None = None


@frozen(eq=False, repr=False)
class _Facts:
    id: str = ""
    account_id: str = ""
    name: str = ""
    account_name: str = ""
    plan: str = ""
    account_plan: str = ""
    equivalent_in_usd: float | None = None


@frozen(eq=False, repr=False)
class _Limits:
    max_concurrent_task_count: int | None = None
    remaining: float | None = None
    credit_pack_info: _Packs = field(factory=_Packs)
    wallet: _Wallet = field(factory=_Wallet)


@frozen(eq=False, repr=False)
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
        facts = _read_facts(data, "data")
        limits = _read_limits.salvage(data)
        return Account(
            id=facts.id or facts.account_id,
            name=facts.name or facts.account_name,
            plan=facts.plan or facts.account_plan,
            equivalent_in_usd=facts.equivalent_in_usd,
            max_concurrent_task_count=limits.max_concurrent_task_count,
            credits=_credits_of(limits),
            wallet=_wallet_of(limits),
            raw=data,
        )


_FLAT = frozenset({"account_id", "account_name"})
"""What the older shape has at its top."""


def _credits_of(limits: _Limits) -> Credits:
    packs = limits.credit_pack_info
    available = packs.available_credits
    if available is None:
        available = limits.remaining
    return Credits(
        available=available,
        frozen=packs.frozen_credits,
        used=packs.used_credits,
        total=packs.total_credits,
        expired=packs.expired_credits,
    )


def _wallet_of(limits: _Limits) -> Credits:
    wallet = limits.wallet
    return Credits(available=wallet.point_remain, frozen=wallet.point_frozen, used=wallet.point_used)


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
        cost = None
        if self.cost is not None:
            cost = {"amount": self.cost.amount, "unit": self.cost.unit}
        return {
            "id": self.id,
            "task_id": self.task_id,
            "model": self.model,
            "status": self.status,
            "action": self.action,
            "cost": cost,
            "created_at": _iso(self.created_at),
            "updated_at": _iso(self.updated_at),
            "service_mode": self.service_mode,
            "api_key_id": self.api_key_id,
        }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


@frozen
class HistoryPage:
    """One page of the history; `total` counts the rows of all pages, None if the host does not."""

    entries: tuple[HistoryEntry, ...]
    size: int
    total: int | None


@frozen(eq=False, repr=False)
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
    """Read one page of the account's task history.

    Pages are counted from 1; `since` and `until` bound the time at which rows were made.
    """

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
        size = _count(data.get("size")) or self.page_size
        return HistoryPage(entries, size=size, total=_count(data.get("total")))


def _read_entry(raw: dict[str, Any]) -> HistoryEntry:
    row = _read_row.salvage(raw)
    detail = object_at(raw, "detail")  # of the task, which knows more than some rows (observed)
    inner = _read_row.salvage(detail)
    model = detail.get("model")
    if not isinstance(model, str):
        model = ""

    return HistoryEntry(
        id=row.id,
        task_id=row.task_id or inner.task_id,
        model=row.task_model or model,
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


# -- active tasks ----------------------------------------------------------------------------------


@frozen
class GetActiveTasks:
    """Read what is in progress, by provider."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("GET", "/account/active_tasks")

    def parse(self, response: HTTPResponse, /) -> dict[str, ActiveTasks]:
        data = read_data(response, self)
        return {provider: _active(entry, f"data.{provider}") for provider, entry in data.items()}


def _active(entry: object, path: str) -> ActiveTasks:
    counts = _read_counts(entry, path)
    tasks = None
    if isinstance(entry, dict):
        tasks = entry.get("active_tasks")

    return ActiveTasks(
        staged_count=counts.staged_count or 0,
        pending_count=counts.pending_count or 0,
        processing_count=counts.processing_count or 0,
        active_tasks=tuple(tasks) if isinstance(tasks, list) else (),
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
        check_confirmed(read_envelope(response, self))


# -- uploads ---------------------------------------------------------------------------------------


@frozen
class Upload:
    """Put a file where the host's models can read it, for 24 hours; the result is its URL."""

    name: str
    data: bytes = field(repr=False)

    def __attrs_post_init__(self) -> None:
        fault = self._fault
        if fault:
            raise ValueError(f"upload: {fault}")

    @property
    def _fault(self) -> str:
        """Why the host will not take the file, "" if it may."""
        if not any(self.name.lower().endswith(suffix) for suffix in UPLOADABLE):
            kinds = ", ".join(sorted(suffix[1:] for suffix in UPLOADABLE))
            return f"the name {self.name!r} is not allowed; it must end in one of {kinds}"
        if not is_text(self.name) or "\0" in self.name:
            return f"the name {self.name!r} is not allowed; JSON, or a file, cannot have it"
        if len(self.name) > _LONGEST_NAME:
            length = len(self.name)
            return f"a name of {length} characters is not allowed; {_LONGEST_NAME} at most"
        if not self.data:
            return f"{self.name} is empty"
        if len(self.data) > MAX_UPLOAD:
            return f"{self.name} has {len(self.data)} bytes; the host takes 10 MiB at most"
        return ""

    def to_http(self) -> HTTPRequest:
        return post("", {"file_name": self.name, "file_data": base64.b64encode(self.data).decode()})

    def parse(self, response: HTTPResponse, /) -> str:
        url = text_at(read_data(response, self), "url", "data")
        if not url.startswith(("http://", "https://")):
            raise UnexpectedAnswer("The response has no URL at data.url", path="data.url")
        return url


# -- the vendor ------------------------------------------------------------------------------------

PIAPI = Service(
    name="PiAPI",
    base_url="https://api.piapi.ai",
    variables="PIAPI",
    client="PiAPI()",
    concurrency=30,
    account=AccountInfo(),
    calls=frozenset({"upload", "history", "active_tasks", "cancel_pending"}),
)
"""PiAPI's own API, for which legacy Midjourney, the unified protocol and the older ones are spoken."""
