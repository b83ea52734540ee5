"""What the service has beside tasks: the upload of files, and what an account is told of itself.  Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import Factory, define, frozen

from .._media.files import TYPES
from .._service.requests import Refused
from .._service.tasks import ENDS, Stage
from .dialect import JSON
from .unified import envelope, usage

if TYPE_CHECKING:
    from .host import Desk
    from .routes import Call

UPLOADED = ("jpg", "jpeg", "png", "webp", "mp4", "wav", "mp3")
LONGEST_NAME = 128
LARGEST_FILE = 10 * 2**20
#: Emulated seconds an upload is served for.
LIFETIME = 24 * 3600.0
#: How many uploads are kept at once; they are in memory only, and gone when the emulator stops.
KEPT = 32
#: Points an account has, and what a thousand of them are worth.
CREDITS = 1_000_000_000
USD_PER_POINT = 1e-7


@frozen
class Upload:
    """One uploaded file."""

    content: bytes
    type: str
    at: float


@define
class Uploads:
    """The files that were uploaded lately, by the last part of their addresses."""

    files: dict[str, Upload] = Factory(dict)

    def keep(self, suffix: str, content: bytes, now: float) -> str:
        """Keep a file, and return its name: a new one each time."""
        digest = hashlib.sha256(content + str((now, len(self.files))).encode()).digest()
        name = f"{uuid.UUID(bytes=digest[:16], version=4)}.{suffix}"
        self.files[name] = Upload(content, TYPES[suffix], now)
        while len(self.files) > KEPT:
            del self.files[next(iter(self.files))]
        return name

    def find(self, name: str, now: float) -> Upload | None:
        """Return a file that is still kept."""
        upload = self.files.get(name)
        return upload if upload is not None and now - upload.at <= LIFETIME else None


def upload(desk: Desk, call: Call) -> JSON:
    """Keep a file for a day, and answer its address."""
    if desk.view.plan.name.startswith("free"):
        raise Refused("Insufficient plan level", status=403)
    name, content = _uploaded(call.json())
    kept = desk.uploads.keep(_suffix(name), content, call.now)
    return envelope({"url": f"{desk.view.origin}/ephemeral/{kept}"})


def _uploaded(body: Mapping[str, object]) -> tuple[str, bytes]:
    name, data = body.get("file_name"), body.get("file_data")
    refusal = Refused("Invalid request parameters")
    if not isinstance(name, str) or not isinstance(data, str):
        raise refusal
    if len(name) > LONGEST_NAME or _suffix(name) not in UPLOADED:
        raise refusal
    encoded = data.partition(";base64,")[2] if data.startswith("data:") else data
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refusal from None
    if not 0 < len(content) <= LARGEST_FILE:
        raise refusal
    return name, content


def _suffix(name: str) -> str:
    return name.rpartition(".")[2].lower()


def account_info(desk: Desk, call: Call) -> JSON:
    """Tell an account what it is and has: what its tasks cost is counted (the field names were observed)."""
    account = desk.account(call.key)
    desk.machine.advance(call.now)
    used = frozen_points = 0
    for task in desk.machine.tasks.values():
        if task.account == account:
            cost = usage(task)
            used += int(str(cost["consume"]))
            frozen_points += 0 if task.stage in ENDS else int(str(cost["frozen"]))
    left = CREDITS - used - frozen_points
    usd = round(left * USD_PER_POINT, 2)
    if desk.view.dialect.account == "flat":  # observed of an older host
        return JSON(account_name="emulator", account_id=account, remaining=left, equivalent_in_usd=usd)
    number = int(account[:8], 16)
    packs = {
        "credit_packs_count": 1,
        "total_credits": CREDITS,
        "available_credits": left,
        "frozen_credits": frozen_points,
        "used_credits": used,
        "expired_credits": 0,
        "inactive_credits": 0,
    }
    wallet = {
        "id": number,
        "account_id": number,
        "point_remain": left,
        "point_frozen": frozen_points,
        "point_used": used,
        "auto_recharge_enabled": False,
    }
    return envelope(
        JSON(
            id=number,
            name="emulator",
            plan=desk.view.plan.name,
            is_enable=True,
            max_concurrent_task_count=desk.machine.concurrency,
            equivalent_in_usd=usd,
            credit_pack_info=packs,
            wallet=wallet,
        )
    )


def active_tasks(desk: Desk, call: Call) -> JSON:
    """Tell an account which of its tasks have not ended, by model."""
    account = desk.account(call.key)
    desk.machine.advance(call.now)
    providers: JSON = {}
    for task in desk.machine.tasks.values():
        if task.account != account or task.stage in ENDS:
            continue
        counts = providers.setdefault(task.model, {f"{name}_count": 0 for name in _COUNTED} | {"active_tasks": []})
        assert isinstance(counts, dict)  # noqa: S101 - made in the line above
        word = "processing" if task.stage is Stage.RETRY else str(task.stage)
        counts[f"{word}_count"] += 1
        counts["active_tasks"].append({"task_id": task.task_id, "task_type": task.verb, "status": word})
    return envelope(providers)


_COUNTED = ("staged", "pending", "processing")
