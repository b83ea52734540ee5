"""`Fleet`: the service's side, which puts requests into the database and waits for their outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio
import orjson
from attrs import define, field
from sqlalchemy.exc import DBAPIError, OperationalError

from .._calls.threads import in_thread, running_loop
from .._protocol.family import TaskRequest
from ..batch import BatchItem, Outcome
from ..client import PiAPI, runtime_of
from ..errors import WaitTimeout
from ..ledger._entries import SubmissionKey, check_key
from . import _codec as codec
from . import _jobs
from ._codec import decode_outcome, encode_request
from ._database import Database, KeyNote, check_url
from ._jobs import AT_ONCE, BROKEN, Entry
from ._keys import Ranks, key_of, mint_key
from ._watcher import Watcher

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_NOT_OPEN = "use it as `async with Fleet(url) as fleet`; it is not open"


@define(eq=False)
class FleetJob(Generic[R_co]):
    """One request that the fleet has taken: its `key` finds it again, from any process (`Fleet.find`)."""

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
                f"{self.key} has no outcome after {timeout:g} s. The fleet goes on with it; wait for "
                "it again."
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
    _ranks: Ranks = field(factory=Ranks, init=False)

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
            raise RuntimeError(_NOT_OPEN)
        return self._opened

    # -- submitting -------------------------------------------------------------------------------

    async def submit(
        self, request: TaskRequest[R], *, key: str | None = None, batch: str | None = None
    ) -> FleetJob[R]:
        """Put a request into the fleet, and return its job; a worker will submit it, which costs money.

        The same key and request are the same job however often they are submitted, from any process;
        one whose submission was refused, so that nothing was paid, is tried again.  `batch` groups
        jobs for `outcomes`.

        Raises `KeyReused` for a key that stands for another request, `ValueError` for a local file
        without `uploads`, and for a webhook secret, and `ConnectionError` if the database is out of
        reach, as all methods do: it may hold the job by then, which only a `key` of your own finds again.
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
        while few := list(islice(source, AT_ONCE)):
            entries = [await self._entry(item, batch, len(jobs) + number) for number, item in enumerate(few)]
            await _ask(partial(_jobs.enqueue, database, entries, before=len(jobs)))
            jobs += [FleetJob(self, entry.key, entry.request, entry.index) for entry in entries]
        return jobs

    async def find(self, key: str) -> FleetJob[Any] | None:
        """Return the job of a key, from whichever process it came; None if there is none, or it was pruned.

        Its results are read as those of a request whose class is not known: `task.raw`, `task.files`.
        """
        found = await _ask(partial(_jobs.find, self._database, key))
        if found is None:
            return None
        request, index = found
        return FleetJob(self, key, request, index)

    async def _entry(self, item: TaskRequest[Any] | BatchItem[Any], batch: str | None, index: int) -> Entry:
        if not isinstance(item, BatchItem):
            item = BatchItem(item)
        request = item.request
        if not hasattr(request, "family"):
            raise TypeError(f"{type(request).__name__} makes no task, so it cannot be submitted")
        if item.extra is not None:
            raise ValueError(
                f"extra: a fleet keeps no {type(item.extra).__name__} beside an item. Give the item a key, and find "
                "by that what belongs to it. Nothing was submitted"
            )

        key = item.key
        if key is None:
            key = mint_key()
        check_key(key)

        # What is asked for, not the link under which a file of it lies for a day.
        identity = SubmissionKey.of(request.to_http(), key=key, origin="", family=request.family.name)
        sent = await self._with_links(request)
        payload = {"request": encode_request(sent), "digest": identity.digest.hex()}
        return Entry(key, request, payload, batch, index, self._ranks.next())

    async def _with_links(self, request: TaskRequest[Any]) -> TaskRequest[Any]:
        files: Sequence[Any] = getattr(request, "local_files", tuple)()
        if not files:
            return request
        if self.uploads is None:
            raise ValueError(
                f"{type(request).__name__}: {files[0]} is a file of this machine, which workers "
                "cannot read. Upload it first (PiAPI.upload), or make the fleet with "
                "uploads=piapi"
            )
        runtime = runtime_of(self.uploads)
        runtime.enter()
        links = await runtime.uploader.links_for(request, files)
        linked: TaskRequest[Any] = request.with_links(links)  # type: ignore[attr-defined]  # it has files
        return linked

    # -- outcomes ---------------------------------------------------------------------------------

    async def outcome_of(self, job: FleetJob[R]) -> Outcome[R]:
        """Return the outcome of a job, once it has one."""
        end = await self._end_of(job.key)
        if isinstance(end, KeyNote):
            return decode_outcome(
                orjson.loads(end.kept or ""), key=job.key, index=job.index, request=job.request
            )
        return _jobs.outcome_of(end, job.request, job.index)

    async def _end_of(self, key: str) -> _jobs.End:
        if self._watcher is None or self._opened is None or self._opened.closed:
            raise RuntimeError(_NOT_OPEN)
        return await self._watcher.wait(key)

    async def outcomes(self, *, batch: str | None = None) -> AsyncGenerator[Outcome[Any], None]:
        """Yield the outcome of each job of a batch (None: of all jobs) as it comes, then end.

        Those that have ended come first.  `Outcome.index` is the place in the batch.
        """
        database = self._database
        listed = await _ask(partial(_jobs.list_batch, database, batch))
        keys = {key_of(each.workflow_id)[0] for each in listed}
        waiting = {asyncio.create_task(self._ended(key), name="piapi_async outcome") for key in keys}
        try:
            while waiting:
                ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for outcome in [task.result() for task in ended]:
                    if outcome is not None:
                        yield outcome
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ended(self, key: str) -> Outcome[Any] | None:
        """Return the outcome of a key; None if it was pruned meanwhile, as those are that were before."""
        end = await self._end_of(key)
        if isinstance(end, KeyNote):
            return None
        return _jobs.outcome_of(end, None, (end.attributes or {}).get("index", 0))

    async def counts(self) -> dict[str, int]:
        """Return how many jobs are queued, running, done, failed, cancelled, refused and unknown."""
        by_status, by_state, pruned = await _ask(self._database.count_states)
        ends = {
            state: by_state.get(state, 0)
            for state in (codec.FAILED, codec.CANCELLED, codec.REFUSED, codec.UNKNOWN)
        }
        ended = by_status.get("SUCCESS", 0) + pruned
        broken = sum(by_status.get(status, 0) for status in BROKEN)
        return {
            "queued": by_status.get("ENQUEUED", 0) + by_status.get("DELAYED", 0),
            "running": by_status.get("PENDING", 0),
            "done": ended - sum(ends.values()),
            **ends,
            codec.CANCELLED: ends[codec.CANCELLED] + by_status.get("CANCELLED", 0),
            codec.UNKNOWN: ends[codec.UNKNOWN] + broken,
        }

    async def unknown(self) -> list[Outcome[Any]]:
        """Return the jobs of which nobody can tell whether they made a task: resolve them."""
        listed = await _ask(partial(_jobs.list_unknown, self._database))
        return [_jobs.outcome_of(each, None, 0) for each in listed]

    # -- what a person does -----------------------------------------------------------------------

    async def resolve(self, key: str, *, task_id: str | None = None, resubmit: bool = False) -> None:
        """Say what became of an unknown job: the id of its task, or that it made none and is to be submitted again.

        Raises `ValueError` for a job that is not unknown, and for a task that is another job's.
        """
        if (task_id is None) == (not resubmit):
            raise ValueError("resolve: give either task_id= (it was accepted) or resubmit=True (it was not)")
        await _ask(partial(_jobs.resolve, self._database, key, task_id), again=False)

    async def cancel(self, key: str) -> bool:
        """Cancel a job.  Return True if it had not been begun, so that it ends without a task.

        Else the worker that holds it asks the host, which cancels only what has not started there:
        the outcome tells.
        """
        return await _ask(partial(_jobs.cancel, self._database, key))

    async def prune(self, before: datetime) -> int:
        """Drop the host's answers of jobs that ended before a time, and return how many.

        Their keys, digests, task ids and outcomes stay, so that a pruned key does not pay again.
        Unknown jobs stay as they are.  Raises `ValueError` for a time without a zone.
        """
        if before.tzinfo is None:
            raise ValueError(f"prune: {before} has no time zone")
        return await _ask(partial(_jobs.prune, self._database, before))


async def _ask(work: Callable[[], R], *, again: bool = True) -> R:
    """Return what a call of the database returns.  Raises `ConnectionError` if that is out of reach.

    Where the connection was lost in the middle, nobody knows what was written: unless told not to, it is
    asked `again`, which does no harm.
    """
    try:
        return await in_thread(work)
    except DBAPIError as error:
        if error.connection_invalidated and again:
            return await _ask(work, again=False)
        if not isinstance(error, OperationalError):
            raise
        raise ConnectionError(
            f"the fleet's database is out of reach: {error.orig}. What it holds goes on; what was to be written "
            "may be there. To repeat it with the same key pays for nothing twice."
        ) from error
