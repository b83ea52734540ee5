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


PASSING_FATES = ("split", "cut off", "chunks cut off", "shorter than announced", "reset", "503", "429")
"""What may happen to a file on its way, and is no reason to give it up."""

EARLY_FATES = ("403", "404", "an HTML page", "nothing")
"""What may come in the place of a file that is too young to be known everywhere."""

LAST_FATES = ("403", "404", "410", "an HTML page", "nothing")
"""What comes for ever in the place of a file that is gone."""


@frozen
class FilePlan:
    """What happens to the pictures of a task: to `picture` (None: to each) these fates, and then `at_last`."""

    fates: tuple[str, ...] = ()
    at_last: str = "whole"
    picture: int | None = None
    resumes: bool = True
    """Whether a file that broke off can be gone on with."""
    changes: bool = False
    """Whether a file that was begun is another when it is asked for again."""
    lies: int = 0
    """Bytes by which a file that is gone on with is sent from too early a place, and says so."""

    def fates_of(self, number: int) -> tuple[str, ...]:
        """Return what happens to the first requests for a picture."""
        return self.fates if self.picture in {None, number} else ()

    @property
    def is_smooth(self) -> bool:
        """Whether all is well."""
        return not self.fates and self.at_last == "whole"

    @property
    def must_arrive(self) -> bool:
        """Whether nothing is wrong that is a reason to give a file up."""
        return self.at_last == "whole" and all(fate in PASSING_FATES for fate in self.fates)

    @property
    def words(self) -> str:
        """The plan as a part of a sentence."""
        notes = [*self.fates, f"for ever {self.at_last}"] if self.at_last != "whole" else [*self.fates]
        notes += ["cannot be resumed"] * (not self.resumes)
        notes += ["changes"] * self.changes
        notes += [f"is resumed {self.lies} bytes too early"] * bool(self.lies)
        which = "each picture" if self.picture is None else f"picture {self.picture}"
        return f"{which}: {', '.join(notes) or 'whole'}"
