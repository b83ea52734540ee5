"""The loop that drives the schedule: one timer, a few looks in flight, no decision of its own.

There is no task that sleeps.  A timer calls `_tick`, which asks the schedule what is due, starts a task for each look,
rings those whose time is up, and sets the timer again.  While nobody waits there is no timer, and nothing to stop.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from attrs import define, field

from .._protocol.family import Family
from .._protocol.reading import is_known_status
from ..errors import PiAPIError, UnexpectedAnswer
from ..tasks import Task, TaskId
from .schedule import OVERDUE, Poll, PollSchedule, Sightings
from .watch import Wait, Watch

if TYPE_CHECKING:
    from .._calls.sender import Sender

logger = logging.getLogger("piapi_async")

_MOST_WORDS = 100
_ENOUGH_ENDS = 32  # to tell the share of those that webhooks tell of
_SOME = 0.05


@define(eq=False)
class Poller:
    """Serves all waits of one client, in its loop; at most `room` looks are in flight."""

    schedule: PollSchedule
    _sender: Sender
    _room: int
    _on_end: Callable[[Watch], None]
    _timer: asyncio.Handle | None = field(default=None, init=False)
    _due: float = field(default=math.inf, init=False)  # when it rings; not every loop's handles tell
    _looks: set[asyncio.Task[None]] = field(factory=set, init=False)
    _warned_at: float = field(default=-math.inf, init=False)
    _words: set[str] = field(factory=set, init=False)
    _doubted: bool = field(default=False, init=False)  # it was told that webhooks save little
    # Looks serve everybody, so they must not run in the context of whoever happened to wait first.
    _context: contextvars.Context = field(factory=contextvars.Context, init=False)

    def join(self, watch: Watch, timeout: float | None, *, changes: bool = False) -> tuple[Watch, Wait]:
        """Begin to wait: the waiter's woken (a future) rings at the end, at the timeout, at news with `changes`.

        A `timeout` of 0 or less waits for one look.
        """
        loop = asyncio.get_running_loop()
        now = loop.time()
        once = timeout is not None and timeout <= 0
        deadline = math.inf if timeout is None or once else now + timeout
        waiter = Wait(loop.create_future(), deadline, changes, once)
        watch = self.schedule.join(watch, waiter, now)
        self._arm()
        return watch, waiter

    def leave(self, watch: Watch, waiter: Wait) -> None:
        """Stop waiting."""
        self.schedule.leave(watch, waiter)
        self._arm()

    def seen(self, watch: Watch, task: Task[Any]) -> None:
        """Take in a sighting that no look of ours made."""
        now = asyncio.get_running_loop().time()
        waited_for = self.schedule.find(watch.family, watch.task_id)
        for known in {watch, waited_for or watch}:
            self._ring(self.schedule.seen(known, task, now))
        self._note_ends([watch])
        self._arm()

    def poll_now(self, watch: Watch) -> None:
        """Look at a task at once, because a webhook tells of its end."""
        self.schedule.poll_now(watch, asyncio.get_running_loop().time())
        self._arm()

    def told(self, watch: Watch, task: Task[Any]) -> None:
        """Take in what a webhook says of a task."""
        self._ring(self.schedule.told(watch, task, asyncio.get_running_loop().time()))
        self._note_ends([watch])
        self._arm()

    def told_late(self, family: Family[Any], task_id: TaskId) -> bool:
        """Take in that a webhook tells of an end which a look had just seen; return whether that was so."""
        return self.schedule.told_late(family, task_id, asyncio.get_running_loop().time())

    async def close(self, error: PiAPIError) -> None:
        """End every wait with `error`, drop the looks in flight."""
        self._ring(self.schedule.close(error))
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)
        self._arm()

    def _arm(self) -> None:
        when = self.schedule.next_event(looks=len(self._looks) < self._room)
        if self._timer is not None:
            if self._due == when:
                return
            self._timer.cancel()
        self._due, self._timer = when, None
        if when < math.inf:
            self._timer = asyncio.get_running_loop().call_at(when, self._tick, context=self._context)

    def _tick(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for look in self.schedule.take(now, self._room - len(self._looks)):
            task = loop.create_task(self._look(look), name=f"piapi_async look at {len(look.watches)}")
            self._looks.add(task)
            task.add_done_callback(self._looked)
        self._ring(self.schedule.expire(now))
        self._arm()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looks.discard(task)
        self._arm()

    async def _look(self, look: Poll) -> None:
        loop = asyncio.get_running_loop()
        try:
            sightings = await self._ask(look)
            self._note_words(sightings)
            woken = self.schedule.answered(look, sightings, loop.time())
            self._note_ends(look.watches)
        except PiAPIError as error:
            woken = self.schedule.failed(look, error, loop.time())
            logger.debug("a look at %d tasks failed: %s", len(look.watches), error)
        except Exception as error:
            logger.exception("a look failed in a way that it never should; still waiting")
            woken = self.schedule.failed(look, UnexpectedAnswer(repr(error)), loop.time())
        self._warn(self.schedule.overdue(look, loop.time()))
        self._note_trust()
        self._ring(woken)

    async def _ask(self, look: Poll) -> Sightings:
        family = look.family
        ids = [watch.task_id for watch in look.watches]
        if look.multi and family.fetch_many is not None:
            return await self._sender.attempt(family.fetch_many(ids))
        return {ids[0]: await self._sender.attempt(family.fetch(ids[0]))}

    def _warn(self, overdue: list[Watch]) -> None:
        """Tell the operator of an outage once a minute, however many tasks are waited for."""
        now = asyncio.get_running_loop().time()
        if not overdue or now - self._warned_at < OVERDUE:
            return
        self._warned_at = now
        trouble = overdue[0].troubled()
        fault = trouble.fault
        logger.warning(
            "no readable answer about task %s%s, still waiting for %d: %s",
            overdue[0].task_id,
            " for a minute" if now - trouble.failing_since >= OVERDUE else "",
            len(self.schedule),
            "the host does not show it" if fault is None else fault,
        )

    def _note_trust(self) -> None:
        """Tell the operator, once, that webhooks save little here."""
        trust = self.schedule.trust
        if self._doubted or trust.ends < _ENOUGH_ENDS or trust.relied_on:
            return
        self._doubted = True
        logger.log(
            logging.INFO if trust.share > _SOME else logging.WARNING,
            "webhooks have told this client of %.0f %% of the ends of its tasks (several processes behind one URL, or "
            "deliveries that are lost); it looks for the others as if there were none",
            100 * trust.share,
        )

    def _note_ends(self, watches: Iterable[Watch]) -> None:
        for watch in watches:
            if watch.ended:
                self._on_end(watch)

    def _note_words(self, sightings: Sightings) -> None:
        """Tell the operator, once per word, of a status that nobody has heard of: it is taken for "still waiting"."""
        for task in sightings.values():
            if not isinstance(task, Task) or is_known_status(task.status) or task.status in self._words:
                continue
            if len(self._words) < _MOST_WORDS:  # a host that makes up new ones all the time is told of enough
                self._words.add(task.status)
                logger.warning("unknown status %r of task %s: taken for waiting", task.status, task.task_id)

    @staticmethod
    def _ring(waiters: Iterable[Wait]) -> None:
        for waiter in waiters:
            if not waiter.woken.done():
                waiter.woken.set_result(None)
