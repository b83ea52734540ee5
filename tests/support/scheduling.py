"""A schedule to ask without a client: its waits are woken by name."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import attrs
import orjson

from piapi_async import LEGACY, Family, PollPolicy
from piapi_async._http import HTTPResponse
from piapi_async._wait.schedule import PollSchedule
from piapi_async._wait.watch import Poll, Wait, Watch
from piapi_async.errors import (
    NotFoundError,
    TransportError,
)
from piapi_async.midjourney import Fetch
from piapi_async.tasks import Task, TaskId

SINGLY: Family[Any] = attrs.evolve(LEGACY, name="singly", fetch_many=None)
EVERYTHING = 10_000

DENIED = NotFoundError("task not found", status=400, message="task not found")
FAULT = TransportError("dropped", sent=True)


def reading(task_id: str, status: str = "pending", progress: int | None = None) -> Task[Any]:
    """Return a task as a fetch reads it."""
    body = {"task_id": task_id, "status": status, "task_result": {"task_progress": progress}}
    return Fetch(TaskId(task_id)).parse(HTTPResponse(200, orjson.dumps(body)))


def schedule_of(size: int = 20, every: float = 1.0) -> PollSchedule:
    """Return a schedule with the plain policy and jitter that is the same in every run."""
    return PollSchedule(PollPolicy.every(every), Random(1), size)  # noqa: S311 - jitter, the same in every run


def watch_of(task_id: str, family: Family[Any] = LEGACY, due: float = -math.inf) -> Watch:
    """Return the watch of an attached task, or of one whose first poll is due later."""
    return Watch(family, TaskId(task_id), due)


def start(schedule: PollSchedule, task_id: str, now: float = 0.0, **options: Any) -> tuple[Watch, Wait]:
    """Begin to wait for a task; return the watch and the wait."""
    wait = schedule.start(watch_of(task_id), task_id, now, **options)
    return wait.watch, wait


def take_one(schedule: PollSchedule, now: float) -> Poll:
    """Return the one poll that is due."""
    (poll,) = schedule.due_polls(now, EVERYTHING)
    return poll


def ids(poll: Poll) -> list[TaskId]:
    """Return the ids that a poll asks for."""
    return [watch.task_id for watch in poll.watches]


def succeed(schedule: PollSchedule, poll: Poll, now: float, status: str = "pending") -> list[Wait]:
    """Take in that a poll found all its tasks in one status; return the waits to wake."""
    return schedule.succeeded(poll, {task_id: reading(task_id, status) for task_id in ids(poll)}, now)
