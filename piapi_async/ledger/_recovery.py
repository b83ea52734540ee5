"""What the ledger knows of submissions whose response was lost, and how such a one is given its task.

Each function is run in a transaction of the ledger's thread.  A task is given to one submission only:
its id is compared with those of all rows that may have it, ended ones and earlier attempts included,
in the transaction that records it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from ..tasks import TaskId
from ._entries import SubmissionKey
from ._queries import OPEN

if TYPE_CHECKING:
    import sqlite3

_AT_ONCE = 500  # ids in one query
_CLOCK_JUMP = 6 * 3600.0  # seconds by which a clock may have been set between two submissions of one minute

_ACCEPTED_KEYS = """
SELECT task_id, key FROM submits INDEXED BY submits_by_task
WHERE state = 'accepted' AND origin = ? AND task_id IN """
_EARLIER_KEYS = "SELECT task_id, key FROM earlier WHERE origin = ? AND task_id IN "
# The rows' times and ids alone are read, until one of these is met.
_ENDED_KEYS = """
SELECT task_id, key FROM submits INDEXED BY submits_by_time
WHERE at BETWEEN ? AND ? AND +origin = ? AND task_id IN """


@frozen(kw_only=True, eq=False, repr=False)
class SentAs:
    """What a claim keeps, so that a later process can find the task.

    `body` is a JSON object whose fields take the place of those in the key's request, None if there
    are none; `latest` is the Unix time here after which it is certainly sent no more, and `offset`
    the seconds by which the host's clock was ahead, None if it was not known.
    """

    body: str | None
    latest: float
    offset: float | None


@frozen(kw_only=True, eq=False, repr=False)
class OpenRow:
    """A submission without a task.

    `sending` tells that its process lives and may still be answered; if not, it is *unknown*, or its
    process looks for it.  `since` and `until` are Unix times of the machine that sent it, between
    which its task must have been made (`until` is None in rows of earlier releases).  `owner` is the
    ledger's owner who is sending it, or looks for it.
    """

    key: str
    attempt: int
    request: str
    body: str | None
    sending: bool
    unknown: bool
    at: float
    since: float
    until: float | None
    offset: float | None
    owner: str | None = None


@frozen
class Taken:
    """What came of giving a submission a task: `task_id` is the one it has now, None if it has none.

    `other_key` is the submission that has the task already; `taken_from` are those that had it in
    error, and are *unknown* again.
    """

    task_id: TaskId | None
    other_key: str | None = None
    taken_from: tuple[str, ...] = ()


def lose(
    connection: sqlite3.Connection,
    key: str,
    owner: str,
    sent: tuple[float, float, float | None],
) -> None:
    """Note that a submission's response was lost: when it was sent, until when, the clock's offset.

    It stays *sending* under its owner, who looks for its task.
    """
    connection.execute(
        "UPDATE submits SET sent_at = ?, lost_at = ?, clock_offset = ? "
        "WHERE key = ? AND state = 'sending' AND owner = ?",
        (*sent, key, owner),
    )


def read_open_rows(connection: sqlite3.Connection, origin: str, family: str) -> list[sqlite3.Row]:
    """Return the rows without a task of one family of a host."""
    query = f"SELECT * FROM submits WHERE {OPEN} AND origin = ? AND family = ?"  # noqa: S608 - our own words
    return connection.execute(query, (origin, family)).fetchall()


def open_row_of(row: sqlite3.Row, *, alive: bool) -> OpenRow:
    """Return a row as a value; `alive` tells whether its owner is, if it says *sending*."""
    sent_at = row["sent_at"]
    is_sending = row["state"] == "sending"
    return OpenRow(
        key=row["key"],
        attempt=row["attempt"],
        request=row["request"],
        body=row["body"],
        sending=is_sending and alive and sent_at is None,
        unknown=not is_sending or not alive,
        at=row["at"],
        since=row["at"] if sent_at is None else sent_at,
        until=row["lost_at"],
        offset=row["clock_offset"],
        owner=row["owner"],
    )


def keys_of(
    connection: sqlite3.Connection, origin: str, ids: Sequence[str], since: float, until: float
) -> dict[str, str]:
    """Return the key of each id that any submission to a host is known by.

    `since` and `until` are Unix times of this machine between which the tasks were made.  Those of rows
    that have ended are in no index of their own (see `_schema`), so of them only rows are read that
    were recorded at most six hours apart from that: a clock may have been wrong, and be right by now.
    """
    keys: dict[str, str] = {}
    for start in range(0, len(ids), _AT_ONCE):
        few = ids[start : start + _AT_ONCE]
        marks = f"({', '.join('?' * len(few))})"
        for query, bounds in (
            (_ACCEPTED_KEYS, ()),
            (_EARLIER_KEYS, ()),
            (_ENDED_KEYS, (since - _CLOCK_JUMP, until + _CLOCK_JUMP)),
        ):
            rows = connection.execute(query + marks, (*bounds, origin, *few))
            keys.update((row["task_id"], row["key"]) for row in rows)
    return keys


def give_task(
    connection: sqlite3.Connection,
    row: sqlite3.Row,
    task_id: str,
    found: str,
) -> Taken:
    """Record the task of a lost submission, whose row this is, unless it has one or another has that task."""
    key = row["key"]
    if row["task_id"] is not None:
        return Taken(row["task_id"])

    since = row["at"] if row["sent_at"] is None else row["sent_at"]
    until = since if row["lost_at"] is None else row["lost_at"]
    other = keys_of(connection, row["origin"], [task_id], since, until).get(task_id)
    if other is not None:
        return Taken(None, other)

    connection.execute(
        "UPDATE submits SET state = 'accepted', task_id = ?, owner = NULL, found = ? WHERE key = ?",
        (task_id, found, key),
    )
    return Taken(TaskId(task_id))


def take_back(connection: sqlite3.Connection, identity: SubmissionKey, task_id: str) -> list[str]:
    """Make *unknown* again what was given a task from the history that another's response names; return the keys."""
    query = (
        "UPDATE submits SET state = 'unknown', task_id = NULL, found = NULL, outcome = NULL, answer = NULL "
        "WHERE task_id = ? AND origin = ? AND key <> ? AND found = 'history' RETURNING key"
    )
    return [
        row["key"] for row in connection.execute(query, (task_id, identity.origin, identity.key)).fetchall()
    ]
