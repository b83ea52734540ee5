"""Sends webhooks: the bare task object, tried three times; dropped, duplicated or reordered on request."""

from __future__ import annotations

import asyncio
import hmac
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
TIMEOUT = 10.0  # seconds of the loop's time that a receiver has
_RECEIVED = 200  # anything else counts as not received (vendor page)


@frozen(kw_only=True)
class WebhookFaults:
    """What goes wrong with deliveries, each as a share (0..1) of them, drawn from the emulator's seed.

    `lost`: never sent.  `duplicated`: sent twice.  `reordered`: held until a later one of the same
    task has gone, at most for `delay`.  `delayed`: sent `delay` emulated seconds late.
    """

    lost: float = 0.0
    duplicated: float = 0.0
    reordered: float = 0.0
    delayed: float = 0.0
    delay: float = 30.0


@frozen
class Post:
    """One webhook to deliver."""

    task_id: str
    endpoint: str
    secret: str
    body: bytes
    status_word: str
    signed_with: str = ""


@define
class WebhookSender:
    """Delivers posts, each in a task of its own.

    `clock` returns emulated seconds; `speed` is how many of them pass per second of the loop.
    """

    seen: Seen
    faults: WebhookFaults
    rng: Random
    clock: Callable[[], float]
    speed: float
    guard: Guard
    _warned: bool = False
    _session: aiohttp.ClientSession | None = None
    _deliveries: set[asyncio.Task[None]] = Factory(set)
    _overtaken: dict[str, asyncio.Event] = field(factory=dict)

    def send(self, post: Post) -> None:
        """Begin to deliver; what goes wrong is drawn now, so that a run is the same for the same seed."""
        if not self.guard.allows_webhook(post.endpoint):
            self._keep_back(post)
            return

        # All four are drawn each time, so that one share does not change what the others hit.
        lost = self._draw(self.faults.lost)
        duplicated = self._draw(self.faults.duplicated)
        hold = self._draw(self.faults.reordered)
        late = self._draw(self.faults.delayed)

        if lost:
            self.seen.deliveries.append(self._delivery(post, 1, lost=True))
            return
        self._start(self._deliver(post, hold=hold, late=late))
        if duplicated:
            self._start(self._deliver(post, hold=hold, late=late))

    def _draw(self, share: float) -> bool:
        return self.rng.random() < share

    def _keep_back(self, post: Post) -> None:
        delivery = self._delivery(post, 1, lost=True)
        self.seen.deliveries.append(evolve(delivery, kept_back=True))

        if not self._warned:
            self._warned = True
            _LOG.warning(
                "No webhook is posted to %.200s: an emulator that is not exposed posts to this "
                "machine alone, and to its webhook_hosts.  Those to other hosts are counted as lost.",
                post.endpoint,
            )

    async def close(self) -> None:
        """Stop every delivery that has not ended."""
        for delivery in list(self._deliveries):
            delivery.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

        if self._session is not None:
            await self._session.close()

    def _start(self, delivery: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(delivery)
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, post: Post, *, hold: bool, late: bool) -> None:
        if hold:
            await self._wait_until_overtaken(post.task_id)
        if late:
            await asyncio.sleep(self.faults.delay / self.speed)

        for attempt in range(1, TRIES + 1):
            status = await self._post(post)
            self.seen.deliveries.append(evolve(self._delivery(post, attempt), answer=status))
            if status == _RECEIVED:
                break
            if attempt < TRIES:
                await asyncio.sleep(PAUSE / self.speed)

        if not hold and post.task_id in self._overtaken:
            self._overtaken.pop(post.task_id).set()

    async def _wait_until_overtaken(self, task_id: str) -> None:
        event = self._overtaken.setdefault(task_id, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), self.faults.delay / self.speed)
        except TimeoutError:
            self._overtaken.pop(task_id, None)

    async def _post(self, post: Post) -> int:
        """Return the status of the response, 0 if there was none."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT)
            self._session = aiohttp.ClientSession(timeout=timeout)

        headers = {"content-type": "application/json"}
        if post.secret:
            headers["x-webhook-secret"] = post.secret
        if post.signed_with:
            headers |= _signature(post.signed_with, post.body, str(int(self.clock())))

        try:
            async with self._session.post(
                post.endpoint, data=post.body, headers=headers, allow_redirects=False
            ) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def _delivery(self, post: Post, attempt: int, *, lost: bool = False) -> Delivery:
        return Delivery(
            post.task_id,
            post.endpoint,
            post.status_word,
            attempt,
            self.clock(),
            lost=lost,
        )


def _signature(secret: str, body: bytes, timestamp: str) -> dict[str, str]:
    """Return the headers with which LegNext signs a delivery (its Python package)."""
    signature = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hexdigest()
    return {"x-legnext-timestamp": timestamp, "x-legnext-signature": signature}
