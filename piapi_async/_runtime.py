"""`Runtime`: the parts of one client, wired once, from its first use to its close.

`PiAPI` checks arguments and delegates; handles, batches, webhook receivers and the command line ask
the runtime of a client for what they need, and never the client's insides.  It knows in which event
loop and process it is used, which object watches a task, and in which order everything is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from attrs import define, field, frozen

from ._calls.sender import Sender
from ._calls.threads import running_loop
from ._families import FAMILIES
from ._protocol.family import Family, Service, TaskRequest
from ._protocol.kinds import Kind
from ._submit.correlation import Correlation
from ._submit.submission import NO_TERMS, SubmitResult, Terms
from ._submit.submitter import Submitter
from ._submit.unknown_rows import RecoveryReport
from ._submit.uploads import Uploader
from ._text import brief, label
from ._verdict import judge_read
from ._wait.bulk import cancel_all
from ._wait.poller import Poller
from ._wait.schedule import PollSchedule
from ._wait.watch import NEVER, UNPLANNED, Watch
from .downloads._session import FileSession, host_of
from .errors import ClientClosed, PiAPIError
from .ledger import Ledger, LedgerEntry
from .ledger._durations import DurationKeeper
from .ledger._entries import SubmissionKey, check_key, note_as_json
from .ledger._ledger import writer_of
from .observe._emitter import Events
from .policy import PollPolicy
from .stats import Counters
from .tasks import Task, TaskId, TaskLike, TaskRef, check_task_id, found_at, ref_in

if TYPE_CHECKING:
    from .ledger._writer import LedgerWriter

R = TypeVar("R")


@frozen(eq=False, repr=False)
class Home:
    """Where a client's requests go: `family` is what a bare id means there, `service` the vendor.

    `known` tells whether that vendor's API is certainly what is behind the base URL; a host of
    another name may speak any protocol.
    """

    family: Family[Any]
    service: Service
    known: bool


@define(eq=False, repr=False)
class Runtime:
    """What the parts of one client share."""

    origin: str
    home: Home
    sender: Sender
    poller: Poller
    submitter: Submitter
    correlation: Correlation
    uploader: Uploader
    ledger: LedgerWriter | None
    counters: Counters
    durations: DurationKeeper | None
    closed: bool = field(default=False, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _pid: int = field(default=0, init=False)  # of the process that uses it
    _joined: bool = field(default=False, init=False)  # the ledger
    _closing: asyncio.Task[None] | None = field(default=None, init=False)

    @classmethod
    def wire(
        cls,
        origin: str,
        home: Home,
        sender: Sender,
        *,
        policy: PollPolicy,
        rng: Random,
        ledger: Ledger | None,
        upload_url: str,
        connections: int,
        multi_fetch_size: int,
        recover: float,
    ) -> Runtime:
        """Return a runtime whose parts know each other."""
        schedule = PollSchedule(policy, rng, multi_fetch_size, sender.counters)
        writer = keeper = None
        if ledger is not None:
            writer = writer_of(ledger)
            keeper = DurationKeeper(writer, origin, schedule.kinds)

        # The poller does not hold the runtime, so that a client that is dropped open is noticed at
        # once.
        on_end = partial(_record_end, writer, keeper, sender.events)
        poller = Poller(schedule, sender, max(1, connections // 4), on_end)

        correlation = Correlation(sender, poller, writer, origin)
        uploader = Uploader.beside(sender, upload_url)
        if "history" not in home.service.calls:
            recover = 0.0
        submitter = Submitter(sender, origin, writer, uploader, correlation, recover)

        return cls(
            origin=origin,
            home=home,
            sender=sender,
            poller=poller,
            submitter=submitter,
            correlation=correlation,
            uploader=uploader,
            ledger=writer,
            counters=sender.counters,
            durations=keeper,
        )

    # -- life -------------------------------------------------------------------------------------

    @property
    def events(self) -> Events:
        """Where the parts tell what happens."""
        return self.sender.events

    @property
    def is_open_here(self) -> bool:
        """Whether it has been used, in this process, and not been closed."""
        return not self.closed and self._loop is not None and self._pid == os.getpid()

    def enter(self) -> None:
        """Begin a call: bind to the running loop and process at the first.

        Raises `ClientClosed` after `close`, and `RuntimeError` in another event loop or in a forked
        process.
        """
        if self._pid and self._pid != os.getpid():
            raise RuntimeError(
                "This PiAPI was used before this process was forked, and its connections are the "
                "other's: make a new one here. Nothing was sent"
            )

        loop = running_loop()
        if self._loop is loop and not self.closed:  # nearly always
            return

        if self._loop is None:
            self._bind(loop)
        self._check_loop()
        if self.closed:
            raise ClientClosed("The client is closed. Nothing was sent; make a new PiAPI.")

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._pid = loop, os.getpid()
        self.submitter.finder.join()
        if self.ledger is not None and not self.closed:
            self.ledger.join(self.events)
            self._joined = True

    def _check_loop(self) -> None:
        if self._loop is not running_loop():
            raise RuntimeError(
                "This PiAPI belongs to the event loop in which it was first used; make one client per loop"
            )

    async def close(self) -> None:
        """End every wait, let submissions under way arrive (within their time-out), free the sockets."""
        if self._loop is None or self._pid != os.getpid():  # in a forked process the sockets are the other's
            self.closed = True
            return

        self._check_loop()
        self.closed = True
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="piapi_async close")

        # An anyio scope that is cancelled would cancel this await again and again; `_close` is
        # bounded by itself.
        with anyio.CancelScope(shield=True):
            await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.sender.throttle.close()
        # Whatever fails, the rest is still closed.
        async with contextlib.AsyncExitStack() as last:
            last.callback(self.events.shut_down)
            if self.ledger is not None and self._joined:
                last.push_async_callback(self.ledger.leave, self.events)
                if self.durations is not None:
                    last.push_async_callback(self.durations.keep)
            last.push_async_callback(self.sender.transport.close)
            last.push_async_callback(self.uploader.close)
            last.push_async_callback(self.correlation.finish)
            last.push_async_callback(self.submitter.finish)
            await self.poller.close(ClientClosed("The client was closed while this wait was on."))

    # -- what several doors need ------------------------------------------------------------------

    async def submit(
        self,
        request: TaskRequest[Any],
        key: str | None = None,
        timeout: float | None = None,
        *,
        identity: SubmissionKey | None = None,
        terms: Terms = NO_TERMS,
    ) -> tuple[Watch, SubmitResult]:
        """Submit; return the watch of the task and what the submitter knows of it.  Raises as `PiAPI.submit`.

        `identity` replaces `key`, where the caller has made it from the request already; `terms` are
        the submission's own.
        """
        self.enter()
        if identity is not None:
            key = identity.key
        if key is not None:
            self._check_key(key)
        family = getattr(request, "family", None)
        if family is None:
            raise TypeError(f"{label(request)} makes no task, so it cannot be submitted")
        if timeout is not None:
            check_timeout(timeout)

        # Asked for now, as nothing of the request's may fail once it is paid for.
        self.check_family(family)
        subject = self.sender.events.started(request, family.name, key or terms.key)

        accepted = await self.submitter.submit(
            request, family, key, timeout, identity=identity, terms=terms, subject=subject
        )

        if self.durations is not None:
            self.durations.recall()
        watch = self.watch(
            family,
            accepted.task_id,
            submitted=accepted.ledger_entry is None,
            has_webhook=accepted.has_webhook,
            kind=getattr(request, "kind", None),
        )
        if watch.subject is None:  # else the task was submitted here before, under the same key
            watch.subject = subject
        return watch, accepted

    def terms(self, note: object) -> Terms:
        """Return the terms of a submission with a caller's note.

        Raises `ValueError` without a ledger to keep it, and as `note_as_json`.
        """
        if note is None:
            return NO_TERMS
        if self.ledger is None:
            raise ValueError("note: it needs a ledger, PiAPI(ledger=Ledger(path)), and this client has none")
        return Terms(note=note_as_json(note))

    def _check_key(self, key: object) -> None:
        if self.ledger is None:
            raise ValueError("key: it needs a ledger, PiAPI(ledger=Ledger(path)), and this client has none")
        check_key(key)

    def watch(
        self,
        family: Family[Any],
        task_id: TaskId,
        *,
        submitted: bool = False,
        has_webhook: bool = False,
        kind: object = None,
    ) -> Watch:
        """Return the watch of a task: the one that is waited on if there is one.

        `submitted` tells that the task was created just now, `has_webhook` that a webhook will
        report its end, `kind` which kind it is of, if its request is known.
        """
        watch = self.poller.schedule.find(family, task_id)
        if watch is not None:
            return watch

        durations = None
        timing = self.poller.schedule.timing
        if timing.needs_durations(has_webhook=has_webhook) and isinstance(kind, Kind):  # or a user's own word
            durations = timing.durations_of(family, kind)
        if not submitted or self._loop is None:  # without a loop nothing was submitted here
            return Watch(family, task_id, due=NEVER, durations=durations)

        now = self._loop.time()
        return Watch(
            family, task_id, due=UNPLANNED, durations=durations, paced_from=now, has_webhook=has_webhook
        )

    def family(self, named: Family[Any] | None) -> Family[Any]:
        """Return the family that a caller has named, or what a bare id means; raises as `check_family`."""
        if named is None:
            return self.home.family
        self.check_family(named)
        return named

    def locate(self, task: TaskLike, named: Family[Any] | None) -> tuple[Family[Any], TaskId]:
        """Return the family and the id of what stands for a task.

        Raises `ValueError` for a task of another host, for a family that is unknown or not the
        task's, and as `check_family` and `check_task_id`.
        """
        ref = ref_in(task)
        if ref is None:
            return self.family(named), check_task_id(task)
        if ref.origin != self.origin:
            raise ValueError(f"task {ref} lives at {ref.origin}, this client speaks to {self.origin}")

        family = named or self._family_called(ref.family)
        if family is None:
            raise ValueError(
                f"task {ref} is of the family {ref.family!r}, which is not known here: pass family="
            )
        if family.name != ref.family:
            raise ValueError(
                f"task {ref} is of the family {ref.family!r}: pass family=, which is {family.name!r}"
            )
        return self.family(family), check_task_id(ref.task_id)

    def _family_called(self, name: str) -> Family[Any] | None:
        if self.home.family.name == name:
            return self.home.family
        return FAMILIES.get(name)

    def check_family(self, family: Family[Any]) -> None:
        """Raise `ValueError` if the client's host is known to speak another vendor's protocols."""
        service = self.home.service
        other = family.service
        if not self.home.known or other is service or other is None:
            return

        raise ValueError(
            f"family: {family.name!r} is spoken by {other.name} alone, and this client speaks to "
            f"{service.name}, at {self.origin}: use a client that {other.client} makes. Nothing "
            "was sent, nothing was paid"
        )

    def check_call(self, name: str) -> None:
        """Raise `PiAPIError` for a call beside those about tasks that the client's vendor does not serve."""
        service = self.home.service
        if name not in service.calls:
            raise PiAPIError(f"{name}: {service.name} has no such call. Nothing was sent.")

    async def fetch(self, family: Family[R], task_id: TaskId) -> Task[R]:
        """Read one task now.  Raises as `PiAPI.fetch`."""
        self.enter()
        task = await self.sender.call(family.fetch(task_id), judge_read)
        found_at(task, TaskRef(self.origin, family.name, task_id))
        self.events.read(family.name, [task])
        return task

    async def cancel(self, family: Family[Any], task_ids: list[TaskId]) -> None:
        """Ask the host to cancel tasks.  Raises as `PiAPI.cancel`."""
        self.enter()
        await cancel_all(self.sender, family, task_ids)

    async def recover(self) -> RecoveryReport:
        """Look once for what the ledger has as *unknown*."""
        self.enter()
        return await self.submitter.finder.recover()

    async def recorded(self, key: str) -> LedgerEntry | None:
        """Return what the ledger has of a key, None if that is nothing.  Raises `ClientClosed`.

        A ledger that the client has left would be opened again, and nobody would close it.
        """
        self.enter()
        if self.ledger is None:
            return None
        return await self.ledger.find(key)

    def file_session(self) -> FileSession:
        """Return a session for the files of this client's tasks, with its proxy and TLS, without its key."""
        session, trust_env = self.sender.transport.lent
        files = FileSession.make(host_of(self.origin), session=session, trust_env=trust_env)
        files.events = self.events
        return files


def check_timeout(seconds: object) -> None:
    """Raise `ValueError` for what cannot bound an attempt: without an end, nothing would ever be given up."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not 0 < seconds < math.inf:  # type: ignore[operator]  # a number, by now
        raise ValueError(
            f"timeout: {brief(seconds)} is not allowed; it must be a finite number of seconds above 0"
        )


def _record_end(
    ledger: LedgerWriter | None, durations: DurationKeeper | None, events: Events, watch: Watch
) -> None:
    task = watch.task
    if task is None:
        return

    family = watch.family.name
    ref = task.ref
    if ref is None:
        ref = TaskRef(events.origin, family, watch.task_id)
        found_at(task, ref)

    if not watch.end_told:  # an end may be seen again
        watch.end_told = True
        if events.heard:
            now = asyncio.get_running_loop().time()
            late = watch.detection_seconds(now)
            events.ended(watch.subject, family, task, now, polls=watch.polls, detection_seconds=late)
    if ledger is not None:
        ledger.end(ref, task.state.value, task.raw)
    if durations is not None:
        durations.keep_now_and_then(asyncio.get_running_loop().time())
