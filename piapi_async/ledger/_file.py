"""One owner's hold on the database's file: opening it, its transactions, making it smaller, closing it.

`_schema` has the tables, `_place` tells whether the file is still the one that was opened, `_owners` who
else has it open.  What is written in a transaction is the store's.
"""

from __future__ import annotations

import contextlib
import copy
import os
import sqlite3
import weakref
from pathlib import Path

from attrs import define, field, frozen

from ..errors import LedgerError
from ._owners import Owners
from ._place import DisplacedError, Place, check_names
from ._queries import OPEN, size_of
from ._schema import prepare, require_or_make

_BUSY_SECONDS = 20.0  # for which a transaction waits for another process's

_UNREADABLE = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""Errors of a transaction that cannot begin: its pages cannot be read, perhaps as the log was cut off."""

FORKED = "open it in the new process only, or start that with multiprocessing's 'spawn' and not with 'fork'."

_MAKE_ALL_UNKNOWN = f"""
UPDATE submits SET state = 'unknown', owner = NULL WHERE {OPEN} AND state = 'sending' AND owner = ?
"""  # noqa: S608 - our own words

_HINTS = {
    "full": " Make room; what was committed is safe.",
    "readonly": " Make it, and its directory, writable.",
    "malformed": " It is damaged: keep a copy, and recover what can be with sqlite3's .recover.",
    "not a database": " It is damaged, or no ledger: keep a copy, and use another path.",
    "unable to open": " Is it in a directory that exists, and a file that you may write?",
    "Permission denied": " Is it in a directory that you may enter, and a file that you may write?",
    "locked": " Another process holds it.",
}
"""What to do about an error, by a word of SQLite's or the system's message."""


@frozen
class Shrinking:
    """What came of making a file smaller: its bytes now, and why they are no fewer ("" if that was done)."""

    size: int
    obstacle: str = ""


@define(eq=False)
class LedgerFile:
    """A database, open or not; all of it is one thread's."""

    path: Path
    _connection: sqlite3.Connection | None = None
    _place: Place = field(init=False)
    _owners: Owners = field(init=False)
    _pid: int = 0  # of the process that has the file open; 0 while none has
    _changes: int = 0  # of the connection, when the present transaction began
    _dead_owners: set[str] = field(factory=set)  # of whom the present transaction leaves nothing

    def __attrs_post_init__(self) -> None:
        self._place = Place(self.path, self.path)
        self._owners = Owners(self.path)

    @property
    def is_open(self) -> bool:
        """Whether the file is open, here or in the process that this one was forked from."""
        return self._pid != 0

    def was_inherited(self, place: Place) -> bool:
        """Return whether the file at a place was open here when this process was forked from another."""
        return self._pid not in {0, os.getpid()} and self._place.is_at(place)

    @property
    def owner(self) -> str:
        """The name of this owner in the database."""
        return self._owners.name

    def is_alive(self, owner: str, at: float) -> bool:
        """Return whether an owner may still be sending what it claimed at `at`, in Unix seconds."""
        return self._owners.alive(owner, at)

    # -- transactions -----------------------------------------------------------------------------

    def begin(self) -> sqlite3.Connection:
        """Begin a transaction, provided the file is still the one that was opened."""
        connection = self._open()
        self._dead_owners.clear()
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _UNREADABLE:
                self._place.check_log(connection)
            raise
        try:
            self._place.check(connection, self._owners.is_alone)
            self._owners.stay()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._changes = connection.total_changes
        return connection

    def commit(self, connection: sqlite3.Connection) -> None:
        """Commit the transaction, provided the file still has its name."""
        self._place.check_name()
        connection.execute("COMMIT")
        if connection.total_changes != self._changes:  # what was only read has left the files as they are
            self._place.note_commit()
        self._remove_dead_owners()

    def roll_back(self, connection: sqlite3.Connection) -> None:
        """Give the transaction up, if it has not ended."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._place.note_log()

    def shrink(self) -> Shrinking:
        """Write the database anew without the pages that hold nothing, whole or not at all, and close it.

        It takes seconds for a large one, during which another process that has it open could record
        nothing: then it is left as it is.
        """
        connection = self.begin()
        is_alone = self._owners.is_alone()
        self.roll_back(connection)
        if not is_alone:
            return Shrinking(size_of(connection), "another process has it open")

        obstacle = ""
        try:
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:  # the disk is full, or another process was faster
            obstacle = str(error)
        size = size_of(connection)
        self.close()  # which writes the log back; how the file looks now is learnt when it is opened again
        return Shrinking(size, obstacle)

    def _remove_dead_owners(self) -> None:
        """Remove the locks of dead owners, now that their rows are unknown on the disk."""
        for owner in self._dead_owners:
            with contextlib.suppress(OSError):
                self._owners.path_of(owner).unlink(missing_ok=True)
        self._dead_owners.clear()

    def explain(self, error: Exception) -> LedgerError:
        """Return what failed, as users are told of it."""
        # A file that is no longer the one that was opened may fail in any way.
        is_displaced = isinstance(error, DisplacedError) or not self._place.kept
        if self._connection is not None and is_displaced:
            return LedgerError(self._place.tell_loss(self._connection))

        if isinstance(error, LedgerError):
            return copy.copy(error)  # several callers may get it, and each raises its own

        hint = next((hint for word, hint in _HINTS.items() if word in str(error)), "")
        return LedgerError(f"The ledger {self.path} cannot be used: {error}.{hint}")

    # -- opening and closing ----------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection

        place = Place.of(self.path)
        check_names(place.real)
        require_or_make(self.path, place.real)
        if any(other.was_inherited(place) for other in list(_OPENED)):
            raise LedgerError(f"The ledger {self.path} was open when this process was forked: {FORKED}")

        self._place = place
        self._owners = Owners(place.real)
        self._pid = os.getpid()
        _OPENED.add(self)
        try:
            self._connection = self._connect()
        except BaseException:
            self._pid = 0
            raise
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        """Open the file at our place, and become one of its owners."""
        connection = sqlite3.connect(self._place.real, timeout=_BUSY_SECONDS, isolation_level=None)
        connection.row_factory = sqlite3.Row
        try:
            prepare(connection, self.path, self._place.real)

            connection.execute("BEGIN IMMEDIATE")  # so that nobody finds our lock before we hold it
            for owner in self._owners.find_dead():
                self._make_all_unknown(connection, owner)
            self._owners.join()
            self._place.settle(connection, alone=self._owners.is_alone())
            connection.execute("COMMIT")

            self._place.note_commit()
            self._remove_dead_owners()
        except BaseException:
            connection.close()
            self._owners.leave(keep_file=False)
            raise
        return connection

    def close(self) -> None:
        """Close the file and release the owner's lock."""
        connection, self._connection = self._connection, None
        rows_left = False
        try:
            if connection is not None:
                rows_left = not self._leave_nothing(connection)
                connection.close()
        finally:
            self._owners.leave(keep_file=rows_left)
            self._pid = 0

    def _leave_nothing(self, connection: sqlite3.Connection) -> bool:
        """Make unknown what this owner has left as *sending*; return whether that was possible."""
        query = f"SELECT 1 FROM submits WHERE {OPEN} AND owner = ? LIMIT 1"  # noqa: S608 - our own words
        try:
            left = connection.execute(query, (self.owner,)).fetchone()
            if left is not None:
                self._make_all_unknown(connection, self.owner)
        except sqlite3.Error:
            return False  # the file of our lock stays, and shows the others that nobody holds it
        return True

    def _make_all_unknown(self, connection: sqlite3.Connection, owner: str) -> None:
        """Make *unknown* all that an owner has left; its lock may be removed once that is on the disk."""
        connection.execute(_MAKE_ALL_UNKNOWN, (owner,))
        self._dead_owners.add(owner)


# SQLite keeps a table of the files that a process has open, and has one per process.  A process that
# is forked inherits it, with locks that it does not have; so we remember which files have been
# open here.
_OPENED: weakref.WeakSet[LedgerFile] = weakref.WeakSet()
