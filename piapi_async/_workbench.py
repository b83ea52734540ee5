"""Where the workers of a batch take the next item, and where they hand over what became of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")


@define(eq=False)
class Source(Generic[T]):
    """The one iterator behind all workers, sync or async, with the position of each item.

    An async iterator is read by one task, an item whenever a worker asks for one: what it opens around its yields, a
    time-out or a task group, must be left in the task that entered it.
    """

    _requests: Iterable[T] | AsyncIterable[T]
    reader: asyncio.Task[None] | None = field(default=None, init=False)
    _sync: Iterator[T] = field(default=iter(()), init=False)
    _asking: deque[asyncio.Future[tuple[int, T] | None]] = field(factory=deque, init=False)
    _asked: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(0), init=False)
    _index: int = field(default=-1, init=False)
    _over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if isinstance(self._requests, AsyncIterable):
            self.reader = asyncio.create_task(self._read(aiter(self._requests)), name="piapi_async batch input")
        else:
            self._sync = iter(self._requests)

    def close(self) -> None:
        """Give nothing more, and do not wait for what does not come."""
        self._over = True
        if self.reader is not None:
            self.reader.cancel()

    async def next(self) -> tuple[int, T] | None:
        """Give the next item and its position; None when there is none, or none is wanted."""
        if self._over:
            return None
        if self.reader is not None:
            return await self._ask()
        for item in self._sync:
            return self._numbered(item)
        self._over = True
        return None

    def _numbered(self, item: T) -> tuple[int, T]:
        self._index += 1
        return self._index, item

    async def _ask(self) -> tuple[int, T] | None:
        asking: asyncio.Future[tuple[int, T] | None] = asyncio.get_running_loop().create_future()
        self._asking.append(asking)
        self._asked.release()
        return await asking

    async def _read(self, items: AsyncIterator[T]) -> None:
        failure: Exception | None = None
        try:
            while True:
                await self._asked.acquire()
                item = await anext(items)
                if self._over:  # it was asked to stop, and gave one more
                    return
                self._asking.popleft().set_result(self._numbered(item))
        except StopAsyncIteration:
            pass
        except Exception as error:  # noqa: BLE001 - the workers hand it on
            failure = error
        finally:
            self._over = True
            for asking in self._asking:
                if not asking.done() and failure is not None:
                    asking.set_exception(failure)
                elif not asking.done():
                    asking.set_result(None)


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
