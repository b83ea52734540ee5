"""What proves that a delivery comes from the host: the secret itself, or something that it has signed.  Pure.

PiAPI sends the secret back in a header.  LegNext takes no secret with a request, so the URL that it
is given carries a MAC of ours; and it may sign its deliveries with the secret of its account's
webhook settings (its Python package; the pages do not say).  All of these are as good as the secret
is kept: host and readers of a task see the URL, so that an end that is delivered is confirmed by a
read.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import sha256

from .._submit.nonces import is_signed_query
from ..errors import WebhookRejected

_SECRET = "x-webhook-secret"  # noqa: S105 - a header's name
_SIGNATURE = "x-legnext-signature"
_TIMESTAMP = "x-legnext-timestamp"


def needs_signature(headers: Mapping[str, str], query: str, secret: str) -> bool:
    """Return whether a delivery is believed only if its body is signed, which `check_signature` tells.

    Raises `WebhookRejected` if it brings no proof at all, so that its body need not be read, and
    `ValueError` for what cannot be a secret.
    """
    check_secret_text(secret)
    if _is_equal(_header(headers, _SECRET), secret) or is_signed_query(query, secret):
        return False
    if _header(headers, _SIGNATURE):
        return True
    raise WebhookRejected("The delivery does not carry the secret.")


def check_signature(headers: Mapping[str, str], body: bytes, secret: str) -> None:
    """Raise `WebhookRejected` unless the headers have the signature of a body."""
    signed = body
    timestamp = _header(headers, _TIMESTAMP)
    if timestamp:
        signed = timestamp.encode("utf-8", "surrogateescape") + b"." + body

    signature = hmac.new(secret.encode(), signed, sha256).hexdigest()
    if not _is_equal(_header(headers, _SIGNATURE).strip().lower(), signature):
        raise WebhookRejected("The delivery is not signed with the secret.")


def _header(headers: Mapping[str, str], wanted: str) -> str:
    return next((value for name, value in headers.items() if name.lower() == wanted), "")


def _is_equal(given: str, expected: str) -> bool:
    """Return whether a header has a value, in a time that does not depend on where they differ."""
    try:
        # As aiohttp decodes headers: a byte that is not UTF-8 must not become a character of the
        # secret.
        octets = given.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no header's bytes are decoded to this
        octets = b""
    return hmac.compare_digest(octets, expected.encode())


def check_secret_text(secret: str) -> None:
    """Raise `ValueError` for what cannot be a secret."""
    if not secret:
        raise ValueError("secret: it must not be empty")
    if not secret.isascii() or not secret.isprintable() or len(secret) != len(secret.strip()):
        raise ValueError(
            "secret: it must be printable ASCII without spaces around it, because web frameworks "
            "decode the header that carries it in different ways"
        )
