"""What is known of a webhook delivery, how a client gets them, and what a submission under way expects."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from attrs import define, field, frozen

from .._protocol.family import Family
from ..tasks import TaskId, TaskState

_MOST_CANDIDATES = 8  # tasks that deliveries may name for one lost submission


class Delivery(Protocol):
    """What is to be known of a webhook delivery."""

    @property
    def task_id(self) -> TaskId:
        """The task it names."""
        ...

    @property
    def state(self) -> TaskState:
        """What its status means."""
        ...

    @property
    def family(self) -> str:
        """The name of the protocol it speaks."""
        ...

    @property
    def raw(self) -> Mapping[str, Any]:
        """The task's JSON."""
        ...

    @property
    def nonce(self) -> str:
        """The nonce it came with, "" if none."""
        ...

    @property
    def digest(self) -> bytes:
        """What tells it from other deliveries."""
        ...


@frozen(kw_only=True, eq=False, repr=False)
class WebhookSettings:
    """How a client gets its webhooks; see `WebhookReceiver`."""

    secret: str = field(repr=False)
    url: str
    confirm: bool
    adopt_timeout: float


@define(eq=False, repr=False)
class ExpectedDelivery:
    """What a submission under way expects: `candidates` are the tasks that deliveries with its nonce name.

    None among them says that there will be no more.
    """

    family: Family[Any]
    nonce: str
    candidates: asyncio.Queue[TaskId | None] = field(factory=asyncio.Queue)

    def name(self, task_id: TaskId) -> None:
        """Name a task; a host that names more than a few means no good."""
        if self.candidates.qsize() < _MOST_CANDIDATES:
            self.candidates.put_nowait(task_id)

    def give_up(self) -> None:
        """Say that no more will be named."""
        self.candidates.put_nowait(None)
