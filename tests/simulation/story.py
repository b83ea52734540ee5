"""A story: the steps of one simulated life, made from a seed, told in words, and made shorter.

Everything random about a life is decided here, when its story is made; playing a story is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from random import Random
from typing import Any, Literal

from attrs import define, evolve, field, frozen

from .answers import ANSWERS
from .host import LASTING, TRAVELS, WEATHERS, CreatePlan

OTHER = 500
"""Added to the number of an intent for another request under its key."""


@frozen
class Leave:
    """How a user stops listening: after some turns of the loop, by plain cancellation or by a scope's."""

    how: str  # cancel, scope, group
    turns: int

    @property
    def words(self) -> str:
        """The leaving as the end of a sentence."""
        name = {
            "cancel": "is cancelled",
            "scope": "is in a cancelled scope",
            "group": "is in a failing task group",
        }
        return f", but {name[self.how]} after {self.turns} turns"


@frozen
class Step:
    """One thing that happens at a time."""

    at: float

    @property
    def over_at(self) -> float:
        """When what is wrong because of this step is well again."""
        return self.at

    @property
    def words(self) -> str:
        """The step as a sentence."""
        raise AssertionError(f"{type(self).__name__} has no words")


@frozen
class Spell(Step):
    """Something that is wrong for so many seconds."""

    seconds: float

    @property
    def over_at(self) -> float:
        return self.at + self.seconds


@frozen
class Submit(Step):
    """A user submits an intent and, unless `wait` is 0, waits for its task (inf: without a time-out)."""

    process: int
    intent: int
    keyed: bool
    unified: bool
    plans: tuple[CreatePlan, ...] = ()
    seconds: float = 20.0
    end: str = "done"
    wait: float = float("inf")
    leave: Leave | None = None

    @property
    def words(self) -> str:
        key = f" under key {self.intent}" if self.keyed else ""
        plans = "; ".join(plan.words for plan in self.plans)
        plans = f" ({plans})" if plans else ""
        leave = self.leave.words if self.leave else ""
        wait = "" if self.wait == float("inf") else f", waits {self.wait:g} s"
        return f"process {self.process} submits intent {self.intent}{key}{plans}{wait}{leave}"


@frozen
class Batch(Step):
    """A user runs a batch; its source or its progress callback may raise, or its reader may leave."""

    process: int
    intents: tuple[int, ...]
    unified: bool
    concurrency: int | Literal["auto"]
    plans: tuple[tuple[int, CreatePlan], ...] = ()
    source_fails: bool = False
    progress_fails: bool = False
    stop_after: int | None = None
    leave: Leave | None = None
    failing: tuple[int, ...] = ()
    retry_failed: bool = False

    @property
    def words(self) -> str:
        plans = "; ".join(f"{intent}: {plan.words}" for intent, plan in self.plans)
        notes = [f"{self.concurrency} at once"]
        if self.failing:
            notes.append(f"tasks of {list(self.failing)} will fail")
        notes += ["what failed is submitted anew"] * self.retry_failed
        notes += ["its source raises at the end"] * self.source_fails
        notes += ["its progress callback raises"] * self.progress_fails
        if self.stop_after is not None:
            notes.append(f"its reader leaves after {self.stop_after}")
        leave = self.leave.words if self.leave else ""
        return (
            f"process {self.process} runs a batch of {list(self.intents)}, {', '.join(notes)}"
            f"{f' ({plans})' if plans else ''}{leave}"
        )


@frozen
class OtherRequest(Step):
    """A user submits another request under a key that is taken."""

    process: int
    intent: int

    @property
    def words(self) -> str:
        return f"process {self.process} submits another request under key {self.intent}"


@frozen
class Resolve(Step):
    """A person looks at the host and tells the ledger the truth about an unknown submission."""

    process: int
    intent: int

    @property
    def words(self) -> str:
        return f"a person resolves key {self.intent} in process {self.process}"


