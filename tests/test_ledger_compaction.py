"""A ledger is made smaller: what keeps its keys from being paid for twice stays."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.ledgers import ORIGIN, accept, identity, opened, ref

from piapi_async import KeyReused, Ledger, LedgerError, PiAPI
from piapi_async.cli import cli
from piapi_async.ledger import LedgerEntry, compact
from piapi_async.ledger._entries import EndedAttempt, Kept, SubmissionKey
from piapi_async.ledger._ledger import writer_of

LONG = "a cat, " * 400
SOON = timedelta(seconds=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def soon() -> datetime:
    return datetime.now(UTC) + SOON


async def end(ledger: Ledger, mine: SubmissionKey, outcome: str = "done", note: str | None = None) -> None:
    writer = writer_of(ledger)
    assert await writer.claim(mine, kept=Kept(note=note)) is None
    await writer.accept(mine, ref(f"task of {mine.key}"))
    writer.end(ref(f"task of {mine.key}"), outcome, {"task_id": "t", "output": "x" * 3_000})
    await writer.flush()


async def end_many(ledger: Ledger, count: int = 600) -> None:
    """Have more ended submissions than one page takes."""
    store = writer_of(ledger).store

    def record(connection: object) -> None:
        for number in range(count):
            mine = identity(f"many {number:04}", LONG)
            store.claim(connection, mine)  # type: ignore[arg-type]
            store.accept(connection, mine, f"t{number}")  # type: ignore[arg-type]
            store.end(connection, ref(f"t{number}"), "done", b"{}" * 1_000)  # type: ignore[arg-type]

    await writer_of(ledger).run(record)


async def entry_of(ledger: Ledger, key: str) -> LedgerEntry:
    entry = await ledger.find(key)
    assert entry is not None
    return entry


async def test_a_compacted_key_keeps_its_task_and_is_refused_for_another_request(path: Path) -> None:
    mine = identity("k", LONG)
    async with opened(path) as ledger:
        await end(ledger, mine, note='{"channel":42}')
        await end_many(ledger)
        before = await entry_of(ledger, "k")
        report = await compact(ledger, soon())

        after = await entry_of(ledger, "k")
        assert (601, "") == (report.entries, report.obstacle)
        assert report.bytes_after < report.bytes_before / 4
        assert report.bytes_after == path.stat().st_size

        assert ("/mj/v2/imagine", b"") == (after.request, after.answer)
        kept = ("state", "origin", "family", "task_id", "at", "outcome", "note", "attempt")
        assert [getattr(before, name) for name in kept] == [getattr(after, name) for name in kept]
        assert {"channel": 42} == after.note

        assert after == await writer_of(ledger).claim(mine)
        with pytest.raises(KeyReused, match="/mj/v2/imagine"):
            await writer_of(ledger).claim(identity("k", "a dog"))
        assert {"done": 601} == await ledger.counts()

        again = await compact(ledger, soon())
        assert (0, again.bytes_before) == (again.entries, again.bytes_after)


async def test_what_is_open_unknown_found_or_young_stays_whole(path: Path) -> None:
    async with opened(path) as ledger, opened(path) as other:
        writer = writer_of(ledger)
        await accept(ledger, "accepted")
        await writer_of(other).claim(identity("sending"))
        lost = identity("unknown")
        await writer.claim(lost)
        await writer.mark_unknown(lost)
        await writer.claim(identity("found"))
        await writer.attach_task("found", "t found")
        writer.end(ref("t found"), "done", {})
        await end(ledger, identity("ended"))
        whole = [entry async for entry in ledger.entries()]

        assert 0 == (await compact(ledger, datetime.now(UTC) - SOON)).entries
        assert whole == [entry async for entry in ledger.entries()]

        assert 1 == (await compact(ledger, soon())).entries
        changed = {entry.key for entry in whole if entry != await ledger.find(entry.key)}
        assert {"ended"} == changed


async def test_a_new_attempt_of_a_compacted_key_can_be_looked_for_as_any_other(path: Path) -> None:
    mine = identity("k")
    async with opened(path) as ledger:
        await end(ledger, mine, outcome="failed")
        await compact(ledger, soon())
        ended = EndedAttempt(1, (await entry_of(ledger, "k")).task_id or "", "failed")  # type: ignore[arg-type]

        assert await writer_of(ledger).claim(mine, replaces=ended) is None
        (row,) = await writer_of(ledger).open_rows(ORIGIN, mine.family)
        assert (mine.request, 2) == (row.request, row.attempt)


async def test_a_file_that_others_have_open_is_compacted_and_made_smaller_later(path: Path) -> None:
    async with opened(path) as ledger, opened(path) as other:
        await end_many(ledger)
        await accept(other, "other")
        report = await compact(ledger, soon())

        assert (600, "another process has it open") == (report.entries, report.obstacle)
        assert report.bytes_before == report.bytes_after

        await other.close()
        assert "" == (await compact(ledger, soon())).obstacle
        assert ["other"] == [entry.key for entry in await other.pending()]
        await accept(other, "later")
        assert await ledger.find("later") is not None


async def test_a_client_that_uses_it_is_not_kept_waiting(path: Path) -> None:
    ledger = Ledger(path)
    async with PiAPI("a-key", base_url="http://localhost:1", ledger=ledger):
        await end_many(ledger)
        report = await compact(ledger, soon())

    assert (600, "a client uses it") == (report.entries, report.obstacle)


async def test_a_file_that_cannot_be_written_anew_is_as_it_was(path: Path) -> None:
    async with opened(path) as ledger:
        await end_many(ledger)
        await writer_of(ledger).run(lambda file: file.set_progress_handler(lambda: 1, 3_000))
        shrinking = await writer_of(ledger).shrink()

        assert "interrupted" == shrinking.obstacle
        assert {"done": 600} == await ledger.counts()


async def test_a_file_that_was_moved_is_not_written_anew(path: Path) -> None:
    async with opened(path) as ledger:
        await accept(ledger, "k")
        path.rename(path.with_name("moved.db"))
        with pytest.raises(LedgerError, match="moved or deleted"):
            await writer_of(ledger).shrink()


async def test_a_time_without_a_zone_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        await compact(Ledger(path), datetime(2026, 7, 31))  # noqa: DTZ001 - that is the point


async def fill(path: Path) -> None:
    async with opened(path) as ledger:
        await end_many(ledger)


def test_the_command_says_what_was_saved(path: Path) -> None:
    asyncio.run(fill(path))
    young = CliRunner().invoke(cli, ["ledger", "compact", str(path)])
    all_of_it = CliRunner().invoke(cli, ["ledger", "compact", "--older-than", "0", str(path)])
    shown = CliRunner().invoke(cli, ["ledger", "show", "--state", "ended", str(path)])

    assert (0, 0) == (young.exit_code, json.loads(young.stdout)["entries"])
    found = json.loads(all_of_it.stdout)
    assert 600 == found["entries"]
    assert found["bytes_after"] < found["bytes_before"]
    assert "600 entries compacted; the file had" in all_of_it.stderr
    assert 600 == len(shown.stdout.splitlines())
    assert "/mj/v2/imagine" == json.loads(shown.stdout.splitlines()[0])["request"]
