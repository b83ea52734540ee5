"""How long tasks took, kept from one run for the next: a hint, whose loss costs nothing but polls.

They are written beside the ends of tasks now and then, so that a process that is killed has kept
them and no commit is made for them alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson
from attrs import define

from ..errors import LedgerError

if TYPE_CHECKING:
    import sqlite3

    from ._writer import LedgerWriter

Durations: TypeAlias = Mapping[tuple[str, str], list[float]]
"""The last durations in seconds, by family and kind."""

_OFTEN = 30.0  # seconds between two writes

_READ = "SELECT family, kind, data FROM durations WHERE origin = ? ORDER BY updated DESC LIMIT 500"
_WRITE = "INSERT OR REPLACE INTO durations VALUES (?, ?, ?, ?, ?)"


def read_durations(connection: sqlite3.Connection, origin: str) -> dict[tuple[str, str], list[float]]:
    """Return the last durations at a host, in seconds, by family and kind."""
    found: dict[tuple[str, str], list[float]] = {}
    for family, kind, data in connection.execute(_READ, (origin,)):
        try:
            seconds = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if isinstance(seconds, list):
            found[family, kind] = [float(one) for one in seconds if isinstance(one, (int, float)) and one > 0]
    return found


def write_durations(connection: sqlite3.Connection, origin: str, durations: Durations) -> None:
    """Keep the last durations at a host, by family and kind."""
    now = time.time()
    rows = [
        (origin, family, kind, orjson.dumps(seconds), now) for (family, kind), seconds in durations.items()
    ]
    connection.executemany(_WRITE, rows)


class Learner(Protocol):
    """What learns how long tasks take."""

    def remember(self, earlier: Durations) -> None:
        """Take in the durations of an earlier run."""

    def take_news(self) -> Durations:
        """Return the last durations that were not returned yet."""


@define(eq=False, repr=False)
class DurationKeeper:
    """Keeps in a ledger what a client learns of durations, from its first submission on."""

    _ledger: LedgerWriter
    _origin: str
    _learner: Learner
    _asked: bool = False
    _kept_at: float = -math.inf

    def recall(self) -> None:
        """Ask the ledger, once, how long tasks took before; it answers soon."""
        if self._asked:
            return
        self._asked = True

        def take_in(earlier: asyncio.Future[Any]) -> None:
            if not earlier.cancelled() and earlier.exception() is None:
                self._learner.remember(earlier.result())

        with contextlib.suppress(LedgerError):  # the next submission will say so
            reading = asyncio.ensure_future(self._ledger.run(read_durations, self._origin))
            reading.add_done_callback(take_in)

    def keep_now_and_then(self, now: float) -> None:
        """Write the news beside an end that was queued just now, unless that was done lately."""
        if not self._asked or now - self._kept_at < _OFTEN:
            return

        self._kept_at = now
        news = self._learner.take_news()
        if news:
            self._ledger.hint(write_durations, self._origin, news)

    async def keep(self) -> None:
        """Write the news, before the client closes."""
        if not self._asked:
            return
        news = self._learner.take_news()
        if news:
            with contextlib.suppress(LedgerError):  # it is a hint, and no loss
                await self._ledger.run(write_durations, self._origin, news)
