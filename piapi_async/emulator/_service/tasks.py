"""A task and its life: the stages, and the one table of what leads from one to the next.  Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from .requests import MIDJOURNEY, WEBHOOK_FIELDS, Protocol

if TYPE_CHECKING:
    from .requests import Kind


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

    ADMIT = "a slot under the concurrency limit is free"
    START = "work on it begins"
    RETRY = "internal retry"
    FINISH = "the result is there"
    FAIL = "it failed for good"
    CANCEL = "the user cancelled it"


#: The whole life.  What is not in the table cannot happen: a cancel after the start, for one
#: (vendor page).
LIFE: Mapping[tuple[Stage, Event], Stage] = {
    (Stage.STAGED, Event.ADMIT): Stage.PENDING,
    (Stage.STAGED, Event.CANCEL): Stage.CANCELLED,
    (Stage.PENDING, Event.START): Stage.PROCESSING,
    (Stage.PENDING, Event.CANCEL): Stage.CANCELLED,
    (Stage.PROCESSING, Event.RETRY): Stage.RETRY,
    (Stage.PROCESSING, Event.FINISH): Stage.FINISHED,
    (Stage.PROCESSING, Event.FAIL): Stage.FAILED,
    (Stage.RETRY, Event.START): Stage.PROCESSING,
    (Stage.RETRY, Event.FAIL): Stage.FAILED,
    # By hand (`Emulator.end`), whatever its steps are.
    (Stage.STAGED, Event.FAIL): Stage.FAILED,
    (Stage.PENDING, Event.FAIL): Stage.FAILED,
    (Stage.STAGED, Event.FINISH): Stage.FINISHED,
    (Stage.PENDING, Event.FINISH): Stage.FINISHED,
    (Stage.RETRY, Event.FINISH): Stage.FINISHED,
}

END_STAGES = frozenset({Stage.FINISHED, Stage.FAILED, Stage.CANCELLED})

#: One thing that will happen to a task, and when, emulated seconds.
Step = tuple[float, Event]

#: The part of an attempt's time that passes before it is retried, and the part that is left when it
#: fails for good.
_RETRIES_AFTER, _LEFT_AT_FAILURE = 0.9, 0.4


@frozen
class Script:
    """How a task will go.

    `fails` is the text it fails with, "" if it does not; None means "not decided by a fault".
    """

    fails: str = ""
    retries: int | None = None
    seconds: float | None = None


@define(eq=False)
class Task:
    """One task.  Times are emulated seconds; None means "not reached".

    `key_id` is the id of the API key that paid.  `adopted`: the service was told about it and did
    not make it.  `skew` is the share by which the reported progress is off.  `attempt` is when the
    present attempt began, `length` how long it would take in all.  `steps` are what will happen to
    it and when.
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
    protocol: Protocol = Protocol.MIDJOURNEY
    service_mode: str = ""
    key_id: str = ""
    skew: float = 0.0
    attempt: float = 0.0
    length: float = 1.0
    script: Script = field(default=Script(), repr=False)
    steps: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def origin(self) -> str:
        """The parent's id, "" for a task made from a prompt or from links."""
        return str(self.given.get("origin_task_id", ""))

    @property
    def input(self) -> dict[str, object]:
        """What was asked for, without its webhook; the unified protocol echoes it under this name."""
        return {name: value for name, value in self.given.items() if name not in WEBHOOK_FIELDS}

    @property
    def has_webhook(self) -> bool:
        """Whether a webhook was asked for."""
        return "webhook_endpoint" in self.given

    @property
    def art_seed(self) -> int:
        """The number that this task's pictures are drawn from."""
        return seed_of(self.task_id)

    def progress(self, now: float) -> int:
        """Return the percentage that the service reports: a function of age, off by the task's skew."""
        if self.stage is Stage.FINISHED:
            return 100
        if self.started is None or self.stage in (Stage.RETRY, Stage.CANCELLED):
            return 0

        until = now if self.ended is None else self.ended
        age = until - self.attempt
        return max(0, min(99, int(100 * age / (self.length * (1 + self.skew)))))

    def reaches(self, percent: int) -> float:
        """Return when the progress of this attempt passes `percent`, emulated seconds."""
        return self.attempt + self.length * (1 + self.skew) * percent / 100


def seed_of(text: str) -> int:
    """Return the 32-bit number that stands for a task id or a URL: what pictures are drawn from."""
    return zlib.crc32(text.encode())


def steps_of(script: Script, admitted: float) -> tuple[Step, ...]:
    """Return what will happen to a task admitted at that second; the last step is its end."""
    total = script.seconds or 0.0
    attempts = (script.retries or 0) + 1
    wait = min(3.0, total / 15)
    share = (total - wait) / attempts
    begins = [admitted + wait + attempt * share for attempt in range(attempts)]

    steps = []
    for begin in begins[:-1]:
        steps += [(begin, Event.START), (begin + share * _RETRIES_AFTER, Event.RETRY)]
    steps.append((begins[-1], Event.START))

    if script.fails:
        steps.append((admitted + wait + (attempts - _LEFT_AT_FAILURE) * share, Event.FAIL))
    else:
        steps.append((admitted + total, Event.FINISH))
    return tuple(steps)
