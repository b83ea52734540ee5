"""Many requests, bounded."""

from ._runner import BatchItem, BatchRunner, Outcome, Totals

__all__ = ["BatchItem", "BatchRunner", "Outcome", "Totals"]
