"""Task groups whose errors come out as themselves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

A = TypeVar("A")
B = TypeVar("B")


@contextlib.asynccontextmanager
async def unwrapped_group() -> AsyncGenerator[anyio.abc.TaskGroup, None]:
    """Yield a task group; the first error of its tasks cancels the others and is raised as itself.

    Users catch the error they know, not an exception group.
    """
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        error = errors.exceptions[0]
        raise error from error.__cause__


async def in_parallel(call: Callable[[A], Awaitable[B]], arguments: Iterable[A], limit: int) -> list[B]:
    """Return the results of a call for each argument, in no order; `limit` are under way at a time."""
    rest = iter(arguments)
    results: list[B] = []

    async def work() -> None:
        for argument in rest:
            results.append(await call(argument))

    async with unwrapped_group() as group:
        for _ in range(limit):
            group.start_soon(work)
    return results
