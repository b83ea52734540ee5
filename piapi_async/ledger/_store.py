"""The ledger's file: SQLite, used by one thread.  The decisions of `ledger` in SQL, all of them sync.

Whether the file is still the one that was opened is `_ledger_place`'s to tell, and who else has it open
`_ledger_owners`'s.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from .._text import shorten
from ..errors import LedgerError
from ..tasks import TaskId, TaskRef
from ._entries import LedgerEntry, LedgerState, SubmissionKey
from ._owners import Owners
from ._place import DisplacedError, Place, check_names
from ._sqlite import make, use_wal

_APPLICATION_ID = 0x70694150  # "piAP", so that another program's database is told apart from a damaged ledger
_VERSION = 1
_BUSY_SECONDS = 20.0
_SMALL = 8 * 1024 * 1024  # bytes of a file that is read through at every opening, which takes some 50 ms
_HEADER = 100  # bytes with which every SQLite file begins (sqlite.org/fileformat.html)
# With row ids, although the key is the primary key: submits are added at the end and settled where they stand, so that
# a commit of many touches few pages.  In the order of the keys each would cost the disk a page of its own, and more; so
# would an index of all task ids, which are random: only those that are still to be ended are in it.  Nor is an index of
# all states needed: only the few that have no task yet are asked for by their state.  An index changes nothing that
# another release reads or writes, so a file of this version that has not got it is given it when it is opened.
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS submits (
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
CREATE INDEX IF NOT EXISTS submits_by_task ON submits (task_id) WHERE state = 'accepted';
CREATE INDEX IF NOT EXISTS submits_open ON submits (state) WHERE state IN ('sending', 'unknown');
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

_INDEXES = 2  # of ours: SQLite's own, of the primary key, has no text
_OPEN = "state IN ('sending', 'unknown')"  # as the index has it, for SQLite to know it again


# By the index of accepted tasks, which costs next to nothing; the ids of those that have ended are not looked for.
_FIND_SAME = """
SELECT key FROM submits
WHERE task_id = :task_id AND state = 'accepted' AND key <> :key AND origin = :origin AND family = :family
"""
_ACCEPT_NEW = """
UPDATE submits SET state = 'accepted', task_id = :task_id, owner = NULL WHERE key = :key AND NOT EXISTS (
    SELECT 1 FROM submits
    WHERE task_id = :task_id AND state = 'accepted' AND key <> :key AND origin = :origin AND family = :family
)
"""


Work = Callable[[sqlite3.Connection], Any]
"""What is done within a transaction, by the ledger's thread."""

FORKED = "open it in the new process only, or start that with multiprocessing's 'spawn' and not with 'fork'."

_HINTS = {
    "full": " Make room; what was committed is safe.",
    "readonly": " Make it, and its directory, writable.",
    "malformed": " It is damaged: keep a copy, and recover what can be with sqlite3's .recover.",
    "not a database": " It is damaged, or no ledger: keep a copy, and use another path.",
    "unable to open": " Is it in a directory that exists, and a file that you may write?",
    "Permission denied": " Is it in a directory that you may enter, and a file that you may write?",
    "locked": " Another process holds it.",
}


