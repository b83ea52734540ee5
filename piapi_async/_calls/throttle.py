"""The rate limit and the pauses that every request of a client passes."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from ..errors import ClientClosed
from .transport import SendState

if TYPE_CHECKING:
    from ..policy import TokenBucket


@define(eq=False)
class Throttle:
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
        self._paused_until = max(self._paused_until, now() + seconds)

    @property
    def open(self) -> bool:
        """Whether a request may go at once, without asking further."""
        return self.bucket is None and self._paused_until == -math.inf and not self._shut.is_set()

    async def enter(self, sending: SendState) -> None:
        """Return when a request may go; raise `ClientClosed` when none may."""
        while True:
            while self._paused_until > -math.inf and (wait := self._paused_until - now()) > 0:
                await self.wait(wait * (1.0 + 0.1 * self.rng.random()), sending)  # not all at once, and never early
            if self.bucket is not None and (wait := self.bucket.reserve(now())):
                await self.wait(wait, sending)
                if self._paused_until > now():
                    continue  # a pause came over it: who has waited longer than the bucket said takes a new place
            break
        if self._shut.is_set():
            raise ClientClosed(_CLOSED)

    async def wait(self, seconds: float, sending: SendState) -> None:
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


def now() -> float:
    return asyncio.get_running_loop().time()  # anyio's own asks first which library's loop it is, which costs more


_SHORT = 0.5  # seconds that are not worth writing down that a submit waits
_CLOSED = "The client is closed. Nothing was sent; make a new PiAPI."
