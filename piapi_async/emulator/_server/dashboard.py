"""The live page a developer keeps open beside the bot under construction, and the numbers it shows.  Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from .._service.requests import MIDJOURNEY, Kind
from .._service.tasks import Stage, Task

if TYPE_CHECKING:
    from .._api.host import Desk
    from .._service.engine import Machine

#: How many tasks the page shows, the latest first.
SHOWN = 60
#: What tasks make that can be seen.
_SEEN = ("image", "video", "model")


@cache
def html() -> bytes:
    """Return the page: one file, no resources from anywhere else."""
    # A browser reads "\r\n" as "\n", and so takes the digests of scripts and styles.
    return files(__package__).joinpath("page.html").read_bytes().replace(b"\r\n", b"\n")


def stages(machine: Machine) -> dict[str, int]:
    """Return how many tasks are in each stage."""
    return dict(Counter(str(task.stage) for task in machine.tasks.values()))


def tasks(desk: Desk, now: float, speed: float) -> dict[str, object]:
    """Return what the page asks for again and again."""
    latest = heapq.nlargest(SHOWN, desk.machine.tasks.values(), key=lambda task: task.serial)
    return {
        "now": now,
        "speed": speed,
        "stages": stages(desk.machine),
        "requests": dict(desk.seen.requests),
        "creates": desk.seen.creates,
        "reads": desk.seen.reads,
        "faults": desk.seen.faults.total(),
        "deliveries": len(desk.seen.deliveries),
        "detection": desk.seen.delays(),
        "tasks": [_row(task, desk, now) for task in latest],
    }


def _row(task: Task, desk: Desk, now: float) -> dict[str, object]:
    end = now if task.ended is None else task.ended
    pictured = task.stage is Stage.FINISHED and (task.kind in (Kind.GRID, Kind.SINGLE) or task.mode in _SEEN)
    verb = task.verb if task.model == MIDJOURNEY else f"{task.model}/{task.verb}"
    return {
        "task_id": task.task_id,
        "verb": "adopted" if task.adopted else verb,
        "stage": str(task.stage),
        "prompt": task.prompt,
        "mode": task.mode,
        "progress": task.progress(now),
        "age": end - task.created,
        "retries": task.retries,
        "polls": desk.seen.polls[task.task_id],
        "error": task.error,
        "thumb": f"/_emulator/thumbs/{task.task_id}.png" if pictured else "",
    }
