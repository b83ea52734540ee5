"""What proves a delivery to be the host's, where the host sends no secret: a MAC in its URL, or a signature."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from support.hooking import SECRET, receiving, rely_on_webhooks
from support.legnext_host import job
from support.serving import now, serving
from support.tables import for_each

from piapi_async import PiAPI, WebhookEvent, WebhookReceiver, WebhookRejected, legnext
from piapi_async._submit.nonces import nonce_in, signed_endpoint

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


@for_each(
    ("headers", "body"),
    [
        ({"X-Legnext-Signature": signature(BODY)}, BODY),
        ({"x-legnext-signature": signature(BODY).upper()}, BODY),
        (
            {"X-Legnext-Timestamp": "1764000000", "X-Legnext-Signature": signature(b"1764000000." + BODY)},
            BODY,
        ),
        ({"X-Webhook-Secret": SECRET}, BODY),
    ],
    ids=["body", "upper case", "time and body", "secret"],
)
def test_a_signature_is_proof_and_so_is_the_secret(headers: dict[str, str], body: bytes) -> None:
    assert event(headers, body=body).task_id == JOB


@for_each(
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


@for_each("wrong", [{"job_id": None}, {"job_id": "x" * 201}, {"status": ""}, {"job_id": 7}])
def test_a_signed_delivery_must_name_a_job_and_its_status(wrong: dict[str, Any]) -> None:
    body = json.dumps(json.loads(BODY) | wrong).encode()

    with pytest.raises(WebhookRejected, match="names no task"):
        event(query=QUERY, body=body)


@pytest.mark.looptime
async def test_a_signed_delivery_to_an_endpoint_of_the_users_own_ends_the_wait() -> None:
    async with (
        serving(durations=30.0, legnext_secret=SECRET) as (emulator, piapi),
        receiving(piapi) as receiver,
    ):
        rely_on_webhooks(piapi)
        request = legnext.Imagine("a cat", webhook_endpoint=receiver.url)  # without a MAC of ours
        task = await (await piapi.submit(request)).wait()

        assert task.ok
        assert now() == pytest.approx(30.0, abs=0.1)
        assert receiver.counts["accepted"] == 1

        for headers in ({}, {"X-Legnext-Signature": signature(BODY, "another")}):
            async with aiohttp.ClientSession() as session:
                response = await session.post(receiver.url, data=BODY, headers=headers)
                assert response.status == 403
        assert receiver.counts["rejected"] == 2
        assert emulator.seen.deliveries[-1].answer == 200


async def test_a_receiver_of_legnexts_deliveries_may_listen_at_any_port() -> None:
    async with legnext.client("k") as piapi, PiAPI("k") as other:
        WebhookReceiver(piapi, secret=SECRET, url="https://bot.example.org:8443/hook")

        with pytest.raises(ValueError, match="port 80 or 443 only"):
            WebhookReceiver(other, secret=SECRET, url="https://bot.example.org:8443/hook")
        with pytest.raises(ValueError, match="it must be an http"):
            WebhookReceiver(other, secret=SECRET, url="bot.example.org")
