"""Uploads of local files to where the host can read them."""

from __future__ import annotations

import asyncio
import copy
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from attrs import define, evolve, field, frozen

from .._calls.sender import Sender
from .._calls.threads import in_thread
from .._http import Request
from .._text import label
from .._verdict import judge_read
from ..account import MAX_UPLOAD, PIAPI, Upload
from ..errors import ClientClosed, PiAPIError, TransportError

UPLOAD_URL = "https://upload.theapi.app/api/ephemeral_resource"
"""The vendor's host for uploads, which takes the same key."""

_LIFETIME = 12 * 3600.0  # seconds for which a link is used again; the host keeps a file for 24 hours
_REMEMBERED = 1_000  # links
_AT_ONCE = 4  # a file of 10 MiB takes four times that in memory while it is sent

_SLOWEST = 64 * 1024.0  # bytes per second; the time-out of an upload grows with its size


@frozen
class _Version:
    """One version of a file, told from others as git does: two that are equal here have the same bytes.

    Size and mtime alone are not enough: ``cp -p``, ``rsync -t`` and ``tar`` put another file in a
    file's place with the mtime that they were told to keep; the inode and the ctime are the file
    system's own, and cannot be set.
    """

    path: Path
    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: Path, facts: os.stat_result) -> _Version:
        return cls(path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)


_Stamp = tuple[_Version, str]
"""A version of a file, and the name under which it is uploaded."""


@define(eq=False, repr=False)
class Uploader:
    """Uploads files, each once while its link lives and the file stays as it is."""

    _sender: Sender
    _links: OrderedDict[_Stamp, tuple[str, float]] = field(factory=OrderedDict, init=False, repr=False)
    _under_way: dict[_Stamp, asyncio.Task[str]] = field(factory=dict, init=False, repr=False)
    _places: asyncio.Semaphore = field(factory=partial(asyncio.Semaphore, _AT_ONCE), init=False, repr=False)

    @classmethod
    def beside(cls, sender: Sender, url: str) -> Uploader:
        """Return an uploader with a sender's key, throttle and policy, and sockets of its own."""
        return cls(evolve(sender, transport=evolve(sender.transport, base_url=url)))

    async def send(self, data: bytes, name: str) -> str:
        """Upload bytes and return their URL.

        Raises `ValueError` for what the host would refuse, and as a read.
        """
        upload = Upload(name, data)
        async with self._places:
            return await self._send(upload)

    async def link(self, path: PurePath, name: str | None = None) -> str:
        """Return the URL of a file, uploading it if need be.

        Raises as `send`, and `OSError` if the file cannot be read.
        """
        file = Path(path)
        stamp = (await in_thread(partial(_look_at, file)), name or file.name)

        link = self._links.get(stamp)
        if link is not None:
            url, expires_at = link
            if asyncio.get_running_loop().time() < expires_at:
                return url

        task = self._under_way.get(stamp)
        if task is None:
            task = asyncio.create_task(self._upload(stamp), name="piapi_async upload")
            self._under_way[stamp] = task
            task.add_done_callback(partial(self._done, stamp))

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):  # by `close`, not with the caller
                raise ClientClosed(f"The client was closed before {file.name} was uploaded") from None
            raise
        except (PiAPIError, OSError, ValueError) as error:
            # Several callers may have wanted the file; each raises a copy of its own.
            raise copy.copy(error) from error.__cause__

    def _done(self, stamp: _Stamp, task: asyncio.Task[str]) -> None:
        del self._under_way[stamp]
        if not task.cancelled():
            task.exception()  # its callers may be gone, and asyncio would complain

    async def links(self, paths: Iterable[PurePath]) -> dict[PurePath, str]:
        """Return the URLs of files.  Raises as `link`."""
        return {path: await self.link(path) for path in paths}

    async def links_for(self, request: Request[Any], paths: Iterable[PurePath]) -> dict[PurePath, str]:
        """Return the URLs of a request's files.

        Raises `TransportError` (``sent=False``) for a file that cannot be read, or that the host would
        refuse, and else as `send`; the text says that nothing was submitted.
        """
        try:
            return await self.links(paths)
        except (OSError, ValueError) as error:
            raise TransportError(
                f"{label(request)}: a file could not be uploaded: {error}. Nothing was submitted, "
                "nothing was paid.",
                sent=False,
            ) from error
        except PiAPIError as error:
            error.args = (f"{label(request)}: a file could not be uploaded: {error} Nothing was submitted.",)
            raise

    async def _upload(self, stamp: _Stamp) -> str:
        version, name = stamp
        async with self._places:
            began = asyncio.get_running_loop().time()
            content, same = await in_thread(partial(_read, version))
            url = await self._send(Upload(name, content))

        if same:  # else the link is good for this call only: its version is not known
            self._links[stamp] = (url, began + _LIFETIME)
        while len(self._links) > _REMEMBERED:
            self._links.popitem(last=False)
        return url

    async def _send(self, upload: Upload) -> str:
        patience = self._sender.timeout + len(upload.data) / _SLOWEST
        return await self._sender.call(upload, judge_read, timeout=patience)

    async def close(self) -> None:
        """Stop what is under way, free the sockets."""
        for task in list(self._under_way.values()):
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._sender.transport.close()


def upload_url_for(base_url: str) -> str:
    """Return where files of a client go: its key must not be sent to another host."""
    return UPLOAD_URL if base_url == PIAPI.base_url else f"{base_url}/api/ephemeral_resource"


def _look_at(file: Path) -> _Version:
    """Return which version of a file is there; raise `ValueError` for one that the host would refuse."""
    facts = file.stat()
    _check(file, facts)
    return _Version.of(file.absolute(), facts)


def _read(version: _Version) -> tuple[bytes, bool]:
    """Return a file's content, and whether it was `version` all the time until it was read."""
    with version.path.open("rb") as file:
        before = os.fstat(file.fileno())
        _check(version.path, before)
        content = file.read(MAX_UPLOAD + 1)  # one that is being appended to must not fill the memory
        after = os.fstat(file.fileno())
    return content, version == _Version.of(version.path, before) == _Version.of(version.path, after)


def _check(file: Path, facts: os.stat_result) -> None:
    if not stat.S_ISREG(facts.st_mode):  # a pipe or a device may never end
        raise ValueError(f"upload: {file} is not a regular file")
    if facts.st_size > MAX_UPLOAD:  # before it is read into memory
        raise ValueError(f"upload: {file} has {facts.st_size} bytes; the host takes 10 MiB at most")
