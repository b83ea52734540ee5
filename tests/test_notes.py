"""What a caller notes of a submission: kept with it, whatever becomes of the process."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.families import FamilyCase
from support.serving import serving

from piapi_async import Imagine, KeyReused, Ledger, LedgerEntry
from piapi_async.emulator import Drop, Status

pytestmark = pytest.mark.looptime
NOTE = {"channel": 1203344556677889900, "names": ["ä", None], "deep": {"x": 1.5}}


async def test_a_note_is_given_back_by_a_later_process(case: FamilyCase, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    async with serving({"ledger": Ledger(path)}) as (emulator, piapi):
        assert piapi.ledger is not None
        emulator.fail(case.create, Status(429))  # the claim is let go of, and taken again
        await piapi.submit(case.reroll("p"), key="a", note=NOTE)
        await piapi.submit(case.reroll("p"), key="a", note="another")
        await piapi.submit(case.reroll("q"))
        emulator.fail(case.create, Drop(after_body=True))
        with pytest.raises(Exception, match="may have been accepted"):
            await piapi.submit(case.reroll("r"), key="lost", note="of the lost one")
        with pytest.raises(KeyReused, match="another request"):
            await piapi.submit(case.reroll("other"), key="a")

    later = Ledger(path)
    entries: list[LedgerEntry] = await later.pending()
    assert [NOTE, None] == [entry.note for entry in entries]
    assert ["of the lost one"] == [entry.note for entry in await later.unknown()]
    await later.close()


async def test_run_takes_a_note_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.db")
    async with serving({"ledger": ledger}) as (_, piapi):
        await piapi.run(Imagine("a cat"), key="a", note=[1])
        entry = await ledger.find("a")

        assert entry is not None
        assert [1] == entry.note


@pytest.mark.parametrize("note", [datetime.now(UTC), {1: 2}, object(), 2**70, "x" * 20_000])
async def test_what_is_no_small_json_is_refused_before_anything_is_sent(note: Any, tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "l.db")}) as (emulator, piapi):
        with pytest.raises((TypeError, ValueError), match="note: "):
            await piapi.submit(Imagine("a cat"), note=note)

        assert not emulator.engine.tasks


async def test_a_note_needs_a_ledger() -> None:
    async with serving() as (_, piapi):
        assert piapi.ledger is None
        with pytest.raises(ValueError, match="note: it needs a ledger"):
            await piapi.submit(Imagine("a cat"), note=math.pi)
