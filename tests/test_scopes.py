"""anyio's scopes, as of FastAPI, Starlette and MCP, which cancel every await in them again and again.

What has begun to leave is waited for all the same, and its id reaches the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batching import WIDE, rerolls
from support.serving import KEY, REROLL, no_leaks, now

from piapi_async import BatchRunner, Ledger, PiAPI, PollPolicy
from piapi_async.emulator import Emulator, SlowFirstByte

pytestmark = pytest.mark.looptime

ANSWER = 10.0
"""Seconds that the host takes for the answer to a create, of which five have passed when the scope is cancelled."""


async def in_timeout(work: Callable[[], Any]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await work()


async def in_move_on_after(work: Callable[[], Any]) -> None:
    with anyio.move_on_after(5):
        await work()


async def in_cancelled_group(work: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(work)
        await asyncio.sleep(5)
        group.cancel_scope.cancel()


async def in_group_with_a_failure(work: Callable[[], Any]) -> None:
    async def fail() -> None:
        await asyncio.sleep(5)
        raise OSError

    with contextlib.suppress(BaseExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            group.start_soon(fail)


async def in_cancelled_task(work: Callable[[], Any]) -> None:
    task = asyncio.create_task(work())
    await asyncio.sleep(5)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def in_nested_scopes(work: Callable[[], Any]) -> None:
    with anyio.move_on_after(5), anyio.move_on_after(6):
        await in_cancelled_group(work)


each_scope = pytest.mark.parametrize(
    "scope",
    [
        in_timeout,
        in_move_on_after,
        in_cancelled_group,
        in_group_with_a_failure,
        in_cancelled_task,
        in_nested_scopes,
    ],
)


@contextlib.asynccontextmanager
async def host(**options: Any) -> AsyncIterator[tuple[Emulator, Callable[..., PiAPI]]]:
    """Serve a host that is slow to answer creates, and make its clients."""
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=30.0, **(WIDE | options))
    async with no_leaks(), emulator.run() as base_url:

        def client(ledger: Path, **settings: Any) -> PiAPI:
            poll = PollPolicy.every(1.0)
            return PiAPI(KEY, base_url=base_url, poll=poll, timeout=60.0, ledger=Ledger(ledger), **settings)

        yield emulator, client


async def pending(path: Path) -> set[str]:
    ledger = Ledger(path)
    found = {str(entry.task_id) for entry in await ledger.pending()}
    assert [] == await ledger.unknown()
    await ledger.close()
    return found


def made(emulator: Emulator) -> set[str]:
    return {task_id for task_id, task in emulator.engine.tasks.items() if not task.adopted}


@each_scope
async def test_a_client_that_is_left_waits_for_the_id(scope: Callable[..., Any], tmp_path: Path) -> None:
    async with host(latency={"reroll": ANSWER}) as (emulator, client):

        async def work() -> None:
            async with client(tmp_path / "run.db") as piapi:
                await piapi.submit(REROLL)

        await scope(work)

        assert ANSWER == pytest.approx(now(), abs=0.5)
        assert 1 == len(made(emulator))
        assert made(emulator) == await pending(tmp_path / "run.db")


@each_scope
async def test_a_client_that_is_closed_by_hand_waits_for_the_id(
    scope: Callable[..., Any], tmp_path: Path
) -> None:
    async with host(latency={"reroll": ANSWER}) as (emulator, client):

        async def work() -> None:
            piapi = client(tmp_path / "run.db")
            try:
                await piapi.submit(REROLL)
            finally:
                await piapi.close()

        await scope(work)

        assert made(emulator) == await pending(tmp_path / "run.db") != set()


@each_scope
async def test_a_stream_that_is_left_waits_for_the_ids(scope: Callable[..., Any], tmp_path: Path) -> None:
    async with host(latency={"reroll": ANSWER}) as (emulator, client), client(tmp_path / "run.db") as piapi:

        async def work() -> None:
            async with BatchRunner(piapi, concurrency=4).stream(rerolls(9)) as outcomes:
                async for _ in outcomes:
                    pass

        await scope(work)

        assert ANSWER == pytest.approx(now(), abs=0.5)
        assert 0 == len(piapi._runtime.submitter)
        assert 4 == len(made(emulator))
        assert made(emulator) == await pending(tmp_path / "run.db")


@each_scope
async def test_a_client_that_is_left_waits_no_longer_than_the_time_out(
    scope: Callable[..., Any], tmp_path: Path
) -> None:
    async with host() as (emulator, client):
        emulator.fail("reroll", SlowFirstByte(10_000), times=None)

        async def work() -> None:
            async with client(tmp_path / "run.db") as piapi:
                await piapi.submit(REROLL, timeout=20.0)

        await scope(work)

        assert 20.0 <= now() <= 26.0


async def test_what_fails_in_closing_keeps_nothing_else_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("as it is")

    async with host() as (_, client):
        piapi = client(tmp_path / "run.db")
        await piapi.submit(REROLL)
        monkeypatch.setattr(piapi._runtime.uploader.__class__, "close", fail)
        with pytest.raises(OSError, match="as it is"):
            await piapi.close()

        assert piapi._runtime.ledger is not None
        assert not piapi._runtime.ledger.store.is_open
        assert not piapi._runtime.sender.transport._own
