"""What a downloaded body is: a file, and with which suffix, or an error page.  Pure.

Decided by the first bytes, then the content type, then the link.  The table is ours, not a
library's: those for Python know a few hundred formats by their first bytes but hardly one of what
tasks make in three dimensions, read a file by its path, and tell a picture from an error page no
better; and half of this module is about such pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson
from attrs import frozen

HEAD = 64 * 1024
"""Bytes from the beginning of a file that are enough to tell what it is."""

ANYTHING = ".bin"
"""The suffix of a file of unknown kind."""

# -- by signature ----------------------------------------------------------------------------------

# Beginnings, as regular expressions; `re` compiles those that are asked for.
_PLAIN: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r\n\x1a\n", ".png"),
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"RIFF....WEBP", ".webp"),
    (rb"GIF8[79]a", ".gif"),
    (rb"BM....\0\0\0\0", ".bmp"),
    (rb"II[*+]\0|MM\0[*+]", ".tiff"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", ".jxl"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
    (rb"8BPS\0", ".psd"),
    (rb"\x76\x2f\x31\x01", ".exr"),
    (rb"#\?(?:RADIANCE|RGBE)\n", ".hdr"),
    (rb"RIFF....AVI ", ".avi"),
    (rb"FLV\x01", ".flv"),
    (rb"\0\0\x01[\xba\xb3]", ".mpg"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", ".wmv"),
    (rb"(?:RIFF|RF64)....WAVE", ".wav"),
    (rb"FORM....AIF[FC]", ".aiff"),
    (rb"fLaC", ".flac"),
    (rb"OggS", ".ogg"),
    (rb"caff\0", ".caf"),
    (rb"MThd\0\0\0\x06", ".mid"),
    (rb"#!AMR", ".amr"),
    (rb"ID3", ".mp3"),
    # Frames: eleven bits set, the version (1, 2 or 2.5), the layer; then a bit rate that is not
    # "bad".
    (rb"\xff[\xfa\xfb\xf2\xf3\xe2\xe3][^\xf0-\xff]", ".mp3"),
    (rb"\xff[\xf0\xf1\xf8\xf9]|ADIF", ".aac"),
    (rb"glTF", ".glb"),
    (rb"ply\r?\n", ".ply"),
    (rb"Kaydara FBX Binary  \0|; FBX \d", ".fbx"),
    (rb"PXR-USDC", ".usdc"),
    (rb"#usda ", ".usda"),
    (rb"BLENDER", ".blend"),
    (rb"%PDF-", ".pdf"),
    (rb"PK\x05\x06", ".zip"),
    (rb"7z\xbc\xaf\x27\x1c", ".7z"),
    (rb"\x1f\x8b\x08", ".gz"),
    (rb"\x28\xb5\x2f\xfd", ".zst"),
    (rb"\x1a\x45\xdf\xa3(?=.{0,80}matroska)", ".mkv"),
    (rb"\x1a\x45\xdf\xa3", ".webm"),
    (rb".{257}ustar", ".tar"),
    (rb"G(?:.{187}G){2}", ".ts"),
)

# The boxes of ISO media: the brand that a file is first of, or, if that says little, those that it
# is also of.
_BRANDS: Mapping[bytes, str] = {
    **dict.fromkeys((b"avif", b"avis"), ".avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), ".heic"),
    **dict.fromkeys((b"M4A ", b"M4B "), ".m4a"),
    **dict.fromkeys((b"3gp4", b"3gp5", b"3gp6", b"3gp7"), ".3gp"),
    b"qt  ": ".mov",
}
_VAGUE = frozenset({b"mif1", b"msf1", b"miaf"})

_STL_HEADER, _STL_FACET = 84, 50
_OBJ_VERTEX = re.compile(rb"v\s+[-+.0-9]")
_OBJ_BEFORE = re.compile(rb"#|(?:mtllib|usemtl|o|g|s)\s")


def suffix_of(head: bytes, size: int = 0) -> str:
    """Return the suffix for a file that begins with `head`, "" if that says nothing.

    `size` is the whole file's, by which a binary STL is known.
    """
    for recognise in (_plain, _iso_media, _zip, _stl, _obj, _xml_file):
        if suffix := recognise(head, size):
            return suffix
    return ""


def _plain(head: bytes, _size: int) -> str:
    return next((suffix for pattern, suffix in _PLAIN if re.match(pattern, head, re.DOTALL)), "")


def _iso_media(head: bytes, _size: int) -> str:
    if head[4:8] != b"ftyp":
        return ""
    major = head[8:12]
    if major not in _VAGUE:
        return _BRANDS.get(major, ".mp4")

    end = min(int.from_bytes(head[:4], "big"), 256)
    also = (head[start : start + 4] for start in range(16, end, 4))
    return next((_BRANDS[brand] for brand in also if brand in _BRANDS), ".heif")


def _zip(head: bytes, _size: int) -> str:
    if not head.startswith(b"PK\x03\x04"):
        return ""

    length = int.from_bytes(head[26:28], "little")  # of the first name in the archive
    first = head[30 : 30 + length].lower()
    if first.endswith((b".usd", b".usda", b".usdc")):
        return ".usdz"
    return ".zip"


def _stl(head: bytes, size: int) -> str:
    facets = int.from_bytes(head[80:_STL_HEADER], "little")
    if facets and size == _STL_HEADER + facets * _STL_FACET:
        return ".stl"
    if head.startswith(b"solid") and re.search(rb"\sfacet\s", head):
        return ".stl"
    return ""


def _obj(head: bytes, _size: int) -> str:
    """Recognise Wavefront's format, which has no signature: comments and names, then a vertex."""
    for line in head.splitlines():
        if _OBJ_VERTEX.match(line):
            return ".obj"
        if line.strip() and not _OBJ_BEFORE.match(line):
            return ""
    return ""


