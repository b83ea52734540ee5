"""A task group whose errors come out as themselves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

import anyio


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
