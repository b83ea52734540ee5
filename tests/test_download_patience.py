"""A fresh link gets minutes, a stream that breaks is resumed, and silence alone bounds a file: against a raw server."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.picture_tasks import PNG, files, picture_task
from support.serving import no_leaks, now
from support.strict_server import Act, StrictServer, http, strict_server

from piapi_async import UNIFIED, BatchRunner, CreateTask, PiAPI, RetryPolicy, Task, download
from piapi_async.errors import DownloadError
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

BIG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4000  # about a megabyte


def task_that_ended(link: str, ago: float) -> Task[Any]:
    ended = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()
    answer = {"status": "completed", "output": {"image_url": link}, "meta": {"ended_at": ended}}
    return UNIFIED.read(answer, TaskId("t1"))


def ranges(server: StrictServer) -> list[str | None]:
    return [dict(received.headers).get("range") for received in server.received]


def ranged(body: bytes, start: int, *headers: str, length: int | None = None) -> Act:
    """Give the rest of a body from a byte on, which may lie about how long it is."""
    there = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}"
    return Act(say=http(body[start:], there, *headers, status=206, length=length))


# -- minutes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 408, 425, 429])
async def test_a_host_that_fails_for_a_minute_is_waited_out(status: int, tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=status))
        saving = asyncio.create_task(download(picture_task(f"{server.base_url}/a"), tmp_path))
        await asyncio.sleep(60.0)
        server.usual = Act(say=http(PNG))

        assert [path.name for path in await saving] == ["t1.png"]
        assert len(server.received) < 30


@pytest.mark.parametrize("headers", [["Retry-After: 90"], ["Retry-After: Fri, 27 Nov 2026 05:31:30 GMT"]])
async def test_a_retry_after_is_kept(headers: list[str], tmp_path: Path) -> None:
    date = "Date: Fri, 27 Nov 2026 05:30:00 GMT"
    async with no_leaks(), strict_server() as server:
        server.play(Act(say=http(b"", *headers, date, status=429)), Act(say=http(PNG)))
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert 90.0 <= now() < 120.0
        assert len(server.received) == 2


async def test_a_retry_after_beyond_all_patience_is_said_at_once(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(b"", "Retry-After: 7200", status=503))) as server:
        with pytest.raises(DownloadError, match="asks to wait for 7200 s"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert now() < 1.0


async def test_a_host_that_fails_for_ever_is_given_up_after_minutes(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=503))
        with pytest.raises(DownloadError, match=r"HTTP 503.*It was tried \d+ times") as caught:
            await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert 200.0 < now() <= 301.0
        assert caught.value.status == 503
    assert files(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404])
async def test_a_link_that_is_not_known_everywhere_yet_gets_two_minutes(status: int, tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"<html>", status=status))
        saving = asyncio.create_task(download(task_that_ended(f"{server.base_url}/a", ago=10.0), tmp_path))
        await asyncio.sleep(80.0)
        server.usual = Act(say=http(PNG))

        assert len(await saving) == 1


@pytest.mark.parametrize("body", [b"", b"<!DOCTYPE html><html>not yet</html>"])
async def test_a_page_in_the_place_of_a_fresh_file_gets_two_minutes(body: bytes, tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(body))
        saving = asyncio.create_task(download(task_that_ended(f"{server.base_url}/a", ago=10.0), tmp_path))
        await asyncio.sleep(80.0)
        server.usual = Act(say=http(PNG))

        [path] = await saving
        assert path.read_bytes() == PNG


@pytest.mark.parametrize("status", [403, 404])
async def test_a_link_that_is_still_unknown_after_two_minutes_has_expired(
    status: int, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=status))
        with pytest.raises(DownloadError, match="has expired"):
            await download(task_that_ended(f"{server.base_url}/a", ago=30.0), tmp_path)

        assert 85.0 < now() < 130.0


@pytest.mark.parametrize(("status", "ago"), [(403, 125.0), (404, 86_400.0), (410, 1.0), (401, 1.0)])
async def test_a_link_of_an_older_task_or_one_that_is_gone_has_expired_at_once(
    status: int, ago: float, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=status))
        with pytest.raises(DownloadError, match="has expired"):
            await download(task_that_ended(f"{server.base_url}/a", ago), tmp_path)

        assert len(server.received) == 1


async def test_a_task_that_a_batch_saw_end_is_fresh_though_its_host_tells_no_time(tmp_path: Path) -> None:
    answer = (
        b'{"code": 200, "data": {"task_id": "t1", "status": "completed", "output": {"image_url": "%b/a"}}}'
    )
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(answer % server.base_url.encode()))
        server.by_path = {"/a": Act(say=http(b"", status=404))}
        async with PiAPI("key-of-tests", base_url=server.base_url) as piapi:
            request = CreateTask("flux", "txt2img", {"prompt": "x"})
            running = asyncio.create_task(BatchRunner(piapi, download=tmp_path).run([request]))
            await asyncio.sleep(60.0)
            server.by_path = {"/a": Act(say=http(PNG))}
            [outcome] = await running

    assert outcome.ok, outcome.error
    assert outcome.task is not None
    assert [file.saved_as for file in outcome.task.files] == [tmp_path / "t1.png"]


# -- resuming -----------------------------------------------------------------------------------------------------

_BEGUN = http(BIG, 'ETag: "v1"')[:600_000]
BREAKS: dict[str, Act] = {
    "reset": Act(
        say=_BEGUN, pause=1.0, then="reset"
    ),  # a pause, for the kernel forgets what was not read by then
    "closed": Act(say=_BEGUN, then="close"),
    "silent": Act(say=_BEGUN, then="stall"),
}


@pytest.mark.parametrize("how", BREAKS)
async def test_a_stream_that_breaks_is_resumed_where_it_broke(how: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(BREAKS[how]) as server:
        saving = asyncio.create_task(download(picture_task(f"{server.base_url}/a"), tmp_path))
        while len(server.received) < 1:
            await asyncio.sleep(0.1)
        server.usual = Act(say=lambda: _rest(server))
        [path] = await saving

        assert path.read_bytes() == BIG
        first, second = server.received
        assert "range" not in dict(first.headers)
        assert dict(second.headers)["if-range"] == '"v1"'
        assert int(re.findall(r"\d+", dict(second.headers)["range"])[0]) > 599_000
    assert files(tmp_path) == ["t1.png"]


def _rest(server: StrictServer) -> Iterator[bytes]:
    """Answer the last request's range."""
    start = int(re.findall(r"\d+", dict(server.received[-1].headers)["range"])[0])
    said = ranged(BIG, start, 'ETag: "v1"').say
    assert isinstance(said, bytes)
    yield said


