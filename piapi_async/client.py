"""`PiAPI` and `TaskHandle`: submit, and wait well.

The client owns what several tasks share: the transport, the one poller behind all waits, and every POST that has begun
to leave.  A handle is a task of one client; handles of the same task share what is known about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import os
import warnings
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import PurePath
from random import Random
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, cast, get_args, overload

import aiohttp
import anyio
from attrs import asdict, define

from ._book import PollBook, Waiter, Watch, differs
from ._caller import Caller, Gate
from ._poller import Poller
from ._stats import Counters, Stats
from ._submitter import Submitter
from ._transport import Transport, check_base_url, check_key, origin_of
from ._uploads import UPLOAD_URL, Uploader
from ._wire import TaskRequest, judge_multi_fetch, judge_read, label
from .account import Account, AccountInfo, ActiveTasks, GetActiveTasks
from .errors import (
    APIError,
    ClientClosed,
    NotFoundError,
    PiAPIError,
    TaskCancelled,
    TaskFailed,
    UnexpectedAnswer,
    WaitTimeout,
)
from .ledger import Ledger, LedgerEntry
from .midjourney import LEGACY, MidjourneyResult
from .policy import PollPolicy, RetryPolicy, TokenBucket
from .tasks import Family, Task, TaskId, TaskRef, TaskState, check_task_id
from .unified import CancelPending

DEFAULT_BASE_URL = "https://api.piapi.ai"

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

OnCancel = Literal["leave", "cancel_remote"]
_ON_CANCEL = get_args(OnCancel)


class PiAPI:
    """A client of PiAPI's task API, or of a host that speaks the same protocol.

    ::

        async with PiAPI() as piapi:
            handle = await piapi.submit(Reroll("6886fc4d-…", prompt="a cute cat"))
            task = await handle.wait(timeout=600)

    Making one does no I/O and needs no running loop; it belongs to the loop in which it is first used.  Close it with
    ``async with`` or `close`, from any task of that loop.

    api_key
        Default: the environment's PIAPI_API_KEY.  Sent to the base URL's origin only.
    base_url
        Default: the environment's PIAPI_BASE_URL, then https://api.piapi.ai.  Plain http only to this machine, unless
        `allow_insecure`.
    upload_url
        Where files are uploaded to.  Default: the environment's PIAPI_UPLOAD_URL, then the vendor's upload host if
        `base_url` is the vendor's, else ``/api/ephemeral_resource`` there: no key goes to a host that it is not for.
    timeout
        Seconds for one attempt of a call, connecting and reading included.
    retry
        How often and how long a call is tried; see `RetryPolicy`.
    poll
        How closely tasks are watched; see `PollPolicy`.
    rate_limit
        ``(requests, seconds)``: no more than that, whatever the requests are for.
    connections
        At most so many connections for reading, and as many for submitting.
    multi_fetch_size
        At most so many tasks are asked for in one request; hosts do not publish their limit.
    ledger
        Where every submit is written down, so that none is lost or paid twice when the process dies; see `Ledger`.
    session
        Your own `aiohttp.ClientSession`, with its proxy, TLS and traces; it is never closed here.
    trust_env
        Whether proxies are taken from the environment (for sessions made here).

    Raises `ValueError` for a missing key, a base URL that is not allowed, and numbers that make no sense.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        upload_url: str | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        rate_limit: tuple[int, float] | None = None,
        connections: int = 100,
        multi_fetch_size: int = 20,
        ledger: Ledger | None = None,
        session: aiohttp.ClientSession | None = None,
        trust_env: bool = False,
        allow_insecure: bool = False,
    ) -> None:
        self._closed = True  # until all arguments are found good: a client that never was needs no closing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        if base_url is None:  # "" is somebody's mistake, and must not mean the host that costs money
            base_url = os.environ.get("PIAPI_BASE_URL") or DEFAULT_BASE_URL
        base_url = check_base_url(base_url, allow_insecure=allow_insecure)
        upload_url = check_base_url(
            upload_url or os.environ.get("PIAPI_UPLOAD_URL") or _upload_url(base_url),
            allow_insecure=allow_insecure,
            name="upload_url",
        )
        api_key = check_key(os.environ.get("PIAPI_API_KEY") if api_key is None else api_key)
        self._origin = origin_of(base_url)
        for name, part, kind in (("retry", retry, RetryPolicy), ("poll", poll, PollPolicy), ("ledger", ledger, Ledger)):
            if part is not None and not isinstance(part, kind):
                raise TypeError(f"{name}: {part!r} is not allowed; it must be a {kind.__name__}")
        for name, value in (("timeout", timeout), ("connections", connections), ("multi_fetch_size", multi_fetch_size)):
            if not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"{name}: {value!r} is not allowed; it must be a number above 0")
        transport = Transport(base_url, api_key, connections, trust_env, session)
        rng = Random()  # noqa: S311 - jitter, not a secret
        bucket = _bucket(rate_limit)
        self._counters = Counters()
        self._caller = Caller(transport, retry or RetryPolicy(), Gate(bucket, rng), rng, timeout, self._counters)
        book = PollBook(poll or PollPolicy(), rng, multi_fetch_size, self._counters)
        on_end = partial(_record_end, ledger, self._origin)  # without us in it: a client dropped open is to be noticed
        self._poller = Poller(book, self._caller, max(1, connections // 4), on_end)
        self._uploader = Uploader.beside(self._caller, upload_url)
        self._submitter = Submitter(self._caller, self._origin, ledger, self._uploader.links)
        self._ledger = ledger
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._poller.book)} waiting, {len(self._submitter)} submitting"
        return f"<PiAPI {self._origin}: {state}>"

    @property
    def origin(self) -> str:
        """The host this client speaks to, as in ``https://api.piapi.ai``."""
        return self._origin

    @property
    def stats(self) -> Stats:
        """What the client has done so far: what an operator would plot."""
        counted = asdict(self._counters, recurse=False)
        counted["requests"] = dict(self._counters.requests)
        return Stats(waiting=len(self._poller.book), submitting=len(self._submitter), **counted)

    # -- calls ----------------------------------------------------------------------------------------------------

    async def submit(
        self, request: TaskRequest[R], *, key: str | None = None, timeout: float | None = None
    ) -> TaskHandle[R]:
        """Make a task, and give its handle.  This costs money.

        It is repeated only where certainly nothing was made.  With a ledger, `key` makes it idempotent: the same key
        and request give the same task however often they are submitted, by this process or another, now or after a
        crash; a key that stands for another request is a `ValueError`.

        Raises `APIError` when the host refused, `TransportError` (``sent=False``) when it could not be reached,
        `SubmissionUnknown` when a task may or may not have been made, and `LedgerError`, whose `ref` carries the id of
        a task that was accepted but could not be recorded.  A caller that is cancelled after the request has begun to
        leave loses only the answer, which still reaches the ledger.
        """
        handle, _ = await self._submit(request, key, timeout)
        return handle

    async def _submit(
        self, request: TaskRequest[R], key: str | None, timeout: float | None
    ) -> tuple[TaskHandle[R], LedgerEntry | None]:
        """Submit, and tell beside the handle what the ledger knew before."""
        self._enter()
        if key is not None:
            _check_ledger_key(key, self._ledger)
        if not hasattr(request, "family"):
            raise TypeError(f"{label(request)} makes no task, so it cannot be submitted")
        if timeout is not None and not timeout > 0:
            raise ValueError(f"timeout: {timeout!r} is not allowed; it must be above 0, or None for the client's")
        accepted = await self._submitter.submit(request, key, timeout)
        watch = self._watch(
            request.family, accepted.task_id, submitted=accepted.known is None, announced=accepted.announced
        )
        return TaskHandle(self, watch), accepted.known

    @overload
    def attach(self, task: str | TaskRef) -> TaskHandle[MidjourneyResult]: ...
    @overload
    def attach(self, task: str | TaskRef, *, family: Family[R]) -> TaskHandle[R]: ...
    def attach(self, task: str | TaskRef, *, family: Family[Any] = LEGACY) -> TaskHandle[Any]:
        """Give the handle of a task that exists already; asks nobody.

        Raises `ValueError` for an empty id, or a ref of another host or family.
        """
        if isinstance(task, TaskRef):
            if task.origin != self._origin:
                raise ValueError(f"task {task} lives at {task.origin}, this client speaks to {self._origin}")
            if task.family != family.name:
                raise ValueError(
                    f"task {task} is of the family {task.family!r}: pass family=, which is {family.name!r}"
                )
            task = task.task_id
        return TaskHandle(self, self._watch(family, check_task_id(task)))

    @overload
    async def fetch(self, task_id: str) -> Task[MidjourneyResult]: ...
    @overload
    async def fetch(self, task_id: str, *, family: Family[R]) -> Task[R]: ...
    async def fetch(self, task_id: str, *, family: Family[Any] = LEGACY) -> Task[Any]:
        """Read one task now.  Raises `NotFoundError`, other `APIError`, `TransportError`, `UnexpectedAnswer`."""
        self._enter()
        return await self._caller.call(family.fetch(check_task_id(task_id)), judge_read)

    @overload
    async def fetch_many(self, task_ids: Iterable[str]) -> dict[str, Task[MidjourneyResult] | None]: ...
    @overload
    async def fetch_many(self, task_ids: Iterable[str], *, family: Family[R]) -> dict[str, Task[R] | None]: ...
    async def fetch_many(self, task_ids: Iterable[str], *, family: Family[Any] = LEGACY) -> dict[str, Task[Any] | None]:
        """Read any number of tasks now, many in one request where the host can; None for one it does not know."""
        self._enter()
        ids = list(dict.fromkeys(check_task_id(task_id) for task_id in task_ids))
        found: dict[str, Task[Any] | None] = {}
        while rest := ids[len(found) :]:
            chunk = rest[: self._poller.book.size(family)]
            if len(chunk) > 1:
                found |= await self._fetch_chunk(chunk, family)
            else:
                found[chunk[0]] = await self._fetch_or_none(chunk[0], family)
        return found

    async def _fetch_chunk(self, ids: Sequence[TaskId], family: Family[Any]) -> dict[str, Task[Any] | None]:
        assert family.fetch_many is not None  # noqa: S101 - the book gives such families the size 1
        try:
            sightings = await self._caller.call(family.fetch_many(ids), judge_multi_fetch)
        except (APIError, UnexpectedAnswer) as error:
            if self._poller.book.learn(family, len(ids), error):
                return {}
            raise
        for sighting in sightings.values():
            if isinstance(sighting, UnexpectedAnswer):
                raise sighting
        return {task_id: cast("Task[Any] | None", sightings.get(task_id)) for task_id in ids}

    async def _fetch_or_none(self, task_id: TaskId, family: Family[R]) -> Task[R] | None:
        try:
            return await self._caller.call(family.fetch(task_id), judge_read)
        except NotFoundError:
            return None

    async def cancel(self, *task_ids: str, family: Family[Any] = LEGACY) -> None:
        """Ask the host to cancel tasks; only those that have not started can be, so `wait` tells the outcome."""
        self._enter()
        ids = [check_task_id(task_id) for task_id in task_ids]
        refused: PiAPIError | None = None
        for request in family.cancel(ids) if ids else ():
            try:
                await self._caller.call(request, judge_read)
            except PiAPIError as error:  # one that has begun is no reason to let the others begin
                refused = refused or error
        if refused is not None:
            raise refused

    # -- beside the tasks -----------------------------------------------------------------------------------------

    async def upload(
        self, file: str | os.PathLike[str] | bytes | bytearray | memoryview, *, name: str | None = None
    ) -> str:
        """Put a file (a path, or bytes with a `name`) where the host's models can read it; gives its URL, for 24 hours.

        A path that was uploaded before, and has not changed, is not uploaded again.  Raises `ValueError` for what the
        host would refuse (larger than 10 MiB, other than jpg, jpeg, png, webp, mp4, wav, mp3, a name of more than 128
        characters), `OSError` for a file that cannot be read, and `AuthenticationError` where the plan has no uploads.
        """
        self._enter()
        if isinstance(file, (bytes, bytearray, memoryview)):
            if name is None:
                raise ValueError("upload: bytes need a name, such as name='cat.png'")
            return await self._uploader.send(bytes(file), name)
        return await self._uploader.link(PurePath(file), name)

    async def account(self) -> Account:
        """Read the account behind the key.  Raises as `fetch`."""
        self._enter()
        return await self._caller.call(AccountInfo(), judge_read)

    async def active_tasks(self) -> dict[str, ActiveTasks]:
        """Read what is under way on the account, by provider.  Raises as `fetch`."""
        self._enter()
        return await self._caller.call(GetActiveTasks(), judge_read)

    async def cancel_pending(self, created_before: datetime, model: str = "all") -> None:
        """Ask to cancel the unified API's tasks of a model that are pending and were made before a time."""
        self._enter()
        await self._caller.call(CancelPending(created_before, model), judge_read)

    # -- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every wait with `ClientClosed`, let submits under way arrive (within their timeout), free the sockets.

        Tasks at the host go on.  Closing twice does no harm.
        """
        if self._loop is None:
            self._closed = True
            return
        self._check_loop()
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="piapi_async close")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._caller.gate.shut()
        await self._poller.close(ClientClosed("The client was closed while this wait was on; the task goes on."))
        await self._submitter.finish()
        if self._submitter.webhooks is not None:
            await self._submitter.webhooks.finish()
        await self._uploader.close()
        await self._caller.transport.close()
        if self._ledger is not None:
            await self._ledger.leave()

    def __del__(self) -> None:
        if not self._closed and self._loop is not None:
            warnings.warn(f"{self!r} was dropped without `await close()`", ResourceWarning, source=self, stacklevel=2)

    def _enter(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            if self._ledger is not None and not self._closed:
                self._ledger.join()
        self._check_loop()
        if self._closed:
            raise ClientClosed("The client is closed. Nothing was sent; make a new PiAPI.")

    def _check_loop(self) -> None:
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError(
                "This PiAPI belongs to the event loop in which it was first used; make one client per loop"
            )

    def _watch(
        self, family: Family[Any], task_id: TaskId, *, submitted: bool = False, announced: bool = False
    ) -> Watch:
        book = self._poller.book
        if (watch := book.find(family, task_id)) is not None:
            return watch
        if not submitted:
            return Watch(family, task_id, -math.inf)
        now = asyncio.get_running_loop().time()
        return Watch(family, task_id, book.first_look(now, announced=announced), now, announced=announced)

    async def _cancel_remote(self, handle: TaskHandle[Any]) -> None:
        """Try to cancel a task for a caller who is being cancelled itself: not for long, and without complaint."""
        with anyio.move_on_after(_CANCEL_REMOTE_SECONDS, shield=True), contextlib.suppress(PiAPIError):
            await self.cancel(handle.task_id, family=handle._watch.family)


_CANCEL_REMOTE_SECONDS = 5.0


def _record_end(ledger: Ledger | None, origin: str, watch: Watch) -> None:
    if ledger is not None and watch.task is not None:
        ref = TaskRef(origin, watch.family.name, watch.task_id)
        ledger.end(ref, watch.task.state.value, watch.task.raw)


def _upload_url(base_url: str) -> str:
    return UPLOAD_URL if base_url == DEFAULT_BASE_URL else f"{base_url}/api/ephemeral_resource"


def _bucket(rate_limit: tuple[int, float] | None) -> TokenBucket | None:
    if rate_limit is None:
        return None
    if not isinstance(rate_limit, tuple) or len(rate_limit) != 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"rate_limit: {rate_limit!r} is not allowed; it must be (requests, seconds)")
    return TokenBucket(*rate_limit)


def _check_ledger_key(key: object, ledger: Ledger | None) -> None:
    if ledger is None:
        raise ValueError("key: it needs a ledger, PiAPI(ledger=Ledger(path)), and this client has none")
    if not isinstance(key, str):
        raise TypeError(f"key: {key!r} is not allowed; it must be a text")
    if not key.strip() or not key.isprintable():
        raise ValueError(f"key: {key!r} is not allowed; it must be a printable text that is not empty")


@define(eq=False, repr=False)
class TaskHandle(Generic[R_co]):
    """One task of one client: look at it, wait for it, cancel it.

    Handles of the same task are equal, and share the looks at it while they wait.
    """

    _client: PiAPI
    _watch: Watch

    @property
    def task_id(self) -> str:
        """The id, as the host gave it."""
        return self._watch.task_id

    @property
    def ref(self) -> TaskRef:
        """What another process needs to `attach` to the task."""
        return TaskRef(self._client.origin, self._watch.family.name, self._watch.task_id)

    @property
    def task(self) -> Task[R_co] | None:
        """The task as it was last seen, or None; asks nobody."""
        return self._watch.task

    @property
    def error(self) -> PiAPIError | None:
        """Why there is no result: how the task ended, or what ended the last wait.  None while all is well."""
        task = self._watch.task
        if task is None or not task.state.terminal:
            return self._watch.error
        if task.state is TaskState.FAILED:
            return TaskFailed(f"Task {task.task_id} failed: {task.error or 'the host gives no reason'}.", task=task)
        if task.state is TaskState.CANCELLED:
            return TaskCancelled(f"Task {task.task_id} was cancelled.", task=task)
        return None

    def __repr__(self) -> str:
        return f"<TaskHandle {self.task_id}: {self.task.status if self.task else 'not seen yet'}>"

    def __eq__(self, other: object) -> bool:
        return self.ref == other.ref if isinstance(other, TaskHandle) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.ref)

    async def wait(self, timeout: float | None = None, *, on_cancel: OnCancel = "leave") -> Task[R_co]:
        """Give the finished task, waiting up to `timeout` seconds (None: for ever; 0: one look).

        Raises `TaskFailed`, `TaskCancelled`, `WaitTimeout` (the task goes on), `AuthenticationError`, `NotFoundError`
        (after a short grace), `ClientClosed`.  Passing faults of the network and the host do not end it.  With
        `on_cancel` "cancel_remote" a cancelled caller has the task cancelled at the host too, if it has not started.
        """
        if on_cancel not in _ON_CANCEL:
            raise ValueError(f"on_cancel: {on_cancel!r} is not allowed; use one of {_ON_CANCEL}")
        waiter = None if self._watch.ended else self._join(timeout)
        if waiter is not None:
            try:
                await waiter.bell
            except asyncio.CancelledError:
                self._leave(waiter)
                if on_cancel == "cancel_remote":
                    await self._client._cancel_remote(self)
                raise
        outcome = self._outcome(waiter, timeout)
        if isinstance(outcome, PiAPIError):
            raise outcome
        return outcome

    async def refresh(self) -> Task[R_co]:
        """Read the task now and give it, whatever its state.  Raises as `PiAPI.fetch`."""
        task = await self._client.fetch(self.task_id, family=self._watch.family)
        self._client._poller.seen(self._watch, task)
        return task

    async def updates(self, timeout: float | None = None) -> AsyncGenerator[Task[R_co], None]:
        """Give the task each time its status, progress or images have changed; the terminal one is the last.

        A slow consumer misses what has been overtaken, never the newest.  Raises as `wait`, but gives a task that
        failed or was cancelled like any other.
        """
        shown: Task[R_co] | None = None
        waiter = None if self._watch.ended else self._join(timeout, changes=True)
        watch = self._watch
        try:
            while True:
                if watch.task is not None and differs(shown, watch.task):
                    shown = watch.task
                    yield watch.task
                elif waiter is None or waiter not in watch.waiters:  # ended, or the time is up
                    break
                else:
                    await waiter.bell
                    waiter.bell = asyncio.get_running_loop().create_future()
        finally:
            if waiter is not None:
                self._client._poller.leave(watch, waiter)
        if not watch.ended and isinstance(outcome := self._outcome(waiter, timeout), PiAPIError):
            raise outcome

    async def cancel(self) -> None:
        """Ask the host to cancel the task; only one that has not started can be, so `wait` tells the outcome."""
        await self._client.cancel(self.task_id, family=self._watch.family)

    def _join(self, timeout: float | None, *, changes: bool = False) -> Waiter:
        if timeout is not None and (not isinstance(timeout, (int, float)) or math.isnan(timeout)):
            raise ValueError(f"timeout: {timeout!r} is not allowed; use seconds, or None to wait for ever")
        self._client._enter()
        webhooks = self._client._submitter.webhooks
        if webhooks is not None and webhooks.came_early(self._watch.task_id):
            self._watch.due, self._watch.told_at = -math.inf, asyncio.get_running_loop().time()
        self._watch, waiter = self._client._poller.join(self._watch, timeout, changes=changes)
        return waiter

    def _leave(self, waiter: Waiter) -> None:
        self._client._poller.leave(self._watch, waiter)

    def _outcome(self, waiter: Waiter | None, timeout: float | None) -> Task[R_co] | PiAPIError:
        """Give what a wait that is over came to."""
        task = self._watch.task
        if task is not None and task.state.terminal:
            return self.error or task
        if waiter is not None and waiter.error is not None:
            # Several waits may share an error; each raises its own, with its own traceback.
            error = copy.copy(waiter.error)
            error.__cause__ = waiter.error.__cause__
            return error
        if task is None:
            seen = "nothing was seen of it"
        else:
            seen = f"it was last seen {task.status}" + (f" at {task.progress} %" if task.progress is not None else "")
        fault = self._watch.fault
        seen += f" (the last look failed: {str(fault).rstrip('.')})" if fault is not None else ""
        late = WaitTimeout(
            f"Stopped waiting for task {self.task_id} after {timeout:g} s; {seen}. If it was accepted it goes on and "
            f"stays paid for: wait again, or later piapi.attach({self.task_id!r}).wait().",
            ref=self.ref,
            task=task,
        )
        late.__cause__ = fault
        return late
