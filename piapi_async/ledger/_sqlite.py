"""SQLite's files: created whole or not at all, private to their user, locked by a process while it lives."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path

_WAL_ATTEMPTS, _WAL_PAUSE = 100, 0.05  # times, seconds


def make(path: Path, schema: str) -> None:
    """Create a database with these tables, whole or not at all, unless another process is faster."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    touch(new)
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as connection:
            use_wal(connection)
            connection.executescript(schema)
        with contextlib.suppress(FileExistsError):  # another process was faster
            _publish(new, path)
    finally:
        new.unlink(missing_ok=True)


def _publish(new: Path, path: Path) -> None:
    """Give a file its name; raise `FileExistsError` if that is taken."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links: there a second process may find the file half written, and
        # say so.
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(new.read_bytes())
            os.fsync(file.fileno())


def touch(path: Path) -> None:
    """Create an empty file that is private to its user, unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def lock_file(path: Path) -> sqlite3.Connection:
    """Take an owner's lock, which lasts until the connection is closed.

    Raises `sqlite3.OperationalError` if it is taken.
    """
    lock = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        lock.execute("PRAGMA journal_mode = MEMORY")  # no second file beside the lock
        lock.execute("BEGIN EXCLUSIVE")
    except BaseException:
        lock.close()
        raise
    return lock


def is_held(path: Path) -> bool | None:
    """Return whether an owner's lock is held; None if the file is missing or cannot be opened."""
    try:
        probe = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
    except sqlite3.Error:
        return None

    try:
        probe.execute("PRAGMA journal_mode = MEMORY")
        probe.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        primary_code = error.sqlite_errorcode & 0xFF
        if primary_code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return True
        return None
    finally:
        probe.close()
    return False


def use_wal(connection: sqlite3.Connection) -> None:
    """Have a database keep a write-ahead log: a crash leaves it whole, and readers need not wait."""
    # Only one process can switch the mode, and SQLite does not let the others wait for it as
    # elsewhere.
    for _ in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(_WAL_PAUSE)
        else:
            return
