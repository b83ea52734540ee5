"""Many requests, bounded: submitted, waited for, saved, each on its own account, and resumable with a ledger.

`BatchRunner` is what users hold; `_run` plays one stream of it, `_queues` has its input and output,
`_outcome` the values that go in and come out.

May import: _http, _text, _html, tasks, errors, policy, observe, _protocol, _verdict, _calls, _submit,
_wait, ledger, downloads, _runtime, handle, _client, client.
"""

from ._outcome import BatchItem, Outcome, Totals
from ._runner import BatchRunner

__all__ = ["BatchItem", "BatchRunner", "Outcome", "Totals"]
