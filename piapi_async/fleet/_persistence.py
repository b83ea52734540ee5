"""Calls of the database that are repeated until it answers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from attrs import define, field
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from .._calls.threads import in_thread
from ..observe._emitter import Events

T = TypeVar("T")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries


@define(eq=False)
class Persistence:
    """Repeats calls of the database while it is out of reach, as what they say is paid for.

    `give_up` is set when the process is to end: then the last error is raised.
    """

    events: Events
    give_up: threading.Event = field(factory=threading.Event)

    def run(self, work: Callable[[], T], what: str, **details: Any) -> T:  # noqa: ANN401 - attributes of log records
        """Return what a call returns."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return work()
            except DBAPIError as error:
                if isinstance(error, (IntegrityError, ProgrammingError)) or self.give_up.is_set():
                    raise
                text = f"{what} waits for the fleet's database, trying again in {pause:.1f} s: {error.orig}"
                self.events.notice(logging.WARNING, text, error=type(error).__name__, **details)
                self.give_up.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def in_thread(self, work: Callable[[], T], what: str, **details: Any) -> T:  # noqa: ANN401 - as above
        """Return what a call returns, made in a thread."""
        return await in_thread(partial(self.run, work, what, **details))
