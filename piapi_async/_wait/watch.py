"""What is known of one task that is waited for, and who waits for it.  Pure."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

from attrs import define, field

from .._protocol.family import Family
from ..errors import PiAPIError
from ..tasks import Task, TaskId

AnyTask: TypeAlias = Task[Any]


@define(eq=False, slots=True)
class FaultRecord:
    """What has gone wrong with the looks at a task since the last good one."""

    fault: PiAPIError | None = None  # what the last look failed with
    faults: int = 0
    failing_since: float = math.inf
    told: bool = False  # the operator has heard of it
    refused_since: float | None = None
    alone: bool = False

    def note(self, fault: PiAPIError | None, now: float) -> None:
        """Take note of a look that showed nothing of the task."""
        self.fault = fault
        self.failing_since = min(self.failing_since, now)

    def begin_anew(self) -> None:
        """Forget the faults, for a wait that is taken up again; what was denied stays denied."""
        self.failing_since, self.told, self.faults = math.inf, False, 0


@define(eq=False, slots=True)
class Watch:
    """One task that is or was waited for; its handles share it.

    `task` is the last that was seen, `error` why waiting ended without an end of the task.
    """

    family: Family[Any]
    task_id: TaskId
    due: float
    began: float = math.nan  # the last time at which it certainly had not begun to run; NaN: not known
    progress: int = 0  # what the host reported at `began`
    task: AnyTask | None = None
    error: PiAPIError | None = None
    waiters: tuple[Wait, ...] = field(default=(), repr=False)
    queued: float = math.inf  # the due time under which the lane's heap holds it; inf: not in the heap
    looking: bool = False
    looked_at: float = -math.inf
    seen_at: float = 0.0
    announced: bool = False  # a webhook will tell of its end
    told_at: float = -math.inf  # when one did, to be confirmed
    request: str = ""  # the class of the request that made it, where that was submitted here
    end_logged: bool = False
    trouble: FaultRecord | None = None  # most tasks have none, and there are many

    @property
    def ended(self) -> bool:
        """Whether the task itself has ended."""
        return self.task is not None and self.task.state.terminal

    @property
    def alone(self) -> bool:
        """Whether it is to be asked for by a plain fetch, because a multi-fetch did not show it."""
        return self.trouble is not None and self.trouble.alone

    def troubled(self) -> FaultRecord:
        """Give what has gone wrong of late, to be added to."""
        if self.trouble is None:
            self.trouble = FaultRecord()
        return self.trouble

    def restart(self) -> None:
        """Forget what went wrong."""
        self.error = self.trouble = None


@define(eq=False, slots=True)
class Wait:
    """Somebody who waits: for the end, with `changes` for anything new, with `once` for no more than one look.

    `woken` is the poller's to ring; `error` is why the wait ended, where that was not the task's own end.
    """

    woken: Any
    deadline: float = math.inf
    changes: bool = False
    once: bool = False
    error: PiAPIError | None = None
