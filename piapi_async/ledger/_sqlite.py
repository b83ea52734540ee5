"""SQLite's files: made whole or not at all, private to their user, locked by a process for as long as it lives."""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import time
from pathlib import Path


def make(path: Path, schema: str) -> None:
    """Make a database with these tables, whole or not at all, unless another process is faster."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    touch(new)
    try:
        with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as file:
            use_wal(file)
            file.executescript(schema)
        with contextlib.suppress(FileExistsError):  # another process has been faster
            _publish(new, path)
    finally:
        new.unlink(missing_ok=True)


def _publish(new: Path, path: Path) -> None:
    """Give a file its name; raise `FileExistsError` if that is taken."""
    try:
        path.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: there a second process may find the file half written, and say so
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
            file.write(new.read_bytes())
            os.fsync(file.fileno())


def touch(path: Path) -> None:
    """Make an empty file that is private to its user, unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def lock_file(path: Path) -> sqlite3.Connection:
    """Take an owner's lock, which lasts until the connection is closed; `sqlite3.OperationalError` if it is taken."""
    lock = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        lock.execute("PRAGMA journal_mode = MEMORY")  # no second file beside the lock
        lock.execute("BEGIN EXCLUSIVE")
    except BaseException:
        lock.close()
        raise
    return lock


def is_held(path: Path) -> bool | None:
    """Tell whether somebody holds an owner's lock; None if that cannot be told, for there is no such file to open."""
    try:
        probe = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
    except sqlite3.Error:
        return None
    try:
        probe.execute("PRAGMA journal_mode = MEMORY")
        probe.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        return True if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} else None
    finally:
        probe.close()
    return False


def use_wal(file: sqlite3.Connection) -> None:
    """Have a database keep a log of writes, which a crash leaves whole and readers need not wait for."""
    # Only one process can switch the mode, and SQLite does not let the others wait for it as it does elsewhere.
    for _ in range(100):
        try:
            file.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(0.05)
        else:
            return
