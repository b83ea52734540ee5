"""The poll schedule against a model of the host: no sockets, no loop, seconds where the real client takes minutes.

The schedule decides every poll.  The model provides its surroundings: tasks that begin, run for a lognormal time, show
progress (or none) and end, requests that take `LATENCY`, and a new task for each whose end was observed.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from itertools import count
from random import Random
from typing import Any

from attrs import define, field, frozen

from piapi_async._protocol.kinds import FAST, Kind
from piapi_async._wait.schedule import PollSchedule
from piapi_async._wait.watch import UNPLANNED, Poll, Watch
from piapi_async.midjourney import LEGACY, MidjourneyResult
from piapi_async.policy import PollPolicy
from piapi_async.tasks import Life, Reader, Task, TaskId, TaskState, Usual

LATENCY = 0.05
"""Seconds from a request's sending to its response, which shows the task as it is when it comes."""

MEDIAN, P95 = 45.0, 120.0
"""Of the durations of tasks in seconds: fast mode, by the vendor's "typical" figures."""

SHORTEST, LONGEST = 8.0, 600.0

MEAN = MEDIAN * math.exp((math.log(P95 / MEDIAN) / 1.6449) ** 2 / 2)
"""Seconds that a task takes on average."""

PROGRESS_ERROR = 0.1
"""By what share the reported progress leads or trails, as one standard deviation."""

_MOST_POLLS = 25  # polls in flight: what the client allows itself with its default of 100 connections
_SIGMA = math.log(P95 / MEDIAN) / 1.6449  # the normal quantile of 0.95
_READER = Reader[MidjourneyResult](
    result=lambda _: MidjourneyResult(), life=lambda _: Life(), files=lambda _: ()
)
_RAW: Mapping[str, Any] = {}


SHAPES: Mapping[str, Callable[[float], float]] = {
    "steady": lambda x: x,
    "in seven steps": lambda x: math.floor(x * 6.4) / 6.4,
    "ever faster": lambda x: x * x,
    "ever slower": math.sqrt,
    "s-shaped": lambda x: 3 * x * x - 2 * x**3,
    "none until half-time": lambda x: max(0.0, 2 * x - 1),
    "nearly done by half-time": lambda x: min(0.9, 1.8 * x),
    "stuck at 10": lambda x: min(0.1, x),
}
"""How hosts might report progress: of the share of its time that a task has run."""


@frozen
class Case:
    """`in_flight` tasks at any time, at most `size` ids per request, a host that reports `progress` or does not.

    `tasks` ends make one measurement, after as many as are in flight have warmed it up.  `shape`: a name of `SHAPES`.
    """

    in_flight: int
    size: int
    progress: bool
    tasks: int
    shape: str = "steady"
    usual: Usual | None = None  # how long tasks take, if not as in fast mode
    guess: Usual | None = None  # what the client takes them for at first
    changes_after: int = 0  # tasks after which they take `factor` as long; 0: never
    factor: float = 1.0
    warm_up: int = 10  # of them, ends that are not measured
    latency: float = LATENCY

    @property
    def packed(self) -> int:
        """The most ids that a request can carry here."""
        return min(self.in_flight, self.size)


@define
class Measured:
    """What waiting cost: poll requests, and for each task the seconds from its end to its detection."""

    requests: int = 0
    ids: int = 0
    delays: list[float] = field(factory=list, repr=False)
    durations: list[float] = field(factory=list, repr=False)  # of the same tasks, if simulated

    def add(self, other: Measured) -> None:
        """Take in another run of the same case."""
        self.requests += other.requests
        self.ids += other.ids
        self.delays += other.delays
        self.durations += other.durations

    @property
    def per_task(self) -> float:
        """Poll requests per task."""
        return self.requests / len(self.delays)

    @property
    def mean(self) -> float:
        """Mean detection delay, seconds."""
        return sum(self.delays) / len(self.delays)

    def quantile(self, share: float) -> float:
        """Return the detection delay that this share of tasks stays under, seconds."""
        return sorted(self.delays)[min(len(self.delays) - 1, int(share * len(self.delays)))]

    def floor(self, in_time: float) -> float:
        """Return the fewest polls per task, each a request, of one who notices 95 % of ends in time.

        While the polls of a task are a time `in_time` apart, no end is late.  Where they are farther
        apart by x, a task that has not ended, which has a chance S, saves S·x / in_time polls, and
        notices late with the chance f·x: so each late end saves 1 / (in_time · hazard) polls, whatever x
        is.  The 5 % that may be late are best spent where the hazard is lowest, wholly: on the youngest.
        (On lognormal spreads up to 0.8; where old tasks end more rarely still, it saves 1 % more.)
        So the floor polls first when 5 % have ended, and then every `in_time` seconds.
        """
        ordered = sorted(self.durations)
        first = ordered[int(0.05 * len(ordered))] + in_time
        polls = [1 + max(0, math.ceil((seconds - first) / in_time)) for seconds in ordered]
        return sum(polls) / len(polls)

    @property
    def p95(self) -> float:
        """95 % are noticed within so many seconds."""
        return self.quantile(0.95)


