"""Promise 3: nothing paid for is lost."""

from ._entries import LedgerEntry, LedgerState
from ._ledger import Ledger

__all__ = ["Ledger", "LedgerEntry", "LedgerState"]
