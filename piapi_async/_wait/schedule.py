"""The schedule of polls: what to poll next, and what a response does.  Pure.

Theory of operation
-------------------

Let R be the polls per task, L the mean seconds from a task's end to its detection, and K the tasks
that share a poll.  For durations with density f and survival S the product R · L · K is at least
(∫ √(f·S) dt)² / 2, reached when the time between two polls follows 1/√hazard: long while a task is
too young to end, short while ends are likely, and never growing as a back-off would.  Against an
even interval that saves only a fifth, while sharing requests saves a factor K and reported
progress, which predicts the end, a factor of about three.  So each poll is filled up with the tasks
that are due next, a task whose pace is known is polled when its end is near, and all others by
their age (`PollPolicy`).  A task that has its polls for itself is not polled at all before its kind's
earliest twentieth has ended, and then evenly: if 95 % of ends are to be noticed in time, each late one
saves 1/(delay · hazard) polls, so they are best spent on the youngest, whose hazard is least.
Jitter is small, as it only lengthens L; where webhooks can be relied on, polls become a safety net.

Every decision is made here and in `timing` (when a task is polled next), in methods that take the
time as an argument and return what is to be done: the polls to make, the waits to wake.  `Poller`
makes the polls and wakes the waits; it decides nothing.

The life of a watch: `start` adds a wait and queues the watch; `due_polls` takes it out of its queue
into a `Poll`; `succeeded` or `failed` brings it back, to be queued again or, once its waits are
over, dropped.  The schedule holds a watch exactly as long as it has waits.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

from attrs import define, field

from .._protocol.family import Family
from .._verdict import Verdict, judge_read
from ..errors import APIError, ClientClosed, NotFoundError, PiAPIError, UnexpectedAnswer
from ..policy import PollPolicy, doubled
from ..stats import Counters
from ..tasks import TaskId
from .durations import Kinds
from .faults import KeyRefusals
from .queue import DeadlineQueue, FamilyQueue
from .timing import Timing
from .trust import EndReports, WebhookTrust
from .watch import NEVER, NOT_QUEUED, AnyTask, Poll, Readings, Wait, Watch, differs, is_behind

LAST_POLL_LEAD = 1.0
"""Seconds before a deadline at which the last poll begins, so that its response can still arrive."""

_FAULT_DELAY_MAX = 10.0  # seconds between polls, however many have failed
_MOST_DOUBLINGS = 10  # a schedule of milliseconds, as for an emulator, does not back off to seconds


@define(eq=False, repr=False)
class PollSchedule:
    """All waits of one client; `multi_fetch_size` is the most ids that one request may carry."""

    policy: PollPolicy
    rng: Random
    multi_fetch_size: int = 20
    counters: Counters = field(factory=Counters)
    trust: WebhookTrust = field(factory=WebhookTrust)
    kinds: Kinds = field(factory=Kinds)
    timing: Timing = field(init=False)
    _reports: EndReports = field(init=False)
    _queues: dict[str, FamilyQueue] = field(factory=dict, init=False)
    _deadlines: DeadlineQueue = field(factory=DeadlineQueue, init=False)
    _key_refusals: KeyRefusals = field(factory=KeyRefusals, init=False)

    def __attrs_post_init__(self) -> None:
        # A poll finds an end when it is half the delay old, on average.
        self._reports = EndReports(self.trust, grace=self.policy.delay / 2)
        self.timing = Timing(self.policy, self.rng, self.trust, self.kinds)

    def __len__(self) -> int:
        """Return the number of tasks that are waited for."""
        return sum(len(queue.watches) for queue in self._queues.values())

    # -- which watch is the watch ------------------------------------------------------------------

    def find(self, family: Family[Any], task_id: TaskId) -> Watch | None:
        """Return the watch of a task that is waited for."""
        return self._queue_of(family).watches.get(task_id)

    def current(self, watch: Watch) -> Watch:
        """Return the watch of the same task that is waited for, if there is one, else `watch`.

        Handles that were made while nobody waited have watches of their own; the first that is
        waited on is the watch for all of them.  A watch that has ended has nothing to learn from
        another.
        """
        if watch.ended:
            return watch
        return self._queue_of(watch.family).watches.get(watch.task_id, watch)

    # -- starting and stopping ---------------------------------------------------------------------

    def start(
        self,
        watch: Watch,
        woken: Any,  # noqa: ANN401 - the poller's
        now: float,
        *,
        deadline: float = math.inf,
        changes: bool = False,
        once: bool = False,
    ) -> Wait:
        """Begin to wait for a task.  If it has ended, the wait is over at once.

        The watch to read is the wait's, which may be another than `watch`.
        """
        if watch.ended:
            return Wait(watch, woken)

        queue = self._queue_of(watch.family)
        watch = queue.watches.get(watch.task_id, watch)
        was_planned = not math.isnan(watch.due)
        if not watch.waits:
            self._begin(queue, watch, now)
        if changes and watch.due > now and not (watch.has_webhook and self.trust.relied_on):
            watch.due = min(watch.due, now + self.timing.soon(watch, now, looked_at=True))
        wait = Wait(watch, woken, deadline, changes, once)
        watch.waits += (wait,)
        self._deadlines.push(wait)

        if self._reports.take_early(watch.task_id):
            watch.end_reported_at = now
            watch.due = now
        elif was_planned and watch.has_webhook and not self.trust.relied_on:
            # Its poll may have been put off while webhooks were relied on.
            watch.due = min(watch.due, now + self.timing.soon(watch, now))

        due = now
        if watch.due > now and not once:
            due = watch.due
        self._enqueue(queue, watch, due)
        return wait

    def _begin(self, queue: FamilyQueue, watch: Watch, now: float) -> None:
        """Take in a watch for which nobody waits yet."""
        if watch.durations is not None and watch.observed_at == NEVER and watch.paced_from <= now:
            watch.durations.begun(watch, watch.paced_from)
        if math.isnan(watch.due):  # it was submitted, and is not polled before anything can have ended
            if watch.has_webhook:
                self._judge_reports(now)
            watch.due = watch.paced_from + self.timing.first(watch, now, shared=queue.is_shared())
        elif watch.has_webhook and watch.durations is not None:
            watch.durations.put_off(watch, math.inf)  # by how much was forgotten when its last wait was left
        if watch.fault_record is not None:
            watch.fault_record.begin_anew()
        queue.watches[watch.task_id] = watch

    def stop(self, wait: Wait) -> bool:
        """End a wait early; return whether it was still on.  A task without waits is not polled."""
        if wait.over:
            return False

        watch = wait.watch
        watch.waits = tuple(other for other in watch.waits if other is not wait)
        self._deadlines.dropped(wait)
        if not watch.waits:
            self._leave(self._queue_of(watch.family), watch)
        return True

    def close(self, error: PiAPIError) -> list[Wait]:
        """End every wait with `error`; return the waits to wake."""
        watches = [(queue, watch) for queue in self._queues.values() for watch in queue.watches.values()]
        return [wait for queue, watch in watches for wait in self._give_up(queue, watch, error)]

    def expire(self, now: float) -> list[Wait]:
        """End the waits whose deadline has come, and return them."""
        expired = self._deadlines.pop_due(now)
        for wait in expired:
            self.stop(wait)
        return expired

    # -- what to poll next -------------------------------------------------------------------------

    def next_event(self, *, polls: bool) -> float:
        """Return when the next deadline comes or, with `polls`, a poll is due; inf for never."""
        event = self._deadlines.next()
        if polls:
            for queue in self._queues.values():
                event = min(event, queue.next_due())
        return event

    def due_polls(self, now: float, limit: int) -> list[Poll]:
        """Return at most `limit` polls that are due, each filled up with the tasks that are due next."""
        self._judge_reports(now)
        polls: list[Poll] = []
        for queue in self._queues.values():
            while len(polls) < limit:
                entry = queue.pop(now)
                if entry is None:
                    break
                _, first = entry
                polls.append(self._fill_up(queue, first, now))
        return polls

    def _fill_up(self, queue: FamilyQueue, first: Watch, now: float) -> Poll:
        """Return the poll of a task that is due, and of those that share its request."""
        queue.restore(now)
        watches = [first]
        if not first.poll_singly:
            watches += self._take_company(queue, now)

        for watch in watches:
            watch.polled_at = now
            watch.polls += 1
        self.counters.polls += 1
        self.counters.tasks_polled += len(watches)
        return Poll(first.family, tuple(watches))

    def _take_company(self, queue: FamilyQueue, now: float) -> list[Watch]:
        """Take out of a queue the tasks that a request still has room for beside its first one."""
        # Where webhooks report ends, a task that is not due yet would be polled in vain, or its end
        # be found before its webhook has had the time to report it.
        latest = now if self.trust.relied_on else math.inf
        company: list[Watch] = []
        singles: list[tuple[float, Watch]] = []
        while len(company) + 1 < queue.size:
            entry = queue.pop(latest)
            if entry is None:
                break
            due, watch = entry
            if watch.poll_singly:
                singles.append((due, watch))
            else:
                company.append(watch)

        for due, watch in singles:
            queue.put_back(watch, due)
        return company

    # -- what a response does ----------------------------------------------------------------------

    def succeeded(self, poll: Poll, readings: Readings, now: float) -> list[Wait]:
        """Take in what a poll returned; return the waits to wake."""
        self._key_refusals.passed()
        queue = self._queue_of(poll.family)
        unreadable = [entry for entry in readings.values() if isinstance(entry, UnexpectedAnswer)]
        if unreadable and len(unreadable) == len(readings):
            queue.misunderstood()
        else:
            queue.understood(multi=poll.multi)

        woken: list[Wait] = []
        for watch in poll.watches:
            watch.queued_for = NOT_QUEUED
            match readings.get(watch.task_id):
                case None:
                    watch.faults().note_missing(now)
                    self._poll_again_now(queue, watch, now)
                case UnexpectedAnswer() as error:
                    self._unreadable(queue, watch, error, now)
                case task:
                    woken += self._observe(queue, watch, task, now)
        return woken

    def observe(self, watch: Watch, task: AnyTask, now: float) -> list[Wait]:
        """Take in one reading of a task, from a poll or from elsewhere; return the waits to wake."""
        return self._observe(self._queue_of(watch.family), watch, task, now)

    def _observe(self, queue: FamilyQueue, watch: Watch, task: AnyTask, now: float) -> list[Wait]:
        before = watch.task
        if before is not None and before.state.terminal:  # an end is never taken back,
            if task.state.terminal:  # but a later reading may have newer links
                watch.task = task
            return []

        watch.task = task
        watch.fault_record = None
        if task.state.terminal:
            return self._end(queue, watch, now)

        woken = [wait for wait in watch.waits if wait.changes and not wait.once]
        if woken and not differs(before, task):
            woken = []
        watch.observed_at = now
        if watch.polling:  # the reading is from elsewhere, and our own poll still to come
            return woken
        if watch.report_unchecked:
            self._poll_again_now(queue, watch, now)
            return woken
        due = now + self.timing.next(watch, task, now, shared=queue.is_shared())
        return woken + self._reschedule(queue, watch, due)

    def _end(self, queue: FamilyQueue, watch: Watch, now: float) -> list[Wait]:
        """Take in that a task has ended; return the waits to wake, which are all."""
        self.counters.ended += 1
        self.counters.detection_seconds += watch.detection_seconds(now) or 0.0

        reported = watch.end_reported
        if self.timing.learn(watch, now, reported=reported):
            self._poll_kind_anew(queue, watch, now)
        if watch.has_webhook:
            task = watch.family.name, watch.task_id
            if self._reports.end_observed(task, now, reported=reported):
                self._poll_as_usual(now)

        woken = list(watch.waits)
        watch.waits = ()
        for wait in woken:
            self._deadlines.dropped(wait)
        if woken:
            queue.remove(watch)
        return woken

    def _poll_kind_anew(self, queue: FamilyQueue, ended: Watch, now: float) -> None:
        """Poll the others of a kind soon, because its tasks take another time than before."""
        for other in queue.watches.values():
            if other.durations is ended.durations and not other.polling and other is not ended:
                self._enqueue(queue, other, now + self.timing.soon(other, now))

    # -- what webhooks report ----------------------------------------------------------------------

    def poll_now(self, watch: Watch, now: float) -> None:
        """Have a watch polled at once, because a webhook reports its end."""
        watch.end_reported_at = now
        if not watch.polling:
            self._poll_again_now(self._queue_of(watch.family), watch, now)

    def reported(self, watch: Watch, task: AnyTask, now: float) -> list[Wait]:
        """Take in what a webhook shows of a task, as if a poll had; return the waits to wake."""
        if task.state.terminal:
            watch.end_reported_at = now
            return self.observe(watch, task, now)

        watch.has_webhook = True
        if watch.task is not None and is_behind(task, watch.task):  # deliveries overtake each other
            return []
        return self.observe(watch, task, now)

    def reported_late(self, family: Family[Any], task_id: TaskId, now: float) -> bool:
        """Take in that a webhook reports an end; return whether a poll had just observed it."""
        self._judge_reports(now)
        return self._reports.reported_late((family.name, task_id))

    def reported_early(self, task_id: TaskId) -> None:
        """Remember an end that a webhook reported while nobody waits: a wait will poll at once."""
        self._reports.reported_early(task_id)

    def _judge_reports(self, now: float) -> None:
        if self._reports.judge(now):
            self._poll_as_usual(now)

    def _poll_as_usual(self, now: float) -> None:
        """Bring forward the polls that were put off, because webhooks are no longer relied on."""
        for queue in self._queues.values():
            for watch in queue.watches.values():
                if not watch.polling:
                    self._enqueue(queue, watch, now + self.policy.next_poll(self.rng))

    # -- what goes wrong ---------------------------------------------------------------------------

    def failed(self, poll: Poll, error: PiAPIError, now: float) -> list[Wait]:
        """Take in that a poll failed; return the waits to wake."""
        queue = self._queue_of(poll.family)
        for watch in poll.watches:
            watch.queued_for = NOT_QUEUED
            watch.faults().note(error, now)
        if isinstance(error, ClientClosed) or self._key_refusals.is_believed(error, now):
            return self.close(error)  # it will not pass, for any task

        if poll.multi and queue.learn(len(poll.watches), error):
            for watch in poll.watches:
                watch.faults().poll_singly = isinstance(error, (UnexpectedAnswer, NotFoundError))
                self._poll_again_now(queue, watch, now)
            return []
        if queue.in_doubt:
            # One task is read by itself after each multi-fetch that fails, and no more than one.
            poll.watches[0].faults().poll_singly = poll.multi

        woken: list[Wait] = []
        for watch in poll.watches:
            if isinstance(error, APIError) and judge_read(error) is Verdict.RAISE:
                woken += self._refused(queue, watch, error, now)
            else:
                woken += self._faulted(queue, watch, now)
        return woken

    def newly_overdue(self, poll: Poll, now: float) -> list[Watch]:
        """Return the watches of a poll that have not been read for a minute, each once in a run of faults."""
        failing = [watch for watch in poll.watches if watch.fault_record is not None]
        return [watch for watch in failing if watch.faults().warn(now)]

    def _unreadable(self, queue: FamilyQueue, watch: Watch, error: UnexpectedAnswer, now: float) -> None:
        """Poll a task singly whose entry in a multi-fetch could not be read: a plain fetch may show it."""
        record = watch.faults()
        record.note(error, now)
        record.poll_singly = True
        self.counters.poll_faults += 1
        self._poll_again_now(queue, watch, now)

    def _refused(self, queue: FamilyQueue, watch: Watch, error: APIError, now: float) -> list[Wait]:
        """Poll a task again that the host does not show, or end its waits when that is believed."""
        believed_at = watch.faults().note_refusal(error, now)
        if now >= believed_at:
            return self._give_up(queue, watch, error)
        if isinstance(error, NotFoundError):
            return self._reschedule(queue, watch, believed_at)
        return self._reschedule(queue, watch, now + self.policy.next_poll(self.rng))

    def _faulted(self, queue: FamilyQueue, watch: Watch, now: float) -> list[Wait]:
        """Poll again after a passing fault, later each time: the host has enough to do."""
        record = watch.faults()
        doublings = min(record.passing_faults, _MOST_DOUBLINGS)
        longest = max(_FAULT_DELAY_MAX, self.policy.interval)
        delay = doubled(self.policy.next_poll(self.rng), doublings, maximum=longest)
        record.passing_faults += 1
        self.counters.poll_faults += 1
        return self._reschedule(queue, watch, now + delay)

    # -- what has been learnt about the host -------------------------------------------------------

    def size(self, family: Family[Any]) -> int:
        """Return the most tasks of a family that the host is known to take in one request."""
        return self._queue_of(family).size

    def learn(self, family: Family[Any], asked: int, error: PiAPIError) -> bool:
        """Adapt to how a host refused a request for `asked` tasks; return whether to ask again at once."""
        return self._queue_of(family).learn(asked, error)

    # -- putting watches into their queues, and taking them out ------------------------------------

    def _reschedule(self, queue: FamilyQueue, watch: Watch, due: float) -> list[Wait]:
        """Poll again at `due`; end the waits for which one poll was enough, and return them."""
        served = [wait for wait in watch.waits if wait.once]
        for wait in served:
            self.stop(wait)

        watch.due = due
        if watch.waits:
            self._enqueue(queue, watch, due)
        return served

    def _poll_again_now(self, queue: FamilyQueue, watch: Watch, now: float) -> None:
        """Poll again at once, because this poll told nothing about the task."""
        watch.due = now
        if watch.waits:
            self._enqueue(queue, watch, now)

    def _enqueue(self, queue: FamilyQueue, watch: Watch, due: float) -> None:
        """Put a watch into its queue, earlier than `due` if a deadline still wants its last poll."""
        for wait in watch.waits:
            last_poll = wait.deadline - LAST_POLL_LEAD
            if watch.polled_at < last_poll < due:
                due = last_poll
        queue.push(watch, due)

    def _give_up(self, queue: FamilyQueue, watch: Watch, error: PiAPIError) -> list[Wait]:
        """End all waits on a watch with `error`; return them."""
        watch.faults().error = error
        woken = list(watch.waits)
        watch.waits = ()
        for wait in woken:
            # Kept here too: a new wait may clear the watch's error before the caller runs.
            wait.error = error
            self._deadlines.dropped(wait)
        if woken:
            self._leave(queue, watch)
        return woken

    @staticmethod
    def _leave(queue: FamilyQueue, watch: Watch) -> None:
        """Take in that nobody waits any more for a task that has not ended."""
        queue.remove(watch)
        if watch.durations is not None:
            watch.durations.left(watch, max(watch.observed_at, 0.0))

    def _queue_of(self, family: Family[Any]) -> FamilyQueue:
        queue = self._queues.get(family.name)
        if queue is None:
            size = self.multi_fetch_size if family.fetch_many is not None else 1
            queue = self._queues[family.name] = FamilyQueue(size)
        return queue
