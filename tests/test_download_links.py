"""Links are asked for byte for byte, redirects too; none leads into this machine or its network; no key goes along."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult
from support.picture_tasks import PNG, files, picture_task
from support.serving import KEY, no_leaks
from support.strict_server import Act, StrictServer, http, strict_server
from support.tables import for_each

from piapi_async import UNIFIED, BatchRunner, CreateTask, PiAPI, RetryPolicy, Task, TaskRef, download
from piapi_async.downloads._addresses import Reach, reach_of
from piapi_async.downloads._session import LinkError, redirected, to_url
from piapi_async.errors import DownloadError
from piapi_async.tasks import TaskId, found_at

pytestmark = pytest.mark.looptime

TARGETS = [
    "/a.png?X-Amz-Credential=AK%2F2026%2Fauto&Signature=ab%2Bc%3D",
    "/a%2Fb/%28x%29%2C%40%27%7E.png",
    "/a%2fb%2Bc?x=%2f",  # the small letters are kept, too
    "/a(x),@'~!*.png?b=(y),@'~!*+;:",
    "/%E7%8C%AB.png?q=%E7%8C%AB",
    "/a%20b%25c%00?d=%",
    "/a//b/./c/../d.png",
    '/a|b^c`d{e}<f>"g".png?h=[i]\\j',
    "/a?b?c=d&&e=&=f",
    "/a?",
    "/?a=b",
]


@pytest.mark.parametrize("target", TARGETS)
async def test_a_link_is_asked_for_byte_for_byte(target: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        await download(picture_task(server.base_url + target), tmp_path)

        assert server.received[0].line == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_redirect_is_asked_for_byte_for_byte(target: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.play(Act(say=http(b"", f"Location: {target}", status=302)), Act(say=http(PNG)))
        await download(picture_task(f"{server.base_url}/elsewhere"), tmp_path)

        assert server.received[1].line == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_whole_location_is_asked_for_byte_for_byte(target: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.play(
            Act(say=http(b"", f"Location: {server.base_url}{target}", status=307)), Act(say=http(PNG))
        )
        await download(picture_task(f"{server.base_url}/elsewhere"), tmp_path)

        assert server.received[-1].line == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("/猫.png?q=猫", "/%E7%8C%AB.png?q=%E7%8C%AB"),
        ("/a b.png", "/a%20b.png"),
        ("/é%2Fè", "/%C3%A9%2F%C3%A8"),
        ("?a=b", "/?a=b"),
        ("", "/"),
        ("/a#fragment", "/a"),
        ("/a\tb\n", "/a%09b"),
    ],
)
async def test_only_what_no_request_can_hold_is_encoded(target: str, sent: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        await download(picture_task(server.base_url + target), tmp_path)

        assert server.received[0].line == f"GET {sent} HTTP/1.1"


@for_each(
    ("location", "led"),
    [
        ("b%2Fc", "/a/b%2Fc"),
        ("?x=%2F", "/a/1.png?x=%2F"),
        ("../%7Eb", "/%7Eb"),
        ("//other.test/%2F", "//other.test/%2F"),
    ],
)
def test_a_location_that_is_a_part_of_a_link_is_joined(location: str, led: str) -> None:
    whole = led.startswith("//")

    assert redirected("http://h.test/a/1.png", location) == ("http:" if whole else "http://h.test") + led


async def test_a_location_in_bytes_that_are_no_text_is_followed(tmp_path: Path) -> None:
    moved = http(b"", "Location: /cat", status=302).replace(b"/cat", b"/c\xe9t")
    async with no_leaks(), strict_server(Act(say=moved), Act(say=http(PNG))) as server:
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert server.received[1].line == "GET /c%E9t HTTP/1.1"


async def test_a_very_long_location_is_followed(tmp_path: Path) -> None:
    signed = f"/a?Policy={'x' * 30_000}"
    async with no_leaks(), strict_server(Act(say=http(b"", f"Location: {signed}", status=302))) as server:
        server.play(Act(say=http(PNG)))
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert server.received[1].line == f"GET {signed} HTTP/1.1"


@for_each("link", ["ftp://h/a", "a.png", "//h/a", "http://", "http:/h/a", "http://h:99999/", "http://[x/"])
def test_what_is_no_link_is_said(link: str) -> None:
    with pytest.raises(LinkError):
        to_url(link)


# -- where a link may lead --------------------------------------------------------------------------------------------


@for_each(
    ("host", "reach"),
    [
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.9.9.9", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),  # noqa: S104 - as a target it is this machine
        ("::1", Reach.LOOPBACK),
        ("[::1]", Reach.LOOPBACK),
        ("::", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::127.0.0.1", Reach.LOOPBACK),
        ("localhost", Reach.LOOPBACK),
        ("LOCALHOST.", Reach.LOOPBACK),
        ("a.localhost", Reach.LOOPBACK),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.0.1", Reach.PRIVATE),
        ("192.168.0.1", Reach.PRIVATE),
        ("100.100.100.200", Reach.PRIVATE),
        ("fd00::1", Reach.PRIVATE),
        ("64:ff9b::a00:1", Reach.PRIVATE),
        ("2002:a00:1::", Reach.PRIVATE),
        ("224.0.0.1", Reach.PRIVATE),
        ("255.255.255.255", Reach.PRIVATE),
        ("169.254.169.254", Reach.LINK_LOCAL),
        ("::ffff:169.254.169.254", Reach.LINK_LOCAL),
        ("fe80::1%eth0", Reach.LINK_LOCAL),
        ("1.1.1.1", Reach.PUBLIC),
        ("172.32.0.1", Reach.PUBLIC),
        ("198.18.0.7", Reach.PUBLIC),  # where VPN clients put every name
        ("2606:4700::1111", Reach.PUBLIC),
        ("64:ff9b::101:101", Reach.PUBLIC),
        ("img.theapi.app", None),
        ("127.1", None),  # a name to us: its address is seen when it is connected to
        ("2130706433", None),
    ],
)
def test_an_address_is_told_by_its_range(host: str, reach: Reach | None) -> None:
    assert reach_of(host) is reach


class Everywhere(AbstractResolver):
    """Leads every name to loopback, and keeps them."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def named(tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[aiohttp.ClientSession, Everywhere]]:
    """Give a session to which every name is on this machine."""
    resolver = Everywhere()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, ssl=tls or True),
        headers={"X-Mine": "secret"},
        cookies={"a": "b"},
    ) as session:
        yield session, resolver


