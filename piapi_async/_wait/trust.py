"""How far a client may rely on webhooks: by the share of recent ends they reported to it.  Pure.

Behind a balancer with N processes each is told of one end in N; deliveries may also be lost, or the
URL be out of reach.  So the share is measured, not assumed, and until it is known polling goes on
as without webhooks.  Webhooks make waiting cheaper, never later: whatever the share is, 95 % of
ends are noticed within `PollPolicy.delay`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TypeAlias

from attrs import define, field

from ..tasks import TaskId

FamilyTask: TypeAlias = tuple[str, TaskId]
"""A task, by its family's name and its id."""

_PUNCTUAL = 0.95  # the share of ends that `PollPolicy.delay` speaks of
_LATE = 1.0 - _PUNCTUAL

_MEMORY = 64.0  # ends, roughly: older ones count less and less
_FADING = 1.0 - 1.0 / _MEMORY

# Ends counted as missed from the start.  Eight that were reported, and none that was missed, are
# enough to be relied on: where two processes share a URL, that happens once in 256 times.
_PRIOR = 0.39

# Where most ends are reported, three misses in a row happen once in a thousand times.  So they mean
# that something has changed, and that earlier ends say nothing any more.
_CHANGED = 3
_MOSTLY = 0.9

_REMEMBERED = 10_000  # ends that were reported while nobody waited


@define(eq=False, repr=False)
class WebhookTrust:
    """Counts the ends that webhooks should report: reported in time, or missed."""

    _reported: float = 0.0
    _missed: float = 0.0
    _missed_in_a_row: int = 0

    def confirmed(self) -> None:
        """Count an end that a webhook reported."""
        self._reported = self._reported * _FADING + 1.0
        self._missed *= _FADING
        self._missed_in_a_row = 0

    def missed(self) -> bool:
        """Count an end that no webhook reported in time; return whether that ends the reliance."""
        relied_on = self.relied_on
        self._reported *= _FADING
        self._missed = self._missed * _FADING + 1.0
        self._missed_in_a_row += 1

        if self._missed_in_a_row == _CHANGED and self.share > _MOSTLY:
            self._reported = 0.0
        return relied_on and not self.relied_on

    @property
    def ends(self) -> float:
        """The number of ends that this is known from; older ones count less."""
        return self._reported + self._missed

    @property
    def share(self) -> float:
        """The share of ends that are reported, 0..1, cautiously estimated."""
        return self._reported / (self._reported + self._missed + _PRIOR)

    @property
    def relied_on(self) -> bool:
        """Whether so many ends are reported that a safety net of rare polls is enough for the others."""
        return self.share >= _PUNCTUAL

    @property
    def patience(self) -> float:
        """The factor by which a poll may be put off; inf if webhooks are relied on.

        Usually polls find 95 % of the ends within the delay.  If a share of the ends is reported at
        once, polls may find fewer of the others in time: 5 % of all ends are more than 5 % of
        these.
        """
        unreported = 1.0 - self.share
        if unreported <= _LATE:
            return math.inf
        return _PUNCTUAL / (1.0 - _LATE / unreported)


@define(eq=False, repr=False)
class EndReports:
    """What webhooks have reported, beside what polls have observed: the two may cross.

    An end that should be reported is judged once: its webhook was in time, or it is missed.  A poll
    may find an end a little sooner than a webhook that is in time; `grace` is how many seconds that
    may be.
    """

    trust: WebhookTrust
    grace: float
    # Ends that a poll has observed and no webhook has reported, by when they count as missed;
    # soonest first.
    _awaited: dict[FamilyTask, float] = field(factory=dict, init=False)
    # Ends that were reported while nobody waited for the task; oldest first.
    _early: OrderedDict[TaskId, None] = field(factory=OrderedDict, init=False)

    def end_observed(self, task: FamilyTask, now: float, *, reported: bool) -> bool:
        """Take in an end; return whether it ends the reliance on webhooks.

        `reported` tells that its webhook came first.
        """
        if reported:
            self.trust.confirmed()
            return False
        if self.trust.relied_on:  # polls are so rare that this end is old
            return self.trust.missed()

        self._awaited[task] = now + self.grace
        return False

    def reported_late(self, task: FamilyTask) -> bool:
        """Take in that a webhook reports an end; return whether a poll had just observed it."""
        if self._awaited.pop(task, None) is None:
            return False
        self.trust.confirmed()
        return True

    def judge(self, now: float) -> bool:
        """Count overdue ends as missed; return whether that ends the reliance on webhooks."""
        lost = False
        while self._awaited:
            task, until = next(iter(self._awaited.items()))
            if until > now:
                break
            del self._awaited[task]
            lost = self.trust.missed() or lost
        return lost

    def reported_early(self, task_id: TaskId) -> None:
        """Remember an end that was reported while nobody waited for the task; the oldest are forgotten."""
        self._early[task_id] = None
        if len(self._early) > _REMEMBERED:
            self._early.popitem(last=False)

    def take_early(self, task_id: TaskId) -> bool:
        """Return, once, whether the end of a task was reported while nobody waited for it."""
        if task_id not in self._early:
            return False
        del self._early[task_id]
        return True
