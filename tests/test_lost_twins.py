"""Equal submissions of which one is lost: no task is given to two, whoever is answered first, and where."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.ledgers import ORIGIN, accept, identity, opened, ref
from support.serving import KEY, serving

from piapi_async import CreateTask, Ledger, LedgerError, PiAPI, SubmissionUnknown
from piapi_async._submit.peers import Peers
from piapi_async.emulator import Drop, SlowFirstByte
from piapi_async.ledger import LedgerState
from piapi_async.ledger._ledger import writer_of
from piapi_async.tasks import TaskId

CAT = CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"})


@pytest.mark.looptime
async def test_a_key_that_is_waited_for_here_is_still_being_sent_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with (
        serving({"recover": 40.0, "ledger": Ledger(path)}) as (emulator, here),
        PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as elsewhere,
    ):
        elsewhere._runtime.submitter.finder._peers = Peers()  # as in another process
        emulator.fail("create", SlowFirstByte(20.0))
        emulator.fail("create", Drop(after_body=True, made=False))
        slow = asyncio.create_task(elsewhere.submit(CAT, key="slow"))
        await asyncio.sleep(0.1)
        waiting = asyncio.create_task(here.submit(CAT, key="slow"))

        with pytest.raises(SubmissionUnknown):
            await here.submit(CAT, key="lost")
        assert {(await slow).task_id, (await waiting).task_id} == set(emulator.engine.tasks)


@pytest.mark.parametrize("ends", [False, True])
async def test_what_was_found_is_taken_back_by_the_response_to_another_process(
    tmp_path: Path,
    ends: bool,  # noqa: FBT001 - a parameter
) -> None:
    lost, answered = identity("lost"), identity("answered")
    async with opened(tmp_path / "run.db") as ledger, opened(tmp_path / "run.db") as other:
        here, elsewhere = writer_of(ledger), writer_of(other)
        await here.claim(lost)
        await elsewhere.claim(answered)
        await here.give_lost(lost, TaskId("t"), "history")
        if ends:
            here.end(ref("t"), "done", {})
            await here.flush()

        taken = await elsewhere.accept(answered, ref("t"))
        rows = {entry.key: (entry.state, entry.task_id, entry.found) async for entry in ledger}

    assert taken is not None
    assert (taken.task_id, taken.taken_from) == ("t", ("lost",))
    assert rows == {"lost": (LedgerState.UNKNOWN, None, ""), "answered": (LedgerState.ACCEPTED, "t", "")}


@pytest.mark.parametrize("ends", [False, True])
async def test_a_person_cannot_give_one_task_to_two(tmp_path: Path, ends: bool) -> None:  # noqa: FBT001 - a parameter
    async with opened(tmp_path / "run.db") as ledger:
        writer = writer_of(ledger)
        await accept(ledger, "answered")
        lost = identity("lost")
        await writer.claim(lost)
        await writer.mark_unknown(lost)
        if ends:
            writer.end(ref("task of answered"), "done", {})

        with pytest.raises(LedgerError, match="'answered': no two submissions have one task"):
            await ledger.resolve("lost", task_id="task of answered")
        await ledger.resolve("lost", task_id="another")


@pytest.mark.parametrize("found", ["webhook", "hand"])
async def test_what_is_proved_to_be_anothers_is_not_taken_back(tmp_path: Path, found: str) -> None:
    async with opened(tmp_path / "run.db") as ledger:
        writer = writer_of(ledger)
        proved, answered = identity("proved"), identity("answered")
        await writer.claim(proved)
        await writer.claim(answered)
        await writer.give_lost(proved, TaskId("t"), found)
        writer.end(ref("t"), "done", {})
        await writer.flush()

        taken = await writer.accept(answered, ref("t"))
        known = await writer.known_ids(ORIGIN, [TaskId("t")], 0.0, 1e12)
        states = {entry.key: entry.state async for entry in ledger}

    assert taken is not None
    assert (taken.task_id, taken.other_key) == (None, "proved")
    assert known == {"t": "proved"}
    assert states == {"proved": LedgerState.ENDED, "answered": LedgerState.UNKNOWN}
