"""The files of tasks as links serve them: made in a thread, too early, expired, signed, or in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from attrs import Factory, define, field, frozen

from piapi_async._http import HTTPResponse

from .._api.host import Host
from .._api.unified import file_names
from .._media.cdn import MISMATCH, is_signed, ranged, signed
from .._media.extras import INSTALL
from .._media.files import FileMaker, file_of
from .._media.gallery import Gallery
from .._media.links import FileLink, Link
from .._media.recipes import pictures_of
from .._service.requests import Kind
from .._service.tasks import Stage, Task
from .._service.uploads import CONTENT_TYPES
from .guard import NO_SNIFFING

_OK = 200
_TEXT = {"content-type": "text/plain"}
_NO_IMAGE = HTTPResponse(404, b"no such image", _TEXT)
_NO_FILE = HTTPResponse(404, b"no such file", _TEXT)

Produce = Callable[[], Awaitable[HTTPResponse]]


@frozen(kw_only=True)
class LinkRules:
    """How links to results behave; seconds are emulated ones after a task's end.  See `Emulator`."""

    expire_after: float | None = None
    expired_status: int = 404
    live_after: float = 0.0
    early_status: int = 404
    signed: str = "no"


@define(kw_only=True, eq=False)
class ServedFiles:
    """Responds to links; pictures and files are made in `thread`, one at a time."""

    host: Host
    rules: LinkRules
    clock: Callable[[], float]
    thread: ThreadPoolExecutor
    _gallery: Gallery = field(factory=Gallery)
    _maker: FileMaker = field(default=Factory(lambda self: FileMaker(self._gallery), takes_self=True))

    async def picture(self, link: Link) -> HTTPResponse:
        """Return the picture that a link leads to."""
        task = self.host.engine.get(link.task_id, now=self.clock())
        if task is None or not self._is_shown(task, link):
            return _NO_IMAGE
        if not link.thumb and (refusal := self._too_early_or_late(task)) is not None:
            return refusal

        size = self.host.view.picture_size
        pictures = pictures_of(task, self.host.engine.tasks.get, size)
        return await self._make("image/png", self._gallery.show, pictures, link)

    def _is_shown(self, task: Task, link: Link) -> bool:
        if task.kind not in (Kind.GRID, Kind.SINGLE):
            return link.thumb and task.kind is Kind.FILES and task.stage is Stage.FINISHED
        if link.percent is not None:
            return task.progress(self.clock()) >= link.percent
        return task.stage is Stage.FINISHED

    async def file(self, link: FileLink) -> HTTPResponse:
        """Return the file or the upload that a link leads to."""
        if not link.task_id:
            upload = self.host.uploads.find(link.name, self.clock())
            return _NO_FILE if upload is None else _served(upload.content, upload.type)

        task = self.host.engine.get(link.task_id, now=self.clock())
        if task is None or link.name not in file_names(self.host.view, task):
            return _NO_FILE
        if (refusal := self._too_early_or_late(task)) is not None:
            return refusal

        file = file_of(task, link.name, self.host.view.picture_size)
        return await self._make(CONTENT_TYPES[file.suffix], self._maker.make, file)

    async def through_cdn(
        self,
        target: str,
        path: str,
        headers: Mapping[str, str],
        produce: Produce,
    ) -> HTTPResponse:
        """Return what a CDN in front of `produce` sends.

        It checks signatures, redirects to signed links, and serves ranges.
        """
        if (refusal := self._signature_refusal(target, path)) is not None:
            return refusal

        response = await produce()
        if response.status != _OK or not self.host.view.dialect.ranges:
            return response
        return ranged(response, headers)

    def _signature_refusal(self, target: str, path: str) -> HTTPResponse | None:
        """Return the response to a link that is not signed and should be, None for one that is served."""
        if self.rules.signed == "no" or path.startswith("/ephemeral/") or is_signed(target):
            return None
        if self.rules.signed == "redirects" and "?" not in target:
            return HTTPResponse(302, b"", {"location": signed(path)})
        return MISMATCH

    def _too_early_or_late(self, task: Task) -> HTTPResponse | None:
        """Return the refusal of a link that is too old or too young, None for one that is served."""
        if task.ended is None:
            return None

        rules, age = self.rules, self.clock() - task.ended
        if rules.expire_after is not None and age > rules.expire_after:
            return HTTPResponse(rules.expired_status, b"link has expired", _TEXT)
        if age < rules.live_after:
            return HTTPResponse(rules.early_status, b"not here yet", _TEXT)
        return None

    async def _make(self, kind: str, make: Callable[..., bytes], *recipe: object) -> HTTPResponse:
        """Return what a thread makes; 424 if a library is missing, which no retry would help."""
        loop = asyncio.get_running_loop()
        try:
            content = await loop.run_in_executor(self.thread, make, *recipe)
        except ImportError as error:
            text = f"the emulator cannot make this file: {error}; {INSTALL}"
            return HTTPResponse(424, text.encode(), _TEXT)
        return _served(content, kind)


def _served(content: bytes, kind: str) -> HTTPResponse:
    return HTTPResponse(_OK, content, {"content-type": kind, **NO_SNIFFING})
