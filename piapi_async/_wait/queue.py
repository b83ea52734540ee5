"""Who waits for what, and the lane of each family: its tasks by when they are due, and what its host can do.  Pure."""

from __future__ import annotations

import heapq
import math

from attrs import define, field

from .._verdict import Verdict, judge_read
from ..errors import APIError, AuthenticationError, NotFoundError, PiAPIError, UnexpectedAnswer
from ..tasks import TaskId
from .watch import Watch

_REGAIN = 600.0  # seconds
_DOUBTS = 2  # answers in a row that make no sense before multi-fetch is given up: one may be an accident on the way
_CLIENT_FAULTS = range(300, 500)  # with redirects, which are as little the host's word


@define(eq=False, slots=True)
class FamilyQueue:
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
