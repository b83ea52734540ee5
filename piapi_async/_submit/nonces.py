"""Nonces: by what an endpoint says which submission it was made for.  Pure.

A nonce is made from the submission's key with the webhook secret, so that only the owner of the
secret can have made it, and a later process knows it again from the ledger.
"""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

from yarl import URL

NONCE = "piapi_nonce"
"""The query parameter of an endpoint that carries the nonce (our choice)."""

MAC = "piapi_mac"
"""The query parameter that proves an endpoint to be ours, where no header will (our choice)."""

NONCE_LENGTH = 32

_LONGEST = 200  # characters that are taken for a nonce at all: what is remembered must be short


def nonce_of(key: str, secret: str, *, attempt: int = 1) -> str:
    """Return the nonce of an attempt of the submission with a key.

    A later attempt has its own, so that a late delivery for the one before names no task for it.
    """
    text = key
    if attempt > 1:
        text = f"{key}\n{attempt}"  # no key has a line feed
    return hmac.new(secret.encode(), text.encode(), sha256).hexdigest()[:NONCE_LENGTH]


def endpoint_with(url: str, nonce: str) -> str:
    """Return a webhook URL that carries a nonce."""
    return str(URL(url).update_query({NONCE: nonce}))


def signed_endpoint(url: str, nonce: str, secret: str) -> str:
    """Return a webhook URL that carries a nonce, and the proof that the owner of the secret made it."""
    return str(URL(url).update_query({NONCE: nonce, MAC: _mac_of(nonce, secret)}))


def is_signed_query(query: str, secret: str) -> bool:
    """Return whether the query of a delivery's URL is one that `signed_endpoint` has made."""
    mac = parse_qs(query).get(MAC, [""])[0]
    nonce = nonce_in(query)
    if not nonce or not nonce.isascii() or not mac.isascii():
        return False
    return is_same_nonce(mac, _mac_of(nonce, secret))


def _mac_of(nonce: str, secret: str) -> str:
    # No key begins with NUL, so that no nonce is the MAC of another.
    return nonce_of(f"\0{nonce}", secret)


def nonce_in(query: str) -> str:
    """Return the nonce in the query of a URL, "" if there is none."""
    nonce = parse_qs(query).get(NONCE, [""])[0]
    if len(nonce) > _LONGEST:
        return ""
    return nonce


def echoed_nonce(task: Mapping[str, Any]) -> str:
    """Return the nonce in the endpoint that a task's JSON echoes, "" if there is none.

    Where the endpoint stands was observed: ``meta.task_request.webhook_endpoint`` in the legacy
    protocol, ``config.webhook_config.endpoint`` in the unified one.
    """
    for path in (("meta", "task_request", "webhook_endpoint"), ("config", "webhook_config", "endpoint")):
        endpoint: Any = task
        for name in path:
            endpoint = endpoint.get(name) if isinstance(endpoint, dict) else None

        if isinstance(endpoint, str):
            with contextlib.suppress(ValueError):  # not a URL
                return nonce_in(urlsplit(endpoint).query)
    return ""


def is_same_nonce(one: str, other: str) -> bool:
    """Return whether two nonces are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
