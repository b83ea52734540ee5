"""Time as arithmetic: when to try again, when to poll again, how fast to go.  Pure.

Nothing here sleeps or reads a clock.  Times are seconds on whatever clock the caller uses, and
randomness is passed in.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from attrs import Attribute, define, evolve, field, frozen

from ._text import brief
from .tasks import Usual

_MAX_DOUBLINGS = 60  # beyond, a float could overflow before the maximum caps it


def _positive(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not _is_number(value) or not value > 0:  # type: ignore[operator]  # a number, by now
        raise _not_allowed(instance, attribute, value, "above 0")


def _finite(instance: object, attribute: Attribute[Any], value: float) -> None:
    if not math.isfinite(value):
        raise _not_allowed(instance, attribute, value, "finite")


def _positive_or_none(instance: object, attribute: Attribute[Any], value: float | None) -> None:
    if value is not None:
        _positive(instance, attribute, value)
        _finite(instance, attribute, value)


def _not_negative(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not _is_number(value) or not value >= 0:  # type: ignore[operator]  # a number, by now
        raise _not_allowed(instance, attribute, value, "0 or more")


def _whole(instance: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _not_allowed(instance, attribute, value, "a whole number above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _not_allowed(instance: object, attribute: Attribute[Any], value: object, needed: str) -> ValueError:
    name = f"{type(instance).__name__}.{attribute.name}"
    return ValueError(f"{name}: {brief(value)} is not allowed; it must be {needed}")


# -- trying again ----------------------------------------------------------------------------------


def doubled(base: float, times: int, *, maximum: float) -> float:
    """Return `base` doubled so many times, and at most `maximum`."""
    return min(maximum, base * 2.0 ** min(times, _MAX_DOUBLINGS))


@frozen(kw_only=True)
class RetryPolicy:
    """How often and how long one call is tried.

    Between two tries it waits ``min(maximum, initial · 2ⁿ) · (1 + jitter · random)`` seconds, n
    counting from 0, or what the server asked for if that is longer.  It gives up after `attempts`
    tries, or when the next one would begin more than `total` seconds after the call began; `total`
    and `maximum` may be infinite.  Jitter only lengthens: a server that names a time means it.

    Only reads are repeated, and calls that certainly had no effect; a submission that may have
    arrived never is.
    """

    attempts: int = field(default=6, validator=_whole)
    total: float = field(default=120.0, validator=_not_negative)
    initial: float = field(default=0.5, validator=[_not_negative, _finite])
    maximum: float = field(default=16.0, validator=_not_negative)
    jitter: float = field(default=0.25, validator=[_not_negative, _finite])

    @classmethod
    def never(cls) -> RetryPolicy:
        """Return the policy that tries once."""
        return cls(attempts=1)

    def delay(self, tries: int, *, elapsed: float, retry_after: float | None, rng: Random) -> float | None:
        """Return the seconds to wait after `tries` failed ones, or None to give up.

        `elapsed` is the seconds since the call began, `retry_after` what the server asked for.
        """
        if tries >= self.attempts:
            return None

        shortest = max(
            doubled(self.initial, tries - 1, maximum=self.maximum),
            retry_after or 0.0,
        )
        left = self.total - elapsed
        if shortest > left:
            return None

        return min(shortest * (1.0 + self.jitter * rng.random()), left)


@define(eq=False, repr=False)
class Backoff:
    """The tries of one call so far, and the pauses between them that its `RetryPolicy` allows.

    It counts and computes; the caller tells the time, and does the waiting.
    """

    policy: RetryPolicy
    rng: Random
    started_at: float
    tries: int = field(default=0, init=False)

    def after_failure(self, now: float, *, retry_after: float | None = None) -> float | None:
        """Count a failed try; return the seconds until the next one, or None to give up.

        `retry_after` is the pause that the server asked for, in seconds.
        """
        self.tries += 1
        elapsed = now - self.started_at
        return self.policy.delay(self.tries, elapsed=elapsed, retry_after=retry_after, rng=self.rng)


# -- how fast to go --------------------------------------------------------------------------------


@define(eq=False, repr=False)
class TokenBucket:
    """At most `requests` at once, and `requests` per `seconds` in the long run."""

    requests: int = field(validator=_whole)
    seconds: float = field(validator=[_positive, _finite])
    _free_at: float = field(default=-math.inf, init=False)

    @classmethod
    def of(cls, rate_limit: tuple[int, float]) -> TokenBucket:
        """Return the bucket for a user's `rate_limit`.

        Raises `ValueError` if that is not a pair of numbers.
        """
        if not isinstance(rate_limit, tuple) or len(rate_limit) != 2:  # noqa: PLR2004 - a pair
            raise ValueError(
                f"rate_limit: {brief(rate_limit)} is not allowed; it must be (requests, seconds)"
            )
        return cls(*rate_limit)

    def reserve(self, now: float) -> float:
        """Take one place and return the seconds to wait before using it.

        The bucket is kept as the one time at which it would be full again (the generic cell rate
        algorithm), so a reservation is two additions and there is nothing to refill.
        """
        step = self.seconds / self.requests
        self._free_at = max(self._free_at, now) + step
        return max(0.0, self._free_at - self.seconds - now)


# -- when to poll again ----------------------------------------------------------------------------

_TYPICAL = Usual(45.0)  # fast-mode tasks take 25 to 80 seconds (the vendor's page)

# In deviations of the logarithm of a kind's durations:
_PATIENT = 2.1  # nearly all tasks have ended by then
_SHARED_YOUNG = -1.5  # a task that shares its polls is polled ever more often until this age ...
_SHARED_EARLIEST = -3.5  # ... and from this one on

# In typical durations.  A delivery may be lost, and the fewer ends of a kind were seen, the wider they
# seem to spread: such doubt must bring the poll forward, and not put it off to thirty times the median.
_LONGEST_NET = 4.0

# As shares of, or in, intervals of the plain schedule:
_MOST_PREDICTED = 10.0  # hosts need not report steadily, so no prediction is relied on for longer
_ALLOWANCE = 0.96  # leaves time for the jitter and for the response to arrive
_GLANCES_APART = 3.0  # a poll of a young task is not worth it closer to the next
_GLANCE_SHARE = 0.015  # of a task's polls: for those that end at once, as refused ones do
_MOST_GLANCES = 4
_FIRST_GUESS = 3.0  # until a kind is known its tasks are first polled then, and at twice each age
_LOOKED_AT = 8.0  # polls in a typical duration, of a task whose progress somebody looks at

_JITTER = 0.03
_IN_TIME = 1.033  # delays; an interval with most of its jitter
_PUNCTUAL = 0.95  # the share of ends that are to be noticed within `PollPolicy.delay`


@frozen
class Pace:
    """How fast a task advances: its `progress` (0..100), and its `rate` in points per second."""

    progress: float
    rate: float


# A feedback that keeps the share of ends that are noticed late what it should be, whatever the
# distribution is: one that is late moves by `gain` · 0.95 and one in time back by `gain` · 0.05.
_LATE = 0.036
_YOUNG_GAIN, _YOUNG_RANGE = 0.1, (-2.6, -1.6)
_LATE_BY_PACE = 0.03
_MARGIN_GAIN, _MARGIN_RANGE = 0.05, (0.08, 1.0)
_USELESS = 0.6  # a margin at which progress tells little


@frozen
class Caution:
    """How early tasks of a kind are polled, by how many ends were noticed late.

    `young`: the age up to which a task is not polled, in deviations of the logarithm; who ends
    before is noticed late.  `margin`: how much earlier than by its pace a task may end, as a share
    of its duration (progress was observed to lead or trail by about 0.1).  `paced`: such tasks show
    progress, so that an early poll of one saves others.
    """

    young: float = -1.75
    margin: float = 0.15
    paced: bool = False

    def after_youth(self, late: float, weight: float = 1.0) -> Caution:
        """Return the caution after one more end, which was `late` with this probability."""
        lowest, highest = _YOUNG_RANGE
        young = self.young - _YOUNG_GAIN * weight * (late - _LATE)
        return evolve(self, young=min(max(young, lowest), highest))

    def after_pace(self, late: float, weight: float = 1.0) -> Caution:
        """Return the caution after one more end of a task whose pace was known."""
        lowest, highest = _MARGIN_RANGE
        margin = self.margin + _MARGIN_GAIN * weight * (late - _LATE_BY_PACE)
        return evolve(self, margin=min(max(margin, lowest), highest), paced=margin < _USELESS)


USUAL_CAUTION = Caution()
"""What a kind begins with."""


@frozen
class PollPolicy:
    """How closely tasks are polled.

    `delay` is the one knob: 95 % of ends are noticed within that many seconds.  Polls are rarer
    while a task is too young to end, or by its progress far from its end; there is no back-off,
    because an end does not become less likely with time.

    How long tasks take is learnt, for each kind of task; `typical_duration` is what to begin with,
    in seconds, in place of what is known of the kind.
    """

    delay: float = field(default=1.5, validator=[_positive, _finite])
    typical_duration: float | None = field(default=None, kw_only=True, validator=_positive_or_none)

    is_plain: bool = field(default=False, kw_only=True, alias="plain")
    """Whether polls are made at one pace, however long tasks take: the schedule of `every`."""
    _speed: float = field(default=1.0, kw_only=True, repr=False)

    @property
    def speed(self) -> float:
        """Seconds that pass at the host in one of ours; see `at_speed`."""
        return self._speed

    @classmethod
    def every(cls, seconds: float) -> PollPolicy:
        """Return the plain schedule: a poll every `seconds`."""
        return cls(delay=seconds * _PUNCTUAL, plain=True)

    def at_speed(self, speed: float) -> PollPolicy:
        """Return the policy for a host that runs `speed` times faster than real time."""
        typical = self.typical_duration
        if typical is not None:
            typical /= speed
        return evolve(self, delay=self.delay / speed, typical_duration=typical, speed=self._speed * speed)

    def guess(self, usual: Usual | None = None) -> Usual:
        """Return how long tasks take while nothing has been seen of a kind that usually takes `usual`."""
        usual = usual or _TYPICAL
        if self.typical_duration is not None:
            return evolve(usual, median=self.typical_duration)
        if self._speed != 1.0:
            return evolve(usual, median=usual.median / self._speed)
        return usual

    @property
    def interval(self) -> float:
        """Seconds between two polls of the plain schedule: an end falls evenly between them."""
        return self.delay / _PUNCTUAL

    @property
    def in_time(self) -> float:
        """Seconds within which an end is noticed in time, besides those that a poll takes."""
        return self.delay * _IN_TIME

    def next_poll(
        self,
        rng: Random,
        *,
        age: float | None = None,
        pace: Pace | None = None,
        usual: Usual | None = None,
        caution: Caution = USUAL_CAUTION,
        looked_at: bool = False,
        shared: bool = False,
    ) -> float:
        """Return the seconds until the next poll of a task that has not ended.

        `age` is the seconds since it can have begun to run, or None if that is not known; `pace`
        is what its progress shows, `usual` how long such tasks take.  A task whose progress
        somebody looks at (`looked_at`), or whose polls are `shared` with others, is polled now and
        then while it is young, too.  Jitter only lengthens.
        """
        seconds = self.interval
        if not self.is_plain:
            usual = usual or self.guess()
            seconds = self._steady(age, pace, usual, caution, shared=shared)
            if looked_at:
                seconds = min(seconds, usual.median / _LOOKED_AT)
        return seconds * (1.0 + _JITTER * rng.random())

    def safety_net(self, age: float, usual: Usual | None = None) -> float:
        """Return the seconds until the next poll of a task whose end a webhook will report.

        `age` and `usual` are as for `next_poll`, with NaN for an unknown age.  It is made when nearly
        all such tasks have ended, at four times the typical duration at the latest; later ones
        follow at intervals of the typical duration.
        """
        usual = usual or self.guess()
        if math.isnan(age):
            return usual.median
        patience = min(usual.after(_PATIENT), _LONGEST_NET * usual.median)
        return max(patience - age, usual.median)

    def _steady(
        self, age: float | None, pace: Pace | None, usual: Usual, caution: Caution, *, shared: bool
    ) -> float:
        """Return what `next_poll` does of a schedule that is not plain, without jitter."""
        interval = self.interval * _ALLOWANCE
        if pace is not None:
            return self._by_pace(pace, interval, usual, caution.margin)
        if age is None:
            return interval
        if shared:
            return self._shared(age, interval, usual)

        young = usual.after(caution.young)
        if age >= young:
            return interval
        return min(self._glance(age, young, interval, usual, caution), young - age + interval)

    @staticmethod
    def _shared(age: float, interval: float, usual: Usual) -> float:
        """Return the seconds to a poll of many: while few tasks end the interval shrinks as 1/age."""
        earliest = usual.after(_SHARED_EARLIEST)
        young = usual.after(_SHARED_YOUNG)
        by_age = min(interval * young / max(age, earliest), young - age)
        seconds = max(earliest - age, interval, by_age)
        if not usual.known:  # so that a wrong guess costs no more than as long again
            return min(seconds, max(_FIRST_GUESS * interval, age))
        return seconds

    @staticmethod
    def _glance(age: float, young: float, interval: float, usual: Usual, caution: Caution) -> float:
        """Return the seconds to a poll of a task that is too young for the end to be likely; inf for none."""
        if not usual.known:  # as above
            return max(_FIRST_GUESS * interval, age)

        apart = _GLANCES_APART * interval
        polls = (usual.median - young) / interval
        glances = min(max(int(polls * _GLANCE_SHARE), int(caution.paced)), _MOST_GLANCES)
        for halvings in range(glances, 0, -1):
            at = young / 2.0**halvings
            if at - age > apart:
                return at - age
        return math.inf

    @staticmethod
    def _by_pace(pace: Pace, interval: float, usual: Usual, margin: float) -> float:
        left = (100.0 - pace.progress) / pace.rate
        predicted = min(left - margin * 100.0 / pace.rate, _MOST_PREDICTED * interval, usual.median)
        return max(interval, predicted)
