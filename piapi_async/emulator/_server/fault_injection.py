"""How each fault is carried out on a real connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web

from piapi_async._http import HTTPResponse

from ..faults import Drop, EdgePage, Mishap, SlowBody, SlowFirstByte, StaleKeepAlive, Status, Unasked, Unclear

#: How requests that got no answer are counted; the number is never sent.
NO_ANSWER = 444

Produce = Callable[[], Awaitable[HTTPResponse]]
Refuse = Callable[[int, str], Mapping[str, object]]


async def befall(request: web.BaseRequest, mishap: Mishap, produce: Produce, refuse: Refuse) -> web.StreamResponse:
    """Return the answer after `mishap`, or nothing usable once the connection is gone.

    `produce` reads the request and serves it: after it, a task was made.  `refuse` gives the body of a refusal.
    """
    try:
        return await _befall(request, mishap, produce, refuse)
    except ConnectionResetError:  # a client whose patience has ended goes away, and that is no error of ours
        return web.Response(status=NO_ANSWER)


async def _befall(request: web.BaseRequest, mishap: Mishap, produce: Produce, refuse: Refuse) -> web.StreamResponse:
    if isinstance(mishap, Drop):
        return await _drop(request, mishap, produce)
    if isinstance(mishap, Status | EdgePage | Unclear) and not mishap.made:
        await request.read()
        return plain(mishap.answer(refuse))
    answer = await produce()
    if isinstance(mishap, Status | EdgePage):
        return plain(mishap.answer(refuse))
    if isinstance(mishap, SlowBody):
        return await _drip(request, mishap, answer)
    if isinstance(mishap, StaleKeepAlive | Unasked):
        return await _kept(request, mishap, answer)
    if isinstance(mishap, SlowFirstByte):
        await asyncio.sleep(mishap.seconds)
    else:
        answer = mishap.spoil(answer)
    return plain(answer)


def plain(answer: HTTPResponse) -> web.Response:
    """Return the answer as aiohttp sends it."""
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def _drop(request: web.BaseRequest, drop: Drop, produce: Produce) -> web.StreamResponse:
    if drop.inside_answer:
        _break_off(request, await produce())
    else:
        if drop.after_body:
            await (request.read() if drop.made is False else produce())
        reset(request.transport)
    return web.Response(status=NO_ANSWER)  # goes nowhere: the transport is closed


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Reset the connection (RST), as a dying peer or a middlebox does; a closed one stays as it is."""
    if isinstance(transport, asyncio.Transport):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _break_off(request: web.BaseRequest, answer: HTTPResponse) -> None:
    """Send the headers, promise the whole body, send half of it and close."""
    transport = request.transport
    if transport is None:
        return
    transport.write(_head(answer) + answer.body[: len(answer.body) // 2])
    transport.close()


def _head(answer: HTTPResponse) -> bytes:
    headers = {**answer.headers, "content-length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} OK", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


async def _drip(request: web.BaseRequest, slow: SlowBody, answer: HTTPResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    size = -(-len(answer.body) // slow.pieces) or 1
    for start in range(0, len(answer.body), size):
        await asyncio.sleep(slow.seconds / slow.pieces)
        await response.write(answer.body[start : start + size])
    await response.write_eof()
    return response


async def _kept(request: web.BaseRequest, mishap: StaleKeepAlive | Unasked, answer: HTTPResponse) -> web.StreamResponse:
    """Answer, and do to the connection later what its keeping did not promise."""
    response = plain(answer)
    await response.prepare(request)
    await response.write_eof()
    transport = request.transport
    if transport is not None:
        then = partial(_speak_up, transport, mishap, answer) if isinstance(mishap, Unasked) else transport.close
        asyncio.get_running_loop().call_later(mishap.seconds, then)
    return response


def _speak_up(transport: asyncio.WriteTransport, mishap: Unasked, answer: HTTPResponse) -> None:
    if transport.is_closing():
        return
    if mishap.again:
        transport.write(_head(answer) + answer.body)
    else:
        transport.write(_head(HTTPResponse(408, headers={"connection": "close"})))
        transport.close()
