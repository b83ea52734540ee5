from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import ssl
import traceback
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.client_reqrep import ConnectionKey, RequestInfo
from multidict import CIMultiDict, CIMultiDictProxy
from support.serving import KEY, no_leaks, now, serving, turns
from support.strict_server import Act, StrictServer, free_port, http, ok, strict_server
from support.tables import for_each
from yarl import URL

from piapi_async import PiAPI, Reroll, RetryPolicy
from piapi_async._calls.secrets import Hidden
from piapi_async._calls.transport import (
    USER_AGENT,
    SendState,
    Transport,
    check_base_url,
    check_key,
    origin_of,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._version import __version__
from piapi_async.errors import (
    APIError,
    ClientClosed,
    PiAPIError,
    SubmissionUnknown,
    TransportError,
    UnexpectedAnswer,
)

pytestmark = pytest.mark.looptime

BODY = b'{"task_id":"a cute \xc3\xa4"}'
POST = HTTPRequest("POST", "/mj/v2/fetch", BODY)
GET = HTTPRequest("GET", "/api/v1/task/x?limit=5&name=a%2Fb")
MIB = 2**20


def transport_to(
    base_url: str,
    session: aiohttp.ClientSession | None = None,
    *,
    connections: int = 10,
    trust_env: bool = False,
) -> Transport:
    return Transport(base_url, KEY, connections, trust_env, session)


async def send(
    base_url: str,
    request: HTTPRequest = POST,
    *,
    session: aiohttp.ClientSession | None = None,
    timeout: float = 5.0,
) -> HTTPResponse:
    """Send one request with a transport of its own."""
    transport = transport_to(base_url, session)
    try:
        return await transport.send(request, timeout=timeout)
    finally:
        await transport.close()


async def failure(
    base_url: str,
    request: HTTPRequest = POST,
    *,
    session: aiohttp.ClientSession | None = None,
    timeout: float = 5.0,
) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await send(base_url, request, session=session, timeout=timeout)
    assert KEY not in told(caught.value)
    return caught.value


def told(error: BaseException) -> str:
    """Give all that a log or a terminal may come to show of an error."""
    return "".join(
        [
            *traceback.format_exception(error),
            str(error),
            repr(error),
            repr(error.__cause__),
            repr(vars(error)),
        ]
    )


# -- on the wire --------------------------------------------------------------------------------------------------


async def test_a_post_is_on_the_wire_exactly_what_it_should_be() -> None:
    async with no_leaks(), strict_server(ok(b'{"a": 1}')) as server:
        answer = await send(server.base_url)

        (received,) = server.received
    assert received.line == "POST /mj/v2/fetch HTTP/1.1"
    assert received.body == BODY
    assert sorted(received.headers) == sorted(
        [
            ("host", f"127.0.0.1:{server.port}"),
            ("x-api-key", KEY),
            ("user-agent", f"piapi-async/{__version__}"),
            ("accept", "application/json"),
            ("accept-encoding", dict(received.headers)["accept-encoding"]),
            ("content-type", "application/json"),
            ("content-length", str(len(BODY))),
        ]
    )
    assert (answer.status, answer.body, answer.headers["content-type"]) == (
        200,
        b'{"a": 1}',
        "application/json",
    )


async def test_a_get_has_no_body_and_its_query_is_not_touched() -> None:
    async with strict_server() as server:
        await send(server.base_url, GET)

        (received,) = server.received
    assert received.line == "GET /api/v1/task/x?limit=5&name=a%2Fb HTTP/1.1"
    assert {"content-type", "content-length", "transfer-encoding"}.isdisjoint(dict(received.headers))


async def test_a_base_urls_path_stands_before_every_path() -> None:
    async with strict_server() as server:
        await send(check_base_url(f"{server.base_url}/gate/", allow_insecure=False))

        assert server.received[0].line == "POST /gate/mj/v2/fetch HTTP/1.1"


async def test_a_requests_own_headers_go_along_but_never_replace_the_key() -> None:
    request = HTTPRequest("POST", "/x", BODY, {"X-Trace": "1", "X-API-Key": "another", "User-Agent": "other"})
    async with strict_server() as server:
        await send(server.base_url, request)

        headers = server.received[0].headers
    assert ("x-trace", "1") in headers
    assert [value for name, value in headers if name == "x-api-key"] == [KEY]
    assert [value for name, value in headers if name == "user-agent"] == [USER_AGENT]


async def test_a_submitted_reroll_is_on_the_wire_exactly_its_set_fields() -> None:
    async with strict_server(ok(b'{"task_id": "t1", "status": "success", "message": ""}')) as server:
        async with PiAPI(KEY, base_url=server.base_url) as piapi:
            handle = await piapi.submit(Reroll("6886fc4d", prompt="a cute cat"))

        (received,) = server.received
    assert handle.task_id == "t1"
    assert received.line == "POST /mj/v2/reroll HTTP/1.1"
    assert json.loads(received.body) == {"origin_task_id": "6886fc4d", "prompt": "a cute cat"}
    assert dict(received.headers)["content-type"] == "application/json"


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 429, 500, 503, 599])
async def test_every_status_is_an_answer(status: int) -> None:
    body = b"" if status == 204 else b"some words"
    async with strict_server(Act(say=http(body, "Retry-After: 7", status=status))) as server:
        answer = await send(server.base_url)

    assert (answer.status, answer.body, answer.headers["retry-after"]) == (status, body, "7")


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_packed_answer_is_unpacked(encoding: str) -> None:
    packed = gzip.compress(b'{"a": 1}') if encoding == "gzip" else zlib.compress(b'{"a": 1}')
    async with strict_server(Act(say=http(packed, f"Content-Encoding: {encoding}"))) as server:
        answer = await send(server.base_url)

    assert answer.body == b'{"a": 1}'


