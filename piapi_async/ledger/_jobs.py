"""An operation in the writer's queue, and who hears of its result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from attrs import define, field

from ..observe._emitter import Events
from ._entries import SubmissionKey
from ._store import LedgerStore, Operation


@define(eq=False)
class Job(Operation):
    """An operation in the queue, and who hears of its result."""

    loop: asyncio.AbstractEventLoop = field(kw_only=True)
    future: asyncio.Future[Any] | None = field(default=None, kw_only=True)
    """What a caller awaits, None if nobody does."""
    settles: SubmissionKey | None = field(default=None, kw_only=True)
    """The submission that is no longer owned afterwards, even if the operation fails."""
    loss: str = field(default="", kw_only=True)
    """What to log if the operation fails and no caller hears of it."""
    between: Callable[[LedgerStore], Any] | None = field(default=None, kw_only=True)
    """What is done with the store between transactions, instead of the operation: closing the file."""

    def deliver(self, result: object) -> None:
        """Hand the result, or the error, to the caller.

        Log a loss if there is none, or it was cancelled.
        """
        future = self.future
        if future is None or future.done():
            self.log_loss(result)
        elif isinstance(result, BaseException):
            future.set_exception(result)
            future.exception()  # if the caller is gone, asyncio would complain that nobody looked
        else:
            future.set_result(result)

    def log_loss(self, result: object) -> None:
        """Log an error that nobody else hears of."""
        if isinstance(result, BaseException) and self.loss:
            _LOG.notice(logging.ERROR, f"{self.loss}: {result}", error=type(result).__name__)


_LOG = Events()  # of all processes' clients: a loss may be found where none is left
