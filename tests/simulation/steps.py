"""The steps of a story: what users, processes, the host and the clock do, each at its time.  Values, in words."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from .plans import CreatePlan, FilePlan

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
    runs: bool = False
    """Whether it calls `run`, unless it does not wait."""
    files: FilePlan | None = None
    """How the pictures travel, if they are saved."""
    cancels: bool = False
    """Whether a user who leaves has the task cancelled."""

    @property
    def words(self) -> str:
        key = f" under key {self.intent}" if self.keyed else ""
        plans = "; ".join(plan.words for plan in self.plans)
        plans = f" ({plans})" if plans else ""
        leave = self.leave.words if self.leave else ""
        wait = "" if self.wait == float("inf") else f", waits {self.wait:g} s"
        verb = "runs" if self.runs and self.wait else "submits"
        saves = f", saves ({self.files.words})" if self.files else ""
        cancels = ", with the task cancelled" if self.cancels else ""
        return f"process {self.process} {verb} intent {self.intent}{key}{plans}{wait}{saves}{leave}{cancels}"


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
    fails_after: float = 20.0
    retry_failed: bool = False
    max_cost: float | None = None
    price: float = 0.0
    files: FilePlan | None = None

    @property
    def words(self) -> str:
        plans = "; ".join(f"{intent}: {plan.words}" for intent, plan in self.plans)
        notes = [f"{self.concurrency} at once"]
        if self.failing:
            notes.append(f"tasks of {list(self.failing)} will fail after {self.fails_after:g} s")
        notes += ["what failed is submitted anew"] * self.retry_failed
        notes += ["its source raises at the end"] * self.source_fails
        notes += ["its progress callback raises"] * self.progress_fails
        if self.max_cost is not None:
            notes.append(f"for {self.max_cost:g} points at most, at {self.price:g} each")
        if self.files is not None:
            notes.append(f"saved ({self.files.words})")
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
class CancelTask(Step):
    """A user asks for the task of an intent to be cancelled."""

    process: int
    intent: int

    @property
    def words(self) -> str:
        return f"process {self.process} has the task of intent {self.intent} cancelled"


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
class Recover(Step):
    """A service looks for all that is unknown."""

    process: int

    @property
    def words(self) -> str:
        return f"process {self.process} looks for all that is unknown"


@frozen
class Compact(Step):
    """Somebody makes the ledger smaller: all may be left out that ever can be."""

    @property
    def words(self) -> str:
        return "somebody compacts the ledger"