@define(eq=False)
class LedgerStore:
    """One owner's hold on the file.  All methods belong to one thread, those that take `file` to a transaction."""

    path: Path
    _file: sqlite3.Connection | None = None
    _place: Place = field(init=False)
    _owners: Owners = field(init=False)
    _mine: dict[str, SubmissionKey] = field(factory=dict)  # the submits that are in our own hands
    _settled: list[SubmissionKey] = field(factory=list)  # those that the present transaction takes out of them
    _pid: int = 0  # of the process that has the file open; 0 while none has
    _dead: set[str] = field(factory=set)  # owners of whom the present transaction leaves nothing

    def __attrs_post_init__(self) -> None:
        self._place = Place(self.path, self.path)
        self._owners = Owners(self.path)

    @property
    def is_open(self) -> bool:
        """Whether the file is open, or being opened or closed, in this process or in the one it was forked from."""
        return self._pid != 0

    def inherits(self, place: Place) -> bool:
        """Tell whether the file at a place was open here when this process was forked from another."""
        return self._pid not in {0, os.getpid()} and self._place.is_at(place)

    @property
    def owner(self) -> str:
        """What we are called in the file."""
        return self._owners.name

    def commit(self, works: list[Work]) -> list[Any]:
        """Do all the works in one commit; give for each its result, or the error it failed with.

        A group that fails is done again one by one: a work that the file cannot take must not cost the others theirs.
        A file that cannot be used at all fails them all at once: waiting for a lock takes long enough as it is.
        """
        try:
            file = self._begin()
        except Exception as error:  # noqa: BLE001 - sqlite3 raises more than its own errors on a damaged file
            failure = self._explain(error)
            return [copy.copy(failure) for _ in works]
        try:
            return self._transaction(file, works)
        except Exception as error:  # noqa: BLE001 - the same
            if len(works) == 1:
                return [self._explain(error)]
        return [self.commit([work])[0] for work in works]

    def _begin(self) -> sqlite3.Connection:
        """Begin a transaction on a file that is still what it was."""
        file = self._open()
        file.execute("BEGIN IMMEDIATE")
        try:
            self._place.check(file, self._owners.is_alone)
            self._owners.stay()
        except BaseException:
            file.execute("ROLLBACK")
            raise
        return file

    def _transaction(self, file: sqlite3.Connection, works: list[Work]) -> list[Any]:
        """Do the works in the transaction that has begun, and end it."""
        results: list[Any] = []
        self._settled.clear()
        self._dead.clear()
        try:
            for work in works:
                try:
                    results.append(work(file))
                except (LedgerError, ValueError) as error:  # raised before anything was written
                    results.append(error)
            self._place.check_name()
            file.execute("COMMIT")
        except BaseException:
            if file.in_transaction:
                file.execute("ROLLBACK")
            raise
        self._place.note_commit()
        for intent in self._settled:
            self.let_go(intent)
        self._remove_dead()
        return results

    def _remove_dead(self) -> None:
        """Remove the locks of those who have died: that their rows are unknown is on the disk."""
        for owner in self._dead:
            with contextlib.suppress(OSError):
                self._owners.path_of(owner).unlink(missing_ok=True)
        self._dead.clear()

    def _explain(self, error: Exception) -> LedgerError:
        # A file that is no longer the one that was opened may fail in any way.
        if self._file is not None and (isinstance(error, DisplacedError) or not self._place.kept):
            return LedgerError(self._place.tell_loss(self._file))
        if isinstance(error, LedgerError):
            return copy.copy(error)  # it may be several people's, and each raises its own
        hint = next((hint for word, hint in _HINTS.items() if word in str(error)), "")
        return LedgerError(f"The ledger {self.path} cannot be used: {error}.{hint}")

    def _open(self) -> sqlite3.Connection:
        if self._file is None:
            place = Place.of(self.path)
            check_names(place.real)
            self._require_or_make(place.real)
            if any(other.inherits(place) for other in list(_OPENED)):
                raise LedgerError(f"The ledger {self.path} was open when this process was forked: {FORKED}")
            self._place, self._owners, self._pid = place, Owners(place.real), os.getpid()
            _OPENED.add(self)
            try:
                self._file = self._connect()
            except BaseException:
                self._pid = 0
                raise
        return self._file

    def _connect(self) -> sqlite3.Connection:
        """Open the file that stands at our place, as one owner more."""
        file = sqlite3.connect(self._place.real, timeout=_BUSY_SECONDS, isolation_level=None)
        file.row_factory = sqlite3.Row
        try:
            self._prepare(file)
            file.execute("BEGIN IMMEDIATE")  # nobody may find our lock before we hold it
            for owner in self._owners.find_dead():
                self._orphan_all(file, owner)
            self._owners.join()
            self._place.settle(file, alone=self._owners.is_alone())
            file.execute("COMMIT")
            self._place.note_commit()
            self._remove_dead()
        except BaseException:
            file.close()
            self._owners.leave(keep_file=False)
            raise
        return file

    def _require_or_make(self, real: Path) -> None:
        """Make the file unless it is there; raise `LedgerError` for one that is hardly there.

        It is made whole or not at all, so an empty file is never one that is just being made, and what was cut off is
        not taken for new.
        """
        if not real.exists():
            make(real, _SCHEMA)
        elif real.is_file() and real.stat().st_size < _HEADER:
            raise LedgerError(
                f"The ledger {self.path} is empty, cut off or not a database: restore it from a copy. If nothing was "
                "ever submitted with it, remove it, and a new one is made"
            )

    def _prepare(self, file: sqlite3.Connection) -> None:
        file.execute("BEGIN")  # one snapshot for all: another process may be making the tables just now
        application, version, filled, indexes, pages, page_size = (
            file.execute(query).fetchone()[0]
            for query in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
                "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
                "PRAGMA page_count",
                "PRAGMA page_size",
            )
        )
        length = self._place.real.stat().st_size
        file.execute("COMMIT")
        if application != _APPLICATION_ID and filled:
            raise LedgerError(f"{self.path} is a database of another program, not a ledger")
        if version > _VERSION:
            raise LedgerError(
                f"The ledger {self.path} was written by a newer piapi_async (its version is {version}, this one reads "
                f"{_VERSION}): upgrade piapi_async. Nothing was changed"
            )
        if length <= _SMALL or length != pages * page_size:
            self._require_whole(file, length)
        use_wal(file)
        file.execute("PRAGMA synchronous = FULL")
        if version < _VERSION or indexes < _INDEXES:
            file.executescript(_SCHEMA)

    def _require_whole(self, file: sqlite3.Connection, length: int) -> None:
        """Raise for a file of which pages are missing: they would read as "no such key", and be paid for again.

        One that is longer than the database needs less looking at: what its pages hold is checked when they are read.
        """
        if length > _SMALL and not Owners(self._place.real).is_alone():
            return  # its log, which grows just now, has the pages that the file has not got yet
        finding = file.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise sqlite3.DatabaseError(f"malformed ({finding})")

    def close(self) -> None:
        """Let go of the file and of the owner's lock."""
        file, self._file = self._file, None
        doubtful = False
        try:
            if file is not None:
                doubtful = not self._leave_nothing(file)
                file.close()
        finally:
            self._owners.leave(keep_file=doubtful)
            self._pid = 0

    def _leave_nothing(self, file: sqlite3.Connection) -> bool:
        """Have nothing of ours that counts as being sent; tell whether that is so."""
        try:
            left = file.execute(
                f"SELECT 1 FROM submits WHERE {_OPEN} AND owner = ? LIMIT 1",  # noqa: S608 - our own words
                (self.owner,),
            ).fetchone()
            if left is not None:
                self._orphan_all(file, self.owner)
        except sqlite3.Error:
            return False  # our lock stays, for others to see that nobody holds it
        return True

    def count(self, file: sqlite3.Connection, run: str, intent: SubmissionKey) -> int:
        """Count how often a run has asked for the same thing, and give the number; forgotten when the file closes."""
        file.execute(
            "CREATE TEMP TABLE IF NOT EXISTS counts (run TEXT, digest BLOB, number INTEGER, PRIMARY KEY (run, digest)) "
            "WITHOUT ROWID"
        )
        row = file.execute(
            "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number",
            (run, intent.digest),
        ).fetchone()
        return int(row[0])

    def find(self, file: sqlite3.Connection, key: str) -> LedgerEntry | None:
        row = file.execute("SELECT * FROM submits WHERE key = ?", (key,)).fetchone()
        return None if row is None else self._as_it_is(file, row)

    def counts(self, file: sqlite3.Connection) -> dict[str, int]:
        """Count the submits by state, those that ended by how they did."""
        self.sweep(file)
        rows = file.execute("SELECT coalesce(outcome, state) AS word, count(*) AS number FROM submits GROUP BY word")
        return {row["word"]: row["number"] for row in rows}

    def claim(self, file: sqlite3.Connection, intent: SubmissionKey) -> LedgerEntry | None:
        """Write the intent down as *sending* and give None, or give what is there already."""
        written = file.execute(
            "INSERT INTO submits (key, state, origin, family, digest, request, owner, at) "
            "VALUES (?, 'sending', ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (intent.key, intent.origin, intent.family, intent.digest, intent.request, self.owner, time.time()),
        )
        if written.rowcount:
            self._mine[intent.key] = intent
            return None
        row = file.execute("SELECT * FROM submits WHERE key = ?", (intent.key,)).fetchone()
        entry = _entry(row)
        if (entry.origin, entry.family) != (intent.origin, intent.family):
            raise LedgerError(
                f"The key {intent.key!r} belongs to {entry.origin} ({entry.family}), not to {intent.origin} "
                f"({intent.family}): use another key, or another ledger"
            )
        if row["digest"] != intent.digest:
            raise ValueError(
                f"key: {intent.key!r} is not allowed; the ledger has it for another request, {shorten(entry.request)}. "
                "Nothing was sent, nothing was paid."
            )
        return self._as_it_is(file, row)

    def accept(self, file: sqlite3.Connection, intent: SubmissionKey, task_id: str) -> str | None:
        """Write down the id that a submit of ours was given, whatever the row has come to meanwhile.

        An id that another submit was given is not written: the submit is then *unknown*, and the other's key returned.
        """
        self._settled.append(intent)
        same = {"task_id": task_id, "key": intent.key, "origin": intent.origin, "family": intent.family}
        if file.execute(_ACCEPT_NEW, same).rowcount:
            return None
        other = file.execute(_FIND_SAME, same)
        if (row := other.fetchone()) is not None:
            self._orphaned(file, intent.key)
            return str(row["key"])
        file.execute(
            "INSERT INTO submits (key, state, origin, family, digest, request, task_id, at) "
            "VALUES (?, 'accepted', ?, ?, ?, ?, ?, ?)",
            (intent.key, intent.origin, intent.family, intent.digest, intent.request, task_id, time.time()),
        )
        return None

    def release(self, file: sqlite3.Connection, intent: SubmissionKey) -> None:
        """Forget a submit of ours that made nothing; one that another caller has claimed is not ours."""
        if self._mine.get(intent.key) is intent:
            self._settled.append(intent)
            file.execute("DELETE FROM submits WHERE key = ? AND state = 'sending'", (intent.key,))

    def doubt(self, file: sqlite3.Connection, intent: SubmissionKey) -> TaskId | None:
        """Write down that nobody knows what became of a submit of ours; give its task if somebody has heard of it."""
        if self._mine.get(intent.key) is not intent:
            return None
        self._settled.append(intent)
        return self._orphaned(file, intent.key).task_id

    def adopt(self, file: sqlite3.Connection, key: str, task_id: str) -> None:
        """Write down the task of a submit that has not heard of it, whoever's it is."""
        file.execute(
            "UPDATE submits SET state = 'accepted', task_id = ?, owner = NULL "
            "WHERE key = ? AND state IN ('sending', 'unknown')",
            (task_id, key),
        )

    def let_go(self, intent: SubmissionKey) -> None:
        """Have a submit no longer in our hands: if the file still says *sending*, that means *unknown*."""
        if self._mine.get(intent.key) is intent:
            del self._mine[intent.key]

    def end(self, file: sqlite3.Connection, ref: TaskRef, outcome: str, answer: bytes) -> None:
        file.execute(
            "UPDATE submits SET state = 'ended', outcome = ?, answer = ? "
            "WHERE task_id = ? AND origin = ? AND family = ? AND state = 'accepted'",
            (outcome, answer, ref.task_id, ref.origin, ref.family),
        )

    def resolve(self, file: sqlite3.Connection, key: str, task_id: str | None) -> None:
        self.sweep(file)
        row = file.execute("SELECT state FROM submits WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise LedgerError(f"The ledger {self.path} has no key {key!r}")
        if row[0] != "unknown":
            raise LedgerError(f"The submit {key!r} is {row[0]}, not unknown: there is nothing to resolve")
        if task_id is None:
            file.execute("DELETE FROM submits WHERE key = ?", (key,))
        else:
            file.execute("UPDATE submits SET state = 'accepted', task_id = ? WHERE key = ?", (task_id, key))

    def entries(self, file: sqlite3.Connection, after: str, limit: int) -> list[LedgerEntry]:
        """Return the next entries in the order of the keys."""
        rows = file.execute("SELECT * FROM submits WHERE key > ? ORDER BY key LIMIT ?", (after, limit))
        return [_entry(row) for row in rows]

    def recorded(self, file: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, LedgerEntry]]:
        """Return the next entries in the order in which they were recorded, each behind its place in that order."""
        rows = file.execute(
            "SELECT rowid AS place, * FROM submits WHERE rowid > ? ORDER BY rowid LIMIT ?", (after, limit)
        )
        return [(row["place"], _entry(row)) for row in rows]

    def places(self, file: sqlite3.Connection, state: LedgerState) -> list[int]:
        """Return the places of all entries of a state, in the order in which they were recorded.

        As many rows are read as there are such entries, but for those that have ended.
        """
        narrow = f"{_OPEN} AND " if state in {LedgerState.SENDING, LedgerState.UNKNOWN} else ""
        # A state that is compared with a text, and not with a parameter, lets SQLite see which index is for it.
        rows = file.execute(f"SELECT rowid FROM submits WHERE {narrow}state = '{state.value}'")  # noqa: S608 - our own word
        return sorted(row[0] for row in rows)

    def at_places(self, file: sqlite3.Connection, state: LedgerState, places: Sequence[int]) -> list[LedgerEntry]:
        """Return the entries at some places, but for those that have come to another state meanwhile."""
        marks = ", ".join("?" * len(places))
        rows = file.execute(
            f"SELECT * FROM submits WHERE rowid IN ({marks}) AND state = ? ORDER BY rowid",  # noqa: S608 - only marks
            (*places, state.value),
        )
        return [_entry(row) for row in rows]

    def open_keys(self, file: sqlite3.Connection) -> list[str]:
        """Return the keys of the submits that have not heard of a task."""
        return [row[0] for row in file.execute(f"SELECT key FROM submits WHERE {_OPEN}")]  # noqa: S608 - our own words

    def sweep(self, file: sqlite3.Connection) -> None:
        """Turn what dead owners left behind into *unknown*."""
        rows = file.execute(f"SELECT key, owner, at FROM submits WHERE {_OPEN} AND state = 'sending'")  # noqa: S608 - our own words
        for row in rows.fetchall():
            if not self._alive(row):
                self._orphaned(file, row["key"])

    def _as_it_is(self, file: sqlite3.Connection, row: sqlite3.Row) -> LedgerEntry:
        """Give an entry, *unknown* if its process was killed while it was sending."""
        if row["state"] == LedgerState.SENDING.value and not self._alive(row):
            return self._orphaned(file, row["key"])
        return _entry(row)

    def _orphaned(self, file: sqlite3.Connection, key: str) -> LedgerEntry:
        file.execute("UPDATE submits SET state = 'unknown', owner = NULL WHERE key = ? AND state = 'sending'", (key,))
        return _entry(file.execute("SELECT * FROM submits WHERE key = ?", (key,)).fetchone())

    def _orphan_all(self, file: sqlite3.Connection, owner: str) -> None:
        """Turn all that an owner has left behind into *unknown*; its lock may go when that is on the disk."""
        file.execute(
            f"UPDATE submits SET state = 'unknown', owner = NULL WHERE {_OPEN} AND state = 'sending' AND owner = ?",  # noqa: S608 - our own words
            (owner,),
        )
        self._dead.add(owner)

    def _alive(self, row: sqlite3.Row) -> bool:
        if row["owner"] == self.owner:
            return row["key"] in self._mine
        return self._owners.alive(row["owner"], row["at"])


# SQLite keeps books on the files that a process has open, of which it has one only; a process that is forked inherits
# them, with locks that it has not.  These are ours on the same.
_OPENED: weakref.WeakSet[LedgerStore] = weakref.WeakSet()


def _entry(row: sqlite3.Row) -> LedgerEntry:
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
    )
