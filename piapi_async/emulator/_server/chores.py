"""Tasks of the event loop that a server starts and must end, and the saving of its state among them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor

from attrs import Factory, define

from .._api.host import Host
from .._service.state_file import StateError, StateFile, snapshot

_LOG = logging.getLogger(__name__)

#: Seconds of the loop's time from a change to its saving: many changes share one write.
SAVE_AFTER = 0.2


@define(eq=False)
class Chores:
    """Background tasks, which run until they end or `stop` cancels them."""

    _tasks: set[asyncio.Task[None]] = Factory(set)

    def start(self, chore: Coroutine[None, None, None]) -> None:
        """Run a chore in the background."""
        task = asyncio.get_running_loop().create_task(chore)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Cancel all of them."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@define(kw_only=True, eq=False)
class StateSaver:
    """Saves the tasks of a host in a file, which `thread` writes; without a file it does nothing."""

    file: StateFile | None
    host: Host
    thread: ThreadPoolExecutor
    chores: Chores
    _unsaved: bool = False
    _saving: bool = False

    def changed(self) -> None:
        """Note a change, which is saved a moment later."""
        self._unsaved = True
        if self.file is not None and not self._saving:
            self._saving = True
            self.chores.start(self._save(self.file))

    async def _save(self, file: StateFile) -> None:
        """Write until nothing is new: changes that come soon after one another share one write."""
        while self._unsaved:
            await asyncio.sleep(SAVE_AFTER)
            self._unsaved = False
            try:
                await self._write(file)
            except StateError as error:  # the next change tries again, and the end of the run raises
                _LOG.warning("%s", error)
        self._saving = False

    async def save_now(self) -> None:
        """Write everything; raise `StateError` if that is not possible."""
        if self.file is not None:
            await self._write(self.file)

    async def _write(self, file: StateFile) -> None:
        taken = snapshot(self.host.engine, epoch=self.host.view.epoch, saved_at=time.time())
        await asyncio.get_running_loop().run_in_executor(self.thread, file.write, taken)
