"""What is known about one task that is waited for, and who waits for it.  Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field, frozen

from .._protocol.family import Family
from ..errors import PiAPIError, UnexpectedAnswer
from ..observe._emitter import Subject
from ..policy import Pace
from ..tasks import Task, TaskId, TaskState
from .faults import FaultRecord

if TYPE_CHECKING:
    from .durations import KindDurations

AnyTask: TypeAlias = Task[Any]

Readings: TypeAlias = Mapping[TaskId, AnyTask | UnexpectedAnswer | None]
"""What a poll returned by task: a reading, why its entry could not be read, or None if missing."""

_STILL = 2.5  # points that are missing when progress is taken to stand still

NEVER = -math.inf
"""The time of what has not happened."""

NOT_QUEUED, BEING_POLLED = math.inf, -math.inf
"""What stands in the place of a time while a watch is in no heap; the latter: a poll of it is in flight."""

UNPLANNED = math.nan
"""When a task is due whose first poll is planned once somebody waits for it."""


@define(eq=False, repr=False, slots=True, weakref_slot=False)
class Watch:
    """One task that is or was waited for; its handles share it.

    There can be a hundred thousand, so it is one flat object with slots, in three groups.
    """

    family: Family[Any]
    task_id: TaskId

    # Schedule: when it is polled, and for whom.
    due: float  # when it should be polled next, or `UNPLANNED`
    waits: tuple[Wait, ...] = field(default=(), repr=False)  # not empty: the schedule has it
    queued_for: float = NOT_QUEUED  # the time for which it is in its queue's heap, if it is
    polled_at: float = NEVER  # when its last poll began
    durations: KindDurations | None = field(default=None, repr=False)  # of its kind, once that is known

    # Observation: what is known of the task.
    task: AnyTask | None = None  # its latest reading
    observed_at: float = NEVER  # when that reading was made
    paced_from: float = math.nan  # its age and pace are measured from here; NaN: its age is unknown
    paced_progress: int = 0  # what the host reported then
    moved_at: float = math.nan  # when its progress last grew ...
    moved_to: int = 0  # ... and to what
    fault_record: FaultRecord | None = None  # most tasks have none

    # Webhook: whether one reports its end, and when it last did so.
    #
    # A report is a claim until a poll confirms it.  `end_reported_at` is
    #   NEVER              while there is no claim: none was reported, or a poll has refuted it;
    #   after `polled_at`  while no poll has begun since the report, so that none can confirm it;
    #   up to `polled_at`  while the poll that checks it is in flight;
    #   any time at all    once the task has ended: then the webhook was in time.
    has_webhook: bool = False
    end_reported_at: float = NEVER

    # For observers.
    subject: Subject | None = None  # the submission that created it, if that was made here
    polls: int = 0  # that have asked for it
    end_told: bool = False

    @property
    def error(self) -> PiAPIError | None:
        """Why waiting ended, if not by the task's own end."""
        if self.fault_record is None:
            return None
        return self.fault_record.error

    @property
    def ended(self) -> bool:
        """Whether the task itself has ended."""
        return self.task is not None and self.task.state.terminal

    @property
    def polling(self) -> bool:
        """Whether a poll of it is in flight."""
        return self.queued_for == BEING_POLLED

    @property
    def end_reported(self) -> bool:
        """Whether a webhook has reported its end, and no poll has refuted that."""
        return self.end_reported_at > NEVER

    @property
    def report_unchecked(self) -> bool:
        """Whether a webhook has reported its end since the last poll began."""
        return self.polled_at < self.end_reported_at

    @property
    def poll_singly(self) -> bool:
        """Whether it must be asked for by a plain fetch."""
        return self.fault_record is not None and self.fault_record.poll_singly

    @property
    def paced(self) -> bool:
        """Whether its progress has shown a pace."""
        return self.moved_to > self.paced_progress > 0

    @property
    def begun_at(self) -> float:
        """When its age was last known to be nothing; `NEVER` if it is not known."""
        if math.isnan(self.paced_from):
            return NEVER
        return self.paced_from

    def measure(self, task: AnyTask, now: float) -> tuple[float | None, Pace | None]:
        """Take in the progress of a reading; return the task's age, or else its pace.

        The age is in seconds; both are None if nothing is known, or progress stands still.
        """
        progress = task.progress or 0
        not_begun = progress == 0 and task.state is TaskState.WAITING
        if not_begun or progress < self.paced_progress:  # or it has begun again
            self._pace_from(now, 0)

        seconds = now - self.paced_from
        age = None if math.isnan(seconds) else seconds
        first_progress = self.paced_progress == 0 and progress > 0
        if age is None or first_progress:  # its pace can be measured from here on
            self._pace_from(now, progress)
            return age, None

        if progress > self.moved_to:
            self.moved_at, self.moved_to = now, progress
        if progress > self.paced_progress and seconds > 0:
            # Progress is a whole number, rounded down: it stands for up to a point more.
            rate = (progress - self.paced_progress + 1) / (self.moved_at - self.paced_from)
            if rate * (now - self.moved_at) < _STILL:
                return None, Pace(progress, (progress - self.paced_progress + 1) / seconds)
            return None, None
        if self.paced_progress > 0:  # it stands still, and its age is no longer known
            return None, None
        return age, None

    def _pace_from(self, now: float, progress: int) -> None:
        self.paced_from = self.moved_at = now
        self.paced_progress = self.moved_to = progress

    def detection_seconds(self, now: float) -> float | None:
        """Return how long ago it ended, as estimated when that is observed; None if nothing tells."""
        if self.end_reported:
            return 0.0
        if self.observed_at == NEVER:
            return None
        return (now - self.observed_at) / 2

    def faults(self) -> FaultRecord:
        """Return the record of what went wrong, to be added to."""
        if self.fault_record is None:
            self.fault_record = FaultRecord()
        return self.fault_record


@define(eq=False, repr=False, slots=True, weakref_slot=False)
class Wait:
    """One caller waiting on a watch: for the end of its task, or for less.

    `woken` is the poller's to resolve; the schedule only carries it.
    """

    watch: Watch = field(repr=False)
    woken: Any
    deadline: float = math.inf
    changes: bool = False  # also woken by news that is not the end
    once: bool = False  # one poll is enough, whatever it shows
    error: PiAPIError | None = None  # why the wait ended, if not by the task's own end

    @property
    def over(self) -> bool:
        """Whether it has ended, for whatever reason."""
        return self not in self.watch.waits


@frozen(eq=False, repr=False)
class Poll:
    """One request to make: a plain fetch of one task, or a multi-fetch of several."""

    family: Family[Any]
    watches: tuple[Watch, ...]

    @property
    def multi(self) -> bool:
        """Whether it asks for several tasks at once."""
        return len(self.watches) > 1


def differs(old: AnyTask | None, new: AnyTask) -> bool:
    """Return whether a reading is news: another status, progress, or other images."""
    if old is None:
        return True
    return (old.status, old.progress, old.images) != (new.status, new.progress, new.images)


def is_behind(new: AnyTask, old: AnyTask) -> bool:
    """Return whether a reading is older than another, as far as their contents tell."""
    if new.state is TaskState.WAITING and old.state is TaskState.RUNNING:
        return True
    return (new.progress or 0) < (old.progress or 0)
