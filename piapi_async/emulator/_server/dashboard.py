"""The live page that a developer keeps open, and the numbers it shows.  Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from functools import cache
from importlib.resources import files

from .._api.host import Host
from .._service.engine import TaskEngine
from .._service.requests import MIDJOURNEY, Kind
from .._service.tasks import Stage, Task

#: How many tasks the page shows, the latest first.
SHOWN = 60
#: What other systems make that has a picture.
_PICTURED = ("image", "video", "model")


@cache
def html() -> bytes:
    """Return the page: one file, no resources from anywhere else."""
    # A browser reads "\r\n" as "\n", and computes the digests of scripts and styles from that.
    return files(__package__).joinpath("page.html").read_bytes().replace(b"\r\n", b"\n")


def stages(engine: TaskEngine) -> dict[str, int]:
    """Return how many tasks are in each stage."""
    return dict(Counter(str(task.stage) for task in engine.tasks.values()))


def tasks(host: Host, now: float, speed: float) -> dict[str, object]:
    """Return what the page asks for again and again."""
    latest = heapq.nlargest(SHOWN, host.engine.tasks.values(), key=lambda task: task.serial)
    return {
        "now": now,
        "speed": speed,
        "stages": stages(host.engine),
        "requests": dict(host.seen.requests),
        "creates": host.seen.creates,
        "reads": host.seen.reads,
        "faults": host.seen.faults.total(),
        "deliveries": len(host.seen.deliveries),
        "detection": host.seen.delays(),
        "tasks": [_row(task, host, now) for task in latest],
    }


def _row(task: Task, host: Host, now: float) -> dict[str, object]:
    end = now if task.ended is None else task.ended
    return {
        "task_id": task.task_id,
        "verb": _verb(task),
        "stage": str(task.stage),
        "prompt": task.prompt,
        "mode": task.mode,
        "progress": task.progress(now),
        "age": end - task.created,
        "retries": task.retries,
        "polls": host.seen.polls[task.task_id],
        "error": task.error,
        "thumb": f"/_emulator/thumbs/{task.task_id}.png" if _is_pictured(task) else "",
    }


def _verb(task: Task) -> str:
    if task.adopted:
        return "adopted"
    if task.model == MIDJOURNEY:
        return task.verb
    return f"{task.model}/{task.verb}"


def _is_pictured(task: Task) -> bool:
    has_picture = task.kind in (Kind.GRID, Kind.SINGLE) or task.mode in _PICTURED
    return has_picture and task.stage is Stage.FINISHED
