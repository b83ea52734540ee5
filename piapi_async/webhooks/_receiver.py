"""Webhooks: tasks that tell of their end, so that nobody has to ask.

A delivery carries a plain shared secret and no signature, may be lost, may come twice, and may come out of order
(the vendor's page).  So it is trusted to wake, not to decide: it makes the poller look at once, and what the look finds
counts.  Polling becomes rarer by the share of recent ends that were told of *here*, down to a safety net: behind a
balancer with several processes, or where deliveries are lost, it stays as it is (see `_trust`).

A submission is sent with an endpoint of its own: its query holds a nonce that only the owner of the secret could have
made.  The host echoes it to whoever reads the task, and to nobody else before; so where the answer to a submission was
lost, the task that a delivery names is read, and is the submission's if that echo carries its nonce.  The delivery
itself proves nothing: secret and URL are shown to any holder of a task id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp.http_exceptions
from aiohttp import web
from attrs import define, evolve, field
from yarl import URL

from .._families import FAMILIES
from .._protocol.family import Family, TaskRequest
from .._runtime import Runtime
from .._verdict import judge_read
from .._wait.watch import Watch
from ..client import PiAPI, runtime_of
from ..errors import ClientClosed, LedgerError, PiAPIError, UnexpectedAnswer, WebhookRejected
from ..ledger._writer import LedgerWriter
from ..midjourney import Seed
from ..tasks import Task, TaskId, TaskRef
from ._event import (
    MAX_BYTES,
    NONCE,
    NONCE_LENGTH,
    WebhookEvent,
    check_secret,
    check_secret_text,
    echoed_nonce,
    nonce_in,
)

R = TypeVar("R")


K = TypeVar("K")
V = TypeVar("V")

logger = logging.getLogger("piapi_async")

_SILENT_SECONDS = 10.0  # without a byte of a body
_READ_SECONDS = 60.0  # for the whole of it
_SMALL = 1024 * 1024  # bytes; of larger bodies only a few are read at a time
_LARGE_AT_ONCE = 4
_REMEMBERED = 10_000  # deliveries and nonces; beyond, the oldest are forgotten
_READS_AT_ONCE = 8
_CANDIDATES = 8  # tasks that deliveries name for one lost submission
_READ_AGAIN = 5.0  # seconds


@define(eq=False)
class _Open:
    """A submission under way: deliveries that came with its nonce name `candidates`; None: no more will come."""

    family: Family[Any]
    candidates: asyncio.Queue[TaskId | None] = field(factory=asyncio.Queue)

    def tell(self, task_id: TaskId) -> None:
        """Name a task; more than a few are nobody's who means well."""
        if self.candidates.qsize() < _CANDIDATES:
            self.candidates.put_nowait(task_id)

    def give_up(self) -> None:
        """Say that no more will be named."""
        self.candidates.put_nowait(None)


