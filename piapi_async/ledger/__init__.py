"""Promise 3: nothing paid for is lost.

Every submission is on disk before it leaves, and its task's id before the caller gets it.

`Ledger` is what users hold, `compact` makes its file smaller, and `_writer` is what their client records
with; `_store`, `_queries` and `_schema` have the SQL, `_file` holds the database, `_owners` the locks that
die with their process, and `_place` notices a file that was moved or replaced.  The ledger does not know
how anything is sent.

May import: _http, _text, tasks, errors, observe, _calls.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._entries import LedgerEntry, LedgerState
from ._ledger import Ledger

if TYPE_CHECKING:
    from ._compaction import CompactionReport, compact

__all__ = ["CompactionReport", "Ledger", "LedgerEntry", "LedgerState", "compact"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    # Every client knows what a ledger is, and few programs compact one.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("._compaction", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
