"""Many requests, bounded: submitted, waited for, saved, each on its own account, and resumable with a ledger.

`BatchRunner` does for a stream of items what `PiAPI` does for one; `_outcome` has the values that go in and come out.

May import: _http, _text, tasks, errors, policy, _protocol, _calls, ledger, downloads, _runtime, handle, client.
"""

from ._outcome import BatchItem, Outcome, Totals
from ._runner import BatchRunner

__all__ = ["BatchItem", "BatchRunner", "Outcome", "Totals"]
