"""When a task is polled next, and what its end teaches about the others of its kind.  Pure.

It joins what is known of durations, of progress and of webhooks; `PollPolicy` has the arithmetic.
"""

from __future__ import annotations

from random import Random
from typing import Any

from attrs import define

from .._protocol.family import Family
from .._protocol.kinds import Kind
from ..policy import USUAL_CAUTION, PollPolicy
from ..tasks import TaskState, Usual, look_into
from .durations import KindDurations, Kinds
from .trust import WebhookTrust
from .watch import NEVER, AnyTask, Watch

_ROUGHLY = 1.5  # intervals: an end between two polls so far apart was not sought just then
_ROUGH = 0.5  # seconds; hosts tell times in whole ones, which are no better than two looks so close together


@define(eq=False, repr=False)
class Timing:
    """The times of the polls of one client."""

    policy: PollPolicy
    rng: Random
    trust: WebhookTrust
    kinds: Kinds

    def durations_of(self, family: Family[Any], kind: Kind) -> KindDurations:
        """Return what is known of how long tasks of a kind take."""
        return self.kinds.of(family.name, kind, self.policy.guess)

    def needs_durations(self, *, has_webhook: bool) -> bool:
        """Return whether the polls of a task depend on how long its kind takes; else nothing is learned of it."""
        return has_webhook or not self.policy.is_plain

    # -- the next poll, in seconds from now --------------------------------------------------------

    def first(self, watch: Watch, now: float, *, shared: bool) -> float:
        """Return the seconds from a task's submission to its first poll; `shared` as for `next`."""
        caution = USUAL_CAUTION
        if watch.durations is not None:
            caution = watch.durations.caution
        usual = self._usual(watch, now)
        seconds = self.policy.next_poll(self.rng, age=0.0, usual=usual, caution=caution, shared=shared)

        if watch.has_webhook and self.trust.relied_on:  # until then its first poll is as without one
            return self._put_off(watch, seconds, 0.0, usual)
        return seconds

    def soon(self, watch: Watch, now: float, *, looked_at: bool = False) -> float:
        """Return the seconds to the next poll of a task, whatever its age."""
        usual = self._usual(watch, now)
        return self.policy.next_poll(self.rng, usual=usual, looked_at=looked_at)

    def next(self, watch: Watch, task: AnyTask, now: float, *, shared: bool) -> float:
        """Take in that a task has not ended; return the seconds to its next poll.

        `shared` tells that others are polled by the same requests.
        """
        age, pace = watch.measure(task, now)
        durations, caution = watch.durations, USUAL_CAUTION
        if durations is None and self.needs_durations(has_webhook=watch.has_webhook):
            kind = watch.family.kind(look_into(task))
            durations = watch.durations = self.durations_of(watch.family, kind)
        if durations is not None:
            caution = durations.caution
            if watch.paced_from == now and task.state is TaskState.WAITING:  # it has not begun yet
                durations.begun(watch, now)

        usual = self._usual(watch, now)
        seconds = self.policy.next_poll(
            self.rng,
            age=age,
            pace=pace,
            usual=usual,
            caution=caution,
            looked_at=any(wait.changes for wait in watch.waits),
            shared=shared,
        )
        if watch.has_webhook and not watch.end_reported:
            seconds = self._put_off(watch, seconds, now - watch.paced_from, usual)
        elif watch.has_webhook and durations is not None:
            durations.put_off(watch, 1.0)
        watch.end_reported_at = NEVER  # a report is refuted: it was too early, or forged
        return seconds

    def _usual(self, watch: Watch, now: float) -> Usual | None:
        """Return how long tasks of its kind take; None if that is not known, or nothing depends on it."""
        if watch.durations is None:
            return None
        return watch.durations.usual(now)

    def _put_off(self, watch: Watch, seconds: float, age: float, usual: Usual | None) -> float:
        """Return a longer time to a task's next poll, as far as webhooks are trusted to report the end.

        There is always a next poll: a webhook that is lost does not come again.
        """
        longest = self.policy.safety_net(age, usual)
        put_off = max(seconds, min(seconds * self.trust.patience, longest))

        if watch.durations is not None:
            watch.durations.put_off(watch, put_off / seconds)
        return put_off

    # -- what an end teaches -----------------------------------------------------------------------

    def learn(self, watch: Watch, now: float, *, reported: bool) -> bool:
        """Take in that a task has ended; return whether its kind now takes another time than before."""
        durations, task = watch.durations, watch.task
        if durations is None or task is None or not durations.counts(watch):
            return False

        earliest = now
        if not reported:
            earliest = max(watch.observed_at, watch.begun_at)
        told, between = None, now - earliest
        if between > _ROUGH and between > _ROUGHLY * self.policy.interval:  # the host may know better
            began, ended = task.started_at, task.ended_at
            if began is not None and ended is not None:
                told = (ended - began).total_seconds()

        if not reported and not self.policy.is_plain and watch.polled_at > earliest:
            # A slow network makes every end late, and caution would not help.
            slowness = now - watch.polled_at
            durations.judge(watch, earliest, now, self.policy.in_time, slowness, paced=watch.paced)
        return durations.ended(watch, earliest, now, told=told)
