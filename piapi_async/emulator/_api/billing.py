"""What tasks freeze and cost, in the units of the unified protocol.  Pure."""

from __future__ import annotations

from attrs import frozen

from .._service.catalog import HAILUO
from .._service.requests import MIDJOURNEY
from .._service.tasks import END_STAGES, Stage, Task
from .dialect import JSON

#: Points that a task costs, by what it makes (the orders of magnitude of the vendor's examples).
_POINTS = {"image": 200_000, "audio": 200_000, "model": 400_000, "video": 2_000_000}
#: What a task of Midjourney freezes and then costs.
_MIDJOURNEY_FROZEN, _MIDJOURNEY_COST = 14, 8
#: These models freeze points until the end, and have no list of logs (observed).
POINT_MODELS = frozenset(("luma", *HAILUO))


@frozen
class Usage:
    """What a task has frozen, and what it has consumed: nothing if it came to nothing."""

    type: str
    frozen: int
    consumed: int

    def as_json(self) -> JSON:
        """Return the `usage` object of a task."""
        return {"type": self.type, "frozen": self.frozen, "consume": self.consumed}


def usage_of(task: Task) -> Usage:
    """Return what a task has frozen and cost so far."""
    usage = _usage_if_finished(task)
    if task.stage is Stage.FINISHED:
        return usage

    # "llm" is consumed from the create on, and given back if the task comes to nothing.
    if usage.type == "llm" and task.stage not in END_STAGES:
        return usage
    return Usage(usage.type, usage.frozen, 0)


def _usage_if_finished(task: Task) -> Usage:
    if task.model == MIDJOURNEY:
        return Usage("mj", _MIDJOURNEY_FROZEN, _MIDJOURNEY_COST)

    points = _POINTS[task.mode]
    if task.model in POINT_MODELS:
        return Usage("point", points, points)
    return Usage("llm", 0, points)
