"""`Ledger`: what has been sent, accepted, ended; on disk before anything else happens.

Every submission is recorded before its POST leaves (*sending*), and again when its task is known
(*accepted*), when the task has ended (*ended*), or when nobody can tell whether it made one
(*unknown*).  A process that is killed anywhere in between leaves a row that says how far it got, so
a rerun pays for nothing twice.

This is the users' half: looking, and resolving what is unknown.  The client's half, which records,
is `LedgerWriter`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field

from ..tasks import check_task_id
from ._entries import LedgerEntry, LedgerState
from ._queries import ended_by_place, entries_at, entries_by_key, entries_by_place, places_of

if TYPE_CHECKING:
    import sqlite3

    from ._writer import LedgerWriter
else:
    LedgerWriter = Any  # for those who read annotations at run time

_PAGE = 500  # entries that are read at a time

_PageReader: TypeAlias = "Callable[[sqlite3.Connection, int, int], list[tuple[int, LedgerEntry]]]"


def _absolute(path: str | os.PathLike[str]) -> Path:
    if "\0" in os.fspath(path):
        raise ValueError(f"path: {path!r} is not allowed; no file can have that name")
    return Path(path).absolute()  # so that a change of directory changes no ledger


@define(eq=False)
class Ledger:
    """A file that remembers every submission: ``PiAPI(ledger=Ledger("run.db"))``.

    Making one touches no file; it is created, private to its user (0600), at first use.  It holds
    prompts and task ids, and neither the API key nor webhook secrets.  The client that it was given
    to closes it.  All methods raise `LedgerError` if the file is damaged, of a newer version,
    read-only, or on a full disk; nothing that was committed is lost.  The same holds if it was
    moved, deleted, replaced or overwritten while it was open: the error says where its rows are.

    Symbolic links are followed, and several processes may use one file.  A process that is forked
    while a ledger is open cannot use that file (`LedgerError`): open it there only, or start
    processes with multiprocessing's "spawn".
    """

    _path: Path = field(converter=_absolute)
    _writer: LedgerWriter = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # A client without a ledger does without SQLite, and without all that writes.
        from ._writer import LedgerWriter  # noqa: PLC0415

        self._writer = LedgerWriter(self._path)

    def __fspath__(self) -> str:
        """Return the absolute path of the file, so that a ledger may stand for it: ``Path(ledger)``."""
        return str(self._path)

    def __repr__(self) -> str:
        return f"Ledger({str(self._path)!r})"

    async def __aiter__(self) -> AsyncIterator[LedgerEntry]:
        """Yield every submission, in the order of the keys."""
        await self._sweep()
        after = ""
        while page := await self._writer.run(entries_by_key, after, _PAGE):
            for entry in page:
                yield entry
            after = page[-1].key

    async def entries(self, state: LedgerState | None = None) -> AsyncIterator[LedgerEntry]:
        """Yield every submission, or those in one state, in the order in which they were first recorded.

        However large the ledger is, only some hundred entries are in memory at a time.
        """
        await self._sweep()
        if state is None:
            pages = self._all_pages(entries_by_place)
        elif state is LedgerState.ENDED:
            pages = self._all_pages(ended_by_place)
        else:
            pages = self._pages_of(state)

        async for page in pages:
            for entry in page:
                yield entry

    async def pending(self) -> list[LedgerEntry]:
        """Return the submissions whose task was accepted and has not been seen to end, the earliest first."""
        return [entry async for entry in self.entries(LedgerState.ACCEPTED)]

    async def unknown(self) -> list[LedgerEntry]:
        """Return the submissions that may or may not have made a task, the earliest first.

        See `resolve`.
        """
        return [entry async for entry in self.entries(LedgerState.UNKNOWN)]

    async def find(self, key: str) -> LedgerEntry | None:
        """Return the entry of a key, None if nothing was submitted under it."""
        return await self._writer.find(key)

    async def counts(self) -> dict[str, int]:
        """Return the number of submissions by state.

        Those that ended by outcome ("done", "failed", "cancelled").
        """
        return await self._writer.counts()

    async def resolve(self, key: str, *, task_id: str | None = None, resubmit: bool = False) -> None:
        """Say what an unknown submission did: it made `task_id`, or nothing and may be submitted again.

        With `resubmit` that is taken on trust.  If it made a task after all, both are paid for; and if
        the response to the new submission is lost as well, the older task may be found for it, as the
        two are alike and their webhooks have one nonce.

        Raises `LedgerError` if the key is not there, or not unknown, or the task is another
        submission's; `ValueError` unless one of the two is given.
        """
        if (task_id is None) == (not resubmit):
            raise ValueError("resolve: give either task_id= (it was accepted) or resubmit=True (it was not)")

        checked_id = None
        if task_id is not None:
            checked_id = check_task_id(task_id)
        await self._writer.run(self._writer.store.resolve, key, checked_id)

    async def close(self) -> None:
        """Finish what is being recorded and close the file, unless a client uses it.

        It is opened again when needed.
        """
        await self._writer.close()

    async def _sweep(self) -> None:
        await self._writer.run(self._writer.store.sweep)

    async def _all_pages(self, read: _PageReader) -> AsyncIterator[list[LedgerEntry]]:
        after = 0
        while page := await self._writer.run(read, after, _PAGE):
            yield [entry for _, entry in page]
            after, _ = page[-1]

    async def _pages_of(self, state: LedgerState) -> AsyncIterator[list[LedgerEntry]]:
        places = await self._writer.run(places_of, state)
        for start in range(0, len(places), _PAGE):
            yield await self._writer.run(entries_at, state, places[start : start + _PAGE])


def writer_of(ledger: Ledger) -> LedgerWriter:
    """Return the client's half of a ledger."""
    return ledger._writer  # noqa: SLF001 - one ledger in two halves, of which users see one