def _xml_file(head: bytes, _size: int) -> str:
    return {"svg": ".svg", "collada": ".dae", "x3d": ".x3d"}.get(_root_of(_text(head)), "")


# -- by content type and link ----------------------------------------------------------------------

_BY_TYPE: Mapping[str, str] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/jpg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/x-ms-bmp": ".bmp",
    "image/tiff": ".tiff",
    "image/jxl": ".jxl",
    "image/jp2": ".jp2",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "image/heif": ".heif",
    "image/svg+xml": ".svg",
    "image/vnd.adobe.photoshop": ".psd",
    "image/x-exr": ".exr",
    "image/vnd.radiance": ".hdr",
    "image/ktx2": ".ktx2",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "video/mp2t": ".ts",
    "video/mpeg": ".mpg",
    "video/x-flv": ".flv",
    "video/x-ms-wmv": ".wmv",
    "video/3gpp": ".3gp",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/wave": ".wav",
    "audio/vnd.wave": ".wav",
    "audio/flac": ".flac",
    "audio/x-flac": ".flac",
    "audio/ogg": ".ogg",
    "audio/opus": ".opus",
    "audio/aac": ".aac",
    "audio/x-aac": ".aac",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aiff": ".aiff",
    "audio/x-aiff": ".aiff",
    "audio/midi": ".mid",
    "audio/amr": ".amr",
    "model/gltf-binary": ".glb",
    "model/gltf+json": ".gltf",
    "model/obj": ".obj",
    "model/stl": ".stl",
    "application/sla": ".stl",
    "model/3mf": ".3mf",
    "model/vnd.usdz+zip": ".usdz",
    "model/vnd.collada+xml": ".dae",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "application/gzip": ".gz",
    "application/x-tar": ".tar",
    "application/json": ".json",
    "application/xml": ".xml",
    "text/xml": ".xml",
    "text/csv": ".csv",
    "text/vtt": ".vtt",
    "text/srt": ".srt",
    "application/x-subrip": ".srt",
}

_FROM_LINK = re.compile(r"\.([a-z0-9]{1,12})\Z")
# What a system would run or a browser would open as a page: the link is the host's word, and not
# taken for that.
_PROGRAMS = (
    "app apk asp aspx bash bat cgi chm cmd com command cpl dll dmg exe hta htm html jar js jse jsp "
    "lnk mht mhtml msc msi msp php pif pl ps1 py rb reg scr sh shtml so svgz sys url vb vbe vbs "
    "website workflow ws wsf wsh xhtml xht"
)
_NEVER_FROM_LINK = frozenset(_PROGRAMS.split())

SUFFIXES: tuple[str, ...] = tuple(
    dict.fromkeys(
        (
            *(suffix for _, suffix in _PLAIN),
            *(".mp4", ".svg", ".usdz", ".stl", ".obj", ".heif", ".dae", ".x3d", ".gltf"),
            *(".json", ".xml", ".txt"),
            *_BRANDS.values(),
            *_BY_TYPE.values(),
            ANYTHING,
        )
    )
)
"""Every suffix that a file may get, other than that of its link."""


def suffix_of_link(url: str) -> str:
    """Return the suffix of a link's path in lower case, "" for none that a result may have."""
    path = re.sub(r"[?#].*", "", re.sub(r"^\w+://[^/?#]*", "", url), flags=re.DOTALL)
    found = _FROM_LINK.search(path.lower())
    if found is None or found[1] in _NEVER_FROM_LINK:
        return ""
    return f".{found[1]}"


_ARCHIVES = frozenset({".3mf", ".usdz", ".epub", ".cbz", ".npz"})
"""Suffixes of files that are zip archives."""


