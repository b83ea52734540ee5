"""One call: through the throttle, as often as the policy allows, judged by what the answer means.

Reads are repeated here.  A submission is not: `Sender.try_to_create` makes one attempt and judges
it, and the submitter, which knows what the ledger says, decides what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

from attrs import define, field

from .._http import HTTPResponse, Request
from .._protocol.family import TaskRequest
from .._text import label
from .._verdict import Judgement, Verdict, judge_create, judge_unanswered
from ..errors import PiAPIError, RateLimitError, TransportError, UnexpectedAnswer
from ..observe._emitter import Events
from ..policy import Backoff, RetryPolicy
from ..stats import Counters
from ..tasks import Created, TaskId
from .clock import HostClock
from .throttle import Throttle, now
from .transport import SendState, Transport

A = TypeVar("A")
E = TypeVar("E", bound=PiAPIError)


@define(eq=False, repr=False)
class Sender:
    """Makes calls; `timeout` is the seconds that one attempt may take, `retry` bounds the whole call."""

    transport: Transport
    retry: RetryPolicy
    throttle: Throttle
    rng: Random
    timeout: float
    counters: Counters
    clock: HostClock = field(factory=HostClock)
    events: Events = field(factory=Events)

    # -- reads ------------------------------------------------------------------------------------

    async def attempt(self, request: Request[A], *, timeout: float | None = None) -> A:
        """Return the answer to a read, tried once.

        Raises what `Transport.send` and `request.parse` raise.
        """
        if not self.throttle.is_open:
            await self.throttle.enter()

        seconds = self.timeout if timeout is None else timeout
        response = await self._exchange(request, seconds, SendState(), submit=False)

        try:
            return request.parse(response)
        except RateLimitError as error:
            self.slow_down(error)
            raise
        except UnexpectedAnswer as error:
            raise _of(request, error)  # noqa: B904 - it is the same error

    async def call(
        self, request: Request[A], judge: Callable[[PiAPIError], Verdict], *, timeout: float | None = None
    ) -> A:
        """Return the answer to a read, which is repeated while `judge` says so and the policy allows it."""
        backoff = self.backoff(now())

        while True:
            try:
                return await self.attempt(request, timeout=timeout)
            except PiAPIError as error:
                pause = None
                if judge(error) is Verdict.RETRY:
                    pause = self.pause_after(request, error, backoff)
                if pause is None:
                    raise

            await self.throttle.sleep(pause)

    async def last_read(self, request: Request[A]) -> A:
        """Return what one read gives, even while the client is closing.  Raises as `attempt`."""
        self.counters.requests[type(request).__name__] += 1
        response = await self.transport.send(request.to_http(), timeout=self.timeout)
        self.clock.note(response.headers.get("Date"))
        return request.parse(response)

    # -- submissions ------------------------------------------------------------------------------

    async def try_to_create(
        self, request: TaskRequest[Any], state: SendState, timeout: float
    ) -> TaskId | Created | Judgement:
        """Return the task that one attempt has made, or the judgement on it.

        It does not wait for the throttle: the submitter has, and holds a claim by now.  The
        connection stays reserved until `SendState.settle` tells whether it may be used again.
        """
        try:
            response = await self._exchange(request, timeout, state, submit=True)
        except PiAPIError as error:
            return judge_unanswered(error)

        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own classes
            return judge_create(response, request)

        try:
            return request.parse(response)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a request class may raise anything
            # `parse` awaits nothing, so a cancellation out of it is the request class's own.
            judgement = judge_create(response, request)
            if not isinstance(error, PiAPIError):
                judgement.error.__cause__ = error
            if isinstance(judgement.error, UnexpectedAnswer):
                _of(request, judgement.error)
            return judgement

    # -- both -------------------------------------------------------------------------------------

    def slow_down(self, error: RateLimitError, *, pause: bool = True) -> None:
        """Note that the host is busy; with `pause`, the time it asks for holds the whole client."""
        self.counters.rate_limited += 1
        seconds = 0.0
        if pause and error.retry_after:
            seconds = min(error.retry_after, self.retry.total)
            self.throttle.pause(seconds)
        self.events.rate_limited(error, seconds)

    def backoff(self, started_at: float, policy: RetryPolicy | None = None) -> Backoff:
        """Return the back-off of a call that began at a time of the loop, by its own policy if it has one."""
        return Backoff(policy or self.retry, self.rng, started_at)

    def pause_after(self, request: Request[Any], error: PiAPIError, backoff: Backoff) -> float | None:
        """Return the seconds to wait after a failed attempt, None if the policy allows no more."""
        retry_after = getattr(error, "retry_after", None)
        pause = backoff.after_failure(now(), retry_after=retry_after)
        if pause is None:
            return None

        self.counters.retries += 1
        self.events.retried(request, error, pause, backoff.tries + 1, backoff.policy.attempts)
        return pause

    async def _exchange(
        self,
        request: Request[Any],
        timeout: float,
        state: SendState,
        *,
        submit: bool,
    ) -> HTTPResponse:
        """Send a request once, and return the response."""
        self.counters.requests[type(request).__name__] += 1
        debugging = self.events.logs_requests
        started_at = now() if debugging else 0.0

        try:
            response = await self.transport.send(
                request.to_http(),
                timeout=timeout,
                state=state,
                submit=submit,
            )
        except (TransportError, UnexpectedAnswer) as error:
            raise _of(request, error)  # noqa: B904 - it is the same error

        self.clock.note(response.headers.get("Date"))
        if debugging:
            self.events.answered(request, response.status, now() - started_at)
        return response


def _of(request: Request[Any], error: E) -> E:
    """Return the error, its text preceded by the request's name."""
    error.args = (f"{label(request)}: {error}",)
    return error
