"""The client's half of a ledger: what one process does with it, committed in groups by one thread.

Theory of operation
-------------------
*Why group commit.*  An entry counts once the disk has confirmed it, and a confirmation costs the
disk about as much for a hundred entries as for one.  So operations are queued, and a single thread
commits all that was queued during its last commit as one transaction: the more submissions are in
flight, the less each of them pays.

*Why linger.*  The callers of a commit are what fills the next one: an accepted submission is
followed by the next claim.  If the thread took whatever is queued right after a commit, one large
group would fray into many small ones. So it first waits until the loop has resumed those callers
(`_LOOP_GRACE` at most, in case the loop no longer runs).  If the group was large (`_LARGE_COMMIT`)
and less than half of it is back by then, most callers are waiting for the API; it waits `_LINGER`
longer for some of them to come back.  Small groups never linger: nothing would be gained.

*Cancellation.*  An operation that was queued is always run; cancelling its caller only discards its
result.  If nobody is left to hear of a loss, it is logged.

*Ownership.*  A submission whose fate could not be recorded is disowned at once, so that it counts
as *unknown* and others who ask for its key do not wait for this process.

*Loops and forks.*  Clients in several loops may share a ledger; a group belongs to one loop, whose
callers it wakes.  In a forked process the thread does not exist and the mutex may be held, so the
writer starts afresh there, unless the file was open, which SQLite does not survive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple

import orjson
from attrs import define, field, frozen

from .._calls.threads import running_loop
from ..errors import LedgerError
from ..observe._emitter import Events
from ..tasks import TaskId, TaskRef
from ._attempts import spent_key
from ._entries import NOTHING_KEPT, EndedAttempt, Kept, LedgerEntry, SubmissionKey, resolve_command
from ._file import FORKED, Shrinking
from ._jobs import Job
from ._queries import occurrence_numbers, open_keys, size_of
from ._recovery import OpenRow, SentAs, Taken, keys_of
from ._store import LedgerStore

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_LARGE_COMMIT = 16
"""Commits of so many operations linger if few callers are back: a commit has a fixed cost."""
_LINGER = 0.001
"""Seconds for which the next group may fill up."""
_LOOP_GRACE = 0.05
"""Seconds for which the thread waits for a loop, which may have stopped running."""


@define(eq=False)
class LedgerWriter:
    """What a client does with a ledger; users hold a `Ledger`.

    All methods raise `LedgerError` as that does.
    """

    path: Path
    _store: LedgerStore = field(init=False, repr=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _queue: list[Job] = field(factory=list, init=False, repr=False)
    _draining: asyncio.Future[None] | None = field(default=None, init=False, repr=False)
    _mutex: threading.Lock = field(factory=threading.Lock, init=False, repr=False)
    _resumed: threading.Event = field(factory=threading.Event, init=False, repr=False)
    _clients: list[_Client] = field(factory=list, init=False, repr=False)
    _pid: int = field(factory=os.getpid, init=False, repr=False)  # of the process that uses it

    def __attrs_post_init__(self) -> None:
        self._store = LedgerStore(self.path)

    # -- life -------------------------------------------------------------------------------------

    def join(self, events: Events) -> None:
        """Count one more client of the ledger, in the running loop; its observers are told of commits."""
        self._clients.append(_Client(running_loop(), events))

    async def leave(self, events: Events) -> None:
        """Count one client less; the last one closes the file."""
        await self.flush()  # so that its observers are told of its last commits
        self._clients = [client for client in self._clients if client.events is not events]
        await self.close()

    async def close(self) -> None:
        """Finish what is queued and close the file, unless a client uses it.

        It is opened again when needed.
        """
        was_used_here = self._thread is not None and self._pid == os.getpid()
        if not self._clients and was_used_here:
            await self._enqueue(_nothing, between=methodcaller("close"))

    async def shrink(self) -> Shrinking:
        """Give the pages that hold nothing back to the disk, unless a client or another process is there."""
        if self._clients:
            return Shrinking(await self.run(size_of), "a client uses it")
        shrinking: Shrinking = await self._enqueue(_nothing, between=methodcaller("shrink"))
        return shrinking

    # -- one submission ---------------------------------------------------------------------------

    async def claim(
        self,
        identity: SubmissionKey,
        sent_as: SentAs | None = None,
        kept: Kept = NOTHING_KEPT,
        replaces: EndedAttempt | None = None,
    ) -> LedgerEntry | None:
        """Record that a submission is about to be sent; return None, or the entry that its key has.

        `sent_as` is what a later process needs to find its task, `kept` stands beside it.  With
        `replaces` it is a new attempt, in the place of one that was seen to end.  Raises `KeyReused`
        if the key stands for another request.
        """
        # Nothing goes on in a loop that was closed, so what was claimed in it is nobody's then.
        claim = partial(self.store.claim, is_gone=running_loop().is_closed)
        return await self.run(claim, identity, sent_as, kept, replaces)

    async def accept(self, identity: SubmissionKey, ref: TaskRef) -> Taken | None:
        """Record the task that a response names; if that fails, the `LedgerError` has it as its `ref`.

        Returns None, or what came of it if another submission has the same task: see `LedgerStore.accept`.
        """
        loss = f"Task {ref.task_id} was accepted, and is paid for, but could not be recorded"
        try:
            taken: Taken | None = await self._enqueue(
                self.store.accept, (identity, ref.task_id), settles=identity, loss=loss
            )
        except LedgerError as error:
            raise self._lost(loss, error, identity, ref) from error
        return taken

    async def mark_unknown(self, identity: SubmissionKey) -> TaskId | None:
        """Record that a submission may have made a task; return that task if another process knows it."""
        task_id: TaskId | None = await self._enqueue(self.store.mark_unknown, (identity,), settles=identity)
        return task_id

    async def forget(self, identity: SubmissionKey, refused: TaskId | None = None) -> None:
        """Delete a submission that made no task; an attempt that it replaced is the last again.

        The task that its refusal has named, if any, is never given to a later submission.
        """
        await self._enqueue(self.store.forget, (identity, refused), settles=identity)

    async def attach_task(self, key: str, task_id: str) -> bool:
        """Record the task of a submission that has none, even one that another process is waiting for.

        Return whether it is that submission's now.
        """
        return await self.run(self.store.attach_task, key, task_id)

    # -- lost responses ---------------------------------------------------------------------------

    async def lose(self, identity: SubmissionKey, sent: tuple[float, float, float | None]) -> None:
        """Note that a response was lost: when the submission was sent, until when, the clock's offset."""
        await self.run(self.store.lose, identity, sent)

    async def open_rows(self, origin: str, family: str) -> list[OpenRow]:
        """Return the submissions without a task of one family of a host, of any process."""
        return await self.run(self.store.open_rows, origin, family)

    async def known_ids(
        self, origin: str, ids: Sequence[TaskId], since: float, until: float
    ) -> dict[str, str]:
        """Return the key of each id that any submission to a host is known by, ended ones included.

        The tasks were made between these Unix times of this machine.
        """
        return await self.run(keys_of, origin, ids, since, until)

    async def is_spent(self, origin: str, task_id: TaskId) -> bool:
        """Return whether a task is an earlier attempt's, or was named by a refusal: no later one made it."""
        return await self.run(spent_key, origin, task_id) is not None

    async def give_lost(self, identity: SubmissionKey, task_id: TaskId, found: str) -> Taken:
        """Record the task of a submission whose response was lost; if that fails, `LedgerError.ref` has it."""
        loss = f"Task {task_id} was found, and is paid for, but could not be recorded"
        try:
            taken: Taken = await self._enqueue(self.store.give_lost, (identity, task_id, found), loss=loss)
        except LedgerError as error:
            ref = TaskRef(identity.origin, identity.family, task_id)
            raise self._lost(loss, error, identity, ref) from error
        return taken

    def _lost(self, loss: str, error: LedgerError, identity: SubmissionKey, ref: TaskRef) -> LedgerError:
        """Return the error with the id of a task that could not be recorded, and how to record it."""
        why = str(error).rstrip(".")
        command = f"{resolve_command(self.path, identity.key)} --task-id {shlex.quote(ref.task_id)}"
        return LedgerError(f"{loss}: {why}. Once it can be written to, record the task: {command}", ref=ref)

    async def give_unknown(self, row: OpenRow, task_id: TaskId, found: str) -> Taken:
        """Record the task of a submission that is *unknown*, unless that has changed."""
        return await self.run(self.store.give_unknown, row, task_id, found)

    def end(self, ref: TaskRef, outcome: str, answer: Any) -> None:  # noqa: ANN401 - JSON
        """Record, soon, how a task ended.  Unknown tasks are ignored; a failure is logged."""
        try:
            data = orjson.dumps(answer)
        except TypeError:  # nested more deeply than can be written; the outcome is what matters
            data = b""

        loss = f"The end of task {ref.task_id} was not recorded"
        self._put(Job(self.store.end, (ref, outcome, data), loop=running_loop(), loss=loss))

    def hint(self, method: Callable[[sqlite3.Connection, *Arguments], None], *arguments: *Arguments) -> None:
        """Queue an operation that nobody waits for, in the transaction of those that are queued now."""
        self._put(Job(method, arguments, loop=running_loop(), loss="A hint was not recorded"))

    async def flush(self) -> None:
        """Return once all ends that were reported until now are on the disk, or have failed."""
        if self._draining is None:
            return
        with contextlib.suppress(LedgerError):
            await self.run(_nothing)  # operations are run in their order

    # -- reading ----------------------------------------------------------------------------------

    async def find(self, key: str) -> LedgerEntry | None:
        """Return the entry of a key, None if there is none."""
        return await self.run(self.store.find, key)

    async def counts(self) -> dict[str, int]:
        """Return the number of submissions by state, of those that ended by outcome."""
        return await self.run(self.store.counts)

    async def open_keys(self) -> list[tuple[str, int]]:
        """Return the keys of submissions without a task, of any process, each with its attempt's number."""
        return await self.run(open_keys)

    async def occurrence_numbers(self, run: str, identities: Sequence[SubmissionKey]) -> list[int]:
        """Count requests of a run; return for each its occurrence number.

        They are kept on disk, not in memory.
        """
        return await self.run(occurrence_numbers, run, identities)

    # -- operations -------------------------------------------------------------------------------

    @property
    def store(self) -> LedgerStore:
        """The store of this process, whose methods are run as operations."""
        self._check_process()
        return self._store

    def run(
        self,
        method: Callable[[sqlite3.Connection, *Arguments], T],
        *arguments: *Arguments,
    ) -> Awaitable[T]:
        """Queue an operation, and return an awaitable of its result."""
        return self._enqueue(method, arguments)

    def _enqueue(
        self,
        method: Callable[..., Any],
        arguments: tuple[Any, ...] = (),
        *,
        settles: SubmissionKey | None = None,
        loss: str = "",
        between: Callable[[LedgerStore], Any] | None = None,
    ) -> asyncio.Future[Any]:
        loop = running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(
            Job(method, arguments, loop=loop, future=future, settles=settles, loss=loss, between=between)
        )
        return future

    def _put(self, job: Job) -> None:
        """Queue a job, and start the thread unless it is at work.

        Nothing that is queued can be cancelled.
        """
        self._check_process()
        with self._mutex:
            self._queue.append(job)
            draining = self._draining
            if draining is not None and not draining.done():
                return
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="piapi_async ledger")
            self._draining = job.loop.run_in_executor(self._thread, self._drain)

    def _check_process(self) -> None:
        """Start afresh in a forked process; raise `LedgerError` if the file was open when it was forked."""
        if self._pid == os.getpid():
            return
        if self._store.is_open or self._queue:
            raise LedgerError(f"The ledger {self.path} was open when this process was forked: {FORKED}")

        self._pid = os.getpid()
        self._store = LedgerStore(self.path)
        self._clients = []
        self._thread = None
        self._draining = None
        self._mutex = threading.Lock()
        self._resumed = threading.Event()

    # -- in the thread ----------------------------------------------------------------------------

    def _drain(self) -> None:
        """Commit what is queued, one group after the other, until the queue is empty."""
        while group := self._next_group():
            began = time.monotonic()
            results = self._run_group(group)
            if self._deliver_soon(group, results, time.monotonic() - began):
                self._linger(len(group))

    def _next_group(self) -> list[Job]:
        """Take the next group from the queue: all that is queued of one loop.

        A job for between transactions is alone.
        """
        with self._mutex:
            if not self._queue:
                self._draining = None
                return []

            size = 1
            if self._queue[0].between is None:
                size = self._length_of_first_run()
            group, self._queue = self._queue[:size], self._queue[size:]
            return group

    def _length_of_first_run(self) -> int:
        loop = self._queue[0].loop
        for index, job in enumerate(self._queue):
            if job.between is not None or job.loop is not loop:
                return index
        return len(self._queue)

    def _run_group(self, group: list[Job]) -> list[Any]:
        if group[0].between is not None:
            return [self._run_between(group[0].between)]

        results = self._store.commit(group)
        for job, result in zip(group, results, strict=True):
            if job.settles is not None and isinstance(result, BaseException):
                self._store.disown(job.settles)
        return results

    def _run_between(self, method: Callable[[LedgerStore], Any]) -> Any:  # noqa: ANN401 - the method's
        try:
            return method(self._store)
        except LedgerError as error:
            return error
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller of `close` must hear of it
            what = f"The ledger {self.path} could not be closed: {error}"
            return LedgerError(f"{what}. What was committed is safe.")

    def _deliver_soon(self, group: list[Job], results: list[Any], seconds: float) -> bool:
        """Have the loop resume the callers of a group; return False if the loop is closed."""
        loop = group[0].loop
        self._resumed.clear()
        try:
            loop.call_soon_threadsafe(self._deliver, loop, group, results, seconds)
        except RuntimeError:  # closed; what was committed stays committed
            for job, result in zip(group, results, strict=True):
                job.log_loss(result)
            return False
        return True

    def _linger(self, size: int) -> None:
        """Let the callers of a commit resume first, so that their next operations share a commit."""
        self._resumed.wait(_LOOP_GRACE)
        few_are_back = 2 * len(self._queue) < size
        if size >= _LARGE_COMMIT and few_are_back:
            time.sleep(_LINGER)

    # -- back in the loop -------------------------------------------------------------------------

    def _deliver(
        self, loop: asyncio.AbstractEventLoop, group: list[Job], results: list[Any], seconds: float
    ) -> None:
        for job, result in zip(group, results, strict=True):
            job.deliver(result)
        self._tell(loop, group, results, seconds)
        loop.call_soon(self._resumed.set)  # after the callers, which have been scheduled by now

    def _tell(
        self, loop: asyncio.AbstractEventLoop, group: list[Job], results: list[Any], seconds: float
    ) -> None:
        """Tell the observers of the clients in a loop that a group was committed."""
        for client in self._clients:
            if client.loop is loop and client.events.heard_in_detail:
                operations = sum(job.method is not _nothing for job in group)
                failed = sum(isinstance(result, LedgerError) for result in results)
                client.events.ledger_written(self.path, operations, failed, seconds)


@frozen(eq=False)
class _Client:
    """A client that uses the ledger, in its loop."""

    loop: asyncio.AbstractEventLoop
    events: Events


def _nothing(_: sqlite3.Connection) -> None:
    """Do nothing: an operation that is awaited for those before it."""
