"""The addresses pictures and other files are served at, read back.  Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from attrs import frozen

_LINK = re.compile(
    r"(?P<front>/_emulator/thumbs|/discord/mj|(?:/cdn-cgi/image/trim=(?P<trim>\d{1,6}(?:;\d{1,6}){3}))?/mj)"
    r"/(?P<task_id>[^/]{1,200}?)(?:_(?P<percent>25|50|75))?\.png"
)

_FILE = re.compile(r"/files/(?P<task_id>[^/]{1,200})/(?P<name>[a-z0-9-]{1,40}\.[a-z0-9]{3})")
_UPLOAD = re.compile(r"/ephemeral/(?P<name>[0-9a-f-]{36}\.[a-z0-9]{3,4})")


@frozen
class Link:
    """What an address asks for: a task's sheet, trimmed (top, right, bottom, left), as a preview, or as a thumbnail."""

    task_id: str
    trim: tuple[int, int, int, int] | None = None
    percent: int | None = None
    thumb: bool = False


def read_link(path: str) -> Link | None:
    """Return what `path` asks for, None if it is no picture's."""
    match = _LINK.fullmatch(unquote(path))
    if match is None:
        return None
    trim = None
    if match["trim"]:
        top, right, bottom, left = map(int, match["trim"].split(";"))
        trim = (top, right, bottom, left)
    percent = int(match["percent"]) if match["percent"] else None
    return Link(match["task_id"], trim, percent, thumb=match["front"] == "/_emulator/thumbs")


@frozen
class FileLink:
    """What an address under /files or /ephemeral asks for: a task's file, or what was uploaded (no task)."""

    name: str
    task_id: str = ""


def read_file_link(path: str) -> FileLink | None:
    """Return what `path` asks for, None if it is no file's."""
    path = unquote(path)
    if match := _FILE.fullmatch(path):
        return FileLink(match["name"], match["task_id"])
    match = _UPLOAD.fullmatch(path)
    return FileLink(match["name"]) if match else None