async def test_a_chunked_answer_is_joined() -> None:
    body = b'5\r\n{"a":\r\n3\r\n 1}\r\n0\r\n\r\n'
    async with strict_server(Act(say=http(body, "Transfer-Encoding: chunked"))) as server:
        answer = await send(server.base_url)

    assert answer.body == b'{"a": 1}'


async def test_a_busy_client_uses_its_connection_again() -> None:
    async with strict_server() as server:
        transport = transport_to(server.base_url)
        for _ in range(3):
            await transport.send(POST, timeout=5.0)
        await transport.close()

        assert (server.connections, len(server.received)) == (1, 3)


async def test_submits_and_reads_have_pools_of_their_own() -> None:
    async with strict_server() as server:
        transport = transport_to(server.base_url)
        for submit in (True, False, True, False):
            sending = SendState()
            await transport.send(POST, timeout=5.0, submit=submit, state=sending)
            sending.settle(reuse=True)
        await transport.close()

        assert (server.connections, len(server.received)) == (2, 4)


async def test_all_submits_may_hang_and_reads_go_on() -> None:
    async with no_leaks(), strict_server(Act(then="stall")) as server:
        transport = transport_to(server.base_url, connections=1)
        hanging = asyncio.create_task(transport.send(POST, timeout=60.0, submit=True))
        await turns()

        assert (await transport.send(POST, timeout=1.0)).status == 200
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        await transport.close()


# -- what left, and what did not ----------------------------------------------------------------------------------


async def test_a_refused_connection_sent_nothing() -> None:
    error = await failure(f"http://127.0.0.1:{free_port()}")

    assert error.sent is False
    assert "Nothing was sent" in str(error)


async def test_a_host_that_has_no_address_was_sent_nothing() -> None:
    assert (await failure("http://piapi-test.invalid", timeout=60.0)).sent is False


async def test_a_host_whose_certificate_is_not_trusted_was_sent_nothing(authority: trustme.CA) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    async with strict_server(tls=tls) as server:
        error = await failure(server.base_url)

        assert error.sent is False
        assert "certificate" in str(error).lower()
        assert server.received == []


async def test_a_host_whose_certificate_is_for_another_was_sent_nothing(authority: trustme.CA) -> None:
    served, known = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("elsewhere.example").configure_cert(served)
    authority.configure_trust(known)
    async with (
        strict_server(tls=served) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=known)) as session,
    ):
        assert (await failure(server.base_url, session=session)).sent is False
        assert server.received == []


async def test_a_trusted_certificate_is_good_and_the_session_is_the_users(authority: trustme.CA) -> None:
    served, known = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(known)
    async with (
        strict_server(tls=served) as server,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=known)) as session,
    ):
        assert (await send(server.base_url, session=session)).status == 200
        assert not session.closed


async def test_a_host_that_speaks_no_tls_was_sent_nothing() -> None:
    async with strict_server(Act(read="nothing", say=b"220 mail ready\r\n", then="close")) as server:
        error = await failure(f"https://127.0.0.1:{server.port}")

        assert error.sent is False
        assert KEY.encode() not in b"".join(received.raw for received in server.received)


