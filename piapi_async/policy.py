"""Time as arithmetic: when to try again, when to look again, how fast to go.  Pure.

Nothing here sleeps or reads a clock.  Times are seconds on whatever clock the caller uses, randomness is handed in.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from attrs import Attribute, define, evolve, field, frozen


def _positive(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; it must be above 0")


def _finite(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; it must be finite")


def _not_negative(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; it must be 0 or more")


def _whole(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        name = f"{type(instance).__name__}.{attribute.name}"
        raise ValueError(f"{name}: {value!r} is not allowed; it must be a whole number above 0")


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how long one call is tried.

    Between two tries it waits ``min(maximum, initial · 2ⁿ) · (1 + jitter · random)`` seconds, n counting from 0, or
    what the server asked for if that is longer.  It gives up after `attempts` tries, or when that would be more than
    `total` seconds after the call began; `total` and `maximum` may be infinite.  Jitter only lengthens: a server that
    names a time means it.

    Only calls that certainly did nothing are repeated, and reads; a submit that may have arrived never is.
    """

    attempts: int = field(default=6, validator=_whole)
    total: float = field(default=120.0, validator=_not_negative)
    initial: float = field(default=0.5, validator=[_not_negative, _finite])
    maximum: float = field(default=16.0, validator=_not_negative)
    jitter: float = field(default=0.25, validator=[_not_negative, _finite])

    @classmethod
    def never(cls) -> RetryPolicy:
        """Give the policy that tries once."""
        return cls(attempts=1)

    def delay(self, tries: int, *, elapsed: float, retry_after: float | None, rng: Random) -> float | None:
        """Give the seconds to wait after `tries` failed ones and `elapsed` seconds, None to give up."""
        if tries >= self.attempts:
            return None
        growth = min(tries - 1, 60)  # beyond, a float overflows before `maximum` can cap it
        base = max(min(self.maximum, self.initial * 2.0**growth), retry_after or 0.0)
        left = self.total - elapsed
        return min(base * (1.0 + self.jitter * rng.random()), left) if base <= left else None


@define
class TokenBucket:
    """At most `requests` at once and `requests` per `seconds` in the long run."""

    requests: int = field(validator=_whole)
    seconds: float = field(validator=[_positive, _finite])
    _free_at: float = field(default=-math.inf, init=False)

    @classmethod
    def of(cls, rate_limit: tuple[int, float]) -> TokenBucket:
        """Give the bucket for a user's `rate_limit`; raise `ValueError` for what is no pair of numbers."""
        if not isinstance(rate_limit, tuple) or len(rate_limit) != 2:  # noqa: PLR2004 - a pair
            raise ValueError(f"rate_limit: {rate_limit!r} is not allowed; it must be (requests, seconds)")
        return cls(*rate_limit)

    def reserve(self, now: float) -> float:
        """Take one place and give the seconds to wait before using it.

        The bucket is kept as the one time at which it would be full again (the generic cell rate algorithm), so a
        reservation is two additions and nobody has to refill it.
        """
        step = self.seconds / self.requests
        self._free_at = max(self._free_at, now) + step
        return max(0.0, self._free_at - self.seconds - now)


_TYPICAL = 45.0  # seconds; fast-mode tasks take 25 to 80 (the vendor's page)
_YOUNG = 0.4  # of the typical duration; few tasks end before
_FIRST = 0.11  # of the typical duration; none ends before
_NEAR = (
    0.15  # of the predicted duration: progress was observed to lead or trail by about 0.1, so an end is unlikely before
)
_NEAR_INTERVAL = 0.85  # of the interval: when an end is due, one looks more closely
_TRUST = 10.0  # intervals; hosts need not report steadily, so no task is left alone for longer than that
_PATIENT = 3.5  # typical durations; nearly all tasks have ended by then
_JITTER = 0.04
_ALLOWANCE = 0.93  # of the interval; the rest is for the jitter and the answer's way


@frozen
class Pace:
    """How a task comes along: its `progress` (0..100), and the `rate` in points per second."""

    progress: float
    rate: float


@frozen
class PollPolicy:
    """How closely tasks are watched.

    `delay` is the one knob: 95 % of ends are noticed within that many seconds.  There are fewer looks while a task is
    too young to end, or has by its progress far to go; there is no back-off, for an end is never less likely later.

    `typical_duration` is what a task usually takes, in seconds: turbo tasks about 15, and a sped-up emulator's less.
    """

    delay: float = field(default=1.5, validator=[_positive, _finite])
    typical_duration: float = field(default=_TYPICAL, kw_only=True, validator=[_positive, _finite])
    _plain: bool = field(default=False, kw_only=True)

    @classmethod
    def every(cls, seconds: float) -> PollPolicy:
        """Give the plain schedule: a look every `seconds`."""
        return cls(delay=seconds * 0.95, plain=True)

    def at_speed(self, speed: float) -> PollPolicy:
        """Give the policy for a host that is `speed` times faster than life."""
        return evolve(self, delay=self.delay / speed, typical_duration=self.typical_duration / speed)

    @property
    def interval(self) -> float:
        """Seconds between two looks of the plain schedule: an end falls evenly between them."""
        return self.delay / 0.95

    def next_poll(self, rng: Random, *, age: float | None = None, pace: Pace | None = None) -> float:
        """Give the seconds to the next look at a task that has not ended; jitter only lengthens them.

        `age` is the seconds since it can have begun, None if that is not known; `pace` what its progress tells.
        """
        return self._wait(age, pace) * (1.0 + _JITTER * rng.random())

    def safety_net(self, age: float) -> float:
        """Give the seconds to the next look at a task that will tell of its end by itself, if nothing is lost."""
        if math.isnan(age):
            return self.typical_duration
        return max(_PATIENT * self.typical_duration - age, self.typical_duration)

    def _wait(self, age: float | None, pace: Pace | None) -> float:
        if self._plain:
            return self.interval
        interval = self.interval * _ALLOWANCE
        if pace is not None:
            left = (100.0 - pace.progress) / pace.rate
            far = left - _NEAR * 100.0 / pace.rate
            return max(_NEAR_INTERVAL * interval, min(far, _TRUST * interval, self.typical_duration))
        if age is None:
            return interval
        first = _FIRST * self.typical_duration
        young = _YOUNG * self.typical_duration
        return max(first - age, interval, min(interval * young / max(age, first), young - age))
