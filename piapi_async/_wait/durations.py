"""How long the tasks of each kind take, as this run has seen it.  Pure.

Theory of operation
-------------------

Durations of one kind are close to lognormal, so two numbers tell when a task can end: `Usual`.  They
are fitted to the tasks that were begun last, the cohort.  Those still in flight count as "longer
than their age" (they are censored), else a run would learn its haste from the tasks that end first.
A task enters the cohort when it begins, whatever becomes of it, and only while few others of it are
in flight, so that the cohort is a fair sample, and small.

An end between two polls that are far apart counts as what it is, an end between two times: most who
end before their first poll do so just before it.

The guess of the request class counts until one has ended, and its spread for two tasks ever after.
A change at the host shows in the ends: when the last four are on average two deviations off, all to
one side, everything before them is forgotten.

No fit is perfect, and hosts are not lognormal.  So the `Caution` with which a kind is polled answers
to how many of its ends were noticed late: that share is kept, whatever the distribution is.

Behind webhooks the ends that no webhook has reported teach it.  Where a poll was put off a little, an
end may be noticed so much later.  Where it was put off by much, as the safety net's polls are, that is
why an end was noticed late, and caution would not help: nothing is learned.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping

from attrs import define, field

from .._protocol.kinds import Kind
from ..policy import Caution
from ..tasks import Usual

_COHORT = 256  # tasks of a kind that are remembered
_COHORT_IN_FLIGHT = 96  # of them, at most so many in flight
_MOST_KINDS = 500  # that are remembered; the one that was not used for longest is forgotten

_ANSWERS_TO = 16.0  # tasks in flight from which on each end counts less
_ENOUGH = 3  # ends after which a kind counts as known
_SURPRISING = 4  # ends in a row that tell of a change ...
_CHANGED = 2.0  # ... when on average so many deviations off: by chance, one time in ten thousand,
_EACH_CHANGED = 1.0  # and each by so many: a few that are refused at once do not

_GUESS_WEIGHT = 2.0  # tasks that the guessed spread counts for
_OUTLIER = 2.5  # deviations: one that ends at once, refused, says little about the others
_NARROWEST, _WIDEST = 0.05, 1.2
_ROUNDS = 4  # of fitting at most, from the last fit on ...
_FITTED = 0.003  # ... while one changes more than so many deviations
_UNINFORMATIVE = -2.0  # deviations: a task so young says nothing yet
_PRECISE = 1.5  # times as long at most as at least
_RARE = 1e-4  # a share that what is usual says nothing about
_SHORTEST = 1e-3  # seconds; a duration of nothing has no logarithm
_LONGEST = 1e7  # seconds
_STORED = 32  # durations of a kind that the next run is told of
_OFTEN = 1.0  # seconds between two fits without a new end
_A_LITTLE = 1.25  # times as late at most is a poll that still tells how careful one was


@define(eq=False, repr=False, slots=True)
class _Run:
    """One task of a cohort: `seconds` is how long it took or, while it is censored, at least took."""

    began_at: float
    seconds: float | None = None  # None: in flight
    ended: bool = False
    rough: tuple[float, float] | None = None  # how long it took at least and at most, if that differs much
    put_off: float = 1.0  # how many times as late as caution asks for its next poll is


@define(eq=False, repr=False, slots=True)
class KindDurations:
    """The durations of one kind; `guess` is what its request class says."""

    guess: Usual
    caution: Caution = field(factory=Caution)
    _cohort: deque[_Run] = field(factory=deque)
    _in_flight: dict[object, _Run] = field(factory=dict)
    _last: deque[_Run] = field(factory=lambda: deque(maxlen=_SURPRISING))
    _known: Usual | None = None
    _fitted_at: float = -math.inf
    _ends: int = 0  # since the fit
    _fitted_to: int = 0  # ends
    _has_news: bool = False  # for the next run

    # -- the cohort --------------------------------------------------------------------------------

    def begun(self, watch: object, at: float) -> None:
        """Take in that a task can have begun at a time, and not before."""
        run = self._in_flight.get(watch)
        if run is not None:
            run.began_at = at
            return
        if len(self._in_flight) >= _COHORT_IN_FLIGHT:
            return

        run = self._in_flight[watch] = _Run(at)
        self._cohort.append(run)
        if len(self._cohort) > _COHORT:
            self._cohort.popleft()

    def counts(self, watch: object) -> bool:
        """Return whether the end of a task in flight will be taken in."""
        return watch in self._in_flight

    def ended(self, watch: object, lowest: float, highest: float, *, told: float | None) -> bool:
        """Take in an end between two times; return whether it shows that durations have changed.

        `told` is how many seconds the task took by the host's word, which is believed if it lies
        between the two: an emulator may count seconds of its own.
        """
        run = self._in_flight.pop(watch, None)
        if run is None:
            return False

        low, high = max(lowest - run.began_at, 0.0), max(highest - run.began_at, _SHORTEST)
        slack = 1.0  # times of the host are whole seconds
        if told is not None and max(low - slack, 0.0) < told <= high + slack and told < high * 2:
            low = high = max(min(max(told, low), high), _SHORTEST)

        run.seconds = max((low + high) / 2, _SHORTEST)
        if high > low * _PRECISE:
            run.rough = max(low, _SHORTEST), high
        run.ended = self._has_news = True
        self._ends += 1
        return self._notice_change(run)

    def put_off(self, watch: object, times: float) -> None:
        """Take in that the next poll of a task is so many times as late as caution asks for, inf if unknown."""
        run = self._in_flight.get(watch)
        if run is not None:
            run.put_off = times

    def judge(
        self, watch: object, seen_before: float, now: float, in_time: float, slowness: float, *, paced: bool
    ) -> None:
        """Take in when a poll noticed an end: be more careful if that was late, else a little less.

        It has ended after `seen_before`.  It may take `in_time` seconds, or so many times as long as its
        poll was put off, and the `slowness` of the response.  `paced` tells that its polls followed its
        progress.  Where many are in flight each counts less, because they answer to caution so late.
        """
        run = self._in_flight.get(watch)
        if run is None or now <= seen_before or run.put_off > _A_LITTLE:
            return

        in_time = in_time * run.put_off + slowness
        gap, weight = now - seen_before, _ANSWERS_TO / max(_ANSWERS_TO, len(self._in_flight))
        late = max(0.0, 1.0 - in_time / gap)
        if paced:
            self.caution = self.caution.after_pace(late, weight)
            return

        usual = self._known or self.guess
        young, old = usual.ended(seen_before - run.began_at), usual.ended(now - run.began_at)
        if late > 0.0 and old > young:
            late = (usual.ended(now - in_time - run.began_at) - young) / (old - young)
        self.caution = self.caution.after_youth(late, weight)

    def left(self, watch: object, at: float) -> None:
        """Take in that nobody waits for a task any more, which had not ended at a time."""
        run = self._in_flight.pop(watch, None)
        if run is not None:
            run.seconds = max(at - run.began_at, _SHORTEST)

    def _notice_change(self, run: _Run) -> bool:
        known, last = self._known, self._last
        last.append(run)
        if known is None or len(last) < _SURPRISING:
            return False

        offs = [math.log((run.seconds or 0.0) / known.median) / known.spread for run in last]
        mean = sum(offs) / _SURPRISING
        if abs(mean) < _CHANGED or min(off * math.copysign(1.0, mean) for off in offs) < _EACH_CHANGED:
            return False

        kept = {id(recent) for recent in last} | {id(other) for other in self._in_flight.values()}
        self._cohort = deque(other for other in self._cohort if id(other) in kept)
        self._known = Usual(known.after(mean), self.guess.spread)
        self.caution = Caution(margin=self.caution.margin, paced=self.caution.paced)
        last.clear()
        self._fitted_at = -math.inf
        self._fitted_to = 0
        return True

    # -- for the next run --------------------------------------------------------------------------

    def remember(self, seconds: Iterable[float]) -> None:
        """Take in how long tasks took in an earlier run."""
        earlier = [_Run(-math.inf, min(max(one, _SHORTEST), _LONGEST), ended=True) for one in seconds]
        self._cohort.extendleft(reversed(earlier[-_STORED:]))
        self._ends += len(earlier)

    def take_news(self) -> list[float]:
        """Return how long the last tasks took, in seconds, to three digits; [] if none has ended since."""
        if not self._has_news:
            return []
        self._has_news = False
        ended = [run.seconds for run in self._cohort if run.ended and run.seconds is not None]
        return [float(f"{seconds:.3g}") for seconds in ended[-_STORED:]]

    # -- what is usual -----------------------------------------------------------------------------

    def usual(self, now: float) -> Usual:
        """Return what is known, fitted anew if enough has happened since."""
        known = self._known or self.guess
        many = min(self._fitted_to + self._ends, _COHORT)  # at every poll: counted, not looked for
        new_ends = self._ends > 0 and self._ends >= many // 8
        overdue = bool(self._in_flight) and now - self._fitted_at > max(known.median / 2, _OFTEN)
        if new_ends or overdue:
            self._fit(now)
        return self._known or self.guess

    def _fit(self, now: float) -> None:
        self._fitted_at, self._ends = now, 0
        ended = [run for run in self._cohort if run.ended]
        ends = [math.log(run.seconds) for run in ended if run.seconds is not None and run.rough is None]
        rough = [(math.log(run.rough[0]), math.log(run.rough[1])) for run in ended if run.rough is not None]
        lasting = [self._age(run, now) for run in self._cohort if not run.ended]
        ages = [math.log(age) for age in lasting if age > _SHORTEST]
        self._fitted_to = len(ended)
        if not ended:
            return  # how long tasks take at least does not tell how long they take

        start = self._known or self.guess
        mean, spread = math.log(start.median), start.spread
        for _ in range(_ROUNDS):
            before = mean, spread
            mean, spread = self._improve(ends, rough, ages, mean, spread)
            if math.dist(before, (mean, spread)) < _FITTED * spread:
                break

        known = len(ends) >= _ENOUGH
        wary = spread * (1.0 + 1.0 / max(1, len(ended)))
        self._known = Usual(math.exp(mean), wary, known=known)

    @staticmethod
    def _age(run: _Run, now: float) -> float:
        return now - run.began_at if run.seconds is None else run.seconds

    def _improve(
        self,
        ends: Iterable[float],
        rough: Iterable[tuple[float, float]],
        ages: Iterable[float],
        mean: float,
        spread: float,
    ) -> tuple[float, float]:
        """Return a better mean and spread of the logarithms: one round of expectation and maximisation."""
        number, total, squares = 0.0, 0.0, 0.0
        reach = _OUTLIER * spread
        for log in ends:
            off = min(max(log - mean, -reach), reach)
            number, total, squares = number + 1, total + off, squares + off * off

        for low, high in rough:
            off, square = _moments((low - mean) / spread, (high - mean) / spread)
            number += 1
            total += spread * off
            squares += spread * spread * square

        for log in ages:
            z = (log - mean) / spread
            if z < _UNINFORMATIVE:
                continue
            more = _mean_beyond(z)
            number += 1
            total += spread * more
            squares += spread * spread * (1.0 + z * more)

        step = total / number
        variance = squares - number * step * step + _GUESS_WEIGHT * self.guess.spread**2
        new = math.sqrt(max(variance, 0.0) / (number + _GUESS_WEIGHT))
        return mean + step, min(max(new, _NARROWEST), _WIDEST)


def _density(z: float) -> float:
    """Return the density of the standard normal distribution."""
    return math.exp(-z * z / 2.0) / math.sqrt(2.0 * math.pi)


def _moments(low: float, high: float) -> tuple[float, float]:
    """Return the means of a standard normal value that lies between two, and of its square."""
    share = (math.erfc(-high / math.sqrt(2.0)) - math.erfc(-low / math.sqrt(2.0))) / 2.0
    if share < _RARE:  # what is usual says nothing of it
        middle = min(max((low + high) / 2, -_OUTLIER), _OUTLIER)
        return middle, middle * middle
    first, last = _density(low), _density(high)
    return (first - last) / share, 1.0 + (low * first - high * last) / share


def _mean_beyond(z: float) -> float:
    """Return the mean of a standard normal value that is known to exceed `z`."""
    beyond = math.erfc(z / math.sqrt(2.0)) / 2.0
    if beyond < 1e-12:  # noqa: PLR2004 - where the quotient loses its digits
        return z + 1.0 / z
    return _density(z) / beyond


@define(eq=False, repr=False, slots=True)
class Kinds:
    """What is known of each kind of each family, by its name."""

    _by_name: OrderedDict[tuple[str, str], KindDurations] = field(factory=OrderedDict)
    _earlier: dict[tuple[str, str], list[float]] = field(factory=dict)  # of kinds that were not used yet

    def of(self, family: str, kind: Kind, guess: Callable[[Usual], Usual]) -> KindDurations:
        """Return the durations of a kind; `guess` makes of its usual ones what counts until one is seen."""
        name = family, kind.name
        durations = self._by_name.get(name)
        if durations is not None:
            self._by_name.move_to_end(name)
            return durations

        durations = self._by_name[name] = KindDurations(guess(kind.usual))
        durations.remember(self._earlier.pop(name, ()))
        if len(self._by_name) > _MOST_KINDS:
            self._by_name.popitem(last=False)
        return durations

    def remember(self, earlier: Mapping[tuple[str, str], list[float]]) -> None:
        """Take in the durations of an earlier run, by family and kind."""
        for name, seconds in earlier.items():
            durations = self._by_name.get(name)
            if durations is not None:
                durations.remember(seconds)
            elif len(self._earlier) < _MOST_KINDS:
                self._earlier[name] = seconds

    def take_news(self) -> dict[tuple[str, str], list[float]]:
        """Return what the next run should know and was not returned yet: the last durations, by kind."""
        found = {name: durations.take_news() for name, durations in self._by_name.items()}
        return {name: seconds for name, seconds in found.items() if seconds}
