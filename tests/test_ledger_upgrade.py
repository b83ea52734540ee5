"""Ledgers that an older release wrote: opened, upgraded in place, and not paid for again.

The tables below are those of the first version, written down from it; they are never to be adapted.
"""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from pathlib import Path

import pytest
from support.processes import started

from piapi_async import Ledger, LedgerError, Reroll
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._schema import SCHEMA, VERSION
from piapi_async.tasks import TaskId, TaskRef

FIRST_VERSION = """
CREATE TABLE submits (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('sending', 'accepted', 'ended', 'unknown')),
    origin TEXT NOT NULL,
    family TEXT NOT NULL,
    digest BLOB NOT NULL,
    request TEXT NOT NULL,
    owner TEXT,
    task_id TEXT,
    at REAL NOT NULL,
    outcome TEXT,
    answer BLOB
);
CREATE INDEX submits_by_task ON submits (task_id) WHERE state = 'accepted';
CREATE INDEX submits_open ON submits (state) WHERE state IN ('sending', 'unknown');
PRAGMA application_id = 1885946192;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""

HOST = "https://host.test"
PARENT = "6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d"

INSERT = """
INSERT INTO submits (key, state, origin, family, digest, request, task_id, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""


def identity_of(key: str) -> SubmissionKey:
    return SubmissionKey.of(Reroll(PARENT).to_http(), key=key, origin=HOST, family="legacy")


def row_of(key: str, state: str, task_id: str | None) -> tuple[object, ...]:
    known = identity_of(key)
    return key, state, HOST, "legacy", known.digest, known.request, task_id, 1_800_000_000.0


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "old.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as file:
        file.executescript(FIRST_VERSION)
        file.execute(INSERT, row_of("done", "accepted", "t-1"))
        file.execute(INSERT, row_of("lost", "unknown", None))
        file.execute(INSERT, row_of("half way", "sending", None))
    return path


def tables_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    with contextlib.closing(sqlite3.connect(path)) as file:
        names = [name for (name,) in file.execute("SELECT name FROM sqlite_master ORDER BY name")]
        # The place of a column in its table, its name, type, whether it may be NULL, its default.
        return {
            name: [tuple(row[:5]) for row in file.execute(f"PRAGMA table_info({name})")] for name in names
        }


async def test_an_old_ledger_is_upgraded_and_its_keys_stand_for_what_they_stood_for(old_file: Path) -> None:
    ledger = Ledger(old_file)
    writer = writer_of(ledger)
    try:
        known = await writer.claim(identity_of("done"))
        assert known is not None
        assert "t-1" == known.task_id
        assert ["half way", "lost"] == sorted(entry.key for entry in await ledger.unknown())

        new = identity_of("new")
        assert await writer.claim(new) is None
        await writer.accept(new, TaskRef(HOST, "legacy", TaskId("t-2")))
        assert ["done", "new"] == sorted(entry.key for entry in await ledger.pending())
    finally:
        await ledger.close()


async def test_an_upgraded_ledger_has_the_tables_of_a_new_one(old_file: Path, tmp_path: Path) -> None:
    ledger = Ledger(old_file)
    await ledger.counts()
    await ledger.close()
    new = tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as file:
        file.executescript(SCHEMA)

    assert tables_of(new) == tables_of(old_file)
    with contextlib.closing(sqlite3.connect(old_file)) as file:
        assert (VERSION,) == file.execute("PRAGMA user_version").fetchone()


async def test_a_process_of_the_older_release_goes_on_in_a_file_that_was_upgraded(old_file: Path) -> None:
    with contextlib.closing(sqlite3.connect(old_file, isolation_level=None)) as older:
        older.execute("SELECT count(*) FROM submits").fetchone()
        ledger = Ledger(old_file)
        await ledger.counts()

        older.execute(INSERT, row_of("by the older", "accepted", "t-3"))
        found = await ledger.find("by the older")
        await ledger.close()

    assert found is not None
    assert "t-3" == found.task_id


async def test_an_upgrade_that_cannot_be_written_changes_nothing(old_file: Path) -> None:
    with contextlib.closing(sqlite3.connect(old_file, isolation_level=None)) as file:
        file.execute("CREATE TABLE submits_by_time (strange TEXT)")
        before = tables_of(old_file)

    ledger = Ledger(old_file)
    with pytest.raises(LedgerError):
        await ledger.counts()
    await ledger.close()

    assert before == tables_of(old_file)


_OPEN = "import asyncio, sys; from piapi_async import Ledger; asyncio.run(Ledger(sys.argv[1]).counts())"


def test_processes_that_open_an_old_ledger_at_once_upgrade_it_once(old_file: Path) -> None:
    command = (sys.executable, "-c", _OPEN, str(old_file))
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(*command)) for _ in range(3)]
        codes = [process.finish() for process in processes]

    assert [(0, "")] * 3 == [(code, process.said) for code, process in zip(codes, processes, strict=True)]
    with contextlib.closing(sqlite3.connect(old_file)) as file:
        assert (VERSION,) == file.execute("PRAGMA user_version").fetchone()
