"""The rate limit, and the pauses that the host asks for: every request of a client passes here.

Whoever has a request takes a `Ticket`, sleeps for as long as it says, asks again, and goes when it
says 0.  So slowing down is decided once for the whole client, and what is done with the waiting
time is left to the one who waits.
"""

from __future__ import annotations

import asyncio
import math
from random import Random

import anyio
from attrs import define, field

from ..errors import ClientClosed
from ..policy import TokenBucket

_CLOSED = "The client is closed. Nothing was sent; make a new PiAPI."
_SPREAD = 0.1  # of a pause; so much later may a request go, so that not all go at once


@define(eq=False, repr=False)
class Throttle:
    """What holds the requests of one client back."""

    bucket: TokenBucket | None
    rng: Random
    is_open: bool = field(init=False)
    """Whether a request may go at once, without a ticket: there is no rate limit and was no pause yet."""
    _paused_until: float = field(default=-math.inf, init=False)
    _closed: asyncio.Event = field(factory=asyncio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        self.is_open = self.bucket is None

    def ticket(self) -> Ticket:
        """Return the ticket of one request."""
        return Ticket(self)

    def pause(self, seconds: float) -> None:
        """Hold back all requests for `seconds`."""
        self._paused_until = max(self._paused_until, now() + seconds)
        self.is_open = False

    def pause_left(self) -> float:
        """Return the seconds that are left of a pause, 0 if there is none."""
        if self._paused_until == -math.inf:
            return 0.0
        return max(0.0, self._paused_until - now())

    async def enter(self) -> None:
        """Return when a request may go.  Raises `ClientClosed` if the client is closed by then."""
        ticket = self.ticket()
        while seconds := ticket.seconds_to_wait():
            await self.sleep(seconds)

    async def sleep(self, seconds: float) -> None:
        """Sleep.  Raises `ClientClosed` as soon as the client is closed."""
        with anyio.move_on_after(seconds):
            await self._closed.wait()
            raise ClientClosed(_CLOSED)

    def check_open(self) -> None:
        """Raise `ClientClosed` if the client is closed."""
        if self._closed.is_set():
            raise ClientClosed(_CLOSED)

    def close(self) -> None:
        """Close it: all who wait, and all who come later, get `ClientClosed`."""
        self._closed.set()
        self.is_open = False


@define(eq=False, repr=False)
class Ticket:
    """One request's turn: ask, sleep for as long as it says, ask again; at 0 the request may go."""

    _throttle: Throttle
    _has_place: bool = False

    def seconds_to_wait(self) -> float:
        """Return the seconds to sleep before asking again, 0 if the request may go now.

        Raises `ClientClosed` instead of 0 if the client is closed.
        """
        throttle = self._throttle
        pause = throttle.pause_left()
        if pause > 0:
            # A place in the rate limit that has passed during a pause is lost: all would go at its
            # end.
            self._has_place = False
            return pause * (1.0 + _SPREAD * throttle.rng.random())  # never early

        if throttle.bucket is not None and not self._has_place:
            self._has_place = True
            wait = throttle.bucket.reserve(now())
            if wait > 0:
                return wait

        throttle.check_open()
        return 0.0


def now() -> float:
    """Return the running loop's time, in seconds; anyio's own function is slower."""
    return asyncio.get_running_loop().time()
