"""A fleet in this process: an emulator, a client, and a worker at work for the length of a block."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from piapi_async import AuthenticationError, CreateTask, PiAPI, PollPolicy
from piapi_async.emulator import Emulator
from piapi_async.fleet import Worker
from piapi_async.fleet._database import CAN_SQLITE, Database

NEEDS_SQLITE = pytest.mark.skipif(
    not CAN_SQLITE, reason="the engine needs SQLite 3.42 on Python 3.12 and later"
)


@cache
def _migrated() -> bytes:
    """Return a database without a job: the engine takes a quarter of a second to make one."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "run.db"
        Database.open(f"sqlite:///{path}").close()
        return path.read_bytes()


def empty_database(folder: Path) -> Path:
    """Return a new file of a fleet's in a folder."""
    path = folder / "run.db"
    path.write_bytes(_migrated())
    return path


def cat(number: int | str) -> CreateTask:
    return CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": f"cat {number}"})


@asynccontextmanager
async def host(client: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[tuple[Emulator, PiAPI]]:
    """Give an emulator and a client of it; `options` are the emulator's."""
    emulator = Emulator(**{"durations": 0.2, "picture_size": 32, **options})
    settings: dict[str, Any] = {
        "poll": PollPolicy.every(0.05),
        "timeout": 1.0,
        "recover": 2.0,
        **(client or {}),
    }
    async with emulator.run() as url, PiAPI(emulator.api_key, base_url=url, **settings) as piapi:
        yield emulator, piapi


@asynccontextmanager
async def at_work(url: str, piapi: PiAPI, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    """Have a worker in this process, which hands over at the end of the block."""
    async with Worker(url, piapi, **{"poll": 0.05, "lease": 0.5, **options}) as worker:
        working = asyncio.create_task(worker.run())
        try:
            yield working
        finally:
            worker.stop()
            with suppress(AuthenticationError):
                await working