@frozen(eq=False, repr=False)
class Body:
    """What is known of a whole body: its first `HEAD` bytes, its size, its type and its link."""

    head: bytes
    size: int
    content_type: str = ""
    url: str = ""

    @property
    def _media_type(self) -> str:
        return self.content_type.partition(";")[0].strip().lower()

    @property
    def _is_gltf(self) -> bool:
        if not _GLTF.search(self.head):
            return False
        data = _json_of(self)
        return data is _LONG_JSON or (isinstance(data, dict) and isinstance(data.get("asset"), dict))

    @property
    def suffix(self) -> str:
        """The suffix: of the signature, else of the content type, else of the link, else `ANYTHING`."""
        known = suffix_of(self.head, self.size)
        linked = suffix_of_link(self.url)
        if known == ".zip" and linked in _ARCHIVES:
            return linked
        if not known and self._is_gltf:
            known = ".gltf"

        typed = _BY_TYPE.get(self._media_type, "")
        plain = ".txt" if self._media_type == "text/plain" else ANYTHING
        return known or typed or linked or plain

    @property
    def fault(self) -> str:
        """Why this is not a file but what a server sends in place of one; "" for a file."""
        if not self.size:
            return "it is empty"
        if suffix_of(self.head, self.size) or self._is_gltf:
            return ""

        root = _root_of(_text(self.head))
        if root in _PAGE or self._media_type in {"text/html", "application/xhtml+xml"}:
            return "it is a web page"
        if root and any(word in root for word in _XML_FAULTS):
            return "it is an error message"

        data = _json_of(self)
        if data is not _NO_JSON and data is not _LONG_JSON and _is_json_error(data):
            return "it is an error message"
        return ""


# -- pages and messages ----------------------------------------------------------------------------

_ELEMENTS = "html head body title script style meta link h1 h2 p div span center table pre br"
_PAGE = frozenset(_ELEMENTS.split())
_XML_FAULTS = ("error", "fault", "exception", "problem", "denied")
_BLANK = b" \t\r\n\x0b\x0c\0\xef\xbb\xbf"
_GLTF = re.compile(rb'"(?:asset|bufferViews|accessors|meshes)"\s*:')


def _text(head: bytes) -> bytes:
    """Return the beginning as UTF-8, without a byte order mark or white space."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "replace").encode()
    return head.lstrip(_BLANK)


def _root_of(text: bytes) -> str:
    """Return the name of the element that markup begins with, in lower case, without its prefix."""
    if not text.startswith(b"<"):
        return ""
    while True:
        text = text.lstrip(_BLANK)
        if re.match(rb"<!doctype\s+html", text, re.IGNORECASE):
            return "html"
        ends = [(b"<!--", b"-->"), (b"<?", b"?>"), (b"<!", b">")]
        end = next((end for begin, end in ends if text.startswith(begin)), None)
        if end is None:
            break
        text = text.partition(end)[2]

    name = re.match(rb"<(?:[A-Za-z_][\w.-]*:)?([A-Za-z_][\w.-]*)", text)
    if name is None:
        return ""
    return name[1].decode("ascii", "replace").lower()


_NO_JSON, _LONG_JSON = object(), object()


def _json_of(body: Body) -> Any:  # noqa: ANN401 - JSON
    """Return the JSON of a body, `_LONG_JSON` if it is longer than `HEAD`, else `_NO_JSON`."""
    text = _text(body.head)
    if not text.startswith((b"{", b"[")) and "json" not in body.content_type:
        return _NO_JSON
    if body.size > len(body.head):
        return _LONG_JSON
    try:
        return orjson.loads(text.rstrip(_BLANK))
    except orjson.JSONDecodeError:
        return _NO_JSON


_ALWAYS = frozenset(
    {
        *("error", "errors", "err", "fault", "error_code", "errorcode"),
        *("error_message", "errormessage", "error_msg"),
    }
)
_OFTEN = frozenset(
    {
        *("message", "msg", "detail", "details", "code", "status", "statuscode", "status_code"),
        *("success", "ok", "reason", "description", "title", "type"),
    }
)


def _is_json_error(data: Any) -> bool:  # noqa: ANN401 - JSON
    """Return whether JSON is an error message of a server, or nothing at all."""
    if isinstance(data, list) and data and isinstance(data[0], dict):
        data = data[0]
    if not isinstance(data, dict):
        return not (isinstance(data, list) and data)

    names = {str(name).lower() for name in data}
    told = {str(name).lower() for name, value in data.items() if value}
    if told & _ALWAYS or data.get("success") is False:
        return True
    nested = any(isinstance(value, (dict, list)) and value for value in data.values())
    return not nested and (not data or bool(names & _OFTEN))
