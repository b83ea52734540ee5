"""What must always hold, checked at the end of each life."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .asked import ASKED
from .plans import CreatePlan
from .record import Attempt, Record
from .steps import OTHER, Batch, Close, Down, Freeze, FullDisk, Kill, MoveLedger, Submit
from .tasks import KEY, SECRET, STRANGER, HostTask

LATE = 60.0
"""Seconds after a task's end, or after everything went right again, by which a wait for it must be over."""


GUESSED = 45.0
"""Seconds that tasks are taken to last by somebody who has seen none end."""

SAFETY_NET = 4.0
"""Longest times that a task lasts, after which an end is noticed that webhooks were relied on to tell, and did not."""

STILL_ON_ITS_WAY = 31.0
"""Seconds for which a submission may be under way that was claimed before its ledger was moved."""

TICK = 0.05
"""Seconds by which a time-out may be missed."""


def violations(record: Record) -> list[str]:
    """Return what did not hold in a life, in words; nothing if all did."""
    return [*record.wrong, *(what for promise in PROMISES for what in promise(record))]


def counts(record: Record) -> Counter[str]:
    """Return how much happened in a life, and in which states its submissions and rows ended."""
    found = Counter(f"step: {type(step).__name__}" for step in record.story.steps)
    found["lives"] = record.story.processes + len(record.dead_lives)
    found["crashes"] = len(record.dead_lives)
    found["submissions"] = len(record.attempts)
    found["invariants checked"] = len(PROMISES)
    found["creates"] = record.host.creates.total()
    found["tasks made"] = sum(task.intent != STRANGER for task in record.host.tasks.values())
    found["polls"] = record.host.polls
    unnamed = {task_id for task_id, task in record.host.tasks.items() if not task.named}
    found["lost answers come home"] = sum(
        attempt.state == "accepted" and attempt.task_id in unnamed for attempt in record.attempts
    )
    found.update(record.host.happened)
    found.update(f"told: {attempt.state}" for attempt in record.attempts)
    found.update(f"wait: {attempt.ended}" for attempt in record.attempts if attempt.ended)
    found.update(f"saved: {attempt.saved}" for attempt in record.attempts if attempt.saved)
    found.update(f"ledger: {state}" for state, _ in (record.ledger_rows or {}).values())
    return found


def _paid_twice(record: Record) -> Iterator[str]:
    for intent, tasks in record.host.by_intent.items():
        users = _attempts_at(record, intent)
        allowed = len({attempt.intent for attempt in users}) + record.resent.get(intent, 0)
        if record.ledger_moved:  # each client that was made since then has a ledger of its own
            allowed = len({(attempt.caller, attempt.intent) for attempt in users})
        # A task that had failed already may be followed by another: nobody pays for a failure.
        paid = max(_number_paid(tasks, task.made_at) for task in tasks)
        if paid > allowed:
            yield f"intent {intent} was paid for {len(tasks)} times: {[task.task_id for task in tasks]}"


def _number_paid(tasks: Sequence[HostTask], at: float) -> int:
    """Return the number of tasks that were made by a time and had not failed by then."""
    return sum(task.made_at <= at and task.state(at) not in {"failed", "cancelled"} for task in tasks)


def _more_than_asked(record: Record) -> Iterator[str]:
    """A key has no more attempts than somebody asked for, and each but the last had failed before the next."""
    for key, before in record.ledger_attempts.items():
        asked = record.retries[int(key)]
        if len(before) > asked:
            yield f"key {key} has {len(before)} earlier attempts, and {asked} were asked for"

        last = (record.ledger_rows or {}).get(key, ("", None))[1]
        for task_id, next_id in zip(before, [*before[1:], last], strict=True):
            made_next = record.host.tasks.get(str(next_id))
            now = record.world.now if made_next is None else made_next.made_at
            if record.host.tasks[task_id].state(now) not in {"failed", "cancelled"}:
                yield f"task {task_id} of key {key} was replaced, and had not failed"

    for intent, tasks in record.host.by_intent.items():
        users = _attempts_at(record, intent)
        retries = sum(record.retries[one] for one in {attempt.intent for attempt in users})
        if len(tasks) > len(users) + retries:
            yield f"intent {intent} has {len(tasks)} tasks, and {len(users)} submissions were asked for"


def _forgotten(record: Record) -> Iterator[str]:
    """Every task that was made is known to somebody, or its submission is known to be unknown."""
    texts = "\n".join([*record.log, *(attempt.error for attempt in record.attempts)])
    for intent, tasks in record.host.by_intent.items():
        for task in tasks:
            if task.cancelled_at is not None:
                continue  # nobody pays for it
            if task.task_id not in texts and not _is_known(record, intent, task.task_id):
                told = [attempt.state for attempt in _attempts_at(record, intent)]
                yield f"task {task.task_id} of intent {intent} is known to nobody; its users were told {told}"


