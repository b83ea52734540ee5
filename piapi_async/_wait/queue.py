"""Who waits for what, and the lane of each family: its tasks by when they are due, and what its host can do.  Pure."""

from __future__ import annotations

import heapq
import math
from typing import Any, TypeAlias

from attrs import define, field

from .._verdict import Verdict, judge_read
from ..errors import APIError, AuthenticationError, NotFoundError, PiAPIError, UnexpectedAnswer
from ..tasks import Family, Task, TaskId

_REGAIN = 600.0  # seconds
_DOUBTS = 2  # answers in a row that make no sense before multi-fetch is given up: one may be an accident on the way
_CLIENT_FAULTS = range(300, 500)  # with redirects, which are as little the host's word

AnyTask: TypeAlias = Task[Any]


@define(eq=False, slots=True)
class Trouble:
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
    waiters: tuple[Waiter, ...] = field(default=(), repr=False)
    queued: float = math.inf  # the due time under which the lane's heap holds it; inf: not in the heap
    looking: bool = False
    looked_at: float = -math.inf
    seen_at: float = 0.0
    announced: bool = False  # a webhook will tell of its end
    told_at: float = -math.inf  # when one did, to be confirmed
    request: str = ""  # the class of the request that made it, where that was submitted here
    end_logged: bool = False
    trouble: Trouble | None = None  # most tasks have none, and there are many

    @property
    def ended(self) -> bool:
        """Whether the task itself has ended."""
        return self.task is not None and self.task.state.terminal

    @property
    def alone(self) -> bool:
        """Whether it is to be asked for by a plain fetch, because a multi-fetch did not show it."""
        return self.trouble is not None and self.trouble.alone

    def troubled(self) -> Trouble:
        """Give what has gone wrong of late, to be added to."""
        if self.trouble is None:
            self.trouble = Trouble()
        return self.trouble

    def restart(self) -> None:
        """Forget what went wrong."""
        self.error = self.trouble = None


@define(eq=False, slots=True)
class Waiter:
    """Somebody who waits: for the end, with `changes` for anything new, with `once` for no more than one look.

    `bell` is the poller's to ring; `error` is why the wait ended, where that was not the task's own end.
    """

    bell: Any
    deadline: float = math.inf
    changes: bool = False
    once: bool = False
    error: PiAPIError | None = None


@define(eq=False, slots=True)
class Lane:
    """The watches of one family, by when they are due, and what has been learnt about its multi-fetch.

    `size` is the most tasks that the host is known to take in one request.
    """

    size: int
    watches: dict[TaskId, Watch] = field(factory=dict)
    heap: list[tuple[float, int, Watch]] = field(factory=list)
    doubts: int = 0
    blocked: int = 0  # multi-fetches in a row that an edge refused
    given_up: int = 0  # the size before the host refused it, or answers made no sense
    regain_at: float | None = None

    def learn(self, asked: int, error: PiAPIError) -> bool:
        """Adapt to a host that has no multi-fetch, or a smaller one; return whether to ask again at once."""
        match error:
            case APIError(status=404 | 405 | 501):
                self.give_up()
            case NotFoundError():
                pass  # one of them, it seems: each is asked for by itself, and tells
            case UnexpectedAnswer():
                self.doubt()
            case APIError(message="", status=status) if status in _CLIENT_FAULTS:
                self.blocked += 1
                return False
            case AuthenticationError():
                return False
            case APIError() if judge_read(error) is Verdict.RAISE:
                self.given_up = max(self.given_up, self.size)
                self.size = max(1, min(self.size, asked) // 2)
            case _:
                return False
        return True

    def understood(self, *, multi: bool) -> None:
        """Take note of a good answer.

        Where plain fetches pass and an edge has refused the last multi-fetches, it is these that it does not like.
        """
        if multi:
            self.doubts = self.blocked = 0
        elif self.blocked >= _DOUBTS:
            self.give_up()

    def doubt(self) -> None:
        """Take note of an answer that makes no sense; several in a row end the asking for many."""
        self.doubts += 1
        if self.doubts >= _DOUBTS:
            self.give_up()

    def give_up(self) -> None:
        """Ask singly from now on, for a while."""
        self.given_up, self.size, self.blocked = max(self.given_up, self.size), 1, 0

    def regain(self, now: float) -> None:
        """Ask for as many as before after a while: an edge in maintenance refuses and answers nonsense, too."""
        if not self.given_up:
            return
        if self.regain_at is None:
            self.regain_at = now + _REGAIN
        elif now >= self.regain_at:
            self.size, self.doubts, self.given_up, self.regain_at = self.given_up, _DOUBTS - 1, 0, None

    def head(self) -> float:
        """Give when the first look is due, dropping what is no longer as the heap has it."""
        while self.heap and (self.heap[0][0] != (watch := self.heap[0][2]).queued or not watch.waiters):
            if heapq.heappop(self.heap)[0] == watch.queued:
                watch.queued = math.inf
        return self.heap[0][0] if self.heap else math.inf

    def tidy(self) -> None:
        """Drop everything that is no longer as the heap has it."""
        kept = []
        for entry in self.heap:
            due, _, watch = entry
            if due == watch.queued and watch.waiters:
                kept.append(entry)
            elif due == watch.queued:
                watch.queued = math.inf
        heapq.heapify(kept)
        self.heap = kept

    def pop(self) -> Watch:
        watch = heapq.heappop(self.heap)[2]
        watch.queued = math.inf
        return watch
