"""Many requests, bounded."""

from ._outcome import BatchItem, Outcome, Totals
from ._runner import BatchRunner

__all__ = ["BatchItem", "BatchRunner", "Outcome", "Totals"]
