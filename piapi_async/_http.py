"""An HTTP request and response as plain values, and what a request is.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import orjson
from attrs import define, field

_NO_HEADERS: Mapping[str, str] = {}

A_co = TypeVar("A_co", covariant=True)


@define  # every call makes one, and a frozen one would take twice as long
class HTTPRequest:
    """One request: an absolute `path`, with its query, and a `body` of JSON, sent as it is."""

    method: str
    path: str
    body: bytes = field(default=b"", repr=False)  # may hold a webhook secret
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)


@define  # as the request
class HTTPResponse:
    """One response, not yet judged; the names of `headers` are in lower case.

    `sent` is the body of the request that it answers, None where nobody has noted it.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default=_NO_HEADERS, repr=False)  # a host may echo the key there
    sent: bytes | None = field(default=None, repr=False)


class Request(Protocol[A_co]):
    """Anything the client can send, and what its response means."""

    def to_http(self) -> HTTPRequest:
        """Return the request as it is sent, without the key."""
        ...

    def parse(self, response: HTTPResponse, /) -> A_co:
        """Return what the response means; raise `APIError` (refused) or `UnexpectedAnswer`."""
        ...


def post(path: str, body: object) -> HTTPRequest:
    """Return a POST of `body` as JSON."""
    return HTTPRequest("POST", path, orjson.dumps(body))