@frozen
class Weather(Spell):
    """Reads go wrong for a while; what is wrong with multi-fetches alone may stay so."""

    kind: str
    lasting: bool = False

    @property
    def over_at(self) -> float:
        return self.at if self.lasting else self.at + self.seconds

    @property
    def words(self) -> str:
        how_long = "from now on" if self.lasting else f"for {self.seconds:g} s"
        return f"{how_long} reads meet: {self.kind}"


@frozen
class Down(Spell):
    """Nothing can be connected for a while."""

    descriptors: bool

    @property
    def words(self) -> str:
        why = "no descriptors are left" if self.descriptors else "connections are refused"
        return f"for {self.seconds:g} s {why}"


@frozen
class Kill(Step):
    """A process dies at once, and is started again two seconds later."""

    process: int
    turns: int

    @property
    def words(self) -> str:
        return f"process {self.process} is killed, {self.turns} turns of its loop later"


@frozen
class Freeze(Spell):
    """A process stands still (a suspended machine, a debugger, a long garbage collection)."""

    process: int

    @property
    def words(self) -> str:
        return f"process {self.process} stands still for {self.seconds:g} s"


@frozen
class Jump(Step):
    """The wall clock is set."""

    seconds: float

    @property
    def words(self) -> str:
        return f"the wall clock jumps by {self.seconds:+g} s"


@frozen
class Close(Step):
    """A client is closed, and another is made in its place."""

    process: int

    @property
    def words(self) -> str:
        return f"process {self.process} closes its client"


@frozen
class FullDisk(Spell):
    """Nothing can be written for a while."""

    @property
    def words(self) -> str:
        return f"for {self.seconds:g} s the disk is full"


@frozen
class MoveLedger(Step):
    """Somebody moves the ledger's files away for good."""

    @property
    def words(self) -> str:
        return "somebody moves the ledger away"


@frozen
class Compact(Step):
    """Somebody makes the ledger smaller: all may be left out that ever can be."""

    @property
    def words(self) -> str:
        return "somebody compacts the ledger"


@frozen
class Story:
    """A whole life: how many processes there are, what they have, and what happens."""

    seed: int
    processes: int
    ledger: bool
    webhooks: bool
    steps: tuple[Step, ...]
    alike: bool = False
    """Whether intents ask for the same, two by two: 1 and 2, 3 and 4, and so on."""
    strangers: bool = False
    """Whether others use the account, and have asked for the same long before."""
    shows_models: bool = False
    """Whether the host shows models by the names that they were asked for by."""

    def subject(self, intent: int) -> int:
        """Return the number that stands in the prompt of an intent."""
        if self.alike and intent < OTHER:
            return intent - (intent + 1) % 2
        return intent

    @property
    def asked_for_once(self) -> frozenset[int]:
        """The intents of which a stranger's copy never is the one task that fits a lost submission."""
        steps = [step.intent for step in self.steps if isinstance(step, Submit) and step.unified]
        if self.alike:
            return frozenset()
        return frozenset(intent for intent in steps if steps.count(intent) == 1)

    @property
    def intents(self) -> set[int]:
        """The intents that are asked for."""
        submits = {step.intent for step in self.steps if isinstance(step, Submit)}
        return submits.union(*(step.intents for step in self.steps if isinstance(step, Batch)))

    @property
    def words(self) -> str:
        """The story, a line for each step."""
        ledger = "one ledger" if self.ledger else "no ledger"
        webhooks = ", webhooks" if self.webhooks else ""
        others = ", strangers on the account" if self.strangers else ""
        others += ", 1 and 2 ask for the same, 3 and 4 as well, …" if self.alike else ""
        others += ", models by their names" if self.shows_models else ""
        head = f"{self.processes} process(es) on {ledger}{webhooks}{others} (seed {self.seed})"
        return "\n".join([head, *(f"  {step.at:7.2f} s  {step.words}" for step in self.steps)])


# -- making a story ---------------------------------------------------------------------------------------------------


