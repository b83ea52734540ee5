"""What has been sent, accepted, ended: on disk before anything else happens.

Every submit is written down before its POST leaves (*sending*), and again when its id is known (*accepted*), when the
task has ended (*ended*), or when nobody can tell what became of it (*unknown*).  A process that is killed anywhere in
between leaves a row that says how far it got, so a rerun pays for nothing twice.

All work on the file is done by one thread, in groups: what is asked for while one commit is on its way to the disk goes
into the next, so the cost of a sync is shared by all submits in flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
from attrs import define, field

from .._calls.threads import running_loop
from ..errors import LedgerError
from ..tasks import TaskId, TaskRef, check_task_id
from ._entries import LedgerEntry, LedgerState, SubmissionKey
from ._store import FORKED, LedgerStore, Work

__all__ = ["Ledger", "LedgerEntry", "LedgerState"]

logger = logging.getLogger("piapi_async")

T = TypeVar("T")

_PAGE = 500  # entries that are read at a time
_CROWD = 16  # works in one group: above it, the next group is given a moment to fill up, as a commit costs by the group
_GATHER = 0.001  # seconds
_LOOP_PATIENCE = 0.05  # seconds for which the thread waits for a loop that may have stopped running


def _absolute(path: str | os.PathLike[str]) -> Path:
    if "\0" in os.fspath(path):
        raise ValueError(f"path: {path!r} is not allowed; no file can have that name")
    return Path(path).absolute()  # a change of directory is no change of ledger


@define(eq=False)
class Ledger:
    """A file that remembers every submit: ``PiAPI(ledger=Ledger("run.db"))``.

    Making one touches no file; it is made, private to you (0600), at first use.  It holds prompts and task ids, and
    neither the API key nor webhook secrets.  The client that was given it closes it.  All methods raise `LedgerError`
    when the file is damaged, of a newer version, read-only, or on a full disk; nothing that was committed is lost.  So
    they do when it was moved, deleted, replaced or overwritten while it was open: the error says where its rows are.

    Symbolic links are followed, and several processes may use one file.  One that is forked while a ledger is open
    cannot use that file (`LedgerError`): open it there only, or start processes with multiprocessing's "spawn".
    """

    path: Path = field(converter=_absolute)
    _file: LedgerStore = field(init=False, repr=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _queue: list[_Job] = field(factory=list, init=False, repr=False)
    _draining: asyncio.Future[None] | None = field(default=None, init=False, repr=False)
    _mutex: threading.Lock = field(factory=threading.Lock, init=False, repr=False)
    _resumed: threading.Event = field(factory=threading.Event, init=False, repr=False)
    _clients: int = field(default=0, init=False, repr=False)
    _pid: int = field(factory=os.getpid, init=False, repr=False)  # of the process that uses it

    def __attrs_post_init__(self) -> None:
        self._file = LedgerStore(self.path)

    async def __aiter__(self) -> AsyncIterator[LedgerEntry]:
        """Give every submit, in the order of the keys."""
        await self._do(self._file.sweep)
        after = ""
        while page := await self._do(partial(self._page, after)):
            for entry in page:
                yield entry
            after = page[-1].key

    async def entries(self, state: LedgerState | None = None) -> AsyncIterator[LedgerEntry]:
        """Yield every submit, or those of one state, in the order in which they were first recorded.

        However large the ledger is, only some hundred entries are in memory at a time.
        """
        await self._do(self._file.sweep)
        if state is not None:
            async for entry in self._of_state(state):
                yield entry
            return
        after = 0
        while page := await self._do(partial(self._recorded_page, after)):
            for _, entry in page:
                yield entry
            after = page[-1][0]

    async def pending(self) -> list[LedgerEntry]:
        """Return the submits whose task was accepted and has not been seen to end, the earliest first."""
        return [entry async for entry in self.entries(LedgerState.ACCEPTED)]

    async def unknown(self) -> list[LedgerEntry]:
        """Return the submits of which nobody knows whether they made a task, the earliest first; see `resolve`."""
        return [entry async for entry in self.entries(LedgerState.UNKNOWN)]

    async def find(self, key: str) -> LedgerEntry | None:
        """Give what a key stands for, None if nothing was submitted under it."""
        return await self._do(lambda file: self._file.find(file, key))

    async def counts(self) -> dict[str, int]:
        """Count the submits by state; those that have ended by how they did ("done", "failed", "cancelled")."""
        return await self._do(self._file.counts)

    async def resolve(self, key: str, *, task_id: str | None = None, resubmit: bool = False) -> None:
        """Say what became of an unknown submit: it made `task_id`, or it made nothing and may be submitted again.

        Raises `LedgerError` when the key is not there, or not unknown.
        """
        if (task_id is None) == (not resubmit):
            raise ValueError("resolve: give either task_id= (it was accepted) or resubmit=True (it was not)")
        known = None if task_id is None else check_task_id(task_id)
        await self._do(lambda file: self._file.resolve(file, key, known))

    async def close(self) -> None:
        """Finish what is being written and close the file, unless a client still uses it; it opens again if need be."""
        if self._clients == 0 and self._thread is not None and self._pid == os.getpid():
            await self._do(_CLOSE)

    # -- for the client -------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Note that one more client uses the ledger."""
        self._clients += 1

    async def leave(self) -> None:
        """Note that a client has done with it; the last one closes it."""
        self._clients -= 1
        await self.close()

    async def count(self, run: str, intents: Sequence[SubmissionKey]) -> list[int]:
        """Give the how-manieth of its kind each request is within a run, counting it; not held in memory."""
        return await self._do(lambda file: [self._file.count(file, run, intent) for intent in intents])

    async def claim(self, intent: SubmissionKey) -> LedgerEntry | None:
        """Write down that a submit is about to be sent and give None, or give what the key stands for already.

        Raises `ValueError` when the key stands for another request.
        """
        return await self._do(lambda file: self._file.claim(file, intent))

    async def accept(self, intent: SubmissionKey, ref: TaskRef) -> str | None:
        """Write down the id; `LedgerError.ref` carries it when that fails.

        Returns None, or the key of another submit that was given the same task: then this one is *unknown*.
        """
        loss = f"Task {ref.task_id} was accepted, and is paid for, but could not be recorded"
        try:
            return await self._do(lambda file: self._file.accept(file, intent, ref.task_id), settles=intent, loss=loss)
        except LedgerError as error:
            raise LedgerError(f"{loss}: {error}", ref=ref) from error

    async def doubt(self, intent: SubmissionKey) -> TaskId | None:
        """Write down that nobody knows what became of a submit; give its task if another process has heard of it."""
        return await self._do(lambda file: self._file.doubt(file, intent), settles=intent)

    async def release(self, intent: SubmissionKey) -> None:
        """Forget a submit that made nothing."""
        await self._do(lambda file: self._file.release(file, intent), settles=intent)

    async def open_keys(self) -> list[str]:
        """Return the keys of the submits that have not heard of a task: those under way anywhere, and the unknown."""
        return await self._do(self._file.open_keys)

    async def adopt(self, key: str, task_id: str) -> None:
        """Write down the task of such a submit, which another process may still be waiting for."""
        await self._do(lambda file: self._file.adopt(file, key, task_id))

    def end(self, ref: TaskRef, outcome: str, answer: Any) -> None:  # noqa: ANN401 - JSON
        """Write down, soon, how a task ended; a task the ledger does not know is none of its business."""
        try:
            data = orjson.dumps(answer)
        except TypeError:  # nested more deeply than can be written; the outcome is what matters
            data = b""
        loop, loss = running_loop(), f"The end of task {ref.task_id} was not recorded"
        self._put(_Job(lambda file: self._file.end(file, ref, outcome, data), loop, loss=loss))

    async def flush(self) -> None:
        """Return when all ends that were noted until now are on the disk, or have failed."""
        if self._draining is not None:
            with contextlib.suppress(LedgerError):
                await self._do(lambda _: None)  # works are done in their order

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _of_state(self, state: LedgerState) -> AsyncIterator[LedgerEntry]:
        places = await self._do(lambda file: self._file.places(file, state))
        for start in range(0, len(places), _PAGE):
            for entry in await self._do(partial(self._page_at, state, places[start : start + _PAGE])):
                yield entry

    def _page(self, after: str, file: sqlite3.Connection) -> list[LedgerEntry]:
        return self._file.entries(file, after, _PAGE)

    def _recorded_page(self, after: int, file: sqlite3.Connection) -> list[tuple[int, LedgerEntry]]:
        return self._file.recorded(file, after, _PAGE)

    def _page_at(self, state: LedgerState, places: Sequence[int], file: sqlite3.Connection) -> list[LedgerEntry]:
        return self._file.at_places(file, state, places)

    def _do(
        self, work: Callable[[sqlite3.Connection], T], *, settles: SubmissionKey | None = None, loss: str = ""
    ) -> Awaitable[T]:
        # A work that is queued is done: whoever is cancelled here cancels only the future, and does not hear of it.
        loop = running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._put(_Job(work, loop, done, settles, loss))
        return done

    def _put(self, job: _Job) -> None:
        """Queue a job for the thread; it goes on although the loop's tasks are cancelled, or the loop is gone."""
        if self._pid != os.getpid():
            self._move_in()
        with self._mutex:
            self._queue.append(job)
            if self._draining is None or self._draining.done():
                self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="piapi_async ledger")
                self._draining = job.loop.run_in_executor(self._thread, self._drain)

    def _move_in(self) -> None:
        """Take a ledger into a process that was forked, where its thread does not exist and its mutex may be held."""
        if self._file.is_open or self._queue:
            raise LedgerError(f"The ledger {self.path} was open when this process was forked: {FORKED}")
        self._pid, self._file, self._clients = os.getpid(), LedgerStore(self.path), 0
        self._thread, self._draining = None, None
        self._mutex, self._resumed = threading.Lock(), threading.Event()

    def _drain(self) -> None:
        """Commit what is queued, one group after the other, until nothing is.  In the thread."""
        while group := self._take():
            results = self._close() if group[0].work is _CLOSE else self._file.commit([job.work for job in group])
            for job, result in zip(group, results, strict=True):
                if job.settles is not None and isinstance(result, BaseException):
                    self._file.let_go(job.settles)  # so that whoever asks for the key does not wait for us
            self._resumed.clear()
            loop = group[0].loop
            try:
                loop.call_soon_threadsafe(self._deliver, loop, group, results)
            except RuntimeError:  # the loop was closed; what was written stays written
                for job, result in zip(group, results, strict=True):
                    job.report(result)
            else:
                # Whoever was waiting for this group goes on first, so that the next one is a whole group again.
                self._resumed.wait(_LOOP_PATIENCE)
                if len(group) >= _CROWD and 2 * len(self._queue) < len(group):  # the others are at the host
                    time.sleep(_GATHER)

    def _close(self) -> list[Any]:
        try:
            self._file.close()
        except Exception as error:  # noqa: BLE001 - whoever waits for it is to hear of it, whatever it is
            return [LedgerError(f"The ledger {self.path} could not be closed: {error}. What was committed is safe.")]
        return [None]

    def _deliver(self, loop: asyncio.AbstractEventLoop, group: list[_Job], results: list[Any]) -> None:
        for job, result in zip(group, results, strict=True):
            if job.done is None or job.done.done():  # nobody asked, or whoever did was cancelled
                job.report(result)
            elif isinstance(result, BaseException):
                job.done.set_exception(result)
                job.done.exception()  # whoever asked may be gone, and asyncio would complain that nobody looked
            else:
                job.done.set_result(result)
        loop.call_soon(self._resumed.set)

    def _take(self) -> list[_Job]:
        """Give the next group: all of one loop that is queued, but a close alone."""
        with self._mutex:
            if not self._queue:
                self._draining = None
                return []
            first = self._queue[0]
            ends = (index for index, job in enumerate(self._queue) if job.work is _CLOSE or job.loop is not first.loop)
            end = next(ends, len(self._queue)) or 1
            group, self._queue = self._queue[:end], self._queue[end:]
            return group


