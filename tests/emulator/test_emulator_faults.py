"""Every fault, as a client's socket meets it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.emulating import Caller, emulating

from piapi_async._http import HTTPResponse
from piapi_async.emulator import (
    Drop,
    Emulator,
    Huge,
    Refuse,
    Rule,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    TaskFails,
    TaskRetries,
    TaskTakes,
    Truncated,
    UnknownStatus,
    WrongTypes,
    load_faults,
)
from piapi_async.emulator.faults import KINDS

pytestmark = pytest.mark.looptime


async def _fails(caller: Caller, error: type[Exception], verb: str = "imagine") -> None:
    with pytest.raises(error):
        await caller.post(verb, prompt="a cat")


@pytest.mark.parametrize(
    ("drop", "made"),
    [
        (Drop(before_body=True), 0),
        (Drop(after_body=True), 1),
        (Drop(after_body=True, made=True), 1),
        (Drop(after_body=True, made=False), 0),
    ],
)
async def test_a_dropped_create_leaves_no_answer_and_a_task_or_none(drop: Drop, made: int) -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", drop, times=1)
        with pytest.raises(aiohttp.ClientOSError):
            await caller.post("imagine", prompt="a cat")

        assert (made, {"Drop": 1}) == (caller.emulator.seen.creates, caller.emulator.seen.faults)
        await caller.create("imagine", prompt="a cat")


async def test_an_answer_that_breaks_off_is_shorter_than_it_promised() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", Drop(inside_answer=True))
        await _fails(caller, aiohttp.ClientPayloadError)
        assert caller.emulator.seen.creates == 1


async def test_a_refusing_port_is_really_closed_and_opens_again() -> None:
    async with emulating() as caller:
        await caller.create("imagine", prompt="a cat")
        caller.emulator.fail("imagine", Refuse(3.0))
        await asyncio.sleep(0.1)  # idle connections close in the next turn of the loop
        await _fails(caller, aiohttp.ClientConnectorError)
        await asyncio.sleep(2)
        await _fails(caller, aiohttp.ClientConnectorError)
        await asyncio.sleep(1.5)
        await caller.create("imagine", prompt="a cat")
        assert (caller.emulator.seen.creates, caller.emulator.seen.faults) == (2, {"Refuse": 1})


async def test_the_port_closes_before_the_nth_request_of_its_route() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", Refuse(2.0), nth=3, times=2)
        for _ in range(2):
            task_id = await caller.create("imagine", prompt="a cat")
        await _fails(caller, aiohttp.ClientConnectorError)
        await asyncio.sleep(3)
        await _fails(caller, aiohttp.ClientConnectorError)
        await asyncio.sleep(2)
        await caller.fetch(task_id)


async def test_an_emulator_may_stop_while_its_port_is_closed() -> None:
    async with emulating(faults=[Rule("*", Refuse(50.0))]) as caller:
        await _fails(caller, aiohttp.ClientConnectorError)


@pytest.mark.parametrize(
    ("fault", "kind", "body"),
    [
        (Status(400), "application/json", "invalid request"),
        (Status(401), "application/json", "Invalid API key"),
        (Status(408), "text/html", "408 Request Time-out"),
        (Status(429), "application/json", "too many requests"),
        (Status(429, retry_after=2.5), "application/json", "too many requests"),
        (Status(500), "application/json", "failed to make a task"),
        (Status(500, body=""), "text/html", ""),
        (Status(500, body={"message": "timeout"}), "application/json", "timeout"),
        (Status(418), "application/json", "status 418"),
        (Status(502), "text/html", "502 Bad Gateway"),
        (Status(503), "text/html", "503 Service Temporarily Unavailable"),
        (Status(504, made=True), "text/html", "504 Gateway Time-out"),
    ],
)
async def test_a_status_comes_with_the_body_of_whoever_would_send_it(
    fault: Status, kind: str, body: str
) -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", fault)
        async with caller.session.post("/mj/v2/imagine", json={"prompt": "a cat"}) as answer:
            text = await answer.text()

            assert (fault.status, kind) == (answer.status, answer.content_type)
            assert body in text
            retry_after = None if fault.retry_after is None else str(fault.retry_after)
            assert retry_after == answer.headers.get("Retry-After")
        assert int(fault.made) == caller.emulator.seen.creates


async def test_a_slow_first_byte_keeps_the_whole_answer_back() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", SlowFirstByte(20.0))
        began = asyncio.get_running_loop().time()
        await caller.create("imagine", prompt="a cat")
        assert pytest.approx(asyncio.get_running_loop().time() - began, abs=0.1) == 20


async def test_a_slow_body_starts_at_once_and_drips() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", SlowBody(20.0, pieces=4))
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with caller.session.post("/mj/v2/imagine", json={"prompt": "a cat"}) as answer:
            assert pytest.approx(loop.time() - began, abs=0.1) == 0
            assert (await answer.json())["status"] == "success"
        assert pytest.approx(loop.time() - began, abs=0.1) == 20


async def test_a_client_that_leaves_a_slow_body_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", SlowBody(20.0, pieces=4))
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(1.0),
                caller.session.post("/mj/v2/imagine", json={"prompt": "a cat"}) as answer,
            ):
                await answer.read()
        await asyncio.sleep(30.0)
        assert caller.emulator.seen.statuses == {444: 1}
    assert not caplog.records


async def _body(caller: Caller, verb: str, **body: Any) -> bytes:
    async with caller.session.post(f"/mj/v2/{verb}", json=body) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_truncated_json_is_a_whole_http_answer() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", Truncated(keep=0.5))
        body = await _body(caller, "imagine", prompt="a cat")
        assert body.startswith(b'{"task_id":')
        assert not body.endswith(b"}")


async def test_types_can_be_wrong_and_objects_lists() -> None:
    async with emulating() as caller:
        task_id = await caller.create("imagine", prompt="a cat", aspect_ratio="1:1")
        caller.emulator.fail("fetch", WrongTypes())
        caller.emulator.fail("fetch", WrongTypes(broken=True))
        lenient, broken = await caller.fetch(task_id), await caller.fetch(task_id)

        assert (
            lenient["retry_count"],
            lenient["meta"]["quota_frozen"],
            lenient["task_result"]["error_messages"],
        ) == ("0", "30", [])
        assert (list, str) == (type(broken["task_result"]), type(broken["status"]))
        turned = WrongTypes().apply(HTTPResponse(200, b'{"seed":"42","long":"1234567890123456789012"}')).body
        assert turned == b'{"seed":42,"long":"1234567890123456789012"}'


async def test_a_status_word_can_be_one_nobody_knows() -> None:
    async with emulating() as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        caller.emulator.fail("fetch", UnknownStatus('dream"ing'))
        assert (await caller.fetch(task_id))["status"] == 'dream"ing'


async def test_a_huge_answer_is_still_json() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", Huge(3_000_000))
        assert len((await caller.post("imagine", prompt="a cat"))[1]["padding"]) == 3_000_000
        assert Huge(3).apply(HTTPResponse(200, b"[]")).body == b"[]xxx"


async def test_a_stale_connection_closes_after_its_answer() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", StaleKeepAlive(1.0))
        reader, writer = await asyncio.open_connection("127.0.0.1", caller.session._base_url.port)  # type: ignore[union-attr]
        body = b'{"prompt": "a cat"}'
        writer.write(
            b"POST /mj/v2/imagine HTTP/1.1\r\nHost: localhost\r\nX-API-Key: emulator-key\r\n"
            + f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = await reader.read()  # up to the end the server makes
        writer.close()
        await writer.wait_closed()

        assert answer.startswith(b"HTTP/1.1 200")
        assert b"onnection: close" not in answer
        assert answer.endswith(b"}")


async def test_a_task_can_be_bound_to_fail_to_retry_and_to_take_its_time() -> None:
    async with emulating(adopt_parents=True) as caller:
        emulator = caller.emulator
        emulator.fail("reroll", TaskFails("too wild"))
        emulator.fail("create", TaskRetries(3))
        emulator.fail("*", TaskTakes(1000.0))
        failed = await caller.done("reroll", origin_task_id="x")
        retried = await caller.done("imagine", prompt="a cat")
        slow = await caller.done("imagine", prompt="a cat")
        plain = await caller.done("imagine", prompt="a cat")

        assert (failed["status"], failed["task_result"]["error_messages"]) == ("failed", ["too wild"])
        assert (retried["retry_count"], plain["retry_count"]) == (3, 0)
        assert slow["meta"]["ended_at"] - slow["meta"]["created_at"] == 1000


async def test_rules_are_tried_in_order_and_count_what_reaches_them() -> None:
    async with emulating() as caller:
        caller.emulator.fail("imagine", Status(503), nth=2, times=2)
        caller.emulator.fail("create", Status(500))
        caller.emulator.fail("imagine", Status(504), times=None)
        statuses = []
        for _ in range(6):
            async with caller.session.post("/mj/v2/imagine", json={"prompt": "a cat"}) as answer:
                statuses.append(answer.status)
        assert statuses == [500, 503, 503, 504, 504, 504]


async def test_a_rate_hits_its_share_and_the_same_requests_again() -> None:
    async def run() -> list[int]:
        async with emulating(latency={"fetch": 0.01}) as caller:
            caller.emulator.fail("fetch", Status(503), rate=0.3)
            statuses = []
            for _ in range(100):
                async with caller.session.post("/mj/v2/fetch", json={"task_id": "x"}) as answer:
                    statuses.append(answer.status)
            return statuses

    first, second = await run(), await run()
    assert first == second
    assert 15 < first.count(503) < 45


async def test_images_can_fail_too() -> None:
    async with emulating() as caller:
        task = await caller.done("imagine", prompt="a cat")
        caller.emulator.fail("image", Status(503))
        assert (await caller.get(task["task_result"]["image_url"]))[0] == 503
        assert (await caller.get(task["task_result"]["image_url"]))[0] == 200


async def test_latency_holds_for_every_route_or_for_one() -> None:
    loop = asyncio.get_running_loop()
    for latency, expected in ((2.0, 2.0), ({"imagine": 3.0}, 3.0), ({"fetch": 3.0}, 0.0)):
        async with emulating(latency=latency, speed=50.0) as caller:
            began = loop.time()
            await caller.create("imagine", prompt="a cat")
            assert expected == pytest.approx(loop.time() - began, abs=0.05)


def test_faults_are_read_from_toml(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(
        """
        [[fault]]
        route = "reroll"
        kind = "drop"
        after_body = true
        made = false
        nth = 2

        [[fault]]
        kind = "status"
        status = 429
        retry_after = 3
        rate = 0.25

        [[fault]]
        route = "fetch"
        kind = "wrong_types"
        times = 3
        """
    )

    drop, status, types = load_faults(path)
    assert Rule("reroll", Drop(after_body=True, made=False), nth=2) == drop
    assert Rule("*", Status(429, retry_after=3), times=None, rate=0.25) == status
    assert Rule("fetch", WrongTypes(), times=3) == types
    assert (drop, status, types) == tuple(Emulator(faults=load_faults(path)).fault_rules.rules)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[fault", "faults.toml: Expected"),
        ("fault = 1", "faults.toml: faults are written as [[fault]] tables"),
        ("[[fault]]\nkind = 'dorp'", "faults.toml: fault 1: unknown kind 'dorp'; known: drop, refuse, "),
        ("[[fault]]\nkind = 'huge'\n[[fault]]\n", "faults.toml: fault 2: unknown kind None; known: "),
        ("[[fault]]\nkind = 'huge'\nsize = 1", "fault 1: huge has no field 'size'; it has: bytes"),
        ("[[fault]]\nkind = 'huge'\nbytes = 'x'", "fault 1: 'bytes' must be <class 'int'>"),
        ("[[fault]]\nkind = 'huge'\nbytes = 0", "fault 1: 'bytes' must be > 0: 0"),
        (
            "[[fault]]\nkind = 'huge'\nroute = 'rerol'",
            "fault 1: unknown route 'rerol'; known: *, account_info, active_tasks, blend, ",
        ),
        ("[[fault]]\nkind = 'huge'\nrate = 3", "fault 1: rate must lie in 0..1: 3"),
        ("[[fault]]\nkind = 'huge'\nnth = 0", "fault 1: nth and times count from 1: nth=0, times=1"),
        (
            "[[fault]]\nkind = 'drop'",
            "fault 1: exactly one of before_body, after_body, inside_answer must be true",
        ),
        (
            "[[fault]]\nkind = 'drop'\nbefore_body = true\nmade = true",
            "fault 1: made cannot be true before the body",
        ),
        (
            "[[fault]]\nkind = 'drop'\ninside_answer = true\nmade = false",
            "fault 1: made cannot be false inside the",
        ),
        (
            "[[fault]]\nkind = 'slow_body'",
            "fault 1: SlowBody.__init__() missing 1 required positional argument",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"faults\.toml") as caught:
        load_faults(path)
    assert message in str(caught.value)


def test_every_kind_can_be_named() -> None:
    assert len(KINDS) == len(set(KINDS.values()))
    assert set(KINDS) == {re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in KINDS.values()}
