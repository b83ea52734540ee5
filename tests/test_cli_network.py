"""Between a command and its host: proxies and certificates, as the environment names them."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from support.processes import becomes_true, ended, started
from support.strict_server import Act, free_port, http, ok, strict_server

from piapi_async import Imagine, PiAPI, TransportError
from piapi_async.cli import cli
from piapi_async.cli._session import uses_proxy

KEY = "sk-test-5eCr3t"
CREATED = ok(b'{"task_id": "t1", "status": "success", "message": ""}')


async def command(*words: str, **environment: str) -> tuple[int, str, str]:
    """Return the exit code, stdout and stderr of a command in a process of its own."""
    words = (sys.executable, "-m", "piapi_async", *words)
    done = await asyncio.to_thread(ended, *words, env={**os.environ, "PIAPI_API_KEY": KEY, **environment})
    return done.finish(), done.printed, done.said


@pytest.fixture
def certificate(authority: trustme.CA) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return tls


# -- proxies --------------------------------------------------------------------------------------------------------


async def test_a_command_goes_through_the_proxy_of_the_environment() -> None:
    words = ("imagine", "a cat", "--no-wait", "--base-url", "http://piapi.test", "--allow-insecure")
    async with strict_server() as proxy:
        proxy.usual = CREATED
        code, printed, said = await command(*words, HTTP_PROXY=proxy.base_url)

    assert (code, printed) == (0, "t1\n"), said
    assert [seen.line for seen in proxy.received] == ["POST http://piapi.test/mj/v2/imagine HTTP/1.1"]


@pytest.mark.storm
async def test_a_host_that_needs_no_proxy_is_asked_itself() -> None:
    async with strict_server() as host, strict_server() as proxy:
        host.usual = CREATED
        environment = {"HTTP_PROXY": proxy.base_url, "NO_PROXY": "127.0.0.1"}
        code, printed, said = await command(
            "imagine", "a cat", "--no-wait", "--base-url", host.base_url, **environment
        )

    assert (code, printed) == (0, "t1\n"), said
    assert (len(host.received), len(proxy.received)) == (1, 0)


@pytest.mark.storm
async def test_a_tunnel_is_asked_for_where_the_host_speaks_tls() -> None:
    async with strict_server() as proxy:
        proxy.usual = Act(read="head", say=http(b"no", status=403), then="close")
        words = (sys.executable, "-m", "piapi_async", "account", "--base-url", "https://piapi.test")
        environment = {**os.environ, "PIAPI_API_KEY": KEY, "HTTPS_PROXY": proxy.base_url}
        with started(*words, env=environment):
            await becomes_true(lambda: proxy.received)

    assert proxy.received[0].line == "CONNECT piapi.test:443 HTTP/1.1"
    assert KEY.encode() not in proxy.received[0].raw


@pytest.mark.parametrize(
    ("base_url", "proxy", "used"),
    [
        ("https://api.piapi.ai", "http://proxy.corp:3128", True),
        ("http://emulator:8080", "http://proxy.corp:3128", True),
        (
            "http://127.0.0.1:8080",
            "http://proxy.corp:3128",
            False,
        ),  # it would see the key, which stays on this machine
        ("http://localhost:8080", "http://proxy.corp:3128", False),
        ("http://127.0.0.1:8080", "http://127.0.0.1:3128", True),
        ("http://[::1]:8080", "http://localhost:3128", True),
        ("http://127.0.0.1:8080", "", False),
        ("http://[", "http://127.0.0.1:3128", False),
    ],
)
def test_plain_http_to_this_machine_does_not_leave_it(
    base_url: str,
    proxy: str,
    used: bool,  # noqa: FBT001 - a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", proxy)

    assert uses_proxy(base_url) is used


def test_plain_http_to_a_name_needs_to_be_allowed() -> None:
    words = ["account", "--base-url", "http://emulator:8080"]
    result = CliRunner().invoke(cli, words, env={"PIAPI_API_KEY": KEY})

    assert result.exit_code == 2
    assert "or --allow-insecure" in " ".join(result.stderr.split())
    assert "True" not in result.stderr


# -- certificates ---------------------------------------------------------------------------------------------------


async def test_a_certificate_that_is_not_trusted_is_no_fault_that_passes(certificate: ssl.SSLContext) -> None:
    async with strict_server(tls=certificate) as host, PiAPI(KEY, base_url=host.base_url) as piapi:
        errors = []
        for call in (piapi.submit(Imagine("a cat")), piapi.fetch("t1"), piapi.account()):
            with pytest.raises(TransportError, match="set SSL_CERT_FILE") as caught:
                await call
            errors.append(caught.value)

    assert [(error.sent, error.untrusted) for error in errors] == [(False, True)] * 3
    assert piapi.stats.retries == 0
    assert not host.received


async def test_a_wait_tells_at_once_of_a_certificate_and_goes_on(
    certificate: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with strict_server(tls=certificate) as host, PiAPI(KEY, base_url=host.base_url) as piapi:
        waiting = asyncio.ensure_future(piapi.attach("t1").wait())
        while not caplog.records:
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])

    assert "set SSL_CERT_FILE" in caplog.text


async def test_what_an_unreachable_host_costs_stays_as_it_was() -> None:
    async with PiAPI(KEY, base_url=f"http://127.0.0.1:{free_port()}") as piapi:
        with pytest.raises(TransportError) as caught:
            await piapi._runtime.sender.attempt(Imagine("a cat"))

    assert (caught.value.sent, caught.value.untrusted) == (False, False)


@pytest.mark.storm
async def test_a_command_says_which_setting_trusts_an_authority_and_honours_it(
    certificate: ssl.SSLContext, authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with strict_server(tls=certificate) as host:
        host.usual = CREATED
        words = ("imagine", "a cat", "--no-wait", "--base-url", host.base_url)
        refused, _, said = await command(*words)
        code, printed, _ = await command(*words, SSL_CERT_FILE=str(tmp_path / "ca.pem"))

    assert refused == 7
    assert "SSL_CERT_FILE" in said
    assert "trying again" not in said
    assert (code, printed) == (0, "t1\n")
