"""What must hold of what users ask for beside tasks: files that are whole, cancellations, a limit to the costs."""

from __future__ import annotations

import math
from collections.abc import Iterator

from .record import Attempt, Record
from .steps import Batch, Close, Down, Freeze, FullDisk, Kill, Weather


def _files_lost(record: Record) -> Iterator[str]:
    """A file is given up only for what does not pass: one that is gone, a full disk, a client that is closed."""
    if any(isinstance(step, (FullDisk, Close, Kill)) for step in record.story.steps):
        return
    for attempt in record.attempts:
        task = record.host.tasks.get(attempt.task_id)
        if attempt.saved != "DownloadError" or task is None:
            continue
        if task.intent not in record.host.lost:
            yield f"a file of intent {attempt.intent} was given up: {attempt.error}"


def _cancelled_unasked(record: Record) -> Iterator[str]:
    """The host is asked to cancel nothing but what somebody has asked for, or has left so."""
    subject_of = record.story.subject
    asked = set(record.cancel_asked)
    for attempt in record.attempts:  # a process may be killed while its user is on the way out
        may_have_left = attempt.left or (attempt.process, attempt.life) in record.dead_lives
        if attempt.cancels and may_have_left:
            asked.add(subject_of(attempt.intent))
    for task_id, _ in record.host.cancels:
        task = record.host.tasks.get(task_id)
        if task is None or task.intent not in asked:
            yield f"the host was asked to cancel {task_id}, which nobody wanted"


def _not_cancelled(record: Record) -> Iterator[str]:
    """Who leaves a task so that it is cancelled has the host asked for it, once its id is known."""
    if record.story.legnext or any(
        isinstance(step, (Kill, Close, Down, Freeze, Weather)) for step in record.story.steps
    ):
        return
    asked = {task_id for task_id, _ in record.host.cancels}
    for attempt in record.attempts:
        if attempt.cancels and attempt.left:
            for task_id in _known_to_leaver(record, attempt):
                if task_id not in asked:
                    yield f"task {task_id} was left by {attempt.left}, to be cancelled, and the host was not asked"


def _known_to_leaver(record: Record, attempt: Attempt) -> Iterator[str]:
    """Yield the tasks of a user who has left, of which the client learnt, perhaps later, and that had not ended."""
    subject = record.story.subject(attempt.intent)
    others = [one for one in record.attempts if record.story.subject(one.intent) == subject]
    if len(others) > 1:
        return
    for task in record.host.by_intent.get(subject, []):
        is_known = (attempt.process, attempt.life, task.task_id) in record.accepted
        if is_known and task.state(attempt.left_at) in {"waiting", "running"}:
            yield task.task_id


def _over_budget(record: Record) -> Iterator[str]:
    """A batch with a limit makes no task by which it could cost more, once a price is known."""
    for step in record.story.steps:
        if not isinstance(step, Batch) or step.max_cost is None:
            continue
        subjects = {record.story.subject(intent) for intent in step.intents}
        made = [task for task in record.host.tasks.values() if task.intent in subjects]
        if made and not made[0].price:
            yield f"a batch with a limit has made {made[0].task_id}, whose price nobody tells"
            continue

        price_known_at = min((task.priced_at for task in made), default=math.inf)
        for number, task in enumerate(made):
            before = sum(one.state(task.made_at) not in {"failed", "cancelled"} for one in made[:number])
            knew = price_known_at < task.made_at and (before + 1) * step.price > step.max_cost
            if step.max_cost == 0 or knew:
                yield f"{task.task_id} was made, with {before} before it, for {step.max_cost:g} at {step.price:g} each"


ASKED = (_files_lost, _cancelled_unasked, _not_cancelled, _over_budget)
"""What must hold of all this: each yields in words what did not."""
