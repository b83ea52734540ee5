"""Webhooks out: the bare fetch object to whoever asked, tried three times, and lost or muddled on request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from random import Random

import aiohttp
from attrs import Factory, define, evolve, field, frozen

from .._service.observed import Delivery, Seen
from .guard import Guard

_LOG = logging.getLogger(__name__)

TRIES = 3
PAUSE = 5.0  # emulated seconds between tries (observed)
PATIENCE = 10.0  # seconds of the loop's time a receiver has


@frozen(kw_only=True)
class WebhookFaults:
    """What befalls deliveries, each as a share (0..1) of them, drawn from the emulator's seed.

    `lost`: never sent.  `duplicated`: sent twice.  `reordered`: held until a later one of the same task has gone (at
    most `delay`).  `delayed`: sent `delay` emulated seconds late.
    """

    lost: float = 0.0
    duplicated: float = 0.0
    reordered: float = 0.0
    delayed: float = 0.0
    delay: float = 30.0


@frozen
class Post:
    """One thing to deliver."""

    task_id: str
    endpoint: str
    secret: str
    body: bytes
    status_word: str


@define
class Postman:
    """Delivers posts, each in a task of its own; `clock` gives emulated seconds, `speed` how fast they pass."""

    seen: Seen
    faults: WebhookFaults
    rng: Random
    clock: Callable[[], float]
    speed: float
    guard: Guard
    _warned: bool = False
    _session: aiohttp.ClientSession | None = None
    _under_way: set[asyncio.Task[None]] = Factory(set)
    _later: dict[str, asyncio.Event] = field(factory=dict)

    def send(self, post: Post) -> None:
        """Begin to deliver; the fate of the post is drawn now, so that a run is the same for the same seed."""
        if not self.guard.lets_out(post.endpoint):
            self._keep_back(post)
            return
        faults, draw = self.faults, self.rng.random
        lost, twice, hold, late = (
            draw() < share for share in (faults.lost, faults.duplicated, faults.reordered, faults.delayed)
        )
        if lost:
            self.seen.deliveries.append(self._delivery(post, 1, lost=True))
            return
        for _ in range(2 if twice else 1):
            self._start(self._deliver(post, hold=hold, late=late))

    def _keep_back(self, post: Post) -> None:
        self.seen.deliveries.append(evolve(self._delivery(post, 1, lost=True), kept_back=True))
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "No webhook is posted to %.200s: an emulator that is not exposed posts to this machine alone, and to "
                "its webhook_hosts.  Those to other hosts are counted as lost.",
                post.endpoint,
            )

    async def close(self) -> None:
        """Give up what is under way."""
        for delivery in list(self._under_way):
            delivery.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(delivery)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _deliver(self, post: Post, *, hold: bool, late: bool) -> None:
        if hold:
            await self._overtaken(post.task_id)
        if late:
            await asyncio.sleep(self.faults.delay / self.speed)
        for attempt in range(1, TRIES + 1):
            answer = await self._post(post)
            self.seen.deliveries.append(evolve(self._delivery(post, attempt), answer=answer))
            if answer == 200:  # noqa: PLR2004 - anything else counts as not received (vendor page)
                break
            if attempt < TRIES:
                await asyncio.sleep(PAUSE / self.speed)
        if not hold and post.task_id in self._later:
            self._later.pop(post.task_id).set()

    async def _overtaken(self, task_id: str) -> None:
        event = self._later.setdefault(task_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), self.faults.delay / self.speed)
        except TimeoutError:
            self._later.pop(task_id, None)

    async def _post(self, post: Post) -> int:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        headers = {"content-type": "application/json"}
        if post.secret:
            headers["x-webhook-secret"] = post.secret
        try:
            async with self._session.post(
                post.endpoint, data=post.body, headers=headers, allow_redirects=False
            ) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def _delivery(self, post: Post, attempt: int, *, lost: bool = False) -> Delivery:
        return Delivery(post.task_id, post.endpoint, post.status_word, attempt, self.clock(), lost=lost)
