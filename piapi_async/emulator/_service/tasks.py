"""The life of one task: its stages, what leads from one to the next, and how long it takes.  Pure."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum
from random import Random
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .requests import MIDJOURNEY, WEBHOOK_FIELDS, Door

if TYPE_CHECKING:
    from .requests import Kind

#: Given the task's own generator, how many seconds pass from admission to the end.
Duration = Callable[[Random], float]


class Stage(StrEnum):
    """Where a task is in its life; the value is the word on the wire."""

    STAGED = "staged"
    PENDING = "pending"
    PROCESSING = "processing"
    RETRY = "retry"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(Enum):
    """What can happen to a task."""

    ADMIT = "a place under the concurrency limit is free"
    START = "a bot takes the job"
    STUMBLE = "the bot lost it; another will take it (an internal retry)"
    FINISH = "the result is there"
    FAIL = "it went wrong for good"
    CANCEL = "the user took it back"


#: The whole life.  What is not in the table cannot happen: a cancel after the start, for one (vendor page).
LIFE: Mapping[tuple[Stage, Event], Stage] = {
    (Stage.STAGED, Event.ADMIT): Stage.PENDING,
    (Stage.STAGED, Event.CANCEL): Stage.CANCELLED,
    (Stage.PENDING, Event.START): Stage.PROCESSING,
    (Stage.PENDING, Event.CANCEL): Stage.CANCELLED,
    (Stage.PROCESSING, Event.STUMBLE): Stage.RETRY,
    (Stage.PROCESSING, Event.FINISH): Stage.FINISHED,
    (Stage.PROCESSING, Event.FAIL): Stage.FAILED,
    (Stage.RETRY, Event.START): Stage.PROCESSING,
    (Stage.RETRY, Event.FAIL): Stage.FAILED,
    # Ended by hand, whatever the script said.
    (Stage.STAGED, Event.FAIL): Stage.FAILED,
    (Stage.PENDING, Event.FAIL): Stage.FAILED,
    (Stage.STAGED, Event.FINISH): Stage.FINISHED,
    (Stage.PENDING, Event.FINISH): Stage.FINISHED,
    (Stage.RETRY, Event.FINISH): Stage.FINISHED,
}

ENDS = frozenset({Stage.FINISHED, Stage.FAILED, Stage.CANCELLED})


@frozen
class Lognormal:
    """Seconds drawn so that half lie under `median` and 95 % under `p95`, never outside `shortest`..`longest`."""

    median: float
    p95: float
    shortest: float
    longest: float

    def __call__(self, rng: Random) -> float:
        """Draw one duration, seconds."""
        sigma = math.log(self.p95 / self.median) / 1.6449  # the normal quantile of 0.95
        drawn = self.median * math.exp(rng.gauss(0, sigma))
        return min(max(drawn, self.shortest), self.longest)


@frozen
class Constant:
    """Always the same number of seconds."""

    seconds: float

    def __call__(self, _rng: Random) -> float:
        """Return it."""
        return self.seconds


#: From the vendor's "typical" figures: fast 25-80 s, turbo about 15 s, relax 40 s to many minutes.
DURATIONS: Mapping[str, Duration] = {
    "fast": Lognormal(45, 120, 8, 600),
    "mixed": Lognormal(45, 120, 8, 600),
    "turbo": Lognormal(15, 25, 5, 90),
    "relax": Lognormal(150, 600, 30, 3600),
    # What is not Midjourney, by what it makes (our decision: the orders of magnitude that users report).
    "image": Lognormal(12, 40, 3, 300),
    "audio": Lognormal(40, 120, 8, 600),
    "model": Lognormal(60, 180, 15, 900),
    "video": Lognormal(150, 420, 30, 3600),
}


@frozen
class Fate:
    """What the next task is bound to: a failure text, a number of internal retries, a duration in seconds."""

    fails: str = ""
    retries: int | None = None
    seconds: float | None = None


@define(eq=False)
class Task:
    """One task.  Times are emulated seconds; None is "not reached".

    `key_id`: the id of the API key that paid.  `adopted`: the service did not make it but was told of it.  `skew`: the
    share by which its progress misleads.  `attempt` and `length`: when the present attempt began and how long it would
    take in all.  `script`: what will happen to it and when.
    """

    task_id: str
    account: str
    verb: str
    kind: Kind
    given: dict[str, object]
    prompt: str
    mode: str
    aspect_ratio: str
    created: float
    serial: int
    stage: Stage = Stage.STAGED
    admitted: float | None = None
    started: float | None = None
    ended: float | None = None
    retries: int = 0
    error: str = ""
    adopted: bool = False
    model: str = MIDJOURNEY
    door: Door = Door.MIDJOURNEY
    service_mode: str = ""
    key_id: str = ""
    skew: float = 0.0
    attempt: float = 0.0
    length: float = 1.0
    fate: Fate = field(default=Fate(), repr=False)
    script: tuple[tuple[float, Event], ...] = field(default=(), repr=False)

    @property
    def origin(self) -> str:
        """The parent's id, "" for a task made from a prompt or from links."""
        return str(self.given.get("origin_task_id", ""))

    @property
    def input(self) -> dict[str, object]:
        """What was asked, without its webhook: the unified protocol's word and its echo."""
        return {name: value for name, value in self.given.items() if name not in WEBHOOK_FIELDS}

    @property
    def has_webhook(self) -> bool:
        """Whether someone wants to be told."""
        return "webhook_endpoint" in self.given

    @property
    def art_seed(self) -> int:
        """The number this task's pictures are drawn from."""
        return seed_of(self.task_id)

    def progress(self, now: float) -> int:
        """Return the percentage the service would report: a function of age alone, off by the task's own skew."""
        if self.stage is Stage.FINISHED:
            return 100
        if self.started is None or self.stage in (Stage.RETRY, Stage.CANCELLED):
            return 0
        age = (now if self.ended is None else self.ended) - self.attempt
        return max(0, min(99, int(100 * age / (self.length * (1 + self.skew)))))

    def reaches(self, percent: int) -> float:
        """Return when this attempt's progress passes `percent`, emulated seconds."""
        return self.attempt + self.length * (1 + self.skew) * percent / 100


def seed_of(text: str) -> int:
    """Return the 32-bit number that stands for a task id or an address: what pictures are drawn from."""
    return zlib.crc32(text.encode())


def script(task: Task, at: float) -> tuple[tuple[float, Event], ...]:
    """Return what will happen to an admitted task and when; the last entry is its end."""
    total = task.fate.seconds or 0.0
    attempts = (task.fate.retries or 0) + 1
    wait = min(3.0, total / 15)
    share = (total - wait) / attempts
    steps = []
    for attempt in range(attempts):
        begin = at + wait + attempt * share
        steps.append((begin, Event.START))
        if attempt + 1 < attempts:
            steps.append((begin + share * 0.9, Event.STUMBLE))
    if task.fate.fails:
        return (*steps, (at + wait + (attempts - 0.4) * share, Event.FAIL))
    return (*steps, (at + total, Event.FINISH))
