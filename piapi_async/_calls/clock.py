"""What time it is at the host, from the `Date` headers of its responses."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime

from attrs import define, field

from .throttle import now


@define(eq=False, repr=False)
class HostClock:
    """The host's clock, told from the latest response, whatever the clock of this machine says.

    Between responses the loop's clock measures, which nobody sets.  `speed` is how many seconds pass
    there in one of ours: 1, but for an emulator that runs faster.
    """

    speed: float = 1.0
    _date: str = field(default="", init=False)
    _noted_at: float = field(default=0.0, init=False)  # time of the loop
    _read: tuple[str, float | None] = field(default=("", None), init=False)
    """A header that was read last, and its Unix time."""

    def note(self, date: str | None) -> None:
        """Take in the `Date` header of a response that arrives now; it is read when it is needed."""
        if date:
            self._date = date
            self._noted_at = now()

    def at(self, moment: float) -> float | None:
        """Return the host's Unix time at a time of the loop, None if no response has told it."""
        date = self._date
        if date != self._read[0]:
            self._read = (date, _unix_time(date))

        noted = self._read[1]
        if noted is None:
            return None
        return noted + (moment - self._noted_at) * self.speed

    def offset(self) -> float | None:
        """Return the seconds by which the host's clock is ahead of this machine's, None if unknown."""
        host = self.at(now())
        if host is None:
            return None
        return host - time.time()


def _unix_time(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
