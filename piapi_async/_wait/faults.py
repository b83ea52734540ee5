"""What goes wrong with polls, and when it is believed.  Pure."""

from __future__ import annotations

import math

from attrs import define

from ..errors import APIError, AuthenticationError, NotFoundError, PiAPIError, TransportError

NOT_FOUND_GRACE = 5.0
"""Seconds for which a host may deny a task before it is believed.

A new id can be invisible at first (observed).
"""

FAULT_WARNING_AFTER = 60.0
"""Seconds of unbroken faults after which the operator is warned and other refusals are believed."""


@define(eq=False, repr=False, slots=True)
class FaultRecord:
    """What has gone wrong with one task since the last poll that showed it, and what ended its waits, if that did."""

    fault: PiAPIError | None = None  # what the last poll failed with
    passing_faults: int = 0  # in a row; each makes the next poll later
    failing_since: float = math.inf
    warned: bool = False  # the operator has been
    refused_since: float | None = None  # when the host first refused to show the task
    poll_singly: bool = False  # a multi-fetch does not show it, or may be refused because of it
    error: PiAPIError | None = None  # what ended its waits

    def note(self, fault: PiAPIError | None, now: float) -> None:
        """Record a poll that did not show the task; no `fault`: its entry was merely missing."""
        self.fault = fault
        self.failing_since = min(self.failing_since, now)

    def note_missing(self, now: float) -> None:
        """Record a multi-fetch without the task: only a plain fetch tells whether the host knows it."""
        self.note(None, now)
        if self.refused_since is None:
            self.refused_since = now
        self.poll_singly = True

    def note_refusal(self, error: APIError, now: float) -> float:
        """Record that the host refused to show the task; return when that will be believed."""
        if self.refused_since is None:
            self.refused_since = now

        self.poll_singly = isinstance(error, NotFoundError)
        if isinstance(error, NotFoundError):
            return self.refused_since + NOT_FOUND_GRACE
        return self.refused_since + FAULT_WARNING_AFTER

    def begin_anew(self) -> None:
        """Forget passing faults, for a task that is waited for again; a refusal stays on record."""
        self.error = None
        self.failing_since = math.inf
        self.warned = False
        self.passing_faults = 0

    def warn(self, now: float) -> bool:
        """Return, once in a run of faults, whether the operator should be warned of it."""
        if self.warned:
            return False

        # An untrusted certificate may pass, as in a hotel's network, but somebody can do something
        # about it.
        untrusted = isinstance(self.fault, TransportError) and self.fault.untrusted
        self.warned = untrusted or now - self.failing_since >= FAULT_WARNING_AFTER
        return self.warned


@define(eq=False, repr=False, slots=True)
class KeyRefusals:
    """Whether the host refuses the API key, or only an edge's page says so."""

    since: float = math.inf

    def passed(self) -> None:
        """Record that a poll has succeeded."""
        self.since = math.inf

    def is_believed(self, error: PiAPIError, now: float) -> bool:
        """Return whether the key is refused.

        That takes the host's own words, or a minute in which no poll has succeeded.  An edge's page
        ("Just a moment…") has the same status, and passes.
        """
        if not isinstance(error, AuthenticationError):
            return False
        self.since = min(self.since, now)
        return bool(error.message) or now - self.since >= FAULT_WARNING_AFTER
