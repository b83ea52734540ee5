"""Submissions that are looked for, and what comes of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from attrs import define, field, frozen

from ..ledger._recovery import Taken
from ..tasks import TaskId, TaskRef
from .recovery import Lost
from .submission import Submission

FIRST_PAUSE = 1.0
"""Seconds until the first look; each further pause is twice as long."""


@frozen(eq=False, repr=False)
class Finding:
    """What came of looking for a submission: its task, or tasks that fit and are too many.

    `trouble` is why the last look was none, "" if it was made; `is_final` tells that it saw why no
    later look will find more.
    """

    task_id: TaskId | None = None
    how: str = ""
    candidates: tuple[str, ...] = ()
    trouble: str = ""
    is_final: bool = False

    def refs(self, origin: str, family: str) -> tuple[TaskRef, ...]:
        """Return references to the candidates."""
        return tuple(TaskRef(origin, family, TaskId(task_id)) for task_id in self.candidates)


NOTHING = Finding()


Take = Callable[[TaskId], Awaitable[Taken]]


@define(eq=False, repr=False)
class Search:
    """One submission that is looked for; `lost` may change while the host's clock is not known.

    `mark` tells it from all others: two attempts of one `key` may be looked for at the same time.
    """

    mark: str
    key: str
    family: str
    lost: Callable[[], Lost]
    take: Take
    submission: Submission | None = None
    deadline: float = math.inf
    due: float = 0.0
    pause: float = FIRST_PAUSE
    candidates: tuple[str, ...] = ()
    trouble: str = ""
    obstacle: str = ""
    """Why no later look will find its task, "" if one may."""
    is_hopeless: bool = False
    """Whether two looks in a row have met with it: the first may have seen a stranger's task alone."""
    finding: asyncio.Future[Finding] = field(factory=lambda: asyncio.get_running_loop().create_future())

    def met_with(self, obstacle: str) -> None:
        """Note what a look has met with, "" for nothing."""
        self.is_hopeless = bool(obstacle and self.obstacle)
        self.obstacle = obstacle

    def give_up(self) -> None:
        """Tell the one who waits that its task was not found."""
        trouble = self.trouble or self.obstacle
        self.settle(Finding(candidates=self.candidates, trouble=trouble, is_final=bool(self.obstacle)))

    def settle(self, finding: Finding) -> None:
        """Tell the one who waits, if anybody still does."""
        if not self.finding.done():
            self.finding.set_result(finding)


async def first_found(searches: Sequence[Coroutine[Any, Any, Finding]]) -> Finding:
    """Return the first task that one of several searches finds; if none does, what they came to."""
    if len(searches) == 1:
        return await searches[0]

    tasks = [asyncio.create_task(search, name="piapi_async search") for search in searches]
    try:
        waiting = set(tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done() and task.result().task_id is not None:
                    return task.result()
        findings = [task.result() for task in tasks]
        candidates = tuple(candidate for finding in findings for candidate in finding.candidates)
        trouble = "; ".join(finding.trouble for finding in findings if finding.trouble)
        return Finding(candidates=candidates, trouble=trouble)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
