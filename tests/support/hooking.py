"""A client, its service, and a webhook receiver between them, in one loop; and deliveries made by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from piapi_async import PiAPI, WebhookReceiver
from piapi_async.emulator import Emulator, WebhookFaults
from support.serving import serving

SECRET = "hook-5eCr3t"
HEADERS = {"x-webhook-secret": SECRET}

SILENT = WebhookFaults(lost=1.0)
"""The service delivers nothing by itself."""


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


def delivery(task_id: str, status: str = "finished", *, progress: int | None = None, **more: Any) -> bytes:
    """Give a delivery's body as the legacy protocol has it; `more` goes into the result."""
    result = {"task_progress": 100 if progress is None else progress, **more}
    return json.dumps({"task_id": task_id, "status": status, "task_result": result}).encode()


def unified(task_id: str, status: str = "completed", **more: Any) -> bytes:
    """Give a delivery's body as the unified protocol has it."""
    data = {"task_id": task_id, "model": "midjourney", "status": status, **more}
    return json.dumps({"timestamp": 1_709_035_406, "data": data}).encode()


DELIVERY: Mapping[str, Callable[..., bytes]] = {"legacy": delivery, "unified": unified}
"""What makes a delivery's body, by family."""


def nonce_of(emulator: Emulator, task_id: str) -> str:
    """Give the query that the endpoint of a task was made with."""
    return URL(str(emulator.machine.tasks[task_id].given["webhook_endpoint"])).query_string


def made(emulator: Emulator) -> list[str]:
    """Give the ids of the tasks that were paid for."""
    return [task_id for task_id, task in emulator.machine.tasks.items() if not task.adopted]


async def post(url: str, body: Any, secret: str | None = SECRET) -> tuple[int, bytes]:
    """Deliver by hand; give the answer's status and body."""
    headers = {} if secret is None else {"X-Webhook-Secret": secret}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.read()


@asynccontextmanager
async def listening(application: web.Application, at: socket.socket) -> AsyncIterator[None]:
    """Serve an application inside the block."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, at).start()
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def receiving(piapi: PiAPI, **options: Any) -> AsyncIterator[WebhookReceiver]:
    """Give a receiver of the client that can be reached, in an aiohttp.web application."""
    at = socket.create_server(("127.0.0.1", 0))
    receiver = WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port_of(at)}/piapi", **options)
    application = web.Application()
    application.add_routes(receiver.routes())
    async with listening(application, at):
        yield receiver


@asynccontextmanager
async def hooked(
    client: dict[str, Any] | None = None, receiver: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Emulator, PiAPI, WebhookReceiver]]:
    """Give an emulator, its client, and the client's receiver; tasks take 30 s unless told otherwise."""
    async with serving(client, **options) as (emulator, piapi), receiving(piapi, **(receiver or {})) as receives:
        yield emulator, piapi, receives