@define(eq=False)
class WebhookReceiver:
    """Takes deliveries for one client, whose submits then carry endpoint and secret by themselves.

    ::

        receiver = WebhookReceiver(piapi, secret="…", url="https://bot.example.org/piapi")
        app.add_routes(receiver.routes())  # aiohttp.web; elsewhere: await receiver.handle(headers, body)

    secret
        What the host sends back with each delivery; keep it to yourself.
    url
        Where the host reaches the route: http(s), port 80 or 443 (any port on this machine).
    confirm
        Whether an end that is delivered is confirmed by one look.  The secret is static and unsigned, so False believes
        whoever has seen it.
    adopt_timeout
        Seconds for which a submission whose answer was lost waits for its delivery before it is `SubmissionUnknown`.
        The task that it names is always read once, to see that it was made by that submission.

    Several processes may share one URL and secret behind a balancer.  Each is told of its share of the ends and looks
    for the others as if there were no webhooks.
    """

    _piapi: PiAPI
    secret: str = field(kw_only=True, repr=False)
    url: str = field(kw_only=True)
    confirm: bool = field(default=True, kw_only=True)
    adopt_timeout: float = field(default=600.0, kw_only=True)
    _runtime: Runtime = field(init=False, repr=False)
    counts: Counter[str] = field(factory=Counter, init=False)
    """Deliveries so far: ``accepted``, ``rejected``, ``duplicate``, ``unknown`` (no task of ours), ``adopted``."""
    _large: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(_LARGE_AT_ONCE), init=False, repr=False)
    _seen: OrderedDict[bytes, None] = field(factory=OrderedDict, init=False, repr=False)
    _open: dict[str, _Open] = field(factory=dict, init=False, repr=False)
    _settled: OrderedDict[str, None] = field(factory=OrderedDict, init=False, repr=False)
    _given_up: bool = field(default=False, init=False, repr=False)
    _unclaimed: list[WebhookEvent] = field(factory=list, init=False, repr=False)
    _chores: set[asyncio.Task[None]] = field(factory=set, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._runtime = runtime_of(self._piapi)
        check_secret_text(self.secret)
        if self._runtime.submitter.webhooks is not None:
            raise ValueError("piapi: this client has a WebhookReceiver already")
        if not self.url:
            raise ValueError("url: it must not be empty")
        try:  # what the host takes is what a request takes
            Seed("url", webhook_endpoint=self.url, webhook_secret=self.secret)
        except ValueError as error:
            raise ValueError(f"url: {self.url!r} is not allowed; {str(error).partition('; ')[2]}") from None
        self._runtime.submitter.webhooks = self
        self._runtime.sender.transport.secrets.add(self.secret)

    def routes(self) -> list[web.RouteDef]:
        """Give the route for an `aiohttp.web` application, at the path of `url`."""
        return [web.post(urlsplit(self.url).path or "/", self._serve)]

    async def handle(self, headers: Mapping[str, str], body: bytes, *, query: str = "") -> None:
        """Take one delivery in, whatever framework brought it; answer 200 when this returns.

        Raises `WebhookRejected`: answer 403, and do not say why; and `ClientClosed`: answer 503, so that the host tries
        again when there is somebody to hear it.  The work is done after this has returned.
        """
        self._runtime.enter()
        try:
            event = WebhookEvent.from_http(headers, body, secret=self.secret)
        except WebhookRejected:
            self.counts["rejected"] += 1
            raise
        if nonce := nonce_in(query):
            event = evolve(event, nonce=nonce)
        asyncio.get_running_loop().call_soon(self._take, event)

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            body = await read_delivery(request, self.secret, self._large)
        except WebhookRejected:
            self.counts["rejected"] += 1
            return web.Response(status=403)
        try:
            await self.handle(request.headers, body, query=request.query_string)
        except WebhookRejected:
            return web.Response(status=403)
        except ClientClosed:
            return web.Response(status=503)
        return web.Response()

    # -- for the submitter ----------------------------------------------------------------------------------------

    def address(self, request: TaskRequest[R], key: str) -> TaskRequest[R]:
        """Give the request with an endpoint of its own, unless it brings one."""
        if getattr(request, "webhook_endpoint", self) is not None:  # no such field, or the user's own
            return request
        nonce = self._nonce(key)
        endpoint = str(URL(self.url).update_query({NONCE: nonce}))
        self._open[nonce] = _Open(request.family)  # a delivery may outrun the answer
        addressed = evolve(cast("Any", request), webhook_endpoint=endpoint, webhook_secret=self.secret)
        return cast("TaskRequest[R]", addressed)

    async def adopted(self, key: str) -> TaskId | None:
        """Return the task of a submission whose answer was lost, when its delivery comes; None if it does not."""
        nonce = self._nonce(key)
        waiting = self._open.get(nonce)
        if waiting is None or (self._given_up and waiting.candidates.empty()):
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.adopt_timeout):
                found = await self._find_made(waiting, nonce)
                self.counts["adopted"] += found is not None
                return found
        return None

    async def _find_made(self, waiting: _Open, nonce: str) -> TaskId | None:
        """Return the first task that is named for a submission and was made by it, None when there is none to come."""
        while (task_id := await waiting.candidates.get()) is not None:
            try:
                if await self._read_made(waiting.family, task_id, nonce) is not None:
                    return task_id
            except PiAPIError as error:
                if self._given_up:
                    logger.warning("task %s may be of a submission whose answer was lost: %s", task_id, error)
                    continue
                waiting.tell(task_id)
                await asyncio.sleep(_READ_AGAIN)
        return None

    async def _read_made(self, family: Family[Any], task_id: TaskId, nonce: str) -> Task[Any] | None:
        """Return a task if the endpoint it was made with carries the nonce, else None.  Raises as `PiAPI.fetch`."""
        try:
            task = await self._runtime.sender.call(family.fetch(task_id), judge_read)
        except ClientClosed:  # what was delivered before is not to be lost
            task = await self._runtime.sender.last_read(family.fetch(task_id))
        if hmac.compare_digest(echoed_nonce(task.raw).encode(), nonce.encode()):
            return task
        logger.warning("a delivery names task %s for a submission that has not made it: is the secret known?", task_id)
        return None

    def settled(self, key: str, *, accepted: bool) -> None:
        """Take note that nobody waits for the delivery of a submit any more, because it was accepted or else."""
        nonce = self._nonce(key)
        if self._open.pop(nonce, None) is not None and accepted:
            _remember(self._settled, nonce, None)

    def give_up(self) -> None:
        """Let nobody wait for a delivery any more: the client is closing."""
        self._given_up = True
        for waiting in self._open.values():
            waiting.give_up()

    async def finish(self) -> None:
        """Wait for what deliveries have set going, as long as one call may take."""
        if self._chores:
            _, late = await asyncio.wait(self._chores, timeout=self._runtime.sender.timeout)
            for chore in late:
                chore.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _nonce(self, key: str) -> str:
        # Made from the key, so that a receiver in a later process knows it again from the ledger.
        return hmac.new(self.secret.encode(), key.encode(), sha256).hexdigest()[:NONCE_LENGTH]

    # -- what a delivery does -------------------------------------------------------------------------------------

    def _take(self, event: WebhookEvent) -> None:
        self.counts["accepted"] += 1
        if event.digest in self._seen:
            self.counts["duplicate"] += 1
            return
        _remember(self._seen, event.digest, None)
        family = FAMILIES.get(event.family)
        watch = None if family is None else self._runtime.poller.schedule.find(family, event.task_id)
        if watch is not None:
            self._tell(watch, event)
            return
        if event.state.terminal:
            if family is not None and self._runtime.poller.reported_late(family, event.task_id):
                return
            self._runtime.poller.reported_early(event.task_id)
        if event.nonce not in self._settled:  # else it is a task of ours that nobody waits for just now
            self._claim(event)

    def _tell(self, watch: Watch, event: WebhookEvent) -> None:
        """Let those hear of it who wait for the task."""
        poller = self._runtime.poller
        task = None if event.state.terminal and self.confirm else self._read(watch.family, event)
        if task is not None:
            poller.reported(watch, task)
        elif event.state.terminal:
            poller.poll_now(watch)

    def _claim(self, event: WebhookEvent) -> None:
        """Find the submission that a task belongs to of which we know nothing."""
        if not event.nonce:
            self._note_foreign()
        elif (waiting := self._open.get(event.nonce)) is not None:
            waiting.tell(event.task_id)
        elif len(self._unclaimed) >= _REMEMBERED:
            self._forget(event)
        else:
            _remember(self._settled, event.nonce, None)
            self._unclaimed.append(evolve(event, raw={}))  # it may be large, and is not what is believed
            if len(self._unclaimed) == 1:  # else somebody is about to look at the ledger anyway
                self._begin(self._adopt_from_ledger())

    def _note_foreign(self) -> None:
        """Count a delivery about a task that is not ours: another process shares the URL and the secret."""
        self.counts["unknown"] += 1
        self._runtime.counters.foreign_deliveries += 1

    def _forget(self, event: WebhookEvent) -> None:
        """Let a delivery that came to nothing be looked at anew should it come again."""
        self._settled.pop(event.nonce, None)
        self._seen.pop(event.digest, None)
        self._note_foreign()

    def _read(self, family: Family[Any], event: WebhookEvent) -> Task[Any] | None:
        try:
            return family.read(dict(event.raw), event.task_id)
        except UnexpectedAnswer as error:
            logger.warning("a delivery about task %s is not understood: %s", event.task_id, error)
            return None

    async def _adopt_from_ledger(self) -> None:
        """Give submits, of an earlier process or of another that still waits, the tasks that deliveries tell of.

        One look at the ledger serves all deliveries that have come meanwhile, however many they are.
        """
        while self._unclaimed:
            events, self._unclaimed = self._unclaimed, []
            try:
                keys = {} if self._runtime.ledger is None else await self._open_keys(self._runtime.ledger)
            except LedgerError as error:
                keys = {}
                ids = ", ".join(event.task_id for event in events)
                logger.warning("what was delivered could not be given to its submit (tasks %s): %s", ids, error)
            for start in range(0, len(events), _READS_AT_ONCE):
                few = events[start : start + _READS_AT_ONCE]
                adoptions = await asyncio.gather(*[self._adopt(event, keys.get(event.nonce)) for event in few])
                for event, adopted in zip(few, adoptions, strict=True):
                    if not adopted:
                        self._forget(event)

    async def _open_keys(self, ledger: LedgerWriter) -> dict[str, str]:
        """Return the keys of the submits that have not heard of a task, by their nonces."""
        return {self._nonce(key): key for key in await ledger.open_keys()}

    async def _adopt(self, event: WebhookEvent, key: str | None) -> bool:
        """Record the task of a delivery under the key of the submission that made it; return whether that was done."""
        ledger = self._runtime.ledger
        if ledger is None or key is None:
            return False
        try:
            entry = await ledger.find(key)
            family = None if entry is None else FAMILIES.get(entry.family)
            if entry is None or family is None or entry.origin != self._runtime.origin:
                return False
            task = await self._read_made(family, event.task_id, event.nonce)
            if task is None:
                return False
            await ledger.attach_task(key, event.task_id)
        except PiAPIError as error:
            logger.warning("task %s could not be given to its submission: %s", event.task_id, error)
            return False
        if task.state.terminal:
            ledger.end(TaskRef(entry.origin, entry.family, event.task_id), task.state.value, task.raw)
        self.counts["adopted"] += 1
        return True

    def _begin(self, chore: Any) -> None:  # noqa: ANN401 - a coroutine
        task = asyncio.get_running_loop().create_task(chore, name="piapi_async webhook")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


