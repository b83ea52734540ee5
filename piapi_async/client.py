"""`PiAPI`: submit, and wait well.

The client owns what several tasks share: the transport, the one poller behind all waits, and every POST that has begun
to leave.  Its `TaskHandle`s are one task each; handles of the same task share what is known about it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import warnings
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from functools import partial
from pathlib import PurePath
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import aiohttp
import anyio
from attrs import asdict, evolve

from ._book import PollBook
from ._bulk import cancel_all, fetch_many
from ._caller import Caller, Gate
from ._file_session import FileSession
from ._lanes import Watch
from ._poller import Poller
from ._secrets import Hidden
from ._stats import Counters, Stats
from ._submitter import Submitter
from ._threads import running_loop
from ._transport import Transport, check_base_url, check_key, origin_of
from ._uploads import Uploader, upload_url_for
from ._verdict import judge_read
from ._wire import TaskRequest, label
from .account import (
    Account,
    AccountInfo,
    ActiveTasks,
    CancelPending,
    GetActiveTasks,
    GetHistory,
    HistoryEntry,
)
from .downloads import host_of
from .errors import (
    ClientClosed,
)
from .handle import TaskHandle
from .ledger import Ledger, LedgerEntry, check_key_of
from .midjourney import LEGACY, MidjourneyResult
from .policy import PollPolicy, RetryPolicy, TokenBucket
from .tasks import Family, Task, TaskId, TaskRef, check_task_id, found_at

DEFAULT_BASE_URL = "https://api.piapi.ai"

logger = logging.getLogger("piapi_async")

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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

    What becomes of each task is logged at INFO, with the attributes `task_id` and `request` (the class's name) on the
    record: submitted, accepted, ended.

    Raises `ValueError` for a missing key, a base URL that is not allowed, and numbers that make no sense.
    """

    # A client that never was, because an argument was refused or unknown, needs no closing.
    _closed = True
    _loop: asyncio.AbstractEventLoop | None = None

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
        key = Hidden(os.environ.get("PIAPI_API_KEY") if api_key is None else api_key)
        api_key = None  # a traceback that shows local variables must not show the key
        self._pid = 0  # of the process that uses it
        self._closing: asyncio.Task[None] | None = None
        self._joined = False  # the ledger
        if base_url is None:  # "" is somebody's mistake, and must not mean the host that costs money
            base_url = os.environ.get("PIAPI_BASE_URL") or DEFAULT_BASE_URL
        base_url = check_base_url(base_url, allow_insecure=allow_insecure)
        upload_url = check_base_url(
            upload_url or os.environ.get("PIAPI_UPLOAD_URL") or upload_url_for(base_url),
            allow_insecure=allow_insecure,
            name="upload_url",
        )
        key = check_key(key)
        self._origin = origin_of(base_url)
        for name, part, kind in (("retry", retry, RetryPolicy), ("poll", poll, PollPolicy), ("ledger", ledger, Ledger)):
            if part is not None and not isinstance(part, kind):
                raise TypeError(f"{name}: {part!r} is not allowed; it must be a {kind.__name__}")
        _check_timeout(timeout)
        for name, value in (("connections", connections), ("multi_fetch_size", multi_fetch_size)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: {value!r} is not allowed; it must be a whole number above 0")
        transport = Transport(base_url, key.value, connections, trust_env, session)
        rng = Random()  # noqa: S311 - jitter, not a secret
        bucket = None if rate_limit is None else TokenBucket.of(rate_limit)
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
        if not hasattr(self, "_ledger"):  # in a traceback of its constructor, say
            return "<PiAPI: not made>"
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
            check_key_of(key, self._ledger)
        if not hasattr(request, "family"):
            raise TypeError(f"{label(request)} makes no task, so it cannot be submitted")
        if timeout is not None:
            _check_timeout(timeout)
        name, family = type(request).__name__, request.family  # asked for now: once it is paid for nothing may fail
        _tell("%s is being submitted", name, request=name)
        accepted = await self._submitter.submit(request, key, timeout)
        _tell("%s was accepted: task %s", name, accepted.task_id, task_id=accepted.task_id, request=name)
        watch = self._watch(family, accepted.task_id, submitted=accepted.known is None, announced=accepted.announced)
        watch.request = name
        return TaskHandle(self, watch, accepted.frozen), accepted.known

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
        asked = check_task_id(task_id)
        task = await self._caller.call(family.fetch(asked), judge_read)
        found_at(task, TaskRef(self._origin, family.name, asked))
        return task

    @overload
    async def fetch_many(self, task_ids: Iterable[str]) -> dict[str, Task[MidjourneyResult] | None]: ...
    @overload
    async def fetch_many(self, task_ids: Iterable[str], *, family: Family[R]) -> dict[str, Task[R] | None]: ...
    async def fetch_many(self, task_ids: Iterable[str], *, family: Family[Any] = LEGACY) -> dict[str, Task[Any] | None]:
        """Read any number of tasks now, many in one request where the host can; None for one it does not know.

        Where it cannot, eight are read at a time.  Raises as `fetch`, at the first error.
        """
        self._enter()
        ids = [check_task_id(task_id) for task_id in task_ids]
        tasks = await fetch_many(self._caller, self._poller.book, family, ids)
        for task in tasks.values():
            if task is not None:
                found_at(task, TaskRef(self._origin, family.name, task.task_id))
        return tasks

    async def cancel(self, *task_ids: str, family: Family[Any] = LEGACY) -> None:
        """Ask the host to cancel tasks; only those that have not started can be, so `wait` tells the outcome.

        Where tasks are cancelled one by one, one that is refused is raised when all have been asked for.
        """
        self._enter()
        await cancel_all(self._caller, family, [check_task_id(task_id) for task_id in task_ids])

    # -- beside the tasks -----------------------------------------------------------------------------------------

    async def upload(
        self, file: str | os.PathLike[str] | bytes | bytearray | memoryview, *, name: str | None = None
    ) -> str:
        """Put a file (a path, or bytes with a `name`) where the host's models can read it; gives its URL, for 24 hours.

        A path that was uploaded before, and has not changed, is not uploaded again.  An attempt may take the client's
        `timeout` and a second more for each 64 kB.  Raises `ValueError` for what the host would refuse (larger than 10
        MiB, other than jpg, jpeg, png, webp, mp4, wav, mp3, a name of more than 128 characters), `OSError` for a file
        that cannot be read, and `AuthenticationError` where the plan has no uploads.
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

    async def history(
        self, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[HistoryEntry, None]:
        """Yield the rows of the account's task history: every task of the unified API that was paid for.

        ::

            async for entry in piapi.history("kling", since=datetime.now(UTC) - timedelta(hours=1)):
                print(entry.task_id, entry.status, entry.cost)

        `model` is the host's name of one; `since` and `until` are times with a zone, to the second, and bound when a
        row was made.  Pages are read as they are needed, a hundred rows in each; a row that moves to the next page
        while they are read is yielded once.  How soon after a task its row appears is not documented.

        Raises `ValueError` for a time without a zone, and as `fetch`; `NotFoundError` where the host has no history.
        """
        self._enter()
        if since is not None and until is not None and since > until:
            raise ValueError(f"history: since, {since}, is later than until, {until}")
        request = GetHistory(model=model, since=since, until=until)
        known: frozenset[Any] = frozenset()
        while True:
            page = await self._caller.call(request, judge_read)
            marks = frozenset(_mark(entry) for entry in page.entries)
            for entry in page.entries:
                if _mark(entry) not in known:
                    yield entry
            # A host that does not know `page` gives the first one for ever.
            last = page.total is not None and request.page * page.size >= page.total
            if last or marks <= known:
                return
            request, known = evolve(request, page=request.page + 1), marks

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
        if self._loop is None or self._pid != os.getpid():  # in a forked process the sockets are the other's
            self._closed = True
            return
        self._check_loop()
        self._closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="piapi_async close")
        # An anyio scope that is cancelled would cancel this await again and again; `_close` is bounded by itself.
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._caller.gate.shut()
        async with contextlib.AsyncExitStack() as last:  # what fails keeps nothing that follows from being closed
            if self._ledger is not None and self._joined:
                last.push_async_callback(self._ledger.leave)
            last.push_async_callback(self._caller.transport.close)
            last.push_async_callback(self._uploader.close)
            if self._submitter.webhooks is not None:
                last.push_async_callback(self._submitter.webhooks.finish)
            last.push_async_callback(self._submitter.finish)
            await self._poller.close(ClientClosed("The client was closed while this wait was on."))

    def __del__(self) -> None:
        if not self._closed and self._loop is not None and self._pid == os.getpid():
            warnings.warn(f"{self!r} was dropped without `await close()`", ResourceWarning, source=self, stacklevel=2)

    def _enter(self) -> None:
        if self._pid and self._pid != os.getpid():
            raise RuntimeError(
                "This PiAPI was used before this process was forked, and its connections are the other's: make a new "
                "one here. Nothing was sent"
            )
        loop = running_loop()
        if self._loop is loop and not self._closed:  # nearly always
            return
        if self._loop is None:
            self._loop, self._pid = loop, os.getpid()
            if self._ledger is not None and not self._closed:
                self._ledger.join()
                self._joined = True
        self._check_loop()
        if self._closed:
            raise ClientClosed("The client is closed. Nothing was sent; make a new PiAPI.")

    def _check_loop(self) -> None:
        if self._loop is not running_loop():
            raise RuntimeError(
                "This PiAPI belongs to the event loop in which it was first used; make one client per loop"
            )

    def _file_session(self) -> FileSession:
        """Return a session for the files of this client's tasks: with its proxy and TLS, and without its key."""
        session, trust_env = self._caller.transport.lent
        return FileSession.make(host_of(self._origin), session=session, trust_env=trust_env)

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


def _mark(entry: HistoryEntry) -> Any:  # noqa: ANN401 - only compared
    """Return what tells a row of the history from all others."""
    return entry.id or (entry.task_id, entry.action, entry.created_at)


def _check_timeout(seconds: object) -> None:
    """Raise `ValueError` for what cannot bound an attempt: without an end, nothing would ever be given up."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:  # type: ignore[operator]  # a number, by now
        raise ValueError(f"timeout: {seconds!r} is not allowed; it must be a finite number of seconds above 0")


def _record_end(ledger: Ledger | None, origin: str, watch: Watch) -> None:
    if watch.task is None:
        return
    state = watch.task.state.value
    if not watch.end_logged:  # an end may be seen again
        watch.end_logged = True
        _tell("task %s has ended: %s", watch.task_id, state, task_id=watch.task_id, request=watch.request)
    if ledger is not None:
        ledger.end(TaskRef(origin, watch.family.name, watch.task_id), state, watch.task.raw)


def _tell(text: str, *values: str, request: str, task_id: str | None = None) -> None:
    """Log a step in a task's life, for those who collect them; what was asked for is not in it."""
    if logger.isEnabledFor(logging.INFO):
        with contextlib.suppress(Exception):  # somebody's handler must not come between a task and whoever paid for it
            logger.info(text, *values, extra={"task_id": task_id, "request": request})
