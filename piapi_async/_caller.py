"""How one call is made: through the gate, as often as the policy says, judged by what it may have cost.

Submits, reads and polls all go through `Caller.attempt`, so a rate limit or a pause that the host asked for holds the
whole client and not one caller.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, TypeVar

import anyio
from attrs import define, field

from ._stats import Counters
from ._transport import Sending, Transport
from ._wire import Request, Verdict, label
from .errors import ClientClosed, PiAPIError, RateLimitError, TransportError, UnexpectedAnswer

if TYPE_CHECKING:
    from .policy import RetryPolicy, TokenBucket

logger = logging.getLogger("piapi_async")

A = TypeVar("A")


@define(eq=False)
class Gate:
    """The one place that every request of a client passes, so that slowing down is decided once for all."""

    bucket: TokenBucket | None
    rng: Random
    _paused_until: float = -math.inf
    _shut: asyncio.Event = field(factory=asyncio.Event)

    def shut(self) -> None:
        """Let nobody pass any more, and nobody rest: the client is closed."""
        self._shut.set()

    def pause(self, seconds: float) -> None:
        """Let nobody pass for so long."""
        self._paused_until = max(self._paused_until, _now() + seconds)

    @property
    def open(self) -> bool:
        """Whether a request may go at once, without asking further."""
        return self.bucket is None and self._paused_until == -math.inf and not self._shut.is_set()

    async def enter(self, sending: Sending) -> None:
        """Return when a request may go; raise `ClientClosed` when none may."""
        while True:
            while self._paused_until > -math.inf and (wait := self._paused_until - _now()) > 0:
                await self.wait(wait * (1.0 + 0.1 * self.rng.random()), sending)  # not all at once, and never early
            if self.bucket is not None and (wait := self.bucket.reserve(_now())):
                await self.wait(wait, sending)
                if self._paused_until > _now():
                    continue  # a pause came over it: who has waited longer than the bucket said takes a new place
            break
        if self._shut.is_set():
            raise ClientClosed(_CLOSED)

    async def wait(self, seconds: float, sending: Sending) -> None:
        """Rest before a request goes, or goes again."""
        if sending.aside is None or seconds < _SHORT:
            await self.rest(seconds)
        else:
            await sending.aside(partial(self.rest, seconds))

    async def rest(self, seconds: float) -> None:
        """Sleep; raise `ClientClosed` as soon as the client is closed."""
        with anyio.move_on_after(seconds):
            await self._shut.wait()
            raise ClientClosed(_CLOSED)


def _now() -> float:
    return asyncio.get_running_loop().time()  # anyio's own asks first which library's loop it is, which costs more


_SHORT = 0.5  # seconds that are not worth writing down that a submit waits
_CLOSED = "The client is closed. Nothing was sent; make a new PiAPI."


@define(eq=False)
class Caller:
    """Makes calls; `timeout` bounds one attempt, `retry` the whole call."""

    transport: Transport
    retry: RetryPolicy
    gate: Gate
    rng: Random
    timeout: float
    counters: Counters

    async def attempt(
        self,
        request: Request[A],
        *,
        timeout: float | None = None,
        sending: Sending | None = None,
        submit: bool = False,
    ) -> A:
        """Give the answer to one try; raise what `Transport.send` and `request.parse` raise."""
        sending = sending or Sending()
        if not self.gate.open:
            await self.gate.enter(sending)
        self.counters.requests[type(request).__name__] += 1
        began = _now() if (debugging := logger.isEnabledFor(logging.DEBUG)) else 0.0
        try:
            response = await self.transport.send(
                request.to_http(), timeout=self.timeout if timeout is None else timeout, sending=sending, submit=submit
            )
            if debugging:
                passed = (_now() - began) * 1000
                logger.debug("%s: HTTP %d in %.0f ms", label(request), response.status, passed)
            return request.parse(response)
        except RateLimitError as error:
            self.counters.pauses += 1
            if error.retry_after:
                self.gate.pause(min(error.retry_after, self.retry.total))
            raise
        except (TransportError, UnexpectedAnswer) as error:
            error.args = (f"{label(request)}: {error}",)
            raise

    async def call(
        self,
        request: Request[A],
        judge: Callable[[PiAPIError], Verdict],
        *,
        timeout: float | None = None,
        sending: Sending | None = None,
        submit: bool = False,
    ) -> A:
        """Give the answer, trying again while `judge` finds that harmless and the policy allows it."""
        sending = sending or Sending()
        began = _now()
        tries = 0
        while True:
            try:
                return await self.attempt(request, timeout=timeout, sending=sending, submit=submit)
            except PiAPIError as error:
                tries += 1
                if judge(error) is not Verdict.RETRY or sending.abandoned:
                    raise
                wait = self.retry.delay(
                    tries,
                    elapsed=_now() - began,
                    retry_after=getattr(error, "retry_after", None),
                    rng=self.rng,
                )
                if wait is None:
                    raise
                text = str(error).rstrip(".")
                logger.info("%s; trying again in %.1f s (%d of %d)", text, wait, tries + 1, self.retry.attempts)
            self.counters.retries += 1
            sending.begun_at = None  # what had been sent was refused, so nothing is under way
            await self.gate.wait(wait, sending)
