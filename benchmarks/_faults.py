"""What a network and a host can do to one submit, as values, and the host that does it.

A `Host` serves one intent: it knows nothing of any SDK, misbehaves as its `Fault` says, and counts the POSTs that it
could have billed, which are those it read to the end and did not refuse in so many words.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from types import TracebackType
from typing import Any, Literal, Self

from attrs import define, evolve, field, frozen

_ID = "1c0ffee0-0000-4000-8000-000000000001"
_COUNTED = "1c0ffee0-0000-4000-8000-{:012}"
#: Has what each SDK looks for in the answer to a create.
CREATED = json.dumps(
    dict.fromkeys(("task_id", "job_id", "request_id", "id"), _ID)
    | dict.fromkeys(("response_url", "status_url", "cancel_url"), "http://127.0.0.1/")
    | {
        "status": "processing",
        "message": "",
        "model": "m",
        "version": "v",
        "task_type": "reroll",
        "input": {},
    }
    | {"created": 1, "data": []}
)
_PAGE = (
    "<html><head><title>{0}</title></head>"
    "<body><center><h1>{0}</h1></center><hr><center>nginx</center></body></html>"
)


def answer(status: int = 200, body: str = CREATED, *headers: str, length: int | None = None) -> bytes:
    """Give a whole answer; `length` may lie."""
    kind = "application/json" if body.startswith("{") else "text/html"
    lines = (
        f"HTTP/1.1 {status} Status",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body) if length is None else length}",
        *headers,
    )
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@frozen
class Words:
    """How a protocol says that a task was made, that it was not (by status and reason), and neither."""

    created: str
    refusal: Callable[[int, str], str]
    neither: str


LEGACY = Words(
    CREATED,
    lambda _, message: json.dumps({"task_id": "", "status": "failed", "message": message}),
    '{"status":"success"}',
)
UNIFIED = Words(
    json.dumps({"code": 200, "data": {"task_id": _ID, "status": "pending"}, "message": "success"}),
    lambda code, message: json.dumps(
        {"code": code, "data": {"task_id": "", "status": ""}, "message": message}
    ),
    '{"code":200,"data":{},"message":"success"}',
)
LEGNEXT = Words(
    json.dumps(
        {
            "job_id": _ID,
            "status": "pending",
            "model": "midjourney",
            "task_type": "diffusion",
            "error": {"code": 0, "message": ""},
        }
    ),
    lambda code, message: json.dumps(
        {"error": {"code": code, "message": message, "raw_message": "", "detail": None}}
    ),
    '{"status":"pending"}',
)


def page(title: str) -> str:
    """Give what an edge answers in place of the host behind it."""
    return _PAGE.format(title)


@frozen
class Fault:
    """What befalls the first `times` tries of an intent (None: all of them); then the host answers as it should.

    The host reads so much of the request, says so much, and ends the connection or not.  `outage`: what happens before
    any request can be read.  `kept`: the try goes over a connection that has served a request before.  `refuses`: the
    answer says that no task was made.  `patience`: the client's time-out in seconds, where the fault is to exceed it.
    `words`: the protocol that the host speaks.
    `outcome`: what a client that never pays twice makes of it; a submit that *recovers* was sent again and accepted.
    """

    name: str
    outcome: Literal["recovers", "unknown", "refused"] = field(kw_only=True)
    times: int | None = field(default=None, kw_only=True)
    outage: Literal["", "refuse", "full", "no tls", "stalled tls", "close"] = field(default="", kw_only=True)
    kept: bool = field(default=False, kw_only=True)
    reads: Literal["a byte", "the head", "all"] = field(default="all", kw_only=True)
    says: bytes = field(default=b"", kw_only=True)
    then: Literal["keep", "close", "reset", "stall"] = field(default="keep", kw_only=True)
    refuses: bool = field(default=False, kw_only=True)
    patience: float | None = field(default=None, kw_only=True)
    words: Words = field(default=LEGACY, kw_only=True, repr=False)

    @property
    def speaks_tls(self) -> bool:
        """Whether the host speaks TLS, when nothing befalls it."""
        return self.outage.endswith("tls")


def _status(name: str, status: int, body: str = "") -> Fault:
    return Fault(name, outcome="unknown", says=answer(status, body))


def _busy(name: str, status: int, *headers: str, body: str) -> Fault:
    return Fault(name, outcome="recovers", times=2, refuses=True, says=answer(status, body, *headers))


def _common(words: Words) -> Iterator[Fault]:
    """Give what befalls a submit in any protocol."""
    # It certainly never left.
    yield Fault("refused", outcome="recovers", outage="refuse")
    yield Fault("time-out before sending", outcome="recovers", outage="full", patience=1.0)
    yield Fault("TLS failure", outcome="recovers", outage="no tls", times=2)
    yield Fault(
        "time-out in the TLS handshake", outcome="recovers", outage="stalled tls", times=1, patience=1.0
    )
    yield Fault("close seen before sending", outcome="recovers", outage="close", kept=True)
    # The host says that it made nothing, and to come again.
    slow_down = words.refusal(429, "too many requests")
    yield _busy("429", 429, body=slow_down)
    yield _busy("429 with Retry-After", 429, "Retry-After: 1", body=slow_down)
    yield _busy("400 no available bot", 400, body=words.refusal(400, "no available bot"))
    # It may have arrived.
    cut = answer(body=words.created[:40], length=4_000)
    yield Fault(
        "close crossing the send", outcome="unknown", kept=True, reads="a byte", then="reset", times=1
    )
    yield Fault("drop in the headers", outcome="unknown", reads="a byte", then="reset")
    yield Fault("drop before the body", outcome="unknown", reads="the head", then="reset")
    yield Fault("drop after the body", outcome="unknown", then="reset")
    yield Fault("drop inside the answer", outcome="unknown", says=cut, then="close")
    yield Fault("time-out after sending", outcome="unknown", then="stall", patience=1.0)
    yield _status("408", 408, page("408 Request Time-out"))
    yield _status("500 without a body", 500)
    yield _status("502", 502, page("502 Bad Gateway"))
    yield _status("503", 503, page("503 Service Temporarily Unavailable"))
    yield _status("504", 504, page("504 Gateway Time-out"))
    yield _status("500 that says time-out", 500, words.refusal(500, "timeout waiting for the bot"))
    yield _status("200 without an id", 200, words.neither)
    # The host refuses for good.
    refused = answer(500, words.refusal(500, "failed to pre-process task runtime"))
    yield Fault("500 with PiAPI's refusal", outcome="refused", refuses=True, says=refused)


def _coded() -> Iterator[Fault]:
    """Give what only an envelope can say: a status that HTTP's own, which is 200, knows nothing of."""
    no, busy = UNIFIED.refusal(400, "invalid input"), UNIFIED.refusal(429, "too many requests")
    yield _busy("200 with code 429", 200, body=busy)
    yield _status(
        "200 with code 500 that says time-out", 200, UNIFIED.refusal(500, "timeout waiting for the bot")
    )
    yield _status("200 with code 502 and no word", 200, UNIFIED.refusal(502, ""))
    yield Fault("200 with code 400", outcome="refused", refuses=True, says=answer(200, no))