def check_key_of(key: object, ledger: Ledger | None) -> None:
    """Raise `ValueError` or `TypeError` for what cannot be a submit's key in this ledger."""
    if ledger is None:
        raise ValueError("key: it needs a ledger, PiAPI(ledger=Ledger(path)), and this client has none")
    check_key(key)


def check_key(key: object) -> None:
    """Raise `ValueError` or `TypeError` for what cannot be a submit's key in any ledger."""
    if not isinstance(key, str):
        raise TypeError(f"key: {key!r} is not allowed; it must be a text")
    if not key.strip() or not key.isprintable():
        raise ValueError(f"key: {key!r} is not allowed; it must be a printable text that is not empty")


@define(eq=False)
class _Job:
    work: Work
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any] | None = None
    """What somebody awaits; None where nobody does."""
    settles: SubmissionKey | None = None
    """The submit that this takes out of our hands, one way or the other."""
    loss: str = ""
    """What is to be logged when it fails and nobody hears of it."""

    def report(self, result: object) -> None:
        """Log a loss of which nobody else hears."""
        if self.loss and isinstance(result, BaseException):
            logger.error("%s: %s", self.loss, result)


def _CLOSE(_: sqlite3.Connection) -> None:  # noqa: N802 - a mark in the queue, never called
    """Stand in the queue for closing the file."""
