"""Leaving out what is no longer needed of submissions that have ended.

What keeps a key from being paid for twice stays for ever: the key itself, the digest of its request, its
task and how that ended.  A request's path stays, too, so that a list shows what it was.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from attrs import frozen

from ._ledger import Ledger, writer_of
from ._queries import size_of

if TYPE_CHECKING:
    import sqlite3

_PAGE = 500  # rows that are compacted at a time

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


async def compact(ledger: Ledger, before: datetime) -> CompactionReport:
    """Drop the requests and responses of submissions made before a time, of those whose end was seen.

    ``await compact(ledger, datetime.now(UTC) - timedelta(days=30))``: their keys, digests, task ids and
    outcomes stay, and so do notes, times and numbers of attempts.  A compacted key gives the same task
    as before, never pays again, and is refused for another request.  If its task is asked for, the host
    is asked, as long as it has it.  Submissions that are open, or whose task was found after its
    response was lost, stay as they are.

    It may be done at any time, and goes on where it was left if it is cancelled or killed.  The file
    itself becomes smaller only if no client and no other process has it open; else the room is used for
    what is recorded next.  Raises `ValueError` for a time without a zone, and `LedgerError`.
    """
    if before.tzinfo is None:
        raise ValueError(f"compact: {before} has no time zone")

    writer = writer_of(ledger)
    size = await writer.run(size_of)
    count, after = 0, 0
    while page := await writer.run(compact_page, after, _PAGE, before.timestamp()):
        after = page.last
        count += page.compacted
    shrinking = await writer.shrink()
    return CompactionReport(count, size, shrinking.size, shrinking.obstacle)