def make(seed: int) -> Story:
    """Return the story of a seed."""
    rng = Random(seed)
    ledger = rng.random() < 0.75
    processes = rng.choice((1, 1, 2)) if ledger else 1
    webhooks = rng.random() < 0.35
    steps = sorted(_Author(rng, processes, ledger=ledger).write(), key=lambda step: step.at)
    others = Random(f"others {seed}")
    alike, strangers = others.random() < 0.25, others.random() < 0.3
    shows_models = others.random() < 0.7
    if ledger and others.random() < 0.4:
        compact = Compact(round(others.uniform(10, 100), 2))
        steps = sorted([*steps, compact], key=lambda step: step.at)
    if ledger and others.random() < 0.3:
        hasty = _all_retry_at_once(others, steps, processes), _asks_again_at_once(others, steps, processes)
        steps = sorted([*steps, *chain(*hasty)], key=lambda step: step.at)
    if alike:  # of one protocol, as only then they can be taken for each other
        steps = [evolve(step, unified=True) if isinstance(step, (Submit, Batch)) else step for step in steps]
    return Story(seed, processes, ledger, webhooks, tuple(steps), alike, strangers, shows_models)


def _all_retry_at_once(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield how every process submits anew what failed of a batch, in the same second."""
    batches = [step for step in steps if isinstance(step, Batch) and step.failing]
    if not batches:
        return
    before = rng.choice(batches)
    at = before.at + rng.uniform(40, 120)
    for number in range(2):
        lost = tuple((intent, _lost(rng)) for intent in before.failing if rng.random() < 0.5)
        yield evolve(
            _batch(rng, round(at + rng.uniform(0, 1), 2), number % processes, before.intents),
            unified=before.unified,
            retry_failed=True,
            plans=lost,
            stop_after=None,
        )


def _asks_again_at_once(rng: Random, steps: Sequence[Step], processes: int) -> Iterator[Step]:
    """Yield how a key is submitted again right after a refusal that names a task, and the answer is lost."""
    intents = [step.intent for step in steps if isinstance(step, Submit)]
    intents += [intent for step in steps if isinstance(step, Batch) for intent in step.intents]
    at = round(rng.uniform(0, 60), 2)
    first = _submit(rng, at, rng.randrange(processes), max(intents, default=0) + 1, ledger=True)
    busy = CreatePlan(rng.choice(("is busy and names a task", "is overloaded and names a task")), 0.2)
    lost = _lost(rng)
    first = evolve(first, keyed=True, end="failed", seconds=0.1, leave=None, plans=(busy, lost))
    yield first
    later = round(at + rng.uniform(0.3, 3), 2)
    yield evolve(first, at=later, process=rng.randrange(processes), end="done", seconds=20.0, plans=())


@define
class _Author:
    """Makes the steps of a story, each at a time of its own."""

    rng: Random
    processes: int
    ledger: bool = field(kw_only=True)
    intents: int = 0
    submitted: list[Submit] = field(factory=list)
    batches: list[Batch] = field(factory=list)
    spell_over_at: float = 0.0

    def write(self) -> list[Step]:
        """Return the steps, in no order."""
        kinds: list[Callable[[float], Step | None]] = (
            [self._submit] * 8 + [self._batch] * 2 + [self._weather] * 2
        )
        kinds += [self._down, self._freeze, self._jump, self._close]
        if self.ledger:
            kinds += (
                [self._again] * 3 + [self._kill] * 2 + [self._resolve, self._other_request, self._full_disk]
            )
            kinds += [self._batch_again] * 3

        steps = [self.rng.choice(kinds)(self._time()) for _ in range(self.rng.randint(2, 12))]
        if self.ledger and self.rng.random() < 0.03:
            steps.append(MoveLedger(self._time()))
        return [step for step in steps if step is not None]

    def _time(self) -> float:
        return round(self.rng.uniform(0, 60), 2)

    def _process(self) -> int:
        return self.rng.randrange(self.processes)

    def _seconds(self, least: float, most: float) -> float:
        return round(self.rng.uniform(least, most), 1)

    def _submit(self, at: float) -> Step:
        self.intents += 1
        step = _submit(self.rng, at, self._process(), self.intents, ledger=self.ledger)
        self.submitted.append(step)
        return step

    def _again(self, _: float) -> Step | None:
        keyed = [step for step in self.submitted if step.keyed]
        if not keyed:
            return None
        before = self.rng.choice(keyed)
        later = round(before.at + self.rng.uniform(0, 40), 2)
        return evolve(
            before, at=later, process=self._process(), plans=_plans(self.rng), leave=_leave(self.rng)
        )

    def _batch(self, at: float) -> Step:
        first = self.intents + 1
        self.intents += self.rng.randint(1, 6)
        step = _batch(self.rng, at, self._process(), tuple(range(first, self.intents + 1)))
        self.batches.append(step)
        return step

    def _batch_again(self, at: float) -> Step | None:
        if not self.batches:
            return self._batch(at)
        before = self.rng.choice(self.batches)
        later = round(before.at + self.rng.uniform(0, 60), 2)
        again = _batch(self.rng, later, self._process(), before.intents)
        return evolve(again, unified=before.unified, retry_failed=self.rng.random() < 0.7)

    def _weather(self, at: float) -> Step | None:
        if at < self.spell_over_at:
            return None
        kind = self.rng.choice(WEATHERS)
        lasting = kind in LASTING and self.rng.random() < 0.4
        step = Weather(at, self._seconds(2, 40), kind, lasting)
        self.spell_over_at = math.inf if lasting else step.over_at
        return step

    def _down(self, at: float) -> Step:
        return Down(at, self._seconds(0.5, 20), self.rng.random() < 0.3)

    def _full_disk(self, at: float) -> Step:
        return FullDisk(at, self._seconds(0.5, 10))

    def _freeze(self, at: float) -> Step:
        return Freeze(at, self._seconds(1, 90), self._process())

    def _jump(self, at: float) -> Step:
        return Jump(at, self.rng.choice((-86_400.0, -3600.0, -5.0, 5.0, 3600.0)))

    def _close(self, at: float) -> Step:
        return Close(at, self._process())

    def _kill(self, at: float) -> Step:
        return Kill(at, self._process(), self.rng.randint(0, 40))

    def _resolve(self, at: float) -> Step | None:
        intents = [step.intent for step in self.submitted]
        intents += [intent for step in self.batches for intent in step.intents]
        if not intents:
            return None
        return Resolve(round(at + 40, 2), self._process(), self.rng.choice(intents))

    def _other_request(self, at: float) -> Step | None:
        if not self.submitted:
            return None
        return OtherRequest(round(at + 5, 2), self._process(), self.rng.choice(self.submitted).intent)


def _submit(rng: Random, at: float, process: int, intent: int, *, ledger: bool) -> Submit:
    return Submit(
        at,
        process,
        intent,
        keyed=ledger and rng.random() < 0.7,
        unified=rng.random() < 0.5,
        plans=_plans(rng),
        seconds=round(rng.choice((2.0, 8.0, 20.0, 45.0)) * rng.uniform(0.5, 1.5), 1),
        end=rng.choice(("done", "done", "done", "failed")),
        wait=rng.choice((float("inf"), float("inf"), 30.0, 5.0, 0.0)),
        leave=_leave(rng),
    )


def _batch(rng: Random, at: float, process: int, intents: tuple[int, ...]) -> Batch:
    odd = [(intent, plan) for intent in intents for plan in _plans(rng)]
    return Batch(
        at,
        process,
        intents,
        unified=rng.random() < 0.5,
        concurrency=rng.choice((1, 2, 8, "auto")),
        plans=tuple(odd),
        source_fails=rng.random() < 0.2,
        progress_fails=rng.random() < 0.15,
        stop_after=rng.randint(0, len(intents)) if rng.random() < 0.2 else None,
        leave=_leave(rng),
        failing=tuple(intent for intent in intents if rng.random() < 0.35),
    )


def _plans(rng: Random) -> tuple[CreatePlan, ...]:
    if rng.random() < 0.4:
        return ()
    return tuple(_plan(rng) for _ in range(rng.choice((1, 1, 2, 3))))


def _plan(rng: Random) -> CreatePlan:
    answer = rng.choice(ANSWERS).word if rng.random() < 0.6 else "accepts"
    travel = rng.choice(TRAVELS) if rng.random() < 0.6 else "whole"
    delay = rng.choice((0.0, 0.2, 2.0, 25.0, 40.0)) if rng.random() < 0.5 else 0.2
    return CreatePlan(answer, delay, travel, round(rng.uniform(0.01, 0.99), 2))


def _lost(rng: Random) -> CreatePlan:
    """Return how a task is made and its answer is lost."""
    delay = rng.choice((0.2, 2.0, 25.0))
    return CreatePlan("accepts", delay, rng.choice(("dropped", "cut", "stalled")), round(rng.random(), 2))


def _leave(rng: Random) -> Leave | None:
    if rng.random() < 0.75:
        return None
    turns = rng.choice((rng.randint(0, 12), rng.randint(0, 60), rng.randint(0, 400)))
    return Leave(rng.choice(("cancel", "cancel", "scope", "group")), turns)


# -- making it shorter ------------------------------------------------------------------------------------------------


def shrink(story: Story, fails: Callable[[Story], bool], *, tries: int = 400) -> Story:
    """Return a story that still fails and from which nothing more can be taken away."""
    budget = iter(range(tries))
    smaller = True
    while smaller:
        smaller = False
        for candidate in _simpler(story):
            if next(budget, None) is None:
                return story
            if fails(candidate):
                story, smaller = candidate, True
                break
    return story


def _simpler(story: Story) -> Iterator[Story]:
    """Return stories with something less, the boldest cuts first."""
    steps = story.steps
    for size in (len(steps) // 2, len(steps) // 4, 1):
        for start in range(0, len(steps), max(size, 1)) if size else ():
            yield evolve(story, steps=steps[:start] + steps[start + size :])
    if story.webhooks:
        yield evolve(story, webhooks=False)
    if story.alike:
        yield evolve(story, alike=False)
    if story.strangers:
        yield evolve(story, strangers=False)
    if story.shows_models:
        yield evolve(story, shows_models=False)
    if story.processes > 1 and all(getattr(step, "process", 0) == 0 for step in steps):
        yield evolve(story, processes=1)
    for index, step in enumerate(steps):
        for plainer in _plainer(step):
            yield evolve(story, steps=(*steps[:index], plainer, *steps[index + 1 :]))


def _plainer(step: Step) -> Iterator[Step]:
    if isinstance(step, Submit):
        yield from _plainer_submit(step)
    elif isinstance(step, Batch):
        yield from _plainer_batch(step)


def _plainer_submit(step: Submit) -> Iterator[Step]:
    if step.leave is not None:
        yield evolve(step, leave=None)
    for index in range(len(step.plans)):
        yield evolve(step, plans=step.plans[:index] + step.plans[index + 1 :])
    for index, plan in enumerate(step.plans):
        for simple in _plainer_plans(plan):
            yield evolve(step, plans=(*step.plans[:index], simple, *step.plans[index + 1 :]))
    if step.wait != 0.0:
        yield evolve(step, wait=0.0)


def _plainer_batch(step: Batch) -> Iterator[Step]:
    plain: dict[str, Any] = {
        "leave": None,
        "source_fails": False,
        "progress_fails": False,
        "stop_after": None,
        "failing": (),
        "retry_failed": False,
    }
    for name, value in plain.items():
        if getattr(step, name) != value:
            yield evolve(step, **{name: value})
    for index in range(len(step.plans)):
        yield evolve(step, plans=step.plans[:index] + step.plans[index + 1 :])
    if len(step.intents) > 1:
        yield evolve(step, intents=step.intents[:-1])


def _plainer_plans(plan: CreatePlan) -> Iterator[CreatePlan]:
    if plan.answer != "accepts":
        yield evolve(plan, answer="accepts")
    if plan.travel != "whole":
        yield evolve(plan, travel="whole")
    if plan.delay != 0.2:
        yield evolve(plan, delay=0.2)
