"""aiohttp: one request goes out, and a response comes back, or a `TransportError` that knows what left.

This is the only module that knows the API key and the only one that imports aiohttp for the API
(`downloads` has a session of its own, without the key).  It judges nothing and repeats nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from attrs import define, field, frozen
from yarl import URL

from .._http import HTTPRequest, HTTPResponse
from .._protocol.answers import MAX_ANSWER
from .._protocol.values import is_loopback
from .._text import brief, without_password
from .._version import __version__
from ..errors import ClientClosed, PiAPIError, TransportError, UnexpectedAnswer
from .connector import SteadyConnector, SubmitConnector, is_out_of_step
from .deadlines import Deadlines
from .secrets import Hidden, Secrets

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler

USER_AGENT = f"piapi-async/{__version__}"

_UNTRUSTED = (
    "Its certificate is not trusted here. If a proxy or a company signs certificates of its own, set "
    "SSL_CERT_FILE to the PEM file of that authority, or give PiAPI a session= that trusts it."
)

_KEEP_ALIVE = 15.0  # seconds

# A submission on a connection that the server is just closing is neither sent nor unsent.  Servers
# keep idle connections for 5 s and more, so one that was busy within the last two seconds is safe
# to use again; idle clients connect anew.
_SUBMIT_KEEP_ALIVE = 2.0

_UNASKED = "the server had sent data unasked, so the connection was not used"
_NO_TYPE = ("Content-Type",)
_NO_LIMIT = aiohttp.ClientTimeout()  # of aiohttp's own: `Deadlines` has ours

# Bytes of a body that are given to the loop at a time.  It copies what the socket does not take at
# once, so a mask of 8 MB in one piece would be in memory three times more.
_PIECE = 256 * 1024

# Errors that certainly come before a request without a body leaves; a body notes it by itself.
_BEFORE_SENDING = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)


@define(eq=False, repr=False)
class SendState:
    """Whether a request has begun to leave: before, it certainly had no effect; after, it may have arrived.

    `started_at` is the unix time, in seconds, at which it began, and `began_at` the loop's.  The
    owner of the request sets `abandoned`, after which nothing more is sent for it.
    """

    started_at: float | None = None
    began_at: float = field(default=0.0, init=False)
    abandoned: bool = False
    _connector: SubmitConnector | None = field(default=None, init=False)
    _protocol: ResponseHandler | None = field(default=None, init=False)

    @property
    def begun(self) -> bool:
        """Whether it has begun to leave."""
        return self.started_at is not None

    def leave_on(self, protocol: ResponseHandler, connector: SubmitConnector | None) -> None:
        """Note that it leaves now, and on which connection."""
        self.started_at = time.time()
        self.began_at = asyncio.get_running_loop().time()
        self._protocol = protocol
        self._connector = connector

    def settle(self, *, reuse: bool) -> None:
        """Return the connection of the last response to its pool if `reuse`, else close it."""
        protocol = self._protocol
        if protocol is None:
            return

        connector = self._connector
        self._connector = self._protocol = None
        if connector is not None:
            connector.settle(protocol, reuse=reuse)


class _Body(aiohttp.BytesPayload):
    """A request body that notes when its writing begins; that of a submission is not written again.

    aiohttp holds the headers back until the body's first byte, so nothing at all has left before
    `write_with_length`; and what is written to a transport that is closing already goes nowhere.
    (A `TraceConfig` would tell the same for 15 % more CPU per request, and would not be ours to add
    to a user's session.)
    """

    def __init__(self, value: bytes, state: SendState, submission: _Submission | None) -> None:
        # Past BytesPayload's own constructor, which warns of bodies above 1 MiB: an Inpaint's mask
        # may be one.
        super(aiohttp.BytesPayload, self).__init__(value, content_type="application/json")
        self._size = len(value)
        self._state = state
        self._submission = submission  # shared by all submissions of a session
        self.is_under_way = False
        self.is_given_up = False

    @property
    def size(self) -> int:
        """The number of bytes; aiohttp asks for it when it makes a request, and a mere imitation does not."""
        self.is_under_way = True
        return self._size or 0

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Note that writing begins, and write; raise if nothing may leave."""
        # aiohttp may have scheduled this in the very turn in which the caller was cancelled; and a
        # middleware may go on with what the caller was told has not left.
        if self._state.abandoned or self.is_given_up:
            raise aiohttp.ClientConnectionError("it was given up before it had begun to leave")

        # A middleware of the user's session may try again: it knows nothing of money.
        if self._submission is not None and self._state.started_at is not None:
            raise aiohttp.ClientConnectionError(
                "it had left once already, and is not sent again by a middleware"
            )

        # Once the connection is lost there is no transport, and nothing will leave.
        transport: Any = getattr(writer, "transport", None)
        if transport is not None and not transport.is_closing():
            self._leave_on(transport.get_protocol())

        if len(self._value) <= _PIECE:
            await writer.write(self._value[:content_length])
            return

        whole = memoryview(self._value)[:content_length]
        for start in range(0, len(whole), _PIECE):
            await writer.write(bytes(whole[start : start + _PIECE]))

    def _leave_on(self, protocol: ResponseHandler) -> None:
        if is_out_of_step(protocol):
            raise aiohttp.ClientConnectionError(_UNASKED)

        connector = None
        if self._submission is not None:
            connector = self._submission.connector
            if connector is None:  # a user's session would use the connection again
                protocol.force_close()
        self._state.leave_on(protocol, connector)


@frozen(eq=False, repr=False)
class _Submission:
    """Marks a request that must not be sent twice; `connector` is None in a user's session."""

    connector: SubmitConnector | None


@define(eq=False, repr=False)
class Transport:
    """Sends requests to one base URL.  Sessions are made at first use, in the running loop.

    A user's own `session` is used for everything, and never closed.
    """

    base_url: str
    _api_key: str = field(repr=False)
    _connections: int = field(repr=False)
    _trust_env: bool = field(repr=False)
    _session: aiohttp.ClientSession | None = field(repr=False)
    _own: dict[float, aiohttp.ClientSession] = field(factory=dict, init=False, repr=False)
    """Our sessions, by their keep-alive."""
    _headers: Mapping[str, str] = field(init=False, repr=False)
    _host: str = field(init=False, repr=False)
    _is_here: bool = field(init=False, repr=False)
    _submission: _Submission | None = field(default=None, init=False, repr=False)
    """The mark of all submissions in the session in use."""
    _deadlines: Deadlines = field(factory=Deadlines, init=False, repr=False)
    secrets: Secrets = field(init=False, repr=False)
    """What must not be shown of responses and errors."""

    def __attrs_post_init__(self) -> None:
        self._headers = {
            "X-API-Key": self._api_key,
            "User-Agent": USER_AGENT,
            "Accept": "application/json",
        }
        self._host = URL(self.base_url).raw_host or ""

        # A proxy has no business between this machine and itself, and over plain http it would see
        # the key.
        self._is_here = is_loopback(self._host)

        self.secrets = Secrets()
        self.secrets.add(self._api_key)

    @property
    def lent(self) -> tuple[aiohttp.ClientSession | None, bool]:
        """The user's own session, if there is one, and whether proxies are taken from the environment."""
        return self._session, self._trust_env

    async def send(
        self, request: HTTPRequest, *, timeout: float, state: SendState | None = None, submit: bool = False
    ) -> HTTPResponse:
        """Return the response, whatever its status.

        `timeout` is the seconds that it may take at most, connecting and reading included.
        `state` tells the caller, even a cancelled one, whether the request had begun to leave.

        Raises `TransportError` if there is no response, `UnexpectedAnswer` for one above 16 MiB
        (which is not read to its end), and `ClientClosed` if the user's session is closed.
        """
        state = state or SendState()
        session = self._session
        if session is None:
            keep_alive = _SUBMIT_KEEP_ALIVE if submit else _KEEP_ALIVE
            session = self._own.get(keep_alive) or self._open_session(keep_alive)
        elif session.closed:
            raise ClientClosed("The aiohttp session given to PiAPI(session=…) is closed. Nothing was sent.")

        # aiohttp's frames hold the headers, and so the key: no error may bring them to where
        # tracebacks are shown.
        try:
            with self._deadlines.within(timeout):
                response = await self._exchange(session, request, state, submit=submit)
        except PiAPIError as error:
            raise without_frames(error)  # noqa: B904 - its own cause, if it has one, is what led to it
        except Exception as error:  # noqa: BLE001 - a user's connector or middleware may raise anything
            watched = submit or self._has_body(request)
            begun = state.begun if watched else not isinstance(error, _BEFORE_SENDING)
            failure = self._explain(error, begun=begun, timeout=timeout)
        except BaseException as error:  # noqa: BLE001 - a cancellation may become a TimeoutError's cause
            raise without_frames(error)  # noqa: B904 - the same
        else:
            return response
        raise failure

    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        request: HTTPRequest,
        state: SendState,
        *,
        submit: bool,
    ) -> HTTPResponse:
        options: dict[str, Any] = {"timeout": _NO_LIMIT, "allow_redirects": False}
        submission = body = None
        if submit:
            submission = self._submission or self._mark_submissions_in(session)
        if submit or self._has_body(request):
            options["data"] = body = _Body(request.body, state, submission)
        if not request.body:
            options["skip_auto_headers"] = _NO_TYPE
        if self._session is not None or request.headers:
            options["headers"] = self._headers_for(request)
        if self._session is not None:
            options |= self._options_of_a_users(submit=submit)

        try:
            response = await session.request(request.method, _url(self.base_url, request.path), **options)
        except BaseException:
            if body is not None:
                body.is_given_up = True
            raise

        has_begun = body is None or not body.is_under_way or state.started_at is not None
        if not has_begun:  # the response was there before; the writing had not had its turn
            response.close()
            raise aiohttp.ClientConnectionError(_UNASKED)

        # A host that echoes the key must not bring it into errors and logs.
        body_read = self.secrets.hide(await _read(response, of_ours=self._session is None))
        return HTTPResponse(response.status, body_read, response.headers, request.body)

    def _has_body(self, request: HTTPRequest) -> bool:
        """Return whether a read is sent with a body, even an empty one: only a body notes when it leaves.

        In a user's session nothing else sees the connection before a request goes out on it.  A
        submission always has one.
        """
        return bool(request.body) or self._session is not None

    def _mark_submissions_in(self, session: aiohttp.ClientSession) -> _Submission:
        connector = session.connector
        if not isinstance(connector, SubmitConnector):
            connector = None
        self._submission = _Submission(connector)
        return self._submission

    def _headers_for(self, request: HTTPRequest) -> Mapping[str, str]:
        """Return all headers of a request, as a user's session adds none of ours."""
        headers = {**request.headers, **self._headers}
        if request.body:
            headers["Content-Type"] = "application/json"
        return headers

    def _options_of_a_users(self, *, submit: bool) -> dict[str, Any]:
        """Return the options of a request in a user's session, which may have other defaults."""
        options: dict[str, Any] = {"raise_for_status": False, "auto_decompress": True}
        if submit:
            # This is a pool of its own, which stays empty: a submission connects anew.
            options["server_hostname"] = self._host
        return options

    def _explain(self, error: Exception, *, begun: bool, timeout: float) -> TransportError:
        """Return the error that says whether a request had begun to leave, and what happened."""
        what = self.secrets.hide_text(str(error)) or type(error).__name__
        if isinstance(error, TimeoutError):
            missing = "answer" if begun else "connection"
            what = f"no {missing} within {timeout:g} s"

        text = f"Nothing was sent to {self.base_url}: {what}"
        if begun:
            text = (
                f"The request to {self.base_url} had begun to leave and may have arrived; its "
                f"answer is lost: {what}"
            )

        untrusted = isinstance(error, ssl.SSLCertVerificationError)
        if untrusted:
            text = f"{text}. {_UNTRUSTED}"
        failure = TransportError(text, sent=begun, untrusted=untrusted)

        # aiohttp's response errors show the request's headers, and so the key, in their repr; the
        # errors of a user's middleware may hold anything.
        is_known = isinstance(error, (aiohttp.ClientError, OSError))
        if is_known and not isinstance(error, aiohttp.ClientResponseError):
            failure.__cause__ = without_frames(error)
        return failure

    def _open_session(self, keep_alive: float) -> aiohttp.ClientSession:
        kind = SubmitConnector if keep_alive == _SUBMIT_KEEP_ALIVE else SteadyConnector
        session = aiohttp.ClientSession(
            connector=kind(limit=self._connections, keepalive_timeout=keep_alive),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trust_env=self._trust_env and not self._is_here,
        )
        self._own[keep_alive] = session
        return session

    async def close(self) -> None:
        """Close our own sessions; a user's stays open."""
        self._deadlines.close()
        self._submission = None
        while self._own:
            await self._own.popitem()[1].close()