async def test_a_validator_may_be_a_date(tmp_path: Path) -> None:
    date = "Fri, 27 Nov 2026 05:30:00 GMT"
    broken = Act(say=http(BIG, f"Last-Modified: {date}", 'ETag: W/"weak"')[:300_000], then="close")
    async with no_leaks(), strict_server(broken) as server:
        server.usual = Act(say=lambda: _rest(server))
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == BIG
        assert dict(server.received[1].headers)["if-range"] == date


async def test_another_version_is_begun_anew(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(BREAKS["closed"], Act(say=http(PNG, 'ETag: "v2"'))) as server:
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == PNG
        assert ranges(server)[0] is None
        assert ranges(server)[1] is not None


WRONG: dict[str, Any] = {
    "another start": http(BIG[5:], f"Content-Range: bytes 5-{len(BIG) - 1}/{len(BIG)}", status=206),
    "another size": http(b"x", "Content-Range: bytes 600000-600000/600001", status=206),
    "another version": http(b"x", f"Content-Range: bytes 0-0/{len(BIG)}", 'ETag: "v2"', status=206),
    "no range": http(BIG, status=206),
    "an end beyond the end": http(b"x", f"Content-Range: bytes 600000-{len(BIG)}/{len(BIG)}", status=206),
    "nonsense": http(BIG, "Content-Range: bytes */*", status=206),
    "refused": http(b"", f"Content-Range: bytes */{len(BIG)}", status=416),
}


@pytest.mark.parametrize("how", WRONG)
async def test_a_range_that_does_not_fit_is_not_believed(how: str, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(BREAKS["closed"], Act(say=WRONG[how], then="close")) as server:
        server.usual = Act(say=http(BIG))
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == BIG
        assert ranges(server)[2:] == [None]


@pytest.mark.parametrize("most", [100_000, 0])
async def test_a_server_that_sends_less_than_was_asked_for_is_asked_for_the_rest(
    most: int, tmp_path: Path
) -> None:
    def capped() -> Iterator[bytes]:
        start = int(re.findall(r"\d+", dict(server.received[-1].headers)["range"])[0])
        part = BIG[start : start + most]
        end = start + max(len(part), 1) - 1
        yield http(part, f"Content-Range: bytes {start}-{end}/{len(BIG)}", 'ETag: "v1"', status=206)

    async with no_leaks(), strict_server(BREAKS["closed"]) as server:
        server.usual = Act(say=capped, then="close")
        saving = asyncio.create_task(download(picture_task(f"{server.base_url}/a"), tmp_path))
        if most:
            [path] = await saving
            assert path.read_bytes() == BIG
        else:
            with pytest.raises(DownloadError, match=f"its server has sent [0-9]+ bytes of {len(BIG)}"):
                await saving
            assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("Last-Modified: Fri, 27 Nov 2026 05:30:00 GMT", "Last-Modified: Sat, 28 Nov 2026 05:30:00 GMT"),
        ("ETag: v1", "ETag: v2"),
    ],
)
async def test_the_rest_of_another_version_is_not_taken_for_this_ones(
    first: str, then: str, tmp_path: Path
) -> None:
    other = bytes(reversed(BIG))
    rest = http(other[600_000:], f"Content-Range: bytes 600000-{len(BIG) - 1}/{len(BIG)}", then, status=206)
    broken = Act(say=_cut_at(600_000, http(BIG, first)), then="close")
    async with no_leaks(), strict_server(broken, Act(say=rest)) as server:
        server.usual = Act(say=http(PNG, then))
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == PNG
        assert [True, False] == [each is None for each in ranges(server)[:2]]