async def test_a_connection_that_is_never_accepted_was_sent_nothing() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        fillers = [socket.socket() for _ in range(8)]
        try:
            for filler in fillers:  # the kernel drops what the full queue cannot hold
                filler.settimeout(0)
                filler.connect_ex(listening.getsockname())
            began = now()
            error = await failure(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=5.0)
        finally:
            for filler in fillers:
                filler.close()

    assert error.sent is False
    assert "no connection within 5 s" in str(error)
    assert now() - began == pytest.approx(5.0, abs=0.01)


async def test_waiting_for_a_free_connection_sends_nothing() -> None:
    async with no_leaks(), strict_server(Act(then="stall")) as server:
        transport = transport_to(server.base_url, connections=1)
        first, second = SendState(), SendState()
        hanging = asyncio.create_task(transport.send(POST, timeout=9.0, state=first))
        await turns()
        with pytest.raises(TransportError) as late:
            await transport.send(POST, timeout=3.0, state=second)
        with pytest.raises(TransportError) as lost:
            await hanging
        await transport.close()

        assert (late.value.sent, second.begun) == (False, False)
        assert (lost.value.sent, first.begun) == (True, True)
        assert len(server.received) == 1


@pytest.mark.parametrize("then", ["close", "reset"])
async def test_a_kept_connection_whose_close_was_seen_is_not_used_again(then: Any) -> None:
    async with strict_server(Act(say=http(), then=then)) as server:
        transport = transport_to(server.base_url)
        await transport.send(POST, timeout=5.0)
        await turns()

        assert (await transport.send(POST, timeout=5.0)).status == 200
        await transport.close()
        assert (server.connections, len(server.received)) == (2, 2)


async def test_a_close_that_crosses_the_request_may_have_let_it_arrive_and_is_not_repeated() -> None:
    async with strict_server(ok(), Act(read="head", then="reset")) as server:
        transport = transport_to(server.base_url)
        await transport.send(POST, timeout=5.0)
        with pytest.raises(TransportError) as caught:
            await transport.send(POST, timeout=5.0)
        await transport.close()

        assert caught.value.sent is True
        assert (server.connections, len(server.received)) == (1, 2)


async def test_a_submits_connection_is_not_kept_for_long() -> None:
    # aiohttp ages its connections by the real clock, hence the look at the setting itself.
    async with strict_server() as server:
        transport = transport_to(server.base_url)
        await transport.send(POST, timeout=5.0, submit=True)
        await transport.send(POST, timeout=5.0)

        assert sorted(transport._own) == [2.0, 15.0]
        connectors = [own.connector for own in transport._own.values()]
        assert {getattr(connector, "_keepalive_timeout", None) for connector in connectors} == {2.0, 15.0}
        await transport.close()
        assert transport._own == {}


HALF = http(b'{"a": 1}', length=100)
GARBAGE = bytes(range(256)) * 4

