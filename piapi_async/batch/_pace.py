"""`concurrency="auto"`: how many tasks a run has in flight, found out while it runs.

Theory of operation
-------------------
An account runs so many tasks at a time.  A host that is given more queues some of them, and refuses
the rest; most hosts do not say how many those are.  So a run begins with what the account tells, or
with few, and then:

1. It adds one for each task that the host starts at once, one at a time, which at least doubles them in the
   time of one task; and none while tasks wait to be started.
2. When a submission is put off (429, or in words) it halves, once for all that are put off at the time.
   How many were accepted is the plateau, up to which it grows again by 1.
3. If that was a try beyond the plateau the host runs as many as before, and the end of the next task takes
   it back to them at once.
4. At the plateau it tries one more after a quiet time, which is shorter where the host has run more before.
   Of a hundred starts not even one pays for such a try, so that hardly a submission in a hundred is refused.
5. If the try is accepted it grows by 1 again.

What was put off is submitted again when a task of the run has ended.

`Controller` is that rule, pure; `Starts` tells from what was seen of a task whether it was started
at once; `Slots` is the semaphore, of which it withholds what is beyond the limit.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Any

import anyio
from attrs import define, evolve, field

from .._protocol.family import TaskRequest
from .._runtime import Runtime
from .._submit.submission import SubmitResult, Terms
from .._verdict import may_pass
from .._wait.watch import Watch
from ..errors import RateLimitError
from ..ledger._entries import SubmissionKey
from ..tasks import TaskState

AUTO_MAX = 90
"""Tasks in flight at most, unless told otherwise: no plan runs more (vendor page)."""

_FEW = 10  # to begin with, where the host does not tell
_TICK = 1.0  # seconds between two looks at what is in flight
_ACCOUNT_SECONDS = 5.0  # for which the host is asked

# Rounds, of as many starts at once as there are tasks in flight, between two tries; fewer where the host has
# run more before, as it may do so again.
_ROUNDS = 12
_ROUNDS_BELOW = 3.5
_BELOW = 0.8  # of the most that it has run

# Starts that pay for a try, and the most tries that are saved up for when fewer tasks are run.
_STARTS_FOR_A_TRY = 110
_MOST_TRIES = 8

_CLOSE = 0.05  # an end is seen late, so that a try may be accepted by luck

# Seconds after which a task that waits is queued, and by which a start may be later than the earliest.
_QUEUED_AFTER = 10.0
_LATE_START = 3.0
_STAGED = "staged"  # the legacy protocol's word for what is over the limit (vendor page)


@define
class Controller:
    """How many tasks should be in flight.

    `plateau` is up to where it grows at once: the cap, as long as the host has not refused more.
    """

    cap: int
    limit: int
    plateau: int = field(init=False)
    _known: int = field(default=0, init=False)  # the plateau before it tried more
    _most: int = field(default=0, init=False)  # the highest plateau of the run
    _returns: bool = field(default=False, init=False)  # to the plateau, when a task ends
    _growth: int = field(default=0, init=False)  # by which it may grow, one at a time
    _starts: int = field(default=0, init=False)  # at the plateau
    _tries: float = field(default=0.0, init=False)  # that are paid for

    def __attrs_post_init__(self) -> None:
        self.plateau = self.cap

    def started(self, *, at_once: bool) -> None:
        """Take in that a task was started at once, or that it was queued."""
        self._tries = min(_MOST_TRIES, self._tries + 1 / _STARTS_FOR_A_TRY)
        if not at_once:
            self._starts = 0
        elif self.limit + self._growth < self.plateau:
            self._growth += not self._returns
        else:
            self._starts += 1
            if self.plateau < self.cap and self._tries >= 1 and self._starts >= self._quiet_starts():
                self._try_more()

    def grow(self) -> None:
        """Add one of those that starts have earned, as the one before has been accepted, or refused."""
        if self._growth:
            self._growth -= 1
            self.limit += 1

    def ended(self) -> None:
        """Take in that a task has ended."""
        if self._returns:
            self.limit = max(self.limit, self.plateau)
            self._returns = False

    def put_off(self, accepted: int) -> None:
        """Take in that the host has put submissions off, of so many tasks that are in flight."""
        if accepted > self.limit:  # it was halved a moment ago, and what is in flight has not ended yet
            return

        if not accepted:  # the host is busy with others' tasks, which says nothing of how many it runs
            self.limit = max(1, self.limit // 2)
            self._growth = self._starts = 0
            return

        self._returns = self.plateau == self.cap
        self.plateau = accepted
        if self._returns:
            if 0 <= accepted - self._known <= _CLOSE * self._known:
                self.plateau = max(1, self._known)
            self._most = max(self._most, self.plateau)
        self.limit = max(1, self.limit // 2)
        self._growth = self._starts = 0

    def _quiet_starts(self) -> float:
        rounds: float = _ROUNDS
        if self.plateau < _BELOW * self._most:
            rounds = _ROUNDS_BELOW
        return rounds * self.plateau

    def _try_more(self) -> None:
        self._known, self.plateau = self.plateau, self.cap
        self._growth = 1
        self._starts = 0
        self._tries -= 1


@define(eq=False)
class Starts:
    """Which tasks were started at once; each is told of once."""

    _waiting: dict[int, tuple[Watch, float]] = field(factory=dict, init=False)  # by the item's index
    _earliest: float = field(default=math.inf, init=False)  # seconds in which a task was started

    def add(self, index: int, watch: Watch, now: float) -> None:
        """Note a task that was accepted just now."""
        self._waiting[index] = watch, now

    def take(self, index: int) -> bool | None:
        """Return whether an item's task was started at once, None if that is not known or was told before."""
        known = self._waiting.get(index)
        if known is None:
            return None

        was_at_once = self._judge(*known)
        if was_at_once is not None:
            del self._waiting[index]
        return was_at_once

    def take_all(self) -> list[bool]:
        """Return what is new of all items."""
        found = [self.take(index) for index in list(self._waiting)]
        return [was_at_once for was_at_once in found if was_at_once is not None]

    def drop(self, index: int) -> None:
        """Forget an item."""
        self._waiting.pop(index, None)

    def _judge(self, watch: Watch, accepted_at: float) -> bool | None:
        task = watch.task
        if task is None:
            return None
        if task.state is TaskState.WAITING:
            is_queued = task.status.lower() == _STAGED or watch.observed_at - accepted_at >= _QUEUED_AFTER
            return False if is_queued else None

        created, started = task.created_at, task.started_at
        if created is None or started is None:
            return True
        seconds = (started - created).total_seconds()
        self._earliest = min(self._earliest, seconds)
        return seconds <= self._earliest + _LATE_START


