"""What a client has done so far, in numbers.  Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from attrs import define, field, frozen


@frozen(kw_only=True)
class Stats:
    """A snapshot of `PiAPI.stats`; all but the first two only grow."""

    waiting: int
    """Tasks that are waited for now."""
    submitting: int
    """Submits under way now."""
    requests: Mapping[str, int]
    """Requests attempted, by kind: ``Reroll``, ``Fetch``, ``MultiFetch``, …  Those that never left are counted too."""
    polls: int
    """Requests made for the waits (plain and multi-fetches)."""
    tasks_polled: int
    """Tasks asked for in these; one task is counted at each look."""
    ended: int
    """Tasks whose end was seen."""
    retries: int
    """Calls that were made again because nothing had happened, reads included."""
    rate_limited: int
    """Times a host asked the client to slow down."""
    poll_faults: int
    """Looks that failed in a way that passes."""
    foreign_deliveries: int
    """Valid webhook deliveries about tasks that are not this client's: other processes share its URL and secret."""
    detection_seconds: float
    """Seconds between a task's end and its detection, summed up: estimated as half the time since the look before."""

    @property
    def ids_per_request(self) -> float:
        """Tasks asked for in one look on average; NaN before the first."""
        return self.tasks_polled / self.polls if self.polls else math.nan

    @property
    def requests_per_task(self) -> float:
        """Looks per task that ended: what waiting costs; NaN before the first end."""
        return self.polls / self.ended if self.ended else math.nan

    @property
    def detection_delay(self) -> float:
        """Mean seconds between a task's end and its detection, estimated; NaN before the first end."""
        return self.detection_seconds / self.ended if self.ended else math.nan


@define
class Counters:
    """What the parts of a client count; `Stats` is a copy for the user."""

    requests: Counter[str] = field(factory=Counter)
    polls: int = 0
    tasks_polled: int = 0
    ended: int = 0
    retries: int = 0
    rate_limited: int = 0
    poll_faults: int = 0
    foreign_deliveries: int = 0
    detection_seconds: float = 0.0
