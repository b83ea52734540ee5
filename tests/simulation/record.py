"""What is known of a life: what each user was told, and what was seen to be wrong while it was played."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

from attrs import define, field

from piapi_async import PiAPIError, SubmissionUnknown, TaskRef

from .host import Host
from .story import Story
from .world import World


@define(eq=False)
class Attempt:
    """What one user was told of one submission."""

    intent: int
    process: int
    keyed: bool
    life: int
    client: int  # which of the clients of that life was called
    state: str = "started"  # accepted, refused, unknown, not sent, closed, cancelled, reused, ledger, odd
    task_id: str = ""
    error: str = ""
    accepted_at: float = 0.0
    ended: str = ""  # how its wait ended
    ended_at: float = 0.0
    waiting: bool = False
    timeout: float | None = None
    waited_from: float = 0.0
    called_at: float = 0.0
    cancels: bool = False  # whether who leaves has the task cancelled
    left: str = ""  # while doing what its user left
    left_at: float = 0.0
    saved: str = ""  # whole, DownloadError
    ref: TaskRef | None = None

    @property
    def caller(self) -> tuple[int, int, int]:
        """Which of all clients was called."""
        return self.process, self.life, self.client


@define(eq=False)
class Record:
    """All that is known at the end of a life."""

    story: Story
    world: World
    host: Host
    attempts: list[Attempt] = field(factory=list)
    resent: dict[int, int] = field(factory=dict)  # how often a person allowed an intent to be sent again
    # how often somebody asked for another attempt if it failed
    retries: Counter[int] = field(factory=Counter)
    delivered: defaultdict[str, set[tuple[int, int]]] = field(factory=lambda: defaultdict(set))
    """To which lives of which processes the end of a task was delivered."""
    accepted: defaultdict[tuple[int, int, str], list[float]] = field(factory=lambda: defaultdict(list))
    """When a life of a process learnt that it has a task, as its client's observer was told."""
    cancel_asked: set[int] = field(factory=set)
    """The subjects whose tasks somebody has asked to be cancelled."""
    log: list[str] = field(factory=list)
    wrong: list[str] = field(factory=list)  # what was seen to be wrong while it was played
    dead_lives: set[tuple[int, int]] = field(factory=set)
    ledger_rows: dict[str, tuple[str, str | None]] | None = None
    # by key the tasks of the attempts before the last
    ledger_attempts: dict[str, list[str]] = field(factory=dict)
    # the tasks that refusals have named
    ledger_refused: set[str] = field(factory=set)
    ledger_moved: bool = False
    healed_at: float = 0.0

    def has_twin(self, intent: int) -> bool:
        """Return whether another intent asks for the same."""
        subject_of = self.story.subject
        return any(
            other != intent and subject_of(other) == subject_of(intent) for other in self.story.intents
        )


@define(eq=False)
class Part:
    """A part of what has a life happen: it notes in the record, and reaches the world and the host through it."""

    record: Record

    @property
    def world(self) -> World:
        """Where it happens."""
        return self.record.world

    @property
    def host(self) -> Host:
        """The service of that world."""
        return self.record.host


def failure_state(error: BaseException) -> str:
    """Return what an exception tells a user about the submission."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, SubmissionUnknown):
        return "unknown"
    if isinstance(error, PiAPIError):
        name = type(error).__name__
        return {"TransportError": "not sent", "ClientClosed": "closed", "LedgerError": "ledger"}.get(
            name, "refused"
        )
    return "reused" if isinstance(error, ValueError) else "odd"
