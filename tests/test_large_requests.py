"""A request of many megabytes, as an Inpaint with a mask is: what the ledger has of it, on disk and in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.ledgers import FAMILY, ORIGIN, identity, opened

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