def _not_kept(record: Record) -> Iterator[str]:
    """An id that the host gave in time reaches the user, the ledger or the log, whoever has left meanwhile."""
    if any(
        isinstance(step, (Kill, Close, Freeze, Down, FullDisk, MoveLedger)) for step in record.story.steps
    ):
        return
    if any(plan.travel in {"twice", "408 after"} for plan in _plans(record)):
        return  # what crosses the next request on its connection takes that one's answer with it: unknown
    texts = "\n".join([*record.log, *(attempt.error for attempt in record.attempts)])
    known = {attempt.task_id for attempt in record.attempts}
    known.update(str(task_id) for _, task_id in (record.ledger_rows or {}).values())
    known.update(record.ledger_refused, *record.ledger_attempts.values())
    for task in record.host.tasks.values():
        if (
            task.named
            and task.cancelled_at is None
            and task.task_id not in known
            and task.task_id not in texts
        ):
            yield f"the id {task.task_id} of intent {task.intent} arrived and was not kept"


def _not_recorded(record: Record) -> Iterator[str]:
    """What a user was told of with a ledger stands in it."""
    if record.ledger_rows is None or any(isinstance(step, FullDisk) for step in record.story.steps):
        return
    recorded = {task_id for _, task_id in record.ledger_rows.values()}
    recorded.update(*record.ledger_attempts.values())
    for attempt in record.attempts:
        if attempt.state == "accepted" and attempt.task_id not in recorded:
            yield f"task {attempt.task_id} of intent {attempt.intent} was accepted, and the ledger does not have it"


def _paid_into_a_moved_ledger(record: Record) -> Iterator[str]:
    """A client that has used a ledger pays no more once its file is gone."""
    moved_at = min(
        (step.at for step in record.story.steps if isinstance(step, MoveLedger)), default=float("inf")
    )
    users = {attempt.caller for attempt in record.attempts if 0.0 < attempt.accepted_at < moved_at}
    for attempt in record.attempts:
        task = record.host.tasks.get(attempt.task_id)  # a process that stood still may hear of it much later
        if attempt.caller in users and task is not None and task.made_at > moved_at + STILL_ON_ITS_WAY:
            yield f"intent {attempt.intent} was paid for after the ledger had been moved away"


def _plans(record: Record) -> Iterator[CreatePlan]:
    for step in record.story.steps:
        if isinstance(step, Submit):
            yield from step.plans
        elif isinstance(step, Batch):
            yield from (plan for _, plan in step.plans)


def _attempts_at(record: Record, subject: int) -> list[Attempt]:
    """Return what the users were told who asked for what has a number in the prompt."""
    return [attempt for attempt in record.attempts if record.story.subject(attempt.intent) == subject]


def _is_known(record: Record, intent: int, task_id: str) -> bool:
    attempts = _attempts_at(record, intent)
    if any(attempt.task_id == task_id or attempt.state == "unknown" for attempt in attempts):
        return True
    if not record.story.ledger:
        # Without a ledger a killed process leaves nothing behind, as promised.
        return any(_died(record, attempt) for attempt in attempts) or _is_logged(record, intent)
    return record.ledger_moved or _is_in_ledger(record, intent, task_id) or _is_logged(record, intent)


def _is_in_ledger(record: Record, intent: int, task_id: str) -> bool:
    rows = record.ledger_rows or {}
    if any(known == task_id for _, known in rows.values()):
        return True
    if task_id in record.ledger_refused or any(
        task_id in before for before in record.ledger_attempts.values()
    ):
        return True
    keys = {str(attempt.intent % OTHER) for attempt in _attempts_at(record, intent)}
    if any(rows.get(key, ("", None))[0] in {"unknown", "sending"} for key in keys):
        return True
    # A submission without a key stands in the ledger under one that was made up.
    made_up = [state for key, (state, _) in rows.items() if not key.isdecimal()]
    keyless = any(not attempt.keyed for attempt in _attempts_at(record, intent))
    return keyless and any(state in {"unknown", "sending"} for state in made_up)


def _is_logged(record: Record, intent: int) -> bool:
    number = record.story.model_number(intent)
    return any(f"#{number}'" in line and "may have been accepted" in line for line in record.log)


def _died(record: Record, attempt: Attempt) -> bool:
    return (attempt.process, attempt.life) in record.dead_lives


def _mixed_up(record: Record) -> Iterator[str]:
    for attempt in record.attempts:
        if attempt.state != "accepted":
            continue
        task = record.host.tasks.get(attempt.task_id)
        if task is None:
            yield f"intent {attempt.intent} was given the id {attempt.task_id!r}, which the host never made"
        elif task.intent == STRANGER:
            yield f"intent {attempt.intent} was given a stranger's task"
        elif task.intent != record.story.subject(attempt.intent):
            yield f"intent {attempt.intent} was given the task of intent {task.intent}"


