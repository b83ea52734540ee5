"""The attempts of one key: a new one takes the place of one that failed, or gives it back if it made nothing.

`submits` has the last attempt of each key, which is what `submit(key)` means; `earlier` has the ids
and ends of those before it, so that no task is ever taken for another attempt's.  It also has the
tasks that refusals have named: they were made with the inputs and the nonce of their key's next
submission, and are not its own.  Each function is run in a transaction of the ledger's thread.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Any

from ..errors import LedgerError
from ._entries import EndedAttempt, SubmissionKey
from ._recovery import SentAs, keys_of

_KEEP = """
INSERT OR REPLACE INTO earlier (origin, task_id, family, key, attempt, at, outcome)
SELECT origin, task_id, family, key, attempt, at, coalesce(outcome, :outcome) FROM submits WHERE key = :key
"""
# What was true of the attempt before says nothing of this one; the caller's note does.  The request is the
# same, but may have been left out when the ledger was compacted.
_BEGIN = """
UPDATE submits SET state = 'sending', owner = :owner, at = :at, attempt = attempt + 1, request = :request,
    task_id = NULL, outcome = NULL, answer = NULL, trace = :trace, found = NULL,
    body = :body, sent_at = NULL, lost_at = :latest, clock_offset = :offset
WHERE key = :key AND task_id = :task_id AND origin = :origin AND state IN ('accepted', 'ended')
"""
_REFUSED = "refused"
"""The outcome of a task that a refusal has named: it stands for no attempt, as the key was free again."""

_LATEST = f"SELECT * FROM earlier WHERE key = ? AND outcome IS NOT '{_REFUSED}' ORDER BY attempt DESC LIMIT 1"  # noqa: S608 - our own words
_REFUSE = """
INSERT OR IGNORE INTO earlier (origin, task_id, family, key, attempt, at, outcome)
SELECT origin, :task_id, family, key, attempt, at, :outcome FROM submits WHERE key = :key
"""
EARLIER_ATTEMPT = f"""
SELECT key FROM earlier WHERE origin = :origin AND task_id = :task_id AND outcome IS NOT '{_REFUSED}'
"""  # noqa: S608 - our own words
_GIVE_BACK = """
UPDATE submits SET state = 'ended', owner = NULL, at = :at, attempt = :attempt,
    task_id = :task_id, outcome = :outcome, body = NULL, sent_at = NULL, lost_at = NULL, clock_offset = NULL
WHERE key = :key
"""
_DROP = "DELETE FROM earlier WHERE origin = :origin AND task_id = :task_id"


def replace(
    connection: sqlite3.Connection,
    identity: SubmissionKey,
    seen: EndedAttempt,
    owner: str,
    sent_as: SentAs | None,
    *,
    trace: str | None = None,
) -> bool:
    """Begin a new attempt in place of one that was seen to end; return whether that was still the last."""
    values: dict[str, Any] = {
        "key": identity.key,
        "origin": identity.origin,
        "request": identity.request,
        "task_id": seen.task_id,
        "outcome": seen.outcome,
        "owner": owner,
        "at": time.time(),
        "body": None,
        "latest": None,
        "offset": None,
        "trace": trace,
    }
    if sent_as is not None:
        values |= {"body": sent_as.body, "latest": sent_as.latest, "offset": sent_as.offset}

    row = connection.execute(
        "SELECT 1 FROM submits WHERE key = :key AND task_id = :task_id AND state IN ('accepted', 'ended')",
        values,
    ).fetchone()
    if row is None:  # another process was faster
        return False

    connection.execute(_KEEP, values)
    connection.execute(_BEGIN, values)
    return True


def withdraw(connection: sqlite3.Connection, key: str) -> None:
    """Take back the last attempt of a key, which made no task: the one before it, if any, is the last again."""
    before = connection.execute(_LATEST, (key,)).fetchone()
    if before is None:
        connection.execute("DELETE FROM submits WHERE key = ?", (key,))
        return

    connection.execute(_GIVE_BACK, dict(before))
    connection.execute(_DROP, dict(before))


def refuse(connection: sqlite3.Connection, identity: SubmissionKey, task_id: str) -> None:
    """Note the task that the refusal of a key's present attempt named, so that no later one is given it."""
    connection.execute(_REFUSE, {"key": identity.key, "task_id": task_id, "outcome": _REFUSED})


def earlier_key(connection: sqlite3.Connection, origin: str, task_id: str) -> str | None:
    """Return the key of which a task is an earlier attempt, None if it is none."""
    row = connection.execute(EARLIER_ATTEMPT, {"origin": origin, "task_id": task_id}).fetchone()
    if row is None:
        return None
    return str(row["key"])


def spent_key(connection: sqlite3.Connection, origin: str, task_id: str) -> str | None:
    """Return the key of which a task is an earlier attempt or was named by a refusal; None if neither."""
    query = "SELECT key FROM earlier WHERE origin = ? AND task_id = ?"
    row = connection.execute(query, (origin, task_id)).fetchone()
    if row is None:
        return None
    return str(row["key"])


def require_nobodys(connection: sqlite3.Connection, origin: str, task_id: str) -> None:
    """Raise `LedgerError` if a task is known to be a submission's, whenever that was."""
    earlier = spent_key(connection, origin, task_id)
    if earlier is not None:
        raise LedgerError(f"Task {task_id} was made by an earlier attempt of the submission {earlier!r}")

    other = keys_of(connection, origin, [task_id], 0.0, math.inf).get(task_id)
    if other is not None:
        raise LedgerError(
            f"Task {task_id} is that of the submission {other!r}: no two submissions have one task. If the "
            "unknown one has made none, use resubmit"
        )
