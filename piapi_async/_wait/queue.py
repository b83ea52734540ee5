"""Heaps of what is due: the polls of each family, and the deadlines of waits.  Pure.

Entries are never searched for.  A watch or a wait says itself what holds for it; an entry that says
otherwise is stale and is dropped when it comes up, or when a heap is mostly stale.  Equal times are
kept in the order of their arrival.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from itertools import count

from attrs import define, field

from .._verdict import Verdict, judge_read
from ..errors import APIError, AuthenticationError, NotFoundError, PiAPIError, UnexpectedAnswer
from ..tasks import TaskId
from .watch import BEING_POLLED, NOT_QUEUED, Wait, Watch

_RESTORE_AFTER = 600.0  # seconds until a multi-fetch size that was given up is tried again
_MOST_BAD_ANSWERS = 2  # in a row until multi-fetch is given up: one may be an accident on the way
_MOST_FAULTS = 3  # in a row until a plain fetch is tried beside: the whole host may be down, or busy
_CLIENT_FAULTS = range(300, 500)  # with redirects, which an edge makes up as well
_FEW = 4  # tasks that seldom share a poll, as they are seldom due together
_STALE_ALLOWED = 64  # entries of a heap that are not worth a clean-up


@define(eq=False, repr=False, slots=True)
class FamilyQueue:
    """The watches of one family by when they are due, and what is known of its multi-fetch.

    `size` is the most tasks that the host is known to take in one request.
    """

    size: int
    watches: dict[TaskId, Watch] = field(factory=dict)
    heap: list[tuple[float, int, Watch]] = field(factory=list)
    bad_answers: int = 0  # multi-fetches in a row that could not be understood
    blocked: int = 0  # multi-fetches in a row that an edge refused
    faults: int = 0  # multi-fetches in a row that failed in a way that passes
    size_given_up: int = 0  # the size to return to; 0: none was given up
    restore_at: float | None = None
    _order: Iterator[int] = field(factory=count, init=False)

    # -- what is due -------------------------------------------------------------------------------

    def push(self, watch: Watch, due: float) -> None:
        """Have a watch polled at `due`, unless it is to be polled earlier anyway, or is being polled."""
        if due >= watch.queued_for:
            return

        leaves_stale = watch.queued_for != NOT_QUEUED
        watch.queued_for = due
        heapq.heappush(self.heap, (due, next(self._order), watch))
        if leaves_stale:
            self._tidy()

    def next_due(self) -> float:
        """Return when the first poll is due, inf for never."""
        while self.heap:
            due, _, watch = self.heap[0]
            if due == watch.queued_for and watch.waits:
                return due

            heapq.heappop(self.heap)
            if due == watch.queued_for:  # it is no longer waited for
                watch.queued_for = NOT_QUEUED
        return math.inf

    def pop(self, latest: float) -> tuple[float, Watch] | None:
        """Take out the watch that is due first, to be polled, and tell when; None if none is by `latest`."""
        heap = self.heap
        while heap and heap[0][0] <= latest:
            due, _, watch = heapq.heappop(heap)
            if due != watch.queued_for:
                continue
            if watch.waits:
                watch.queued_for = BEING_POLLED
                return due, watch
            watch.queued_for = NOT_QUEUED
        return None

    def put_back(self, watch: Watch, due: float) -> None:
        """Undo a `pop`."""
        watch.queued_for = NOT_QUEUED
        self.push(watch, due)

    def remove(self, watch: Watch) -> None:
        """Take in that nobody waits for a task any more."""
        del self.watches[watch.task_id]
        self._tidy()

    def is_shared(self) -> bool:
        """Return whether its polls ask for many tasks, so that one task more costs little."""
        return self.size > 1 and len(self.watches) > _FEW

    def _tidy(self) -> None:
        """Drop the stale entries of the heap, once they are most of it."""
        if len(self.heap) <= 2 * len(self.watches) + _STALE_ALLOWED:
            return

        kept = []
        for entry in self.heap:
            due, _, watch = entry
            if due != watch.queued_for:
                continue
            if watch.waits:
                kept.append(entry)
            else:
                watch.queued_for = NOT_QUEUED

        heapq.heapify(kept)
        self.heap = kept

    # -- what the host can do ----------------------------------------------------------------------

    def learn(self, asked: int, error: PiAPIError) -> bool:
        """Adapt to a host without multi-fetch, or with a smaller one; return whether to poll at once.

        `asked` is the number of tasks in the request that failed with `error`.
        """
        match error:
            case APIError(status=404 | 405 | 501):
                self._give_up()
            case NotFoundError():
                pass  # because of one of the tasks, it seems: plain fetches will tell of which
            case UnexpectedAnswer():
                self.misunderstood()
            case APIError(message="", status=status) if status in _CLIENT_FAULTS:
                self.blocked += 1
                return False
            case AuthenticationError():
                return False
            case APIError() if judge_read(error) is Verdict.RAISE:
                self.size_given_up = max(self.size_given_up, self.size)
                self.size = max(1, min(self.size, asked) // 2)
            case _:
                self.faults += 1
                return False
        return True

    @property
    def in_doubt(self) -> bool:
        """Whether it may be only multi-fetch that does not work: a plain fetch tells."""
        return self.blocked > 0 or self.faults >= _MOST_FAULTS

    def understood(self, *, multi: bool) -> None:
        """Record a poll that succeeded.

        If a plain fetch passes while an edge refuses multi-fetches, or while they fail again and
        again, it is multi-fetch that does not work.
        """
        if multi:
            self.bad_answers = self.blocked = self.faults = 0
        elif self.blocked >= _MOST_BAD_ANSWERS or self.faults >= _MOST_FAULTS:
            self._give_up()

    def misunderstood(self) -> None:
        """Record a multi-fetch whose response makes no sense; several in a row end multi-fetch."""
        self.bad_answers += 1
        if self.bad_answers >= _MOST_BAD_ANSWERS:
            self._give_up()

    def _give_up(self) -> None:
        """Poll singly for a while."""
        self.size_given_up = max(self.size_given_up, self.size)
        self.size = 1
        self.blocked = self.faults = 0

    def restore(self, now: float) -> None:
        """Return to the size that was given up, after ten minutes of polls.

        An edge in maintenance refuses and answers nonsense, too.  One more bad answer is enough to
        give it up again.
        """
        if not self.size_given_up:
            return
        if self.restore_at is None:
            self.restore_at = now + _RESTORE_AFTER
            return
        if now < self.restore_at:
            return

        self.size = self.size_given_up
        self.size_given_up = 0
        self.bad_answers = _MOST_BAD_ANSWERS - 1
        self.restore_at = None


@define(eq=False, repr=False, slots=True)
class DeadlineQueue:
    """The waits that have a deadline, by that deadline."""

    heap: list[tuple[float, int, Wait]] = field(factory=list)
    _alive: int = 0
    _order: Iterator[int] = field(factory=count, init=False)

    def push(self, wait: Wait) -> None:
        """Add a wait, if it has a deadline."""
        if wait.deadline == math.inf:
            return
        self._alive += 1
        heapq.heappush(self.heap, (wait.deadline, next(self._order), wait))

    def dropped(self, wait: Wait) -> None:
        """Record that a wait is over; its entry goes when most of the heap is stale."""
        if wait.deadline == math.inf:
            return

        self._alive -= 1
        if len(self.heap) > 2 * self._alive + _STALE_ALLOWED:
            self.heap = [entry for entry in self.heap if not entry[2].over]
            heapq.heapify(self.heap)

    def next(self) -> float:
        """Return the first deadline of a wait that is not over, inf if there is none."""
        while self.heap:
            deadline, _, wait = self.heap[0]
            if not wait.over:
                return deadline
            heapq.heappop(self.heap)
        return math.inf

    def pop_due(self, now: float) -> list[Wait]:
        """Take out the waits whose deadline has come and that are not over."""
        due = []
        while self.next() <= now:
            _, _, wait = heapq.heappop(self.heap)
            due.append(wait)
        return due
