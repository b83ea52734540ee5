"""An emulator on loopback is not there for web pages, nor a way into the network behind it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

import pytest
from support.emulating import Caller, Inbox, emulating
from yarl import URL

from piapi_async.emulator import Emulator
from piapi_async.emulator._server.guard import Guard

pytestmark = pytest.mark.looptime

CREATE = {"prompt": "a cat"}
#: Not a name of loopback, and yet nothing leaves this machine.
ANY = "0.0.0.0"  # noqa: S104 - it is posted to, not listened at


async def _statuses(caller: Caller, **headers: str) -> list[int]:
    """Return what a create, a read, the page's numbers and a picture are answered with these headers."""
    paths = ("/api/v1/task/x", "/_emulator/tasks", "/_emulator/", "/mj/x.png")
    statuses = [(await caller.call("POST", "/mj/v2/imagine", CREATE, **headers))[0]]
    for path in paths:
        async with caller.session.get(path, headers=headers) as answer:
            statuses.append(answer.status)
    return statuses


class TestHosts:
    @pytest.mark.parametrize(
        "host",
        [
            "evil.example",
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.168.1.5",
            "[",
            "",
        ],
    )
    async def test_a_name_that_could_be_rebound_is_misdirected(self, host: str) -> None:
        async with emulating() as caller:
            assert await _statuses(caller, Host=host) == [421] * 5
            assert caller.emulator.seen.creates == 0

    @pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:99", "[::1]:8080"])
    async def test_loopback_is_served_by_any_of_its_names(self, host: str) -> None:
        async with emulating() as caller:
            assert (await caller.call("POST", "/mj/v2/imagine", CREATE, Host=host))[0] == 200

    async def test_the_public_url_is_served(self) -> None:
        async with emulating(public_url="https://Emulator.test:9443/base") as caller:
            assert (await caller.call("POST", "/mj/v2/imagine", CREATE, Host="emulator.test"))[0] == 200
            assert (await caller.call("POST", "/mj/v2/imagine", CREATE, Host="other.test"))[0] == 421

    async def test_an_exposed_one_is_served_by_any_name(self) -> None:
        emulator = Emulator()
        async with emulator.run(exposed=True) as base_url:
            port = URL(base_url).port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                b"GET /_emulator/tasks HTTP/1.1\r\nHost: emulator.lan\r\nOrigin: http://a.lan\r\n\r\n"
            )
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()

    async def test_every_one_of_several_host_headers_counts(self) -> None:
        async with emulating() as caller:
            reader, writer = await asyncio.open_connection("127.0.0.1", URL(caller.emulator.base_url).port)
            host = caller.emulator.base_url.removeprefix("http://")
            request = f"GET /_emulator/tasks HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n"
            writer.write(request.encode())
            assert not (await reader.readline()).startswith(b"HTTP/1.1 2")
            writer.close()
            await writer.wait_closed()

    async def test_the_refusal_is_in_the_words_of_the_protocol(self) -> None:
        async with emulating() as caller:
            _, legacy = await caller.call("POST", "/mj/v2/imagine", CREATE, Host="evil.example")
            _, unified = await caller.call("GET", "/api/v1/task/x", Host="evil.example")
            assert legacy["message"] == unified["message"]
            assert "'evil.example'" in legacy["message"]
            assert (unified["code"], legacy["status"]) == (421, "failed")


class TestOrigins:
    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://["]
    )
    async def test_a_page_from_elsewhere_is_refused(self, origin: str) -> None:
        async with emulating() as caller:
            assert await _statuses(caller, Origin=origin) == [403] * 5
            assert caller.emulator.seen.creates == 0

    @pytest.mark.parametrize(
        "origin", ["http://localhost:3000", "http://127.0.0.1:8080", "https://emulator.test"]
    )
    async def test_a_page_of_this_machine_is_served(self, origin: str) -> None:
        async with emulating(public_url="https://emulator.test") as caller:
            assert (await caller.call("POST", "/mj/v2/imagine", CREATE, Origin=origin))[0] == 200


class TestThePage:
    async def test_runs_only_what_stands_in_it(self) -> None:
        async with emulating() as caller, caller.session.get("/_emulator/") as answer:
            html = await answer.read()
            policy = dict(
                part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
            )

            assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")
            for tag in ("script", "style"):
                parts = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
                digest = base64.b64encode(hashlib.sha256(parts[0]).digest()).decode()
                assert (len(parts), policy[f"{tag}-src"]) == (1, f"'sha256-{digest}'")
            # An inline handler or style attribute would not run under this policy.
            assert not re.search(rb"<[^>]* (on\w+|style)=", html)

    async def test_nothing_is_taken_for_another_type(self) -> None:
        async with emulating() as caller:
            task = await caller.done("imagine", prompt="a cat")
            for path in (
                "/_emulator/",
                "/_emulator/tasks",
                "/_emulator/stats",
                task["task_result"]["image_url"],
            ):
                async with caller.session.get(path) as answer:
                    assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff")


class TestWebhooks:
    async def test_go_to_this_machine_alone(self, caplog: pytest.LogCaptureFixture) -> None:
        async with emulating() as caller:
            for endpoint in (
                "http://169.254.169.254/latest",
                "http://db.internal/",
                "http://localhost.evil.example/",
            ):
                task = await caller.done("imagine", prompt="a cat", webhook_endpoint=endpoint)
                assert task["status"] == "finished"
            deliveries = caller.emulator.seen.deliveries
            assert [(delivery.lost, delivery.kept_back, delivery.answer) for delivery in deliveries] == [
                (True, True, 0)
            ] * 3
        assert [record.message.partition(":")[0] for record in caplog.records] == [
            "No webhook is posted to http"
        ]

    async def test_go_to_named_hosts_too(self) -> None:
        async with Inbox().open() as inbox, emulating(webhook_hosts=[ANY]) as caller:
            await caller.done("imagine", prompt="a cat", webhook_endpoint=inbox.url)
            await caller.done("imagine", prompt="a cat", webhook_endpoint=f"http://{ANY}:80/hook")
            await asyncio.sleep(60)
            first, *others = caller.emulator.seen.deliveries

            assert inbox.words == ["finished"]
            assert (first.answer, first.lost) == (200, False)
            assert [(delivery.kept_back, delivery.lost) for delivery in others] == [
                (False, False)
            ] * 3  # its tries

    def test_go_anywhere_from_an_exposed_one(self) -> None:
        assert Guard.of(exposed=True, public_url="", hooks=()).allows_webhook("http://db.internal/")
        assert not Guard.of(exposed=False, public_url="", hooks=()).allows_webhook("http://[")

    def test_names_are_compared_without_case(self) -> None:
        assert Guard.of(exposed=False, public_url="", hooks=["Bot.test"]).allows_webhook(
            "http://bot.TEST/hook"
        )

    def test_hosts_are_a_list(self) -> None:
        with pytest.raises(ValueError, match="webhook_hosts must be a list"):
            Emulator(webhook_hosts="bot.test")
