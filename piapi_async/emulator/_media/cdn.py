"""What a CDN does to files: signed links, and ranges of bytes.  Pure."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from urllib.parse import quote

from attrs import evolve

from piapi_async._http import HTTPResponse

_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE = 206, 416
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
#: Its escapes are such that a client which re-quotes the query changes it, and so breaks the
#: signature.
_QUERY = (
    "X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKEMULATOR%2F20260801%2Fus-east-1%2Fs3%2Faws4_request"
    "&response-content-disposition=inline%3B%20filename%3D%22cat%20%28%E7%8C%AB%29%2C%27%7E%40.png%22"
    "&X-Amz-Signature="
)
MISMATCH = HTTPResponse(
    403,
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SignatureDoesNotMatch</Code><Message>The request signature "
    b"we calculated does not match the signature you provided.</Message></Error>",
    {"content-type": "application/xml"},
)


def signed(path: str) -> str:
    """Return the path with its signature, which is valid for exactly these bytes."""
    digest = base64.b64encode(hashlib.sha256(path.encode()).digest()).decode()
    return f"{path}?{_QUERY}{quote(digest, safe='')}"


def is_signed(target: str) -> bool:
    """Return whether a request target is, byte for byte, one that was signed."""
    path = target.partition("?")[0]
    return target == signed(path)


def ranged(response: HTTPResponse, headers: Mapping[str, str]) -> HTTPResponse:
    """Return a file as the request headers ask for it, with an entity tag.

    The headers are `Range` and `If-Range` (RFC 9110 §14).
    """
    size = len(response.body)
    tag = f'"{zlib.crc32(response.body):08x}-{size:x}"'
    extra = {"etag": tag, "accept-ranges": "bytes"}
    whole = evolve(response, headers={**response.headers, **extra})

    asked = _RANGE.fullmatch(headers.get("Range", "").strip())
    if asked is None or not any(asked.groups()) or headers.get("If-Range", tag) != tag:
        return whole

    first, last = asked.groups()
    begin, end = _span(first, last, size)
    if begin >= size or begin > end:
        return HTTPResponse(_RANGE_NOT_SATISFIABLE, b"", {"content-range": f"bytes */{size}"})

    part = {"content-range": f"bytes {begin}-{end}/{size}"}
    return HTTPResponse(_PARTIAL_CONTENT, response.body[begin : end + 1], {**whole.headers, **part})


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte that are asked for."""
    end = size - 1
    if not first:
        return max(0, size - int(last)), end
    if not last:
        return int(first), end
    return int(first), min(int(last), end)
