"""The files of a task that a client may have to read first, as `PiAPI.download` and `PiAPI.read` offer them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .._runtime import Runtime
from ..downloads._names import paths_of
from ..downloads._options import MAX_BYTES_READ, DownloadOptions
from ..downloads._place import Memory
from ..downloads._saver import Downloads
from ..downloads._target import check_target
from ..handle import TaskHandle
from ..tasks import Task


async def save_files(
    runtime: Runtime,
    given: object,
    handle: TaskHandle[Any],
    target: str | os.PathLike[str],
    *,
    all_files: bool,
    grid: bool,
) -> list[Path | str]:
    """Return where the files of a task were saved, whose handle this is.  Raises as `PiAPI.download`."""
    place = check_target(target)
    options = DownloadOptions(all_files=all_files, grid=grid)
    task = await _ended(given, handle)
    async with Downloads(place, runtime.file_session(), options) as downloads:
        return paths_of(await downloads.save(task))


async def read_files(
    runtime: Runtime, given: object, handle: TaskHandle[Any], *, all_files: bool, grid: bool
) -> list[bytes]:
    """Return the files of a task, whose handle this is.  Raises as `PiAPI.read`."""
    memory = Memory()
    options = DownloadOptions(all_files=all_files, grid=grid, max_bytes=MAX_BYTES_READ)
    task = await _ended(given, handle)
    async with Downloads(memory, runtime.file_session(), options) as downloads:
        return [memory.files[str(name)] for name in paths_of(await downloads.save(task))]


async def _ended(given: object, handle: TaskHandle[Any]) -> Task[Any]:
    """Return the task that was given, or that a handle has, if it has ended well, else wait for it."""
    known = given
    if isinstance(given, TaskHandle):
        known = given.task
    if isinstance(known, Task) and known.ok:
        return known
    return await handle.wait()
