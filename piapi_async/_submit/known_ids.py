"""The tasks that a client has submitted of late: no two submissions share one.  Pure."""

from __future__ import annotations

from attrs import define, field

from ..tasks import TaskId

_GENERATION = 5000


@define(eq=False, repr=False)
class KnownIds:
    """The tasks of a client's latest submissions, ten thousand at least.

    They are kept as hashes, so that no host decides how much memory they take, in three generations
    of which the oldest is dropped when the youngest is full.  (Each is a dict, which takes a quarter
    of the memory that a set does.)
    """

    _young: dict[int, None] = field(factory=dict, init=False)
    _old: dict[int, None] = field(factory=dict, init=False)
    _oldest: dict[int, None] = field(factory=dict, init=False)

    def __len__(self) -> int:
        """Return the number of tasks that are remembered."""
        return len(self._young) + len(self._old) + len(self._oldest)

    def has(self, task_id: TaskId) -> bool:
        """Return whether a task is known, of whatever family: all share the host's connections."""
        mark = hash(task_id)
        return mark in self._young or mark in self._old or mark in self._oldest

    def take(self, task_id: TaskId) -> bool:
        """Note the task of a submission; return whether it was new."""
        mark = hash(task_id)
        if mark in self._young or mark in self._old or mark in self._oldest:
            return False

        if len(self._young) >= _GENERATION:
            self._young, self._old, self._oldest = {}, self._young, self._old
        self._young[mark] = None
        return True
