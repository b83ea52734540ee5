"""From a finished task to files: streamed, checked, and only then given their names.

Links are the host's word, so nothing of them reaches a path, and no API key goes with them.  A file appears under its
name only when it is whole: until then it is a hidden partial file beside it, removed when anything goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import IO, TYPE_CHECKING, Any

import aiohttp
import anyio
from attrs import define, field
from yarl import URL

from ._threads import in_thread
from ._transport import USER_AGENT
from .errors import DownloadError
from .policy import RetryPolicy
from .tasks import FileKind

if TYPE_CHECKING:
    from .tasks import Task, TaskFile

MAX_BYTES = 256 * 1024 * 1024
"""Bytes of one file that are accepted unless the caller says otherwise; a 4x upscale has about 60 MB."""

RESERVE = 64 * 1024 * 1024
"""Bytes that stay free on the disk."""

_CHUNK = 256 * 1024
_GONE = frozenset({401, 403, 404, 410})
_PASSING = frozenset({408, 425, 429})

# What a file begins with, and the suffix it gets; a link's own suffix is not to be trusted.
_SIGNATURES: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), ".png"),
    (re.compile(rb"\xff\xd8\xff"), ".jpg"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), ".webp"),
    (re.compile(rb"GIF8[79]a"), ".gif"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), ".avif"),
    (re.compile(rb"....ftypqt", re.DOTALL), ".mov"),
    (re.compile(rb"....ftypM4A", re.DOTALL), ".m4a"),
    (re.compile(rb"....ftyp", re.DOTALL), ".mp4"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), ".webm"),
    (re.compile(rb"RIFF....WAVE", re.DOTALL), ".wav"),
    (re.compile(rb"ID3|\xff[\xfb\xf3\xf2]"), ".mp3"),
    (re.compile(rb"fLaC"), ".flac"),
    (re.compile(rb"OggS"), ".ogg"),
    (re.compile(rb"glTF"), ".glb"),
    (re.compile(rb"ply\r?\n"), ".ply"),
)
_SIGNATURE_LENGTH = 16

_NOUNS = {FileKind.IMAGE: "picture", FileKind.VIDEO: "video", FileKind.AUDIO: "sound", FileKind.MODEL: "model"}


class _PassingError(DownloadError):
    """A failure that another try may mend."""


async def download(
    task: Task[Any],
    directory: str | os.PathLike[str],
    *,
    session: aiohttp.ClientSession | None = None,
    retry: RetryPolicy | None = None,
    timeout: float = 120.0,
    max_bytes: int = MAX_BYTES,
) -> list[Path]:
    """Save the files of a finished task, and give their paths in the order of `task.files`.

    The directory is made if need be.  Files are named ``<task id>.png``, or ``<task id>-1.png`` to ``-4.png`` where
    there are several, as of a grid, the suffix being that of what the file holds; an older file of that name is
    replaced.

    session
        Your own session, for a proxy say; it is never closed here.  It must not carry an API key.
    timeout
        Seconds for one try of one file.
    max_bytes
        A larger file is refused.

    Raises `DownloadError` when a link has expired, the host fails, or what came is no file of a known kind, or too
    large for the limit or the disk; files saved until then stay.  The task stays done and paid for: read it again for
    fresh links.
    """
    if not task.files:
        raise DownloadError(f"Task {task.task_id} is {task.status} and has no files to save.")
    folder = Path(directory)
    await in_thread(partial(prepare_directory, folder))
    saver = _Saver(task.task_id, folder, retry or RetryPolicy(attempts=3), timeout, max_bytes)
    names = _stems(task)
    async with contextlib.AsyncExitStack() as stack:
        if session is None:
            session = await stack.enter_async_context(picture_session())
        # One failure does not stop the others: the links expire, so whatever can be saved is.
        async with asyncio.TaskGroup() as group:
            saves = [
                group.create_task(saver.save(session, file, name)) for file, name in zip(task.files, names, strict=True)
            ]
    paths = []
    for save in saves:
        outcome = save.result()
        if isinstance(outcome, DownloadError):
            raise outcome
        paths.append(outcome)
    return paths


def picture_session() -> aiohttp.ClientSession:
    """Give a session for pictures, which whoever asked for it closes; it knows no key, and bounds no one."""
    return aiohttp.ClientSession(
        headers={"User-Agent": USER_AGENT},
        cookie_jar=aiohttp.DummyCookieJar(),
        connector=aiohttp.TCPConnector(limit=0),  # a file's time would pass while it waits for its turn
    )


def saved_files(task: Task[Any], directory: str | os.PathLike[str]) -> list[Path] | None:
    """Give the files that `download` has saved of a task before, None unless all of them are there."""
    suffixes = [suffix for _, suffix in _SIGNATURES]
    found = [
        next((path for suffix in suffixes if (path := Path(directory, stem + suffix)).exists()), None)
        for stem in _stems(task)
    ]
    return None if None in found else [path for path in found if path is not None]


def _stems(task: Task[Any]) -> list[str]:
    """Give the names of a task's files, without their suffixes."""
    stem = safe_stem(task.task_id)
    return [stem] if len(task.files) == 1 else [f"{stem}-{number}" for number in range(1, len(task.files) + 1)]


