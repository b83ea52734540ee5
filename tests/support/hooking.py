"""A client, its service, and a webhook receiver between them, in one loop; and deliveries made by hand."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from piapi_async import Ledger, PiAPI, Reroll, SubmissionUnknown, WebhookReceiver
from piapi_async.emulator import Drop, Emulator, Lognormal, WebhookFaults
from support.serving import KEY, no_leaks, serving, turns
from support.strict_server import free_port

SECRET = "hook-5eCr3t"
HEADERS = {"x-webhook-secret": SECRET}

SILENT = WebhookFaults(lost=1.0)
"""The service delivers nothing by itself."""

LOST = Drop(after_body=True)
"""The answer to a submit is lost after its task was made."""

SPREAD = Lognormal(40.0, 80.0, 15.0, 150.0)
"""Seconds that tasks take in fast mode, about."""

PUBLIC = "https://bot.example.org/piapi"


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


def bare(task_id: str, status: str = "completed", **more: Any) -> bytes:
    """Give a delivery's body as LegNext's protocol has it."""
    return json.dumps({"job_id": task_id, "model": "midjourney", "status": status, **more}).encode()


DELIVERY: Mapping[str, Callable[..., bytes]] = {"legacy": delivery, "unified": unified, "legnext": bare}
"""What makes a delivery's body, by family."""


def nonce_of(emulator: Emulator, task_id: str) -> str:
    """Give the query that the endpoint of a task was made with."""
    return URL(str(emulator.engine.tasks[task_id].given["webhook_endpoint"])).query_string


def made(emulator: Emulator) -> list[str]:
    """Give the ids of the tasks that were paid for."""
    return [task_id for task_id, task in emulator.engine.tasks.items() if not task.adopted]


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


def rely_on_webhooks(piapi: PiAPI) -> None:
    """Have a client rely on webhooks as if it had been told of many ends."""
    for _ in range(64):
        piapi._runtime.poller.schedule.trust.confirmed()


def early_reports(piapi: PiAPI) -> list[str]:
    """Return the ids whose ends were reported while nobody waited for them."""
    return list(piapi._runtime.poller.schedule._reports._early)


@asynccontextmanager
async def hooked(
    client: dict[str, Any] | None = None,
    receiver: dict[str, Any] | None = None,
    *,
    relied_on: bool = True,
    **options: Any,
) -> AsyncIterator[tuple[Emulator, PiAPI, WebhookReceiver]]:
    """Give an emulator, its client, and the client's receiver; tasks take 30 s unless told otherwise.

    `relied_on`: the client has been told of so many ends that it leaves looking to a safety net.
    """
    async with (
        serving(client, **options) as (emulator, piapi),
        receiving(piapi, **(receiver or {})) as receives,
    ):
        if relied_on:
            rely_on_webhooks(piapi)
        yield emulator, piapi, receives


def rerolls(count: int, reroll: Callable[..., Any] = Reroll) -> list[Any]:
    return [reroll("6886fc4d", prompt=f"cat {number}") for number in range(count)]


def asked(emulator: Emulator) -> int:
    """Give how often the service was asked about tasks, each id of a multi-fetch counted."""
    return emulator.seen.polls.total()


async def deliver(receiver: WebhookReceiver, body: bytes, query: str = "") -> None:
    """Hand a delivery over, and let everybody run whom it wakes, without the time moving on."""
    await receiver.handle(HEADERS, body, query=query)
    await turns(3)


@asynccontextmanager
async def unknown_submits(ledger: Path, count: int) -> AsyncIterator[tuple[Emulator, int]]:
    """Give a service whose tasks a process lost track of before it ended, and the port at which it listened."""
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=60.0, concurrency=count)
    async with no_leaks(), emulator.run() as base_url:
        port = free_port()
        async with PiAPI(KEY, base_url=base_url, ledger=Ledger(ledger), recover=0) as piapi:
            WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port}/piapi", adopt_timeout=1.0)
            emulator.fail("reroll", LOST, times=count)
            requests = enumerate(rerolls(count))
            submits = [piapi.submit(request, key=f"k{number}") for number, request in requests]
            for error in await asyncio.gather(*submits, return_exceptions=True):
                assert isinstance(error, SubmissionUnknown)
        yield emulator, port


@asynccontextmanager
async def later_process(
    emulator: Emulator, port: int, ledger: Ledger, secret: str = SECRET, **options: Any
) -> AsyncIterator[tuple[PiAPI, WebhookReceiver]]:
    async with PiAPI(KEY, base_url=emulator.base_url, ledger=ledger, recover=0) as piapi:
        receiver = WebhookReceiver(piapi, secret=secret, url=f"http://127.0.0.1:{port}/piapi", **options)
        application = web.Application()
        application.add_routes(receiver.routes())
        async with listening(application, socket.create_server(("127.0.0.1", port))):
            yield piapi, receiver
