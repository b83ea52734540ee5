"""What may go wrong at the host, as values, in words: with a create, with reads, with the history."""

from __future__ import annotations

from attrs import frozen


@frozen
class CreatePlan:
    """What happens to one create: the answer, and how its bytes travel."""

    answer: str = "accepts"
    delay: float = 0.2
    travel: str = "whole"
    at: float = 0.5
    """Where in the answer it is split or cut, as a share; the gap of a repetition in seconds."""

    @property
    def words(self) -> str:
        """The plan as a part of a sentence."""
        how = {
            "whole": "",
            "split": ", split",
            "twice": ", sent twice",
            "cut": f", cut at {self.at:.0%}",
            "dropped": ", lost",
            "reset before": "; reset before the host has read it",
            "stalled": ", never sent",
            "408 after": ", a 408 follows unasked",
        }[self.travel]
        slow = f" after {self.delay:g} s" if self.delay > 1 else ""
        return f"the host {self.answer}{slow}{how}"


TRAVELS = ("whole", "split", "twice", "cut", "dropped", "reset before", "stalled", "408 after")

WEATHERS = (
    "502 pages",
    "403 pages",
    "404 pages",
    "own 500s",
    "resets",
    "stalls",
    "cut answers",
    "answers sent twice",
    "null entries",
    "unreadable entries",
    "swapped entries",
    "no multi-fetch",
    "junk",
)
"""What may be wrong with reads for a while."""

LASTING = ("null entries", "unreadable entries", "swapped entries", "no multi-fetch")
"""What may stay wrong, because a plain fetch still tells."""


HISTORIES = ("prompt", "late", "at the end", "gaps", "lies", "hides inputs", "none")
"""How well a host keeps its history: rows come at once, late, with the task's end, not all, or beside invented ones."""
