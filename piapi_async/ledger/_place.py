"""Whether the ledger's file is still the one that was opened, and what becomes of its rows if it is not.

An open database can be moved, deleted or replaced; SQLite does not notice, and keeps writing to a
file without a name.  So at each commit the files are compared with what they were: by device and
inode, which change if a file is moved, deleted or replaced, and by the time of the last change,
which changes if it is overwritten.  The log beside it is compared by what SQLite itself never does
to one that has commits in it: see `_Log`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sqlite3
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from ..errors import LedgerError
from ._sqlite import touch

_Inode = tuple[int, int]


class DisplacedError(Exception):
    """The files are not those that were opened; `Place.tell_loss` says what happened."""


_SMALL = 8 * 1024 * 1024  # bytes of a database that is read through in some 50 ms
_LOG_HEADER = 32  # bytes with which every log begins (sqlite.org/fileformat.html, section 4.1)
_LOG_MAGICS = {0x377F0682: "<", 0x377F0683: ">"}  # and the byte order of the checksums
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0)  # the latter on Windows
_OPEN_FILES = Path("/proc/self/fd")
"""Links to the files that this process has open, on systems that have them."""


@define(eq=False)
class _Log:
    """What a log's file looks like: its header, with the salts, and its size.

    SQLite appends to a log, and begins a new one once all of it is in the database: with a new
    header, after it may have cut the file off to nothing.  While the index of the log is open
    (-shm), SQLite reads the frames only, and would add commits to a log with a damaged header, which
    it ignores as a whole when it is opened again.
    """

    header: bytes
    size: int

    @classmethod
    def at(cls, path: str) -> _Log:
        """Read a log; one that is missing is empty.

        Closing the file releases no locks of SQLite's: it has none on the log.
        """
        try:
            file = os.open(path, _READ_ONLY)
        except OSError:
            return cls(b"", 0)
        try:
            return cls(os.read(file, _LOG_HEADER), os.fstat(file).st_size)
        finally:
            os.close(file)

    @property
    def is_whole(self) -> bool:
        """Whether the header is one that SQLite has written."""
        return _is_log_header(self.header)

    def continues(self, earlier: _Log) -> bool:
        """Return whether this may be an earlier log to which commits were added."""
        return self.header == earlier.header and self.size >= earlier.size


@define(eq=False)
class Place:
    """Where one open ledger is.

    `path` is what the user calls it, `real` the file itself, links followed.
    """

    path: Path
    real: Path
    _files: tuple[str, ...] = field(init=False)  # str, for they are read at each commit
    _inodes: tuple[_Inode | None, ...] = field(default=(), init=False)
    _written: tuple[int, int] = field(default=(0, 0), init=False)  # time and size of the last change
    # Changes whenever another connection commits; None if one may have been about to write its log
    # back, which it does a moment after its commit.
    _data_version: int | None = field(default=None, init=False)
    _log: _Log = field(factory=lambda: _Log(b"", 0), init=False)  # after the last commit
    _full_log: int = field(default=0, init=False)  # bytes of one that a commit moves into the database
    _changes: int = field(default=0, init=False)  # of the connection, when it was opened
    _log_is_damaged: bool = field(default=False, init=False)  # for good: it must be opened again
    _damage: str = field(default="", init=False)  # what was said of it
    _lost: bool = field(default=False, init=False)  # at the last check
    _saved: Path | None = field(default=None, init=False)  # the copy that was made of a lost ledger

    def __attrs_post_init__(self) -> None:
        real = os.fspath(self.real)
        self._files = (os.fspath(self.path), f"{real}-wal", f"{real}-shm")

    @classmethod
    def of(cls, path: Path) -> Place:
        """Return the place of a database that is about to be opened."""
        return cls(path, path.resolve())

    def settle(self, connection: sqlite3.Connection, *, alone: bool) -> None:
        """Remember the files as they are now, in a transaction of the connection that has just opened them.

        `alone`: no other owner has them open.
        """
        self._inodes = self._find_inodes()
        self._data_version = None
        if alone:
            self._data_version = _data_version(connection)
        self._log = _Log.at(self._files[1])
        self._full_log = _full_log(connection)
        self._changes = connection.total_changes
        with contextlib.suppress(OSError):  # the next check tells
            self._written = _written(os.stat(self._files[0]))  # noqa: PTH116 - as in `_inode`

    def is_at(self, other: Place) -> bool:
        """Return whether two places are those of one file."""
        return self._inodes[0] == _inode(other.real)

    @property
    def kept(self) -> bool:
        """Whether the path still leads to the files that were opened."""
        return self._find_inodes() == self._inodes

    def note_commit(self) -> None:
        """Remember when the database was written, if our commit may have moved the log into it.

        With a log that is not full, whatever has written to it meanwhile was another: the next check tells.
        """
        self.note_log()
        if self._log.size < self._full_log:
            return
        with contextlib.suppress(OSError):  # the next check tells
            self._written = _written(os.stat(self._files[0]))  # noqa: PTH116 - as in `_inode`

    def note_log(self) -> None:
        """Remember the log after a transaction of ours, even one that failed: it may have begun a new log.

        A log that may have been damaged since is left for the next check to tell.
        """
        log = _Log.at(self._files[1])
        if log.continues(self._log) or (log.header != self._log.header and log.is_whole):
            self._log = log

    def check(self, connection: sqlite3.Connection, is_alone: Callable[[], bool]) -> None:
        """Check, at the beginning of a transaction, that the files are still those that were opened.

        Raises `DisplacedError`, also if another program has written to the log, or `LedgerError` if one
        has written to the database, as `cp` does.
        """
        self.check_names()
        self.check_log(connection)

        written = _written(os.stat(self._files[0]))  # noqa: PTH116 - as in `_inode`
        if written == self._written:
            return
        if self._lost:  # and put back: the log was written to it meanwhile
            self._lost = False
            self._saved = None
            self._written = written
            self._log = _Log.at(self._files[1])
            return

        # Other ledgers write to it too, but never without a commit, and they never make it shorter
        # (though a person's VACUUM may).
        version = _data_version(connection)
        is_foreign = version == self._data_version
        size, last_size = written[1], self._written[1]
        thoroughly = size <= _SMALL or size < last_size
        if is_foreign or not self._reads_as(connection, thoroughly=thoroughly):
            raise LedgerError(
                f"The ledger {self.path} was overwritten by another program while it was in use, and cannot "
                "be trusted any more: end this process, then restore the file from a copy (and remove "
                f"{self.real.name}-wal and {self.real.name}-shm beside it)"
            )

        self._data_version = None
        if is_alone():
            self._data_version = version
        self._written = written

    def check_log(self, connection: sqlite3.Connection) -> None:
        """Raise `DisplacedError` if the log has become what SQLite cannot have made of it."""
        if self._lost:  # the log was written back by `tell_loss`
            return
        log = _Log.at(self._files[1])
        if self._log_is_damaged or not self._is_sound(log, connection):
            self._log_is_damaged = True
            raise DisplacedError
        self._log = log

    def _is_sound(self, log: _Log, connection: sqlite3.Connection) -> bool:
        if log.continues(self._log):
            # What was no log when the database was opened becomes one with the first commit.
            is_untouched = connection.total_changes == self._changes
            return is_untouched or not log.size or log.is_whole
        if not log.size:
            return self._log_is_empty()
        if not log.is_whole:
            return False
        return self._reads_as(connection, thoroughly=self._written[1] <= _SMALL)  # a new log

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
        """Return whether the file, opened anew, has what our connection sees in it."""
        try:
            with contextlib.closing(sqlite3.connect(self.real, isolation_level=None)) as fresh:
                if _outline(fresh) != _outline(connection):
                    return False
                return not thoroughly or _is_whole(fresh)
        except sqlite3.Error:
            return False

    def _log_is_empty(self) -> bool:
        """Return whether SQLite, too, believes that a log of no bytes has no commits in it.

        Its index knows.  A checkpoint tells, and has nothing to do; if there should be something to
        do it fails at the first frame, before it writes anything.
        """
        try:
            with contextlib.closing(sqlite3.connect(self.real, isolation_level=None)) as fresh:
                _outline(fresh)  # before which the log would not be looked at
                is_busy, frames, _ = fresh.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                # Busy: another process does the same at this moment.  Reading all pages tells as well,
                # for those that should be in the log cannot be read.
                return frames == 0 or (bool(is_busy) and _is_whole(fresh))
        except sqlite3.Error:
            return False

    # -- a lost file ------------------------------------------------------------------------------

    def tell_loss(self, connection: sqlite3.Connection) -> str:
        """Return what happened to the files, having made sure that their rows are in one of them.

        Must not be called in a transaction.
        """
        if self._log_is_damaged:
            self._damage = self._damage or self._tell_damage(connection)
            return self._damage

        self._lost = True
        was, now = self._inodes[0], _inode(self._files[0])
        what = "replaced by another file"
        if now is None:
            what = "moved or deleted"
        elif now == was:
            what = "deprived of its log (the files -wal and -shm beside it)"

        return (
            f"The ledger {self.path} was {what} while it was in use, so nothing more is recorded. "
            f"{self._secure(connection)}. Then start again"
        )

    def _tell_damage(self, connection: sqlite3.Connection) -> str:
        what = (
            f"The log of the ledger {self.path} ({self.real.name}-wal) was overwritten or cut off "
            "by another program while it was in use, so nothing more is recorded"
        )
        # The copy comes first, for what our connection sees may be damaged, too.
        saved = self._save_whole(connection)
        if saved is None:
            return (
                f"{what}. What was recorded last may be missing in it, and its keys would be paid "
                "again: end this process, restore the ledger from a copy (and remove "
                f"{self.real.name}-wal and {self.real.name}-shm beside it), and compare it with "
                "the account's history before you submit again"
            )
        if _write_anew(connection) and self._reads_as(connection, thoroughly=True):
            saved.unlink(missing_ok=True)
            return f"{what}. All that was recorded is in {self.real}. Then start again"
        return (
            f"{what}. All that was recorded is in {saved}: end this process, put that in its "
            f"place, and remove {self.real.name}-wal and {self.real.name}-shm beside it. Then "
            "start again"
        )

    def _save_whole(self, connection: sqlite3.Connection) -> Path | None:
        """Copy what our connection sees; return None if that is not whole."""
        try:
            saved = self._save(connection)
        except (OSError, sqlite3.Error):
            return None
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(saved)) as copy:
            if _is_whole(copy):
                return saved
        saved.unlink(missing_ok=True)
        return None

    def _secure(self, connection: sqlite3.Connection) -> str:
        """Write the log back to the file that we still hold, give that a name, and say which."""
        is_whole = _write_log_back(connection)
        name = _name_of(self._inodes[0])
        if is_whole and name == self.real:
            return f"All that was recorded is in {name}"
        if is_whole and name is not None:
            return f"All that was recorded is in {name}, where it is now: put it back"

        try:
            saved = self._saved or self._save(connection)
        except (OSError, sqlite3.Error) as error:
            return (
                f"What was recorded could not be saved ({error}): process {os.getpid()} still holds the "
                "file, so before it ends make room or the directory again, or copy the file out of "
                f"/proc/{os.getpid()}/fd"
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
                copy.execute("PRAGMA journal_mode = DELETE")  # a single file, which can be moved as it is
        except BaseException:
            saved.unlink(missing_ok=True)
            raise
        return saved


def check_names(real: Path) -> None:
    """Raise `LedgerError` for a database with a second name: its log is beside one of them only."""
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
            f"The ledger {real} has {facts.st_nlink} names (hard links): used by two of them it would be "
            "damaged. Nothing was changed; make copies of it, or symbolic links to it, instead"
        )


def _remove_first_names(real: Path, facts: os.stat_result) -> None:
    """Remove names under which the database was created by processes that were killed before they did."""
    for new in real.parent.glob(f".{real.name}.*.new"):
        if _inode(new) == (facts.st_dev, facts.st_ino):
            new.unlink(missing_ok=True)


def _inode(path: str | Path) -> _Inode | None:
    try:
        facts = os.stat(path)  # noqa: PTH116 - Path.stat is three times as slow, at each commit
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


@functools.lru_cache(maxsize=16)  # it changes once in some thousand commits
def _is_log_header(header: bytes) -> bool:
    """Return whether a log's header has the checksum that it says it has."""
    if len(header) < _LOG_HEADER:
        return False
    magic, *_, first_sum, second_sum = struct.unpack(">8I", header)
    order = _LOG_MAGICS.get(magic)
    if order is None:
        return False

    first = second = 0
    for one, two in struct.iter_unpack(f"{order}2I", header[:24]):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return (first, second) == (first_sum, second_sum)


