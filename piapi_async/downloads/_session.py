"""HTTP for files: links requested byte for byte, redirects followed here, addresses checked first.

No API key is here.  aiohttp would spell a link anew (``%2F`` becomes ``/``), which a signing CDN
answers with 403 (observed); so a link's path and query are sent as they came, and so are those of a
redirect.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import aiohttp
from attrs import define, field
from multidict import CIMultiDict
from yarl import URL

from .._calls.transport import USER_AGENT
from ..errors import DownloadError
from ..observe._emitter import Events
from ._addresses import Reach, first_refused, reach_of

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

SILENCE = 60.0
"""Seconds without a byte after which a connection is dropped; the whole file may take any time."""

_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_HEADER_LINE = 64 * 1024  # a signed link in a Location may exceed aiohttp's 8 kB

_PARTS = re.compile(r"(https?):(//[^/?#\\]*)([^#]*)", re.IGNORECASE | re.DOTALL)
_NOT_PLAIN = re.compile(r"[^!-~]")

_TIMEOUT = aiohttp.ClientTimeout(sock_connect=SILENCE, sock_read=SILENCE, ceil_threshold=SILENCE + 1.0)


class LinkError(ValueError):
    """A link that cannot be requested, or must not be."""


class _RefusedPeerError(aiohttp.ClientConnectionError):
    """A name resolved to an address that links must not lead to."""


def to_url(link: str) -> URL:
    """Return the URL that requests a link byte for byte; spaces and non-ASCII are percent-encoded.

    Raises `LinkError` unless it is an http(s) link.
    """
    parts = _PARTS.match(link.strip())
    if parts is None:
        raise LinkError("the link is not http(s)")
    try:
        origin = URL(f"{parts[1].lower()}:{parts[2]}")
        target = _NOT_PLAIN.sub(_encode, parts[3])
    except ValueError as error:
        raise LinkError(str(error) or "the link is not a URL") from error
    if not origin.host:
        raise LinkError("the link names no host")

    if not target.startswith("/"):
        target = f"/{target}"
    url = URL()
    if origin.path in {"", "/"}:
        url = URL(f"{origin}{target}", encoded=True)
    if url.raw_path_qs != target:  # an empty query: "?" at the end
        url = URL.build(scheme=origin.scheme, authority=origin.raw_authority, path=target, encoded=True)
    return url


def _encode(found: re.Match[str]) -> str:
    # Bytes of a header that are not UTF-8 come as surrogates.
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


def redirected(link: str, location: str) -> str:
    """Return where a `Location` leads, seen from a link, byte for byte."""
    if _PARTS.match(location):
        return location

    origin = _PARTS.match(link)
    is_path = location.startswith("/") and not location.startswith("//")
    if origin and is_path:
        return f"{origin[1]}:{origin[2]}{location}"
    return urljoin(link, location)


def host_of(origin: str) -> str:
    """Return the host of an origin such as ``https://api.piapi.ai``."""
    return URL(origin).raw_host or ""


