"""Time as arithmetic: when to try again, when to look again, how fast to go.  Pure.

Nothing here sleeps or reads a clock.  Times are seconds on whatever clock the caller uses, randomness is handed in.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cache
from itertools import accumulate
from random import Random
from typing import Any, ClassVar

from attrs import Attribute, define, field, frozen


def _positive(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; it must be above 0")


def _not_negative(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value >= 0:
        raise ValueError(f"{type(instance).__name__}.{attribute.name}: {value!r} is not allowed; it must be 0 or more")


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how long one call is tried.

    Between two tries it waits ``min(maximum, initial · 2ⁿ) · (1 + jitter · random)`` seconds, n counting from 0, or
    what the server asked for if that is longer.  It gives up after `attempts` tries, or when the wait would end more
    than `total` seconds after the call began.  Jitter only lengthens: a server that names a time means it.

    Only calls that certainly did nothing are repeated, and reads; a submit that may have arrived never is.
    """

    attempts: int = field(default=6, validator=_positive)
    total: float = field(default=120.0, validator=_not_negative)
    initial: float = field(default=0.5, validator=_not_negative)
    maximum: float = field(default=16.0, validator=_not_negative)
    jitter: float = field(default=0.25, validator=_not_negative)

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
        wait = base * (1.0 + self.jitter * rng.random())
        return wait if elapsed + wait <= self.total else None


@define
class TokenBucket:
    """At most `requests` at once and `requests` per `seconds` in the long run."""

    requests: int = field(validator=_positive)
    seconds: float = field(validator=_positive)
    _free_at: float = field(default=-math.inf, init=False)

    def reserve(self, now: float) -> float:
        """Take one place and give the seconds to wait before using it.

        The bucket is kept as the one time at which it would be full again (the generic cell rate algorithm), so a
        reservation is two additions and nobody has to refill it.
        """
        step = self.seconds / self.requests
        self._free_at = max(self._free_at, now) + step
        return max(0.0, self._free_at - self.seconds - now)


@frozen
class _Shape:
    """How likely a task is to end, by the share `x` of its expected duration that has passed: a log-normal hazard.

    The fewest looks for a given mean delay are had when the time between two looks goes with ``1/√hazard``, that is
    when each look comes after the same increase of ``∫√hazard``.  `effort` is that integral as a table over x, and
    `scale` makes the 95th percentile of the delay come out as 1.
    """

    spread: float
    scale: float
    effort: tuple[float, ...]

    STEP: ClassVar[float] = 0.005
    END: ClassVar[float] = 5.0

    @classmethod
    def of(cls, spread: float) -> _Shape:
        xs = [cls.STEP * index for index in range(int(cls.END / cls.STEP) + 1)]
        roots = [math.sqrt(_hazard(x, spread)) for x in xs]
        effort = tuple(accumulate(root * cls.STEP for root in roots))
        chances = [_density(x, spread) * cls.STEP for x in xs]

        def late(scale: float) -> float:
            return sum(chance * max(0.0, 1.0 - root / scale) for chance, root in zip(chances, roots, strict=True))

        low, high = 0.01, 100.0
        for _ in range(25):
            middle = (low + high) / 2
            low, high = (middle, high) if late(middle) < _LATE else (low, middle)
        return cls(spread, low, effort)

    def wait(self, x: float, delay: float) -> float:
        """Give the time from `x` to the next look, for a 95th percentile of `delay`, all as shares of the duration."""
        here = min(int(x / self.STEP), len(self.effort) - 2)
        wanted = self.effort[here] + self.scale * delay
        there = bisect_left(self.effort, wanted, here)
        if there >= len(self.effort):
            slope = (self.effort[-1] - self.effort[-2]) / self.STEP
            return self.END - here * self.STEP + (wanted - self.effort[-1]) / slope
        return max(self.STEP, (there - here) * self.STEP)


_LATE = 0.05


def _density(x: float, spread: float) -> float:
    return 0.0 if x <= 0 else math.exp(-((math.log(x) / spread) ** 2) / 2) / (x * spread * math.sqrt(2 * math.pi))


def _hazard(x: float, spread: float) -> float:
    if x <= 0:
        return 0.0
    left = math.erfc(math.log(x) / spread / math.sqrt(2)) / 2
    return _density(x, spread) / left if left > 1e-250 else math.log(x) / spread**2 / x  # noqa: PLR2004 - nearly 0


_shape = cache(_Shape.of)

# Fast-mode tasks take 25 to 80 s (the vendor's page); the spread is wider than that, because an upscale takes less.
_TYPICAL = 45.0
_SPREAD = 0.7
# How far a duration predicted from progress is off: hosts were seen to be within 10 %.
_PREDICTED_SPREAD = 0.12
_ROUGH_SPREAD = 0.3
_JITTER = 0.04
_ALLOWANCE = 0.93  # of the delay is for waiting, the rest for the jitter and the answer's way


@frozen
class Pace:
    """How a task comes along: its `progress` (0..100), the `rate` in points per second, and whether that is `rough`."""

    progress: float
    rate: float
    rough: bool


@frozen
class PollPolicy:
    """How closely tasks are watched.

    `delay` is the one knob: 95 % of ends are noticed within that many seconds.  Looks are rare while a task is too
    young to end, and where the host reports progress also while it has far to go; they never become rarer again.
    """

    delay: float = field(default=1.5, validator=_positive)
    _plain: bool = field(default=False, kw_only=True)

    @classmethod
    def every(cls, seconds: float) -> PollPolicy:
        """Give the plain schedule: a look every `seconds`."""
        return cls(delay=seconds * 0.95, plain=True)

    @property
    def interval(self) -> float:
        """Seconds between two looks of the plain schedule: 95 % of ends are noticed within 0.95 of it."""
        return self.delay / 0.95

    def next_look(self, rng: Random, *, age: float | None = None, pace: Pace | None = None) -> float:
        """Give the seconds to the next look at a task that has not ended; jitter only lengthens them.

        `age` is the seconds since it can have begun, None if that is not known; `pace` what its progress tells.
        """
        wait = self.interval
        delay = self.delay * _ALLOWANCE
        if not self._plain and pace is not None:
            expected, spread = 100.0 / pace.rate, _ROUGH_SPREAD if pace.rough else _PREDICTED_SPREAD
            wait = expected * _shape(spread).wait(pace.progress / 100.0, delay / expected)
        elif not self._plain and age is not None:
            wait = _TYPICAL * _shape(_SPREAD).wait(age / _TYPICAL, delay / _TYPICAL)
        return wait * (1.0 + _JITTER * rng.random())