def _given_twice(record: Record) -> Iterator[str]:
    """No two submissions have one task, however alike they are."""
    if record.ledger_moved:
        return  # nobody knows what the others have
    intents: dict[str, set[int]] = {}
    for attempt in record.attempts:
        if attempt.state == "accepted":
            intents.setdefault(attempt.task_id, set()).add(attempt.intent)
    for task_id, owners in intents.items():
        if len(owners) > 1:
            yield f"task {task_id} was given to the intents {sorted(owners)}"


def _refused_yet_made(record: Record) -> Iterator[str]:
    for attempt in record.attempts:
        if attempt.state not in {"refused", "not sent"} or attempt.task_id:
            continue
        subject = record.story.subject(attempt.intent)
        others = [other for other in _attempts_at(record, subject) if other is not attempt]
        if record.host.by_intent.get(subject) and not others:
            yield f"intent {attempt.intent} was {attempt.state} ({attempt.error}), yet a task was made"


def _late(record: Record) -> Iterator[str]:
    longest = max((task.seconds for task in record.host.tasks.values()), default=0.0)
    safety_net = SAFETY_NET * max(GUESSED, longest)
    for attempt in record.attempts:
        task = record.host.tasks.get(attempt.task_id)
        if task is None or attempt.ended not in {"done", "TaskFailed"} or not attempt.ended_at:
            continue
        possible = max(task.made_at + task.seconds, record.healed_at, attempt.accepted_at)
        told = (attempt.process, attempt.life) in record.delivered[task.task_id]
        late = LATE
        if record.story.webhooks and not told:
            late += safety_net
        if attempt.ended_at > possible + late:
            yield f"the end of intent {attempt.intent} was noticed {attempt.ended_at - possible:.0f} s late"


def _off_the_tick(record: Record) -> Iterator[str]:
    """A time-out is kept to the tick, unless the process itself stood still."""
    if any(isinstance(step, Freeze) for step in record.story.steps):
        return
    for attempt in record.attempts:
        if attempt.ended != "WaitTimeout" or not attempt.timeout:
            continue
        waited = attempt.ended_at - attempt.waited_from
        if abs(waited - attempt.timeout) > TICK:
            yield f"the wait for intent {attempt.intent} was to end after {attempt.timeout:g} s and took {waited:.2f}"


def _too_many_polls(record: Record) -> Iterator[str]:
    """No fault makes anybody poll in a tight loop: a poll a second for each task at most, and some to begin with."""
    seconds = sum(task.seconds for task in record.host.tasks.values())
    seconds += sum(step.over_at - step.at for step in record.story.steps) * len(record.host.tasks)
    allowed = 40 + 20 * len(record.attempts) + 2 * seconds
    if record.host.polls > allowed:
        yield f"the host was polled {record.host.polls} times, where {allowed:.0f} would be plenty"


def _wrong_ends(record: Record) -> Iterator[str]:
    allowed = {"", "done", "TaskFailed", "TaskCancelled", "WaitTimeout", "ClientClosed"}
    if any(isinstance(step, (FullDisk, MoveLedger)) for step in record.story.steps):
        allowed.add("LedgerError")  # an outcome whose id could not be recorded carries it
    for attempt in record.attempts:
        if attempt.state != "accepted":
            continue
        task = record.host.tasks.get(attempt.task_id)
        if attempt.ended not in allowed:
            yield f"the wait for intent {attempt.intent} ended in {attempt.ended}: {attempt.error}"
        elif task is not None and attempt.ended == "done" and task.end != "done":
            yield f"the wait for intent {attempt.intent} returned a task that had failed"
        elif task is not None and attempt.ended == "TaskFailed" and task.end != "failed":
            yield f"the wait for intent {attempt.intent} raised TaskFailed for a task that is well"
        elif task is not None and (attempt.ended == "TaskCancelled") > (task.cancelled_at is not None):
            yield f"the wait for intent {attempt.intent} raised TaskCancelled for a task that was not cancelled"


def _secrets(record: Record) -> Iterator[str]:
    for text in [*record.log, *(attempt.error for attempt in record.attempts)]:
        if KEY in text or SECRET in text:
            yield f"a secret is shown: {text}"


def _forbidden(record: Record) -> Iterator[str]:
    return (f"the host saw {what}" for what in record.host.forbidden)


PROMISES = (
    _paid_twice,
    _more_than_asked,
    _forgotten,
    _not_kept,
    _not_recorded,
    _paid_into_a_moved_ledger,
    _mixed_up,
    _given_twice,
    _refused_yet_made,
    _late,
    _off_the_tick,
    _too_many_polls,
    _wrong_ends,
    _secrets,
    _forbidden,
    *ASKED,
)
"""What must always hold: each yields in words what did not."""
