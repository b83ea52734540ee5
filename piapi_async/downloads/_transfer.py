"""Brings one file over: tries, resumes, checks, and only then gives it its name.

Links are the host's text, so nothing of them but a suffix reaches a path, and no API key goes with
them.  A file appears under its name only when it is whole: until then it is a hidden partial file
beside it, which is resumed if the server can, removed when the file is given up, and cleared by a
later run if this process dies.

A link is fresh for minutes and gone in days, and what it leads to was paid for: so passing faults
are waited out for minutes, and a file that makes progress may take as long as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import aiohttp
import anyio
from attrs import define, field

from .._calls.threads import in_thread
from .._protocol.answers import read_retry_after
from .._protocol.signatures import Body
from .._text import shorten
from ..errors import DownloadError
from ..policy import Backoff
from ..tasks import FileKind
from ._disk import DiskFullError, Room, places
from ._options import DownloadOptions
from ._place import Part, Place
from ._progress import Progress
from ._session import SILENCE, FileSession
from ._sink import SinkError

if TYPE_CHECKING:
    from ..tasks import TaskFile

_TIMES_FULL = 3  # full disks that are forgiven although there was room and no other file to blame
_BUSY_PAUSE = 5.0  # seconds between two looks whether others have left room

_WRITE = 256 * 1024  # bytes that are written at a time
_NOTABLE_PROGRESS = 64 * 1024  # bytes after which the back-off begins anew

_UNKNOWN_LINK = frozenset({401, 403, 404, 410})
_SPREADS = frozenset({403, 404})
_PASSING = frozenset({408, 425, 429})
_OK, _PARTIAL, _RANGE_REFUSED, _SERVER_FAULTS = 200, 206, 416, 500

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})

_NOUNS = {
    FileKind.IMAGE: "picture",
    FileKind.VIDEO: "video",
    FileKind.AUDIO: "sound",
    FileKind.MODEL: "model",
    FileKind.FILE: "file",
}


class _PassingError(DownloadError):
    """A failure that another try may mend."""

    retry_after: float | None = None
    """Seconds that the server asked to wait."""
    waits_for_others = False
    """Whether it passes when other files of this process are finished."""


@define(eq=False, kw_only=True)
class Transfer:
    """Brings over the files of one task."""

    task_id: str
    place: Place
    device: int
    session: FileSession
    options: DownloadOptions
    links_fresh_until: float
    places_here: anyio.CapacityLimiter
    _rng: Random = field(factory=Random, init=False)

    async def save(self, file: TaskFile, stem: str) -> Path | str:
        """Return where a file was saved; raise `DownloadError` when it is given up."""
        progress = Progress(file, stem, Room(self.device), self.place)
        try:
            return await self._try_until_saved(progress)
        finally:
            with anyio.CancelScope(shield=True):
                await progress.discard()

    # -- tries ----------------------------------------------------------------------------------

    async def _try_until_saved(self, progress: Progress) -> Path | str:
        backoff = self._new_backoff()
        furthest = 0
        deadline: float | None = None

        while True:
            # The place is free while this file waits, and its time begins when it first has one.
            async with self.places_here, places():
                if deadline is None:
                    deadline = anyio.current_time() + (self.options.timeout or math.inf)
                try:
                    with anyio.fail_after(deadline - anyio.current_time()):
                        return await self._attempt(progress)
                except _PassingError as error:
                    failure = error
                except TimeoutError as error:
                    reason = f"it took longer than {self.options.timeout:g} s"
                    raise self._failure(progress.file, reason) from error
                finally:
                    progress.room.release()

            if failure.waits_for_others or progress.furthest >= furthest + _NOTABLE_PROGRESS:
                backoff = self._new_backoff()
                furthest = progress.furthest

            pause = self._pause(failure, backoff)
            if pause is None or anyio.current_time() + pause > deadline:
                raise self._given_up(failure, backoff.tries)
            text = f"{failure} It is tried again in {pause:.1f} s."
            self.session.events.notice(logging.INFO, text, task_id=self.task_id)
            await anyio.sleep(pause)

    def _new_backoff(self) -> Backoff:
        return Backoff(self.options.retry, self._rng, anyio.current_time())

    def _pause(self, failure: _PassingError, backoff: Backoff) -> float | None:
        """Return the seconds until the next try, None to give up."""
        if failure.waits_for_others:
            return _BUSY_PAUSE * (1.0 + self._rng.random())
        return backoff.after_failure(anyio.current_time(), retry_after=failure.retry_after)

    def _given_up(self, failure: _PassingError, tries: int) -> DownloadError:
        text = str(failure)
        if tries > 1:
            text += f" It was tried {tries} times."
        if failure.retry_after:
            text += f" The server asks to wait for {failure.retry_after:g} s."

        error = DownloadError(text, url=failure.url, path=failure.path, status=failure.status)
        error.__cause__ = failure.__cause__
        return error

    async def _attempt(self, progress: Progress) -> Path | str:
        file = progress.file
        try:
            headers = {"Accept-Encoding": "identity", **progress.range}
            async with self.session.get(file.url, headers) as response:
                rest = await self._receive(response, progress)
            if progress.lacks(rest):
                raise await self._part_only(progress, rest)
            return await self._publish(progress, rest)
        except DiskFullError as error:
            raise self._failure(file, str(error), passing=error.others, waits_for_others=True) from error
        except (
            ValueError,
            RuntimeError,
        ) as error:  # no host can have that name; the session is closed
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

    async def _part_only(self, progress: Progress, rest: bytes) -> DownloadError:
        """Return the error for a response that was whole and did not make the file so; keep what is good of it."""
        size, total = progress.size + len(rest), progress.total or 0
        if size < total and progress.validator:
            await self._write(progress, [rest])
        else:
            await progress.restart()
        reason = f"its server has sent {size} bytes of {total}"
        return self._failure(progress.file, reason, passing=True)

    @property
    def _others(self) -> bool:
        """Whether other files of this process are being saved."""
        return places().borrowed_tokens > 1

    async def _cannot_write(self, error: OSError, progress: Progress) -> DownloadError:
        text = f"the file cannot be written: {error}"
        if isinstance(error, SinkError):  # how much of it has arrived, nobody knows
            await progress.discard()
            return self._failure(progress.file, text, passing=True)
        if error.errno in _NO_DESCRIPTORS:
            return self._failure(progress.file, text, passing=True, waits_for_others=self._others)
        if error.errno not in _NO_SPACE:
            return self._failure(progress.file, text)

        # Giving up the partial file makes room; the disk may have less than it says (a quota,
        # another program).
        others = progress.room.others
        progress.times_full += 1
        await progress.discard()

        passing = others or progress.times_full <= _TIMES_FULL
        return self._failure(progress.file, text, passing=passing, waits_for_others=others)

    # -- one response ---------------------------------------------------------------------------

    async def _receive(self, response: aiohttp.ClientResponse, progress: Progress) -> bytes:
        """Write what a response has of the file, and return its last bytes; raise unless it is whole then."""
        if response.status == _OK:
            if progress.size:
                await progress.restart()
            progress.begin(response)
        elif not self._continues(response, progress):
            raise await self._refused(response, progress)

        progress.content_type = response.headers.get("Content-Type", progress.content_type)
        length = response.content_length or 0
        whole = progress.size + length
        if whole > self.options.max_bytes:
            reason = f"it has {whole} bytes, more than the limit of {self.options.max_bytes}"
            raise self._failure(progress.file, reason)

        if progress.part is None:
            await self._open(progress, length)
        else:
            await self._claim(progress, length)
        return await self._stream(response, progress)

    @staticmethod
    def _continues(response: aiohttp.ClientResponse, progress: Progress) -> bool:
        if response.status != _PARTIAL or not progress.range:
            return False
        return progress.is_continued_by(response)

    async def _refused(self, response: aiohttp.ClientResponse, progress: Progress) -> DownloadError:
        """Return the error for a response that brings no file."""
        status, file = response.status, progress.file
        if progress.range and status in {_PARTIAL, _RANGE_REFUSED}:
            await progress.restart()
            reason = f"it cannot be resumed (HTTP {status})"
            return self._failure(file, reason, status=status, passing=True)

        if status in _SPREADS and anyio.current_time() < self.links_fresh_until:
            reason = f"the link is not known yet (HTTP {status})"
            return self._failure(file, reason, status=status, passing=True)

        if status in _UNKNOWN_LINK:
            what = "the link has expired or was withdrawn"
            reason = f"{what} (HTTP {status}); read the task again for fresh links"
            return self._failure(file, reason, status=status)

        reason = f"the file's server answered HTTP {status}"
        passing = status >= _SERVER_FAULTS or status in _PASSING
        failure = self._failure(file, reason, status=status, passing=passing)
        if isinstance(failure, _PassingError):
            failure.retry_after = read_retry_after(response.headers)
        return failure

    async def _claim(self, progress: Progress, size: int) -> None:
        await in_thread(partial(self._claim_now, progress, size), self.place.executor)

    def _claim_now(self, progress: Progress, size: int) -> None:
        """Claim room on the disk, which blocks."""
        progress.room.claim(size, self.place.free())

    async def _open(self, progress: Progress, size: int) -> None:
        """Claim room for the file, and begin it."""

        def create() -> Part:
            self._claim_now(progress, size)
            return self.place.create(progress.stem, lambda: progress.likely_suffix)

        # Cancelling us does not stop the thread that opens the file, so its result is awaited.
        opening = asyncio.ensure_future(in_thread(create, self.place.executor))
        try:
            progress.part = await asyncio.shield(opening)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError, DiskFullError):
                progress.part = await opening
            raise

    async def _stream(self, response: aiohttp.ClientResponse, progress: Progress) -> bytes:
        """Write the body but for its last bytes, which are returned: they are written when it is published.

        aiohttp raises if the body is shorter than its announced length.
        """
        content = response.content
        waiting: list[bytes] = []
        weight = 0
        try:
            while chunk := await content.readany():
                waiting.append(chunk)
                weight += len(chunk)
                del chunk  # or each file would keep its last one in memory until the next comes
                if progress.size + weight > self.options.max_bytes:
                    reason = f"it goes on after the limit of {self.options.max_bytes} bytes"
                    raise self._failure(progress.file, reason)
                if weight >= _WRITE:
                    await self._write(progress, waiting)
                    waiting, weight = [], 0
        except (aiohttp.ClientError, TimeoutError):
            if progress.validator:  # what has come until now is good, and need not come again
                await self._write(progress, [*waiting, _left_in(content)])
            raise

        return b"".join(waiting)

    async def _write(self, progress: Progress, chunks: Sequence[bytes]) -> None:
        data = b"".join(chunks)
        if data:
            await self._claim_step(progress, len(data))
            await progress.write(data)

    async def _claim_step(self, progress: Progress, size: int) -> None:
        """Claim room for bytes that are about to be written, unless it is claimed already."""
        step = progress.room.step_for(size)
        if step:
            await self._claim(progress, step)

    async def _publish(self, progress: Progress, rest: bytes) -> Path | str:
        """Check the whole file, of which the last bytes are not written yet, and give it its name."""
        head, size = progress.head_with(rest), progress.size + len(rest)
        body = Body(head, size, progress.content_type, progress.file.url)
        if body.fault:
            noun = _NOUNS[progress.file.kind]
            reason = f"the content is no {noun}; it begins with {head[:16]!r} ({body.fault})"
            # A cache that does not have a fresh file yet may answer 200 with a page, or with nothing.
            is_fresh = anyio.current_time() < self.links_fresh_until
            if is_fresh:
                await progress.restart()
            raise self._failure(progress.file, reason, passing=is_fresh)

        await self._claim_step(progress, len(rest))
        return await progress.publish(rest, body.suffix)

    def _failure(
        self,
        file: TaskFile,
        reason: str,
        *,
        status: int | None = None,
        passing: bool = False,
        waits_for_others: bool = False,
    ) -> DownloadError:
        text = (
            f"A {_NOUNS[file.kind]} of task {self.task_id} was not saved: {reason}. The task is done and "
            f"stays paid for. The link: {shorten(file.url, 1000)}"
        )
        if not passing:
            return DownloadError(text, url=file.url, path=self.place.shown, status=status)

        failure = _PassingError(text, url=file.url, path=self.place.shown, status=status)
        failure.waits_for_others = waits_for_others
        return failure


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """Return what a broken stream still holds; it would raise before handing that out."""
    content.set_exception(None)  # type: ignore[arg-type]  # "no exception", as in a new stream
    return content.read_nowait()
