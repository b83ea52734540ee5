"""One webhook delivery as a value, and whether it may be believed.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from attrs import field, frozen

from .._calls.secrets import Secrets
from .._families import FAMILIES
from .._protocol.answers import read_object
from .._protocol.family import Family
from .._protocol.reading import classify, id_of
from .._submit.nonces import echoed_nonce
from .._text import shorten
from ..errors import UnexpectedAnswer, WebhookRejected
from ..midjourney import LEGACY
from ..tasks import TaskId, TaskState
from ..unified import UNIFIED
from ._proof import check_signature, needs_signature

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of one delivery that are read at most: it echoes the request, a mask of 10 MB included."""

_LONGEST_ID = 200
_LONGEST_STATUS = 100


@frozen(kw_only=True)
class WebhookEvent:
    """One delivery: what it says about which task.  `raw` is the task's JSON, any webhook secret blanked."""

    task_id: TaskId
    status: str
    family: str
    raw: Mapping[str, Any] = field(repr=False, eq=False)
    nonce: str = field(default="", repr=False)
    digest: bytes = field(default=b"", repr=False)

    @property
    def state(self) -> TaskState:
        """What the status word means."""
        return classify(self.status)

    @classmethod
    def from_http(
        cls, headers: Mapping[str, str], body: bytes, *, secret: str, query: str = ""
    ) -> WebhookEvent:
        """Return the event of a delivery, of whatever family; pure.

        The secret is a header's, or it has signed the body (LegNext's ``X-Legnext-Signature``) or
        the `query` of the URL that a `WebhookReceiver` gave to the host.

        Raises `WebhookRejected` if there is no such proof, the body is too large, or it names no
        task, and `ValueError` if there is no secret to compare with: a receiver that believes
        everybody is a mistake.
        """
        if needs_signature(headers, query, secret):
            check_signature(headers, body, secret)
        return read_event(body, secret=secret)


def read_event(body: bytes, *, secret: str) -> WebhookEvent:
    """Return the event of a delivery whose sender has been checked.  Raises as `WebhookEvent.from_http`."""
    if len(body) > MAX_BYTES:
        raise WebhookRejected(f"The delivery has {len(body)} bytes, more than {MAX_BYTES}.")

    hidden = Secrets()
    hidden.add(str(secret))
    try:
        data = read_object(hidden.hide(body))
    except UnexpectedAnswer:  # its text quotes the body, and so may quote the secret
        raise WebhookRejected("The delivery is not a JSON object.") from None

    family, task = _family_of(data), data
    if isinstance(data.get("data"), dict):
        family, task = UNIFIED, data["data"]

    task_id = _short_text(id_of(task))
    status = task.get("status")
    if not task_id or not isinstance(status, str) or not status.strip():
        raise WebhookRejected(
            "The delivery names no task: it needs a str task_id or job_id, of at most 200 "
            "characters, and a str status."
        )

    return WebhookEvent(
        task_id=TaskId(task_id),
        status=shorten(status, _LONGEST_STATUS),
        family=family.name,
        raw=task,
        nonce=echoed_nonce(task),  # for frameworks that do not pass the query on
        digest=sha256(body).digest(),
    )


def _family_of(task: Mapping[str, Any]) -> Family[Any]:
    """Return the family whose bare tasks are told by what they call their id."""
    return next((family for family in FAMILIES.values() if family.id_field in task), LEGACY)


def _short_text(value: object) -> str:
    """Return what may be an id, "" for what cannot be one: what is remembered must be short."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if len(text) > _LONGEST_ID:
        return ""
    return text
