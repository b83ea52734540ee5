"""What people do that chance alone would seldom bring about: all at once, again at once, all in a crowd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from attrs import evolve

from .plans import LASTING, CreatePlan
from .steps import Batch, MoveLedger, Step, Submit, Weather

_NAMES_IT = ("is busy and names a task", "is overloaded and names a task")


def habits(rng: Random, steps: Sequence[Step], processes: int, *, ledger: bool) -> list[Step]:
    """Return steps that belong to the others of a story, if any."""
    chance = rng.random()
    for share, habit, needs_ledger in _HABITS:
        chance -= share
        if chance < 0 and (ledger or not needs_ledger):
            return [*habit(rng, steps, processes)]
    return []


def _next_intent(steps: Sequence[Step]) -> int:
    intents = [step.intent for step in steps if isinstance(step, Submit)]
    intents += [intent for step in steps if isinstance(step, Batch) for intent in step.intents]
    return max(intents, default=0) + 1


def _crowd(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield tasks that are waited for together, as many-task reads go wrong and do not come right again."""
    first = _next_intent(steps)
    process = rng.randrange(processes)
    at = round(rng.uniform(0, 60), 2)
    yield Weather(at, 1.0, rng.choice(LASTING), lasting=True)
    for number in range(rng.randint(2, 5)):
        later = round(at + rng.uniform(0, 5), 2)
        seconds = round(rng.uniform(1, 200), 1)
        yield Submit(later, process, first + number, keyed=False, unified=False, seconds=seconds)


def _busy_batch(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield a batch whose last item is refused as the host is busy, by an answer that names a task."""
    first = _next_intent(steps)
    process = rng.randrange(processes)
    intents = tuple(range(first, first + rng.randint(2, 5)))
    named = CreatePlan(rng.choice(_NAMES_IT), delay=0.2)
    yield Batch(
        round(rng.uniform(0, 60), 2),
        process,
        intents,
        unified=rng.random() < 0.5,
        concurrency="auto",
        plans=((intents[-1], named),),
        failing=intents[-1:],
        fails_after=0.1,
    )


def _again_at_once(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield how a key is submitted again right after a refusal that names a task, and the answer is lost."""
    intent = _next_intent(steps)
    at = round(rng.uniform(0, 60), 2)
    plans = CreatePlan(rng.choice(_NAMES_IT), delay=0.2), _lost(rng)
    refused = Submit(
        at,
        rng.randrange(processes),
        intent,
        keyed=True,
        unified=rng.random() < 0.8,
        plans=plans,
        seconds=0.1,
        end="failed",
    )
    yield refused

    later = round(at + rng.uniform(0.3, 3), 2)
    yield evolve(refused, at=later, process=rng.randrange(processes), plans=(), seconds=20.0, end="done")


def _all_retry(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield how every process submits anew what fails of a batch: before it has failed, or long after."""
    batches = [step for step in steps if isinstance(step, Batch) and step.failing]
    if not batches:
        return

    before = rng.choice(batches)
    at = before.at + rng.choice((rng.uniform(2, 18), rng.uniform(40, 120)))
    for number in range(2):
        lost = tuple((intent, _lost(rng)) for intent in before.failing if rng.random() < 0.3)
        yield Batch(
            round(at + rng.uniform(0, 2), 2),
            number % processes,
            before.intents,
            unified=before.unified,
            concurrency=rng.choice((2, 8, "auto")),
            plans=lost,
            retry_failed=True,
        )


def _lost_again(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield a batch whose answers are lost and whose tasks fail, and its rerun soon after, which loses them again."""
    first = _next_intent(steps)
    process = rng.randrange(processes)
    intents = (first, first + 1)
    batch = Batch(
        round(rng.uniform(0, 60), 2),
        process,
        intents,
        unified=True,
        concurrency=2,
        plans=tuple((intent, _lost(rng)) for intent in intents),
        failing=intents,
    )
    yield batch

    lost = tuple((intent, _lost(rng)) for intent in intents)
    later = round(batch.at + rng.uniform(22, 60), 2)
    yield evolve(batch, at=later, plans=lost, failing=intents[1:], retry_failed=True)


def _moves_the_ledger(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield a submission, how somebody moves the ledger away, and submissions of the same client long after."""
    intent = _next_intent(steps)
    at = round(rng.uniform(0, 60), 2)
    first = Submit(at, rng.randrange(processes), intent, keyed=True, unified=rng.random() < 0.5)
    yield first

    moved_at = round(at + rng.uniform(1, 20), 2)
    yield MoveLedger(moved_at)
    for number in range(1, 3):
        later = round(moved_at + rng.uniform(32, 60), 2)
        yield evolve(first, at=later, intent=intent + number)


def capped_batch(rng: Random, steps: Sequence[Step], processes: int) -> Batch:
    """Return a batch that may cost so much, some of whose answers are lost or name a task as they refuse."""
    first = _next_intent(steps) | 1
    intents = tuple(range(first, first + rng.choice((2, 4, 6, 8))))
    named = [
        CreatePlan(rng.choice(_NAMES_IT), delay=0.2) if rng.random() < 0.4 else _lost(rng) for _ in intents
    ]
    return Batch(
        round(rng.uniform(0, 60), 2),
        rng.randrange(processes),
        intents,
        unified=rng.random() < 0.9,
        concurrency=rng.choice((1, 2, 8, "auto")),
        plans=tuple(
            (intent, plan) for intent, plan in zip(intents, named, strict=True) if rng.random() < 0.3
        ),
        failing=tuple(intent for intent in intents if rng.random() < 0.25),
        fails_after=rng.choice((0.1, 5.0, 20.0)),
        max_cost=rng.choice((0.0, 10.0, 25.0, 60.0, 100.0, 130.0)),
        price=25.0,
    )


def _lost(rng: Random) -> CreatePlan:
    """Return how a task is made and its answer is lost."""
    delay, travel = rng.choice((0.2, 2.0, 25.0)), rng.choice(("dropped", "cut", "stalled"))
    return CreatePlan("accepts", delay, travel, round(rng.random(), 2))


_HABITS = (
    (0.08, _crowd, False),
    (0.06, _busy_batch, False),
    (0.10, _again_at_once, True),
    (0.16, _all_retry, True),
    (0.10, _lost_again, True),
    (0.03, _moves_the_ledger, True),
)
"""Their shares of all stories, and whether they need a ledger."""
