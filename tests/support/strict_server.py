"""A loopback server that keeps every byte it was sent, and misbehaves as told.

It shares no code with the package and knows no aiohttp: what it saw is what was on the wire.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Literal

from attrs import define, field, frozen


@frozen
class Received:
    """One request as it came: `head` is all before the body, without the empty line; `at` is the unix time."""

    head: bytes
    body: bytes
    at: float = field(factory=time.time)

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode("ascii")

    @property
    def headers(self) -> list[tuple[str, str]]:
        lines = self.head.decode("ascii").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    @property
    def raw(self) -> bytes:
        return self.head + b"\r\n\r\n" + self.body


@frozen(kw_only=True)
class Act:
    """What happens to one request.

    How much of it is read, after how many seconds what is said, with a `pause` after each piece, and what becomes of
    the connection: it is kept, closed, reset, or left open without another word.
    """

    read: Literal["nothing", "head", "all"] = "all"
    wait: float = 0.0
    say: bytes | Callable[[], Iterator[bytes]] = b""
    pause: float = 0.0
    then: Literal["keep", "close", "reset", "stall"] = "keep"


def http(body: bytes = b"{}", *headers: str, status: int = 200, length: int | None = None) -> bytes:
    """Give a whole answer, with a `Content-Length` that may lie."""
    lines = [f"HTTP/1.1 {status} So", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith("transfer-encoding") for line in headers):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def ok(body: bytes = b"{}") -> Act:
    return Act(say=http(body))


@define(eq=False)
class StrictServer:
    """Plays `acts` in the order of the requests, then what `by_path` has, then `usual` for ever."""

    usual: Act = field(factory=ok)
    acts: list[Act] = field(factory=list)
    by_path: dict[str, Act] = field(factory=dict)
    received: list[Received] = field(factory=list)
    connections: int = 0
    written: int = 0
    port: int = 0
    scheme: str = "http"
    _tasks: set[asyncio.Task[None]] = field(factory=set)

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def play(self, *acts: Act) -> None:
        self.acts.extend(acts)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, which is its right
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; tell whether the connection is good for another."""
        if self.acts and self.acts[0].read == "nothing":
            act = self.acts.pop(0)
        else:
            head = (await reader.readuntil(b"\r\n\r\n"))[:-4]
            path = Received(head, b"").line.split(" ")[1]
            act = self.acts.pop(0) if self.acts else self.by_path.get(path, self.usual)
            body = b""
            if act.read == "all":
                headers = dict(Received(head, b"").headers)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(head, body))
        if act.wait:
            await asyncio.sleep(act.wait)
        for piece in [act.say] if isinstance(act.say, bytes) else act.say():
            writer.write(piece)
            await writer.drain()
            self.written += len(piece)
            if act.pause:
                await asyncio.sleep(act.pause)
        if act.then == "stall":
            await reader.read()  # until the client gives up
        elif act.then == "reset":
            reset(writer)
        elif act.then == "close":
            writer.close()
        return act.then == "keep"


def reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def strict_server(*acts: Act, tls: ssl.SSLContext | None = None) -> AsyncIterator[StrictServer]:
    """Serve inside the block."""
    strict = StrictServer(acts=list(acts), scheme="https" if tls else "http")
    server = await asyncio.start_server(strict.connected, "127.0.0.1", 0, ssl=tls, limit=2**20)
    strict.port = server.sockets[0].getsockname()[1]
    try:
        yield strict
    finally:
        server.close()
        await strict.stop()
        await server.wait_closed()


def free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
