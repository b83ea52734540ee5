"""A request of many megabytes, as an Inpaint with a mask is: what the ledger has of it, on disk and in memory."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest
from support.ledgers import FAMILY, ORIGIN, identity, opened
from support.processes import ended

from piapi_async.ledger import LedgerState
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of

MB = 1_000_000


def resident() -> float:
    """Return the megabytes that this process has in memory."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1000


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
