"""Leaving out what is no longer needed of submissions that have ended.

What keeps a key from being paid for twice stays for ever: the key itself, the digest of its request, its
task and how that ended.  A request's path stays, too, so that a list shows what it was.
"""

from __future__ import annotations

import sqlite3

from attrs import frozen

_LAST = "SELECT max(rowid) FROM (SELECT rowid FROM submits WHERE rowid > ? ORDER BY rowid LIMIT ?)"
# A task that was found may turn out to be another submission's: then what was sent is needed again.
_COMPACT = """
UPDATE submits SET request = substr(request, 1, instr(request, ' ') - 1), answer = NULL, trace = NULL,
    body = NULL, sent_at = NULL, lost_at = NULL, clock_offset = NULL
WHERE rowid > :after AND rowid <= :last AND +state = 'ended' AND +at < :before AND +found IS NULL
    AND instr(request, ' ') > 0
"""


@frozen
class CompactionReport:
    """What compacting a ledger came to: entries, bytes of the database before and after.

    `obstacle` says why the file was not made smaller, "" if it was.
    """

    entries: int
    bytes_before: int
    bytes_after: int
    obstacle: str = ""


@frozen
class CompactedPage:
    """Some rows one after the other: the place of the last, and how many of them were compacted."""

    last: int
    compacted: int


def compact_page(
    connection: sqlite3.Connection, after: int, limit: int, before: float
) -> CompactedPage | None:
    """Compact those of the next rows that may be; return None if there are no more rows.

    `before` is a Unix time of this machine.
    """
    last: int | None = connection.execute(_LAST, (after, limit)).fetchone()[0]
    if last is None:
        return None
    values = {"after": after, "last": last, "before": before}
    return CompactedPage(last, connection.execute(_COMPACT, values).rowcount)
