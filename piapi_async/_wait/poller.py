"""The loop that drives the schedule: one timer, a few polls in flight, no decision of its own.

No task sleeps.  A timer calls `_tick`, which asks the schedule what is due, starts a task for each
poll, wakes the waits whose time is up, and sets the timer again.  While there are no waits there is
no timer, and nothing to stop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define, field

from .._protocol.family import Family
from .._protocol.reading import is_known_status
from ..errors import PiAPIError, TransportError, UnexpectedAnswer
from ..observe._emitter import Events
from ..tasks import Task, TaskId, TaskState
from .faults import FAULT_WARNING_AFTER
from .schedule import PollSchedule
from .watch import Poll, Readings, Wait, Watch

if TYPE_CHECKING:
    from .._calls.sender import Sender

_MOST_UNKNOWN_STATUSES = 100  # that are logged, each once: a host may make up new ones all the time
_ENOUGH_ENDS = 32  # to speak of the share of them that webhooks report
_SMALL_SHARE = 0.05


States: TypeAlias = Sequence[TaskState | None] | None
"""The states of some watches before a reading; None if nobody listens."""


@define(eq=False, repr=False)
class Poller:
    """Serves all waits of one client, in its event loop; at most `limit` polls are in flight.

    `on_end` is called with each watch whose task has ended, and may be called again.
    """

    schedule: PollSchedule
    _sender: Sender
    _limit: int
    _on_end: Callable[[Watch], None]
    _timer: asyncio.Handle | None = field(default=None, init=False)
    _timer_at: float = field(default=math.inf, init=False)  # not every loop's handles tell
    _polls: set[asyncio.Task[None]] = field(factory=set, init=False)
    _warned_at: float = field(default=-math.inf, init=False)
    _unknown_statuses: set[str] = field(factory=set, init=False)
    _share_logged: bool = field(default=False, init=False)
    # A poll serves every wait, so it must not run in the context of the caller who waited first.
    _context: contextvars.Context = field(factory=contextvars.Context, init=False)

    # -- waits -------------------------------------------------------------------------------------

    def start(self, watch: Watch, timeout: float | None, *, changes: bool = False) -> Wait:
        """Begin to wait for a task; the wait's `watch` is the one to read from then on.

        Its `woken`, a future, is resolved at the end, after `timeout` seconds, or with `changes` at
        any news.  A `timeout` of 0 or less waits for one poll.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        once, deadline = False, math.inf
        if timeout is not None and timeout <= 0:
            once = True
        elif timeout is not None:
            deadline = now + timeout

        woken = loop.create_future()
        wait = self.schedule.start(watch, woken, now, deadline=deadline, changes=changes, once=once)
        watch = wait.watch
        if not watch.waits:  # the task had ended, so that nothing has changed here
            self._wake([wait])
        elif watch.queued_for < self._timer_at or deadline < self._timer_at or watch.has_webhook:
            self._arm()  # whoever has a webhook may have brought forward the polls of others
        return wait

    def stop(self, wait: Wait) -> None:
        """Stop waiting; does nothing if the wait is over."""
        if self.schedule.stop(wait):
            self._arm()

    async def close(self, error: PiAPIError) -> None:
        """End every wait with `error`, and drop the polls in flight."""
        self._wake(self.schedule.close(error))

        polls = list(self._polls)
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
        self._arm()

    # -- what is known from elsewhere --------------------------------------------------------------

    def observe(self, watch: Watch, task: Task[Any]) -> Watch:
        """Take in a reading that no poll made; return the watch to read from then on."""
        watch = self.schedule.current(watch)
        before = self._states([watch])
        self._take_in(watch, self.schedule.observe(watch, task, _now()), before)
        return watch

    def reported(self, watch: Watch, task: Task[Any]) -> None:
        """Take in what a webhook shows of a task."""
        before = self._states([watch])
        self._take_in(watch, self.schedule.reported(watch, task, _now()), before)

    def poll_now(self, watch: Watch) -> None:
        """Poll a task at once, because a webhook reports its end."""
        self.schedule.poll_now(watch, _now())
        self._arm()

    def reported_late(self, family: Family[Any], task_id: TaskId) -> bool:
        """Take in that a webhook reports an end; return whether a poll had just observed it."""
        return self.schedule.reported_late(family, task_id, _now())

    def reported_early(self, task_id: TaskId) -> None:
        """Remember that a webhook has reported an end for which nobody waits."""
        self.schedule.reported_early(task_id)

    def _take_in(self, watch: Watch, woken: list[Wait], before: States) -> None:
        self._wake(woken)
        self._note([watch], before)
        self._arm()

    # -- the timer ---------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Set the timer to the next event, if that has changed."""
        when = self.schedule.next_event(polls=len(self._polls) < self._limit)
        if self._timer is not None:
            if self._timer_at == when:
                return
            self._timer.cancel()

        self._timer_at = when
        self._timer = None
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when, self._tick, context=self._context)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, math.inf
        loop = asyncio.get_running_loop()
        now = loop.time()
        for poll in self.schedule.due_polls(now, self._limit - len(self._polls)):
            task = loop.create_task(self._poll(poll), name=f"piapi_async poll of {len(poll.watches)}")
            self._polls.add(task)
            task.add_done_callback(partial(self._polled, poll))

        self._wake(self.schedule.expire(now))
        self._arm()

    def _polled(self, poll: Poll, task: asyncio.Task[None]) -> None:
        self._polls.discard(task)
        if task.cancelled():  # by `close`, or by somebody who ends the tasks of others: no wait may be lost
            error = TransportError("the poll was cancelled", sent=True)
            self._wake(self.schedule.failed(poll, error, _now()))
        self._arm()

    # -- one poll ----------------------------------------------------------------------------------

    async def _poll(self, poll: Poll) -> None:
        began = _now()
        try:
            readings = await self._send(poll)
            self._note_unknown_statuses(poll.family, readings)
            before = self._states(poll.watches)
            woken = self.schedule.succeeded(poll, readings, _now())
            if before is not None:
                self._tell_poll(poll, began)
            self._note(poll.watches, before)
        except PiAPIError as error:
            woken = self.schedule.failed(poll, error, _now())
            self._tell_poll(poll, began, error)
        except Exception as error:  # noqa: BLE001 - an error in a user's family, or ours, must end no wait
            text = "a poll failed in a way that it never should; still waiting"
            self._events.notice(logging.ERROR, text, exception=error, error=type(error).__name__)
            woken = self.schedule.failed(poll, UnexpectedAnswer(repr(error)), _now())

        self._warn(self.schedule.newly_overdue(poll, _now()))
        self._note_trust()
        self._wake(woken)

    async def _send(self, poll: Poll) -> Readings:
        family = poll.family
        ids = [watch.task_id for watch in poll.watches]
        if poll.multi and family.fetch_many is not None:
            return await self._sender.attempt(family.fetch_many(ids))
        return {ids[0]: await self._sender.attempt(family.fetch(ids[0]))}

    @staticmethod
    def _wake(waits: Iterable[Wait]) -> None:
        for wait in waits:
            if not wait.woken.done():
                wait.woken.set_result(None)

    # -- what observers are told -------------------------------------------------------------------

    @property
    def _events(self) -> Events:
        return self._sender.events

    def _tell_poll(self, poll: Poll, began: float, error: PiAPIError | None = None) -> None:
        ended = sum(watch.ended for watch in poll.watches)
        self._events.polled(poll.family.name, len(poll.watches), _now() - began, ended=ended, error=error)

    def _states(self, watches: Sequence[Watch]) -> States:
        """Return the states that watches are in before a reading, None if nobody listens."""
        if not self._events.heard_in_detail:
            return None
        return [None if watch.task is None else watch.task.state for watch in watches]

    def _note(self, watches: Sequence[Watch], before: States) -> None:
        """Tell of the tasks whose state has changed, and hand on those that have ended."""
        if before is not None:
            for watch, previous in zip(watches, before, strict=True):
                self._tell_change(watch, previous)

        for watch in watches:
            if watch.ended:
                self._on_end(watch)

    def _tell_change(self, watch: Watch, previous: TaskState | None) -> None:
        task = watch.task
        if task is None or task.state is previous or task.state.terminal:
            return
        self._events.state_changed(watch.subject, watch.family.name, task, previous)

    # -- what the operator is told -----------------------------------------------------------------

    def _warn(self, overdue: list[Watch]) -> None:
        """Warn of an outage once a minute, however many tasks are waited for."""
        now = _now()
        if not overdue or now - self._warned_at < FAULT_WARNING_AFTER:
            return

        self._warned_at = now
        watch = overdue[0]
        record = watch.faults()
        how_long = ""
        if now - record.failing_since >= FAULT_WARNING_AFTER:
            how_long = " for a minute"
        what = record.fault or "the host does not show it"
        others = len(self.schedule)
        text = f"no readable answer about task {watch.task_id}{how_long}, still waiting for {others}: {what}"
        self._warn_of(watch.task_id, watch.family.name, text)

    def _warn_of(self, task_id: TaskId, family: str, text: str) -> None:
        self._events.notice(logging.WARNING, text, task_id=task_id, family=family)

    def _note_trust(self) -> None:
        """Say, once, that webhooks save little here."""
        trust = self.schedule.trust
        if self._share_logged or trust.ends < _ENOUGH_ENDS or trust.relied_on:
            return

        self._share_logged = True
        level = logging.INFO
        if trust.share <= _SMALL_SHARE:
            level = logging.WARNING
        self._events.notice(
            level,
            f"webhooks have reported {100 * trust.share:.0f} % of the ends of this client's tasks "
            "to it (several processes behind one URL, or lost deliveries); it polls for the "
            "others as if there were none",
        )

    def _note_unknown_statuses(self, family: Family[Any], readings: Readings) -> None:
        """Warn, once for each, of statuses that are not known; they are taken for "still waiting"."""
        for task in readings.values():
            if not isinstance(task, Task) or task.state is not TaskState.WAITING:
                continue
            if is_known_status(task.status):
                continue
            logged = self._unknown_statuses
            if task.status in logged or len(logged) >= _MOST_UNKNOWN_STATUSES:
                continue
            logged.add(task.status)
            text = f"unknown status {task.status!r} of task {task.task_id}: taken for waiting"
            self._warn_of(task.task_id, family.name, text)


def _now() -> float:
    return asyncio.get_running_loop().time()
