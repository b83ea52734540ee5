"""The receiver inside other people's applications: aiohttp.web by its routes, FastAPI (or any other) by `handle`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from fastapi import FastAPI, Request, Response
from support.hooking import SECRET, delivery, listening, made, port_of, post, rely_on_webhooks
from support.serving import REROLL, TICK, now, serving, turns

from piapi_async import PiAPI, WebhookReceiver, WebhookRejected
from piapi_async.emulator import Drop, Emulator

pytestmark = pytest.mark.looptime

# -- the examples ---------------------------------------------------------------------------------------------------


def with_aiohttp(receiver: WebhookReceiver) -> web.Application:
    """Give an application with other things to do: the receiver brings its own route."""

    async def home(_: web.Request) -> web.Response:
        return web.Response(text="a bot")

    application = web.Application()
    application.add_routes([web.get("/", home), *receiver.routes()])
    return application


def with_fastapi(receiver: WebhookReceiver) -> FastAPI:
    """Give an application with other things to do: the framework reads the post, `handle` does the rest."""
    application = FastAPI()

    @application.get("/")
    async def home() -> str:
        return "a bot"

    @application.post("/piapi")
    async def delivered(request: Request) -> Response:
        try:
            await receiver.handle(request.headers, await request.body(), query=request.url.query)
        except WebhookRejected:
            return Response(status_code=403)
        return Response()

    return application


def with_fastapi_that_keeps_the_query(receiver: WebhookReceiver) -> FastAPI:
    """Give an application that hands on no query: the nonce is in the delivery too, where the host echoes it."""
    application = FastAPI()

    @application.post("/piapi")
    async def delivered(request: Request) -> Response:
        try:
            await receiver.handle(request.headers, await request.body())
        except WebhookRejected:
            return Response(status_code=403)
        return Response()

    return application


# -- around them ----------------------------------------------------------------------------------------------------


def through_asgi(application: FastAPI) -> web.Application:
    """Serve an ASGI application on a real socket in the test's own loop, as uvicorn would in its own."""

    async def serve(request: web.Request) -> web.Response:
        sent: list[Any] = []
        incoming = [{"type": "http.request", "body": await request.read(), "more_body": False}]

        async def receive() -> Any:
            return incoming.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": request.path,
            "query_string": request.rel_url.raw_query_string.encode(),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "server": ("127.0.0.1", request.url.port),
        }
        await application(scope, receive, send)
        return web.Response(
            status=sent[0]["status"], body=b"".join(message.get("body", b"") for message in sent[1:])
        )

    served = web.Application()
    served.router.add_route("*", "/{path:.*}", serve)
    return served


Make = Callable[[WebhookReceiver], web.Application]

EXAMPLES: list[Make] = [
    with_aiohttp,
    lambda receiver: through_asgi(with_fastapi(receiver)),
    lambda receiver: through_asgi(with_fastapi_that_keeps_the_query(receiver)),
]
everywhere = pytest.mark.parametrize(
    "make", EXAMPLES, ids=["aiohttp", "fastapi", "fastapi without the query"]
)


@asynccontextmanager
async def running(make: Make, **options: Any) -> AsyncIterator[tuple[Emulator, PiAPI, WebhookReceiver]]:
    async with serving(**options) as (emulator, piapi):
        at = socket.create_server(("127.0.0.1", 0))
        receiver = WebhookReceiver(piapi, secret=SECRET, url=f"http://127.0.0.1:{port_of(at)}/piapi")
        rely_on_webhooks(piapi)
        async with listening(make(receiver), at):
            yield emulator, piapi, receiver


@everywhere
async def test_a_delivery_ends_a_wait(make: Make) -> None:
    async with running(make, durations=30.0) as (emulator, piapi, receiver):
        handle = await piapi.submit(REROLL)
        task = await handle.wait()

        assert task.images
        assert now() == pytest.approx(30.0, abs=TICK)
        assert emulator.seen.polls == {handle.task_id: 1}
        assert receiver.counts == {"accepted": 1}
        await turns(100)
        assert [sent.answer for sent in emulator.seen.deliveries] == [200]


@everywhere
async def test_a_lost_answer_is_adopted(make: Make) -> None:
    async with running(make, durations=30.0) as (emulator, piapi, receiver):
        emulator.fail("reroll", Drop(after_body=True))
        handle = await piapi.submit(REROLL)

        assert [handle.task_id] == made(emulator)
        assert receiver.counts["adopted"] == 1


@everywhere
async def test_a_post_that_is_no_delivery_is_answered_403_without_a_reason(make: Make) -> None:
    async with running(make) as (_, _, receiver):
        answers = [
            await post(receiver.url, delivery("t1"), None),
            await post(receiver.url, delivery("t1"), "guess"),
            await post(receiver.url, b"{}"),
            await post(receiver.url, b"\xff"),
        ]

        assert len(set(answers)) == 1
        assert answers[0][0] == 403
        assert receiver.counts == {"rejected": 4}


@everywhere
async def test_many_deliveries_at_once_are_all_taken(make: Make) -> None:
    async with running(make) as (_, _, receiver):
        answers = await asyncio.gather(*(post(receiver.url, delivery(f"t{number}")) for number in range(50)))
        await turns()

        assert {status for status, _ in answers} == {200}
        assert receiver.counts["accepted"] == 50


async def test_the_route_lives_beside_the_application_s_own_and_behind_its_middlewares() -> None:
    passed: list[str] = []

    @web.middleware
    async def count(request: web.Request, handler: Any) -> Any:
        passed.append(request.path)
        return await handler(request)

    def make(receiver: WebhookReceiver) -> web.Application:
        application = with_aiohttp(receiver)
        application.middlewares.append(count)
        return application

    async with running(make) as (_, _, receiver):
        assert (await post(receiver.url, delivery("t1")))[0] == 200
        assert passed == ["/piapi"]


async def test_any_mapping_of_headers_will_do() -> None:
    async with running(with_aiohttp) as (_, _, receiver):
        for headers in ({"X-WEBHOOK-SECRET": SECRET}, {"x-webhook-secret": SECRET, "host": "bot"}):
            await receiver.handle(headers, delivery("t1"))
        await turns()

        assert receiver.counts["accepted"] == 2
