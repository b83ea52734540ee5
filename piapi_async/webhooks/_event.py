"""One webhook delivery as a value, and whether it may be believed.  Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from attrs import field, frozen

from .._calls.secrets import Secrets
from .._protocol.answers import read_object
from .._protocol.reading import classify
from .._submit.nonces import echoed_nonce
from .._text import shorten
from ..errors import UnexpectedAnswer, WebhookRejected
from ..tasks import TaskId, TaskState

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
    def from_http(cls, headers: Mapping[str, str], body: bytes, *, secret: str) -> WebhookEvent:
        """Return the event of a delivery, legacy or unified; pure.

        Raises `WebhookRejected` if the secret is missing or wrong, the body is too large, or it
        names no task, and `ValueError` if there is no secret to compare with: a receiver that
        believes everybody is a mistake.
        """
        check_secret(headers, secret)
        return read_event(body, secret=secret)


def read_event(body: bytes, *, secret: str) -> WebhookEvent:
    """Return the event of a delivery whose secret has been checked.  Raises as `WebhookEvent.from_http`."""
    if len(body) > MAX_BYTES:
        raise WebhookRejected(f"The delivery has {len(body)} bytes, more than {MAX_BYTES}.")

    hidden = Secrets()
    hidden.add(str(secret))
    try:
        data = read_object(hidden.hide(body))
    except UnexpectedAnswer:  # its text quotes the body, and so may quote the secret
        raise WebhookRejected("The delivery is not a JSON object.") from None

    family, task = "legacy", data
    if isinstance(data.get("data"), dict):
        family, task = "unified", data["data"]

    task_id = _short_text(task.get("task_id"))
    status = task.get("status")
    if not task_id or not isinstance(status, str) or not status.strip():
        raise WebhookRejected(
            "The delivery names no task: it needs a str task_id, of at most 200 characters, and a str status."
        )

    return WebhookEvent(
        task_id=TaskId(task_id),
        status=shorten(status, _LONGEST_STATUS),
        family=family,
        raw=task,
        nonce=echoed_nonce(task),  # for frameworks that do not pass the query on
        digest=sha256(body).digest(),
    )


def _short_text(value: object) -> str:
    """Return what may be an id, "" for what cannot be one: what is remembered must be short."""
    if not isinstance(value, str):
        return ""
    text = value.strip()
    if len(text) > _LONGEST_ID:
        return ""
    return text


def check_secret(headers: Mapping[str, str], secret: str) -> None:
    """Raise `WebhookRejected` unless the headers carry the secret, `ValueError` for what cannot be one."""
    check_secret_text(secret)

    given = next((value for name, value in headers.items() if name.lower() == "x-webhook-secret"), "")
    try:
        # As aiohttp decodes headers: a byte that is not UTF-8 must not become a character of the
        # secret.
        octets = given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no header's bytes are decoded to this
        octets = b""

    if not hmac.compare_digest(octets, secret.encode()):
        raise WebhookRejected("The delivery does not carry the secret.")


def check_secret_text(secret: str) -> None:
    """Raise `ValueError` for what cannot be a secret."""
    if not secret:
        raise ValueError("secret: it must not be empty")
    if not secret.isascii() or not secret.isprintable() or len(secret) != len(secret.strip()):
        raise ValueError(
            "secret: it must be printable ASCII without spaces around it, because web frameworks decode the header "
            "that carries it in different ways"
        )
