"""Digests and minted keys as they are stored: what an upgrade changes here is paid for again by a rerun.

The values were written down from an earlier state of the package.  They are never to be adapted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from piapi_async import BatchItem, CreateTask, Imagine, Ledger, PiAPI, Reroll, Upscale
from piapi_async.batch._identity import identify
from piapi_async.client import runtime_of
from piapi_async.ledger._entries import SubmissionKey

REROLL = Reroll("6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d", prompt="a cute cat")

STORED: list[tuple[Any, str, str]] = [
    (
        REROLL,
        '/mj/v2/reroll {"origin_task_id":"6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d","prompt":"a cute cat"}',
        "4014885a442af215c206fea4916bfc1da8b1d8dfade01aea69139423efa5d9e1",
    ),
    (
        Imagine("ein Käfer, \N{LADY BEETLE}", aspect_ratio="16:9"),
        '/mj/v2/imagine {"aspect_ratio":"16:9","prompt":"ein Käfer, \N{LADY BEETLE}"}',
        "b957e57c2e5a4b9affc39b24582a3680eefa53a254cc892d9ce82ead3ad5a9c3",
    ),
    (
        Upscale("p", 2, webhook_endpoint="https://a.test", webhook_secret="hush"),
        '/mj/v2/upscale {"index":"2","origin_task_id":"p"}',
        "c2a2b5e9229fcb9582409e8bf795876e191001ccecd8d259930121e7fc106af7",
    ),
    (
        CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": "a cat", "width": 512}),
        '/api/v1/task {"input":{"prompt":"a cat","width":512},"model":"Qubico/flux1-dev","task_type":"txt2img"}',
        "f1178b7ea09a0973b72f9907b82016abbc47a640cb295163f0dd0ca08c0fb215",
    ),
]


@pytest.mark.parametrize(("request_", "text", "digest"), STORED, ids=lambda value: type(value).__name__)
def test_a_request_has_the_digest_that_ledgers_have(request_: Any, text: str, digest: str) -> None:
    identity = SubmissionKey.of(request_.to_http(), key="k", origin="https://host.test", family="f")

    assert text == identity.request
    assert digest == identity.digest.hex() == identity.with_key("another").digest.hex()


async def test_items_of_a_batch_have_the_keys_that_ledgers_have(tmp_path: Path) -> None:
    items = [BatchItem(REROLL), BatchItem(REROLL, "its own"), BatchItem(REROLL), BatchItem(Upscale("p", 2))]
    async with PiAPI("a-key", ledger=Ledger(tmp_path / "run.db")) as piapi:
        piapi._runtime.enter()
        identities = await identify(runtime_of(piapi), items, "a run")

    assert [
        "4014885a442af215c206fea4916bfc1d-1",
        "its own",
        "4014885a442af215c206fea4916bfc1d-2",
        "c2a2b5e9229fcb9582409e8bf795876e-1",
    ] == [identity.key for identity in identities if identity is not None]