def task_of(api: str, link: str) -> Task[Any]:
    """Give a task in a link, as a client of an API would have read it."""
    task = UNIFIED.read({"status": "completed", "output": {"image_url": link}}, TaskId("t1"))
    found_at(task, TaskRef(api, "unified", TaskId("t1")))
    return task


def made(link: str, task_id: str = "t1") -> bytes:
    """Give the answer about a task of the unified API that has ended in a link."""
    data = {"task_id": task_id, "status": "completed", "output": {"image_url": link}}
    return http(b'{"code": 200, "message": "success", "data": %b}' % orjson.dumps(data))


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:{port}/a", "http://localhost:{port}/a", "http://[::ffff:127.0.0.1]:{port}/a"]
)
async def test_a_link_to_this_machine_is_refused_where_the_api_is_elsewhere(
    link: str, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server() as inner:
        with pytest.raises(DownloadError, match="where the API is not"):
            await download(task_of("https://1.1.1.1", link.format(port=inner.port)), tmp_path)

        assert inner.connections == 0
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data", "http://10.0.0.1/a", "http://[fe80::1]/a"]
)
async def test_a_redirect_into_the_network_is_refused_even_where_the_api_is_on_this_machine(
    target: str, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server() as server:
        server.play(Act(say=http(b"", f"Location: {target}", status=302)))
        with pytest.raises(DownloadError, match="where the API is not"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, retry=RetryPolicy())

        assert len(server.received) == 1


async def test_a_name_that_leads_to_this_machine_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as inner, named() as (session, resolver):
        task = task_of("https://1.1.1.1", f"http://img.test:{inner.port}/a")
        with pytest.raises(DownloadError, match=r"img\.test \(127\.0\.0\.1\)"):
            await download(task, tmp_path, session=session)

        assert resolver.asked == ["img.test"]
        assert inner.received == []


async def test_a_number_that_is_an_address_of_this_machine_is_refused(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as inner:
        task = task_of("https://1.1.1.1", f"http://127.1:{inner.port}/a")
        with pytest.raises(DownloadError):
            await download(task, tmp_path)

        assert inner.received == []


async def test_links_of_an_api_on_this_machine_may_be_at_any_port_of_it(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as images, strict_server() as api:
        api.usual = Act(say=made(f"{images.base_url}/a.png"))
        images.play(Act(say=http(PNG)))
        async with PiAPI(KEY, base_url=api.base_url) as piapi:
            task = await piapi.fetch("t1", family=UNIFIED)
            assert task.ref is not None
            [path] = await download(task, tmp_path)

    assert path.read_bytes() == PNG


# -- a client's batch -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def behind_tls(authority: trustme.CA) -> AsyncIterator[tuple[StrictServer, aiohttp.ClientSession]]:
    """Give a host that is known to nobody but to a session with its TLS, resolver, headers, cookies and auth."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.test", "img.test").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with strict_server(tls=server_side) as server, named(client_side) as (session, _):
        yield server, session


async def test_a_batch_saves_files_by_the_sessions_connector_without_its_headers_cookies_and_key(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with behind_tls(authority) as (server, session):
        server.by_path = {
            "/api/v1/task": Act(say=made("x")),
            "/api/v1/task/t1": Act(say=made(f"https://img.test:{server.port}/a.png")),
            "/a.png": Act(say=http(PNG)),
        }
        async with PiAPI(KEY, base_url=f"https://api.test:{server.port}", session=session) as piapi:
            [outcome] = await BatchRunner(piapi, download=tmp_path).run(
                [CreateTask("flux", "txt2img", {"prompt": "x"})]
            )

        assert outcome.ok, outcome.error
        assert [Path(path).name for path in outcome.files] == ["t1.png"]
        [asked] = [received for received in server.received if received.line.startswith("GET /a.png")]
        assert KEY.encode() not in asked.raw
        assert {"x-api-key", "cookie", "authorization", "x-mine"}.isdisjoint(dict(asked.headers))
        assert not session.closed


async def test_a_host_whose_certificate_is_not_trusted_is_not_asked_again(
    authority: trustme.CA, tmp_path: Path
) -> None:
    async with behind_tls(authority) as (server, _), named() as (stranger, _):
        with pytest.raises(DownloadError, match="certificate verify failed") as caught:
            await download(picture_task(f"https://img.test:{server.port}/a.png"), tmp_path, session=stranger)

    assert "tried" not in str(caught.value)
    assert server.received == []


async def test_a_batch_saves_files_through_the_sessions_proxy(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as proxy:
        async with aiohttp.ClientSession(proxy=proxy.base_url) as session:
            proxy.by_path = {
                "http://api.test/api/v1/task": Act(say=made("x")),
                "http://api.test/api/v1/task/t1": Act(say=made("http://img.test/%2F.png")),
                "http://img.test/%2F.png": Act(say=http(PNG)),
            }
            async with PiAPI(KEY, base_url="http://api.test", allow_insecure=True, session=session) as piapi:
                task = CreateTask("flux", "txt2img", {"prompt": "x"})
                [outcome] = await BatchRunner(piapi, download=tmp_path).run([task])

        assert outcome.ok, outcome.error
        assert proxy.received[-1].line == "GET http://img.test/%2F.png HTTP/1.1"


async def test_a_batch_saves_files_through_the_environments_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with no_leaks(), strict_server() as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        proxy.by_path = {
            "http://api.test/api/v1/task": Act(say=made("x")),
            "http://api.test/api/v1/task/t1": Act(say=made("http://img.test/a.png")),
            "http://img.test/a.png": Act(say=http(PNG)),
        }
        async with PiAPI(KEY, base_url="http://api.test", allow_insecure=True, trust_env=True) as piapi:
            task = CreateTask("flux", "txt2img", {"prompt": "x"})
            [outcome] = await BatchRunner(piapi, download=tmp_path).run([task])

        assert outcome.ok, outcome.error
        assert b"x-api-key" not in proxy.received[-1].head.lower()


async def test_a_session_that_is_closed_is_each_items_download_error(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as api:
        api.by_path = {"/api/v1/task/t1": Act(say=made(f"{api.base_url}/a.png"))}
        session = aiohttp.ClientSession()
        async with PiAPI(KEY, base_url=api.base_url, session=session) as piapi:
            await piapi.fetch("t1", family=UNIFIED)
            await session.close()
            with pytest.raises(DownloadError, match="session is closed"):
                piapi._runtime.file_session()


async def test_an_api_that_only_a_proxy_can_resolve_allows_nothing_inside(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as inner:
        task = task_of("https://api.invalid", f"{inner.base_url}/a")
        with pytest.raises(DownloadError, match="where the API is not"):
            await download(task, tmp_path)

        assert inner.connections == 0
