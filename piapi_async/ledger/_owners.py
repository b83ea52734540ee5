"""Who has a ledger open: each of them, an owner, holds an exclusive SQLite lock on an empty file of its own.

SQLite knows on every platform how such a lock is let go of when a process dies, so another process can tell a submit
that is under way from one whose process is gone.  A lock file that is there and held proves that its owner lives, one
that is there and free that it died.  One that is missing, or may not be opened, proves nothing: a cleaner of temporary
files may have removed it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from ._sqlite import is_held, lock_file, touch

PRESUMED_ALIVE = 900.0
"""Seconds for which a submit is taken to be under way though nothing proves it: longer than any is by default, the wait
for a webhook included."""


@define(eq=False)
class Owners:
    """The owners of one database, of whom we are one.  All methods are called within a transaction, but `leave`."""

    real: Path
    name: str = ""
    _lock: sqlite3.Connection | None = field(default=None, init=False)
    _own: str = field(default="", init=False)  # the path of our lock
    _inode: tuple[int, int] | None = field(default=None, init=False)

    def join(self) -> None:
        """Become one of them."""
        self.name = secrets.token_hex(8)
        self._own = os.fspath(self.path_of(self.name))
        self._take()

    def stay(self) -> None:
        """Take our lock again if somebody has removed its file: others would take us for dead one day."""
        if self._inode == self._find_inode():
            return
        with contextlib.suppress(OSError, sqlite3.Error):  # where it cannot be, the rows' age speaks for us
            self._take()

    def leave(self, *, keep_file: bool) -> None:
        """Let go of our lock; its file stays where it has to tell others that we are gone."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        lock.close()
        if not keep_file:
            with contextlib.suppress(OSError):  # whoever opens the ledger next removes what nobody holds
                self.path_of(self.name).unlink(missing_ok=True)

    def find_dead(self) -> list[str]:
        """Return the owners who have certainly died."""
        return [owner for owner, held in self._look_around() if held is False]

    def is_alone(self) -> bool:
        """Tell whether no other owner may be alive."""
        return not any(held is not False and owner != self.name for owner, held in self._look_around())

    def _look_around(self) -> Iterator[tuple[str, bool | None]]:
        start = self.path_of("").name
        for file in self.real.parent.glob(f"{glob.escape(start)}*"):
            yield file.name[len(start) :], is_held(file)

    def alive(self, owner: str, at: float) -> bool:
        """Tell whether an owner may still be sending what it has claimed at a time."""
        held = is_held(self.path_of(owner))
        if held is None:
            return abs(time.time() - at) < PRESUMED_ALIVE
        return held

    def path_of(self, owner: str) -> Path:
        """Return the path of an owner's lock."""
        return self.real.with_name(f"{self.real.name}-owner-{owner}")

    def _take(self) -> None:
        path = self.path_of(self.name)
        touch(path)
        lock, self._lock = self._lock, lock_file(path)
        self._inode = self._find_inode()
        if lock is not None:
            lock.close()

    def _find_inode(self) -> tuple[int, int] | None:
        try:
            facts = os.stat(self._own)  # noqa: PTH116 - Path.stat costs three times as much, and each commit asks
        except OSError:
            return None
        return facts.st_dev, facts.st_ino
