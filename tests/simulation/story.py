"""A story: the steps of one simulated life, made from a seed, told in words, and made shorter.

Everything random about a life is decided here, when its story is made; playing a story is deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from attrs import define, evolve, field, frozen

from .answers import ANSWERS
from .habits import capped_batch, habits
from .plans import EARLY_FATES, LAST_FATES, LASTING, PASSING_FATES, TRAVELS, WEATHERS, CreatePlan, FilePlan
from .steps import (
    OTHER,
    Batch,
    CancelTask,
    Close,
    Compact,
    Down,
    Freeze,
    FullDisk,
    Jump,
    Kill,
    Leave,
    MoveLedger,
    OtherRequest,
    Recover,
    Resolve,
    Step,
    Submit,
    Weather,
)


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
    legnext: bool = False
    """Whether the host is the other vendor's: no history, no multi-fetch, ids in bare objects."""

    def subject(self, intent: int) -> int:
        """Return the number that stands in the prompt of an intent."""
        if self.alike and intent < OTHER:
            return intent - (intent + 1) % 2
        return intent

    def model_number(self, intent: int) -> int:
        """Return the number in the model of an intent's request: those of a batch with a limit are of one kind."""
        for step in self.steps:
            if isinstance(step, Batch) and step.max_cost is not None and intent in step.intents:
                return self.subject(step.intents[0])
        return self.subject(intent)

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
        others += ", at LegNext" if self.legnext else ""
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
    steps = sorted([*steps, *habits(others, steps, processes, ledger=ledger)], key=lambda step: step.at)
    if alike:  # of one protocol, as only then they can be taken for each other
        steps = [evolve(step, unified=True) if isinstance(step, (Submit, Batch)) else step for step in steps]
    later = Random(f"later {seed}")
    legnext = later.random() < 0.15
    steps = [evolve(step, runs=later.random() < 0.25) if isinstance(step, Submit) else step for step in steps]
    if ledger and later.random() < 0.25:
        recover = Recover(round(later.uniform(10, 120), 2), later.randrange(processes))
        steps = sorted([*steps, recover], key=lambda step: step.at)
    steps = _with_extras(Random(f"extras {seed}"), steps, processes, ledger=ledger)
    if legnext:  # which has one protocol
        steps = [evolve(step, unified=False) if isinstance(step, (Submit, Batch)) else step for step in steps]
    return Story(seed, processes, ledger, webhooks, tuple(steps), alike, strangers, shows_models, legnext)


def _with_extras(rng: Random, steps: list[Step], processes: int, *, ledger: bool) -> list[Step]:
    """Return the steps of a story, some with files to save, tasks to cancel, a limit to their costs."""
    saves = rng.random() < 0.3
    steps = [_with_extra(rng, step, saves=saves) for step in steps]
    submitted = [step for step in steps if isinstance(step, Submit)]
    if submitted and rng.random() < 0.2:
        step = rng.choice(submitted)
        later = round(step.at + rng.choice((0.5, 2.0, 8.0, 25.0)), 2)
        steps.append(CancelTask(later, step.process, step.intent))
    if rng.random() < 0.1:
        steps.append(capped_batch(rng, steps, processes))
    if ledger and rng.random() < 0.05:
        at, process = round(rng.uniform(20, 120), 2), rng.randrange(processes)
        steps += [Recover(at, process), Close(at + rng.choice((0.0, 0.001, 0.002, 0.004)), process)]
    return sorted(steps, key=lambda step: step.at)


def _with_extra(rng: Random, step: Step, *, saves: bool) -> Step:
    files = _file_plan(rng) if saves and rng.random() < 0.6 else None
    if isinstance(step, Submit):
        cancels = step.leave is not None and rng.random() < 0.4
        return evolve(step, files=files if step.wait else None, cancels=cancels)
    if isinstance(step, Batch):
        return evolve(step, files=files)
    return step


def _file_plan(rng: Random) -> FilePlan:
    fates = tuple(rng.choice(PASSING_FATES) for _ in range(rng.choice((0, 1, 1, 2))))
    at_last = "whole"
    if rng.random() < 0.2:
        fates = (*fates, rng.choice(EARLY_FATES))
    elif rng.random() < 0.2:
        at_last = rng.choice(LAST_FATES)
    return FilePlan(
        fates,
        at_last,
        picture=rng.choice((None, 0, 3, 3)),
        resumes=rng.random() < 0.7,
        changes=rng.random() < 0.2,
        lies=rng.choice((0, 0, 0, 0, 1, 70)),
    )


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
    for name in ("webhooks", "alike", "strangers", "shows_models", "legnext"):
        if getattr(story, name):
            without: dict[str, Any] = {name: False}
            yield evolve(story, **without)
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
    plain: dict[str, Any] = {"runs": False, "files": None, "cancels": False}
    for name, value in plain.items():
        if getattr(step, name) != value:
            yield evolve(step, **{name: value})


def _plainer_batch(step: Batch) -> Iterator[Step]:
    plain: dict[str, Any] = {
        "leave": None,
        "source_fails": False,
        "progress_fails": False,
        "stop_after": None,
        "failing": (),
        "retry_failed": False,
        "files": None,
        "max_cost": None,
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
