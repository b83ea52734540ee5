"""Whether the ledger's file is still the one that was opened, and what becomes of its rows when it is not.

A database that is open can be moved, deleted or replaced; SQLite does not notice, and goes on writing into a file
without a name.  So the files are compared with what they were at the moment of each commit: by device and inode, which
a move, a deletion or a replacement changes, and by the time of the last change, which an overwriting changes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from ..errors import LedgerError
from ._sqlite import touch

_Inode = tuple[int, int]


class DisplacedError(Exception):
    """The files are not those that were opened; `Place.tell_loss` says what happened."""


_SMALL = 8 * 1024 * 1024  # bytes of a database that is read through in some 50 ms
_HELD = Path("/proc/self/fd")  # a link to each file that this process has open, where the system has such


@define(eq=False)
class Place:
    """Where one open ledger stands.  `path` is what the user calls it, `real` the file itself, links followed."""

    path: Path
    real: Path
    _files: tuple[str, ...] = field(init=False)  # as texts, for they are looked at with each commit
    _inodes: tuple[_Inode | None, ...] = field(default=(), init=False)
    _written: tuple[int, int] = field(default=(0, 0), init=False)  # when the database itself was, and how long it is
    # It changes whenever another connection commits; None if one may have been about to write its log back, which
    # takes it a moment after its commit.
    _data_version: int | None = field(default=None, init=False)
    _lost: bool = field(default=False, init=False)  # at the last check
    _saved: Path | None = field(default=None, init=False)  # the copy that was made of a ledger that has gone

    def __attrs_post_init__(self) -> None:
        real = os.fspath(self.real)
        self._files = (os.fspath(self.path), f"{real}-wal", f"{real}-shm")

    @classmethod
    def of(cls, path: Path) -> Place:
        """Return the place of a database that is about to be opened."""
        return cls(path, path.resolve())

    def settle(self, connection: sqlite3.Connection, *, alone: bool) -> None:
        """Remember the files as they are now, in a transaction of the connection that has just opened them.

        `alone`: nobody else has them open.
        """
        self._inodes = self._find_inodes()
        self._data_version = _data_version(connection) if alone else None
        self.note_commit()

    def is_at(self, other: Place) -> bool:
        """Tell whether two places are those of one file."""
        return self._inodes[0] == _inode(other.real)

    @property
    def kept(self) -> bool:
        """Whether the path still leads to the files that were opened."""
        return self._find_inodes() == self._inodes

    def note_commit(self) -> None:
        """Remember when the database was written: a commit of ours may have moved the log into it."""
        with contextlib.suppress(OSError):  # the next check tells
            self._written = _written(os.stat(self._files[0]))  # noqa: PTH116 - as in `_inode`

    def check(self, connection: sqlite3.Connection, is_alone: Callable[[], bool]) -> None:
        """Check, at the beginning of a transaction, that the files are those that were opened, and hold what they did.

        Raises `DisplacedError`; and `LedgerError` if another program has written into the database, as `cp` does.
        """
        self.check_names()
        written = _written(os.stat(self._files[0]))  # noqa: PTH116 - as in `_inode`
        if written == self._written:
            return
        if self._lost:  # and put back: the log was brought into it meanwhile
            self._lost, self._saved, self._written = False, None, written
            return
        version = _data_version(connection)
        # Other ledgers write into it too, but none does without a commit of its own, and none makes it shorter (though
        # a person's VACUUM may).
        foreign = version == self._data_version
        thoroughly = written[1] <= _SMALL or written[1] < self._written[1]
        if foreign or not self._reads_as(connection, thoroughly=thoroughly):
            raise LedgerError(
                f"The ledger {self.path} was overwritten by another program while it was in use, and cannot be trusted "
                "any more: end this process, then restore the file from a copy (and remove "
                f"{self.real.name}-wal and {self.real.name}-shm beside it)"
            )
        self._data_version, self._written = version if is_alone() else None, written

    def check_names(self) -> None:
        """Raise `DisplacedError` unless the path still leads to the files that were opened."""
        if not self.kept:
            raise DisplacedError

    def check_name(self) -> None:
        """Raise `DisplacedError` unless the path still leads to the database that was opened."""
        if _inode(self._files[0]) != self._inodes[0]:
            raise DisplacedError

    def _find_inodes(self) -> tuple[_Inode | None, ...]:
        return tuple(map(_inode, self._files))

    def _reads_as(self, connection: sqlite3.Connection, *, thoroughly: bool) -> bool:
        """Tell whether the file, read afresh, holds what our connection sees in it."""
        try:
            with contextlib.closing(sqlite3.connect(self.real, isolation_level=None)) as fresh:
                if _outline(fresh) != _outline(connection):
                    return False
                return not thoroughly or _is_whole(fresh)
        except sqlite3.Error:
            return False

    # -- what has gone ----------------------------------------------------------------------------------------------

    def tell_loss(self, connection: sqlite3.Connection) -> str:
        """Say what happened to the files, having made sure that what they held is in one of them.

        Not within a transaction.
        """
        self._lost = True
        was, now = self._inodes[0], _inode(self._files[0])
        what = "moved or deleted" if now is None else "replaced by another file"
        if now == was:
            what = "deprived of its log (the files -wal and -shm beside it)"
        return (
            f"The ledger {self.path} was {what} while it was in use, so nothing more is recorded. "
            f"{self._secure(connection)}. Then start again"
        )

    def _secure(self, connection: sqlite3.Connection) -> str:
        """Bring the log into the file that we still hold, see that it has a name, and say what that is."""
        whole = _write_log_back(connection)
        name = _name_of(self._inodes[0])
        if whole and name is not None and name == self.real:
            return f"All that was recorded is in {name}"
        if whole and name is not None:
            return f"All that was recorded is in {name}, where it is now: put it back"
        try:
            saved = self._saved or self._save(connection)
        except (OSError, sqlite3.Error) as error:
            return (
                f"What was recorded could not be saved ({error}): process {os.getpid()} still holds the file, so "
                f"before it ends make room or the directory again, or copy the file out of /proc/{os.getpid()}/fd"
            )
        self._saved = saved
        return f"All that was recorded is in {saved}: put that in its place"

    def _save(self, connection: sqlite3.Connection) -> Path:
        """Copy what our connection sees into a new file beside the old one."""
        saved = self.real.with_name(f"{self.real.name}-saved-{secrets.token_hex(4)}")
        touch(saved)
        try:
            with contextlib.closing(sqlite3.connect(saved, isolation_level=None)) as copy:
                connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file, which can be moved as it is
        except BaseException:
            saved.unlink(missing_ok=True)
            raise
        return saved


def check_names(real: Path) -> None:
    """Raise `LedgerError` for a database with a second name: its log stands beside one of them only."""
    try:
        facts = real.stat()
        if not stat.S_ISREG(facts.st_mode):
            return
        if facts.st_nlink > 1:
            _remove_first_names(real, facts)
            facts = real.stat()
    except FileNotFoundError:
        return
    if facts.st_nlink > 1:
        raise LedgerError(
            f"The ledger {real} has {facts.st_nlink} names (hard links): used by two of them it would be damaged. "
            "Nothing was changed; make copies of it, or symbolic links to it, instead"
        )


def _remove_first_names(real: Path, facts: os.stat_result) -> None:
    """Remove the names under which the database was made, where that process was killed before it did."""
    for new in real.parent.glob(f".{real.name}.*.new"):
        if _inode(new) == (facts.st_dev, facts.st_ino):
            new.unlink(missing_ok=True)


def _inode(path: str | Path) -> _Inode | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - Path.stat costs three times as much, and a commit asks often
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def _written(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_mtime_ns, facts.st_size


def _data_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def _outline(connection: sqlite3.Connection) -> tuple[int | None, int]:
    last = connection.execute("SELECT max(rowid) FROM submits").fetchone()[0]
    return last, connection.execute("PRAGMA page_count").fetchone()[0]


def _is_whole(connection: sqlite3.Connection) -> bool:
    finding: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return finding == "ok"


def _write_log_back(connection: sqlite3.Connection) -> bool:
    """Bring the log into the database, so that the file is whole by itself; tell whether that was done."""
    try:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return False
    return not busy


def _name_of(inode: _Inode | None) -> Path | None:
    """Return the present name of a file that this process holds open; None if it has none, or the system keeps none."""
    try:
        held = list(_HELD.iterdir())
    except OSError:
        return None
    for link in held:
        with contextlib.suppress(OSError):
            if _inode(link) == inode and _inode(name := link.readlink()) == inode:
                return name
    return None
