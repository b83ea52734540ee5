"""The ledger's queries that need no owner: pages of entries, open keys, occurrence numbers.

Each is a function of a connection, run in a transaction of the ledger's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import orjson

from ._entries import LedgerEntry, LedgerState, SubmissionKey

OPEN = "state IN ('sending', 'unknown')"
"""The condition for submissions without a task, worded as in the index, so that SQLite recognises it."""

_CREATE_COUNTS = """
CREATE TEMP TABLE IF NOT EXISTS counts (
    run TEXT,
    digest BLOB,
    number INTEGER,
    PRIMARY KEY (run, digest)
) WITHOUT ROWID
"""
_COUNT = """
INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number
"""


def entries_by_key(connection: sqlite3.Connection, after: str, limit: int) -> list[LedgerEntry]:
    """Return the next entries in the order of their keys."""
    rows = connection.execute("SELECT * FROM submits WHERE key > ? ORDER BY key LIMIT ?", (after, limit))
    return [entry_of(row) for row in rows]


def entries_by_place(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, LedgerEntry]]:
    """Return the next entries in the order in which they were recorded, each with its place in that order."""
    rows = connection.execute(
        "SELECT rowid AS place, * FROM submits WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit)
    )
    return [(row["place"], entry_of(row)) for row in rows]


def places_of(connection: sqlite3.Connection, state: LedgerState) -> list[int]:
    """Return the places of all entries in a state, in the order in which they were recorded.

    Only the rows of that state are read, unless it is *ended*.
    """
    # The state is part of the query, not a parameter: that lets SQLite see which index has it.
    condition = f"state = '{state.value}'"
    if state in {LedgerState.SENDING, LedgerState.UNKNOWN}:
        condition = f"{OPEN} AND {condition}"

    rows = connection.execute(f"SELECT rowid FROM submits WHERE {condition}")  # noqa: S608 - our own words
    return sorted(row[0] for row in rows)


def entries_at(
    connection: sqlite3.Connection,
    state: LedgerState,
    places: Sequence[int],
) -> list[LedgerEntry]:
    """Return the entries at some places, without those that are no longer in that state."""
    marks = ", ".join("?" * len(places))
    where = f"rowid IN ({marks}) AND state = ?"

    rows = connection.execute(
        f"SELECT * FROM submits WHERE {where} ORDER BY rowid",  # noqa: S608 - our own words
        (*places, state.value),
    )
    return [entry_of(row) for row in rows]


def open_keys(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return the keys of the submissions without a task, each with the number of its attempt."""
    rows = connection.execute(f"SELECT key, attempt FROM submits WHERE {OPEN}")  # noqa: S608 - our own words
    return [(row["key"], row["attempt"]) for row in rows]


def ended_well(connection: sqlite3.Connection, origin: str, limit: int) -> list[LedgerEntry]:
    """Return the latest tasks of a host that are done."""
    rows = connection.execute(
        "SELECT * FROM submits WHERE outcome = 'done' AND origin = ? ORDER BY rowid DESC LIMIT ?",
        (origin, limit),
    )
    return [entry_of(row) for row in rows]


def occurrence_numbers(
    connection: sqlite3.Connection,
    run: str,
    identities: Sequence[SubmissionKey],
) -> list[int]:
    """Count requests of a run; return for each how often the run has asked for it by now.

    The numbers are forgotten when the file is closed.
    """
    connection.execute(_CREATE_COUNTS)
    return [connection.execute(_COUNT, (run, identity.digest)).fetchone()[0] for identity in identities]


def entry_of(row: sqlite3.Row) -> LedgerEntry:
    """Return a row as an entry."""
    return LedgerEntry(
        key=row["key"],
        state=LedgerState(row["state"]),
        origin=row["origin"],
        family=row["family"],
        request=row["request"],
        task_id=row["task_id"],
        at=row["at"],
        outcome=row["outcome"] or "",
        answer=row["answer"] or b"",
        found=row["found"] or "",
        note=_note_of(row["note"]),
        attempt=row["attempt"],
        trace=row["trace"],
    )


def _note_of(text: str | None) -> object:
    if text is None:
        return None
    return orjson.loads(text)
