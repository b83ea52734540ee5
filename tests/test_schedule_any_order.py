"""The schedule in any order of events, against a plain model."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.scheduling import (
    DENIED,
    EVERYTHING,
    FAULT,
    SINGLY,
    ids,
    reading,
    schedule_of,
    succeed,
)

from piapi_async import LEGACY, Family
from piapi_async._wait.schedule import LAST_POLL_LEAD
from piapi_async._wait.watch import Poll, Wait, Watch
from piapi_async.errors import (
    AuthenticationError,
    ClientClosed,
    InvalidRequestError,
    NotFoundError,
    PiAPIError,
    ServerError,
    UnexpectedAnswer,
)
from piapi_async.tasks import TaskId

TASKS = [TaskId(name) for name in "abcde"]
FAMILIES = [LEGACY, SINGLY]
SIZE = 3
OUTCOMES = [
    "pending",
    "processing",
    "finished",
    "failed",
    "cancelled",
    "strange",
    None,
    UnexpectedAnswer("entry"),
]
ERRORS: list[PiAPIError] = [
    FAULT,
    DENIED,
    NotFoundError("x", status=404, message="x"),
    InvalidRequestError("x", status=400, message="x"),
    ServerError("x", status=500),
    UnexpectedAnswer("x"),
    AuthenticationError("x", status=401, message="x"),
]


class Interleavings(RuleBasedStateMachine):
    """Any order of starts, stops, polls, responses, faults, readings, deadlines and closings, against a plain model."""

    @initialize(room=st.sampled_from([1, 2, EVERYTHING]))
    def begin(self, room: int) -> None:
        self.room = room
        self.schedule = schedule_of(SIZE)
        self.now = 100.0
        self.watches: dict[tuple[str, TaskId], list[Watch]] = defaultdict(list)
        self.live: dict[int, Wait] = {}
        self.gone: set[int] = set()
        self.everybody: list[Wait] = []  # so that an id() is never used twice
        self.polls: list[Poll] = []
        self.began: dict[int, list[float]] = defaultdict(list)

    # -- what can happen

    @rule(
        task=st.sampled_from(TASKS),
        family=st.sampled_from(FAMILIES),
        known=st.booleans(),
        due=st.sampled_from([-math.inf, 0.5, 3.0]),
        timeout=st.sampled_from([None, 0.0, 0.3, 1.0, 2.5, 20.0]),
        changes=st.booleans(),
    )
    def start(
        self,
        task: TaskId,
        family: Family[Any],
        due: float,
        timeout: float | None,
        *,
        known: bool,
        changes: bool,
    ) -> None:
        kept = self.watches[family.name, task]
        if known and kept:
            watch = kept[-1]
            if watch.ended:
                return  # a handle answers from memory
        else:
            watch = self.schedule.find(family, task) or Watch(family, task, self.now + due)
        deadline = self.now + timeout if timeout else math.inf
        wait = self.schedule.start(
            watch, object(), self.now, deadline=deadline, changes=changes, once=timeout == 0.0
        )
        self.everybody.append(wait)
        watch = wait.watch
        kept.append(watch)
        self.live[id(wait)] = wait

        assert wait in watch.waits
        self.tick()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.live)))
        wait = self.live.pop(key)
        self.gone.add(key)
        self.schedule.stop(wait)
        self.schedule.stop(wait)

        assert wait.over

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 1.0, 3.0, 12.0, 70.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(10_000):
            when = self.schedule.next_event(polls=len(self.polls) < self.room)
            if when > until:
                break
            self.now = max(self.now, when)
            self.tick()
        else:
            raise AssertionError("the schedule never comes to rest")
        self.now = until

    @precondition(lambda self: self.polls)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        poll = self.polls.pop(data.draw(st.integers(0, len(self.polls) - 1)))
        if poll.multi:
            outcomes = {task_id: data.draw(st.sampled_from(OUTCOMES)) for task_id in ids(poll)}
        else:
            outcomes = {ids(poll)[0]: data.draw(st.sampled_from(OUTCOMES[:6]))}
        readings = {
            task_id: reading(task_id, outcome) if isinstance(outcome, str) else outcome
            for task_id, outcome in outcomes.items()
        }
        self.wake(self.schedule.succeeded(poll, readings, self.now))
        for watch in poll.watches:
            if outcomes[watch.task_id] in {"finished", "failed", "cancelled"}:
                assert not watch.waits
        self.tick()

    @precondition(lambda self: self.polls)
    @rule(data=st.data(), error=st.sampled_from(ERRORS))
    def fail(self, data: st.DataObject, error: PiAPIError) -> None:
        poll = self.polls.pop(data.draw(st.integers(0, len(self.polls) - 1)))
        before = {id(wait) for watch in poll.watches for wait in watch.waits if not wait.once}
        self.wake(self.schedule.failed(poll, error, self.now))
        if error in (FAULT, ERRORS[4]):  # passing: those who wait for more than a poll go on waiting
            assert before <= self.live.keys()
        if isinstance(error, AuthenticationError):
            assert not self.live
        self.schedule.newly_overdue(poll, self.now)
        self.tick()

    @rule(task=st.sampled_from(TASKS), family=st.sampled_from(FAMILIES), status=st.sampled_from(OUTCOMES[:6]))
    def observe(self, task: TaskId, family: Family[Any], status: str) -> None:
        kept = self.watches[family.name, task]
        watch = self.schedule.find(family, task) or (kept[-1] if kept else None)
        if watch is not None:
            self.wake(self.schedule.observe(watch, reading(task, status), self.now))
            self.tick()

    @rule()
    def close(self) -> None:
        self.wake(self.schedule.close(ClientClosed("x")))

        assert not self.live
        assert self.schedule.next_event(polls=True) == math.inf

    # -- what must hold

    def watched(self) -> list[Watch]:
        """Return the watches that are waited on."""
        return [wait.watch for wait in self.live.values()]

    def tick(self) -> None:
        """Do as the poller does."""
        queued = {
            id(watch): watch.queued_for
            for watch in self.watched()
            if not watch.polling and watch.queued_for < math.inf and not watch.poll_singly
        }
        for poll in self.schedule.due_polls(self.now, self.room - len(self.polls)):
            self.check(poll, queued)
            self.polls.append(poll)
        for wait in self.schedule.expire(self.now):
            watch = wait.watch
            self.wake([wait])

            assert wait.deadline == self.now
            if self.room == EVERYTHING:
                assert watch.polling or any(
                    wait.deadline - LAST_POLL_LEAD <= begun <= wait.deadline
                    for begun in self.began[id(watch)]
                )

    def check(self, poll: Poll, queued: dict[int, float]) -> None:
        assert 1 <= len(poll.watches) <= SIZE
        assert len(set(ids(poll))) == len(poll.watches)
        assert poll.multi is (len(poll.watches) > 1)
        under_way = {id(watch) for other in self.polls for watch in other.watches}
        for watch in poll.watches:
            assert watch.family is poll.family
            assert watch.waits
            assert id(watch) not in under_way
            assert not (poll.multi and (watch.poll_singly or poll.family is SINGLY))
            self.began[id(watch)].append(self.now)
        chosen = [queued.pop(id(watch), -math.inf) for watch in poll.watches]
        rest = [
            queued[id(watch)]
            for watch in self.watched()
            if watch.family is poll.family and id(watch) in queued
        ]
        if poll.multi and rest:
            assert max(chosen) <= min(rest)

    def wake(self, woken: list[Wait]) -> None:
        assert len({id(wait) for wait in woken}) == len(woken)
        for wait in woken:
            assert id(wait) not in self.gone
            assert self.live[id(wait)] is wait
            if not wait.over:  # rung for news
                assert wait.changes
            else:
                del self.live[id(wait)]
                self.gone.add(id(wait))

    @invariant()
    def nobody_is_lost(self) -> None:
        if not hasattr(self, "schedule"):
            return
        under_way = {id(watch) for poll in self.polls for watch in poll.watches}
        for wait in self.live.values():
            watch = wait.watch
            assert not wait.over
            assert self.schedule.find(watch.family, watch.task_id) is watch
            assert wait.deadline > self.now
            assert watch.polling is (id(watch) in under_way)
            if self.room == EVERYTHING and wait.once:
                assert watch.polling
        assert len(self.schedule) == len({(watch.family.name, watch.task_id) for watch in self.watched()})

    @invariant()
    def the_heaps_hold_little_that_is_stale(self) -> None:
        if not hasattr(self, "schedule"):
            return
        for queue in self.schedule._queues.values():
            assert len(queue.heap) <= 2 * len(self.schedule) + 65
        assert len(self.schedule._deadlines.heap) <= 2 * len(self.live) + 65

    def teardown(self) -> None:
        """Whoever waits is polled in the end, and woken when the task has ended."""
        if not hasattr(self, "schedule"):
            return
        for _ in range(200):
            for poll in self.polls:
                self.wake(succeed(self.schedule, poll, self.now, "finished"))
            self.polls.clear()
            if not self.live:
                break
            self.now = max(self.now, self.schedule.next_event(polls=True))
            assert self.now < math.inf
            self.tick()

        assert not self.live
        assert len(self.schedule) == 0
        assert self.schedule.next_event(polls=True) == math.inf


TestInterleavings = pytest.mark.storm(Interleavings.TestCase)
TestInterleavings.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
