"""A process that opens a ledger again and again and has many submits in it, as fast as it can."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from pathlib import Path

from piapi_async import Ledger, TaskRef
from piapi_async._http import post
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.tasks import TaskId


async def hammer(path: Path, seconds: float) -> int:
    """Return how many submits were accepted."""
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        ledger = Ledger(path)
        until = min(end, time.monotonic() + random.random())  # noqa: S311 - it is no secret
        accepted = await asyncio.gather(*(work(ledger, until) for _ in range(8)))
        count += sum(accepted)
        await ledger.close()
    return count


async def work(ledger: Ledger, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        mine = SubmissionKey.of(
            post("/x", {"prompt": "p" * 400}), key=None, origin="https://o.test", family="f"
        )
        await writer_of(ledger).claim(mine)
        ref = TaskRef("https://o.test", "f", TaskId(secrets.token_hex(16)))
        await writer_of(ledger).accept(mine, ref)
        writer_of(ledger).end(ref, "done", {"a": "b" * 1500})
        count += 1
    return count


if __name__ == "__main__":
    print(asyncio.run(hammer(Path(sys.argv[1]), float(sys.argv[2]))))
