"""What a look for lost submissions comes to when the ledger changes, goes away, or says nothing of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from support.serving import serving, turns

from piapi_async import ClientClosed, CreateTask, Ledger, PiAPI, RecoveryReport, SubmissionUnknown
from piapi_async._submit.recovery import Lost
from piapi_async._submit.searching import Search
from piapi_async.emulator import Dialect, Drop, Status, Unclear
from piapi_async.ledger._recovery import Taken
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

LAG = Dialect(history_lag=30.0)
CAT = CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"})


async def with_an_unknown_key(piapi: PiAPI) -> None:
    with pytest.raises(SubmissionUnknown):
        await piapi.submit(CAT, key="k")
    await asyncio.sleep(60.0)  # by now its task is in the history


async def test_one_look_that_sees_no_inputs_ends_no_search() -> None:
    async def take(task_id: TaskId) -> Taken:
        return Taken(task_id)

    search = Search("m", "k", "unified", lambda: Lost("A", {}, 0.0, 1.0), take)
    seen = []
    for obstacle in ("hidden", "", "hidden", "hidden"):
        search.met_with(obstacle)
        seen.append(search.is_hopeless)
    assert [False, False, False, True] == seen


@pytest.mark.parametrize("request_text", ["POST {", "POST [7]", ""])
async def test_a_row_that_does_not_say_what_was_sent_stays_unknown(tmp_path: Path, request_text: str) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db"), "recover": 1.0}
    async with serving(client, dialect=LAG) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        await with_an_unknown_key(piapi)
        with contextlib.closing(sqlite3.connect(tmp_path / "run.db")) as connection, connection:
            connection.execute("UPDATE submits SET request = ?, body = NULL", (request_text,))

        why = "what was sent says too little to tell its task from others"
        assert await piapi.recover() == RecoveryReport(unknown=("k",), trouble=why)


async def test_a_ledger_that_goes_away_while_a_task_is_looked_for_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    client = {"ledger": Ledger(path), "recover": 20.0}
    async with serving(client, dialect=Dialect(history_lag=5.0)) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        submitting = asyncio.create_task(piapi.submit(CAT, key="k"))
        await asyncio.sleep(2.0)
        for file in tmp_path.glob("run.db*"):
            file.rename(file.with_name(f"moved-{file.name}"))
        with pytest.raises(SubmissionUnknown, match="may have been paid for") as caught:
            await submitting
        assert f"could not be looked for: The ledger {path} was moved" in str(caught.value)
        assert f"moved-{path.name}" in str(caught.value)
        assert len(emulator.engine.tasks) == 1


@pytest.mark.parametrize(
    ("options", "fault", "why"),
    [
        ({}, Status(503), "HTTP 503"),
        ({"dialect": Dialect(history=False)}, None, "the host shows no history"),
    ],
)
async def test_what_could_not_be_looked_for_is_not_called_looked_for(
    tmp_path: Path, options: dict[str, Any], fault: Status | None, why: str
) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db"), "recover": 1.0}
    async with serving(client, **options) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True, made=False))
        if fault is not None:
            emulator.fail("history", fault, times=None)
        for _ in range(2):  # when it is lost, and when its key is submitted again
            with pytest.raises(SubmissionUnknown, match="may have been paid for") as caught:
                await piapi.submit(CAT, key="k")
        report = await piapi.recover()

        assert ("k",) == report.unknown
        if fault is not None:
            assert why in str(caught.value)
            assert why in report.trouble
        else:  # the host is asked no more
            assert "no history of this host" in report.trouble


async def test_a_task_that_is_named_and_cannot_be_read_is_named_in_the_error(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}) as (emulator, piapi):
        emulator.fail("create", Unclear("failed_with_id"))
        emulator.fail("read", Status(503), times=None)
        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(CAT, key="k")

        [task_id] = emulator.engine.tasks
        assert caught.value.ref is not None
        assert f"not certain to be task {task_id}" in str(caught.value)
        assert "did not arrive" not in str(caught.value)


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
