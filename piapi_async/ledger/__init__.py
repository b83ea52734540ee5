"""Promise 3: nothing paid for is lost.  Every submission is on disk before it leaves, and its id before you hear of it.

`Ledger` is what users hold; `_store` has the SQL, `_owners` the locks that die with their process, `_place` notices a
file that was moved or replaced.  It does not know how anything is sent.

May import: _http, _text, tasks, errors, _calls.
"""

from ._entries import LedgerEntry, LedgerState
from ._ledger import Ledger

__all__ = ["Ledger", "LedgerEntry", "LedgerState"]
