"""What a look for lost submissions comes to when the ledger changes, goes away, or says nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from support.serving import serving, turns

from piapi_async import ClientClosed, CreateTask, Ledger, PiAPI, RecoveryReport, SubmissionUnknown
from piapi_async.emulator import Dialect, Drop

pytestmark = pytest.mark.looptime

LAG = Dialect(history_lag=30.0)
CAT = CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"})


async def with_an_unknown_key(piapi: PiAPI) -> None:
    with pytest.raises(SubmissionUnknown):
        await piapi.submit(CAT, key="k")
    await asyncio.sleep(60.0)  # by now its task is in the history


@pytest.mark.parametrize("request_text", ["POST {", "POST [7]", ""])
async def test_a_row_that_does_not_say_what_was_sent_stays_unknown(tmp_path: Path, request_text: str) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db"), "recover": 1.0}
    async with serving(client, dialect=LAG) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        await with_an_unknown_key(piapi)
        with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as connection, connection:
            connection.execute("UPDATE submits SET request = ?, body = NULL", (request_text,))

        assert await piapi.recover() == RecoveryReport(unknown=("k",))


async def test_a_ledger_that_goes_away_while_a_task_is_looked_for_leaves_it_unknown(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, dialect=Dialect(history_lag=5.0)) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        submitting = asyncio.create_task(piapi.submit(CAT, key="k"))
        await asyncio.sleep(2.0)
        for file in tmp_path.glob("run.db*"):
            file.rename(file.with_name(f"moved-{file.name}"))
        with pytest.raises(SubmissionUnknown, match="may have been paid for"):
            await submitting
        assert len(emulator.engine.tasks) == 1


async def test_a_client_that_is_closed_while_it_looks_for_all_leaves_no_ledger_open(tmp_path: Path) -> None:
    for turn in range(0, 30, 2):
        path = tmp_path / f"{turn}" / "run.db"
        path.parent.mkdir()
        async with serving({"ledger": Ledger(path)}) as (_, piapi):
            looking = asyncio.create_task(piapi.recover())
            await turns(turn)
            await piapi.close()
            [end] = await asyncio.gather(looking, return_exceptions=True)

        assert isinstance(end, (ClientClosed, RecoveryReport))
        assert [] == list(path.parent.glob("*-owner-*"))
