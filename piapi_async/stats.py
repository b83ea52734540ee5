"""What a client has done so far, in numbers.  Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from attrs import define, field, frozen


@frozen(kw_only=True)
class Stats:
    """A snapshot of what a client has done; all figures but the first two only grow."""

    waiting: int
    """Tasks that are waited for now."""
    submitting: int
    """Submissions under way now."""
    requests: Mapping[str, int]
    """Requests attempted, by kind: ``Reroll``, ``Fetch``, ``MultiFetch``, …, even if never sent."""
    polls: int
    """Requests made for waits, plain fetches and multi-fetches."""
    tasks_polled: int
    """Tasks that these asked for; a task counts once per poll."""
    ended: int
    """Tasks whose end was observed."""
    retries: int
    """Calls that were repeated because they had no effect, reads included."""
    rate_limited: int
    """Times a host asked the client to slow down."""
    put_off: int
    """Submissions among them: the host was busy, or its queue was full."""
    poll_faults: int
    """Polls that failed with a passing fault."""
    foreign_deliveries: int
    """Valid webhook deliveries about tasks of other clients, which share the URL and the secret."""
    recovered: int
    """Lost submissions whose task was found in the host's history."""
    detection_seconds: float
    """Seconds from ends to their detection, summed; each is estimated as half the poll interval."""

    @property
    def ids_per_request(self) -> float:
        """Tasks per poll on average; NaN before the first."""
        return _ratio(self.tasks_polled, self.polls)

    @property
    def requests_per_task(self) -> float:
        """Polls per task that ended: what waiting costs; NaN before the first end."""
        return _ratio(self.polls, self.ended)

    @property
    def detection_delay(self) -> float:
        """Mean seconds from an end to its detection, estimated; NaN before the first end."""
        return _ratio(self.detection_seconds, self.ended)


def _ratio(amount: float, number: int) -> float:
    if not number:
        return math.nan
    return amount / number


@define(eq=False, repr=False)
class Counters:
    """What the parts of a client count; `Stats` is the copy for users."""

    requests: Counter[str] = field(factory=Counter)
    polls: int = 0
    tasks_polled: int = 0
    ended: int = 0
    retries: int = 0
    rate_limited: int = 0
    put_off: int = 0
    poll_faults: int = 0
    foreign_deliveries: int = 0
    recovered: int = 0
    detection_seconds: float = 0.0
