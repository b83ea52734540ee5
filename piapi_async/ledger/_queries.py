"""The ledger's queries that need no owner: pages of entries, open keys, occurrence numbers.

Each is a function of a connection, run in a transaction of the ledger's thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

import orjson

from ._entries import LedgerEntry, LedgerState, SubmissionKey

if TYPE_CHECKING:
    import sqlite3

OPEN = "state IN ('sending', 'unknown')"
"""The condition for submissions without a task, worded as in the index, so that SQLite recognises it."""

_COUNT_WORDS = f"""
SELECT coalesce(outcome, 'ended') AS word, count(*) AS number FROM submits WHERE state = 'ended' GROUP BY outcome
UNION ALL SELECT 'accepted', count(*) FROM submits WHERE state = 'accepted'
UNION ALL SELECT state, count(*) FROM submits WHERE {OPEN} GROUP BY state
ORDER BY word
"""  # noqa: S608 - our own words
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


def ended_by_place(connection: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, LedgerEntry]]:
    """Return the next entries of which the end was seen, as `entries_by_place` does: most rows are theirs."""
    rows = connection.execute(
        "SELECT rowid AS place, * FROM submits WHERE rowid > ? AND +state = 'ended' ORDER BY rowid LIMIT ?",
        (after, limit),
    )
    return [(row["place"], entry_of(row)) for row in rows]


def places_of(connection: sqlite3.Connection, state: LedgerState) -> array[int]:
    """Return the places of all entries in a state other than *ended*, in the order in which they were recorded.

    Only the rows of that state are read.
    """
    # The state is part of the query, not a parameter: that lets SQLite see which index has it.
    condition = f"state = '{state.value}'"
    if state in {LedgerState.SENDING, LedgerState.UNKNOWN}:
        condition = f"{OPEN} AND {condition}"

    rows = connection.execute(
        f"SELECT rowid FROM submits WHERE {condition} ORDER BY +rowid"  # noqa: S608 - our own words
    )
    return array("q", (row[0] for row in rows))


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


def count_words(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the number of submissions by state, of those that ended by outcome, from the indexes alone."""
    rows = connection.execute(_COUNT_WORDS).fetchall()
    return {row["word"]: row["number"] for row in rows if row["number"]}


def size_of(connection: sqlite3.Connection) -> int:
    """Return the bytes of the database."""
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    bytes_each: int = connection.execute("PRAGMA page_size").fetchone()[0]
    return pages * bytes_each


def ended_well(connection: sqlite3.Connection, origin: str, limit: int) -> list[LedgerEntry]:
    """Return the latest tasks of a host that are done."""
    rows = connection.execute(
        "SELECT * FROM submits WHERE state = 'ended' AND outcome = 'done' AND origin = ? "
        "ORDER BY rowid DESC LIMIT ?",
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
