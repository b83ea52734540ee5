"""What has been sent, accepted, ended: on disk before anything else happens.

Every submit is written down before its POST leaves (*sending*), and again when its id is known (*accepted*), when the
task has ended (*ended*), or when nobody can tell what became of it (*unknown*).  A process that is killed anywhere in
between leaves a row that says how far it got, so a rerun pays for nothing twice.

All work on the file is done by one thread, in groups: what is asked for while one commit is on its way to the disk goes
into the next, so the cost of a sync is shared by all submits in flight.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
from attrs import define, field

from ._ledger_file import Intent, LedgerEntry, LedgerFile, LedgerState
from .errors import LedgerError
from .tasks import TaskRef

__all__ = ["Ledger", "LedgerEntry", "LedgerState"]

logger = logging.getLogger("piapi_async")

T = TypeVar("T")


@define(eq=False)
class Ledger:
    """A file that remembers every submit: ``PiAPI(ledger=Ledger("run.db"))``.

    Making one touches no file; it is made, private to you (0600), at first use.  It holds prompts and task ids, and
    neither the API key nor webhook secrets.  The client that was given it closes it.  All methods raise `LedgerError`
    when the file is damaged, of a newer version, read-only, or on a full disk; nothing that was committed is lost.
    """

    path: Path = field(converter=Path)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _file: LedgerFile = field(init=False, repr=False)
    _queue: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = field(
        factory=list, init=False, repr=False
    )
    _writing: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._file = LedgerFile(self.path)

    async def __aiter__(self) -> AsyncIterator[LedgerEntry]:
        """Give every submit, in the order of the keys."""
        async for entry in self._entries(None):
            yield entry

    async def pending(self) -> list[LedgerEntry]:
        """Give the submits whose task was accepted and has not been seen to end."""
        return [entry async for entry in self._entries(LedgerState.ACCEPTED)]

    async def unknown(self) -> list[LedgerEntry]:
        """Give the submits of which nobody knows whether they made a task; see `resolve`."""
        return [entry async for entry in self._entries(LedgerState.UNKNOWN)]

    async def resolve(self, key: str, *, task_id: str | None = None, resubmit: bool = False) -> None:
        """Say what became of an unknown submit: it made `task_id`, or it made nothing and may be submitted again.

        Raises `LedgerError` when the key is not there, or not unknown.
        """
        if (task_id is None) == (not resubmit):
            raise ValueError("resolve: give either task_id= (it was accepted) or resubmit=True (it was not)")
        await self._do(lambda file: self._file.resolve(file, key, task_id))

    async def close(self) -> None:
        """Finish what is being written and close the file.  It opens again if it is used again."""
        while self._writing is not None:
            await asyncio.shield(self._writing)
        if self._thread is not None:
            thread, self._thread = self._thread, None
            await asyncio.get_running_loop().run_in_executor(thread, self._file.close)
            thread.shutdown()

    # -- for the client -------------------------------------------------------------------------------------------

    async def claim(self, intent: Intent) -> LedgerEntry | None:
        """Write down that a submit is about to be sent and give None, or give what the key stands for already.

        Raises `ValueError` when the key stands for another request.
        """
        return await self._do(lambda file: self._file.claim(file, intent))

    async def accept(self, intent: Intent, ref: TaskRef) -> None:
        """Write down the id; `LedgerError.ref` carries it when that fails."""
        try:
            await self._settle(lambda file: self._file.accept(file, intent, ref.task_id), intent)
        except LedgerError as error:
            raise LedgerError(
                f"Task {ref.task_id} was accepted, and is paid for, but could not be recorded: {error}", ref=ref
            ) from error

    async def doubt(self, intent: Intent) -> None:
        """Write down that nobody knows what became of a submit."""
        await self._settle(lambda file: self._file.doubt(file, intent), intent)

    async def release(self, intent: Intent) -> None:
        """Forget a submit that made nothing."""
        await self._settle(lambda file: self._file.release(file, intent), intent)

    def end(self, ref: TaskRef, outcome: str, answer: Any) -> None:  # noqa: ANN401 - JSON
        """Write down, soon, how a task ended; a task the ledger does not know is none of its business."""
        data = orjson.dumps(answer)
        done = self._put(lambda file: self._file.end(file, ref, outcome, data))
        done.add_done_callback(_log_failure)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _entries(self, state: LedgerState | None) -> AsyncIterator[LedgerEntry]:
        await self._do(self._file.sweep)
        after = ""
        while page := await self._do(partial(self._page, state, after)):
            for entry in page:
                yield entry
            after = page[-1].key

    def _page(self, state: LedgerState | None, after: str, file: sqlite3.Connection) -> list[LedgerEntry]:
        return self._file.entries(file, state, after, 500)

    async def _settle(self, work: Callable[[sqlite3.Connection], None], intent: Intent) -> None:
        try:
            await self._do(work)
        except LedgerError:
            self._file.let_go(intent)  # so that whoever asks for the key does not wait for us
            raise

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # A work that is queued is done: whoever is cancelled here cancels only the future, and does not hear of it.
        return await self._put(work)

    def _put(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.append((work, future))
        if self._writing is None:
            self._writing = loop.create_task(self._write(), name="piapi_async ledger")
        return future

    async def _write(self) -> None:
        """Commit what is queued, one group after the other, until nothing is."""
        loop = asyncio.get_running_loop()
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="piapi_async ledger")
        try:
            while self._queue:
                group, self._queue = self._queue, []
                results = await loop.run_in_executor(self._thread, self._commit, [work for work, _ in group])
                for (_, future), result in zip(group, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, BaseException):
                        future.set_exception(result)
                        future.exception()  # whoever waited may be gone
                    else:
                        future.set_result(result)
        finally:
            self._writing = None

    def _commit(self, works: list[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        try:
            return self._file.transaction(works)
        except (sqlite3.Error, OSError, LedgerError) as error:
            return [self._explain(error) for _ in works]

    def _explain(self, error: Exception) -> LedgerError:
        if isinstance(error, LedgerError):
            return LedgerError(str(error))
        hint = next((hint for word, hint in _HINTS.items() if word in str(error)), "")
        return LedgerError(f"The ledger {self.path} cannot be used: {error}.{hint}")


_HINTS = {
    "full": " Make room; what was committed is safe.",
    "readonly": " Make it, and its directory, writable.",
    "malformed": " It is damaged: keep a copy, and recover what can be with sqlite3's .recover.",
    "not a database": " It is damaged, or no ledger: keep a copy, and use another path.",
    "locked": " Another process holds it.",
}


def _log_failure(done: asyncio.Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.warning("the end of a task was not recorded: %s", error)
