"""Who is alive: each worker counts its own heartbeats, and the others watch the counters.

No clock of one machine is compared with another's.  A worker whose counter stands still for a lease,
by the observer's own clock and while the observer's own heartbeats arrive, is given up: its items go
back into the queue.  If it lives after all, the engine refuses what it writes from then on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from attrs import define, field
from sqlalchemy.exc import DBAPIError

from .._calls.threads import in_thread
from ..observe._emitter import Events
from ._database import Database


@define(eq=False)
class Watchlist:
    """Since when the counter of each worker has stood still, by our own clock."""

    lease: float
    _seen: dict[str, tuple[int, float]] = field(factory=dict, init=False)

    def note(self, beats: Mapping[str, int], now: float) -> list[tuple[str, int]]:
        """Take in the counters; return the workers whose counter has stood still for a lease, with it."""
        still: list[tuple[str, int]] = []
        seen: dict[str, tuple[int, float]] = {}
        for worker, beat in beats.items():
            last, since = self._seen.get(worker, (beat, now))
            if last != beat:
                since = now
            seen[worker] = (beat, since)
            if now - since >= self.lease:
                still.append((worker, beat))
        self._seen = seen
        return still

    def start_over(self) -> None:
        """Forget all: while we could not see the database, nobody's counter told anything."""
        self._seen.clear()


@define(eq=False)
class Presence:
    """Counts the heartbeats of one worker, and takes over from those that stand still."""

    database: Database
    worker: str
    lease: float
    events: Events = field(factory=Events)
    watchlist: Watchlist = field(init=False)
    _looked_for_holders_at: float = field(default=float("-inf"), init=False)
    _clock: Callable[[], float] = time.monotonic

    def __attrs_post_init__(self) -> None:
        self.watchlist = Watchlist(self.lease)

    @property
    def interval(self) -> float:
        """Seconds between two heartbeats."""
        return self.lease / 5

    async def run(self) -> None:
        """Beat, and watch the others, until cancelled."""
        failing = False
        while True:
            try:
                await in_thread(self.beat)
            except DBAPIError as error:
                self.watchlist.start_over()
                if not failing:
                    text = f"the fleet's database is out of reach, trying again: {error.orig}"
                    self.events.notice(logging.WARNING, text, error=type(error).__name__)
                failing = True
            else:
                failing = False
            await asyncio.sleep(self.interval)

    def beat(self) -> None:
        """Count one heartbeat, and give up who stands still."""
        database = self.database
        database.beat(self.worker)
        now = self._clock()
        beats = database.beats()
        if now - self._looked_for_holders_at >= self.lease:
            # One that was given up, lived on, took an item and died before its next heartbeat.
            self._looked_for_holders_at = now
            database.enter_workers(database.holders() - beats.keys())

        beats.pop(self.worker, None)
        for worker, beat in self.watchlist.note(beats, now):
            if database.give_up_worker(worker, beat):
                self._take_over(worker, now)

    def _take_over(self, worker: str, now: float) -> None:
        released = self.database.release(worker, is_late=lambda: self._clock() - now >= self.lease)
        if released:
            text = (
                f"worker {worker} has stood still for {self.lease:g} s; {released} items of its "
                "are taken over"
            )
            self.events.notice(logging.WARNING, text)


async def hand_over(database: Database, worker: str) -> int:
    """Put what a worker holds back into the queue, as it is leaving; return how many items."""
    return await in_thread(partial(database.release, worker))
