"""How each fault is carried out on a connection.

A fault that changes a response alone has a method `apply` in `faults`; those that need the socket
are here.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web

from piapi_async._http import HTTPResponse

from ..faults import (
    Drop,
    EdgePage,
    ServedFault,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    Unasked,
    Unclear,
    WireFault,
)

#: How requests that got no response are counted; the number is never sent.
NO_RESPONSE = 444

#: Reads the request and serves it: after it, a task was made.
Produce = Callable[[], Awaitable[HTTPResponse]]
#: Returns the body of a refusal, given status and message.
RefusalBody = Callable[[int, str], Mapping[str, object]]


async def serve_with_fault(
    request: web.BaseRequest, fault: WireFault, produce: Produce, refusal_body: RefusalBody
) -> web.StreamResponse:
    """Serve the request through an injected fault; the response is unusable if the connection is gone."""
    try:
        return await _serve(request, fault, produce, refusal_body)
    except ConnectionResetError:  # the client timed out and has gone
        return web.Response(status=NO_RESPONSE)


async def _serve(
    request: web.BaseRequest, fault: WireFault, produce: Produce, refusal_body: RefusalBody
) -> web.StreamResponse:
    if isinstance(fault, Drop):
        return await _drop(request, fault, produce)

    if isinstance(fault, Status | EdgePage | Unclear) and not fault.made:
        await request.read()
        return plain(fault.response(refusal_body))

    return await _serve_then_break(request, fault, await produce(), refusal_body)


async def _serve_then_break(
    request: web.BaseRequest,
    fault: ServedFault,
    response: HTTPResponse,
    refusal_body: RefusalBody,
) -> web.StreamResponse:
    """Send the response of a request that was served, in the way the fault has it."""
    if isinstance(fault, Status | EdgePage):
        return plain(fault.response(refusal_body))
    if isinstance(fault, SlowBody):
        return await _send_slowly(request, fault, response)
    if isinstance(fault, StaleKeepAlive | Unasked):
        return await _break_keep_alive(request, fault, response)

    if isinstance(fault, SlowFirstByte):
        await asyncio.sleep(fault.seconds)
        return plain(response)
    return plain(fault.apply(response))


def plain(response: HTTPResponse) -> web.Response:
    """Return the response as aiohttp sends it."""
    return web.Response(status=response.status, body=response.body, headers=response.headers)


async def _drop(request: web.BaseRequest, drop: Drop, produce: Produce) -> web.StreamResponse:
    if drop.inside_answer:
        _send_half(request, await produce())
        return web.Response(status=NO_RESPONSE)  # goes nowhere: the transport is closed

    if drop.after_body and drop.made is False:
        await request.read()
    elif drop.after_body:
        await produce()
    reset(request.transport)
    return web.Response(status=NO_RESPONSE)  # the same


def reset(transport: asyncio.BaseTransport | None) -> None:
    """Reset the connection (RST), as a dying peer or a middlebox does; a closed one stays as it is."""
    if isinstance(transport, asyncio.Transport):
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _send_half(request: web.BaseRequest, response: HTTPResponse) -> None:
    """Send headers that promise the whole body, send half of it, and close."""
    transport = request.transport
    if transport is None:
        return

    half = response.body[: len(response.body) // 2]
    transport.write(_head(response) + half)
    transport.close()


def _head(response: HTTPResponse) -> bytes:
    headers = {**response.headers, "content-length": str(len(response.body))}
    lines = [f"HTTP/1.1 {response.status} OK"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def _send_slowly(
    request: web.BaseRequest,
    slow: SlowBody,
    response: HTTPResponse,
) -> web.StreamResponse:
    stream = web.StreamResponse(status=response.status, headers=response.headers)
    stream.content_length = len(response.body)
    await stream.prepare(request)

    size = -(-len(response.body) // slow.pieces) or 1
    for start in range(0, len(response.body), size):
        await asyncio.sleep(slow.seconds / slow.pieces)
        await stream.write(response.body[start : start + size])

    await stream.write_eof()
    return stream


async def _break_keep_alive(
    request: web.BaseRequest, fault: StaleKeepAlive | Unasked, response: HTTPResponse
) -> web.StreamResponse:
    """Send the response, and later do to the connection what was not agreed."""
    sent = plain(response)
    await sent.prepare(request)
    await sent.write_eof()

    transport = request.transport
    if transport is not None:
        later: Callable[[], None] = transport.close
        if isinstance(fault, Unasked):
            later = partial(_send_unasked, transport, fault, response)
        asyncio.get_running_loop().call_later(fault.seconds, later)
    return sent


def _send_unasked(transport: asyncio.WriteTransport, fault: Unasked, response: HTTPResponse) -> None:
    if transport.is_closing():
        return

    if fault.again:
        transport.write(_head(response) + response.body)
    else:
        transport.write(_head(HTTPResponse(408, headers={"connection": "close"})))
        transport.close()