@lru_cache(maxsize=64)
def _url(base_url: str, path: str) -> URL:
    return URL(base_url + path, encoded=True)


def check_base_url(base_url: str, *, allow_insecure: bool, name: str = "base_url") -> str:
    """Return a base URL as it is put before a path.

    `name` is what the user calls it.  Raises `ValueError` for one that must not see the key.
    """
    try:
        url = URL(base_url)
        good = url.scheme in {"http", "https"} and bool(url.host)
    except ValueError:
        good = False

    if not good or url.query_string or url.fragment or url.user is not None:
        shown = brief(without_password(base_url))
        raise ValueError(f"{name}: {shown} is not allowed; it must be like https://api.piapi.ai")
    if url.scheme == "http" and not allow_insecure and not is_loopback(url.host or ""):
        raise ValueError(
            f"{name}: {brief(base_url)} is not allowed; plain http would show the API key to the network. "
            "Use https, or allow_insecure=True"
        )

    return str(url).rstrip("/")


def check_key(api_key: Hidden, *, client: str = "PiAPI()", variable: str = "PIAPI_API_KEY") -> Hidden:
    """Return the key, stripped.

    `client` is what makes the client, and `variable` where it looks for a key that is not passed.
    Raises `ValueError` or `TypeError` for one that cannot be put into a header; neither shows it,
    and no variable here holds it that a traceback would show.
    """
    if api_key.value is not None and not isinstance(api_key.value, str):
        raise TypeError("api_key: it must be a str")

    key = Hidden((api_key.value or "").strip())
    if not key.value:
        call = client.replace("()", "(api_key)")
        raise ValueError(f"No API key: pass {call} or set the environment variable {variable}")
    if not key.value.isascii() or not key.value.isprintable() or " " in key.value:
        raise ValueError(f"The API key (api_key, or {variable}) has characters that no key has")
    return key


