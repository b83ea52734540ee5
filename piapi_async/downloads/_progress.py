"""How far one file has come, over all tries to bring it over."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from attrs import define

from .._calls.threads import in_thread
from .._protocol.signatures import HEAD, Body
from ._disk import Room
from ._place import Part, Place

if TYPE_CHECKING:
    from pathlib import Path

    from ..tasks import TaskFile

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)\s*\Z", re.IGNORECASE)
_SENDABLE = re.compile(r"[ -~]+\Z")


@define(eq=False)
class Progress:
    """The partial file, and what the server has said about the whole one."""

    file: TaskFile
    stem: str
    room: Room
    place: Place
    part: Part | None = None
    size: int = 0
    """Bytes of the file that are written."""
    head: bytes = b""
    validator: str = ""
    """By which the server knows the version that was begun; "" if it cannot be resumed."""
    validated_by: str = ""
    """The header that it stands in."""
    total: int | None = None
    content_type: str = ""
    furthest: int = 0
    """The largest `size` of all tries."""
    times_full: int = 0
    """How often the disk was full although there seemed to be room."""

    @property
    def range(self) -> dict[str, str]:
        """The headers that ask for what is missing."""
        if not self.size or not self.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def begin(self, response: aiohttp.ClientResponse) -> None:
        """Note what a response says of the whole file that it begins."""
        self.total, self.validator = None, ""
        if "Content-Encoding" in response.headers:
            return

        self.total = response.content_length
        if response.headers.get("Accept-Ranges", "").strip().lower() == "none":
            return

        for name in ("ETag", "Last-Modified"):
            value = response.headers.get(name, "")
            # A weak tag does not promise the same bytes, and not every value can be sent back.
            if _SENDABLE.match(value) and not value.startswith("W/"):
                self.validator, self.validated_by = value, name
                return

    def is_continued_by(self, response: aiohttp.ClientResponse) -> bool:
        """Return whether a partial response goes on where this ends, in the same version.

        It must tell how long the whole file is, unless that is known, for it may have less than was
        asked for.
        """
        found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if found is None or int(found[1]) != self.size or "Content-Encoding" in response.headers:
            return False
        if response.headers.get(self.validated_by, self.validator) != self.validator:
            return False

        if found[3] == "*":
            return self.total is not None
        if self.total is None:
            self.total = int(found[3])
        return int(found[3]) == self.total > int(found[2])

    def lacks(self, rest: bytes) -> bool:
        """Return whether the file is not whole with these last bytes, as far as its length is known."""
        return self.total is not None and self.size + len(rest) != self.total

    @property
    def likely_suffix(self) -> str:
        """The suffix that the file will have, by what has come of it."""
        return Body(self.head, self.total or self.size, self.content_type, self.file.url).suffix

    def head_with(self, data: bytes) -> bytes:
        """Return the first bytes of the file, `data` being its next."""
        if len(self.head) >= HEAD:
            return self.head
        return self.head + data[: HEAD - len(self.head)]

    async def write(self, data: bytes) -> None:
        """Append bytes to the partial file."""
        if self.part is None:
            return

        self.head = self.head_with(data)
        await in_thread(partial(self.part.write, data), self.place.executor)
        self.room.written(len(data))

        self.size += len(data)
        self.furthest = max(self.furthest, self.size)

    async def publish(self, rest: bytes, suffix: str) -> Path | str:
        """Append the last bytes, and give the whole file its name; return where it is."""
        part = self.part
        assert part is not None  # noqa: S101 - a response that brings a file has begun it

        def finish() -> Path | str:
            if rest:
                part.write(rest)
            return part.publish(f"{self.stem}{suffix}")

        saved_as = await in_thread(finish, self.place.executor)
        self.part = None
        return saved_as

    async def restart(self) -> None:
        """Begin the file anew."""
        self.size, self.head = 0, b""
        if self.part is not None:
            await in_thread(self.part.restart, self.place.executor)

    async def discard(self) -> None:
        """Remove the partial file and free its room."""
        part, self.part = self.part, None
        self.size, self.head = 0, b""
        self.room.release()

        if part is not None:
            await in_thread(part.discard, self.place.executor)
