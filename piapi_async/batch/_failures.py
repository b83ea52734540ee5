"""What an error means to a batch: whose it is, what its outcome says, and whether to go on."""

from __future__ import annotations

import asyncio
from typing import Any

from .._protocol.family import TaskRequest
from .._text import label
from ..errors import AuthenticationError, InsufficientCreditError, LedgerError

HOPELESS = (AuthenticationError, InsufficientCreditError)
"""After these every further submission would be refused."""


def require_task(index: int, request: TaskRequest[Any]) -> None:
    """Raise `TypeError` for what makes no task."""
    if not hasattr(request, "family"):
        raise TypeError(f"item {index} of the batch, {label(request)}, makes no task")


def ends_worker(error: BaseException) -> bool:
    """Return whether an error is not the item's: the worker is being stopped, or the whole program."""
    if isinstance(error, asyncio.CancelledError):
        worker = asyncio.current_task()
        return worker is not None and worker.cancelling() > 0
    return isinstance(error, (KeyboardInterrupt, SystemExit))


def as_failure(error: BaseException) -> Exception:
    """Return what an item has met with, as its outcome says it."""
    if not isinstance(error, Exception):
        failure = RuntimeError(f"the item's request raised {error!r}")
        failure.__cause__ = error
        return failure

    # A key that no ledger takes: its text begins so.
    if type(error) is ValueError and str(error).startswith("key:"):
        return LedgerError(str(error))
    return error
