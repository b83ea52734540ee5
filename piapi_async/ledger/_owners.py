"""Who has a ledger open: each owner holds an exclusive SQLite lock on an empty file of its own.

SQLite knows on every platform how such a lock is released when its process dies, so another process
can tell a submission that is being sent from one whose process is gone.  A lock file that exists and
is held proves that its owner is alive; one that exists and is free, that it is dead.  One that is
missing, or may not be opened, proves nothing: a cleaner of temporary files may have removed it.
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
"""Seconds for which a submission counts as being sent although nothing proves it.

That is longer than any takes by default, including the wait for its webhook.
"""


@define(eq=False)
class Owners:
    """The owners of one database, of whom we are one.

    All methods but `leave` are called in a transaction.
    """

    real: Path
    name: str = ""
    _lock: sqlite3.Connection | None = field(default=None, init=False)
    _own_path: str = field(default="", init=False)  # of our lock file
    _inode: tuple[int, int] | None = field(default=None, init=False)

    def join(self) -> None:
        """Become an owner."""
        self.name = secrets.token_hex(8)
        self._own_path = os.fspath(self.path_of(self.name))
        self._take()

    def stay(self) -> None:
        """Take our lock again if its file was removed: otherwise others would one day take us for dead."""
        if self._inode == self._find_inode():
            return
        with contextlib.suppress(OSError, sqlite3.Error):  # without it, the age of our rows speaks for us
            self._take()

    def leave(self, *, keep_file: bool) -> None:
        """Release our lock; keep its file if that has to show the others that we are gone."""
        lock, self._lock = self._lock, None
        if lock is None:
            return

        lock.close()
        if not keep_file:
            with contextlib.suppress(OSError):  # the next who opens the ledger removes what is not held
                self.path_of(self.name).unlink(missing_ok=True)

    def find_dead(self) -> list[str]:
        """Return the owners that are certainly dead."""
        return [owner for owner, held in self._all_locks() if held is False]

    def is_alone(self) -> bool:
        """Return whether no other owner may be alive."""
        return not any(held is not False and owner != self.name for owner, held in self._all_locks())

    def alive(self, owner: str, at: float) -> bool:
        """Return whether an owner may still be sending what it claimed at `at`, in Unix seconds."""
        held = is_held(self.path_of(owner))
        if held is None:
            return abs(time.time() - at) < PRESUMED_ALIVE
        return held

    def path_of(self, owner: str) -> Path:
        """Return the path of an owner's lock file."""
        return self.real.with_name(f"{self.real.name}-owner-{owner}")

    def _all_locks(self) -> Iterator[tuple[str, bool | None]]:
        """Yield each owner and whether its lock is held, None if that cannot be told."""
        start = self.path_of("").name
        for file in self.real.parent.glob(f"{glob.escape(start)}*"):
            yield file.name[len(start) :], is_held(file)

    def _take(self) -> None:
        path = self.path_of(self.name)
        touch(path)
        lock, self._lock = self._lock, lock_file(path)
        self._inode = self._find_inode()
        if lock is not None:
            lock.close()

    def _find_inode(self) -> tuple[int, int] | None:
        try:
            facts = os.stat(self._own_path)  # noqa: PTH116 - Path.stat is three times as slow, at each commit
        except OSError:
            return None
        return facts.st_dev, facts.st_ino
