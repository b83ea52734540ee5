"""The ledger's decisions, in SQL: one method per operation, all sync, all of one thread.

`_file` holds the database and its transactions, `_queries` has what needs no owner, and `_writer` runs
the operations in groups.

A submission is *owned* by the store that claimed it, until it is accepted, forgotten or unknown.  A
row that says *sending* counts as *unknown* once its owner is dead, or owns it no more: `_current`
makes that true for a row that is read, `sweep` for all of them.
"""

from __future__ import annotations

import copy
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen

from .._text import shorten
from ..errors import KeyReused, LedgerError
from ..tasks import TaskId, TaskRef
from ._attempts import EARLIER_ATTEMPT, earlier_key, refuse, replace, require_nobodys, withdraw
from ._entries import NOTHING_KEPT, EndedAttempt, Kept, LedgerEntry, LedgerState, SubmissionKey
from ._file import LedgerFile, Shrinking
from ._queries import OPEN, count_words, entry_of
from ._recovery import (
    OpenRow,
    SentAs,
    Taken,
    give_task,
    lose,
    open_row_of,
    read_open_rows,
    take_back,
)

_INSERT_CLAIM = """
INSERT INTO submits (key, origin, family, digest, request, owner, at, state)
VALUES (?, ?, ?, ?, ?, ?, ?, 'sending') ON CONFLICT DO NOTHING
"""
_INSERT_DETAILED_CLAIM = """
INSERT INTO submits (key, origin, family, digest, request, owner, at, body, lost_at, clock_offset, note, trace, state)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'sending') ON CONFLICT DO NOTHING
"""
_LARGE = 1_000_000
"""Characters of a request with a mask, say, of which no copy is to be kept."""

# Another submission with the same task is looked for in the indexes of accepted tasks and of those that
# were found, which costs next to nothing; what was answered and has ended is not looked for.
_SAME_TASK = """
SELECT key FROM submits
WHERE task_id = :task_id AND state = 'accepted' AND key <> :key AND origin = :origin AND family = :family
"""
_SAME_FOUND = """
SELECT key FROM submits INDEXED BY submits_found
WHERE task_id = :task_id AND found IS NOT NULL AND key <> :key AND origin = :origin
"""
_ACCEPT = f"""
UPDATE submits SET state = 'accepted', task_id = :task_id, owner = NULL
WHERE key = :key AND NOT EXISTS ({_SAME_TASK}) AND NOT EXISTS ({_SAME_FOUND})
AND NOT EXISTS ({EARLIER_ATTEMPT})
"""  # noqa: S608 - our own words
_INSERT_ACCEPTED = """
INSERT INTO submits (key, state, origin, family, digest, request, task_id, at)
VALUES (:key, 'accepted', :origin, :family, :digest, :request, :task_id, :at)
"""
_BY_HAND = "hand"
"""How a task was found that a person has named, who may have mistyped it and name another."""
_RESOLVE = f"""
UPDATE submits SET state = 'accepted', task_id = ?, found = '{_BY_HAND}', owner = NULL,
    outcome = NULL, answer = NULL
WHERE key = ? AND ({OPEN} OR found = '{_BY_HAND}')
"""  # noqa: S608 - our own words
# At most one row of a family has a task as accepted.  It is updated by its rowid, as SQLite would first
# collect all that a condition may find in a temporary table.
_END = """
UPDATE submits SET state = 'ended', outcome = ?, answer = ? WHERE rowid = (
    SELECT rowid FROM submits WHERE task_id = ? AND origin = ? AND family = ? AND state = 'accepted'
)
"""
_SENDING = f"SELECT key, owner, at FROM submits WHERE {OPEN} AND state = 'sending'"  # noqa: S608 - ours
_MAKE_UNKNOWN = "UPDATE submits SET state = 'unknown', owner = NULL WHERE key = ? AND state = 'sending'"


@define(eq=False)
class Operation:
    """A call of one of the store's methods in a transaction: ``method(connection, *arguments)``."""

    method: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@frozen(eq=False)
class _Owned:
    """A submission of ours, and whether the loop that it was sent in is gone."""

    identity: SubmissionKey
    is_gone: Callable[[], bool]