def _cut_at(size: int, whole: bytes) -> bytes:
    """Return a response that breaks off after so many bytes of its body."""
    return whole[: whole.index(b"\r\n\r\n") + 4 + size]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ['ETag: W/"weak"'],
        ["ETag: v\t1\x7f"],
        ['ETag: "v1"', "Accept-Ranges: none"],
        ['ETag: "v1"', "Content-Encoding: identity"],
    ],
    ids=["no validator", "weak", "cannot be sent", "no ranges", "encoded"],
)
async def test_where_a_server_cannot_resume_the_file_is_begun_anew(
    headers: list[str], tmp_path: Path
) -> None:
    async with no_leaks(), strict_server(Act(say=http(BIG, *headers)[:600_000], then="close")) as server:
        server.usual = Act(say=http(BIG))
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == BIG
        assert ranges(server) == [None, None]


async def test_a_line_that_breaks_again_and_again_gets_there_as_long_as_it_gets_further(
    tmp_path: Path,
) -> None:
    def some() -> Iterator[bytes]:
        asked = dict(server.received[-1].headers).get("range")
        start = int(re.findall(r"\d+", asked)[0]) if asked else 0
        whole = ranged(BIG, start, 'ETag: "v1"').say if asked else http(BIG, 'ETag: "v1"')
        assert isinstance(whole, bytes)
        yield whole[:100_000]

    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=some, then="close")
        policy = RetryPolicy(attempts=3, total=20.0)
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path, retry=policy)

        assert path.read_bytes() == BIG
        assert len(server.received) > 9


async def test_a_server_that_always_breaks_at_the_same_byte_is_given_up(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(BIG)[:300_000], then="close")
        with pytest.raises(DownloadError, match="It was tried 5 times"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, retry=RetryPolicy(attempts=5))

    assert files(tmp_path) == []


# -- silence ------------------------------------------------------------------------------------------------------


def pieces(answer: bytes, size: int) -> Act:
    """Give an answer in pieces of a size."""
    return Act(say=lambda: (answer[start : start + size] for start in range(0, len(answer), size)))


async def test_a_file_that_keeps_coming_may_take_hours(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(evolve(pieces(http(PNG), 50), pause=59.0)) as server:
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert len(server.received) == 1
    assert path.read_bytes() == PNG
    assert now() > 3 * 3600.0


@pytest.mark.parametrize("said", [b"", http(BIG)[:1_000]], ids=["at once", "inside"])
async def test_a_minute_without_a_byte_is_enough(said: bytes, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=said, then="stall")) as server:
        with pytest.raises(DownloadError, match="no byte came for 60 s"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, retry=RetryPolicy.never())

        assert now() == pytest.approx(60.0, abs=1.5)


async def test_ten_videos_over_one_slow_line_are_all_saved(tmp_path: Path) -> None:
    """Each moves always, at a tenth of the line, for longer than two minutes."""
    async with no_leaks(), strict_server() as server:
        server.usual = evolve(pieces(http(BIG), 8192), pause=1.0)
        paths = await download(
            picture_task(*(f"{server.base_url}/{number}" for number in range(10))), tmp_path
        )

        assert len(server.received) == 10
    assert len(paths) == 10
    assert 120.0 < now() < 130.0


async def test_a_timeout_bounds_all_tries_of_a_file_together(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=503))
        with pytest.raises(DownloadError, match="HTTP 503"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, timeout=30.0)
        assert now() <= 30.0

        server.usual = Act(say=http(BIG)[:1000], then="stall")
        began = now()
        with pytest.raises(DownloadError, match="longer than 30 s"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, timeout=30.0)
        assert now() - began == pytest.approx(30.0, abs=0.2)


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("timeout", 0),
        ("timeout", math.nan),
        ("timeout", True),
        ("max_bytes", 0),
        ("max_bytes", 1.5),
        ("parallel", 0),
    ],
)
async def test_a_knob_that_makes_no_sense_is_refused(knob: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=knob):
        await download(picture_task("http://127.0.0.1:9/a"), tmp_path, **{knob: value})