def origin_of(base_url: str) -> str:
    """Return scheme, host and port, as in ``https://api.piapi.ai``: what a task's ref remembers."""
    return str(URL(base_url).origin())


E = TypeVar("E", bound=BaseException)


def without_frames(error: E) -> E:
    """Return an error, and all that led to it, without the frames they passed through.

    Tools that show tracebacks show the variables of these frames, too.
    """
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        todo += (link.__cause__, link.__context__)
    return error


async def _read(response: aiohttp.ClientResponse, *, of_ours: bool) -> bytes:
    """Return the body; read no more than an honest response can have, even if it is compressed.

    `of_ours`: it came in a session of ours.  In a user's, a middleware or a trace may have read it
    already, and only `response.read()` knows.
    """
    length = response.content_length
    if length is not None and length <= MAX_ANSWER and "Content-Encoding" not in response.headers:
        # Either frees the connection by itself, and costs less than ``async with``.
        if of_ours and response.content.is_eof():  # all of it came with the headers
            return response.content.read_nowait()
        return await response.read()

    async with response:
        if length is None or length <= MAX_ANSWER:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_ANSWER:
                    break
            else:
                return bytes(body) or await response.read()
        response.close()
    raise UnexpectedAnswer(f"The response (HTTP {response.status}) is larger than 16 MiB and was not read.")