def seeded(*words: object) -> Random:
    """Return a generator that draws the same for the same words."""
    return Random(repr(words))  # noqa: S311 - a reproducible run is the point


def draw_duration(rng: Random) -> float:
    """Return the seconds that one task takes."""
    return min(max(MEDIAN * math.exp(rng.gauss(0, _SIGMA)), SHORTEST), LONGEST)


@define(eq=False)
class _Job:
    """One task at the modelled host; it moves as the emulator's do."""

    task_id: TaskId
    created: float
    began: float
    ends: float
    span: float  # seconds that its progress takes to run from 0 to 100
    progress: Callable[[float], float] | None

    def shown(self, now: float) -> Task[MidjourneyResult]:
        """Return the task as a request finds it that is answered at `now`."""
        if now >= self.ends:
            return self._task("finished", TaskState.DONE, 100)
        if now < self.began:
            return self._task("pending", TaskState.WAITING, 0)
        return self._task(
            "processing", TaskState.RUNNING, self._progress(min(1.0, (now - self.began) / self.span))
        )

    def _progress(self, share: float) -> int:
        return 0 if self.progress is None else max(0, min(99, int(100 * self.progress(share))))

    def _task(self, status: str, state: TaskState, progress: int) -> Task[MidjourneyResult]:
        reported = None if self.progress is None else progress
        return Task(
            task_id=self.task_id, status=status, state=state, progress=reported, raw=_RAW, reader=_READER
        )


@define(eq=False)
class Simulation:
    """One run of a case; `run` returns what it measured."""

    case: Case
    schedule: PollSchedule
    rng: Random
    now: float = 0.0
    measured: Measured = field(factory=Measured)
    _jobs: dict[TaskId, _Job] = field(factory=dict)
    # answers on their way; None: a task is born
    _events: list[tuple[float, int, Poll | None]] = field(factory=list)
    _order: Any = field(factory=count)
    _in_flight: int = 0
    _to_warm: int = 0
    _begun: int = 0

    def run(self) -> Measured:
        """Keep the tasks in flight until enough have ended; the first generation only warms up."""
        self._to_warm = self.case.in_flight if self.case.usual is None else self.case.warm_up
        for _ in range(self.case.in_flight):
            self._later(self.case.latency + self.rng.random() * MEDIAN, None)
        while len(self.measured.delays) < self.case.tasks:
            self._step()
        return self.measured

    def _step(self) -> None:
        due = self.schedule.next_event(polls=self._in_flight < _MOST_POLLS)
        if self._events and self._events[0][0] <= due:
            self.now, _, poll = heapq.heappop(self._events)
            if poll is None:
                self._begin()
            else:
                self._answer(poll)
            return
        self.now = max(self.now, due)
        for poll in self.schedule.due_polls(self.now, _MOST_POLLS - self._in_flight):
            self._in_flight += 1
            if self._to_warm <= 0:
                self.measured.requests += 1
                self.measured.ids += len(poll.watches)
            self._later(self.case.latency, poll)

    def _later(self, seconds: float, what: Poll | None) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what))

    def _begin(self) -> None:
        """Let a task begin: its submission was just accepted, and it is waited for."""
        number = next(self._order)
        total = self._draw()
        queued = min(3.0, total / 15)
        skew = max(-2.5, min(2.5, self.rng.gauss(0, 1))) * PROGRESS_ERROR
        task_id = TaskId(f"task-{number}")
        kind = Kind("simulated", self.case.guess or self.case.usual or FAST)
        watch = Watch(  # as the client makes it
            LEGACY,
            task_id,
            due=UNPLANNED,
            durations=self.schedule.timing.durations_of(LEGACY, kind),
            paced_from=self.now,
        )
        span = (total - queued) * (1 + skew)
        shape = SHAPES[self.case.shape] if self.case.progress else None
        self._jobs[task_id] = _Job(task_id, self.now, self.now + queued, self.now + total, span, shape)
        self.schedule.start(watch, task_id, self.now)

    def _draw(self) -> float:
        """Return how long the next task takes."""
        usual = self.case.usual
        if usual is None:
            return draw_duration(self.rng)
        self._begun += 1
        changed = self.case.changes_after and self._begun > self.case.changes_after
        return (
            usual.median * math.exp(self.rng.gauss(0, usual.spread)) * (self.case.factor if changed else 1.0)
        )

    def _answer(self, poll: Poll) -> None:
        self._in_flight -= 1
        readings = {watch.task_id: self._jobs[watch.task_id].shown(self.now) for watch in poll.watches}
        for wait in self.schedule.succeeded(poll, readings, self.now):
            job = self._jobs.pop(wait.woken)
            self._later(self.case.latency, None)
            self._to_warm -= 1
            if self._to_warm < 0:
                self.measured.delays.append(self.now - job.ends)
                self.measured.durations.append(job.ends - job.created)


def simulate(case: Case, policy: PollPolicy, *, seed: int = 1) -> Measured:
    """Run one case under a policy."""
    schedule = PollSchedule(policy, seeded(seed, "schedule"), case.size)
    return Simulation(case, schedule, seeded(seed, case)).run()
