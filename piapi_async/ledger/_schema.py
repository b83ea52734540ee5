"""The tables of a ledger's database, and whether a file that is being opened holds them.

A file is created with its tables, whole or not at all, so an empty file is never one that is being
made, and a file that was cut off is never taken for a new one.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..errors import LedgerError
from ._owners import Owners
from ._sqlite import make, use_wal

_APPLICATION_ID = 0x70694150  # "piAP", which tells a damaged ledger from the database of another program
VERSION = 2

SMALL = 8 * 1024 * 1024
"""Bytes of a database that is read through whenever it is opened, which takes some 50 ms."""

_HEADER = 100  # bytes with which every SQLite file begins (sqlite.org/fileformat.html)

# Why rows have row ids although the key is the primary key: rows are added at the end and updated
# in place, so a commit of many rows touches few pages.  In the order of the keys, each row would
# cost the disk a page of its own.
#
# Why the indexes are partial: task ids are random, so an index of all of them would cost a page per
# row as well; it holds only those still to be ended.  States are asked for only while a row has no
# task yet, which few have.
#
# Why `submits_by_time` holds times and ids: rows are added in the order of their times, so it grows at
# its end, and "which tasks were made since then" is answered from it alone, however many rows have
# ended and however long their answers are.
#
# Why `submits_ended` holds outcomes, of which there are three: it grows at three places, and how many have
# ended is counted in it, not in as many rows with their answers.
#
# Why the CHECK is no IN: SQLite makes a temporary table of a list of more than two words, each time
# that a row is written; that was a sixth of the work.
#
# An index changes nothing that another release reads or writes, so a file of this version without
# them is given them when it is opened.
_TABLES = """
CREATE TABLE IF NOT EXISTS submits (
    key TEXT PRIMARY KEY,
    state TEXT NOT NULL
        CHECK (state = 'sending' OR state = 'accepted' OR state = 'ended' OR state = 'unknown'),
    origin TEXT NOT NULL,
    family TEXT NOT NULL,
    digest BLOB NOT NULL,
    request TEXT NOT NULL,
    owner TEXT,
    task_id TEXT,
    at REAL NOT NULL,       -- when this attempt was recorded: Unix time of this machine
    outcome TEXT,
    answer BLOB,
    attempt INTEGER NOT NULL DEFAULT 1,
    note TEXT,              -- the caller's own JSON
    trace TEXT,             -- an observer's own text, from which a later process goes on
    found TEXT,             -- how the task was found if its response was lost
    body TEXT,              -- as it was sent, long values as digests (NULL: as `request` tells)
    sent_at REAL,           -- when an attempt that was lost began to be sent
    lost_at REAL,           -- when its response was given up
    clock_offset REAL       -- seconds by which the host's clock was ahead then
);
CREATE TABLE IF NOT EXISTS earlier (
    origin TEXT NOT NULL,
    task_id TEXT NOT NULL,
    family TEXT NOT NULL,
    key TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    at REAL NOT NULL,
    outcome TEXT,
    PRIMARY KEY (origin, task_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS durations (
    origin TEXT NOT NULL,
    family TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (origin, family, kind)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS submits_by_task ON submits (task_id) WHERE state = 'accepted';
CREATE INDEX IF NOT EXISTS submits_open ON submits (state) WHERE state IN ('sending', 'unknown');
CREATE INDEX IF NOT EXISTS submits_by_time ON submits (at, task_id);
CREATE INDEX IF NOT EXISTS submits_ended ON submits (outcome) WHERE state = 'ended';
CREATE INDEX IF NOT EXISTS submits_found ON submits (task_id) WHERE found IS NOT NULL;
CREATE INDEX IF NOT EXISTS earlier_by_key ON earlier (key, attempt);
"""

SCHEMA = f"""
BEGIN IMMEDIATE;
{_TABLES}
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""

# Each step makes a file of one version a file of the next; the tables and indexes that are new in it
# are made by `_TABLES` afterwards.  Columns that were added are empty in the rows that were there, so
# no row is touched, and a process of the older release that has the file open can go on.
_STEPS = {
    1: (
        "ALTER TABLE submits ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE submits ADD COLUMN note TEXT",
        "ALTER TABLE submits ADD COLUMN trace TEXT",
        "ALTER TABLE submits ADD COLUMN found TEXT",
        "ALTER TABLE submits ADD COLUMN body TEXT",
        "ALTER TABLE submits ADD COLUMN sent_at REAL",
        "ALTER TABLE submits ADD COLUMN lost_at REAL",
        "ALTER TABLE submits ADD COLUMN clock_offset REAL",
    ),
}
"""The changes of tables that exist, by the version that they start from; a version may need none."""

_INDEXES = 6  # of ours; SQLite's own, of the primary key, has no SQL


def require_or_make(path: Path, real: Path) -> None:
    """Create the database unless there is one; raise `LedgerError` for a file too short to be one.

    `path` is what the user calls it, `real` the file itself.
    """
    if not real.exists():
        make(real, SCHEMA)
    elif real.is_file() and real.stat().st_size < _HEADER:
        raise LedgerError(
            f"The ledger {path} is empty, cut off or not a database: restore it from a copy. If nothing was "
            "ever submitted with it, remove it, and a new one is made"
        )


def prepare(connection: sqlite3.Connection, path: Path, real: Path) -> None:
    """Make a connection that was just opened ready for use.

    Raises `LedgerError` for another program's database and for a newer version,
    `sqlite3.DatabaseError` for a file of which pages are missing.
    """
    # One snapshot for all of these: another process may be creating the tables.
    connection.execute("BEGIN")
    application = _read(connection, "PRAGMA application_id")
    version = _read(connection, "PRAGMA user_version")
    tables = _read(connection, "SELECT count(*) FROM sqlite_master")
    indexes = _read(connection, "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    expected_length = _read(connection, "PRAGMA page_count") * _read(connection, "PRAGMA page_size")
    length = real.stat().st_size
    connection.execute("COMMIT")

    if application != _APPLICATION_ID and tables:
        raise LedgerError(f"{path} is a database of another program, not a ledger")
    if version > VERSION:
        raise LedgerError(
            f"The ledger {path} was written by a newer piapi_async (its version is {version}, this one reads "
            f"{VERSION}): upgrade piapi_async. Nothing was changed"
        )

    if length <= SMALL or length != expected_length:
        _require_whole(connection, real, length)

    use_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    if version < VERSION or indexes < _INDEXES:
        _upgrade(connection)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring the tables to this version, and add the indexes that are missing, whole or not at all."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have done it while this one waited for the file.
        version = _read(connection, "PRAGMA user_version")
        if version > 0:
            _change_tables(connection, version)
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {max(version, VERSION)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _change_tables(connection: sqlite3.Connection, version: int) -> None:
    for older in range(version, VERSION):
        for statement in _STEPS.get(older, ()):
            connection.execute(statement)


def _read(connection: sqlite3.Connection, query: str) -> int:
    value: int = connection.execute(query).fetchone()[0]
    return value


def _require_whole(connection: sqlite3.Connection, real: Path, length: int) -> None:
    """Raise `sqlite3.DatabaseError` if pages are missing: their keys would be paid for again.

    A file longer than its database is not checked further: the content of its pages is checked when
    they are read.
    """
    if length > SMALL and not Owners(real).is_alone():
        return  # another owner's log, which is growing, has the pages that the file does not have yet

    finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if finding != "ok":
        raise sqlite3.DatabaseError(f"malformed ({finding})")
