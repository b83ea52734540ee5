"""A raw host for creates and reads: it answers as told, counts what it was sent, and knows nothing of the package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field


def http_answer(status: int, body: bytes, *headers: str) -> bytes:
    """Return a whole HTTP/1.1 answer."""
    lines = [f"HTTP/1.1 {status} So", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def is_read(line: str) -> bool:
    """Tell whether a request line is that of a read, in either protocol."""
    return line.startswith("GET ") or "fetch " in line


@define(eq=False)
class RawHost:
    """Answers a create by `create`, a read by `read`: each is given the number of such requests before this one."""

    create: Callable[[int], bytes]
    read: Callable[[int], bytes] = lambda _: http_answer(404, b'{"code": 404, "message": "task not found"}')
    creates: list[bytes] = field(factory=list)
    reads: list[str] = field(factory=list)
    connections: int = 0
    url: str = ""
    _tasks: set[asyncio.Task[None]] = field(factory=set)

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
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                lengths = [
                    line.partition(":")[2] for line in head.lower().split("\r\n") if "content-length:" in line
                ]
                body = await reader.readexactly(int(lengths[0]) if lengths else 0)
                line = head.split("\r\n", 1)[0]
                if is_read(line):
                    self.reads.append(line)
                    writer.write(self.read(len(self.reads) - 1))
                else:
                    self.creates.append(body)
                    writer.write(self.create(len(self.creates) - 1))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            writer.transport.abort()


@asynccontextmanager
async def raw_host(
    create: Callable[[int], bytes], read: Callable[[int], bytes] | None = None
) -> AsyncIterator[RawHost]:
    """Serve inside the block."""
    host = RawHost(create) if read is None else RawHost(create, read)
    server = await asyncio.start_server(host.connected, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield host
    finally:
        server.close()
        await host.stop()
        await server.wait_closed()


def json_answer(status: int, body: Any, *headers: str) -> bytes:
    """Return a whole answer whose body is JSON, or the bytes given."""
    return http_answer(status, body if isinstance(body, bytes) else json.dumps(body).encode(), *headers)
