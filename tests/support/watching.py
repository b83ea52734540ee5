"""An observer that remembers what it was told."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

from piapi_async.observe import Event, LedgerWritten, PollMade

E = TypeVar("E", bound=Event)


class Recorder:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """Return the only event of a kind."""
        [event] = self.of(kind)
        return event

    @property
    def story(self) -> list[str]:
        """The names of the events, but for polls and commits, of which there are many."""
        return [
            type(event).__name__ for event in self.events if not isinstance(event, (PollMade, LedgerWritten))
        ]

    @property
    def counts(self) -> Counter[str]:
        return Counter(type(event).__name__ for event in self.events)
