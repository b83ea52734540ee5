"""Connections that are in step: what is read on one is the answer to what was written on it.

aiohttp takes a connection from its pool if it is still open, whatever the server has said on it
meanwhile: an answer sent twice, or a balancer's unsolicited 408, would be read as the answer to the
next request, and every later one be off by one.  So a kept connection is used again only while it
holds nothing unread, which is asked when it is taken; and one that a submission went out on only
after its answer was judged to be a plain acceptance, so that a second copy of any other answer,
however late, is read by no one.

`_get`, `_release` and `_factory` are aiohttp's own, and not documented; they are the same from 3.12
to 3.14.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import aiohttp.client_proto

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

# Bytes that the loop makes room for whenever it reads from a socket without TLS.  asyncio's 256 KiB
# are mapped and unmapped by the system for every response, most of which have 2 kB, until the process
# has once freed so much in one piece, which glibc then keeps at hand.  In a process that never does,
# that is a tenth of a request and more.
_ROOM = 120 * 1024


class SteadyConnector(aiohttp.TCPConnector):
    """A connector whose kept connections are used again only if nothing has come on them since."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(**options)
        self._factory: Any = partial(_Handler, loop=self._loop)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            if protocol is not None and not has_unread(protocol):
                if isinstance(protocol, _Handler):
                    protocol.idle = protocol.heard = False
                return connection
            connection.close()
        return None

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if isinstance(protocol, _Handler):
            protocol.idle = True
        super()._release(key, protocol, should_close=should_close)


class _Handler(aiohttp.client_proto.ResponseHandler):
    """A connection's protocol: any byte that comes while no response is awaited makes it unusable.

    `heard` tells whether anything has come since it was taken from the pool, and `readable` whether
    the kernel holds anything for it, even if only its end.
    """

    idle = False
    heard = False
    readable: Callable[[], object]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.readable = _watch(transport)
        if hasattr(transport, "max_size"):  # as no transport of TLS, of uvloop or of Windows' proactor has
            transport.max_size = _ROOM

    def data_received(self, data: bytes) -> None:
        if data:  # aiohttp hands on nothing, too
            self.heard = True
            if self.idle:
                self.force_close()
        super().data_received(data)


class SubmitConnector(SteadyConnector):
    """A connector whose connections return to the pool once the response they carried was judged."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(**options)
        self._unjudged: dict[ResponseHandler, ConnectionKey] = {}

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        if should_close:
            super()._release(key, protocol, should_close=True)
            return
        self._unjudged[protocol] = key
        if isinstance(protocol, _Handler):
            protocol.idle = True

    def settle(self, protocol: ResponseHandler, *, reuse: bool) -> None:
        """Put a connection back into the pool, or close it."""
        key = self._unjudged.pop(protocol, None)
        if key is not None:
            super()._release(key, protocol, should_close=not reuse)


def has_unread(protocol: ResponseHandler) -> bool:
    """Return whether anything has come on a connection that should be silent, read by the loop or not."""
    return protocol.should_close or (isinstance(protocol, _Handler) and bool(protocol.readable()))


def is_out_of_step(protocol: object) -> bool:
    """Return whether the loop has read anything on a connection that was just taken for a request."""
    if isinstance(protocol, _Handler):  # `has_unread` has asked aiohttp when it was taken
        return protocol.heard
    return bool(getattr(protocol, "should_close", False))


def _watch(transport: asyncio.BaseTransport) -> Callable[[], object]:
    """Return what tells, as long as a connection is open, whether the kernel holds anything for it.

    It is made once for each connection, as it is asked before every request.
    """
    connection = transport.get_extra_info("socket")
    if connection is None:
        return bool

    number = connection.fileno()
    if not hasattr(select, "poll"):  # Windows, where `select` takes any number of sockets
        return lambda: select.select([number], [], [], 0)[0]

    poller = select.poll()
    poller.register(number, select.POLLIN)
    return partial(poller.poll, 0)