@define(eq=False)
class Slots:
    """A semaphore of `cap` slots; those beyond `limit` are withheld: at once if free, else when released."""

    cap: int
    limit: int
    semaphore: anyio.Semaphore = field(init=False)
    _withheld: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.semaphore = anyio.Semaphore(self.cap, fast_acquire=True)
        self.set_limit(self.limit)

    def set_limit(self, limit: int) -> None:
        """Withhold what is beyond a limit, and release what is within."""
        self.limit = limit
        while self._withheld > self.cap - limit:
            self._withheld -= 1
            self.semaphore.release()
        while self._withheld < self.cap - limit and self.semaphore.value:
            self.semaphore.acquire_nowait()
            self._withheld += 1

    def acquire_nowait(self) -> None:
        """Acquire a slot.  Raises `anyio.WouldBlock` if none is free."""
        self.semaphore.acquire_nowait()

    async def acquire(self) -> None:
        """Acquire a slot, once one is free."""
        await self.semaphore.acquire()

    def release(self) -> None:
        """Release a slot, or withhold it if that is due."""
        if self._withheld < self.cap - self.limit:
            self._withheld += 1
        else:
            self.semaphore.release()


@define(eq=False)
class Pace:
    """The slots of one run with `concurrency="auto"`, and what decides how many they are."""

    _runtime: Runtime
    cap: int
    slots: Slots = field(init=False)
    _controller: Controller = field(init=False)
    _starts: Starts = field(factory=Starts, init=False)
    _accepted: int = field(default=0, init=False)  # of this run, in flight
    _put_off: int = field(init=False)  # submissions of the client that were, as far as is known
    # of items that wait for room
    _put_off_here: deque[asyncio.Future[None]] = field(factory=deque, init=False)
    _is_draining: bool = field(default=False, init=False)
    _looking: asyncio.Task[None] | None = field(default=None, init=False)
    _begun: asyncio.Event = field(factory=asyncio.Event, init=False)

    def __attrs_post_init__(self) -> None:
        first = min(self.cap, _FEW, self._runtime.home.service.concurrency)
        self._controller = Controller(self.cap, first)
        self.slots = Slots(self.cap, first)
        self._put_off = self._runtime.counters.put_off

    async def begin(self) -> None:
        """Return once the first limit is known: the account's, if the host tells it within some seconds."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again_and_again(), name="piapi_async batch pace")
        if not self._begun.is_set():
            await self._begun.wait()

    async def _ask_account(self) -> None:
        told = None
        with anyio.move_on_after(_ACCOUNT_SECONDS):
            try:
                self._runtime.enter()
                account = await self._runtime.sender.attempt(self._runtime.home.service.account)
                told = getattr(account, "max_concurrent_task_count", None)
            except Exception:  # noqa: BLE001 - whatever it is, the submissions will tell what is wrong
                return
        if isinstance(told, int) and told > 0:
            self._controller.limit = min(self.cap, told)
            self.slots.set_limit(self._controller.limit)

    def end(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look_again_and_again(self) -> None:
        try:
            await self._ask_account()
        finally:
            self._begun.set()

        while True:
            await anyio.sleep(_TICK)
            self._take_in(self._starts.take_all())

    def accepted(self, index: int, watch: Watch, *, is_new: bool) -> None:
        """Note a task that is in flight from now on; `is_new` tells that it was submitted just now."""
        self._accepted += 1
        if is_new:
            self._starts.add(index, watch, asyncio.get_running_loop().time())
        self._take_in([])

    def ended(self, index: int) -> None:
        """Note that an item's task has ended, or is waited for no more."""
        self._accepted -= 1
        self._controller.ended()
        was_at_once = self._starts.take(index)
        self._starts.drop(index)
        self._take_in([] if was_at_once is None else [was_at_once])

    @property
    def has_tasks(self) -> bool:
        """Whether any task of this run is in flight, whose end will make room for another."""
        return self._accepted > 0

    async def wait_for_room(self) -> None:
        """Return once there may be room for a submission that was put off: one at a time, as tasks end."""
        self._take_in([])
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put_off_here.append(turn)
        await turn

    async def submit(
        self,
        request: TaskRequest[Any],
        *,
        identity: SubmissionKey | None,
        terms: Terms,
    ) -> tuple[Watch, SubmitResult]:
        """Submit as `Runtime.submit`; while the host is busy with this run's own tasks, wait for their ends."""
        while True:
            if self.has_tasks:
                terms = evolve(terms, waits_if_busy=False)
            try:
                return await self._runtime.submit(request, identity=identity, terms=terms)
            except RateLimitError as error:
                if not may_pass(error) or not self.has_tasks:
                    raise
                await self.wait_for_room()
                if self._is_draining:
                    raise
            terms = evolve(terms, waits_if_busy=True)

    def drain(self) -> None:
        """Let nobody wait any more, and submit nothing again that the host has put off."""
        self._is_draining = True
        while self._put_off_here:
            self._wake_one()

    def _wake_one(self) -> None:
        turn = self._put_off_here.popleft()
        if not turn.done():
            turn.set_result(None)

    def _take_in(self, starts: list[bool]) -> None:
        for was_at_once in starts:
            self._controller.started(at_once=was_at_once)

        put_off = self._runtime.counters.put_off
        if put_off != self._put_off:
            self._put_off = put_off
            self._controller.put_off(self._accepted)
        self._controller.grow()

        if self._controller.limit != self.slots.limit:
            self.slots.set_limit(self._controller.limit)
        if self._put_off_here and self._accepted < self._controller.limit:
            self._wake_one()
