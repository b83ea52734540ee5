"""HTTP as plain values, and how an answer becomes data or the right error.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

_NO_HEADERS: Mapping[str, str] = {}


@frozen
class HTTPRequest:
    """One request: `path` is absolute, with its query if any; `body` is sent as it stands (JSON when not empty)."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)


@frozen
class HTTPResponse:
    """One answer, unjudged: `headers` are looked up in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = _NO_HEADERS
