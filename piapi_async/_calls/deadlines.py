"""Time limits of requests, all on one timer of the event loop.

aiohttp sets a timer for each request and guards every step with it, which costs a twentieth of the
whole request.  Here a limit is an entry in a set, and the one timer is set to the first of them; it
stays set when that is left, so that requests one after the other do not set it again and again.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
from types import TracebackType

from attrs import define, field


@define(eq=False)
class Deadlines:
    """The limits of what is under way in one event loop."""

    _open: set[Deadline] = field(factory=set, init=False)
    _timer: asyncio.TimerHandle | None = field(default=None, init=False)
    _timer_at: float = field(default=math.inf, init=False)
    _closed: bool = field(default=False, init=False)
    # The timer serves every caller, so it must not hold the context of the one who came first.
    _context: contextvars.Context = field(factory=contextvars.Context, init=False)

    def within(self, seconds: float) -> Deadline:
        """Return a context manager that bounds its block as `asyncio.timeout` does, from now on.

        A block that takes longer is cancelled, and raises `TimeoutError`.
        """
        loop = asyncio.get_running_loop()
        return Deadline(self, loop.time() + seconds, loop)

    def add(self, deadline: Deadline) -> None:
        """Watch over a block from now on."""
        self._open.add(deadline)
        if deadline.at < self._timer_at:
            self._set_timer(deadline.at)

    def discard(self, deadline: Deadline) -> None:
        """Forget a block that was left."""
        self._open.discard(deadline)
        if self._closed and not self._open:
            self._set_timer(math.inf)

    def close(self) -> None:
        """Leave nothing in the loop once the blocks that are open now are left."""
        self._closed = True
        if not self._open:
            self._set_timer(math.inf)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

        self._timer_at = at
        if at < math.inf:
            self._timer = asyncio.get_running_loop().call_at(at, self._expire, context=self._context)

    def _expire(self) -> None:
        """Cancel the blocks whose time is up."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for deadline in self._open:
            if deadline.at <= now:
                # In the next turn, as what the loop has read in this one comes first: a process that
                # stood still takes the response that has come meanwhile.
                loop.call_soon(deadline.expire)

        left = [deadline.at for deadline in self._open if deadline.at > now]
        self._set_timer(min(left, default=math.inf))


@define(eq=False)
class Deadline:
    """The limit of one block; `at` is a time of the loop."""

    _all: Deadlines
    at: float
    _loop: asyncio.AbstractEventLoop  # asking for it is a system call before Python 3.12
    _task: asyncio.Task[object] | None = field(default=None, init=False)  # while it is in the block
    _cancelling: int = field(default=0, init=False)
    _expired: bool = field(default=False, init=False)

    def __enter__(self) -> None:
        self._task = task = asyncio.current_task(self._loop)
        if task is None:
            raise RuntimeError("a time limit needs a task")
        self._cancelling = task.cancelling()
        self._all.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        self._all.discard(self)
        if not self._expired or task is None:
            return

        # Somebody else may have cancelled the task as well.
        is_ours = task.uncancel() <= self._cancelling
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the block, once, unless it was left; it may take its time to end."""
        if self._task is not None and not self._expired:
            self._expired = True
            self._task.cancel()
