"""`Fleet`: the service's side, which puts requests into the database and waits for their outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import orjson
import sqlalchemy as sa
from attrs import define, evolve, field, frozen
from dbos import EnqueueOptions, WorkflowStatus
from dbos import error as engine_errors

from .._calls.threads import in_thread, running_loop
from .._protocol.family import TaskRequest
from ..batch import BatchItem, Outcome
from ..client import PiAPI, runtime_of
from ..errors import PiAPIError, SubmissionUnknown, WaitTimeout
from ..ledger._entries import SubmissionKey, check_key
from ..tasks import TaskRef, check_task_id
from . import _codec as codec
from ._codec import decode_outcome, decode_request, encode_error, encode_outcome, encode_request, without_answer
from ._database import APPLICATION, ITEM, QUEUE, VERSION, Database, KeyNote, check_url, chunks
from ._keys import item_of, key_of, mint_key
from ._watcher import ENDED, Watcher

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_AT_ONCE = 500
_FREE = (codec.REFUSED, codec.CANCELLED)
"""Ends of an attempt that made nothing, or nothing that is to be had: its key may be submitted again."""


@frozen
class _Entry:
    """One request on its way into the database."""

    key: str
    request: TaskRequest[Any]
    payload: dict[str, Any]
    batch: str | None
    index: int

    @property
    def digest(self) -> str:
        return str(self.payload["digest"])

    def options(self, attempt: int) -> EnqueueOptions:
        attributes: dict[str, Any] = {"digest": self.digest, "index": self.index}
        if self.batch is not None:
            attributes["batch"] = self.batch
        return {
            "workflow_name": ITEM,
            "queue_name": QUEUE,
            "workflow_id": item_of(self.key, attempt),
            "workflow_id_reuse_policy": "reject",
            "app_version": VERSION,
            "application_name": APPLICATION,
            "attributes": attributes,
        }


@define(eq=False)
class FleetJob(Generic[R_co]):
    """One request that the fleet has taken: `key` finds it again, from any process."""

    _fleet: Fleet
    key: str
    request: TaskRequest[R_co]
    index: int = 0

    def __repr__(self) -> str:
        return f"<FleetJob {self.key}>"

    async def wait(self, timeout: float | None = None) -> Outcome[R_co]:
        """Return its outcome, as a batch gives one: `task`, `files`, `error`.

        Raises `WaitTimeout` after `timeout` seconds (None: never); the work goes on.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._fleet.outcome_of(self)
        except TimeoutError:
            raise WaitTimeout(
                f"{self.key} has no outcome after {timeout:g} s. The fleet goes on with it; wait for it again."
            ) from None

    async def cancel(self) -> bool:
        """See `Fleet.cancel`."""
        return await self._fleet.cancel(self.key)


