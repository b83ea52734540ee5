"""What the service saw of its clients: the counts a test asserts on and a developer watches.  Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence

from attrs import Factory, define, frozen

from .tasks import ENDS, Task

#: How many emulated deliveries and how many seconds of request counts are remembered.
RECENT = 10_000
#: How many ids of no task, and how many texts of refusals, are counted apart, and how long one may be: they are what
#: clients make up, without bound.
STRANGERS, LONGEST = 1_000, 200
#: What all others are counted as.
OTHERS = "(others)"


@frozen
class Delivery:
    """One webhook post: what was sent when (emulated seconds), and the status that came back (0 = no answer).

    `lost`: it was never sent; `kept_back`: because its host is none that this emulator posts to.
    """

    task_id: str
    endpoint: str
    status_word: str
    attempt: int
    at: float
    answer: int = 0
    lost: bool = False
    kept_back: bool = False


@define
class Seen:
    """Everything counted since the start, by route name ("reroll", "fetch", "task_create", "task_read", "image" ...).

    `polls` counts looks per task id, those at the first unknown ids included (`OTHERS`: at the rest); `ids_per_request`
    how many reads asked for how many ids; `keys_to_images` counts requests for pictures and files that carried an API
    key, which none should.  `detection` is, per task, the emulated seconds from its end to the first read that showed
    it.
    """

    requests: Counter[str] = Factory(Counter)
    statuses: Counter[int] = Factory(Counter)
    faults: Counter[str] = Factory(Counter)
    creates_by_parent: Counter[str] = Factory(Counter)
    creates_by_key: Counter[str] = Factory(Counter)
    refused: Counter[str] = Factory(Counter)
    keys_to_images: int = 0
    polls: Counter[str] = Factory(Counter)
    ids_per_request: Counter[int] = Factory(Counter)
    detection: dict[str, float] = Factory(dict)
    deliveries: deque[Delivery] = Factory(lambda: deque(maxlen=RECENT))
    _strangers: int = 0

    @property
    def creates(self) -> int:
        """How many tasks were made, answered or not."""
        return self.creates_by_key.total()

    @property
    def reads(self) -> int:
        """How many reads there were, of one task or of many."""
        return self.ids_per_request.total()

    def created(self, task: Task, key: str) -> None:
        """Note a task that was made."""
        self.creates_by_key[key] += 1
        if task.origin:
            self.creates_by_parent[task.origin] += 1

    def asked(self, task_ids: Sequence[str], known: Container[str]) -> None:
        """Note one read and the ids it asked for, some of which are `known`."""
        self.ids_per_request[len(task_ids)] += 1
        for task_id in task_ids:
            self.polls[task_id if task_id in known else self._stranger(task_id)] += 1

    def _stranger(self, task_id: str) -> str:
        """Return what an id of no task is counted as."""
        if task_id in self.polls:
            return task_id
        if self._strangers >= STRANGERS or len(task_id) > LONGEST:
            return OTHERS
        self._strangers += 1
        return task_id

    def refuse(self, message: str) -> None:
        """Note a refusal."""
        message = message[:LONGEST]
        known = message in self.refused or len(self.refused) < STRANGERS
        self.refused[message if known else OTHERS] += 1

    def shown(self, task: Task, now: float) -> None:
        """Note a task as a read showed it: the first time in its end state is its detection."""
        if task.ended is not None and task.stage in ENDS:
            self.detection.setdefault(task.task_id, now - task.ended)

    def delays(self) -> dict[str, float | None]:
        """Return of the detection delays how many there are, the mean, the 95th percentile and the worst."""
        delays = sorted(self.detection.values())
        if not delays:
            return {"tasks": 0, "mean": None, "p95": None, "worst": None}
        p95 = delays[int(0.95 * (len(delays) - 1))]
        return {"tasks": len(delays), "mean": sum(delays) / len(delays), "p95": p95, "worst": delays[-1]}

    def stats(self) -> dict[str, object]:
        """Return the counts as JSON-ready values."""
        return {
            "requests": dict(self.requests),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "faults": dict(self.faults),
            "creates": self.creates,
            "creates_by_key": dict(self.creates_by_key),
            "creates_by_parent": dict(self.creates_by_parent),
            "refused": dict(self.refused),
            "keys_to_images": self.keys_to_images,
            "polls": dict(self.polls),
            "ids_per_request": {str(size): count for size, count in sorted(self.ids_per_request.items())},
            "detection": self.delays(),
            "deliveries": {
                "sent": len(self.deliveries),
                "received": sum(delivery.answer == 200 for delivery in self.deliveries),  # noqa: PLR2004 - HTTP's OK
                "lost": sum(delivery.lost for delivery in self.deliveries),
            },
        }
