"""Whether a run may submit one more item: by number, and by what it costs."""

from __future__ import annotations

import math
from typing import Any

from attrs import define

from .._protocol.family import TaskRequest
from .._runtime import Runtime
from ..ledger._entries import SubmissionKey
from ._budget import Budget


@define(eq=False)
class Allowance:
    """The submissions that are left, and the budget that they are paid from."""

    budget: Budget
    _submits_left: float
    _runtime: Runtime

    @property
    def is_limited(self) -> bool:
        """Whether there is any limit."""
        return self.budget.limit is not None or self._submits_left < math.inf

    async def covers(self, index: int, request: TaskRequest[Any], identity: SubmissionKey | None) -> bool:
        """Take what an item needs, and return whether there was enough; one that the ledger knows needs none.

        Raises `LimitError`, and `ClientClosed`.
        """
        if identity is not None and await self._runtime.recorded(identity.key) is not None:
            return True
        return await self.take(index, request)

    async def take(self, index: int, request: TaskRequest[Any]) -> bool:
        """Take a submission, and return whether one was left that can be paid for.  Raises `LimitError`."""
        if self._submits_left < 1 or not await self.budget.reserve(index, request):
            return False

        self._submits_left -= 1
        if self._submits_left < 0:  # others took them while this item waited for the budget
            self.budget.release(index)
            return False
        return True
