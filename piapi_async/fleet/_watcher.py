"""One watcher for all waits of a process: two queries a second, however many wait."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from functools import partial

from attrs import define, field

from .._calls.threads import in_thread
from ..observe._emitter import Events
from ._database import Database, chunks
from ._jobs import End, ends_of

Woken = asyncio.Future[End]


@define(eq=False)
class Watcher:
    """Tells those who wait for keys how their last attempts have ended; asks only while somebody waits."""

    database: Database
    interval: float
    _events: Events = field(factory=Events)
    _waits: dict[str, set[Woken]] = field(factory=partial(defaultdict, set), init=False)
    _task: asyncio.Task[None] | None = field(default=None, init=False)
    _failing: bool = field(default=False, init=False)

    async def wait(self, key: str) -> End:
        """Return how the last attempt of a key has ended, once it has."""
        woken: Woken = asyncio.get_running_loop().create_future()
        self._waits[key].add(woken)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="piapi_async fleet watcher")
        try:
            return await woken
        finally:
            waits = self._waits.get(key)
            if waits is not None:
                waits.discard(woken)
                if not waits:
                    del self._waits[key]

    async def close(self) -> None:
        """Stop; who still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waits in list(self._waits.values()):
            for woken in waits:
                woken.cancel()

    async def _run(self) -> None:
        await asyncio.sleep(0)  # so that all who begin to wait in this turn are asked for together
        while self._waits:
            try:
                await self._look()
                self._failing = False
            except Exception as error:  # noqa: BLE001 - the database may fail in any way; the waits go on
                if not self._failing:
                    text = f"the fleet's database is out of reach, trying again: {error!r}"
                    self._events.notice(logging.WARNING, text, error=type(error).__name__)
                self._failing = True
            await asyncio.sleep(self.interval)

    async def _look(self) -> None:
        for few in chunks(list(self._waits)):
            for key, end in (await in_thread(partial(ends_of, self.database, few))).items():
                for woken in self._waits.pop(key, set()):
                    if not woken.done():
                        woken.set_result(end)
