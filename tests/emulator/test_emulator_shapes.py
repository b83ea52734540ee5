"""The shapes that hosts, gateways and edges were seen to answer in, each on request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.emulating import Caller, emulating
from support.systems import PROMPT
from yarl import URL

from piapi_async.emulator import (
    Dialect,
    EdgePage,
    EntriesAs,
    Fault,
    LinksAs,
    NoFiles,
    ReasonsAs,
    TaskFails,
    Unasked,
    Unclear,
    load_faults,
)
from piapi_async.emulator._api.odd_shapes import ENTRIES, REASONS, REPLACED, UNCLEAR, WRAPPED, links_in

pytestmark = pytest.mark.looptime

REASON = "the prompt is nsfw"
UNIFIED = {"model": "kling", "task_type": "video_generation", "input": PROMPT}
CREATES: dict[str, tuple[str, Any]] = {
    "imagine": ("/mj/v2/imagine", PROMPT),
    "task_create": ("/api/v1/task", UNIFIED),
}


async def raw(
    caller: Caller, method: str, path: str, body: Any = None
) -> tuple[int, str, str, dict[str, str]]:
    """Return status, text, content type and headers, redirects not followed."""
    async with caller.session.request(method, path, json=body, allow_redirects=False) as answer:
        return answer.status, await answer.text(), answer.content_type, dict(answer.headers)


class TestUnclear:
    @pytest.mark.parametrize("route", CREATES)
    @pytest.mark.parametrize("shape", UNCLEAR)
    async def test_a_task_is_made_and_named_where_the_shape_names_one(self, shape: str, route: str) -> None:
        async with emulating() as caller:
            caller.emulator.fail(route, Unclear(shape))
            status, text, kind, headers = await raw(caller, "POST", *CREATES[route])
            (task_id,) = caller.emulator.engine.tasks
            expected, body = UNCLEAR[shape](task_id)

            assert (status, json.loads(text), kind) == (expected, body, "application/json")
            assert (task_id in headers.get("Location", "")) is (shape == "see_other")

    @pytest.mark.parametrize("shape", UNCLEAR)
    async def test_no_task_may_be_made(self, shape: str) -> None:
        async with emulating() as caller:
            caller.emulator.fail("create", Unclear(shape, made=False))
            status, text, _, _ = await raw(caller, "POST", *CREATES["imagine"])
            assert status == UNCLEAR[shape]("")[0]
            assert caller.emulator.seen.creates == 0
            assert "00000000-0000-4000-8000-000000000000" in text or '_id":"' not in text.lower()

    async def test_what_the_service_refuses_stays_refused(self) -> None:
        async with emulating() as caller:
            caller.emulator.fail("create", Unclear("camel_id"))
            assert (await caller.post("imagine"))[1]["message"] == "prompt is required"

    def test_a_shape_must_be_known(self) -> None:
        with pytest.raises(ValueError, match="shape"):
            Unclear("strange")


class TestEdgePages:
    @pytest.mark.parametrize("status", [403, 404, 502, 503, 504, 511, *range(520, 531)])
    async def test_a_page_stands_in_place_of_reads_and_creates(self, status: int) -> None:
        async with emulating() as caller:
            task_id = await caller.create("imagine", **PROMPT)
            caller.emulator.fail("*", EdgePage(status), times=3)
            requests = (CREATES["imagine"], CREATES["task_create"], ("/mj/v2/fetch", {"task_id": task_id}))
            for path, body in requests:
                found, text, kind, _ = await raw(caller, "POST", path, body)
                assert (found, kind, text[:6]) == (status, "text/html", "<html>")
            assert caller.emulator.seen.creates == 1

    async def test_a_bot_check_looks_like_one_and_a_task_may_be_made_behind_it(self) -> None:
        async with emulating() as caller:
            caller.emulator.fail("create", EdgePage(made=True))
            status, text, _, headers = await raw(caller, "POST", *CREATES["imagine"])
            assert (status, headers["cf-mitigated"], caller.emulator.seen.creates) == (403, "challenge", 1)
            assert "Just a moment..." in text


async def ended(caller: Caller, *faults: Fault, error: str = "") -> dict[str, Any]:
    """Return how a task of each protocol is read at its end with these faults, and from multi-fetch."""
    if error:
        caller.emulator.fail("create", TaskFails(error), times=2)
    legacy = await caller.create("imagine", **PROMPT)
    unified = (
        await caller.ask("kling", "ai_try_on", {"model_input": "https://x.org/a.png", "dress_input": "QQ=="})
    )["task_id"]
    await asyncio.sleep(100)
    for fault in faults:
        caller.emulator.fail("read", fault, times=None)
    fetched = await caller.fetch(legacy)
    _, many = await caller.post("multi_fetch", task_ids=[legacy])
    assert many["data"][legacy] == fetched
    return {"legacy": fetched, "unified": await caller.read(unified)}


class TestLinks:
    @pytest.mark.parametrize("shape", WRAPPED)
    async def test_links_may_be_wrapped(self, shape: str) -> None:
        async with emulating(durations=10.0) as caller:
            plain = await ended(caller)
            odd = await ended(caller, LinksAs(shape))
            wrap = WRAPPED[shape]

            image = odd["legacy"]["task_result"]["image_url"]
            assert image == wrap(links_in(image)[0])
            work = odd["unified"]["output"]["works"][0]["image"]
            assert work["resource_without_watermark"] == wrap(links_in(work)[1])
            assert len(links_in(odd["legacy"])) == len(links_in(plain["legacy"]))

    @pytest.mark.parametrize("shape", REPLACED)
    async def test_a_result_may_be_replaced(self, shape: str) -> None:
        async with emulating(durations=10.0) as caller:
            odd = await ended(caller, LinksAs(shape))
            for result in (odd["legacy"]["task_result"], odd["unified"]["output"]):
                assert result == REPLACED[shape](links_in(result))

    @pytest.mark.parametrize(("fault", "result"), [(NoFiles(), None), (NoFiles(empty=True), {})])
    async def test_a_result_may_have_no_files(self, fault: NoFiles, result: Any) -> None:
        async with emulating(durations=10.0) as caller:
            odd = await ended(caller, fault)
            assert (odd["legacy"]["task_result"], odd["unified"]["output"]) == (result, result)
            assert (odd["legacy"]["status"], odd["unified"]["status"]) == ("finished", "completed")

    @pytest.mark.parametrize("fault", [LinksAs("bare"), NoFiles()])
    async def test_what_has_not_ended_and_pictures_stay_as_they_are(self, fault: Fault) -> None:
        async with emulating(durations=10.0) as caller:
            task = await caller.done("imagine", **PROMPT)
            caller.emulator.fail("*", fault, times=None)
            fetched = await caller.fetch(await caller.create("imagine", **PROMPT))
            assert fetched["task_result"]["image_url"] == ""
            assert (await caller.get(task["task_result"]["image_url"]))[2] == "image/png"


class TestReasons:
    @pytest.mark.parametrize("shape", REASONS)
    async def test_a_reason_may_have_another_shape(self, shape: str) -> None:
        async with emulating(durations=10.0) as caller:
            odd = await ended(caller, ReasonsAs(shape), error=REASON)
            expected = REASONS[shape](REASON)
            assert odd["legacy"]["task_result"]["error_messages"] == expected
            assert odd["unified"]["error"]["message"] == expected

    @pytest.mark.parametrize(
        ("shape", "legacy", "unified"),
        [
            ("message", lambda task: task["task_result"]["message"], lambda task: task["message"]),
            (
                "detail",
                lambda task: task["task_result"]["detail"]["reason"],
                lambda task: task["error"]["detail"]["reason"],
            ),
            ("logs", lambda task: task["task_result"]["logs"][-1], lambda task: task["logs"][-1]),
        ],
    )
    async def test_a_reason_may_stand_elsewhere(self, shape: str, legacy: Any, unified: Any) -> None:
        async with emulating(durations=10.0) as caller:
            odd = await ended(caller, ReasonsAs(shape), error=REASON)
            assert (legacy(odd["legacy"]), unified(odd["unified"])) == (REASON, REASON)
            assert odd["legacy"]["task_result"]["error_messages"] == []
            assert REASON not in str((odd["unified"]["error"] or {}).get("message"))

    async def test_what_has_not_failed_stays_as_it_is(self) -> None:
        async with emulating(durations=10.0, epoch=0) as caller:
            odd = await ended(caller, ReasonsAs("logs"))
            assert (odd["legacy"]["status"], odd["unified"]["logs"]) == ("finished", [])


class TestEntries:
    async def read(self, caller: Caller, shape: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
        """Return ids, and their entries without and with the fault; one id is unknown."""
        ids = [await caller.create("imagine", prompt=f"cat {number}") for number in range(2)]
        _, plain = await caller.post("multi_fetch", task_ids=[*ids, "unknown"])
        caller.emulator.fail("multi_fetch", EntriesAs(shape))
        _, odd = await caller.post("multi_fetch", task_ids=[*ids, "unknown"])
        assert (await caller.post("multi_fetch", task_ids=[*ids, "unknown"]))[1] == plain
        return ids, plain["data"], odd["data"]

    @pytest.mark.parametrize("shape", ENTRIES)
    async def test_an_entry_may_have_another_shape(self, shape: str) -> None:
        async with emulating(speed=1e-6) as caller:
            ids, plain, odd = await self.read(caller, shape)
            assert odd == {**{task_id: ENTRIES[shape](plain[task_id]) for task_id in ids}, "unknown": None}

    async def test_an_entry_may_be_anothers(self) -> None:
        async with emulating(speed=1e-6) as caller:
            ids, plain, odd = await self.read(caller, "swapped")
            assert odd == {ids[0]: plain[ids[1]], ids[1]: None, "unknown": plain[ids[0]]}

    @pytest.mark.parametrize("shape", [*ENTRIES, "swapped"])
    async def test_what_is_no_multi_fetch_stays_as_it_is(self, shape: str) -> None:
        async with emulating(speed=1e-6) as caller:
            made = await caller.ask("kling", "video_generation", PROMPT)
            fetched = await caller.create("imagine", **PROMPT)
            plain = await caller.read(made["task_id"]), await caller.fetch(fetched)
            caller.emulator.fail("*", EntriesAs(shape), times=None)
            assert plain == (await caller.read(made["task_id"]), await caller.fetch(fetched))


class TestUnasked:
    @pytest.mark.parametrize(("again", "expected"), [(True, b"HTTP/1.1 200 OK"), (False, b"HTTP/1.1 408 OK")])
    async def test_an_answer_comes_that_nobody_asked_for(self, again: bool, expected: bytes) -> None:  # noqa: FBT001
        async with emulating() as caller:
            caller.emulator.fail("imagine", Unasked(2.0, again=again))
            reader, writer = await asyncio.open_connection("127.0.0.1", URL(caller.emulator.base_url).port)
            body = json.dumps(PROMPT).encode()
            head = (
                f"POST /mj/v2/imagine HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {caller.emulator.api_key}\r\n"
            )
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

            async def answer() -> tuple[bytes, bytes]:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                return head.split(b"\r\n")[0], await reader.readexactly(length)

            first = await answer()
            began = asyncio.get_running_loop().time()
            second = await answer()

            assert (first[0], second[0]) == (b"HTTP/1.1 200 OK", expected)
            assert asyncio.get_running_loop().time() - began == pytest.approx(2, abs=0.1)
            assert second[1] == (first[1] if again else b"")
            assert caller.emulator.seen.creates == 1
            writer.close()
            await writer.wait_closed()

    async def test_one_who_has_gone_hears_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        async with emulating() as caller:
            caller.emulator.fail("imagine", Unasked(2.0))
            async with caller.session.post(
                "/mj/v2/imagine", json=PROMPT, headers={"Connection": "close"}
            ) as answer:
                await answer.read()
            await asyncio.sleep(5)
        assert not caplog.records


@pytest.mark.parametrize(
    ("done", "failed"),
    [("succeeded", "FAILURE"), ("SUCCESS", "error"), (" Done ", "timed_out"), ("complete", "rejected")],
)
async def test_an_end_may_have_another_word_in_every_protocol(done: str, failed: str) -> None:
    words = {"finished": done, "failed": failed}
    async with emulating(durations=10.0, dialect=Dialect(words=words)) as caller:
        good, bad = await ended(caller), await ended(caller, error=REASON)
        assert {good["legacy"]["status"], good["unified"]["status"]} == {done}
        assert {bad["legacy"]["status"], bad["unified"]["status"]} == {failed}


def test_a_word_must_be_for_a_stage_that_there_is() -> None:
    with pytest.raises(ValueError, match="words: 'completed' is not a stage; stages are staged, pending, "):
        Dialect(words={"completed": "succeeded"})


def test_shapes_are_named_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.toml"
    path.write_text(
        "[[fault]]\nkind = 'unclear'\nshape = 'eof'\nroute = 'create'\n[[fault]]\nkind = 'reasons_as'\n"
    )
    assert [rule.fault for rule in load_faults(path)] == [Unclear("eof"), ReasonsAs()]
    path.write_text("[[fault]]\nkind = 'unclear'\nshape = 'odd'")
    with pytest.raises(ValueError, match="fault 1: 'shape' must be in "):
        load_faults(path)
