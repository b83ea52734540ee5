"""From a finished task to files: streamed, checked, and only then given their names.

Links are the host's word, so nothing of them but a suffix reaches a path, and no API key goes with them.  A file
appears under its name only when it is whole: until then it is a hidden partial file beside it, which is resumed where
the server can, removed when the file is given up, and cleared by a later run if this process dies.

A link is fresh for minutes and gone in days, and what it leads to was paid for: so whatever may pass is waited out for
minutes, and a file that keeps coming may take as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import re
import time
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import anyio
from attrs import define, evolve, field, frozen
from yarl import URL

from .._calls.threads import in_thread, running_loop
from .._protocol.answers import read_retry_after
from .._protocol.result_files import files_to_save, needs_files
from .._protocol.signatures import HEAD, SUFFIXES, Body, suffix_of_link
from .._text import shorten
from ..errors import DownloadError
from ..policy import RetryPolicy
from ..tasks import FileKind, FileRole, TaskState
from ._disk import (
    AT_ONCE,
    DiskFullError,
    PartFile,
    Room,
    clear_once,
    device_of,
    free_bytes,
    is_saved,
    places,
)
from ._session import SILENCE, FileSession

if TYPE_CHECKING:
    from ..tasks import Task, TaskFile

MAX_BYTES = 1024 * 1024 * 1024
"""Bytes of one file that are accepted unless the caller says otherwise."""

PATIENCE = RetryPolicy(attempts=60, total=300.0)
"""How long a file is tried for, from the last time that it came further."""

_SPREADING = 120.0  # seconds after a task's end in which a link may be unknown yet to the server that is asked
_TIMES_FULL = 3  # that a disk is full although there was room, and no other file of ours is to blame
_BUSY_PAUSE = 5.0  # seconds between two looks whether others have left room

_WRITE = 256 * 1024  # bytes that are written at a time
_FURTHER = 64 * 1024  # bytes that are worth another round of patience

_UNKNOWN_LINK = frozenset({401, 403, 404, 410})
_SPREADS = frozenset({403, 404})
_PASSING = frozenset({408, 425, 429})
_OK, _PARTIAL, _RANGE_REFUSED, _SERVER_FAULTS = 200, 206, 416, 500

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-\d{1,18}/(\d{1,18}|\*)\s*\Z", re.IGNORECASE)

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?://|[\\/](?=[^\\/]))")  # a `Path` has made one slash of two

_NOUNS = {
    FileKind.IMAGE: "picture",
    FileKind.VIDEO: "video",
    FileKind.AUDIO: "sound",
    FileKind.MODEL: "model",
    FileKind.FILE: "file",
}

_logger = logging.getLogger(__name__)


class _PassingError(DownloadError):
    """A failure that another try may mend; `retry_after` is what the server asked for."""

    retry_after: float | None = None
    waits_for_others = False


@frozen(kw_only=True)
class DownloadOptions:
    """How files are saved; see `download`, whose keywords these are."""

    all_files: bool = False
    retry: RetryPolicy = PATIENCE
    timeout: float | None = None
    max_bytes: int = MAX_BYTES
    parallel: int = AT_ONCE


def check_seconds(name: str, value: float | None) -> None:
    """Raise `ValueError` for what is no length of time above 0, nor None."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ValueError(f"{name}: {value!r} is not allowed; it must be a number above 0, or None")


