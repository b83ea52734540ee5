"""What a network of caches makes of files: links that are signed, and ranges of bytes.  Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from urllib.parse import quote

from attrs import evolve

from piapi_async._http import HTTPResponse

_PARTIAL, _UNSATISFIABLE = 206, 416
#: Escapes that a client which writes the query anew would write in another way.
_QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKEMULATOR%2F20260801%2Fus-east-1%2Fs3%2Faws4_request"
    "&response-content-disposition=inline%3B%20filename%3D%22cat%20%28%E7%8C%AB%29%2C%27%7E%40.png%22"
    "&X-Amz-Signature="
)
MISMATCH = HTTPResponse(
    403,
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature '
    b"we calculated does not match the signature you provided.</Message></Error>",
    {"content-type": "application/xml"},
)


def signed(path: str) -> str:
    """Return the path with its signature, which holds for these very bytes."""
    digest = base64.b64encode(hashlib.sha256(path.encode()).digest()).decode()
    return f"{path}?{_QUERY}{quote(digest, safe='')}"


def is_signed(target: str) -> bool:
    """Tell whether a request's target is, byte for byte, one that was signed."""
    return target == signed(target.partition("?")[0])


def ranged(answer: HTTPResponse, headers: Mapping[str, str]) -> HTTPResponse:
    """Return a file as these request headers (`Range`, `If-Range`) ask for it, with an entity tag (RFC 9110 §14)."""
    size = len(answer.body)
    tag = f'"{zlib.crc32(answer.body):08x}-{size:x}"'
    whole = evolve(answer, headers={**answer.headers, "etag": tag, "accept-ranges": "bytes"})
    asked = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", headers.get("Range", "").strip())
    if asked is None or not any(asked.groups()) or headers.get("If-Range", tag) != tag:
        return whole
    first, last = asked.groups()
    begin, end = _span(first, last, size)
    if begin >= size or begin > end:
        return HTTPResponse(_UNSATISFIABLE, b"", {"content-range": f"bytes */{size}"})
    part = {"content-range": f"bytes {begin}-{end}/{size}"}
    return HTTPResponse(_PARTIAL, answer.body[begin : end + 1], {**whole.headers, **part})


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte that is asked for."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
