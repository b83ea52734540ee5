"""The schedule of waits: who waits for what until when, what to ask next, what an answer does.  Pure.

All waits of a client are kept here, and every decision about them is made here, in sync methods that take the time as
an argument and return what is to be done: the looks to make, the waiters to wake.  The poller makes the looks and rings
the waiters; it decides nothing.  A waiter is opaque to the schedule.

Tasks of one family share a `FamilyQueue`: a heap of what is due, and what has been learnt about the host's multi-fetch.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from itertools import count
from random import Random
from typing import Any, TypeAlias

from attrs import define, field, frozen

from .._protocol.family import Family
from .._verdict import Verdict, judge_read
from ..errors import (
    APIError,
    AuthenticationError,
    ClientClosed,
    NotFoundError,
    PiAPIError,
    TransportError,
    UnexpectedAnswer,
)
from ..policy import Pace, PollPolicy
from ..stats import Counters
from ..tasks import TaskId, TaskState
from .queue import FamilyQueue
from .trust import WebhookTrust
from .watch import AnyTask, Wait, Watch

GRACE = 5.0
"""Seconds for which a host may deny a task before we believe it: a new id can be invisible at first."""

LEAD = 1.0
"""Seconds before a deadline at which the last look begins, so that its answer can still come."""

OVERDUE = 60.0
"""Seconds of faults without a break after which the operator should hear of it."""

_FAULT_DELAY_MAX = 10.0
_SLACK = 64  # stale heap entries that are not worth a clean-up

Sightings: TypeAlias = Mapping[TaskId, AnyTask | UnexpectedAnswer | None]


@frozen
class Poll:
    """One request to make: a plain fetch of one watch, or a multi-fetch of several."""

    family: Family[Any]
    watches: tuple[Watch, ...]
    multi: bool


@define(eq=False)
class PollSchedule:
    """See the module's text.  `multi_fetch_size` is the most ids that one request may carry."""

    policy: PollPolicy
    rng: Random
    multi_fetch_size: int = 20
    counters: Counters = field(factory=Counters)
    trust: WebhookTrust = field(factory=WebhookTrust)
    # Ends that a look has seen and no webhook has told of, by the time at which they count as missed.
    _untold: dict[tuple[str, TaskId], float] = field(factory=dict, init=False)
    _lanes: dict[str, FamilyQueue] = field(factory=dict, init=False)
    _deadlines: list[tuple[float, int, Watch, Wait]] = field(factory=list, init=False)
    _bounded: int = field(default=0, init=False)  # waiters with a deadline
    _denied_since: float = field(default=math.inf, init=False)  # the key was refused, and no good answer came since
    _order: Iterator[int] = field(factory=count, init=False)

    def __len__(self) -> int:
        """Give the number of tasks that are waited for."""
        return sum(len(lane.watches) for lane in self._lanes.values())

    def find(self, family: Family[Any], task_id: TaskId) -> Watch | None:
        """Give the watch of a task that is waited for."""
        return self._lane(family).watches.get(task_id)

    def first_poll(self, now: float, *, announced: bool = False) -> float:
        """Return the time of the first look at a task that is submitted now: not before anything can have ended.

        `announced`: a webhook should tell of its end.
        """
        self._judge_untold(now)
        wait = self.policy.next_poll(self.rng, age=0.0)
        return now + (self._put_off(wait, 0.0) if announced else wait)

    # -- joining and leaving --------------------------------------------------------------------------------------

    def join(self, watch: Watch, waiter: Wait, now: float) -> Watch:
        """Let `waiter` wait, and give the watch to read: another one if the task is waited for already."""
        watch = self._lane(watch.family).watches.setdefault(watch.task_id, watch)
        if not watch.waiters:
            watch.error = None
            if watch.trouble is not None:
                watch.trouble.begin_anew()
        watch.waiters += (waiter,)
        if waiter.deadline < math.inf:
            self._bounded += 1
            heapq.heappush(self._deadlines, (waiter.deadline, next(self._order), watch, waiter))
        if watch.announced and not self.trust.relied_on:  # its look may have been put off while they could be
            watch.due = min(watch.due, now + self.policy.next_poll(self.rng))
        if not watch.looking:
            self._queue(watch, now if waiter.once else max(now, watch.due))
        return watch

    def leave(self, watch: Watch, waiter: Wait) -> None:
        """Let `waiter` go; a task nobody waits for is not looked at."""
        if waiter in watch.waiters:
            watch.waiters = tuple(other for other in watch.waiters if other is not waiter)
            self._gone(waiter)
        if not watch.waiters:
            self._forget(watch)

    def close(self, error: PiAPIError) -> list[Wait]:
        """End every wait with `error`; give the waiters to wake."""
        watches = [watch for lane in self._lanes.values() for watch in lane.watches.values()]
        return [waiter for watch in watches for waiter in self._settle(watch, error)]

    # -- what to do next ------------------------------------------------------------------------------------------

    def next_event(self, *, looks: bool) -> float:
        """Give the time of the next deadline or, with `looks`, of the next look if that is sooner; inf for never."""
        while self._deadlines and self._deadlines[0][3] not in self._deadlines[0][2].waiters:
            heapq.heappop(self._deadlines)
        event = self._deadlines[0][0] if self._deadlines else math.inf
        if looks:
            for lane in self._lanes.values():
                event = min(event, lane.head())
        return event

    def take(self, now: float, room: int) -> list[Poll]:
        """Give at most `room` looks that are due, each filled up with the next most urgent tasks."""
        self._judge_untold(now)
        looks: list[Poll] = []
        for lane in self._lanes.values():
            while len(looks) < room and lane.head() <= now:
                looks.append(self._pack(lane, now))
        return looks

    def _pack(self, lane: FamilyQueue, now: float) -> Poll:
        lane.regain(now)
        first = lane.pop()
        watches = [first]
        set_aside: list[tuple[float, Watch]] = []
        # Where webhooks tell of ends, whoever is not due is asked for in vain, and its end would be found too early.
        horizon = now if self.trust.relied_on else math.inf
        while not first.alone and len(watches) < lane.size and (due := lane.head()) <= horizon and due < math.inf:
            watch = lane.pop()
            if watch.alone:
                set_aside.append((due, watch))
            else:
                watches.append(watch)
        for due, watch in set_aside:
            self._queue(watch, due)
        for watch in watches:
            watch.looking, watch.looked_at = True, now
        self.counters.polls += 1
        self.counters.tasks_polled += len(watches)
        return Poll(first.family, tuple(watches), multi=len(watches) > 1)

    def expire(self, now: float) -> list[Wait]:
        """Give the waiters whose deadline has come, and let them go."""
        expired = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, _, watch, waiter = heapq.heappop(self._deadlines)
            if waiter in watch.waiters:
                self.leave(watch, waiter)
                expired.append(waiter)
        return expired

    # -- what an answer does --------------------------------------------------------------------------------------

    def answered(self, look: Poll, sightings: Sightings, now: float) -> list[Wait]:
        """Take in what a look found; return the waiters to wake."""
        self._denied_since = math.inf
        lane = self._lane(look.family)
        unread = [entry for entry in sightings.values() if isinstance(entry, UnexpectedAnswer)]
        if unread and len(unread) == len(sightings):
            lane.doubt()
        else:
            lane.understood(multi=look.multi)

        woken: list[Wait] = []
        for watch in look.watches:
            watch.looking = False
            match sightings.get(watch.task_id):
                case None:
                    self._missed(watch, now)
                case UnexpectedAnswer() as error:
                    self._unread(watch, error, now)
                case task:
                    woken += self.seen(watch, task, now)
        return woken

    def seen(self, watch: Watch, task: AnyTask, now: float) -> list[Wait]:
        """Take in one sighting of a task, by a look or otherwise; give the waiters to wake."""
        if watch.ended:  # an end is never taken back; a later look may have newer links
            watch.task = task if task.state.terminal else watch.task
            return []
        watch.restart()
        changed = differs(watch.task, task)
        watch.task = task
        if task.state.terminal:
            self.counters.ended += 1
            told = watch.told_at > -math.inf
            self.counters.detection_seconds += (now - watch.seen_at) / 2 if watch.seen_at > 0 and not told else 0.0
            if watch.announced:
                self._weigh(watch, now, told=told)
            return self._settle(watch, None)
        watch.seen_at = now
        news = [waiter for waiter in watch.waiters if waiter.changes and not waiter.once] if changed else []
        if watch.looking:  # somebody else's sighting; our own look is still to come
            return news
        if watch.looked_at < watch.told_at:  # this look began before the end was told of
            self._retake(watch, now)
            return news
        wait = self._patience(watch, task, now)
        if watch.announced and watch.told_at == -math.inf:
            wait = self._put_off(wait, now - watch.began)
        watch.told_at = -math.inf  # an end that was told and not found was told too early, or by a liar
        return news + self._again(watch, now + wait)

    def _patience(self, watch: Watch, task: AnyTask, now: float) -> float:
        """Give the seconds to the next look, from what this one has shown."""
        progress = task.progress or 0
        if progress < watch.progress or (progress == 0 and task.state is TaskState.WAITING):
            watch.began, watch.progress = now, 0  # it has not begun, or begins again
        elapsed, points = now - watch.began, progress - watch.progress
        if math.isnan(elapsed) or (watch.progress == 0 and points > 0):  # from here on its pace can be taken
            watch.began, watch.progress = now, progress
            return self.policy.next_poll(self.rng, age=None if math.isnan(elapsed) else elapsed)
        if points <= 0 or elapsed <= 0:
            return self.policy.next_poll(self.rng, age=None if watch.progress else elapsed)
        return self.policy.next_poll(self.rng, pace=Pace(progress, (points + 1) / elapsed))

    # -- what webhooks tell ---------------------------------------------------------------------------------------

    def poll_now(self, watch: Watch, now: float) -> None:
        """Have a watch looked at at once, because a webhook says that it has ended."""
        watch.told_at = now
        if not watch.looking:
            self._retake(watch, now)

    def told(self, watch: Watch, task: AnyTask, now: float) -> list[Wait]:
        """Take in what a webhook says of a task as if a look had seen it; return the waiters to wake."""
        if task.state.terminal:
            watch.told_at = now
        else:
            watch.announced = True
            if watch.task is not None and _is_behind(task, watch.task):  # deliveries overtake each other
                return []
        return self.seen(watch, task, now)

    def told_late(self, family: Family[Any], task_id: TaskId, now: float) -> bool:
        """Take in that a webhook tells of an end which a look had just seen; return whether that was so."""
        self._judge_untold(now)
        if self._untold.pop((family.name, task_id), None) is None:
            return False
        self.trust.confirmed()
        return True

    def _put_off(self, wait: float, age: float) -> float:
        """Return the seconds to the next look at a task whose end a webhook should tell of, as far as they are trusted.

        There is always a next look: a webhook that is lost is lost for good.
        """
        return max(wait, min(wait * self.trust.patience, self.policy.safety_net(age)))

    def _weigh(self, watch: Watch, now: float, *, told: bool) -> None:
        """Take note of an end that a webhook should have told of.

        A look may be a little quicker than a webhook that is in time, too: half the delay, for that is how old an end
        is on average when it is seen.
        """
        if told:
            self.trust.confirmed()
        elif self.trust.relied_on:  # looks are so rare that this end is old
            self._miss(now)
        else:
            self._untold[watch.family.name, watch.task_id] = now + self.policy.delay / 2

    def _judge_untold(self, now: float) -> None:
        """Count the ends as missed that no webhook has told of in time."""
        while self._untold:
            task, until = next(iter(self._untold.items()))
            if until > now:
                break
            del self._untold[task]
            self._miss(now)

    def _miss(self, now: float) -> None:
        """Take note of an end that no webhook told of; where that costs the trust, look at everybody as usual."""
        relied_on = self.trust.relied_on
        self.trust.missed()
        if not relied_on or self.trust.relied_on:
            return
        for lane in self._lanes.values():
            for watch in lane.watches.values():
                if not watch.looking:
                    self._queue(watch, now + self.policy.next_poll(self.rng))

    # -- what goes wrong ------------------------------------------------------------------------------------------

    def failed(self, look: Poll, error: PiAPIError, now: float) -> list[Wait]:
        """Take in that a look failed; return the waiters to wake."""
        for watch in look.watches:
            watch.looking = False
            watch.troubled().note(error, now)
        if isinstance(error, ClientClosed) or self._denies(error, now):  # it will not pass, for nobody
            return self.close(error)
        if look.multi and self.learn(look.family, len(look.watches), error):
            for watch in look.watches:
                watch.troubled().alone = isinstance(error, (UnexpectedAnswer, NotFoundError))
                self._retake(watch, now)
            return []
        if look.multi and self._lane(look.family).blocked:
            look.watches[0].troubled().alone = True  # it may be only multi-fetches that an edge does not like

        woken: list[Wait] = []
        for watch in look.watches:
            if isinstance(error, APIError) and judge_read(error) is Verdict.RAISE:
                woken += self._refused(watch, error, now)
            else:
                woken += self._faulted(watch, now)
        return woken

    def _denies(self, error: PiAPIError, now: float) -> bool:
        """Return whether the key is refused: in the host's own words, or for a minute without a good answer between.

        An edge's page ("Just a moment…") has the same status, and passes.
        """
        if not isinstance(error, AuthenticationError):
            return False
        self._denied_since = min(self._denied_since, now)
        return bool(error.message) or now - self._denied_since >= OVERDUE

    def overdue(self, look: Poll, now: float) -> list[Watch]:
        """Return the watches of a look of which nothing was seen for a minute, whatever the looks did; each once."""
        watches = []
        for watch in look.watches:
            trouble = watch.trouble
            if trouble is None or trouble.told:
                continue
            # A certificate that is not trusted may pass, as a hotel's network does; but there is something to be done.
            to_be_mended = isinstance(trouble.fault, TransportError) and trouble.fault.untrusted
            if to_be_mended or now - trouble.failing_since >= OVERDUE:
                trouble.told = True
                watches.append(watch)
        return watches

    # -- what is learnt about the host ----------------------------------------------------------------------------

    def size(self, family: Family[Any]) -> int:
        """Give the most tasks of a family that the host is known to take in one request."""
        return self._lane(family).size

    def learn(self, family: Family[Any], asked: int, error: PiAPIError) -> bool:
        """Adapt to what a host has said of a request for many; tell whether to ask again at once."""
        return self._lane(family).learn(asked, error)

    def _missed(self, watch: Watch, now: float) -> None:
        """Ask singly for a task that a multi-fetch did not show: only a plain fetch says that it is unknown."""
        trouble = watch.troubled()
        trouble.note(None, now)
        if trouble.refused_since is None:
            trouble.refused_since = now
        trouble.alone = True
        self._retake(watch, now)

    def _unread(self, watch: Watch, error: UnexpectedAnswer, now: float) -> None:
        """Ask singly for a task whose entry in a multi-fetch could not be read: a plain fetch may show it."""
        trouble = watch.troubled()
        trouble.note(error, now)
        trouble.alone = True
        self.counters.poll_faults += 1
        self._retake(watch, now)

    def _refused(self, watch: Watch, error: APIError, now: float) -> list[Wait]:
        """End the wait for a task that the host still denies when the grace is over, or refuses to tell of for long."""
        trouble = watch.troubled()
        if trouble.refused_since is None:
            trouble.refused_since = now
        unknown = isinstance(error, NotFoundError)
        patience = trouble.refused_since + (GRACE if unknown else OVERDUE)
        if now >= patience:
            return self._settle(watch, error)
        trouble.alone = unknown
        return self._again(watch, patience if unknown else now + self.policy.next_poll(self.rng))

    def _faulted(self, watch: Watch, now: float) -> list[Wait]:
        """Look again after a fault that will pass, ever more slowly: the host has enough to do."""
        trouble = watch.troubled()
        delay = self.policy.next_poll(self.rng) * 2.0 ** min(trouble.faults, 10)
        trouble.faults += 1
        self.counters.poll_faults += 1
        return self._again(watch, now + min(delay, max(_FAULT_DELAY_MAX, self.policy.interval)))

    def _again(self, watch: Watch, due: float) -> list[Wait]:
        """Look again at `due`; give those for whom one look was all."""
        served = [waiter for waiter in watch.waiters if waiter.once]
        for waiter in served:
            self.leave(watch, waiter)
        watch.due = due
        if watch.waiters:
            self._queue(watch, due)
        return served

    def _retake(self, watch: Watch, now: float) -> None:
        """Look again at once, because this look told nothing about the task."""
        watch.due = now
        if watch.waiters:
            self._queue(watch, now)

    def _queue(self, watch: Watch, due: float) -> None:
        """Put a watch into its lane, earlier than `due` where a deadline still wants its last look."""
        for waiter in watch.waiters:
            if waiter.deadline - LEAD > watch.looked_at:
                due = min(due, waiter.deadline - LEAD)
        if due < watch.queued:
            watch.queued = due
            lane = self._lane(watch.family)
            heapq.heappush(lane.heap, (due, next(self._order), watch))
            if len(lane.heap) > 2 * len(lane.watches) + _SLACK:
                lane.tidy()

    def _settle(self, watch: Watch, error: PiAPIError | None) -> list[Wait]:
        woken, watch.waiters = list(watch.waiters), ()
        watch.error = error
        for waiter in woken:
            waiter.error = error  # the watch's own may be gone before the waiter runs: another may wait anew
            self._gone(waiter)
        self._forget(watch)
        return woken

    def _gone(self, waiter: Wait) -> None:
        """Note that a waiter has left; what it leaves behind in the heap is cleared when it is half of it."""
        if waiter.deadline == math.inf:
            return
        self._bounded -= 1
        if len(self._deadlines) > 2 * self._bounded + _SLACK:
            self._deadlines = [entry for entry in self._deadlines if entry[3] in entry[2].waiters]
            heapq.heapify(self._deadlines)

    def _forget(self, watch: Watch) -> None:
        watches = self._lane(watch.family).watches
        if watches.get(watch.task_id) is watch:  # a later handle may have opened another watch on the same task
            del watches[watch.task_id]

    def _lane(self, family: Family[Any]) -> FamilyQueue:
        lane = self._lanes.get(family.name)
        if lane is None:
            size = self.multi_fetch_size if family.fetch_many is not None else 1
            lane = self._lanes[family.name] = FamilyQueue(size)
        return lane


def _is_behind(new: AnyTask, old: AnyTask) -> bool:
    """Tell whether a sighting is older than another, as far as one can see."""
    if new.state is TaskState.WAITING and old.state is TaskState.RUNNING:
        return True
    return (new.progress or 0) < (old.progress or 0)


def differs(old: AnyTask | None, new: AnyTask) -> bool:
    """Tell whether a sighting is news: another status, progress, or other images."""
    return old is None or (old.status, old.progress, old.images) != (new.status, new.progress, new.images)
