"""Promise 3: nothing paid for is lost.

Every submission is on disk before it leaves, and its task's id before the caller gets it.

`Ledger` is what users hold, `compact` makes its file smaller, and `_writer` is what their client records
with; `_store`, `_queries` and `_schema` have the SQL, `_file` holds the database, `_owners` the locks that
die with their process, and `_place` notices a file that was moved or replaced.  The ledger does not know
how anything is sent.

May import: _http, _text, tasks, errors, observe, _calls.
"""

from ._compaction import CompactionReport, compact
from ._entries import LedgerEntry, LedgerState
from ._ledger import Ledger

__all__ = ["CompactionReport", "Ledger", "LedgerEntry", "LedgerState", "compact"]
