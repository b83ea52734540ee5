"""A user's session whose middleware, or trace, reads every response before the client does, as logging does."""

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from support.serving import KEY

from piapi_async import PiAPI, Reroll

pytestmark = pytest.mark.looptime

Handler = Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]

MADE = b'{"task_id": "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10", "status": "success"}'


async def plain(_: web.Request) -> web.StreamResponse:
    return web.Response(body=MADE, content_type="application/json")


async def zipped(_: web.Request) -> web.StreamResponse:
    return web.Response(body=gzip.compress(MADE), headers={"Content-Encoding": "gzip"})


async def chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(MADE[:20])
    await response.write(MADE[20:])
    await response.write_eof()
    return response


async def reading(request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
    response = await handler(request)
    await response.text()
    return response


async def on_request_end(_session: Any, _context: Any, params: aiohttp.TraceRequestEndParams) -> None:
    await params.response.read()


def tracing() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    config.on_request_end.append(on_request_end)
    return config


SESSIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "middleware": lambda: {"middlewares": (reading,)},
    "trace": lambda: {"trace_configs": [tracing()]},
}


@asynccontextmanager
async def host(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/mj/v2/reroll", answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host_, port = runner.addresses[0][:2]
        yield f"http://{host_}:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("answer", [plain, zipped, chunked])
@pytest.mark.parametrize("reader", SESSIONS)
async def test_a_response_that_was_read_before_is_read_again(
    reader: str, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> None:
    async with (
        host(answer) as url,
        aiohttp.ClientSession(**SESSIONS[reader]()) as session,
        PiAPI(KEY, base_url=url, session=session) as piapi,
    ):
        assert (await piapi.submit(Reroll("p"))).task_id == "6886fc4d-9d9d-4a3b-8a55-2b6d9a1d2f10"
