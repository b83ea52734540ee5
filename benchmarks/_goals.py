"""A goal beside the figure that was reached, as every benchmark prints it and writes it down."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ._table import table


@frozen
class Goal:
    """One promise, measured.  `peers`: the same figure of others; `why`: what stands in the way of a missed one."""

    what: str
    reached: str
    goal: str
    met: bool | None
    peers: str = ""
    why: str = ""

    @property
    def verdict(self) -> str:
        """Whether it was reached, "" where that was not to be judged."""
        return "" if self.met is None else "met" if self.met else "MISSED"


def goals_table(title: str, goals: Sequence[Goal]) -> str:
    """Give the goals as text, and below it why those that were missed were."""
    rows = [[goal.what, goal.reached, goal.goal, goal.verdict] for goal in goals]
    reasons = [f"{goal.what}: {goal.why}" for goal in goals if goal.met is False and goal.why]
    return "\n".join([table(title, ("", "reached", "goal", ""), rows), *reasons])
