"""One webhook delivery as a value, and whether it may be believed.  Pure."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import field, frozen

from .._calls.secrets import Secrets
from .._protocol.answers import read_object
from .._protocol.reading import classify
from .._text import shorten
from ..errors import UnexpectedAnswer, WebhookRejected
from ..tasks import TaskId, TaskState

MAX_BYTES = 16 * 1024 * 1024
"""Bytes of one delivery that are read at most: it echoes the request, a mask of ten megabytes included."""

NONCE = "piapi_nonce"
"""The query parameter of an endpoint that says which submit it was made for."""
_LONGEST_ID = 200
_LONGEST_STATUS = 100
NONCE_LENGTH = 32


@frozen(kw_only=True)
class WebhookEvent:
    """One delivery: what it says of which task.  `raw` is the task's JSON, any webhook secret blanked."""

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
        """Read a delivery, legacy or unified; pure.

        Raises `WebhookRejected` when the secret is missing or wrong, the body too large, or no task is in it, and
        `ValueError` when no secret is given to compare with: a receiver that believes everybody is a mistake.
        """
        check_secret(headers, secret)
        if len(body) > MAX_BYTES:
            raise WebhookRejected(f"The delivery has {len(body)} bytes, more than {MAX_BYTES}.")
        hidden = Secrets()
        hidden.add(str(secret))
        try:
            data = read_object(hidden.hide(body))
        except UnexpectedAnswer:  # its text quotes the body, and so may quote the secret
            raise WebhookRejected("The delivery is not a JSON object.") from None
        family, task = ("unified", data["data"]) if isinstance(data.get("data"), dict) else ("legacy", data)
        task_id, status = _short_text(task.get("task_id")), task.get("status")
        if not task_id or not isinstance(status, str) or not status.strip():
            raise WebhookRejected(
                "The delivery tells of no task: it needs the texts task_id, of at most 200 characters, and status."
            )
        return cls(
            task_id=TaskId(task_id),
            status=shorten(status, _LONGEST_STATUS),
            family=family,
            raw=task,
            nonce=echoed_nonce(task),
            digest=sha256(body).digest(),
        )


def _short_text(value: object) -> str:
    """Return what may be an id, "" for what is none: what is remembered for long must be short."""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= _LONGEST_ID else ""


def check_secret(headers: Mapping[str, str], secret: str) -> None:
    """Raise `WebhookRejected` unless the headers carry the secret, `ValueError` for what cannot be one."""
    check_secret_text(secret)
    given = next((value for name, value in headers.items() if name.lower() == "x-webhook-secret"), "")
    try:
        # As aiohttp decodes headers: a byte that is no UTF-8 must not become a character that is in the secret.
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
            "secret: it must be printable ASCII without blanks around it, for web frameworks decode the header "
            "that carries it in different ways"
        )


def echoed_nonce(task: Mapping[str, Any]) -> str:
    """Give the nonce in the endpoint that the host echoes, for frameworks that do not hand us the query."""
    meta = task.get("meta")
    request = meta.get("task_request") if isinstance(meta, dict) else None
    config = task.get("config")
    webhook = config.get("webhook_config") if isinstance(config, dict) else None
    for holder, name in ((request, "webhook_endpoint"), (webhook, "endpoint")):
        endpoint = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(endpoint, str):
            with contextlib.suppress(ValueError):
                return nonce_in(urlsplit(endpoint).query)
    return ""


def nonce_in(query: str) -> str:
    """Return the nonce in a query, "" for none; one that long is none of ours."""
    nonce = parse_qs(query).get(NONCE, [""])[0]
    return nonce if len(nonce) <= _LONGEST_ID else ""
