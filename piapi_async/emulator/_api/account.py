"""Requests that create no task: uploads, and what an account is told about itself.  Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import define

from .._service.requests import Refusal
from .._service.tasks import END_STAGES, Stage, Task
from .billing import usage_of
from .dialect import JSON
from .unified import envelope

if TYPE_CHECKING:
    from .host import Host
    from .routes import Call

#: What may be uploaded (vendor page).
UPLOADED = ("jpg", "jpeg", "png", "webp", "mp4", "wav", "mp3")
LONGEST_NAME = 128
LARGEST_FILE = 10 * 2**20

#: Points that an account begins with, and what one is worth.
CREDITS = 1_000_000_000
USD_PER_POINT = 1e-7

_NAME = "emulator"


# -- uploads ------------------------------------------------------------------------------------


def upload(host: Host, call: Call) -> JSON:
    """Keep a file for a day, and return its URL."""
    if host.view.plan.name.startswith("free"):
        raise Refusal("Insufficient plan level", status=403)

    name, content = _checked_upload(call.json())
    kept = host.uploads.keep(_suffix(name), content, call.now)
    return envelope({"url": f"{host.view.origin}/ephemeral/{kept}"})


def _checked_upload(body: Mapping[str, object]) -> tuple[str, bytes]:
    refusal = Refusal("Invalid request parameters")
    name, data = body.get("file_name"), body.get("file_data")
    if not isinstance(name, str) or not isinstance(data, str):
        raise refusal
    if len(name) > LONGEST_NAME or _suffix(name) not in UPLOADED:
        raise refusal

    encoded = data
    if data.startswith("data:"):
        encoded = data.partition(";base64,")[2]
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refusal from None

    if not 0 < len(content) <= LARGEST_FILE:
        raise refusal
    return name, content


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


# -- the account --------------------------------------------------------------------------------


@define
class _Balance:
    """The points of an account: what its tasks cost is counted."""

    used: int = 0
    frozen: int = 0

    @property
    def left(self) -> int:
        return CREDITS - self.used - self.frozen

    @property
    def usd(self) -> float:
        return round(self.left * USD_PER_POINT, 2)

    def count(self, task: Task) -> None:
        usage = usage_of(task)
        self.used += usage.consumed
        if task.stage not in END_STAGES:
            self.frozen += usage.frozen


def account_info(host: Host, call: Call) -> JSON:
    """Return what an account is and has (the names of the fields were observed)."""
    account = host.account_id(call.key)
    host.engine.advance(call.now)

    balance = _Balance()
    for task in host.engine.tasks.values():
        if task.account == account:
            balance.count(task)

    if host.view.dialect.account == "flat":  # observed of an older host
        return JSON(
            account_name=_NAME,
            account_id=account,
            remaining=balance.left,
            equivalent_in_usd=balance.usd,
        )

    number = int(account[:8], 16)
    return envelope(
        JSON(
            id=number,
            name=_NAME,
            plan=host.view.plan.name,
            is_enable=True,
            max_concurrent_task_count=host.engine.concurrency,
            equivalent_in_usd=balance.usd,
            credit_pack_info=_credit_packs(balance),
            wallet=_wallet(number, balance),
        )
    )


def _credit_packs(balance: _Balance) -> JSON:
    return {
        "credit_packs_count": 1,
        "total_credits": CREDITS,
        "available_credits": balance.left,
        "frozen_credits": balance.frozen,
        "used_credits": balance.used,
        "expired_credits": 0,
        "inactive_credits": 0,
    }


def _wallet(number: int, balance: _Balance) -> JSON:
    return {
        "id": number,
        "account_id": number,
        "point_remain": balance.left,
        "point_frozen": balance.frozen,
        "point_used": balance.used,
        "auto_recharge_enabled": False,
    }


def active_tasks(host: Host, call: Call) -> JSON:
    """Return which tasks of an account have not ended, by model."""
    account = host.account_id(call.key)
    host.engine.advance(call.now)

    models: dict[str, _ActiveTasks] = {}
    for task in host.engine.tasks.values():
        if task.account == account and task.stage not in END_STAGES:
            models.setdefault(task.model, _ActiveTasks()).add(task)
    return envelope({model: active.as_json() for model, active in models.items()})


class _ActiveTasks:
    """The tasks of one model that have not ended, and how many are in each stage."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(("staged", "pending", "processing"), 0)
        self.tasks: list[JSON] = []

    def add(self, task: Task) -> None:
        word = "processing" if task.stage is Stage.RETRY else str(task.stage)
        self.counts[word] += 1
        self.tasks.append({"task_id": task.task_id, "task_type": task.verb, "status": word})

    def as_json(self) -> JSON:
        counts = {f"{word}_count": count for word, count in self.counts.items()}
        return {**counts, "active_tasks": self.tasks}
