"""A raw loopback server whose answers a test writes as a function of what was asked: hosts, and edges before them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field

from support.strict_server import Received, http

CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Checking</body></html>"
"""What an edge says instead of the host."""


def page(status: int, body: bytes = CHALLENGE) -> bytes:
    """Return a whole answer that is an edge's page."""
    head = f"HTTP/1.1 {status} So\r\nContent-Type: text/html; charset=UTF-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def said(body: Any, status: int = 200) -> bytes:
    """Return a whole answer of the host, in JSON."""
    return http(json.dumps(body).encode(), status=status)


@define(eq=False)
class ScriptedHost:
    """Answers each request with what `answer` makes of its path and JSON body; keeps what was asked."""

    answer: Callable[[str, Any], bytes]
    asked: list[tuple[str, Any]] = field(factory=list)
    base_url: str = ""
    _open: set[asyncio.StreamWriter] = field(factory=set)

    def count(self, path: str) -> int:
        """Return how often a path was asked for."""
        return sum(asked == path for asked, _ in self.asked)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
                received = Received(head, b"")
                body = await reader.readexactly(int(dict(received.headers).get("content-length", "0")))
                path = received.line.split(" ")[1]
                data = json.loads(body) if body else None
                self.asked.append((path, data))
                writer.write(self.answer(path, data))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    def hang_up(self) -> None:
        """End every connection."""
        for writer in list(self._open):
            writer.transport.abort()


@asynccontextmanager
async def scripted(answer: Callable[[str, Any], bytes]) -> AsyncIterator[ScriptedHost]:
    """Serve inside the block."""
    host = ScriptedHost(answer)
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, limit=2**20)
    host.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()
        host.hang_up()
        await server.wait_closed()
