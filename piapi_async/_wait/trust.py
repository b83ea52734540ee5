"""How far a client may rely on its webhooks: by the share of recent ends that it was told of.  Pure.

Behind a balancer with N processes each is told of one end in N; deliveries may also be lost, or the URL be out of
reach.  So the share is measured and not assumed, and until it is known polling goes on as without webhooks.  They are
to make waiting cheaper, never later: the promise that 95 % of ends are noticed within `PollPolicy.delay` holds
whatever the share is.
"""

from __future__ import annotations

import math

from attrs import define

_PUNCTUAL = 0.95  # of the ends, which `PollPolicy.delay` is about
_LATE = 1.0 - _PUNCTUAL

_MEMORY = 64.0  # ends, about: older ones count ever less
_FADING = 1.0 - 1.0 / _MEMORY

# Ends counted as missed from the start.  Eight that were told, and none that was missed, are enough to be relied on:
# where two processes share a URL, that happens once in 256 times.
_PRIOR = 0.39

# Where most ends are told of, three misses in a row come once in a thousand times; so they mean that something has
# changed, and what was seen before is worth nothing.
_CHANGED = 3
_MOSTLY = 0.9


@define
class WebhookTrust:
    """Counts the ends of tasks that webhooks should tell of: those that were told in time, and those that were not."""

    _told: float = 0.0
    _untold: float = 0.0
    _in_a_row: int = 0  # ends that were missed since the last that was told

    def confirmed(self) -> None:
        """Take note of an end that a webhook has told of."""
        self._told = self._told * _FADING + 1.0
        self._untold *= _FADING
        self._in_a_row = 0

    def missed(self) -> None:
        """Take note of an end that no webhook has told of, or too late."""
        self._told *= _FADING
        self._untold = self._untold * _FADING + 1.0
        self._in_a_row += 1
        if self._in_a_row == _CHANGED and self.share > _MOSTLY:  # it is not what it was
            self._told = 0.0

    @property
    def ends(self) -> float:
        """How many ends this is known from; older ones count less."""
        return self._told + self._untold

    @property
    def share(self) -> float:
        """The share of ends that are told of, 0..1, cautiously estimated."""
        return self._told / (self._told + self._untold + _PRIOR)

    @property
    def relied_on(self) -> bool:
        """Whether so many ends are told of that looking for the others may be left to a safety net."""
        return self.share >= _PUNCTUAL

    @property
    def patience(self) -> float:
        """How much longer than usual a look may be put off; inf where webhooks are relied on.

        Usually looks find 95 % of the ends within the delay.  Of a share of ends one is told at once, so that looks may
        find fewer of the others in time: 5 % of all ends are more than 5 % of these.
        """
        untold = 1.0 - self.share
        if untold <= _LATE:
            return math.inf
        return _PUNCTUAL / (1.0 - _LATE / untold)