AFTER_SENDING = {
    "closed before it was read": Act(read="nothing", then="close"),
    "reset before it was read": Act(read="nothing", then="reset"),
    "closed after the head": Act(read="head", then="close"),
    "reset after the head": Act(read="head", then="reset"),
    "closed after the body": Act(then="close"),
    "reset after the body": Act(then="reset"),
    "closed inside the status line": Act(say=b"HTTP/1.1 20", then="close"),
    "closed after the status line": Act(say=b"HTTP/1.1 200 OK\r\n", then="close"),
    "closed inside the headers": Act(say=b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
    "reset inside the headers": Act(say=b"HTTP/1.1 200 OK\r\nContent-Le", then="reset"),
    "closed before the body": Act(say=http(b"", length=8), then="close"),
    "closed inside the body": Act(say=HALF, then="close"),
    "reset inside the body": Act(say=HALF, then="reset"),
    "closed inside a chunk": Act(say=http(b"8\r\n{}", "Transfer-Encoding: chunked"), then="close"),
    "closed between chunks": Act(say=http(b"2\r\n{}\r\n", "Transfer-Encoding: chunked"), then="close"),
    "chunks that are none": Act(
        say=http(b"zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), then="close"
    ),
    "a chunk longer than it says": Act(
        say=http(b"1\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), then="close"
    ),
    "silence": Act(then="stall"),
    "silence after the status line": Act(say=b"HTTP/1.1 200 OK\r\n", then="stall"),
    "silence inside the body": Act(say=HALF, then="stall"),
    "silence inside a chunk": Act(say=http(b"8\r\n{}", "Transfer-Encoding: chunked"), then="stall"),
    "a half-open connection": Act(read="nothing", then="stall"),
    "no HTTP": Act(say=b"SSH-2.0-OpenSSH_9.6\r\n", then="close"),
    "noise": Act(say=GARBAGE, then="close"),
    "an unknown version": Act(say=b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}", then="close"),
    "a status that is none": Act(say=b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\n{}", then="close"),
    "a length that is none": Act(say=b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}", then="close"),
    "a negative length": Act(say=b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", then="close"),
    "two lengths": Act(
        say=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\n{}", then="close"
    ),
    "a header without end": Act(say=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, then="close"),
    "gzip that is none": Act(say=http(b"no gzip at all", "Content-Encoding: gzip")),
}


@pytest.mark.parametrize("what", AFTER_SENDING)
async def test_once_it_has_begun_to_leave_it_may_have_arrived_and_is_not_sent_again(what: str) -> None:
    async with no_leaks(), strict_server(AFTER_SENDING[what]) as server:
        error = await failure(server.base_url)

        assert error.sent is True
        assert "may have arrived" in str(error)
        assert len(server.received) <= 1
        assert server.connections == 1
        # The next one is none the worse for it.
        assert (await send(server.base_url)).status == 200


async def test_a_zero_in_a_header_is_an_answer_or_none_and_never_another_request() -> None:
    act = Act(say=b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\n{}", then="close")
    async with no_leaks(), strict_server(act) as server:
        [outcome] = await asyncio.gather(send(server.base_url), return_exceptions=True)
        if isinstance(outcome, TransportError):  # aiohttp since 3.13.4
            assert outcome.sent is True
        else:
            assert isinstance(outcome, HTTPResponse)
            assert (outcome.status, outcome.body) == (200, b"{}")
        assert len(server.received) == 1


@pytest.mark.parametrize(
    "act",
    [
        Act(then="stall"),
        Act(say=HALF, then="stall"),
        Act(wait=7.0, say=http()),
        Act(read="nothing", then="stall"),
    ],
)
async def test_the_timeout_bounds_the_whole_attempt_to_the_tick(act: Act) -> None:
    async with no_leaks(), strict_server(act) as server:
        began = now()
        error = await failure(server.base_url, timeout=3.3)

        assert now() - began == pytest.approx(3.3, abs=0.001)
        assert "no answer within 3.3 s" in str(error)


async def test_a_slow_drip_does_not_stretch_the_timeout() -> None:
    answer = http(b"x" * 50)
    async with no_leaks(), strict_server() as server:
        began = now()

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            for byte in answer:
                writer.write(bytes([byte]))
                await asyncio.sleep(1.0)

        tasks: list[asyncio.Task[None]] = []
        dripping = await asyncio.start_server(
            lambda reader, writer: tasks.append(asyncio.ensure_future(drip(reader, writer))), "127.0.0.1", 0
        )
        error = await failure(f"http://127.0.0.1:{dripping.sockets[0].getsockname()[1]}", timeout=10.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        dripping.close()

        assert error.sent is True
        assert now() - began == pytest.approx(10.0, abs=0.001)
        assert server.received == []


async def test_a_read_without_body_that_was_refused_left_nothing_and_one_that_was_dropped_may_have() -> None:
    assert (await failure(f"http://127.0.0.1:{free_port()}", GET)).sent is False
    # aiohttp itself repeats a GET once, on a connection it had kept; these are new ones.
    for act in (Act(then="close"), Act(then="stall"), Act(say=HALF, then="close")):
        async with no_leaks(), strict_server(act) as server:
            server.usual = act
            assert (await failure(server.base_url, GET)).sent is True


async def test_a_cancelled_caller_can_still_learn_whether_it_had_left() -> None:
    async with no_leaks(), strict_server(Act(then="stall")) as server:
        transport = transport_to(server.base_url)
        sending = SendState()
        task = asyncio.create_task(transport.send(POST, timeout=60.0, state=sending))
        await turns(1)
        assert not sending.begun
        await turns()
        assert sending.begun
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await transport.close()


# -- proxies ------------------------------------------------------------------------------------------------------


async def test_a_proxy_that_refuses_the_tunnel_was_sent_neither_request_nor_key() -> None:
    async with (
        strict_server(
            Act(say=b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", then="close")
        ) as proxy,
        aiohttp.ClientSession(proxy=proxy.base_url) as session,
    ):
        error = await failure("https://api.piapi.example", session=session)

        assert error.sent is False
        assert [received.line for received in proxy.received] == ["CONNECT api.piapi.example:443 HTTP/1.1"]
        assert KEY.encode() not in proxy.received[0].raw


@pytest.mark.parametrize("then", ["close", "stall"])
async def test_a_proxy_that_says_nothing_to_the_tunnel_was_sent_nothing(then: Any) -> None:
    async with strict_server(Act(then=then)) as proxy, aiohttp.ClientSession(proxy=proxy.base_url) as session:
        assert (await failure("https://api.piapi.example", session=session)).sent is False


async def test_a_proxy_that_is_not_there_was_sent_nothing() -> None:
    async with aiohttp.ClientSession(proxy=f"http://127.0.0.1:{free_port()}") as session:
        assert (await failure("https://api.piapi.example", session=session)).sent is False


async def test_a_proxy_of_the_environment_is_used_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with strict_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        assert (await failure("http://piapi-test.invalid")).sent is False
        transport = transport_to("http://piapi-test.invalid", trust_env=True)
        await transport.send(POST, timeout=5.0)
        await transport.close()

        lines = [received.line for received in proxy.received]
        assert lines == ["POST http://piapi-test.invalid/mj/v2/fetch HTTP/1.1"]


@pytest.mark.parametrize("submit", [False, True])
async def test_a_proxy_of_the_environment_never_sees_what_is_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, *, submit: bool
) -> None:
    async with strict_server() as proxy, strict_server() as server:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        transport = transport_to(server.base_url, trust_env=True)
        await transport.send(POST, timeout=5.0, submit=submit)
        await transport.close()

        assert proxy.connections == 0
        assert len(server.received) == 1


# -- no foreign error leaves --------------------------------------------------------------------------------------


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for kind in root.__subclasses__():
        yield from tree(kind)


def make(kind: type[BaseException]) -> BaseException:
    """Make an aiohttp error the way aiohttp does, with the request's headers where it has them."""
    url = URL("http://127.0.0.1/x")
    info = RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict({"X-API-Key": KEY})), url)
    key = ConnectionKey(
        "127.0.0.1", 80, is_ssl=False, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
    )
    os_error = OSError(111, "refused")
    recipes: list[tuple[type[BaseException], tuple[Any, ...]]] = [
        (aiohttp.ClientResponseError, (info, ())),
        (UnixClientConnectorError, ("/tmp/s", key, os_error)),  # noqa: S108 - a name in a text
        (aiohttp.ClientConnectorCertificateError, (key, ssl.SSLCertVerificationError("self-signed"))),
        (aiohttp.ClientConnectorError, (key, os_error)),
        (aiohttp.ServerFingerprintMismatch, (b"a", b"b", "127.0.0.1", 443)),
        (aiohttp.InvalidURL, (url,)),
        (aiohttp.ClientOSError, (104, "reset")),
    ]
    arguments = next((arguments for base, arguments in recipes if issubclass(kind, base)), ())
    return kind(*arguments)


AIOHTTP_ERRORS = sorted({*tree(aiohttp.ClientError)}, key=lambda kind: kind.__name__)
OTHER_ERRORS: list[BaseException] = [
    OSError(5, "input/output"),
    ConnectionResetError(104, "reset"),
    BrokenPipeError(),
    TimeoutError(),
    ssl.SSLError(1, "bad record"),
    ssl.SSLZeroReturnError(),
    socket.gaierror(-2, "no such host"),
    UnicodeError("idna"),
    ValueError("odd"),
    RuntimeError("Session is closed"),
    AssertionError(),
    KeyError("x"),
    EOFError(),
    NotImplementedError(),
    StopIteration(),
    MemoryError(),
    Exception(),
    ExceptionGroup("several", [OSError(111, "a"), OSError(113, "b")]),
]

Handler = Callable[[aiohttp.ClientRequest], Any]


def raising(error: BaseException, *, after: bool) -> Callable[[aiohttp.ClientRequest, Handler], Any]:
    async def middleware(request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        if after:
            (await handler(request)).close()
        raise error

    return middleware


def test_the_tree_is_walked_whole() -> None:
    names = {kind.__name__ for kind in AIOHTTP_ERRORS}

    assert len(names) >= 25
    assert {
        "ClientConnectorDNSError",
        "TooManyRedirects",
        "ClientPayloadError",
        "SocketTimeoutError",
    } <= names


@pytest.mark.parametrize("after", [False, True], ids=["before sending", "after sending"])
@pytest.mark.parametrize("kind", AIOHTTP_ERRORS, ids=lambda kind: kind.__name__)
async def test_every_aiohttp_error_becomes_one_of_ours(kind: type[BaseException], *, after: bool) -> None:
    async with (
        strict_server() as server,
        aiohttp.ClientSession(middlewares=[raising(make(kind), after=after)]) as session,
    ):
        error = await failure(server.base_url, session=session)

        assert error.sent is after
        assert len(server.received) == after


@pytest.mark.parametrize("after", [False, True], ids=["before sending", "after sending"])
@pytest.mark.parametrize("raised", OTHER_ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_else_is_raised_becomes_one_of_ours(raised: BaseException, *, after: bool) -> None:
    async with (
        strict_server() as server,
        aiohttp.ClientSession(middlewares=[raising(raised, after=after)]) as session,
    ):
        assert (await failure(server.base_url, session=session)).sent is after


async def test_an_error_that_repeats_the_requests_headers_is_not_passed_on_with_the_key() -> None:
    async def careless(request: aiohttp.ClientRequest, _: Handler) -> aiohttp.ClientResponse:
        raise RuntimeError(f"cannot send {dict(request.headers)}")

    async with strict_server() as server, aiohttp.ClientSession(middlewares=[careless]) as session:
        error = await failure(server.base_url, session=session)  # which looks for the key

    assert "cannot send" in str(error)


async def test_the_cause_is_kept_for_whoever_must_find_out() -> None:
    error = await failure(f"http://127.0.0.1:{free_port()}")

    assert isinstance(error.__cause__, aiohttp.ClientConnectorError)


# -- how much is read ---------------------------------------------------------------------------------------------


def flood(mib: int, *, chunked: bool) -> Callable[[], Iterator[bytes]]:
    """Give an answer of so many MiB, a piece at a time."""
    piece = b"x" * 65536

    def pieces() -> Iterator[bytes]:
        if chunked:
            yield http(b"", "Transfer-Encoding: chunked")
        else:
            yield http(b"", length=mib * MIB)
        for _ in range(mib * 16):
            yield b"10000\r\n" + piece + b"\r\n" if chunked else piece
        if chunked:
            yield b"0\r\n\r\n"

    return pieces


async def test_an_answer_that_announces_too_much_is_not_read() -> None:
    async with no_leaks(), strict_server(Act(say=flood(256, chunked=False))) as server:
        with pytest.raises(UnexpectedAnswer, match="16 MiB"):
            await send(server.base_url)

        assert server.written < 12 * MIB  # the kernel's buffers, no more


async def test_an_answer_that_goes_on_without_end_is_not_read_on() -> None:
    async with no_leaks(), strict_server(Act(say=flood(256, chunked=True))) as server:
        with pytest.raises(UnexpectedAnswer, match="16 MiB"):
            await send(server.base_url)

        assert server.written < 32 * MIB


async def test_an_answer_whose_length_lies_beside_chunks_is_not_read_on() -> None:
    def both() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(256 * 16):
            yield b"10000\r\n" + b"x" * 65536 + b"\r\n"

    async with no_leaks(), strict_server(Act(say=both)) as server:
        with pytest.raises(PiAPIError):
            await send(server.base_url)

        assert server.written < 32 * MIB


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_small_packed_answer_that_is_huge_unpacked_is_not_unpacked_whole(*, chunked: bool) -> None:
    bomb = gzip.compress(bytes(64 * MIB))
    packed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(bomb), bomb) if chunked else bomb
    headers = ["Content-Encoding: gzip", *(["Transfer-Encoding: chunked"] if chunked else [])]
    async with no_leaks(), strict_server(Act(say=http(packed, *headers))) as server:
        with pytest.raises(PiAPIError) as caught:
            await send(server.base_url)

    assert isinstance(caught.value, (UnexpectedAnswer, TransportError))


@pytest.mark.parametrize("chunked", [False, True])
async def test_sixteen_mebibytes_are_still_read(*, chunked: bool) -> None:
    async with strict_server(Act(say=flood(16, chunked=chunked))) as server:
        assert len((await send(server.base_url)).body) == 16 * MIB


async def test_one_byte_more_is_not() -> None:
    async with strict_server(Act(say=http(b"x" * (16 * MIB + 1)))) as server:
        with pytest.raises(UnexpectedAnswer):
            await send(server.base_url)


async def test_a_submit_whose_answer_is_too_large_is_unknown_and_sent_once() -> None:
    async with (
        strict_server(Act(say=flood(64, chunked=False))) as server,
        PiAPI(KEY, base_url=server.base_url) as piapi,
    ):
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(Reroll("x", prompt="y"))

        assert len(server.received) == 1


# -- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_and_the_key_goes_to_one_host_only(status: int) -> None:
    async with strict_server() as elsewhere, strict_server() as server:
        server.play(Act(say=http(b"", f"Location: {elsewhere.base_url}/mj/v2/reroll", status=status)))
        async with PiAPI(KEY, base_url=server.base_url) as piapi:
            with pytest.raises((APIError, SubmissionUnknown)) as caught:
                await piapi.submit(Reroll("x", prompt="y"))

        if status == 303:  # the request was processed, and its outcome is elsewhere
            assert isinstance(caught.value, SubmissionUnknown)
        else:
            assert isinstance(caught.value, APIError)
            assert caught.value.status == status
            assert "edirect" in str(caught.value)
        assert elsewhere.connections == 0
        assert len(server.received) == 1


async def test_no_redirect_is_followed_on_a_users_session_either() -> None:
    async with strict_server() as elsewhere, strict_server() as server, aiohttp.ClientSession() as session:
        server.play(Act(say=http(b"", f"Location: {elsewhere.base_url}/", status=307)))

        assert (await send(server.base_url, session=session)).status == 307
        assert elsewhere.connections == 0


# -- a session of the user's --------------------------------------------------------------------------------------


async def test_a_users_session_may_raise_for_status_and_we_do_not() -> None:
    async def furious(_: aiohttp.ClientResponse) -> None:
        raise AssertionError("called")

    for raises in (True, furious):
        async with (
            strict_server(Act(say=http(b'{"message": "no"}', status=400))) as server,
            aiohttp.ClientSession(raise_for_status=raises) as session,
        ):
            answer = await send(server.base_url, session=session)

            assert (answer.status, answer.body) == (400, b'{"message": "no"}')


async def test_a_users_session_is_used_for_everything_and_never_closed() -> None:
    async with serving() as (emulator, first):
        base_url = first._runtime.sender.transport.base_url
        async with aiohttp.ClientSession(headers={"X-Mine": "1", "X-API-Key": "mine"}) as session:
            async with PiAPI(KEY, base_url=base_url, session=session) as piapi:
                handle = await piapi.submit(Reroll("x", prompt="y"))
                assert (await handle.wait()).status == "finished"
                assert piapi._runtime.sender.transport._own == {}

            assert not session.closed
        assert emulator.seen.creates_by_key == {KEY: 1}


async def test_a_users_middlewares_see_the_request() -> None:
    seen: list[str] = []

    async def watching(request: aiohttp.ClientRequest, handler: Handler) -> aiohttp.ClientResponse:
        seen.append(f"{request.method} {request.url.path}")
        response: aiohttp.ClientResponse = await handler(request)
        return response

    async with strict_server() as server, aiohttp.ClientSession(middlewares=[watching]) as session:
        await send(server.base_url, session=session)

    assert seen == ["POST /mj/v2/fetch"]


async def test_cookies_are_neither_kept_nor_sent_unless_the_session_is_the_users() -> None:
    cookie = Act(say=http(b"{}", "Set-Cookie: a=1; Path=/"))
    async with strict_server(cookie) as server:
        transport = transport_to(server.base_url)
        for _ in range(2):
            await transport.send(POST, timeout=5.0)
        await transport.close()

        assert "cookie" not in dict(server.received[1].headers)
    async with (
        strict_server(cookie) as server,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
    ):
        for _ in range(2):
            await send(server.base_url, session=session)

        assert dict(server.received[1].headers)["cookie"] == "a=1"


async def test_a_users_session_that_was_closed_is_named_and_nothing_is_sent() -> None:
    session = aiohttp.ClientSession()
    await session.close()
    async with strict_server() as server:
        with pytest.raises(ClientClosed, match="session"):
            await send(server.base_url, session=session)

        assert server.connections == 0


async def test_a_users_session_with_timeouts_of_its_own_does_not_shorten_ours() -> None:
    async with (
        strict_server(Act(wait=20.0, say=http())) as server,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0, sock_read=1.0)) as session,
    ):
        assert (await send(server.base_url, session=session, timeout=30.0)).status == 200


async def test_a_users_session_may_skip_headers_and_the_body_is_json_all_the_same() -> None:
    async with (
        strict_server() as server,
        aiohttp.ClientSession(skip_auto_headers=["User-Agent", "Content-Type", "Accept"]) as session,
    ):
        await send(server.base_url, session=session)

        headers = dict(server.received[0].headers)
    assert (headers["user-agent"], headers["content-type"]) == (USER_AGENT, "application/json")


async def test_a_users_session_with_a_base_url_of_its_own_gets_ours() -> None:
    async with (
        strict_server() as elsewhere,
        strict_server() as server,
        aiohttp.ClientSession(base_url=elsewhere.base_url) as session,
    ):
        assert (await send(server.base_url, session=session)).status == 200
        assert elsewhere.connections == 0


# -- the key ------------------------------------------------------------------------------------------------------


async def test_the_key_is_in_no_log_repr_or_error(everything_logged: pytest.LogCaptureFixture) -> None:
    asyncio.get_running_loop().set_debug(enabled=True)
    shown: list[str] = []
    acts = [
        *AFTER_SENDING.values(),
        *(Act(say=http(b'{"message": "no"}', status=status)) for status in (302, 401, 500)),
    ]
    async with no_leaks(), strict_server(*acts) as server:
        async with PiAPI(KEY, base_url=server.base_url, retry=RetryPolicy.never(), timeout=1.0) as piapi:
            for _ in acts:
                with pytest.raises(PiAPIError) as caught:
                    await piapi.submit(Reroll("x", prompt="y"))
                shown.append(told(caught.value))
            handle = piapi.attach("x")
            shown += [
                repr(value)
                for value in (
                    piapi,
                    piapi._runtime.sender,
                    piapi._runtime.sender.transport,
                    piapi._runtime.poller,
                    handle,
                )
            ]
            shown += [str(piapi), repr(vars(handle.ref) if hasattr(handle.ref, "__dict__") else handle.ref)]
        shown.append(repr(piapi))
        assert all(KEY.encode() in received.raw for received in server.received)
    assert len([record for record in everything_logged.records if record.levelno == logging.DEBUG]) > 0

    assert KEY not in everything_logged.text
    assert KEY not in "".join(shown)


@for_each("key", [None, "", "   ", "\n"])
def test_a_missing_key_is_said_to_be_missing(key: str | None) -> None:
    with pytest.raises(ValueError, match="PIAPI_API_KEY"):
        check_key(Hidden(key))


@for_each("key", ["a b", "a\nb", "a\r\nX-Evil: 1", "schlüssel", "a\x00b", "a\tb", "\x7f"])
def test_a_key_that_cannot_go_into_a_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="PIAPI_API_KEY") as caught:
        check_key(Hidden(key))

    assert key not in str(caught.value)


def test_white_space_around_a_key_is_dropped() -> None:
    assert check_key(Hidden("  abc\n")).value == "abc"


# -- base URLs ----------------------------------------------------------------------------------------------------


@for_each(
    ("given", "kept"),
    [
        ("https://api.piapi.ai", "https://api.piapi.ai"),
        ("https://api.piapi.ai/", "https://api.piapi.ai"),
        ("https://api.piapi.ai/v7//", "https://api.piapi.ai/v7"),
        ("HTTPS://API.PIAPI.AI", "https://api.piapi.ai"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://api.localhost:1", "http://api.localhost:1"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_that_is_safe_is_taken(given: str, kept: str) -> None:
    assert check_base_url(given, allow_insecure=False) == kept


@for_each(
    "base_url",
    [
        "http://api.piapi.ai",
        "http://192.168.0.1",
        "http://0.0.0.0",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example#localhost",
        "http://evil-localhost",
        "http://2130706433.evil",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_plain_http_goes_to_this_machine_only(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        check_base_url(base_url, allow_insecure=False)


def test_plain_http_goes_anywhere_when_that_is_allowed() -> None:
    assert check_base_url("http://proxy.example:81/", allow_insecure=True) == "http://proxy.example:81"


@for_each(
    "base_url",
    [
        "api.piapi.ai",
        "ftp://api.piapi.ai",
        "https://",
        "https:///path",
        "https://api.piapi.ai?key=1",
        "https://api.piapi.ai#top",
        "https://user@api.piapi.ai",
        "https://user:word@api.piapi.ai",
        "https://[bad",
        "https://api.piapi.ai:99999",
        "ws://api.piapi.ai",
        "file:///etc/passwd",
        "//api.piapi.ai",
        "/mj",
    ],
)
def test_a_base_url_that_is_none_is_refused_whatever_is_allowed(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        check_base_url(base_url, allow_insecure=True)
    assert "word" not in str(caught.value).replace("passwd", "")


@for_each(
    ("base_url", "origin"),
    [
        ("https://api.piapi.ai/v7", "https://api.piapi.ai"),
        ("https://api.piapi.ai:443", "https://api.piapi.ai"),
        ("https://API.piapi.ai:8443/", "https://api.piapi.ai:8443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_an_origin_is_scheme_host_and_port(base_url: str, origin: str) -> None:
    assert origin_of(check_base_url(base_url, allow_insecure=False)) == origin


def test_a_request_has_not_begun_to_leave_at_first() -> None:
    state = SendState()

    assert not state.begun
    assert not state.abandoned


def test_a_strict_server_counts_headers_as_they_come() -> None:
    from support.strict_server import Received  # noqa: PLC0415 - only here

    received = Received(b"GET / HTTP/1.1\r\nA: 1\r\na: 2", b"")

    assert received.headers == [("a", "1"), ("a", "2")]
    assert isinstance(StrictServer().usual, Act)
