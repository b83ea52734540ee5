"""`download` and `read`: the files of one task, for users."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

import aiohttp

from .._calls.threads import running_loop
from .._text import brief
from ..errors import DownloadError
from ..policy import RetryPolicy
from ..tasks import Task, TaskState, ref_in
from ._disk import MAX_OPEN_FILES
from ._names import paths_of
from ._options import MAX_BYTES, MAX_BYTES_READ, DownloadOptions
from ._place import Memory, Place
from ._saver import Downloads
from ._session import FileSession, host_of
from ._target import check_target, place_at

if TYPE_CHECKING:
    from ..tasks import TaskFile


class Awaited(Protocol):
    """What a task can be waited for by: its handle."""

    async def wait(self) -> Task[Any]:
        """Return the finished task."""
        ...


@overload
async def download(
    task: Task[Any] | Awaited,
    target: os.PathLike[str],
    *,
    all_files: bool = False,
    grid: bool = False,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_bytes: int = MAX_BYTES,
    parallel: int = MAX_OPEN_FILES,
) -> list[Path]: ...


@overload
async def download(
    task: Task[Any] | Awaited,
    target: str,
    *,
    all_files: bool = False,
    grid: bool = False,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_bytes: int = MAX_BYTES,
    parallel: int = MAX_OPEN_FILES,
) -> list[Path | str]: ...


async def download(
    task: Task[Any] | Awaited,
    target: str | os.PathLike[str],
    *,
    all_files: bool = False,
    grid: bool = False,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_bytes: int = MAX_BYTES,
    parallel: int = MAX_OPEN_FILES,
) -> list[Path] | list[Path | str]:
    """Save the files of a finished task, and return where, in the order of `task.files`.

    A handle stands for its task, which is waited for first; that raises as `TaskHandle.wait`.  For an id
    or a ref a client is needed, which reads the task: `PiAPI.download`.

    `target` is a folder, which is made if it does not exist, and the files' `Path`s are returned; or
    the URL of a sink, such as ``s3://bucket/run``, with the extra ``piapi_async[fsspec]`` and
    fsspec's driver for it (s3fs, gcsfs, adlfs), and the files' URLs are returned.  Credentials are
    the driver's own, from its environment or fsspec's configuration.

    Files are named ``<task id>.png``, or ``<task id>-1.png`` to ``-4.png`` where there are several,
    as of a grid; an older file of that name is replaced.  The suffix is that of the file's content,
    else of its content type, else of its link, else ``.bin``.  A file appears only when it is whole;
    an upload that is given up is aborted.

    grid
        Save a grid as one picture, ``<task id>.png``, if the host has it so.
    all_files
        Also save what shows the results once more (``<task id>-copy-1.png``, a whole grid),
        watermarked copies (``<task id>-watermarked.mp4``) and covers (``<task id>-cover.png``).
        Otherwise they are saved only if there is nothing better.
    session
        Your own session, for a proxy say, with its headers and cookies; it is never closed here.  It
        must not carry an API key.
    retry
        How often and how long one file is tried, counted anew whenever it has made progress.
        Default: five minutes.
    timeout
        Seconds for one file, all tries included.  Default: no limit; a connection on which no byte
        comes for 60 seconds is dropped, and the file resumed if the server can.
    max_bytes
        A larger file is refused.
    parallel
        The most files of this task to save at a time; the process saves at most 64 at a time.

    What is tried again, and where links may lead, `help(piapi_async.downloads)` says.

    Raises `ValueError` for a target that can be no path, or whose URL needs what is not installed;
    `DownloadError` when a link has expired, the host fails, the content is an error page or empty,
    or the file is too large for the limit or the disk.  The files saved until then stay, and are in
    `DownloadError.files`.  The task stays done and paid for: read it again for fresh links.  A task
    whose result is text has no files, and returns an empty list.
    """
    running_loop()
    place = check_target(target)
    options = DownloadOptions.checked(
        all_files=all_files, grid=grid, retry=retry, timeout=timeout, max_bytes=max_bytes, parallel=parallel
    )
    return paths_of(await _save(task, place_at(place), session, options))


async def read(
    task: Task[Any] | Awaited,
    *,
    all_files: bool = False,
    grid: bool = False,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_bytes: int = MAX_BYTES_READ,
    parallel: int = MAX_OPEN_FILES,
) -> list[bytes]:
    """Return the files of a finished task themselves, in the order of `task.files`; nothing is written.

    The same files as by `download`, with the same checks, retries and errors.  They are in memory all
    at once, so by default none may have more than 256 MiB.
    """
    running_loop()
    options = DownloadOptions.checked(
        all_files=all_files, grid=grid, retry=retry, timeout=timeout, max_bytes=max_bytes, parallel=parallel
    )
    memory = Memory()
    files = await _save(task, memory, session, options)
    return [memory.files[str(name)] for name in paths_of(files)]


async def _save(
    given: Task[Any] | Awaited, place: Place, session: aiohttp.ClientSession | None, options: DownloadOptions
) -> tuple[TaskFile, ...]:
    task = await _finished(given)
    async with Downloads(place, _open_session(task, place, session), options) as downloads:
        return await downloads.save(task)


async def _finished(given: Task[Any] | Awaited) -> Task[Any]:
    """Return the given task, or that of a handle once it has ended; raise `TypeError` for anything else."""
    if isinstance(given, Task):
        return given
    if hasattr(given, "wait"):
        return await given.wait()
    if isinstance(given, str) or ref_in(given) is not None:
        raise TypeError(
            f"{brief(given)} only says where a task is, and no client is here that could read it: use the "
            "client's own piapi.download(…) or piapi.read(…), or pass the Task, or piapi.attach(…)"
        )
    raise TypeError(
        f"{brief(given)} is no task whose files could be saved: pass the Task or its handle, or "
        "task.task_id to the client's own piapi.download(…) or piapi.read(…)"
    )


def _open_session(task: Task[Any], place: Place, session: aiohttp.ClientSession | None) -> FileSession:
    """Return the session for a task's files; raise `DownloadError` if there can be none."""
    if not task.files and task.state is not TaskState.DONE:
        text = f"Task {task.task_id} is {task.status} and has no files to save."
        raise DownloadError(text, path=place.shown, task=task)

    try:
        return FileSession.make(_api_host_of(task), session=session, as_it_is=True)
    except DownloadError as error:
        text = f"The files of task {task.task_id} were not saved: {error}"
        raise DownloadError(text, path=place.shown, task=task) from None


def _api_host_of(task: Task[Any]) -> str:
    """Return the host whose API a task was read from, "" if unknown."""
    if task.ref is None:
        return ""
    return host_of(task.ref.origin)