def safe_stem(task_id: str) -> str:
    """Give a file name's stem for any task id, which is the host's text: no path, nothing hidden, not endless."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", task_id)[:100]
    if stem and stem == task_id:
        return stem
    return f"{stem}-{sha256(task_id.encode()).hexdigest()[:8]}"  # so that two ids never share a name


def suffix_of(head: bytes) -> str:
    """Give the suffix for a file that begins with `head`, "" when that is nothing that a task makes."""
    return next((suffix for pattern, suffix in _SIGNATURES if pattern.match(head)), "")


@define(eq=False)
class _Saver:
    """Saves the files of one task."""

    task_id: str
    folder: Path
    retry: RetryPolicy
    timeout: float
    max_bytes: int
    _rng: Random = field(factory=Random, init=False)

    async def save(self, session: aiohttp.ClientSession, file: TaskFile, name: str) -> Path | DownloadError:
        began = anyio.current_time()
        tries = 0
        while True:
            try:
                return await self._try(session, file, name)
            except DownloadError as error:
                tries += 1
                elapsed = anyio.current_time() - began
                wait = self.retry.delay(tries, elapsed=elapsed, retry_after=None, rng=self._rng)
                if wait is None or not isinstance(error, _PassingError):
                    failure = DownloadError(str(error), url=file.url, path=error.path, status=error.status)
                    failure.__cause__ = error.__cause__
                    return failure
            await anyio.sleep(wait)

    async def _try(self, session: aiohttp.ClientSession, file: TaskFile, name: str) -> Path:
        try:
            link = URL(file.url)
        except ValueError as error:
            raise self._failure(file, "the link is not a URL") from error
        if link.scheme not in {"http", "https"}:
            raise self._failure(file, "the link is not http(s)")
        try:
            async with session.get(
                link,
                timeout=aiohttp.ClientTimeout(total=self.timeout, ceil_threshold=self.timeout + 1.0),
                raise_for_status=False,
                max_redirects=5,
            ) as response:
                self._check_status(response, file)
                return await self._store(response, file, name)
        except TimeoutError as error:
            raise self._failure(file, f"it took longer than {self.timeout:g} s", passing=True) from error
        except (ValueError, RuntimeError) as error:  # no host can have that name; the session is closed
            raise self._failure(file, str(error) or "the link is not a URL") from error
        except aiohttp.ClientError as error:
            raise self._failure(file, str(error) or type(error).__name__, passing=True) from error
        except OSError as error:
            raise self._failure(file, f"the file cannot be written: {error}") from error

    def _check_status(self, response: aiohttp.ClientResponse, file: TaskFile) -> None:
        status = response.status
        if status in _GONE:
            raise self._failure(
                file,
                f"the link has expired or was withdrawn (HTTP {status}); read the task again for fresh links",
                status=status,
            )
        if status != 200:  # noqa: PLR2004 - the only status with a whole file
            passing = status >= 500 or status in _PASSING  # noqa: PLR2004 - HTTP's own classes
            raise self._failure(file, f"the image host answered HTTP {status}", status=status, passing=passing)
        length = response.content_length or 0
        if length > self.max_bytes:
            raise self._failure(file, f"it has {length} bytes, more than the limit of {self.max_bytes}")

    async def _store(self, response: aiohttp.ClientResponse, file: TaskFile, name: str) -> Path:
        length = response.content_length or 0
        free = (await in_thread(partial(shutil.disk_usage, self.folder))).free
        if free < length + RESERVE:
            raise self._failure(file, f"the disk has {free} bytes free, which is too little for a file of {length}")
        unfinished = self.folder / f".{name}.{secrets.token_hex(4)}.part"
        # The thread that opens the file is not stopped by our being cancelled, so the handle is asked for all the same.
        opening = asyncio.ensure_future(in_thread(partial(_create, unfinished)))
        try:
            out = await asyncio.shield(opening)
            head = await self._stream(response, file, out)
            path = self.folder / f"{name}{self._suffix(head, file)}"
            await in_thread(partial(_finish, out, unfinished, path))
        except BaseException:
            await asyncio.shield(_discard(opening, unfinished))
            raise
        return path

    def _suffix(self, head: bytes, file: TaskFile) -> str:
        if suffix := suffix_of(head):
            return suffix
        raise self._failure(file, f"what came is no {_NOUNS[file.kind]}; it begins with {head!r}")

    async def _stream(self, response: aiohttp.ClientResponse, file: TaskFile, out: IO[bytes]) -> bytes:
        head, size = b"", 0
        async for chunk in response.content.iter_chunked(_CHUNK):
            if len(head) < _SIGNATURE_LENGTH:
                head = (head + chunk)[:_SIGNATURE_LENGTH]
            size += len(chunk)
            if size > self.max_bytes:
                raise self._failure(file, f"it goes on after the limit of {self.max_bytes} bytes")
            await in_thread(partial(out.write, chunk))
        # aiohttp itself raises when a body is shorter than its announced length.
        return head

    def _failure(
        self, file: TaskFile, reason: str, *, status: int | None = None, passing: bool = False
    ) -> DownloadError:
        kind = _PassingError if passing else DownloadError
        return kind(
            f"A {_NOUNS[file.kind]} of task {self.task_id} was not saved: {reason}. The task is done and stays paid "
            f"for. The link: {file.url}",
            url=file.url,
            path=self.folder,
            status=status,
        )


def prepare_directory(folder: Path) -> None:
    """Make a directory for pictures, unless it is there; `DownloadError` where it cannot be, or not be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = folder / f".{secrets.token_hex(8)}.part"
        trial.touch()
        trial.unlink()
    except FileExistsError:
        raise DownloadError(f"{folder} is not a directory.", path=folder) from None
    except OSError as error:
        raise DownloadError(f"The directory {folder} cannot be used: {error}.", path=folder) from error


def _create(unfinished: Path) -> IO[bytes]:
    return unfinished.open("xb")


def _finish(file: IO[bytes], unfinished: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    unfinished.replace(path)


async def _discard(opening: asyncio.Future[IO[bytes]], unfinished: Path) -> None:
    """Close and remove what a failed or cancelled save has left, once the thread has let go of it."""
    with contextlib.suppress(OSError):
        file = await opening
        await in_thread(file.close)
    await in_thread(partial(unfinished.unlink, missing_ok=True))