FAULTS: tuple[Fault, ...] = tuple(_common(LEGACY))
LEGNEXT_FAULTS: tuple[Fault, ...] = tuple(evolve(fault, words=LEGNEXT) for fault in _common(LEGNEXT))
UNIFIED_FAULTS: tuple[Fault, ...] = tuple(
    evolve(fault, words=UNIFIED) for fault in (*_common(UNIFIED), *_coded())
)

_EPOCH = 1_790_000_000.0  # Unix time at which the loop's clock is 0
_BACK_AFTER = 0.3
_FULL_FOR = 1.5


@define(eq=False)
class Host:
    """A host on a port of its own, for one intent: ``async with Host(fault) as host``.

    It behaves until `strike` is called, so that a client can have a kept connection.
    """

    fault: Fault
    tls: ssl.SSLContext | None = None
    billable: int = 0
    """How many POSTs were read to the end and not refused since `strike`."""
    _struck: int = 0
    _made: int = 0
    _history: dict[str, tuple[bytes, float]] = field(factory=dict)
    _on: bool = False
    _socket: socket.socket = field(init=False)
    _server: asyncio.Server | None = None
    _fillers: list[socket.socket] = field(factory=list)
    _tasks: set[asyncio.Task[None]] = field(factory=set)

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        number: int = self._socket.getsockname()[1]
        return number

    @property
    def url(self) -> str:
        """What clients are pointed at."""
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    async def __aenter__(self) -> Self:
        # asyncio turns off Nagle's algorithm only where the protocol is named; with it, what follows the tickets of TLS
        # waits 40 ms of real time for an acknowledgement, which a virtual clock does not wait for.
        self._socket = socket.socket(proto=socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        if self.fault.outage not in ("refuse", "full"):
            await self._listen()
        elif self.fault.outage == "full":
            self._fill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for filler in self._fillers:
            filler.close()
        if self._server is not None:
            self._server.close()
        self._socket.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def strike(self) -> None:
        """Let the fault begin."""
        self._on = True
        if self.fault.outage in ("refuse", "full"):
            self._start(self._come_back())
        if self.fault.outage == "close":
            for task in list(self._tasks):
                task.cancel()
            await asyncio.sleep(0.05)  # a client that looks has seen it by then

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, sock=self._socket)

    def _fill(self) -> None:
        """Have the kernel ignore who wants to connect, as it does when nobody accepts."""
        self._socket.listen(0)
        for _ in range(2):
            filler = socket.socket()
            filler.settimeout(0.0)
            filler.connect_ex(self._socket.getsockname())
            self._fillers.append(filler)

    async def _come_back(self) -> None:
        await asyncio.sleep(_FULL_FOR if self.fault.outage == "full" else _BACK_AFTER)
        while self._fillers:
            self._fillers.pop().close()
        await self._listen()

    def _start(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(chore)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._start(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                if await self._greet(writer):
                    while await self._one(reader, writer):
                        pass
            finally:
                writer.transport.abort()

    def _strikes(self) -> bool:
        """Tell whether the fault befalls what is going on, and count it."""
        if not self._on or (self.fault.times is not None and self._struck >= self.fault.times):
            return False
        self._struck += 1
        return True

    async def _greet(self, writer: asyncio.StreamWriter) -> bool:
        """Set up a connection; tell whether it is good for requests."""
        if self.tls is None:
            return True
        if self.fault.outage == "no tls" and self._strikes():
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            return False
        if self.fault.outage == "stalled tls" and self._strikes():
            await asyncio.sleep(60)
            return False
        await writer.start_tls(self.tls)
        return True

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; tell whether the connection is good for another."""
        head = await reader.readexactly(1)
        if head == b"G":  # a read, which costs nothing and meets with no fault
            line = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._read(line.decode("latin-1").split(" ")[1]))
            await writer.drain()
            return True
        fault = self.fault if not self.fault.outage and self._strikes() else None
        if fault is None or fault.reads != "a byte":
            head += await reader.readuntil(b"\r\n\r\n")
        if fault is None or fault.reads == "all":
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            body = await reader.readexactly(int(found[1]) if found else 0)
            self.billable += self._on and not (fault and fault.refuses)
            if not (fault and fault.refuses):
                self._history[_COUNTED.format(self._made + 1)] = (body, self._now())
        self._made += 1
        made = self.fault.words.created.replace(_ID, _COUNTED.format(self._made))  # no two tasks share an id
        writer.write(fault.says if fault else answer(body=made))
        await writer.drain()
        if fault is not None and fault.then == "stall":
            await reader.read()
        elif fault is not None and fault.then == "reset":
            _reset(writer)
        return fault is None or fault.then == "keep"

    def _now(self) -> float:
        return _EPOCH + asyncio.get_running_loop().time()

    def _read(self, path: str) -> bytes:
        """Answer a read: the task history, or a task, of the unified protocol, where that is spoken."""
        date = f"Date: {formatdate(self._now(), usegmt=True)}"
        task_id = path.rsplit("/", 1)[1]
        if self.fault.words is UNIFIED and path.startswith("/api/open/tasks/histories"):
            rows = [_row(task, *made) for task, made in self._history.items()]
            data = {"data": rows, "page": 1, "size": 100, "total": len(rows)}
        elif self.fault.words is UNIFIED and task_id in self._history:
            data = _shown(task_id, *self._history[task_id])
        else:
            return answer(404, json.dumps({"code": 404, "message": "not found"}), date)
        return answer(200, json.dumps({"code": 200, "data": data, "message": "success"}), date)


def _row(task_id: str, body: bytes, at: float) -> dict[str, Any]:
    return {
        "id": task_id,
        "task_id": task_id,
        "task_model": json.loads(body)["model"],
        "created_at": _written(at),
    }


def _shown(task_id: str, body: bytes, at: float) -> dict[str, Any]:
    return {"task_id": task_id, "status": "pending", **json.loads(body), "meta": {"created_at": _written(at)}}


def _written(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
