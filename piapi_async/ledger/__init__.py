"""Promise 3: nothing paid for is lost."""

from ._ledger import Ledger
from ._store import LedgerEntry, LedgerState

__all__ = ["Ledger", "LedgerEntry", "LedgerState"]