def check_count(name: str, value: int) -> None:
    """Raise `ValueError` for what is no whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} is not allowed; it must be a whole number above 0")


async def download(
    task: Task[Any],
    target: str | os.PathLike[str],
    *,
    all_files: bool = False,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    max_bytes: int = MAX_BYTES,
    parallel: int = AT_ONCE,
) -> list[Path]:
    """Save the files of a finished task in a folder, and return their paths in the order of `task.files`.

    The folder is made if need be.  Files are named ``<task id>.png``, or ``<task id>-1.png`` to ``-4.png`` where there
    are several, as of a grid; an older file of that name is replaced.  The suffix is that of what the file holds, else
    of its content type, else of its link, else ``.bin``.

    all_files
        Also save watermarked copies (``<task id>-watermarked.mp4``) and covers (``<task id>-cover.png``).  Otherwise
        they are saved only where there is nothing better.
    session
        Your own session, for a proxy say, with its headers and cookies; it is never closed here.  It must not carry an
        API key.
    retry
        How often and how long one file is tried, counted anew whenever it has come further.  Default: five minutes.
    timeout
        Seconds for one file, all tries included.  Default: as long as it takes; a connection on which no byte comes for
        60 seconds is given up, and the file resumed where the server can.
    max_bytes
        A larger file is refused.
    parallel
        At most so many files of this task at a time; the process has at most 64 under way.

    Tried again are a server's faults (5xx, 429 with its ``Retry-After``), broken connections, and for two minutes after
    the task's end a 403 or 404: a link may take that long to be known everywhere.

    Links to loopback, private and link-local addresses are refused, and redirects to them, unless the API itself is at
    such an address (an emulator's on this machine, a host of one's own in a private network); names are judged by the
    address that is connected to.  A task that no client has read, so that nobody knows its API, may have its files on
    this machine, too.  What goes through a proxy is the proxy's to judge, unless the link spells the address out.

    Raises `ValueError` for a target with a scheme (``s3://…``) or that can be no path; `DownloadError` when a link has
    expired, the host fails, what came is an error page or empty, or is too large for the limit or the disk.  The files
    saved until then stay, and `DownloadError.files` has them.  The task stays done and paid for: read it again for
    fresh links.  A task whose result is text has no files, and returns an empty list.
    """
    running_loop()
    folder = check_target(target)
    check_seconds("timeout", timeout)
    check_count("max_bytes", max_bytes)
    check_count("parallel", parallel)
    options = DownloadOptions(
        all_files=all_files, retry=retry or PATIENCE, timeout=timeout, max_bytes=max_bytes, parallel=parallel
    )
    if not task.files and task.state is not TaskState.DONE:
        raise DownloadError(f"Task {task.task_id} is {task.status} and has no files to save.", path=folder, task=task)
    try:
        files = FileSession.make(api_host_of(task), session=session, as_it_is=True)
    except DownloadError as error:
        text = f"The files of task {task.task_id} were not saved: {error}"
        raise DownloadError(text, path=folder, task=task) from None
    async with Downloads(folder, files, options) as downloads:
        return paths_of(await downloads.save(task))


def check_target(target: str | os.PathLike[str]) -> Path:
    """Return the folder that files are to be saved in; raise `ValueError` for what is none, before anything is paid."""
    text = os.fspath(target)
    if not isinstance(text, str):
        text = os.fsdecode(text)
    found = _SCHEME.match(text)
    if found and (isinstance(target, os.PathLike) or "://" in found[0]):
        raise ValueError(f"download: {text!r} is not allowed; only folders of this machine can be saved to, not URLs")
    try:
        fits = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(f"download: {text!r} is not allowed; no folder can have that name")
    return Path(text)


def prepare_directory(folder: Path) -> None:
    """Make a folder for files, unless it is there, and clear what dead processes have left in it.

    Raises `DownloadError` where it cannot be made, or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = PartFile.create(folder, "trial")
        trial.discard()
        clear_once(folder)
    except FileExistsError:
        raise DownloadError(f"{folder} is not a directory.", path=folder) from None
    except (OSError, ValueError) as error:
        raise DownloadError(f"The directory {folder} cannot be used: {error}.", path=folder) from error


def api_host_of(task: Task[Any]) -> str:
    """Return the host whose API a task was read from, "" where nobody knows."""
    return host_of(task.ref.origin) if task.ref is not None else ""


def host_of(origin: str) -> str:
    """Return the host of an origin such as ``https://api.piapi.ai``."""
    return URL(origin).raw_host or ""


def no_files_error(task: Task[Any], folder: Path | None = None) -> DownloadError:
    """Return what to say of a task that is done and should have a file, but names none."""
    return DownloadError(
        f"Task {task.task_id} is {task.status} and has no files to save: no link was found in its output, which "
        "`task.raw` has. It stays paid for; read the task again, its files may be told later.",
        path=folder,
        task=task,
    )


def saved_files(task: Task[Any], folder: Path, *, all_files: bool = False) -> tuple[TaskFile, ...] | None:
    """Return a task's files as `download` has saved them before, None unless all that are wanted are there."""
    wanted = files_to_save(task.files, all_files=all_files)
    found = []
    for file, stem in zip(task.files, _stems(task), strict=True):
        path = _saved_as(folder, stem, file) if file in wanted else None
        if path is None and file in wanted:
            return None
        found.append(evolve(file, saved_as=path))
    return tuple(found)


def _saved_as(folder: Path, stem: str, file: TaskFile) -> Path | None:
    likely = suffix_of_link(file.url)
    names = (f"{stem}{suffix}" for suffix in dict.fromkeys((likely, *SUFFIXES)) if suffix)
    return next((path for name in names if is_saved(path := folder / name)), None)


def _stems(task: Task[Any]) -> list[str]:
    """Return the names of a task's files, without their suffixes: numbered where a role has several."""
    stem = safe_stem(task.task_id)
    roles = [file.role for file in task.files]
    seen = dict.fromkeys(FileRole, 0)
    stems = []
    for role in roles:
        seen[role] += 1
        name = stem if role is FileRole.RESULT else f"{stem}-{role}"
        stems.append(name if roles.count(role) == 1 else f"{name}-{seen[role]}")
    return stems


def safe_stem(task_id: str) -> str:
    """Return a file name's stem for any task id, which is the host's text: no path, nothing hidden, not endless."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", task_id)[:100]
    if stem and stem == task_id:
        return stem
    digest = sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{stem}-{digest[:8]}"  # so that two ids never share a name


# -- saving -----------------------------------------------------------------------------------------------------------


@define(eq=False)
class Downloads:
    """Saves the files of any number of tasks in one folder, over one session, which it closes."""

    folder: Path
    session: FileSession
    options: DownloadOptions = field(factory=DownloadOptions)
    _places: anyio.CapacityLimiter = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._places = anyio.CapacityLimiter(self.options.parallel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Free the session."""
        await self.session.close()

    async def save(
        self, task: Task[Any], *, verb: str = "", just_ended: bool = False, again: bool = False
    ) -> tuple[TaskFile, ...]:
        """Return the files of a finished task, those that are wanted saved.

        `verb` is the request's, `just_ended` says that the task was seen to end now, and `again` that an earlier run
        may have saved them.  Raises `DownloadError` when all files have been tried: links expire, so whatever can be
        saved is.
        """
        wanted = files_to_save(task.files, all_files=self.options.all_files)
        if not wanted:
            if needs_files(task, verb):
                raise no_files_error(task, self.folder)
            return task.files
        if again:
            known = await in_thread(partial(saved_files, task, self.folder, all_files=self.options.all_files))
            if known is not None:
                return known

        device = await in_thread(partial(_prepare, self.folder))
        fresh_until = _fresh_until(task, just_ended=just_ended)
        saver = _Saver(task.task_id, self.folder, device, self.session, self.options, fresh_until, self._places)
        saved: dict[str, Path] = {}
        failures: dict[str, DownloadError] = {}

        async def save(file: TaskFile, stem: str) -> None:
            try:
                saved[file.url] = await saver.save(file, stem)
            except DownloadError as error:
                failures[file.url] = error

        async with _unwrapped_group() as group:
            for file, stem in zip(task.files, _stems(task), strict=True):
                if file in wanted:
                    group.start_soon(save, file, stem)

        failure = next((failures[file.url] for file in wanted if file.url in failures), None)
        if failure is not None:
            failure.task = task
            failure.files = tuple(saved[file.url] for file in wanted if file.url in saved)
            raise failure
        return tuple(evolve(file, saved_as=saved.get(file.url)) for file in task.files)


def paths_of(files: Sequence[TaskFile]) -> list[Path]:
    """Return the paths of the files that are saved."""
    return [file.saved_as for file in files if isinstance(file.saved_as, Path)]


@contextlib.asynccontextmanager
async def _unwrapped_group() -> AsyncGenerator[anyio.abc.TaskGroup, None]:
    """Give a task group whose first error is raised as it is."""
    try:
        async with anyio.create_task_group() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """Return what a broken stream still holds: it would raise sooner than give what had come before it broke."""
    content.set_exception(None)  # type: ignore[arg-type]  # "there is none", as in a new stream
    return content.read_nowait()


def _prepare(folder: Path) -> int:
    prepare_directory(folder)
    return device_of(folder)


def _fresh_until(task: Task[Any], *, just_ended: bool) -> float:
    """Return until when, on the loop's clock, a link that is not found may only not be known everywhere yet."""
    now = anyio.current_time()
    if just_ended:
        return now + _SPREADING
    if task.ended_at is None:
        return -math.inf
    return now + _SPREADING - max(0.0, time.time() - task.ended_at.timestamp())


@define(eq=False)
class _Progress:
    """How far one file has come, over all its tries."""

    file: TaskFile
    stem: str
    room: Room
    part: PartFile | None = None
    size: int = 0  # bytes of the file that are written
    head: bytes = b""
    validator: str = ""  # by which the server knows the version whose beginning is here; "": it cannot be resumed
    total: int | None = None
    content_type: str = ""
    furthest: int = 0
    times_full: int = 0

    @property
    def range(self) -> dict[str, str]:
        """The headers that ask for what is missing."""
        if not self.size or not self.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def expect(self, response: aiohttp.ClientResponse) -> None:
        """Take in what a response says of the whole file that it begins."""
        plain = "Content-Encoding" not in response.headers
        self.total = response.content_length if plain else None
        etag = response.headers.get("ETag", "")
        strong = etag if etag and not etag.startswith("W/") else ""
        self.validator = (strong or response.headers.get("Last-Modified", "")) if plain else ""
        if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
            self.validator = ""

    def is_continued_by(self, response: aiohttp.ClientResponse) -> bool:
        """Tell whether a partial response begins where this has ended, and is of the same version."""
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != self.size or "Content-Encoding" in response.headers:
            return False
        if self.total is not None and found[2] not in {"*", str(self.total)}:
            return False
        etag = response.headers.get("ETag", self.validator)
        return not self.validator.startswith('"') or etag == self.validator

    async def restart(self) -> None:
        """Begin anew."""
        self.size, self.head = 0, b""
        if self.part is not None:
            await in_thread(self.part.restart)

    async def discard(self) -> None:
        """Leave nothing."""
        part, self.part = self.part, None
        self.size, self.head = 0, b""
        self.room.release()
        if part is not None:
            await in_thread(part.discard)


@define(eq=False)
class _Saver:
    """Saves the files of one task."""

    task_id: str
    folder: Path
    device: int
    session: FileSession
    options: DownloadOptions
    fresh_until: float
    _own_places: anyio.CapacityLimiter
    _rng: Random = field(factory=Random, init=False)

    async def save(self, file: TaskFile, stem: str) -> Path:
        progress = _Progress(file, stem, Room(self.device))
        try:
            return await self._save(progress)
        finally:
            with anyio.CancelScope(shield=True):
                await progress.discard()

    async def _save(self, progress: _Progress) -> Path:
        tries, begun, counted = 0, anyio.current_time(), 0
        deadline: float | None = None
        while True:
            # The place is given back while this file waits, and its time begins when it first has one.
            async with self._own_places, places():
                if deadline is None:
                    deadline = anyio.current_time() + (self.options.timeout or math.inf)
                try:
                    with anyio.fail_after(deadline - anyio.current_time()):
                        return await self._attempt(progress)
                except _PassingError as error:
                    failure = error
                except TimeoutError as error:
                    raise self._failure(progress.file, f"it took longer than {self.options.timeout:g} s") from error
                finally:
                    progress.room.release()

            now = anyio.current_time()
            tries += not failure.waits_for_others
            if failure.waits_for_others or progress.furthest >= counted + _FURTHER:
                tries, begun, counted = min(tries, 1), now, progress.furthest
            wait = self._pause(failure, tries, now - begun)
            if wait is None or now + wait > deadline:
                raise self._given_up(failure, tries)
            _logger.info("%s It is tried again in %.1f s.", failure, wait)
            await anyio.sleep(wait)

    def _pause(self, failure: _PassingError, tries: int, elapsed: float) -> float | None:
        if failure.waits_for_others:
            return _BUSY_PAUSE * (1.0 + self._rng.random())
        return self.options.retry.delay(tries, elapsed=elapsed, retry_after=failure.retry_after, rng=self._rng)

    def _given_up(self, failure: _PassingError, tries: int) -> DownloadError:
        text = str(failure) if tries == 1 else f"{failure} It was tried {tries} times."
        if failure.retry_after:
            text += f" The server asks to wait for {failure.retry_after:g} s."
        error = DownloadError(text, url=failure.url, path=failure.path, status=failure.status)
        error.__cause__ = failure.__cause__
        return error

    async def _attempt(self, progress: _Progress) -> Path:
        file = progress.file
        try:
            headers = {"Accept-Encoding": "identity", **progress.range}
            async with self.session.get(file.url, headers) as response:
                await self._receive(response, progress)
            return await self._publish(progress)
        except DiskFullError as error:
            raise self._failure(file, str(error), passing=error.others, waits_for_others=True) from error
        except (ValueError, RuntimeError) as error:  # no host can have that name; the session is closed
            raise self._failure(file, str(error) or "the link is not a URL") from error
        except TimeoutError as error:
            raise self._failure(file, f"no byte came for {SILENCE:g} s", passing=True) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise self._failure(file, str(error)) from error
        except aiohttp.ClientError as error:
            busy = getattr(error, "errno", None) in _NO_DESCRIPTORS and self._others
            text = str(error) or type(error).__name__
            raise self._failure(file, text, passing=True, waits_for_others=busy) from error
        except OSError as error:
            raise await self._cannot_write(error, progress) from error

    @property
    def _others(self) -> bool:
        return places().borrowed_tokens > 1

    async def _cannot_write(self, error: OSError, progress: _Progress) -> DownloadError:
        text = f"the file cannot be written: {error}"
        if error.errno in _NO_DESCRIPTORS:
            return self._failure(progress.file, text, passing=True, waits_for_others=self._others)
        if error.errno not in _NO_SPACE:
            return self._failure(progress.file, text)

        # Whoever fills the disk makes room by giving up; the promises may have been wrong (a quota, another program).
        others = progress.room.others
        progress.times_full += 1
        await progress.discard()
        passing = others or progress.times_full <= _TIMES_FULL
        return self._failure(progress.file, text, passing=passing, waits_for_others=others)

    # -- one response -------------------------------------------------------------------------------------------------

    async def _receive(self, response: aiohttp.ClientResponse, progress: _Progress) -> None:
        """Write what a response has of the file; raise unless it is whole then."""
        if response.status == _PARTIAL and progress.range and progress.is_continued_by(response):
            pass
        elif response.status == _OK:
            if progress.size:
                await progress.restart()
            progress.expect(response)
        else:
            raise await self._refused(response, progress)

        progress.content_type = response.headers.get("Content-Type", progress.content_type)
        length = response.content_length or 0
        if progress.size + length > self.options.max_bytes:
            size = progress.size + length
            raise self._failure(progress.file, f"it has {size} bytes, more than the limit of {self.options.max_bytes}")
        await self._claim(progress, length)
        if progress.part is None:
            await self._open(progress)
        await self._stream(response, progress)

    async def _refused(self, response: aiohttp.ClientResponse, progress: _Progress) -> DownloadError:
        """Return what a status means that brings no file."""
        status, file = response.status, progress.file
        if progress.range and status in {_PARTIAL, _RANGE_REFUSED}:
            await progress.restart()
            return self._failure(file, f"it cannot be resumed (HTTP {status})", status=status, passing=True)
        if status in _SPREADS and anyio.current_time() < self.fresh_until:
            return self._failure(file, f"the link is not known yet (HTTP {status})", status=status, passing=True)
        if status in _UNKNOWN_LINK:
            text = f"the link has expired or was withdrawn (HTTP {status}); read the task again for fresh links"
            return self._failure(file, text, status=status)
        passing = status >= _SERVER_FAULTS or status in _PASSING
        failure = self._failure(file, f"the file's host answered HTTP {status}", status=status, passing=passing)
        if isinstance(failure, _PassingError):
            failure.retry_after = read_retry_after(response.headers)
        return failure

    async def _claim(self, progress: _Progress, size: int) -> None:
        free = await in_thread(partial(free_bytes, self.folder))
        progress.room.claim(size, free)

    async def _open(self, progress: _Progress) -> None:
        # The thread that opens the file is not stopped by our being cancelled, so its answer is waited for.
        opening = asyncio.ensure_future(in_thread(partial(PartFile.create, self.folder, progress.stem)))
        try:
            progress.part = await asyncio.shield(opening)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
                progress.part = await opening
            raise

    async def _stream(self, response: aiohttp.ClientResponse, progress: _Progress) -> None:
        waiting: list[bytes] = []
        weight = 0
        try:
            async for chunk in response.content.iter_any():
                waiting.append(chunk)
                weight += len(chunk)
                if progress.size + weight > self.options.max_bytes:
                    text = f"it goes on after the limit of {self.options.max_bytes} bytes"
                    raise self._failure(progress.file, text)
                if weight >= _WRITE:
                    await self._write(progress, waiting)
                    waiting, weight = [], 0
        except (aiohttp.ClientError, TimeoutError):
            if progress.validator:  # what has come until then is good, and need not come again
                await self._write(progress, [*waiting, _left_in(response.content)])
            raise
        await self._write(progress, waiting)
        # aiohttp itself raises when a body is shorter than its announced length.

    async def _write(self, progress: _Progress, chunks: Sequence[bytes]) -> None:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if not data or progress.part is None:
            return
        if step := progress.room.step_for(len(data)):
            await self._claim(progress, step)
        await in_thread(partial(progress.part.write, data))
        progress.room.written(len(data))
        if len(progress.head) < HEAD:
            progress.head += data[: HEAD - len(progress.head)]
        progress.size += len(data)
        progress.furthest = max(progress.furthest, progress.size)

    async def _publish(self, progress: _Progress) -> Path:
        body = Body(progress.head, progress.size, progress.content_type, progress.file.url)
        if body.fault:
            noun = _NOUNS[progress.file.kind]
            text = f"what came is no {noun}; it begins with {progress.head[:16]!r} ({body.fault})"
            raise self._failure(progress.file, text)
        path = self.folder / f"{progress.stem}{body.suffix}"
        part, progress.part = progress.part, None
        if part is not None:
            try:
                await in_thread(partial(part.publish, path))
            except BaseException:
                progress.part = part
                raise
        return path

    def _failure(
        self,
        file: TaskFile,
        reason: str,
        *,
        status: int | None = None,
        passing: bool = False,
        waits_for_others: bool = False,
    ) -> DownloadError:
        kind = _PassingError if passing else DownloadError
        failure = kind(
            f"A {_NOUNS[file.kind]} of task {self.task_id} was not saved: {reason}. The task is done and stays paid "
            f"for. The link: {shorten(file.url, 1000)}",
            url=file.url,
            path=self.folder,
            status=status,
        )
        if isinstance(failure, _PassingError):
            failure.waits_for_others = waits_for_others
        return failure
