"""A host whose tasks never end: fetch and multi-fetch answered with prepared bytes, at next to no cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson

_TASK_ID = "00000000-0000-0000-0000-000000000000"

_WAITING = {
    "task_id": _TASK_ID,
    "status": "processing",
    "process_time": 12,
    "retry_count": 0,
    "meta": {
        "account_id": "5a2b9d3e-6a1f-4c52-9d56-1f0de2a9a001",
        "task_type": "reroll",
        "origin_task_id": "6886fc4d-9c3b-4a5e-8a38-5ac4f0e7a2cd",
        "bot_hash": "",
        "bot_id": 0,
        "model_version": "unknown",
        "process_mode": "fast",
        "created_at": 1700000000,
        "created_at_utc": "2023-11-14T22:13:20Z",
        "started_at": 1700000003,
        "started_at_utc": "2023-11-14T22:13:23Z",
        "ended_at": 0,
        "ended_at_utc": "",
        "quota_frozen": 30,
        "frozen_credit": 0,
        "task_request": {
            "origin_task_id": "6886fc4d-9c3b-4a5e-8a38-5ac4f0e7a2cd",
            "prompt": "a quiet landscape",
            "aspect_ratio": "",
            "process_mode": "fast",
            "skip_prompt_check": False,
            "notify_progress": False,
            "bot_id": 0,
        },
        "task_param": {"prompt": "a quiet landscape", "index": "", "zoom_ratio": "", "aspect_ratio": ""},
    },
    "task_result": {
        "discord_image_url": "",
        "image_url": "",
        "image_urls": None,
        "temporary_image_urls": None,
        "permanent_url": "",
        "task_progress": 40,
        "intermediate_image_urls": None,
        "image_id": "",
        "seed": "",
        "result_message_id": "",
        "quota_used": 0,
        "credit": 0,
        "message": "",
        "warning": "",
        "error_messages": [],
        "need_retry": False,
        "actions": [],
    },
}

_HEAD, _TAIL = orjson.dumps(_WAITING).split(_TASK_ID.encode())


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a socket's
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length or self._transport is None:
            return
        self._got = b""
        answer = _answer(orjson.loads(body))
        start = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
            answer
        )
        self._transport.write(start + answer)


def _answer(asked: dict[str, object]) -> bytes:
    task_ids = asked.get("task_ids")
    if not isinstance(task_ids, list):
        return str(asked["task_id"]).encode().join((_HEAD, _TAIL))
    entries = [b'"%b":%b%b%b' % (raw := task_id.encode(), _HEAD, raw, _TAIL) for task_id in task_ids]
    return b'{"data":{' + b",".join(entries) + b"}}"


@asynccontextmanager
async def waiting_host() -> AsyncIterator[str]:
    """Serve inside the block, in this loop; gives the base URL."""
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
