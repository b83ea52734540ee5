"""The tasks that a client has submitted of late: no two submissions share one.  Pure."""

from __future__ import annotations

from attrs import define, field

from ..tasks import TaskId

_REMEMBERED = 10_000


@define(eq=False)
class KnownIds:
    """The tasks of a client's latest submissions, ten thousand at least.

    They are kept as hashes, so that no host decides how much memory they take, in two generations
    of which the older is dropped when the younger is full.
    """

    _young: set[int] = field(factory=set, init=False)
    _old: set[int] = field(factory=set, init=False)

    def has(self, task_id: TaskId) -> bool:
        """Return whether a task is known, of whatever family: all share the host's connections."""
        mark = hash(task_id)
        return mark in self._young or mark in self._old

    def take(self, task_id: TaskId) -> bool:
        """Note the task of a submission; return whether it was new."""
        mark = hash(task_id)
        if mark in self._young or mark in self._old:
            return False

        if len(self._young) >= _REMEMBERED:
            self._old = self._young
            self._young = set()
        self._young.add(mark)
        return True
