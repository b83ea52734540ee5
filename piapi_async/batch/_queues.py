"""Input source and outcome queue of a batch run."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from attrs import define, field

from ..observe._emitter import Events

T = TypeVar("T")


@define(eq=False)
class ItemSource(Generic[T]):
    """The one iterator behind all workers, sync or async, and the position of each item.

    An async iterator is read by one task, an item whenever a worker asks for one, and closed by
    that task: what it opens around its yields, such as a timeout or a task group, must be left in
    the task that entered it.
    """

    _items: Iterable[T] | AsyncIterable[T]
    _sync: Iterator[T] = field(default=iter(()), init=False)
    _reader: asyncio.Task[None] | None = field(default=None, init=False)  # of an async iterator
    _waiting: deque[asyncio.Future[tuple[int, T] | None]] = field(factory=deque, init=False)
    _wanted: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(0), init=False)
    _index: int = field(default=-1, init=False)
    _over: bool = field(default=False, init=False)
    _failure: Exception | None = field(default=None, init=False)  # that was not raised yet

    def __attrs_post_init__(self) -> None:
        if isinstance(self._items, AsyncIterable):
            self._reader = asyncio.create_task(self._read(aiter(self._items)), name="piapi_async batch input")
        else:
            self._sync = iter(self._items)

    def close(self) -> None:
        """Return no more items, and stop waiting for one that does not come."""
        is_first_close = not self._over
        self._over = True
        if is_first_close and self._reader is not None:  # later it may be cleaning up
            self._reader.cancel()

    async def closed(self, patience: float, events: Events) -> None:
        """Wait, for `patience` seconds, until the iterator is closed.

        Log what that raised, or that it is not.
        """
        if self._reader is None:
            return

        await asyncio.wait([self._reader], timeout=patience)
        if not self._reader.done():
            self._reader.cancel()
            text = (
                f"the input of a batch was still busy {patience:g} s after it was closed, and is left alone"
            )
            events.notice(logging.WARNING, text)
        elif self._failure is not None:
            events.notice(
                logging.WARNING, f"the input of a batch failed when it was closed: {self._failure!r}"
            )

    async def next(self) -> tuple[int, T] | None:
        """Return the next item and its position; None at the end of the input, or after `close`.

        Raises what the iterator raised, once; what would be mistaken for something else, as a
        `RuntimeError`.
        """
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._over:
            return None
        if self._reader is not None:
            return await self._wait_for_item()

        try:
            return self._numbered(next(self._sync))
        except StopIteration:
            self._over = True
            return None
        except BaseException as error:
            self._over = True
            if _can_be_raised(error):
                raise
            raise _as_runtime_error(error) from error

    def _numbered(self, item: T) -> tuple[int, T]:
        self._index += 1
        return self._index, item

    async def _wait_for_item(self) -> tuple[int, T] | None:
        future: asyncio.Future[tuple[int, T] | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.release()
        return await future

    # -- in the reader's task ---------------------------------------------------------------------

    async def _read(self, items: AsyncIterator[T]) -> None:
        """Read what workers ask for, close the iterator, and wake those that still wait."""
        try:
            await self._feed(items)
        except StopAsyncIteration:
            pass
        except BaseException as error:
            was_closed = self._over and isinstance(error, asyncio.CancelledError)
            if not was_closed:
                self._failure = _as_failure(error)
            if isinstance(error, _LOUD):
                raise
        finally:
            await self._end(items)

    async def _feed(self, items: AsyncIterator[T]) -> None:
        while True:
            await self._wanted.acquire()
            item = await anext(items)
            if self._over:  # it was cancelled, and yielded once more
                return

            future = self._waiting.popleft()
            if not future.done():
                future.set_result(self._numbered(item))

    async def _end(self, items: AsyncIterator[T]) -> None:
        try:
            await _close(items)
        except BaseException as error:
            self._failure = self._failure or _as_failure(error)
            if isinstance(error, _LOUD):
                raise
        finally:
            self._over = True
            self._wake_all()

    def _wake_all(self) -> None:
        """Tell the workers that still wait that there are no more items.

        The first of them raises a failure.
        """
        for future in self._waiting:
            if future.done():
                continue
            if self._failure is None:
                future.set_result(None)
                continue
            future.set_exception(self._failure)
            self._failure = None


@define(eq=False)
class OutcomeQueue(Generic[T]):
    """Where workers hand over outcomes, each waiting until its own was taken.

    `error` is raised to the reader after the last outcome.
    """

    error: BaseException | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop = field(factory=asyncio.get_running_loop, init=False)  # asked for once
    _offered: deque[tuple[T, asyncio.Future[None]]] = field(factory=deque, init=False)
    _closed: bool = field(default=False, init=False)
    _changed: asyncio.Event = field(factory=asyncio.Event, init=False)

    def offer(self, outcome: T) -> asyncio.Future[None]:
        """Offer an outcome; return a future that is resolved once the reader has taken it."""
        taken: asyncio.Future[None] = self._loop.create_future()
        self._offered.append((outcome, taken))
        self._changed.set()
        return taken

    def untaken(self) -> list[T]:
        """Return the outcomes that were offered and not taken."""
        return [outcome for outcome, _ in self._offered]

    def close(self) -> None:
        """End the stream after the outcomes that are offered now."""
        self._closed = True
        self._changed.set()

    async def outcomes(self) -> AsyncGenerator[T, None]:
        """Yield outcomes until the queue is closed, then raise `error` if there is one."""
        while True:
            while self._offered:
                outcome, taken = self._offered.popleft()
                if not taken.done():
                    taken.set_result(None)
                yield outcome

            if self._closed:
                break
            self._changed.clear()
            await self._changed.wait()

        if self.error is not None:
            raise self.error


async def _close(items: AsyncIterator[Any]) -> None:
    """Close an async iterator, if it can be closed."""
    aclose = getattr(items, "aclose", None)
    if aclose is not None:
        await aclose()


_LOUD = (KeyboardInterrupt, SystemExit)


def _can_be_raised(error: BaseException) -> bool:
    """Return whether an error means the same if it is raised in another task."""
    if isinstance(error, _LOUD):
        return True
    return isinstance(error, Exception) and not isinstance(error, StopIteration)


def _as_failure(error: BaseException) -> Exception:
    if isinstance(error, Exception) and _can_be_raised(error):
        return error
    return _as_runtime_error(error)


def _as_runtime_error(error: BaseException) -> Exception:
    """Return the failure of an input that raised what would be mistaken for something else.

    Raised as it is, a `CancelledError` would cancel the task that reads the outcomes.
    """
    failure = RuntimeError(f"the input of a batch raised {error!r}")
    failure.__cause__ = error
    return failure
