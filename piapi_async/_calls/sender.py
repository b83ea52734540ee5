"""How one call is made: through the gate, as often as the policy says, judged by what it may have cost.

Submissions, reads and polls all pass the one gate, so a rate limit or a pause that the host asked for holds the
whole client and not one caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define

from .._http import HTTPResponse, Request
from .._protocol.family import TaskRequest
from .._text import label
from .._verdict import Judgement, Verdict, judge_create, judge_unanswered
from ..errors import PiAPIError, RateLimitError, TransportError, UnexpectedAnswer
from ..stats import Counters
from ..tasks import Created, TaskId
from .transport import SendState, Transport

if TYPE_CHECKING:
    from ..policy import RetryPolicy
from .throttle import Throttle, now

A = TypeVar("A")


E = TypeVar("E", bound=PiAPIError)

logger = logging.getLogger("piapi_async")


@define(eq=False)
class Sender:
    """Makes calls; `timeout` bounds one attempt, `retry` the whole call."""

    transport: Transport
    retry: RetryPolicy
    throttle: Throttle
    rng: Random
    timeout: float
    counters: Counters

    async def attempt(self, request: Request[A], *, timeout: float | None = None) -> A:
        """Return the answer to one try; raise what `Transport.send` and `request.parse` raise."""
        response = await self._exchange(request, timeout, SendState(), submit=False)
        try:
            return request.parse(response)
        except RateLimitError as error:
            self._slow_down(error)
            raise
        except UnexpectedAnswer as error:
            raise _of(request, error)  # noqa: B904 - it is the same error

    async def call(
        self, request: Request[A], judge: Callable[[PiAPIError], Verdict], *, timeout: float | None = None
    ) -> A:
        """Return the answer to a read, trying again while `judge` finds that useful and the policy allows it."""
        began, tries = now(), 0
        while True:
            try:
                return await self.attempt(request, timeout=timeout)
            except PiAPIError as error:
                tries += 1
                pause = self._pause_after(error, tries, began) if judge(error) is Verdict.RETRY else None
                if pause is None:
                    raise
            await self.throttle.wait(pause, SendState())

    async def last_read(self, request: Request[A]) -> A:
        """Return the answer to one read that is made although the client is closing.  Raises as `attempt`."""
        self.counters.requests[type(request).__name__] += 1
        response = await self.transport.send(request.to_http(), timeout=self.timeout, sending=SendState(), submit=False)
        return request.parse(response)

    async def submit(self, request: TaskRequest[Any], sending: SendState) -> TaskId | Created | Judgement:
        """Return the task that a request has made, or what became of it instead.

        It is sent again while certainly nothing was made and the policy allows it.  The connection of an answer that
        is no plain acceptance is closed; that of an id is the caller's to `settle`.
        """
        began, tries = now(), 0
        while True:
            answer = await self._try_to_submit(request, sending)
            if not isinstance(answer, Judgement):
                return answer
            sending.settle(reuse=False)
            if isinstance(answer.error, RateLimitError):
                self._slow_down(answer.error, pause=answer.verdict is Verdict.RETRY)
            tries += 1
            if answer.verdict is not Verdict.RETRY or sending.abandoned:
                return answer
            pause = self._pause_after(answer.error, tries, began)
            if pause is None:
                return answer
            sending.started_at = None  # what had been sent was refused, so nothing is under way
            await self.throttle.wait(pause, sending)

    async def _try_to_submit(self, request: TaskRequest[Any], sending: SendState) -> TaskId | Created | Judgement:
        try:
            response = await self._exchange(request, sending.timeout, sending, submit=True)
        except PiAPIError as error:
            return judge_unanswered(error)
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own classes
            return judge_create(response, request)
        try:
            return request.parse(response)
        except Exception as error:  # noqa: BLE001 - whatever a request class makes of an answer, the answer counts
            judgement = judge_create(response, request)
            if not isinstance(error, PiAPIError):
                judgement.error.__cause__ = error
            if isinstance(judgement.error, UnexpectedAnswer):
                _of(request, judgement.error)
            return judgement

    async def _exchange(
        self, request: Request[Any], timeout: float | None, sending: SendState, *, submit: bool
    ) -> HTTPResponse:
        """Send a request through the gate, and return what came back."""
        if not self.throttle.open:
            await self.throttle.enter(sending)
        self.counters.requests[type(request).__name__] += 1
        debugging = logger.isEnabledFor(logging.DEBUG)
        began = now() if debugging else 0.0
        try:
            response = await self.transport.send(
                request.to_http(), timeout=self.timeout if timeout is None else timeout, sending=sending, submit=submit
            )
        except (TransportError, UnexpectedAnswer) as error:
            raise _of(request, error)  # noqa: B904 - it is the same error
        if debugging:
            logger.debug("%s: HTTP %d in %.0f ms", label(request), response.status, (now() - began) * 1000)
        return response

    def _slow_down(self, error: RateLimitError, *, pause: bool = True) -> None:
        """Take note that the host is busy; what it asks for holds the whole client."""
        self.counters.rate_limited += 1
        if pause and error.retry_after:
            self.throttle.pause(min(error.retry_after, self.retry.total))

    def _pause_after(self, error: PiAPIError, tries: int, began: float) -> float | None:
        """Return the seconds until the next try, None where the policy allows none."""
        pause = self.retry.delay(
            tries, elapsed=now() - began, retry_after=getattr(error, "retry_after", None), rng=self.rng
        )
        if pause is not None:
            text = str(error).rstrip(".")
            logger.info("%s; trying again in %.1f s (%d of %d)", text, pause, tries + 1, self.retry.attempts)
            self.counters.retries += 1
        return pause


def _of(request: Request[Any], error: E) -> E:
    """Return an error whose text names the request."""
    error.args = (f"{label(request)}: {error}",)
    return error
