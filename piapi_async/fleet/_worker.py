"""`Worker`: one process of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Self

import anyio
from attrs import define, field
from dbos import DBOSClient
from sqlalchemy.exc import DBAPIError

from .._calls.threads import in_thread, running_loop
from .._text import brief
from ..client import PiAPI, runtime_of
from ..downloads._options import DownloadOptions, check_seconds
from ..downloads._saver import Downloads
from ..downloads._target import Target, check_target, prepared
from ..errors import PiAPIError
from ..observe._emitter import Events
from . import _engine as engine
from ._database import QUEUE, Database, check_url
from ._deliveries import FleetSubmissions
from ._intents import Intents
from ._looking import Lookout
from ._persistence import Persistence
from ._presence import Presence, hand_over
from ._work import Work


@define(eq=False)
class Worker:
    """Works on the items of a fleet, until it is told to stop.

    ::

        async with PiAPI() as piapi, Worker("postgresql://…/app", piapi, concurrency=30) as worker:
            await worker.run()

    url
        The fleet's database: ``postgresql://…`` for any number of machines, ``sqlite:///run.db`` for
        processes of one.
    concurrency
        The most tasks in flight, of all workers together; what a dead worker held counts until it is
        taken over.  Limits stand in the database, and the worker that started last has set them.
    per_worker
        The most of them at one worker; else the first to ask takes all.
    rate_limit
        ``(tasks, seconds)``: the most that are begun in that time, by all workers together and by
        the database's clock.  At the host twice as many may arrive in such a window, because they
        travel; halve the numbers if it is strict, and give the client a `rate_limit` too.
    download
        Where the files of each task are saved before its outcome is known: a folder that all who
        want them can see, or the URL of a sink (``s3://bucket/run``).  `all_files` with watermarked copies and covers.
    lease
        Seconds after which a worker that shows no life is given up, and its items are taken over.
    poll
        Seconds between two looks into the queue.

    The client must have no ledger: the database takes its place.  There is one worker in a process,
    and no other DBOS application beside it.
    """

    _url: str = field(converter=check_url, repr=False)
    _piapi: PiAPI
    concurrency: int = field(default=30, kw_only=True)
    per_worker: int | None = field(default=None, kw_only=True)
    rate_limit: tuple[int, float] | None = field(default=None, kw_only=True)
    download: str | os.PathLike[str] | None = field(default=None, kw_only=True)
    all_files: bool = field(default=False, kw_only=True)
    lease: float = field(default=15.0, kw_only=True)
    poll: float = field(default=1.0, kw_only=True)
    name: str = field(init=False)
    """Its name in the database, which is new for each start; there is none before."""
    _stopping: asyncio.Event = field(factory=asyncio.Event, init=False)
    _failure: PiAPIError | None = field(default=None, init=False)
    _target: Target | None = field(default=None, init=False)
    _database: Database | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if runtime_of(self._piapi).ledger is not None:
            raise ValueError(
                "piapi: its ledger is not allowed, as the fleet's database takes its place; make a "
                "client without one"
            )
        for name in ("concurrency", "per_worker"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name}: {brief(value)} is not allowed; it must be a whole number above 0")
        if self.rate_limit is not None and not (self.rate_limit[0] >= 1 and self.rate_limit[1] > 0):
            raise ValueError(
                f"rate_limit: {brief(self.rate_limit)} is not allowed; it must be (tasks, seconds), such as "
                "(10, 2)"
            )
        check_seconds("lease", self.lease)
        check_seconds("poll", self.poll)
        if self.download is not None:
            self._target = check_target(self.download)

    async def __aenter__(self) -> Self:
        running_loop()
        # Not before: processes that were forked of one worker's would be one in the database.
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        if self._target is not None:
            await prepared(self._target)
        self._database = database = await in_thread(partial(Database.open, self._url))
        try:
            await self._settle(database)
        except BaseException:
            await in_thread(database.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._database is not None:
            with anyio.CancelScope(shield=True):
                await in_thread(self._database.close)

    async def _settle(self, database: Database) -> None:
        """Agree on the host with the other workers, and set the limits, before anything is taken."""
        ours = runtime_of(self._piapi).origin
        origin = await in_thread(partial(database.settle_origin, ours))
        if origin != ours:
            raise ValueError(f"piapi: this fleet works at {origin}, and its client speaks to {ours}")
        await in_thread(partial(self._set_limits, database.client))

    def _set_limits(self, client: DBOSClient) -> None:
        limiter = None
        if self.rate_limit is not None:
            limiter = {"limit": self.rate_limit[0], "period": self.rate_limit[1]}
        per_worker = None
        if self.per_worker is not None:
            per_worker = min(self.per_worker, self.concurrency)
        client.register_queue(
            QUEUE,
            global_concurrency=self.concurrency,
            worker_concurrency=per_worker,
            limiter=limiter,  # type: ignore[arg-type]  # a TypedDict of the engine's
            polling_interval_sec=self.poll,
        )

    @property
    def _events(self) -> Events:
        return runtime_of(self._piapi).events

    # -- running ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have `run` hand over what is in flight, and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`, SIGTERM, or a cancellation, then hand over what is in flight.

        Requests that have begun to leave are let arrive; the rest is another worker's at once.

        Raises `AuthenticationError` if the host refuses the API key, and `InsufficientCreditError` if
        the account has no credit left: no item is failed for that, they wait for the next worker.
        """
        async with self._working() as work:
            await self._watch_over(work)
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[Work]:
        database = self._database
        if database is None:
            raise RuntimeError("use it as `async with Worker(…) as worker`")

        async with AsyncExitStack() as stack:
            work = self._work(database, stack)
            stack.enter_context(
                self._on_signal()
            )  # before the engine takes anything, until all is handed over
            await in_thread(partial(database.beat, self.name))
            # In a thread: in our loop the engine would make its thread pool the loop's own.
            await in_thread(partial(engine.launch, database.url, self.name, work.process))
            try:
                yield work
            finally:
                with anyio.CancelScope(shield=True):
                    await self._leave(work, database)

    def _work(self, database: Database, stack: AsyncExitStack) -> Work:
        runtime = runtime_of(self._piapi)
        runtime.enter()
        runtime.correlation.look_in(FleetSubmissions(database, runtime.origin))
        downloads = None
        if self._target is not None:
            downloads = Downloads(
                self._target, runtime.file_session(), DownloadOptions(all_files=self.all_files)
            )
            stack.push_async_callback(downloads.close)
        persistence = Persistence(self._events)
        return Work(
            runtime=runtime,
            database=database,
            persistence=persistence,
            intents=Intents(self.lease / 2),
            lookout=Lookout(runtime, database, persistence, self.lease),
            downloads=downloads,
            give_up=self._give_up,
            home=running_loop(),
        )

    async def _watch_over(self, work: Work) -> None:
        presence = Presence(work.database, self.name, self.lease, self._events)
        beating = asyncio.create_task(presence.run(), name="piapi_async heartbeats")
        chores = asyncio.create_task(self._do_chores(work), name="piapi_async fleet chores")
        stopping = asyncio.create_task(self._stopping.wait(), name="piapi_async stop")
        tasks = (beating, chores, stopping)
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _do_chores(self, work: Work) -> None:
        while True:
            await asyncio.sleep(max(self.poll, self.lease / 5))
            try:
                await work.cancel_asked()
                await work.settle_found()
            except Exception as error:  # noqa: BLE001 - the database's, of which the heartbeats tell
                self._events.notice(logging.DEBUG, "the fleet's chores could not be done", exception=error)

    async def _leave(self, work: Work, database: Database) -> None:
        """Let what has begun to leave arrive, stop the engine, put the rest back into the queue."""
        work.draining.set()
        with anyio.move_on_after(work.runtime.sender.timeout + self.lease):
            while work.sending:
                await asyncio.sleep(_PAUSE)
        work.persistence.give_up.set()  # else a thread of ours would keep the process from ending

        await in_thread(engine.destroy)
        try:
            released = await hand_over(database, self.name)
        except DBAPIError as error:
            text = f"worker {self.name} has left what it held, as the fleet's database is out of reach: {error.orig}"
            after = f"{text}. Others take it over {self.lease:g} s after it is back"
            self._events.notice(logging.WARNING, after, error=type(error).__name__)
            return
        self._events.notice(logging.INFO, f"worker {self.name} has left; {released} items go on elsewhere")

    def _give_up(self, error: PiAPIError) -> None:
        if self._failure is None:
            self._failure = error
            text = f"worker {self.name} stops: {error}"
            self._events.notice(logging.ERROR, text, error=type(error).__name__)
        self.stop()

    @contextlib.contextmanager
    def _on_signal(self) -> Iterator[None]:
        """Stop on SIGTERM, where this is the program's own loop."""
        loop = running_loop()
        can = threading.current_thread() is threading.main_thread()
        if can:
            with contextlib.suppress(NotImplementedError):  # Windows
                loop.add_signal_handler(signal.SIGTERM, self.stop)
        try:
            yield
        finally:
            if can:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(signal.SIGTERM)


_PAUSE = 0.05  # seconds between two looks at what is being sent