@define(eq=False)
class LedgerStore:
    """One owner's hold on the database.

    The methods that take a `connection` are run in a transaction of it.
    """

    path: Path
    _file: LedgerFile = field(init=False)
    _owned: dict[str, _Owned] = field(factory=dict)  # the submissions that this store owns, by key
    _to_disown: list[SubmissionKey] = field(factory=list)  # once the present transaction is committed

    def __attrs_post_init__(self) -> None:
        self._file = LedgerFile(self.path)

    @property
    def is_open(self) -> bool:
        """Whether the file is open, here or in the process that this one was forked from."""
        return self._file.is_open

    @property
    def owner(self) -> str:
        """The name of this owner in the database."""
        return self._file.owner

    def close(self) -> None:
        """Close the file and release the owner's lock."""
        self._file.close()

    def shrink(self) -> Shrinking:
        """Give the pages that hold nothing back to the disk, and close the file; see `LedgerFile.shrink`."""
        try:
            return self._file.shrink()
        except Exception as error:
            raise self._file.explain(error) from error

    # -- transactions -----------------------------------------------------------------------------

    def commit(self, operations: Sequence[Operation]) -> list[Any]:
        """Run operations in one commit; return for each its result, or the error it failed with.

        If the group fails, its operations are run again one by one: one that the database cannot
        take must not fail the others.  A file that cannot be used at all fails them all at once:
        waiting for its lock takes long enough.
        """
        try:
            connection = self._file.begin()
        except Exception as error:  # noqa: BLE001 - sqlite3 raises more than its own errors on a damaged file
            failure = self._file.explain(error)
            return [copy.copy(failure) for _ in operations]

        try:
            return self._run_all(connection, operations)
        except Exception as error:  # noqa: BLE001 - the same
            if len(operations) == 1:
                return [self._file.explain(error)]
        return [self.commit([operation])[0] for operation in operations]

    def _run_all(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Any]:
        """Run operations in the transaction that has begun, and commit it."""
        results: list[Any] = []
        self._to_disown.clear()
        try:
            for operation in operations:
                try:
                    results.append(operation.method(connection, *operation.arguments))
                except (LedgerError, ValueError) as error:  # raised before anything was written
                    results.append(error)
            self._file.commit(connection)
        except BaseException:
            self._file.roll_back(connection)
            raise

        for identity in self._to_disown:
            self.disown(identity)
        return results

    # -- one submission ---------------------------------------------------------------------------

    def claim(
        self,
        connection: sqlite3.Connection,
        identity: SubmissionKey,
        sent_as: SentAs | None = None,
        kept: Kept = NOTHING_KEPT,
        replaces: EndedAttempt | None = None,
        *,
        is_gone: Callable[[], bool] = bool,
    ) -> LedgerEntry | None:
        """Insert a submission as *sending* and return None, or return the entry that its key has already.

        `sent_as` is what a later process needs to find its task, None if it could not be found;
        `kept` stands beside it.  With `replaces` it takes the place of that attempt, if that is still
        the last of its key.  Once `is_gone` says so, nobody here sends it any more.

        Raises `LedgerError` if the key belongs to another origin or family, `KeyReused` if to
        another request.
        """
        statement, new_row = self._new_claim(identity, sent_as, kept)
        is_new = connection.execute(statement, new_row).rowcount > 0
        if len(identity.request) > _LARGE:
            _let_go_of_request(connection, statement, new_row)
        if is_new:
            self._owned[identity.key] = _Owned(identity, is_gone)
            return None

        row = self._row_of(connection, identity.key)
        assert row is not None  # noqa: S101 - it is what the insertion met with
        _require_same(row, identity)
        if replaces is not None and replace(
            connection, identity, replaces, self.owner, sent_as, trace=kept.trace
        ):
            self._owned[identity.key] = _Owned(identity, is_gone)
            return None
        return self._current(connection, row)

    def _new_claim(
        self, identity: SubmissionKey, sent_as: SentAs | None, kept: Kept
    ) -> tuple[str, tuple[Any, ...]]:
        """Return the statement that inserts a claim, and its values; most claims have few."""
        row = (
            identity.key,
            identity.origin,
            identity.family,
            identity.digest,
            identity.request,
            self.owner,
            time.time(),
        )
        if sent_as is None and kept.note is None and kept.trace is None:
            return _INSERT_CLAIM, row

        search: tuple[str | None, float | None, float | None] = (None, None, None)
        if sent_as is not None:
            search = (sent_as.body, sent_as.latest, sent_as.offset)
        return _INSERT_DETAILED_CLAIM, (*row, *search, kept.note, kept.trace)

    def accept(self, connection: sqlite3.Connection, identity: SubmissionKey, task_id: str) -> Taken | None:
        """Record the task that a response names for a submission of ours, whatever has become of its row.

        Return None, or what came of it if another submission has the same task: that one loses a task
        that it was given from the history, as a response knows better; for any other, this one
        becomes *unknown*.
        """
        self._to_disown.append(identity)
        submission = {
            "task_id": task_id,
            "key": identity.key,
            "origin": identity.origin,
            "family": identity.family,
        }
        if connection.execute(_ACCEPT, submission).rowcount:
            return None

        # A delivery may have told of the task, its end been seen, and a new attempt been made, before
        # its own response came.
        earlier = earlier_key(connection, identity.origin, task_id)
        if earlier == identity.key:
            return None

        losers: list[str] = []
        other = earlier
        if other is None:
            losers = take_back(connection, identity, task_id)
            other = self._other_with(connection, submission)
        if other is not None:
            self._make_unknown(connection, identity.key)
            return Taken(None, other, tuple(losers))

        if not connection.execute(_ACCEPT, submission).rowcount:
            # Somebody removed the row meanwhile, but the task exists and is paid for.
            row = submission | {"digest": identity.digest, "request": identity.request, "at": time.time()}
            connection.execute(_INSERT_ACCEPTED, row)
        if losers:
            return Taken(TaskId(task_id), taken_from=tuple(losers))
        return None

    @staticmethod
    def _other_with(connection: sqlite3.Connection, submission: dict[str, str]) -> str | None:
        """Return the key of another submission that has a task, None if there is none."""
        for query in (_SAME_TASK, _SAME_FOUND):
            other = connection.execute(query, submission).fetchone()
            if other is not None:
                return str(other["key"])
        return None

    def forget(
        self,
        connection: sqlite3.Connection,
        identity: SubmissionKey,
        refused: str | None = None,
    ) -> None:
        """Delete a submission of ours that made no task; an attempt that it replaced is the last again.

        One that another caller has claimed is left alone.  `refused` is the task that its refusal
        has named: it is never given to a later submission.
        """
        if self._owns(identity):
            self._to_disown.append(identity)
            row = self._row_of(connection, identity.key)
            if self._is_sent_here(row):
                if refused is not None:
                    refuse(connection, identity, refused)
                withdraw(connection, identity.key)

    def mark_unknown(self, connection: sqlite3.Connection, identity: SubmissionKey) -> TaskId | None:
        """Record that a submission of ours may have made a task.

        Return its task if another process knows it.
        """
        if not self._owns(identity):
            return None
        self._to_disown.append(identity)

        row = self._row_of(connection, identity.key)
        if self._is_sent_here(row):
            self._make_unknown(connection, identity.key)
            return None
        if row is None:
            return None
        return entry_of(row).task_id

    def attach_task(self, connection: sqlite3.Connection, key: str, task_id: str) -> bool:
        """Record the task of a submission of any process that is being sent or unknown, as a delivery named it.

        Return whether it is that submission's now: no other, and no earlier attempt, may have it.
        """
        row = self._row_of(connection, key)
        if row is None:
            return False
        return give_task(connection, row, task_id, "webhook").task_id == task_id

    def lose(
        self,
        connection: sqlite3.Connection,
        identity: SubmissionKey,
        sent: tuple[float, float, float | None],
    ) -> None:
        """Note that the response to a submission of ours was lost, and when it was sent."""
        lose(connection, identity.key, self.owner, sent)

    def open_rows(self, connection: sqlite3.Connection, origin: str, family: str) -> list[OpenRow]:
        """Return the submissions without a task of one family of a host."""
        rows = read_open_rows(connection, origin, family)
        return [
            open_row_of(row, alive=row["state"] == LedgerState.SENDING.value and self._is_alive(row))
            for row in rows
        ]

    def give_lost(
        self, connection: sqlite3.Connection, identity: SubmissionKey, task_id: str, found: str
    ) -> Taken:
        """Record the task of a submission of ours whose response was lost, if no other has it."""
        row = self._row_of(connection, identity.key)
        is_ours = row is not None and row["owner"] == self.owner and self._owns(identity)
        if row is None or (row["task_id"] is None and not is_ours):  # a person has resolved it meanwhile
            return Taken(None)

        taken = give_task(connection, row, task_id, found)
        if taken.task_id is not None:
            self._to_disown.append(identity)
        return taken

    def give_unknown(self, connection: sqlite3.Connection, lost: OpenRow, task_id: str, found: str) -> Taken:
        """Record the task of a submission that is still the *unknown* one that it was, if no other has it."""
        row = self._row_of(connection, lost.key)
        if row is None or row["at"] != lost.at:
            return Taken(None)
        if row["task_id"] is None and self._current(connection, row).state is not LedgerState.UNKNOWN:
            return Taken(None)  # it was submitted again, and is being sent
        return give_task(connection, row, task_id, found)

    def disown(self, identity: SubmissionKey) -> None:
        """Own a submission no longer: if its row still says *sending*, that means *unknown* from now on."""
        if self._owns(identity):
            del self._owned[identity.key]

    def end(self, connection: sqlite3.Connection, ref: TaskRef, outcome: str, answer: bytes) -> None:
        """Record how a task ended; a task that no row has as accepted is ignored."""
        connection.execute(_END, (outcome, answer, ref.task_id, ref.origin, ref.family))

    def resolve(self, connection: sqlite3.Connection, key: str, task_id: str | None) -> None:
        """Record the task of an unknown submission, or delete it as `forget` does if it made none.

        A task that was named so may be named anew, as it may have been mistyped.

        Raise `LedgerError` for others, and for a task that another submission has.
        """
        self.sweep(connection)

        row = self._row_of(connection, key)
        if row is None:
            raise LedgerError(f"The ledger {self.path} has no key {key!r}")
        may_be_corrected = row["found"] == _BY_HAND and task_id is not None
        if may_be_corrected and row["task_id"] == task_id:
            return
        if row["state"] != LedgerState.UNKNOWN.value and not may_be_corrected:
            state = row["state"]
            raise LedgerError(f"The submission {key!r} is {state}, not unknown: there is nothing to resolve")

        if task_id is None:
            withdraw(connection, key)
        else:
            require_nobodys(connection, row["origin"], task_id)
            connection.execute(_RESOLVE, (task_id, key))

    # -- reading ----------------------------------------------------------------------------------

    def find(self, connection: sqlite3.Connection, key: str) -> LedgerEntry | None:
        """Return the entry of a key, None if there is none."""
        row = self._row_of(connection, key)
        if row is None:
            return None
        return self._current(connection, row)

    def counts(self, connection: sqlite3.Connection) -> dict[str, int]:
        """Return the number of submissions by state, of those that ended by outcome."""
        self.sweep(connection)
        return count_words(connection)

    # -- what dead owners left --------------------------------------------------------------------

    def sweep(self, connection: sqlite3.Connection) -> None:
        """Make *unknown* what dead owners left as *sending*."""
        for row in connection.execute(_SENDING).fetchall():
            if not self._is_alive(row):
                self._make_unknown(connection, row["key"])

    def _current(self, connection: sqlite3.Connection, row: sqlite3.Row) -> LedgerEntry:
        """Return the entry of a row, *unknown* if its process died while it was sending."""
        if row["state"] == LedgerState.SENDING.value and not self._is_alive(row):
            return self._make_unknown(connection, row["key"])
        return entry_of(row)

    def _is_alive(self, row: sqlite3.Row) -> bool:
        if row["owner"] == self.owner:
            owned = self._owned.get(row["key"])
            return owned is not None and not owned.is_gone()
        return self._file.is_alive(row["owner"], row["at"])

    def _is_sent_here(self, row: sqlite3.Row | None) -> bool:
        """Return whether a row says that this owner is sending: not that another makes a new attempt."""
        return row is not None and row["state"] == LedgerState.SENDING.value and row["owner"] == self.owner

    def _owns(self, identity: SubmissionKey) -> bool:
        """Return whether this very submission is ours, and not another of the same key."""
        owned = self._owned.get(identity.key)
        return owned is not None and owned.identity is identity

    def _make_unknown(self, connection: sqlite3.Connection, key: str) -> LedgerEntry:
        connection.execute(_MAKE_UNKNOWN, (key,))
        return entry_of(self._row_of(connection, key))

    def _row_of(self, connection: sqlite3.Connection, key: str) -> Any:  # noqa: ANN401 - as sqlite3 has it
        return connection.execute("SELECT * FROM submits WHERE key = ?", (key,)).fetchone()


def _let_go_of_request(connection: sqlite3.Connection, statement: str, claimed: tuple[Any, ...]) -> None:
    """Have SQLite free its copy of the request of a claim that was inserted, or not, just now.

    What was bound to a statement stays with it until it is executed again; as the key is taken, that
    does nothing else.
    """
    request = 4
    connection.execute(statement, (*claimed[:request], "", *claimed[request + 1 :]))


def _require_same(row: sqlite3.Row, identity: SubmissionKey) -> None:
    """Raise `LedgerError` or `KeyReused` if a row stands for something else under the same key."""
    if (row["origin"], row["family"]) != (identity.origin, identity.family):
        raise LedgerError(
            f"The key {identity.key!r} belongs to {row['origin']} ({row['family']}), not to "
            f"{identity.origin} ({identity.family}): use another key, or another ledger"
        )
    if row["digest"] != identity.digest:
        raise KeyReused(
            f"key: {identity.key!r} is not allowed; the ledger has it for another request, "
            f"{shorten(row['request'])}. Nothing was sent, nothing was paid."
        )
