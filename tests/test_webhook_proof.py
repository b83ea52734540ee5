"""What proves a delivery to be the host's, where the host sends no secret: a MAC in its URL, or a signature."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.legnext_host import job

from piapi_async import WebhookEvent, WebhookRejected
from piapi_async._submit.nonces import nonce_in, signed_endpoint

SECRET = "hook-5eCr3t"
JOB = "5f0a7c1e-0000-4000-8000-00000000000a"
BODY = json.dumps(job(JOB, "reroll", "completed", {"image_urls": ["https://example.org/1.png"]})).encode()
NONCE = "0123456789abcdef0123456789abcdef"
QUERY = urlsplit(signed_endpoint("https://bot.example.org/hook?bot=7", NONCE, SECRET)).query


def event(headers: dict[str, str] | None = None, *, query: str = "", body: bytes = BODY) -> WebhookEvent:
    return WebhookEvent.from_http(headers or {}, body, secret=SECRET, query=query)


def signature(signed: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), signed, sha256).hexdigest()


def test_a_url_that_we_have_signed_is_proof() -> None:
    found = event(query=QUERY)

    assert (found.task_id, found.family, found.status) == (JOB, "legnext", "completed")
    assert nonce_in(QUERY) == NONCE
    assert "bot=7" in QUERY


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"X-Legnext-Signature": signature(BODY)}, BODY),
        ({"x-legnext-signature": signature(BODY).upper()}, BODY),
        ({"X-Legnext-Timestamp": "1764000000", "X-Legnext-Signature": signature(b"1764000000." + BODY)}, BODY),
        ({"X-Webhook-Secret": SECRET}, BODY),
    ],
    ids=["body", "upper case", "time and body", "secret"],
)
def test_a_signature_is_proof_and_so_is_the_secret(headers: dict[str, str], body: bytes) -> None:
    assert event(headers, body=body).task_id == JOB


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({}, f"piapi_nonce={NONCE}"),
        ({}, f"piapi_nonce={NONCE}&piapi_mac="),
        ({}, QUERY.replace("0123", "1123")),
        ({}, "piapi_mac=" + QUERY.partition("piapi_mac=")[2]),
        ({}, urlsplit(signed_endpoint("https://bot.example.org/", NONCE, "another")).query),
        ({}, "piapi_nonce=\udcff&piapi_mac=\udcff"),
        ({"X-Legnext-Signature": ""}, ""),
        ({"X-Legnext-Signature": "\udcff"}, ""),
        ({"X-Legnext-Signature": signature(BODY, "another")}, ""),
        ({"X-Legnext-Signature": signature(BODY), "X-Legnext-Timestamp": "1764000000"}, ""),
        ({"X-Legnext-Signature": signature(BODY + b" ")}, ""),
    ],
)
def test_anything_else_is_not(headers: dict[str, str], query: str) -> None:
    with pytest.raises(WebhookRejected, match="secret"):
        event(headers, query=query)


@pytest.mark.parametrize("wrong", [{"job_id": None}, {"job_id": "x" * 201}, {"status": ""}, {"job_id": 7}])
def test_a_signed_delivery_must_name_a_job_and_its_status(wrong: dict[str, Any]) -> None:
    body = json.dumps(json.loads(BODY) | wrong).encode()

    with pytest.raises(WebhookRejected, match="names no task"):
        event(query=QUERY, body=body)