@define(eq=False, repr=False)
class FileSession:
    """Requests files, over a user's connector and proxy if there is one.

    `api` is the host of the API whose links these are, "" if unknown; `events` is where what becomes
    of the files is told.  `close` it in its own loop.
    """

    api: str
    _session: aiohttp.ClientSession
    _connector: _Checked
    _proxy: URL | str | None = field(repr=False)  # it may hold a password
    _proxy_auth: aiohttp.BasicAuth | None = field(repr=False)
    _trust_env: bool
    events: Events = field(factory=Events, init=False)
    _allowed: frozenset[Reach] | None = field(default=None, init=False)

    @classmethod
    def make(
        cls,
        api: str = "",
        *,
        session: aiohttp.ClientSession | None = None,
        trust_env: bool = False,
        as_it_is: bool = False,
    ) -> FileSession:
        """Return a session for files.

        A user's `session` lends its connector (with its TLS) and proxy; its headers, cookies and auth
        only `as_it_is`, because they may be meant for the API alone.  Raises `DownloadError` if it is
        closed.
        """
        if session is None:
            # Unbounded: `download` bounds the files, and their time would pass in the pool's queue.
            own = _Checked(aiohttp.TCPConnector(limit=0), owned=True)
            return cls._over(own, api, trust_env=trust_env, options=_plain_options())

        if session.closed or session.connector is None:
            raise DownloadError("The aiohttp session is closed, so no file can be downloaded over it.")
        options = _plain_options()
        if as_it_is:
            options = _options_of(session)

        return cls._over(
            _Checked(session.connector, owned=False),
            api,
            trust_env=trust_env or session.trust_env,
            options=options,
            # aiohttp has no public way to ask a session for the proxy it was made with.
            proxy=getattr(session, "_default_proxy", None),
            proxy_auth=getattr(session, "_default_proxy_auth", None),
        )

    @classmethod
    def _over(
        cls,
        connector: _Checked,
        api: str,
        *,
        trust_env: bool,
        options: dict[str, Any],
        proxy: URL | str | None = None,
        proxy_auth: aiohttp.BasicAuth | None = None,
    ) -> FileSession:
        session = aiohttp.ClientSession(
            connector=connector,
            max_line_size=_MAX_HEADER_LINE,
            max_field_size=_MAX_HEADER_LINE,
            timeout=_TIMEOUT,
            **options,
        )
        files = cls(api, session, connector, proxy, proxy_auth, trust_env)
        connector.watch = files
        return files

    async def close(self) -> None:
        """Close what was made here; a user's connector stays open."""
        await self._session.close()

    @contextlib.asynccontextmanager
    async def get(
        self, link: str, headers: Mapping[str, str]
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        """Request a link, follow its redirects, and yield the response.

        Raises `LinkError` for links and redirects that cannot be requested, or must not be; aiohttp's
        own errors, and `TimeoutError`, if the connection fails.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._ask(to_url(link), headers)
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location:
                try:
                    yield response
                finally:
                    response.close()
                return
            response.close()
            link = redirected(link, location)
        raise LinkError(f"it was redirected more than {_MOST_REDIRECTS} times")

    async def _ask(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        host = url.raw_host or ""
        if not await self.may_reach(host, host):
            raise _refused(host)

        proxy = self._proxy
        if proxy is None:
            proxy = self._proxy_of_environment(url)

        try:
            return await self._session.get(
                url,
                headers=headers,
                proxy=proxy,
                proxy_auth=self._proxy_auth,
                allow_redirects=False,
                raise_for_status=False,
            )
        except _RefusedPeerError as error:
            raise _refused(f"{host} ({error})") from None

    def _proxy_of_environment(self, url: URL) -> str | None:
        # Not by the session's own `trust_env`: that would also send what ~/.netrc has for the host.
        if not self._trust_env or proxy_bypass(url.raw_host or ""):
            return None
        return getproxies().get(url.scheme)

    async def may_reach(self, host: str, address: str) -> bool:
        """Return whether a link to `host` may lead to `address`.

        `address` may be a name; what that resolves to is checked once connected.  If the API is unknown
        (a task that was made by hand), files may be on this machine too.
        """
        if first_refused([address], frozenset()) is None:
            return True
        if self.api and host.lower() == self.api.lower():
            return True

        if self._allowed is None:
            self._allowed = await self._reach_of_api()
        return first_refused([address], self._allowed) is None

    async def _reach_of_api(self) -> frozenset[Reach]:
        """Return how far the API's own addresses reach; empty for a name that only a proxy resolves."""
        if not self.api:
            return frozenset({Reach.LOOPBACK})

        reach = reach_of(self.api)
        if reach is not None:
            return frozenset({reach})

        # The resolver that the API's own requests use; aiohttp has no public way to ask for it.
        resolver = getattr(self._connector.inner, "_resolver", None) or aiohttp.ThreadedResolver()
        try:
            found = await resolver.resolve(self.api, 0, socket.AF_UNSPEC)
        except OSError:
            return frozenset()
        return frozenset(filter(None, (reach_of(str(one["host"])) for one in found)))


def _refused(where: str) -> LinkError:
    place = "this machine or in a private network, where the API is not"
    return LinkError(f"the link leads to {where}, which is {place}")


def _plain_options() -> dict[str, Any]:
    return {"headers": {"User-Agent": USER_AGENT}, "cookie_jar": aiohttp.DummyCookieJar()}


def _options_of(session: aiohttp.ClientSession) -> dict[str, Any]:
    headers = CIMultiDict(session.headers)
    headers.setdefault("User-Agent", USER_AGENT)
    return {
        "headers": headers,
        "cookie_jar": session.cookie_jar,
        "auth": session.auth,
        "trace_configs": session.trace_configs,
    }


class _Checked(aiohttp.BaseConnector):
    """A connector that checks, before each use, to which address a name has led.

    Asking a resolver beforehand would not do: it may answer differently a moment later (DNS rebinding).
    Behind a proxy the proxy resolves names.
    """

    def __init__(self, inner: aiohttp.BaseConnector, *, owned: bool) -> None:
        super().__init__()
        self.inner = inner
        self.watch: FileSession | None = None
        self._owned = owned

    async def connect(
        self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await self.inner.connect(req, traces, timeout)
        peer = None
        if connection.transport is not None:
            peer = connection.transport.get_extra_info("peername")
        if req.proxy is not None or not isinstance(peer, tuple) or self.watch is None:
            return connection

        try:
            allowed = await self.watch.may_reach(req.url.raw_host or "", str(peer[0]))
        except BaseException:
            connection.close()
            raise
        if not allowed:
            connection.close()
            raise _RefusedPeerError(str(peer[0]))
        return connection

    async def close(self, **options: Any) -> None:  # noqa: ANN401 - newer aiohttp's
        await super().close()
        if self._owned:
            await self.inner.close(**options)