@define(eq=False)
class Fleet:
    """What a service holds of a fleet: it needs the database alone, no API key and no engine.

    ::

        async with Fleet("postgresql://…/app") as fleet:
            job = await fleet.submit(Reroll("6886fc4d", prompt="a cat"), key="order 17")
            outcome = await job.wait(timeout=600)

    `poll` is the seconds between two looks for outcomes, one for all waits of the process.  Local
    files of a request are uploaded with `uploads`, a client, before it is put into the database, as
    workers cannot read them; without one such a request is refused.
    """

    _url: str = field(converter=check_url, repr=False)
    poll: float = field(default=1.0, kw_only=True)
    uploads: PiAPI | None = field(default=None, kw_only=True)
    _opened: Database | None = field(default=None, init=False)
    _watcher: Watcher | None = field(default=None, init=False)

    # -- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        running_loop()
        self._opened = await in_thread(partial(Database.open, self._url))
        self._watcher = Watcher(self._opened, self.poll)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the work goes on."""
        with anyio.CancelScope(shield=True):
            if self._watcher is not None:
                await self._watcher.close()
            if self._opened is not None:
                await in_thread(self._opened.close)

    @property
    def _database(self) -> Database:
        if self._opened is None or self._opened.closed:
            raise RuntimeError("use it as `async with Fleet(url) as fleet`; it is not open")
        return self._opened

    # -- submitting -------------------------------------------------------------------------------

    async def submit(self, request: TaskRequest[R], *, key: str | None = None, batch: str | None = None) -> FleetJob[R]:
        """Put a request into the fleet, and return its job; a worker will submit it, which costs money.

        The same key and request are the same job however often they are submitted, from any process;
        one whose submission was refused, so that nothing was paid, is tried again.  `batch` groups
        jobs for `outcomes`.

        Raises `ValueError` for a key that stands for another request, a request with a local file
        and no `uploads`, or one with a webhook secret.
        """
        [job] = await self.submit_many([BatchItem(request, key)], batch=batch)
        return job

    async def submit_many(
        self, items: Iterable[TaskRequest[R] | BatchItem[R]], *, batch: str | None = None
    ) -> list[FleetJob[R]]:
        """Put many requests into the fleet, hundreds in one transaction.  Raises as `submit`."""
        database = self._database
        jobs: list[FleetJob[R]] = []
        source = iter(items)
        while few := list(islice(source, _AT_ONCE)):
            entries = [await self._entry(item, batch, len(jobs) + number) for number, item in enumerate(few)]
            await in_thread(partial(_enqueue, database, entries))
            jobs += [FleetJob(self, entry.key, entry.request, entry.index) for entry in entries]
        return jobs

    async def _entry(self, item: TaskRequest[Any] | BatchItem[Any], batch: str | None, index: int) -> _Entry:
        if not isinstance(item, BatchItem):
            item = BatchItem(item)
        request = item.request
        if not hasattr(request, "family"):
            raise TypeError(f"{type(request).__name__} makes no task, so it cannot be submitted")

        key = item.key
        if key is None:
            key = mint_key()
        check_key(key)

        # What is asked for, not the link under which a file of it lies for a day.
        identity = SubmissionKey.of(request.to_http(), key=key, origin="", family=request.family.name)
        sent = await self._with_links(request)
        payload = {"request": encode_request(sent), "digest": identity.digest.hex()}
        return _Entry(key, request, payload, batch, index)

    async def _with_links(self, request: TaskRequest[Any]) -> TaskRequest[Any]:
        files: Sequence[Any] = getattr(request, "local_files", tuple)()
        if not files:
            return request
        if self.uploads is None:
            raise ValueError(
                f"{type(request).__name__}: {files[0]} is a file of this machine, which workers cannot read. Upload it "
                "first (PiAPI.upload), or make the fleet with uploads=piapi"
            )
        runtime = runtime_of(self.uploads)
        runtime.enter()
        links = await runtime.uploader.links(files)
        linked: TaskRequest[Any] = request.with_links(links)  # type: ignore[attr-defined]  # it has files
        return linked

    # -- outcomes ---------------------------------------------------------------------------------

    async def outcome_of(self, job: FleetJob[R]) -> Outcome[R]:
        """Return the outcome of a job, once it has one."""
        while True:
            database = self._database
            notes = await in_thread(partial(database.notes, [job.key]))
            note = notes.get(job.key)
            if note is not None and note.kept is not None:
                return decode_outcome(orjson.loads(note.kept), key=job.key, index=job.index, request=job.request)

            attempt = note.attempt if note is not None else 1
            assert self._watcher is not None  # noqa: S101 - it is open
            ended = await self._watcher.wait(item_of(job.key, attempt))
            return _outcome(ended, job.request, job.index)

    async def outcomes(self, *, batch: str | None = None) -> AsyncGenerator[Outcome[Any], None]:
        """Yield the outcome of each job of a batch (None: of all jobs) as it comes, then end.

        Those that have ended come first.  `Outcome.index` is the place in the batch.
        """
        database = self._database
        items: dict[str, int] = {}
        for each in await in_thread(partial(_list_batch, database, batch)):
            key, attempt = key_of(each.workflow_id)
            items[key] = max(attempt, items.get(key, 0))

        waiting = {
            asyncio.create_task(self._ended(item_of(key, attempt)), name="piapi_async outcome")
            for key, attempt in items.items()
        }
        try:
            while waiting:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    yield task.result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ended(self, item: str) -> Outcome[Any]:
        assert self._watcher is not None  # noqa: S101 - it is open
        ended = await self._watcher.wait(item)
        return _outcome(ended, None, (ended.attributes or {}).get("index", 0))

    async def counts(self) -> dict[str, int]:
        """Return how many jobs are queued, running, done, failed, cancelled, refused and unknown."""
        by_status, by_state, pruned = await in_thread(self._database.count_states)
        ends = {
            state: by_state.get(state, 0) for state in (codec.FAILED, codec.CANCELLED, codec.REFUSED, codec.UNKNOWN)
        }
        ended = by_status.get("SUCCESS", 0) + pruned
        broken = by_status.get("ERROR", 0) + by_status.get("MAX_RECOVERY_ATTEMPTS_EXCEEDED", 0)
        return {
            "queued": by_status.get("ENQUEUED", 0) + by_status.get("DELAYED", 0),
            "running": by_status.get("PENDING", 0),
            "done": ended - sum(ends.values()),
            **ends,
            codec.FAILED: ends[codec.FAILED] + broken,
            codec.CANCELLED: ends[codec.CANCELLED] + by_status.get("CANCELLED", 0),
        }

    async def unknown(self) -> list[Outcome[Any]]:
        """Return the jobs of which nobody can tell whether they made a task: resolve them."""
        database = self._database
        notes = [note for note in await in_thread(partial(database.notes_in, codec.UNKNOWN)) if note.kept is None]
        items = [item_of(note.key, note.attempt) for note in notes]
        found: list[Outcome[Any]] = []
        for few in chunks(items):
            listing = partial(database.client.list_workflows, workflow_ids=list(few), status=ENDED)
            found += [_outcome(ended, None, 0) for ended in await in_thread(listing)]
        return found

    # -- what a person does -----------------------------------------------------------------------

    async def resolve(self, key: str, *, task_id: str | None = None, resubmit: bool = False) -> None:
        """Say what became of an unknown job: the id of its task, or that it made none, so that it is submitted again.

        Raises `ValueError` for a job that is not unknown, and for a task that is another job's.
        """
        if (task_id is None) == (not resubmit):
            raise ValueError("resolve: give either task_id= (it was accepted) or resubmit=True (it was not)")
        await in_thread(partial(_resolve, self._database, key, task_id))

    async def cancel(self, key: str) -> bool:
        """Cancel a job.  Return True if it had not been begun, so that it ends without a task.

        Else the worker that holds it asks the host, which cancels only what has not started there:
        the outcome tells.
        """
        return await in_thread(partial(_cancel, self._database, key))

    async def prune(self, before: datetime) -> int:
        """Drop the host's answers of jobs that ended before a time, and return how many.

        Their keys, digests, task ids and outcomes stay, so that a pruned key does not pay again.
        Unknown jobs stay as they are.  Raises `ValueError` for a time without a zone.
        """
        if before.tzinfo is None:
            raise ValueError(f"prune: {before} has no time zone")
        return await in_thread(partial(_prune, self._database, before))


# -- what is done in threads -----------------------------------------------------------------------


def _enqueue(database: Database, entries: Sequence[_Entry]) -> None:
    """Put entries into the queue in one transaction, but for those whose keys are known."""
    known = _enqueue_new(database, entries, frozenset())
    if known is None:  # some were pruned, or have a later attempt, and nothing was written
        noted = frozenset(database.notes([entry.key for entry in entries]))
        known = _enqueue_new(database, entries, noted) or []
        known += [entry for entry in entries if entry.key in noted]
    for entry in known:
        _meet_again(database, entry)


def _enqueue_new(database: Database, entries: Sequence[_Entry], leave: frozenset[str]) -> list[_Entry] | None:
    """Return the entries that the queue has already; None, and nothing is written, if a key is noted elsewhere."""
    known: list[_Entry] = []
    with database.engine.connect() as connection, connection.begin() as transaction:
        fresh: list[str] = []
        for entry in entries:
            if entry.key in leave:
                continue
            try:
                database.client.enqueue_in_transaction(connection, entry.options(1), entry.payload)
                fresh.append(entry.key)
            except engine_errors.DBOSWorkflowIDInUseError:
                known.append(entry)
        # After the insert: whoever removes an item has noted its key by the time that lets us insert.
        if database.notes(fresh, connection):
            transaction.rollback()
            return None
    return known


def _meet_again(database: Database, entry: _Entry) -> None:
    """Compare a request with the one that its key stands for; raise `ValueError` for another.

    Begin another attempt if the last one made nothing.
    """
    note = database.notes([entry.key]).get(entry.key)
    if note is None:
        listed = _listed(database, item_of(entry.key))
        if listed is None:
            return
        state = codec.CANCELLED if listed.status == "CANCELLED" else ""
        note = KeyNote(entry.key, 1, state, (listed.attributes or {}).get("digest", ""))

    if note.digest != entry.digest:
        raise ValueError(f"key: {entry.key!r} stands for another request in this fleet. Nothing was submitted")
    if note.state not in _FREE or note.kept is not None:
        return
    if note.state == codec.CANCELLED and database.task_of(item_of(entry.key, note.attempt)) is not None:
        return  # a task was made, and the host has cancelled it: an outcome, and perhaps paid for

    _next_attempt(database, note, entry.payload, entry.options(note.attempt + 1))


def _next_attempt(
    database: Database, note: KeyNote, payload: dict[str, Any], options: EnqueueOptions, ref: TaskRef | None = None
) -> bool:
    """Begin the attempt after the one that is noted; return False if another process was first."""
    database.note_end(note)  # a queued one that was cancelled has no note of its own

    def enqueue(connection: sa.Connection) -> object:
        return database.client.enqueue_in_transaction(connection, options, payload)

    after = evolve(note, attempt=note.attempt + 1, state="", nonce="")
    begun = database.begin_attempt(after, enqueue, ref=ref)
    if begun:
        database.client.delete_workflows([item_of(note.key, note.attempt)])
    return begun


def _list_batch(database: Database, batch: str | None) -> list[WorkflowStatus]:
    """Return the items of a batch, or all, without their contents."""
    attributes = None
    if batch is not None and not database.is_sqlite:  # which cannot look into JSON
        attributes = {"batch": batch}
    listed = database.client.list_workflows(name=ITEM, attributes=attributes, load_input=False, load_output=False)
    if batch is None:
        return listed
    return [each for each in listed if (each.attributes or {}).get("batch") == batch]


def _listed(database: Database, item: str, *, load: bool = False) -> WorkflowStatus | None:
    found = database.client.list_workflows(workflow_ids=[item], load_input=load, load_output=load)
    return found[0] if found else None


def _resolve(database: Database, key: str, task_id: str | None) -> None:
    note = database.notes([key]).get(key)
    listed = None
    if note is not None and note.state == codec.UNKNOWN:
        listed = _listed(database, item_of(key, note.attempt), load=True)
    if note is None or listed is None or listed.input is None:
        raise ValueError(f"{key!r} is not an unknown job of this fleet; `unknown()` lists them")

    payload = dict(listed.input["args"][0])
    payload.pop("ref", None)
    ref = None
    if task_id is not None:
        ref = TaskRef(database.origin(), payload["request"]["family"], check_task_id(task_id))
        payload["ref"] = codec.encode_ref(ref)

    attributes = listed.attributes or {}
    entry = _Entry(
        key, decode_request(payload["request"]), payload, attributes.get("batch"), attributes.get("index", 0)
    )
    if not _next_attempt(database, note, payload, entry.options(note.attempt + 1), ref):
        raise ValueError(f"{key!r} was resolved by somebody else just now")


def _cancel(database: Database, key: str) -> bool:
    note = database.notes([key]).get(key)
    item = item_of(key, note.attempt if note is not None else 1)
    listed = _listed(database, item)
    if listed is None:
        raise ValueError(f"{key!r} is not a job of this fleet")
    if listed.status in ENDED:
        return listed.status == "CANCELLED"

    begun = listed.status == "PENDING" or database.client.list_workflow_steps(item)
    if not begun:
        database.client.cancel_workflow(item)
        if not database.client.list_workflow_steps(item) and not _was_claimed(database, item):
            return True
        # A worker was faster: the item goes on, under a worker that reads what was recorded.
        database.client.resume_workflow(item, queue_name=QUEUE)
    database.ask_cancel(item)
    return False


def _was_claimed(database: Database, item: str) -> bool:
    listed = _listed(database, item)
    return listed is not None and bool(listed.executor_id)


def _prune(database: Database, before: datetime) -> int:
    pruned = 0
    while True:
        ended = database.client.list_workflows(
            name=ITEM, status=["SUCCESS"], completed_before=before.isoformat(), limit=_AT_ONCE, offset=0
        )
        gone: list[str] = []
        for each in ended:
            outcome: dict[str, Any] = each.output or {}
            if outcome.get("state", codec.UNKNOWN) == codec.UNKNOWN:
                continue
            key, attempt = key_of(each.workflow_id)
            digest = (each.attributes or {}).get("digest", "")
            kept = orjson.dumps(without_answer(outcome)).decode()
            database.keep(KeyNote(key, attempt, outcome["state"], digest, kept))
            gone.append(each.workflow_id)
        if not gone:
            return pruned
        database.client.delete_workflows(gone)
        pruned += len(gone)


def _outcome(ended: WorkflowStatus, request: TaskRequest[Any] | None, index: int) -> Outcome[Any]:
    """Return the outcome of an item that has ended."""
    key, _ = key_of(ended.workflow_id)
    if request is None and ended.input is not None:
        request = decode_request(ended.input["args"][0]["request"])
    assert request is not None  # noqa: S101 - the input is loaded

    data = ended.output
    if ended.status == "CANCELLED":
        data = encode_outcome(
            codec.CANCELLED, error=PiAPIError(f"{key} was cancelled before it was submitted; nothing was paid.")
        )
    elif ended.status != "SUCCESS" or not isinstance(data, dict):
        text = f"{key} ended with a fault of the worker: {ended.error!r}. Look at its log; a task may have been made"
        failure = SubmissionUnknown(text, request=request, at=(ended.created_at or 0) / 1000, key=key)
        data = encode_outcome(codec.FAILED, error=encode_error(failure))
    return decode_outcome(data, key=key, index=index, request=request)
