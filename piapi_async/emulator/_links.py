"""The addresses pictures are served at, read back.  Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

from attrs import frozen

_LINK = re.compile(
    r"(?P<front>/_emulator/thumbs|/discord/mj|(?:/cdn-cgi/image/trim=(?P<trim>\d{1,6}(?:;\d{1,6}){3}))?/mj)"
    r"/(?P<task_id>[^/]{1,200}?)(?:_(?P<percent>25|50|75))?\.png"
)


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
