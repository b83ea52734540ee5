"""What the service observed of its clients: the counts that tests assert on and developers watch.  Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence

from attrs import Factory, define, frozen

from .tasks import END_STAGES, Task

#: How many deliveries are remembered.
RECENT = 10_000
#: How many unknown ids and how many texts of refusals are counted one by one, and how long each may
#: be: clients make them up, without bound.
STRANGERS, LONGEST = 1_000, 200
#: What all others are counted as.
OTHERS = "(others)"


@frozen
class Delivery:
    """One webhook POST: what was sent when, and the status of the response.

    `at` is in emulated seconds, `answer` is the HTTP status, 0 if there was no response.
    `lost`: it was never sent; `kept_back`: because this emulator does not post to that host.
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
    """Everything counted since the start.

    `requests` are by the names of routes ("reroll", "fetch", "task_create", "image" …).
    `polls` counts reads per task id, those of the first unknown ids included (`OTHERS`: of the
    rest); `ids_per_request` counts how many reads asked for how many ids; `keys_to_images` counts
    requests for pictures and files that carried an API key, which none should.  `detection` is, per
    task, the emulated seconds from its end to the first read that showed it.
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
        """How many tasks were created, whether or not the client got the response."""
        return self.creates_by_key.total()

    @property
    def reads(self) -> int:
        """How many reads there were, of one task or of many."""
        return self.ids_per_request.total()

    def count_create(self, task: Task, key: str) -> None:
        """Count a task that was created."""
        self.creates_by_key[key] += 1
        if task.origin:
            self.creates_by_parent[task.origin] += 1

    def count_read(self, task_ids: Sequence[str], known: Container[str]) -> None:
        """Count one read and the ids it asked for, some of which are `known`."""
        self.ids_per_request[len(task_ids)] += 1
        for task_id in task_ids:
            self.polls[task_id if task_id in known else self._stranger(task_id)] += 1

    def _stranger(self, task_id: str) -> str:
        """Return what an unknown id is counted as."""
        if task_id in self.polls:
            return task_id
        if self._strangers >= STRANGERS or len(task_id) > LONGEST:
            return OTHERS

        self._strangers += 1
        return task_id

    def count_refusal(self, message: str) -> None:
        """Count a refusal."""
        message = message[:LONGEST]
        if message not in self.refused and len(self.refused) >= STRANGERS:
            message = OTHERS
        self.refused[message] += 1

    def note_shown(self, task: Task, now: float) -> None:
        """Note a task as a read showed it: the first time in its end state is its detection."""
        if task.ended is not None and task.stage in END_STAGES:
            self.detection.setdefault(task.task_id, now - task.ended)

    def delays(self) -> dict[str, float | None]:
        """Return how many detections there are, and mean, 95th percentile and worst of their delays."""
        delays = sorted(self.detection.values())
        if not delays:
            return {"tasks": 0, "mean": None, "p95": None, "worst": None}

        return {
            "tasks": len(delays),
            "mean": sum(delays) / len(delays),
            "p95": delays[int(0.95 * (len(delays) - 1))],
            "worst": delays[-1],
        }

    def stats(self) -> dict[str, object]:
        """Return the counts as JSON-ready values."""
        deliveries = {
            "sent": len(self.deliveries),
            "received": sum(delivery.answer == 200 for delivery in self.deliveries),  # noqa: PLR2004 - OK
            "lost": sum(delivery.lost for delivery in self.deliveries),
        }
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
            "deliveries": deliveries,
        }