async def read_delivery(request: web.BaseRequest, secret: str, large: asyncio.Semaphore | None = None) -> bytes:
    """Return the body of a delivery, having checked its secret first and reading no more than is allowed and a little.

    Bodies above a megabyte wait for a place in `large`.  Raises `WebhookRejected` also for a body that does not come,
    or comes broken.
    """
    check_secret(request.headers, secret)
    body = bytearray()
    now = asyncio.get_running_loop().time
    until = now() + _READ_SECONDS
    try:
        async with asyncio.timeout(_SILENT_SECONDS) as silence, contextlib.AsyncExitStack() as places:
            async for chunk in request.content.iter_any():
                silence.reschedule(min(now() + _SILENT_SECONDS, until))
                if large is not None and len(body) <= _SMALL < len(body) + len(chunk):
                    await places.enter_async_context(large)
                body += chunk
                if len(body) > MAX_BYTES:
                    break
    except (
        TimeoutError,
        OSError,
        ValueError,
        web.RequestPayloadError,
        aiohttp.http_exceptions.HttpProcessingError,
    ) as error:
        raise WebhookRejected("The delivery did not come whole.") from error
    return bytes(body)


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> V:
    """Keep something, forgetting the oldest where that is too much; give what is kept."""
    kept = memory.setdefault(key, value)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
    return kept
