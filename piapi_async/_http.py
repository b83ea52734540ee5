"""An HTTP request and response as plain values, and what a request is.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import orjson
from attrs import field, frozen

_NO_HEADERS: Mapping[str, str] = {}

A_co = TypeVar("A_co", covariant=True)


@frozen(slots=False)  # made for every call: into a dict that costs less
class HTTPRequest:
    """One request: `path` is absolute, with its query if any; `body` is sent as it stands (JSON when not empty)."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)  # may hold a webhook secret
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)


@frozen
class HTTPResponse:
    """One answer, unjudged: `headers` are looked up in lower case."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)  # a host may echo the key there


class Request(Protocol[A_co]):
    """Anything the client can send, and what its answer means."""

    def to_http(self) -> HTTPRequest:
        """Give the request as it goes out, without the key."""
        ...

    def parse(self, response: HTTPResponse, /) -> A_co:
        """Give what the answer means; raise `APIError` (refused) or `UnexpectedAnswer` (not understood)."""
        ...


def post(path: str, body: object) -> HTTPRequest:
    """Give a POST of `body` as JSON."""
    return HTTPRequest("POST", path, orjson.dumps(body))
