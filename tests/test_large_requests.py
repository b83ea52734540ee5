"""A request of many megabytes, as an Inpaint with a mask is: what there is of it in memory, and on disk."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
import tracemalloc
import weakref
from hashlib import sha256
from pathlib import Path
from random import randbytes

import pytest
from attrs import define
from support.ledgers import FAMILY, ORIGIN, identity, opened
from support.processes import ended
from support.serving import KEY, REROLL, turns
from support.strict_server import Act, http, strict_server

from piapi_async import Inpaint, Ledger, PiAPI
from piapi_async._http import HTTPRequest
from piapi_async.ledger import LedgerState
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of

MB = 1_000_000
ACCEPTED = http(b'{"task_id": "new-task", "status": "success", "message": ""}')


def port_of(server: asyncio.Server) -> int:
    """Return the port that a server listens on."""
    port: int = server.sockets[0].getsockname()[1]
    return port


def resident() -> float:
    """Return the megabytes that this process has in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


@pytest.mark.storm
@pytest.mark.measured
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is in memory")
async def test_a_large_request_is_claimed_whole_and_sqlite_keeps_no_copy_of_it(tmp_path: Path) -> None:
    # Above 32 MB the allocator gives back at once what is freed, so that the figures are exact.
    request = "/mj/v2/inpaint " + "A" * 40 * MB
    large = SubmissionKey(key="large", origin=ORIGIN, family=FAMILY, request=request)

    async with opened(tmp_path / "run.db") as ledger:
        writer = writer_of(ledger)
        assert await writer.claim(identity("small")) is None
        before = resident()
        assert await writer.claim(large) is None
        assert resident() - before < 20

        again = await writer.claim(large)
        assert again is not None
        assert again.state is LedgerState.SENDING
        assert again.request == request


BLOCKS = """
import ctypes
from piapi_async.cli._memory import give_back_large_blocks

class MallInfo(ctypes.Structure):
    # glibc's struct mallinfo2, as far as it is read here, and as long as it is
    _fields_ = [("before", ctypes.c_size_t * 3), ("hblks", ctypes.c_size_t), ("after", ctypes.c_size_t * 6)]

mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = MallInfo
give_back_large_blocks()
bytes(8_000_000)  # from now on glibc would take such blocks from its heap, and keep them
before = mallinfo().hblks
block = bytes(8_000_000)
print("mapped:", mallinfo().hblks - before)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="asks glibc"
)
def test_blocks_of_megabytes_go_back_to_the_system_though_others_were_freed_before() -> None:
    # In a process of its own, whose heap has no such block free already.
    assert ended(sys.executable, "-c", BLOCKS).printed == "mapped: 1\n"


@define(eq=False)
class Drain:
    """A host that reads a request piece by piece, and accepts it: what it keeps of a body is a digest."""

    digest: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        digest = sha256()
        while left:
            piece = await reader.read(65536)
            digest.update(piece)
            left -= len(piece)

        self.digest = digest.digest()
        writer.write(ACCEPTED)
        writer.close()


async def test_a_body_of_megabytes_arrives_whole_and_is_not_copied_on_its_way() -> None:
    request = HTTPRequest("POST", "/mj/v2/inpaint", randbytes(8 * MB))  # noqa: S311 - no secret
    host = Drain()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)

    async with server, PiAPI(KEY, base_url=f"http://127.0.0.1:{port_of(server)}") as piapi:
        transport = piapi._runtime.sender.transport
        tracemalloc.start()
        try:
            await transport.send(request, timeout=20, submit=True)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert host.digest == sha256(request.body).digest()
    assert peak < 2 * MB


async def test_a_connection_whose_answer_came_before_the_body_had_left_is_not_used_again() -> None:
    early = Act(read="head", say=ACCEPTED)
    request = Inpaint("a-parent", mask=bytes(12 * MB), prompt="a hat")

    async with strict_server(early) as server, PiAPI(KEY, base_url=server.base_url) as piapi:
        server.usual = Act(say=ACCEPTED.replace(b"new-task", b"2nd-task"))
        first = await piapi.submit(request)
        second = await piapi.submit(REROLL)

    assert (first.task_id, second.task_id) == ("new-task", "2nd-task")
    assert server.connections == 2


async def test_nothing_of_a_submission_waits_for_the_garbage_collector(tmp_path: Path) -> None:
    request = Inpaint("a-parent", mask=bytes(1000), prompt="a hat")
    left = weakref.ref(request)

    async with (
        strict_server(Act(say=ACCEPTED)) as server,
        PiAPI(KEY, base_url=server.base_url, ledger=Ledger(tmp_path / "run.db")) as piapi,
    ):
        gc.disable()
        try:
            await piapi.submit(request)
            del request
            await turns()
            assert left() is None
        finally:
            gc.enable()
