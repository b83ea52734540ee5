"""The paths at which pictures and other files are served, parsed.  Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from attrs import frozen

_LINK = re.compile(
    r"(?P<front>/_emulator/thumbs"
    r"|/discord/mj"
    r"|(?:/cdn-cgi/image/trim=(?P<trim>\d{1,6}(?:;\d{1,6}){3}))?/mj)"
    r"/(?P<task_id>[^/]{1,200}?)(?:_(?P<percent>25|50|75))?\.png"
)
_FILE = re.compile(r"/files/(?P<task_id>[^/]{1,200})/(?P<name>[a-z0-9-]{1,40}\.[a-z0-9]{3})")
_UPLOAD = re.compile(r"/ephemeral/(?P<name>[0-9a-f-]{36}\.[a-z0-9]{3,4})")


@frozen
class Link:
    """A picture of a task: its sheet, trimmed (top, right, bottom, left), as a preview, or as a thumbnail."""

    task_id: str
    trim: tuple[int, int, int, int] | None = None
    percent: int | None = None
    thumb: bool = False


@frozen
class FileLink:
    """A file under /files or /ephemeral: one of a task, or, without a task id, an upload."""

    name: str
    task_id: str = ""


def read_link(path: str) -> Link | None:
    """Return the picture that `path` leads to, None if it leads to none."""
    match = _LINK.fullmatch(unquote(path))
    if match is None:
        return None

    trim = None
    if match["trim"]:
        top, right, bottom, left = map(int, match["trim"].split(";"))
        trim = (top, right, bottom, left)

    percent = int(match["percent"]) if match["percent"] else None
    is_thumb = match["front"] == "/_emulator/thumbs"
    return Link(match["task_id"], trim, percent, thumb=is_thumb)


def read_file_link(path: str) -> FileLink | None:
    """Return the file that `path` leads to, None if it leads to none."""
    path = unquote(path)

    match = _FILE.fullmatch(path)
    if match is not None:
        return FileLink(match["name"], match["task_id"])

    match = _UPLOAD.fullmatch(path)
    if match is not None:
        return FileLink(match["name"])
    return None
