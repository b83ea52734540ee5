"""A host made for measuring: raw asyncio protocol, prebuilt answers, tasks that finish at their n-th fetch.

    python -m benchmarks.server [--core N] [--looks 1,2] [--port N]

It speaks the legacy protocol's submits, fetches and multi-fetches, and what other SDKs say for the same.  Because it
costs so little, what is measured is the client.  In a process of its own, on a core of its own, it says how busy it
was: a server that was busy for more than half of the time was the bottleneck, and the figures are worth nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
from attrs import asdict, define, field, frozen

from ._dialects import ID, ID_HEAD, Dialect, Prepared, dialects

_NO_TASK = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 28\r\n\r\n{"message":"task not found"}'


def _task(status: str, progress: int, *, images: bool) -> dict[str, Any]:
    """Give a task as the legacy protocol shows it, of the usual size (2.1 kB when it has images)."""
    links = (
        [f"https://img.example.org/cdn/{'0' * 40}/grid-{number}.png" for number in range(4)] if images else []
    )
    result = {
        "discord_image_url": f"https://cdn.example.org/attachments/{'1' * 60}.png" if images else "",
        "image_url": f"https://img.example.org/cdn/{'0' * 40}/grid.png" if images else "",
        "image_urls": links,
        "permanent_url": "",
        "temporary_image_urls": links,
        "task_progress": progress,
        "intermediate_image_urls": None,
        "image_id": "2" * 36 if images else "",
        "seed": "",
        "result_message_id": "3" * 36 if images else "",
        "credit": 0,
        "message": "",
        "warning": "",
        "error_messages": [],
        "need_retry": False,
        "actions": ["reroll", *(f"{verb}{n}" for verb in ("upscale", "variation") for n in range(1, 5))]
        if images
        else [],
    }
    meta = {
        "account_id": "4" * 36,
        "task_type": "reroll",
        "origin_task_id": "5" * 36,
        "bot_id": 0,
        "bot_nick_name": "",
        "created_at": 1_700_000_000,
        "started_at": 1_700_000_003,
        "ended_at": 1_700_000_045 if images else 0,
        "process_mode": "fast",
        "prompt": "a quiet landscape",
        "request": {"origin_task_id": "5" * 36, "webhook_endpoint": "", "webhook_secret": "", "bot_id": 0},
        "model_version": "v6.0",
        "usage": {"type": "point", "frozen": 800000, "consume": 800000 if images else 0},
    }
    return {"task_id": ID, "status": status, "process_time": 0, "task_result": result, "meta": meta}


_RUNNING, _DONE = _task("processing", 50, images=False), _task("finished", 100, images=True)


@frozen
class Counted:
    """What the server saw since the last reset, and the share of that time in which it was busy."""

    submits: int
    fetches: int
    multi_fetches: int
    asked: int
    """Ids that the fetches of both kinds asked for."""
    busy: float

    @property
    def requests(self) -> int:
        """All of them."""
        return self.submits + self.fetches + self.multi_fetches


@define(eq=False)
class _Host:
    """The tasks: a number each, and how many looks each still needs; `looks` is what the next ones need, in turn."""

    looks: Sequence[int] = (1, 2)
    made: int = 0
    submits: int = 0
    fetches: int = 0
    multi_fetches: int = 0
    asked: int = 0
    _left: dict[bytes, int] = field(factory=dict)
    _running: Prepared = field(factory=lambda: Prepared.of(_RUNNING))
    _done: Prepared = field(factory=lambda: Prepared.of(_DONE))
    _dialects: Sequence[Dialect] = field(factory=lambda: dialects(_RUNNING, _DONE))
    _since: tuple[float, float] = field(factory=lambda: (time.perf_counter(), time.process_time()))

    def answer(self, path: bytes, body: bytes) -> bytes:
        """Give the whole answer to one request."""
        if path == b"/mj/v2/multi_fetch":
            self.multi_fetches += 1
            found = [
                self._look(part[24:36])
                for part in body[body.index(b"[") + 1 : body.rindex(b"]")].split(b'"')[1::2]
            ]
            return _whole(
                b'{"data":{'
                + b",".join([b'"' + _ID + number + b'":' + data for number, data in found])
                + b"}}"
            )
        if path == b"/mj/v2/fetch":
            self.fetches += 1
            at = body.index(_ID) + len(_ID)
            return _whole(self._look(body[at : at + 12])[1])
        if path.startswith(b"/mj/v2/"):
            return _whole(b'{"task_id":"' + _ID + self._make() + b'","status":"success","message":""}')
        if path == b"/counted":
            return _whole(orjson.dumps(asdict(self.counted())))
        if path == b"/reset":
            self._reset()
            return _whole(b"{}")
        return self._answer_others(path)

    def _answer_others(self, path: bytes) -> bytes:
        for dialect in self._dialects:
            if path == dialect.creates:
                return _whole(dialect.created.about(self._make()), b"201 Created")
            if (number := dialect.asks_for(path)) is not None:
                self.fetches += 1
                return _whole((dialect.running if self._runs(number) else dialect.done).about(number))
        return _NO_TASK

    def _make(self) -> bytes:
        """Make a task and give its number."""
        self.submits += 1
        self.made += 1
        number = b"%012d" % self.made
        if (looks := self.looks[self.made % len(self.looks)]) > 1:
            self._left[number] = looks
        return number

    def _look(self, number: bytes) -> tuple[bytes, bytes]:
        return number, (self._running if self._runs(number) else self._done).about(number)

    def _runs(self, number: bytes) -> bool:
        """Look at a task once, and tell whether it still runs."""
        self.asked += 1
        left = self._left.get(number, 1) - 1
        if left > 0:
            self._left[number] = left
        else:
            self._left.pop(number, None)
        return left > 0

    def counted(self) -> Counted:
        wall, cpu = time.perf_counter() - self._since[0], time.process_time() - self._since[1]
        return Counted(
            self.submits, self.fetches, self.multi_fetches, self.asked, cpu / wall if wall else 0.0
        )

    def _reset(self) -> None:
        self.submits = self.fetches = self.multi_fetches = self.asked = 0
        self._left.clear()
        self._since = time.perf_counter(), time.process_time()


_ID = ID_HEAD.encode()


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        status,
        len(body),
        body,
    )


class _Connection(asyncio.Protocol):
    """One connection: requests are cut out of what arrives, and answered in one write."""

    def __init__(self, host: _Host) -> None:
        self._host = host
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio gives no other for TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        answers = []
        while (end := data.find(b"\r\n\r\n")) >= 0:
            head = data[:end]
            stop = end + 4 + _body_length(head)
            if len(data) < stop:
                break
            answers.append(self._host.answer(head.split(b" ", 2)[1], data[end + 4 : stop]))
            data = data[stop:]
        self._rest = data
        if answers and self._transport is not None:
            self._transport.write(b"".join(answers))


def _body_length(head: bytes) -> int:
    lower = head.lower()
    at = lower.find(b"\r\ncontent-length:")
    return 0 if at < 0 else int(lower[at + 17 :].split(b"\r\n", 1)[0])


async def serve(looks: Sequence[int] = (1, 2), port: int = 0) -> asyncio.Server:
    """Serve in this loop, on loopback."""
    host = _Host(looks)
    return await asyncio.get_running_loop().create_server(
        lambda: _Connection(host), "127.0.0.1", port, backlog=1024
    )


@frozen
class Remote:
    """A server in a process of its own."""

    base_url: str
    core: int | None

    def reset(self) -> None:
        """Let it count from zero."""
        self._get("reset")

    def counted(self) -> Counted:
        """Give what it saw since."""
        return Counted(**orjson.loads(self._get("counted")))

    def _get(self, what: str) -> bytes:
        with urlopen(f"{self.base_url}/{what}", timeout=10) as answer:  # noqa: S310 - our own loopback server
            return bytes(answer.read())


@contextmanager
def server_process(looks: Sequence[int] = (1, 2)) -> Iterator[Remote]:
    """Give a server in a process of its own, on the last core, while the caller is on the others (if there are any)."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    core = cores[-1] if len(cores) > 1 else None
    words = [sys.executable, "-m", "benchmarks.server", "--looks", ",".join(map(str, looks))]
    if core is not None:
        words += ["--core", str(core)]
        os.sched_setaffinity(0, set(cores[:-1]))
    root = Path(__file__).parents[1]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root)  # noqa: S603 - this very module
    try:
        base_url = process.stdout.readline().strip() if process.stdout is not None else ""
        if not base_url:  # a client without a base URL would speak to the real host
            raise RuntimeError("the server did not start")
        yield Remote(base_url, core)
    finally:
        process.terminate()
        process.communicate()
        if core is not None:
            os.sched_setaffinity(0, set(cores))


async def _main(core: int | None, looks: Sequence[int], port: int) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    server = await serve(looks, port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A host made for measuring.")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--looks", default="1,2", help="at which look tasks finish, in turn")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    asyncio.run(_main(given.core, [int(word) for word in given.looks.split(",")], given.port))
