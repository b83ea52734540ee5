"""What tests of the ledger share: identities, refs, a ledger that is closed again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from piapi_async import Ledger, TaskRef
from piapi_async._http import post
from piapi_async.ledger import LedgerState
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of

ORIGIN, FAMILY = "https://host.test", "midjourney"


def identity(key: str = "k", prompt: str = "a cat") -> SubmissionKey:
    return SubmissionKey.of(post("/mj/v2/imagine", {"prompt": prompt}), key=key, origin=ORIGIN, family=FAMILY)


def ref(task_id: str = "t") -> TaskRef:
    return TaskRef(ORIGIN, FAMILY, task_id)  # type: ignore[arg-type]  # a TaskId is a str to all but the checker


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        await ledger.close()


async def accept(ledger: Ledger, *keys: str) -> None:
    """Have tasks named after their keys."""
    for key in keys:
        mine = identity(key)
        assert await writer_of(ledger).claim(mine) is None
        await writer_of(ledger).accept(mine, ref(f"task of {key}"))


async def states_of(path: Path) -> dict[str, LedgerState]:
    """Return what another process finds in a ledger."""
    async with opened(path) as ledger:
        return {entry.key: entry.state async for entry in ledger}
