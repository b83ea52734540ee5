"""`PiAPI`: submit, and wait well.

The client checks arguments and delegates to its `Runtime`, which has the parts that several tasks
share.  A `TaskHandle` is one task; handles of the same task share what is known about it.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path, PurePath
from random import Random
from types import TracebackType
from typing import Any, Self, TypeVar, overload

import aiohttp
from attrs import asdict

from ._calls.clock import HostClock
from ._calls.secrets import Hidden
from ._calls.sender import Sender
from ._calls.throttle import Throttle
from ._calls.transport import Transport, origin_of
from ._client.arguments import Endpoint, check_class, check_recover, check_whole, poll_policy
from ._client.history import all_entries
from ._protocol.family import Family, TaskRequest
from ._runtime import Runtime, check_timeout
from ._submit.unknown_rows import RecoveryReport
from ._verdict import judge_read
from ._wait.bulk import fetch_many
from .account import (
    Account,
    ActiveTasks,
    CancelPending,
    GetActiveTasks,
    GetHistory,
    HistoryEntry,
)
from .handle import OnCancel, TaskHandle, own_family
from .ledger import Ledger
from .midjourney import MidjourneyResult
from .observe import Observer
from .observe._emitter import Events, check_observers
from .policy import PollPolicy, RetryPolicy, TokenBucket
from .stats import Counters, Stats
from .tasks import Task, TaskId, TaskLike, TaskRef, found_at

R = TypeVar("R")


class PiAPI:
    """A client of PiAPI's task API, or of any host that speaks the same protocol.

    ::

        async with PiAPI() as piapi:
            task = await piapi.run(Reroll("6886fc4d-…", prompt="a cute cat"), timeout=600)

    Constructing one does no I/O and needs no running loop; it belongs to the loop in which it is
    first used.  Close it with ``async with`` or `close`, from any task of that loop.

    api_key
        Default: the environment variable PIAPI_API_KEY.  Sent to the base URL's origin only.
    base_url
        Default: the environment variable PIAPI_BASE_URL, then https://api.piapi.ai.  Plain http is
        allowed only to this machine, unless `allow_insecure`.
    upload_url
        Where files are uploaded.  Default: the environment variable PIAPI_UPLOAD_URL, then the
        vendor's upload host if `base_url` is the vendor's, else ``/api/ephemeral_resource`` at
        `base_url`: the key goes to no other host.
    family
        What a bare id means, and whose host this is; a request of another vendor's is then refused
        before it is sent.  Default: that of the vendor whose own URL `base_url` is, else legacy
        Midjourney's, beside which any other may be used.
    timeout
        Seconds that one attempt of a call may take, connecting and reading included.
    retry
        How often, and for how long, a call is tried; see `RetryPolicy`.
    poll
        How closely tasks are polled; see `PollPolicy`.  Default: ``PollPolicy()``, at the speed that
        the environment variable PIAPI_POLL_SPEED says if `base_url` is plain http, as an emulator's.
    rate_limit
        ``(requests, seconds)``: the most requests of any kind in that time.
    connections
        The most connections for reading, and as many again for submitting.
    multi_fetch_size
        The most tasks to ask for in one request; hosts do not publish their limit.
    ledger
        Where every submission is recorded, so that none is lost or paid twice if the process dies;
        see `Ledger`.
    recover
        Seconds for which a submission whose response was lost is looked for in the host's history; 0:
        not at all.  A task is taken for its own if it was created while the submission was on its way
        and shows the very inputs that were sent, if no other submission of this process or of the
        ledger has it or may still be answered, and if there are no more such tasks than lost
        submissions.  The one risk: another program sends the same input with the same key in the same
        seconds, and shares neither the event loop nor the ledger.  If yours does that, use 0, or one
        ledger.
    session
        Your own `aiohttp.ClientSession`, with its proxy, TLS and traces; it is never closed by the
        client.
    trust_env
        Whether the client's own sessions take proxies from the environment.

    observers
        What is told of everything that happens, for metrics and traces; see `piapi_async.observe`.

    allow_insecure
        Whether plain http may be used to other machines, where it shows the key to the network: to
        ``http://emulator:8080`` in a docker compose file, say.

    Each task is logged at INFO when it is submitted, accepted and ended; the records have the
    attributes `task_id`, `request` (the class's name), `key` and more.

    Raises `ValueError` for a missing key, a base URL that is not allowed, and numbers out of range,
    and `TypeError` for a policy or ledger of the wrong class.
    """

    _ledger: Ledger | None = None
    _runtime: Runtime  # missing if the constructor refused an argument

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        upload_url: str | None = None,
        family: Family[Any] | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        poll: PollPolicy | None = None,
        rate_limit: tuple[int, float] | None = None,
        connections: int = 100,
        multi_fetch_size: int = 20,
        ledger: Ledger | None = None,
        recover: float = 60.0,
        session: aiohttp.ClientSession | None = None,
        trust_env: bool = False,
        allow_insecure: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        key = Hidden(api_key)
        api_key = None  # a traceback that shows local variables must not show the key
        endpoint = Endpoint.of(key, base_url, upload_url, family, allow_insecure=allow_insecure)
        origin = origin_of(endpoint.base_url)

        check_class("retry", retry, RetryPolicy)
        check_class("poll", poll, PollPolicy)
        check_class("ledger", ledger, Ledger)
        check_timeout(timeout)
        check_whole("connections", connections)
        check_whole("multi_fetch_size", multi_fetch_size)
        check_recover(recover)

        policy = poll_policy(poll, endpoint.base_url)
        rng = Random()  # noqa: S311 - jitter, not a secret
        bucket = None if rate_limit is None else TokenBucket.of(rate_limit)
        transport = Transport(endpoint.base_url, endpoint.key.value, connections, trust_env, session)
        sender = Sender(
            transport=transport,
            retry=retry or RetryPolicy(),
            throttle=Throttle(bucket, rng),
            rng=rng,
            timeout=timeout,
            counters=Counters(),
            clock=HostClock(policy.speed),
            events=Events(origin, check_observers(observers)),
        )
        self._ledger = ledger
        self._runtime = Runtime.wire(
            origin,
            endpoint.home,
            sender,
            policy=policy,
            rng=rng,
            ledger=ledger,
            upload_url=endpoint.upload_url,
            connections=connections,
            multi_fetch_size=multi_fetch_size,
            recover=recover,
        )

    def __repr__(self) -> str:
        runtime = getattr(self, "_runtime", None)
        if runtime is None:  # in a traceback of its constructor, say
            return "<PiAPI: not made>"
        if runtime.closed:
            return f"<PiAPI {runtime.origin}: closed>"
        return (
            f"<PiAPI {runtime.origin}: {len(runtime.poller.schedule)} waiting, "
            f"{len(runtime.submitter)} submitting>"
        )

    @property
    def origin(self) -> str:
        """The host this client speaks to, as in ``https://api.piapi.ai``."""
        return runtime_of(self).origin

    @property
    def ledger(self) -> Ledger | None:
        """The ledger that the client was given, None without one."""
        return self._ledger

    @property
    def stats(self) -> Stats:
        """What the client has done so far, as an operator would plot it."""
        runtime = runtime_of(self)
        counted = asdict(runtime.counters, recurse=False)
        counted["requests"] = dict(runtime.counters.requests)
        return Stats(waiting=len(runtime.poller.schedule), submitting=len(runtime.submitter), **counted)

    # -- calls ------------------------------------------------------------------------------------

    async def submit(
        self,
        request: TaskRequest[R],
        *,
        key: str | None = None,
        timeout: float | None = None,
        note: Any = None,  # noqa: ANN401 - JSON
    ) -> TaskHandle[R]:
        """Create a task, and return its handle.  This costs money.

        It is retried only if certainly nothing was created.  With a ledger, `key` makes it
        idempotent: the same key and request return the same task however often they are submitted,
        by this process or another, now or after a crash.  Webhook fields are no part of that: a key
        used again with another `webhook_endpoint` is the same task, which still reports to the first
        endpoint.

        `timeout` is the seconds that one attempt may take, instead of the client's.  `note` is a
        small JSON of yours (a channel's id, say) that the ledger keeps: it is the `note` of the
        entries of `Ledger.pending`.  A key that was submitted before keeps its first note.

        A caller that is cancelled after the request has begun to leave only misses the response,
        which still reaches the ledger.

        Raises `APIError` if the host refused it, `TransportError` (``sent=False``) if the host
        could not be reached, `SubmissionUnknown` if a task may or may not have been created,
        `LedgerError`, whose `ref` has the id of a task that was accepted but could not be recorded,
        `KeyReused` (a `ValueError`) for a key that stands for another request, and `ValueError` for
        a key or a note without a ledger.
        """
        runtime = runtime_of(self)
        watch, accepted = await runtime.submit(request, key, timeout, terms=runtime.terms(note))
        return TaskHandle(runtime, watch, accepted.frozen)

    async def run(
        self,
        request: TaskRequest[R],
        *,
        timeout: float | None = None,
        on_update: Callable[[Task[R]], Awaitable[object] | None] | None = None,
        download: str | os.PathLike[str] | None = None,
        key: str | None = None,
        on_cancel: OnCancel = "leave",
        note: Any = None,  # noqa: ANN401 - JSON
    ) -> Task[R]:
        """Submit a request, wait for its task, save its files, and return it.  This costs money.

        ::

            task = await piapi.run(Reroll("6886fc4d-…"), timeout=600, on_update=show, download="pictures")
            print([file.saved_as for file in task.files if file.saved_as])

        timeout
            Seconds to wait once the task exists; None waits for ever.  Submitting and saving have
            time-outs of their own.
        on_update
            Called with the task each time its status, progress or images have changed, at its end
            too; a coroutine function is awaited, no longer than `timeout` allows, and misses readings
            that were overtaken meanwhile.  What it raises is logged, once, and ends nothing.
        download
            The folder for the files of the result, whose `saved_as` then says where they are.
        key, note
            As for `submit`: run again with the same key, it returns the same task.
        on_cancel
            "cancel_remote" has the task cancelled at the host if the caller is cancelled before it
            has ended, even if its id arrives only afterwards; "leave" lets it go on.

        Raises as `submit` and `TaskHandle.wait` do: whatever is raised once a task exists names it.
        A folder that cannot be used is a `DownloadError` before anything is submitted; files that
        could not be saved are one whose `task` is the finished task.
        """
        from ._client.run import Run  # noqa: PLC0415 - and with it all that saves files

        run = Run(runtime_of(self), timeout, on_update, download, on_cancel)
        return await run.result_of(request, key, note)

    @overload
    def attach(self, task: str) -> TaskHandle[MidjourneyResult]: ...
    @overload
    def attach(self, task: TaskHandle[R]) -> TaskHandle[R]: ...
    @overload
    def attach(self, task: TaskLike, *, family: Family[R]) -> TaskHandle[R]: ...
    @overload
    def attach(self, task: TaskLike) -> TaskHandle[Any]: ...
    def attach(self, task: TaskLike, *, family: Family[Any] | None = None) -> TaskHandle[Any]:
        """Return the handle of a task that exists already; makes no request.

        `task` is a `TaskRef`, or what has one (a `Task`, another client's handle, an entry of the
        ledger), which tells its family; or an id, which is one of the client's own family (legacy
        Midjourney unless told) if `family` does not say otherwise.

        Raises `ValueError` for an empty id, and for a task of another host or family, `TypeError` for
        what is no task.
        """
        runtime = runtime_of(self)
        found, task_id = runtime.locate(task, family or own_family(task))
        return TaskHandle(runtime, runtime.watch(found, task_id))

    @overload
    async def fetch(self, task_id: str) -> Task[MidjourneyResult]: ...
    @overload
    async def fetch(self, task_id: TaskHandle[R]) -> Task[R]: ...
    @overload
    async def fetch(self, task_id: TaskLike, *, family: Family[R]) -> Task[R]: ...
    @overload
    async def fetch(self, task_id: TaskLike) -> Task[Any]: ...
    async def fetch(self, task_id: TaskLike, *, family: Family[Any] | None = None) -> Task[Any]:
        """Read one task now; what stands for it, and its family, is as for `attach`.

        Raises `NotFoundError`, other `APIError`, `TransportError`, `UnexpectedAnswer`.
        """
        runtime = runtime_of(self)
        return await runtime.fetch(*runtime.locate(task_id, family or own_family(task_id)))

    @overload
    async def fetch_many(self, task_ids: Iterable[str]) -> dict[str, Task[MidjourneyResult] | None]: ...
    @overload
    async def fetch_many(
        self, task_ids: Iterable[TaskLike], *, family: Family[R]
    ) -> dict[str, Task[R] | None]: ...
    @overload
    async def fetch_many(self, task_ids: Iterable[TaskLike]) -> dict[str, Task[Any] | None]: ...
    async def fetch_many(
        self, task_ids: Iterable[TaskLike], *, family: Family[Any] | None = None
    ) -> dict[str, Task[Any] | None]:
        """Read any number of tasks now, and return them by id; None for a task that the host does not know.

        Many are read in one request or, if the host cannot do that, eight at a time.  Raises as
        `fetch`, at the first error.
        """
        runtime = self._entered()
        located = [runtime.locate(task, family or own_family(task)) for task in task_ids]
        found: dict[str, Task[Any] | None] = {str(task_id): None for _, task_id in located}
        for of_family, ids in _by_family(located):
            tasks = await fetch_many(runtime.sender, runtime.poller.schedule, of_family, ids)
            for task in tasks.values():
                if task is not None:
                    found_at(task, TaskRef(runtime.origin, of_family.name, task.task_id))
            runtime.events.read(of_family.name, tasks.values())
            found |= tasks
        return found

    async def cancel(self, *task_ids: TaskLike, family: Family[Any] | None = None) -> None:
        """Ask the host to cancel tasks; only those that have not started can be, so `wait` tells the outcome.

        Raises as `fetch`.  If the host cancels tasks one by one, all are asked for before a refusal
        is raised.
        """
        runtime = runtime_of(self)
        located = [runtime.locate(task, family or own_family(task)) for task in task_ids]
        for of_family, ids in _by_family(located):
            await runtime.cancel(of_family, ids)

    @overload
    async def download(
        self, task: TaskLike, target: os.PathLike[str], *, all_files: bool = False, grid: bool = False
    ) -> list[Path]: ...
    @overload
    async def download(
        self, task: TaskLike, target: str, *, all_files: bool = False, grid: bool = False
    ) -> list[Path | str]: ...
    async def download(
        self, task: TaskLike, target: str | os.PathLike[str], *, all_files: bool = False, grid: bool = False
    ) -> list[Path] | list[Path | str]:
        """Save the files of a task over this client's connections, and return where.

        ::

            await piapi.download("6886fc4d-…", "pictures")

        What stands for the task is as for `attach`: an id, a ref, an entry of the ledger is read, and
        waited for if it has not ended.  `target`, `all_files` and `grid` are as for the function
        `piapi_async.download`, which has more to say of how files are saved.

        Raises as `attach`, as `TaskHandle.wait`, and as that function.
        """
        from ._client.files import save_files  # noqa: PLC0415 - and with it all that saves files

        runtime, handle = self._entered(), self.attach(task)
        return await save_files(runtime, task, handle, target, all_files=all_files, grid=grid)

    async def read(self, task: TaskLike, *, all_files: bool = False, grid: bool = False) -> list[bytes]:
        """Return the files of a task themselves, as `download` would save them.

        See the function `piapi_async.read`.
        """
        from ._client.files import read_files  # noqa: PLC0415 - the same

        return await read_files(self._entered(), task, self.attach(task), all_files=all_files, grid=grid)

    # -- beside the tasks -------------------------------------------------------------------------

    async def upload(
        self, file: str | os.PathLike[str] | bytes | bytearray | memoryview, *, name: str | None = None
    ) -> str:
        """Upload a file (a path, or bytes with a `name`) for the host's models to read; return its URL.

        The host keeps it for 24 hours.  A path that was uploaded before, and has not changed, is
        not uploaded again. An attempt may take the client's `timeout`, and a second more for each
        64 kB.

        Raises `ValueError` for what the host would refuse (larger than 10 MiB, other than jpg,
        jpeg, png, webp, mp4, wav, mp3, a name of more than 128 characters), `OSError` for a file
        that cannot be read, and `AuthenticationError` if the plan has no uploads.
        """
        runtime = self._entered()
        runtime.check_call("upload")
        uploader = runtime.uploader
        if isinstance(file, (bytes, bytearray, memoryview)):
            if name is None:
                raise ValueError("upload: bytes need a name, such as name='cat.png'")
            return await uploader.send(bytes(file), name)
        return await uploader.link(PurePath(file), name)

    async def account(self) -> Account:
        """Read the account behind the key.  Raises as `fetch`."""
        runtime = self._entered()
        account: Account = await runtime.sender.call(runtime.home.service.account, judge_read)
        return account

    async def history(
        self, model: str | None = None, since: datetime | None = None, until: datetime | None = None
    ) -> AsyncGenerator[HistoryEntry, None]:
        """Yield the rows of the account's task history: every task of the unified API that was paid for.

        ::

            async for entry in piapi.history("kling", since=datetime.now(UTC) - timedelta(hours=1)):
                print(entry.task_id, entry.status, entry.cost)

        `model` is the host's name of one; `since` and `until` are times with a zone, to the second,
        and bound when a row was made.  Pages are read as they are needed, a hundred rows in each; a
        row that moves to the next page while they are read is yielded once.  How soon after a task
        its row appears is not documented.

        Raises `ValueError` for a time without a zone, and as `fetch`; `NotFoundError` where the
        host has no history.
        """
        runtime = self._entered()
        runtime.check_call("history")
        if since is not None and until is not None and since > until:
            raise ValueError(f"history: since, {since}, is later than until, {until}")
        request = GetHistory(model=model, since=since, until=until)
        async with contextlib.aclosing(all_entries(runtime.sender, request)) as entries:
            async for entry in entries:
                yield entry

    async def recover(self) -> RecoveryReport:
        """Look once in the host's history for every *unknown* submission of the ledger.

        What is found is recorded, and then known as any accepted task.  Raises `ValueError` without
        a ledger, and `LedgerError`.
        """
        runtime = self._entered()
        if runtime.ledger is None:
            raise ValueError(
                "recover: it needs a ledger, PiAPI(ledger=Ledger(path)), and this client has none"
            )
        return await runtime.recover()

    async def active_tasks(self) -> dict[str, ActiveTasks]:
        """Read the active tasks of the account, by provider.  Raises as `fetch`."""
        runtime = self._entered()
        runtime.check_call("active_tasks")
        return await runtime.sender.call(GetActiveTasks(), judge_read)

    async def cancel_pending(self, created_before: datetime, model: str = "all") -> None:
        """Ask to cancel the unified API's pending tasks of a model that were created before a time.

        Raises as `fetch`.
        """
        runtime = self._entered()
        runtime.check_call("cancel_pending")
        await runtime.sender.call(CancelPending(created_before, model), judge_read)

    # -- life -------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._entered()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every wait with `ClientClosed`, let submissions under way arrive, and close the connections.

        Submissions are given as long as their `timeout`.  Tasks at the host go on.  Closing twice
        does no harm.
        """
        await self._runtime.close()

    def __del__(self) -> None:
        runtime = getattr(self, "_runtime", None)
        if runtime is not None and runtime.is_open_here:
            warnings.warn(
                f"{self!r} was dropped without `await close()`", ResourceWarning, source=self, stacklevel=2
            )

    def _entered(self) -> Runtime:
        """Return the runtime, for a call that begins now.  Raises as `Runtime.enter`."""
        runtime = runtime_of(self)
        runtime.enter()
        return runtime


def runtime_of(piapi: PiAPI) -> Runtime:
    """Return the runtime of a client, for the other modules of this package."""
    return piapi._runtime  # noqa: SLF001 - the one way in


def _by_family(located: Iterable[tuple[Family[Any], TaskId]]) -> Iterable[tuple[Family[Any], list[TaskId]]]:
    """Return the ids of each family."""
    found: dict[str, tuple[Family[Any], list[TaskId]]] = {}
    for family, task_id in located:
        found.setdefault(family.name, (family, []))[1].append(task_id)
    return found.values()