def _written(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_mtime_ns, facts.st_size


def _data_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def _full_log(connection: sqlite3.Connection) -> int:
    pages: int = connection.execute("PRAGMA wal_autocheckpoint").fetchone()[0]
    size: int = connection.execute("PRAGMA page_size").fetchone()[0]
    return pages * size  # of frames that are a little larger


def _outline(connection: sqlite3.Connection) -> tuple[int | None, int]:
    last = connection.execute("SELECT max(rowid) FROM submits").fetchone()[0]
    return last, connection.execute("PRAGMA page_count").fetchone()[0]


def _is_whole(connection: sqlite3.Connection) -> bool:
    finding: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    return finding == "ok"


def _write_log_back(connection: sqlite3.Connection) -> bool:
    """Write the log back to the database, so that the file is whole by itself.

    Return whether that worked.
    """
    try:
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        return False
    return not busy


def _write_anew(connection: sqlite3.Connection) -> bool:
    """Write all pages to the log again, behind what is damaged, and from there to the database.

    Another connection may have done the same, and more have been written since: a VACUUM loses none
    of that, unlike a copy that is put back.
    """
    try:
        connection.execute("VACUUM")
    except sqlite3.Error:
        return False
    return _write_log_back(connection)


def _name_of(inode: _Inode | None) -> Path | None:
    """Return the present name of a file that this process has open.

    None if it has none, or the system cannot tell.
    """
    try:
        links = list(_OPEN_FILES.iterdir())
    except OSError:
        return None

    for link in links:
        with contextlib.suppress(OSError):
            if _inode(link) != inode:
                continue
            name = link.readlink()
            if _inode(name) == inode:
                return name
    return None
