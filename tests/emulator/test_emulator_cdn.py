"""Files as a network of caches serves them: late, in parts, by links that hold byte for byte."""

from __future__ import annotations

import asyncio

import pytest
from support.emulating import Caller, emulating
from support.systems import PROMPT
from yarl import URL

from piapi_async._http import HTTPResponse
from piapi_async.emulator import Dialect, Drop, Emulator, SlowBody
from piapi_async.emulator._media.cdn import ranged, signed

pytestmark = pytest.mark.looptime


async def asked(caller: Caller, target: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of a GET whose target goes out as it stands."""
    async with caller.session.get(
        URL(target, encoded=True), headers=headers, allow_redirects=False
    ) as answer:
        return (
            answer.status,
            {name.lower(): value for name, value in answer.headers.items()},
            await answer.read(),
        )


async def files(caller: Caller) -> list[str]:
    """Return a link to a grid, to a quadrant, and to a video's cover, of tasks that have just ended."""
    task = await caller.done("imagine", **PROMPT)
    made = await caller.ask("kling", "video_generation", PROMPT)
    while (read := await caller.read(made["task_id"]))["status"] != "completed":
        await asyncio.sleep(1)
    result = task["task_result"]
    return [
        result["image_url"],
        result["temporary_image_urls"][1],
        read["output"]["works"][0]["cover"]["resource"],
    ]


class TestLate:
    async def test_a_link_lives_some_time_after_the_end(self) -> None:
        async with emulating(durations=1.0, links_live_after=120.0, links_expire_after=3600.0) as caller:
            links = await files(caller)
            assert [(await asked(caller, link))[0] for link in links] == [404] * 3
            await asyncio.sleep(121)
            assert [(await asked(caller, link))[0] for link in links] == [200] * 3

    async def test_or_is_not_there_yet_in_other_words(self) -> None:
        async with emulating(durations=1.0, links_live_after=60.0, early_status=503) as caller:
            assert [(await asked(caller, link))[0] for link in await files(caller)] == [503] * 3


class TestSigned:
    async def test_a_link_holds_byte_for_byte(self) -> None:
        async with emulating(durations=1.0, signed_links="links") as caller:
            for link in await files(caller):
                assert all(
                    escape in link
                    for escape in ("%2F", "%28", "%2C", "%27", "%7E", "%40", "%E7%8C%AB", "%3D")
                )
                assert (await asked(caller, link))[0] == 200
                rewritten = [
                    link.replace("%2F", "/"),
                    str(URL(link)),
                    link.replace("%7E", "~"),
                    link.partition("?")[0],
                ]
                assert link not in rewritten
                for other in (*rewritten, f"{link}&"):
                    status, headers, body = await asked(caller, other)
                    assert (status, headers["content-type"]) == (403, "application/xml")
                    assert b"<Code>SignatureDoesNotMatch</Code>" in body

    async def test_a_signature_is_of_one_path(self) -> None:
        assert signed("/mj/a.png").partition("?")[2] != signed("/mj/b.png").partition("?")[2]

    async def test_a_link_may_redirect_to_its_signed_form(self) -> None:
        async with emulating(durations=1.0, signed_links="redirects") as caller:
            for link in await files(caller):
                status, headers, _ = await asked(caller, link)
                location = headers["location"]
                assert (status, location) == (302, signed(URL(link, encoded=True).raw_path))
                assert (await asked(caller, location))[0] == 200
                assert (await asked(caller, location.replace("%2F", "/")))[0] == 403

    async def test_the_page_and_uploads_need_no_signature(self) -> None:
        async with emulating(durations=1.0, signed_links="links") as caller:
            task = await caller.done("imagine", **PROMPT)
            assert (await asked(caller, f"/_emulator/thumbs/{task['task_id']}.png"))[0] == 200
            body = {"file_name": "cat.png", "file_data": "QUFB"}
            _, answer = await caller.call("POST", "/api/ephemeral_resource", body)
            assert (await asked(caller, answer["data"]["url"]))[2] == b"AAA"

    def test_what_else_it_could_be_is_refused(self) -> None:
        with pytest.raises(ValueError, match="signed_links must be no, links or redirects: 'yes'"):
            Emulator(signed_links="yes")  # type: ignore[arg-type]


class TestParts:
    async def test_a_broken_download_is_gone_on_with(self) -> None:
        async with emulating(durations=1.0) as caller:
            for link in await files(caller):
                _, headers, whole = await asked(caller, link)
                half = len(whole) // 2
                status, part, rest = await asked(
                    caller, link, Range=f"bytes={half}-", **{"If-Range": headers["etag"]}
                )

                assert (headers["accept-ranges"], status) == ("bytes", 206)
                assert part["content-range"] == f"bytes {half}-{len(whole) - 1}/{len(whole)}"
                assert whole[:half] + rest == whole
                assert part["etag"] == headers["etag"]

    async def test_a_range_is_read_as_the_standard_says(self) -> None:
        expected: dict[str, tuple[int, int, int | None]] = {
            "bytes=0-3": (206, 0, 4),
            "bytes=-3": (206, -3, None),
            "bytes=5-999999999999": (206, 5, None),
            "bytes=-999999999999": (206, 0, None),
            "bytes=3-1": (416, 0, 0),
            "bytes=99999999-": (416, 0, 0),
            "bytes=-0": (416, 0, 0),
            "bytes=-": (200, 0, None),
            "bytes=0-1,4-5": (200, 0, None),
            "lines=0-1": (200, 0, None),
            f"bytes={'9' * 5000}-": (200, 0, None),
        }
        async with emulating(durations=1.0) as caller:
            (link, *_) = await files(caller)
            _, _, whole = await asked(caller, link)
            answers = {header: (await asked(caller, link, Range=header))[::2] for header in expected}

        assert answers == {
            header: (status, whole[first:last]) for header, (status, first, last) in expected.items()
        }

    async def test_another_file_is_sent_whole(self) -> None:
        async with emulating(durations=1.0) as caller:
            (link, *_) = await files(caller)
            status, _, _ = await asked(caller, link, Range="bytes=4-", **{"If-Range": '"of another file"'})
            assert status == 200

    async def test_a_host_may_know_no_parts(self) -> None:
        async with emulating(durations=1.0, dialect=Dialect(ranges=False)) as caller:
            (link, *_) = await files(caller)
            status, headers, _ = await asked(caller, link, Range="bytes=4-")
            assert (status, "etag" in headers) == (200, False)

    async def test_a_download_may_break_off_and_tell_of_what(self) -> None:
        async with emulating(durations=1.0) as caller:
            (link, *_) = await files(caller)
            _, whole, _ = await asked(caller, link)
            caller.emulator.fail("download", Drop(inside_answer=True))
            reader, writer = await asyncio.open_connection("127.0.0.1", URL(link).port)
            writer.write(f"GET {URL(link).raw_path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head, _, half = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()

            assert f"content-length: {whole['content-length']}".encode() in head
            assert f"etag: {whole['etag']}".encode() in head
            assert len(half) == int(whole["content-length"]) // 2

    async def test_a_slow_file_keeps_moving(self) -> None:
        async with emulating(durations=1.0) as caller:
            (link, *_) = await files(caller)
            _, _, whole = await asked(caller, link)
            caller.emulator.fail("image", SlowBody(300.0, pieces=30))
            loop = asyncio.get_running_loop()
            began = last = loop.time()
            pauses, body = [], b""
            async with caller.session.get(link) as answer:
                async for piece in answer.content.iter_any():
                    body += piece
                    pauses.append(loop.time() - last)
                    last = loop.time()
            assert body == whole
            assert loop.time() - began == pytest.approx(300, abs=1)
            assert max(pauses) == pytest.approx(10, abs=1)

    def test_a_part_of_nothing_is_not_to_be_had(self) -> None:
        assert ranged(HTTPResponse(200, b""), {"Range": "bytes=0-"}).status == 416
