"""Where the workers of a batch take the next item, and where they hand over what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any, Generic, TypeVar

from attrs import define, field

logger = logging.getLogger("piapi_async")

T = TypeVar("T")


@define(eq=False)
class Source(Generic[T]):
    """The one iterator behind all workers, sync or async, with the position of each item.

    An async iterator is read by one task, an item whenever a worker asks for one, and closed by that task: what it
    opens around its yields, a time-out or a task group, must be left in the task that entered it.
    """

    _requests: Iterable[T] | AsyncIterable[T]
    _reader: asyncio.Task[None] | None = field(default=None, init=False)
    _sync: Iterator[T] = field(default=iter(()), init=False)
    _asking: deque[asyncio.Future[tuple[int, T] | None]] = field(factory=deque, init=False)
    _asked: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(0), init=False)
    _index: int = field(default=-1, init=False)
    _over: bool = field(default=False, init=False)
    _failure: Exception | None = field(default=None, init=False)  # of which nobody has heard yet

    def __attrs_post_init__(self) -> None:
        if isinstance(self._requests, AsyncIterable):
            self._reader = asyncio.create_task(self._read(aiter(self._requests)), name="piapi_async batch input")
        else:
            self._sync = iter(self._requests)

    def close(self) -> None:
        """Give nothing more, and do not wait for what does not come."""
        if not self._over and self._reader is not None:  # once only: it may be cleaning up already
            self._reader.cancel()
        self._over = True

    async def closed(self, patience: float) -> None:
        """Wait until the iterator has been closed, for so many seconds; log what that raised, or that it is not."""
        if self._reader is None:
            return
        await asyncio.wait([self._reader], timeout=patience)
        if not self._reader.done():
            self._reader.cancel()
            logger.warning("the input of a batch was still busy %g s after it was closed, and is left alone", patience)
        elif self._failure is not None:
            logger.warning("the input of a batch failed when it was closed: %r", self._failure)

    async def next(self) -> tuple[int, T] | None:
        """Give the next item and its position; None when there is none, or none is wanted."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._over:
            return None
        if self._reader is not None:
            return await self._ask()
        try:
            return self._numbered(next(self._sync))
        except StopIteration:
            self._over = True
            return None
        except BaseException as error:
            self._over = True
            if _is_plain(error):
                raise
            raise _its_own(error) from error

    def _numbered(self, item: T) -> tuple[int, T]:
        self._index += 1
        return self._index, item

    async def _ask(self) -> tuple[int, T] | None:
        asking: asyncio.Future[tuple[int, T] | None] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        self._asked.release()
        return await asking

    async def _read(self, items: AsyncIterator[T]) -> None:
        """Read what is asked for, close the iterator, and tell whoever still asks that it is over, or why."""
        try:
            await self._feed(items)
        except StopAsyncIteration:
            pass
        except BaseException as error:
            # Stopped by `close`, it has not failed.
            if not (self._over and isinstance(error, asyncio.CancelledError)):
                self._failure = _as_failure(error)
            if isinstance(error, _LOUD):
                raise
        finally:
            await self._end(items)

    async def _end(self, items: AsyncIterator[T]) -> None:
        try:
            await _close(items)
        except BaseException as error:
            self._failure = self._failure or _as_failure(error)
            if isinstance(error, _LOUD):
                raise
        finally:
            self._over = True
            self._answer_all()

    async def _feed(self, items: AsyncIterator[T]) -> None:
        while True:
            await self._asked.acquire()
            item = await anext(items)
            if self._over:  # it was asked to stop, and gave one more
                return
            asking = self._asking.popleft()
            if not asking.done():
                asking.set_result(self._numbered(item))

    def _answer_all(self) -> None:
        for asking in self._asking:
            if asking.done():
                continue
            if self._failure is not None:
                asking.set_exception(self._failure)
                self._failure = None
            else:
                asking.set_result(None)


async def _close(items: AsyncIterator[Any]) -> None:
    """Close an async iterator, if it can be."""
    aclose = getattr(items, "aclose", None)
    if aclose is not None:
        await aclose()


_LOUD = (KeyboardInterrupt, SystemExit)


def _is_plain(error: BaseException) -> bool:
    """Tell whether an error can be raised on, from one task to another."""
    return isinstance(error, _LOUD) or (isinstance(error, Exception) and not isinstance(error, StopIteration))


def _as_failure(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) and _is_plain(error) else _its_own(error)


def _its_own(error: BaseException) -> Exception:
    """Return the failure of an input that raised what would be taken for something else.

    Raised on as it is, a `CancelledError` would cancel whoever reads the outcomes.
    """
    failure = RuntimeError(f"the input of a batch raised {error!r}")
    failure.__cause__ = error
    return failure


@define(eq=False)
class Desk(Generic[T]):
    """Where workers hand over outcomes; each waits until its own was taken.  An `error` is told after the last one."""

    _workers: int
    error: Exception | None = field(default=None, init=False)
    _offered: deque[tuple[T, asyncio.Future[None]]] = field(factory=deque, init=False)
    _news: asyncio.Event = field(factory=asyncio.Event, init=False)

    async def hand_over(self, outcome: T) -> None:
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._offered.append((outcome, taken))
        self._news.set()
        await taken

    def untaken(self) -> list[T]:
        """Return what was offered and not taken."""
        return [outcome for outcome, _ in self._offered]

    def leave(self) -> None:
        self._workers -= 1
        self._news.set()

    async def outcomes(self) -> AsyncGenerator[T, None]:
        while True:
            while self._offered:
                outcome, taken = self._offered.popleft()
                if not taken.done():
                    taken.set_result(None)
                yield outcome
            if not self._workers:
                break
            self._news.clear()
            await self._news.wait()
        if self.error is not None:
            raise self.error
