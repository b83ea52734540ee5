"""What spans and metrics say of a task: the names of the conventions for generative AI, no prompts.  Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from .._http import Request
from ..tasks import FileKind, Task
from ._events import SubmissionStarted, TaskEvent

OPERATION = "generate_content"  # the conventions have none for pictures

Labels: TypeAlias = dict[str, str | int]


def labels_of(event: SubmissionStarted) -> Labels:
    """Return what a task's span and its metrics have in common: few values, and no prompt."""
    request = event.task_request
    model, task_type = _names_of(request)
    service = request.family.service
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": "piapi" if service is None else service.name.lower(),
        "gen_ai.request.model": model,
        "piapi.task.type": task_type,
        "piapi.family": event.family,
        "server.address": host_of(event.origin),
    }


def labels_of_task(event: TaskEvent) -> Labels:
    """Return what is known of a task of which nobody here has seen the submission."""
    return {
        "gen_ai.operation.name": OPERATION,
        "piapi.family": event.family,
        "server.address": host_of(event.origin),
    }


def _names_of(request: Request[Any]) -> tuple[str, str]:
    """Return the model and the task type of a request; Midjourney's verbs have one model."""
    names = getattr(request, "names", None)
    if isinstance(names, tuple):
        model, task_type = names
        return model, task_type
    verb = getattr(request, "verb", None)
    if isinstance(verb, str):
        return "midjourney", verb
    return type(request).__name__, ""


def facts_of(task: Task[Any]) -> dict[str, str | int | float]:
    """Return what is known of a task at its end."""
    facts: dict[str, str | int | float] = {
        "piapi.task.state": task.state.value,
        "piapi.task.status": task.status,
        "piapi.outcome": task.state.value,
    }
    queue_seconds = seconds_between(task.created_at, task.started_at)
    if queue_seconds is not None:
        facts["piapi.task.queue_seconds"] = queue_seconds
    run_seconds = seconds_between(task.started_at, task.ended_at)
    if run_seconds is not None:
        facts["piapi.task.run_seconds"] = run_seconds
    if task.cost is not None:
        facts["piapi.cost.amount"] = task.cost.amount
        facts["piapi.cost.unit"] = task.cost.unit
    if task.files and task.files[0].kind is FileKind.IMAGE:
        facts["gen_ai.output.type"] = "image"
    return facts


def seconds_between(earlier: datetime | None, later: datetime | None) -> float | None:
    """Return the seconds between two of the host's times; None if one is missing or they are reversed."""
    if earlier is None or later is None or later < earlier:
        return None
    return (later - earlier).total_seconds()


def host_of(origin: str) -> str:
    """Return the host and port of an origin."""
    return origin.rpartition("/")[2]
