"""The right to send: one token for one POST, in the memory of the process that has minted it.

A token is recorded in the database before it is used.  Whoever finds one there that it has not
minted itself must not send: another process may have.  A process that stood still between recording
and sending (a paused machine, a blocked loop) must not send either, because it may have been given
up, and somebody may have said "submit again" meanwhile: a token is good for half a lease, by two
clocks, of which one counts the time in which the machine slept.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from attrs import define, field, frozen

Clocks = tuple[float, float]


def read_clocks() -> Clocks:
    """Return seconds by a clock that goes on while the machine sleeps, and by the wall's."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # Linux has the former alone
    return time.clock_gettime(clock), time.time()


@frozen
class Permit:
    """The right to send one POST, while it is young enough by both clocks."""

    minted: Clocks
    lifetime: float
    _clocks: Callable[[], Clocks]

    def holds(self) -> bool:
        """Return whether a POST may still leave."""
        ages = [now - then for now, then in zip(self._clocks(), self.minted, strict=True)]
        return min(ages) >= 0.0 and max(ages) <= self.lifetime


@define(eq=False)
class Intents:
    """The tokens of one process that have not been used."""

    lifetime: float
    _clocks: Callable[[], Clocks] = read_clocks
    _minted: dict[str, Clocks] = field(factory=dict, init=False)

    def mint(self) -> str:
        """Return a new token."""
        token = secrets.token_hex(16)
        self._minted[token] = self._clocks()
        return token

    def take(self, token: str) -> Permit | None:
        """Return the right to send with a token, once; None if it was minted elsewhere, or taken."""
        minted = self._minted.pop(token, None)
        if minted is None:
            return None
        return Permit(minted, self.lifetime, self._clocks)
