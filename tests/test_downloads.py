from __future__ import annotations

import asyncio
import gzip
import io
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from support.families import FamilyCase
from support.picture_tasks import PNG, files, picture_task
from support.processes import PATIENCE
from support.serving import KEY, no_leaks, now, serving, turns
from support.strict_server import Act, free_port, http, strict_server

from piapi_async import UNIFIED, CreateTask, FileRole, Reroll, RetryPolicy, Task, download
from piapi_async._calls.transport import USER_AGENT
from piapi_async._protocol.signatures import suffix_of
from piapi_async.downloads._disk import PartFile
from piapi_async.downloads._names import paths_of, safe_stem, saved_files
from piapi_async.downloads._saver import Downloads
from piapi_async.downloads._session import FileSession
from piapi_async.errors import DownloadError
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

ONCE = RetryPolicy.never()
HEADS = {
    ".png": PNG,
    ".jpg": b"\xff\xd8\xff\xe0" + bytes(100),
    ".webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(100),
    ".gif": b"GIF89a" + bytes(100),
    ".avif": b"\x00\x00\x00\x20ftypavif" + bytes(100),
}


async def refused(directory: Path, *urls: str, retry: RetryPolicy = ONCE, **options: Any) -> DownloadError:
    """Give the error of a download that must fail, and must leave nothing."""
    with pytest.raises(DownloadError) as caught:
        await download(picture_task(*urls), directory, retry=retry, **options)
    assert files(directory) == []
    assert "stays paid for" in str(caught.value)
    return caught.value


# -- names --------------------------------------------------------------------------------------------------------


async def test_a_single_picture_is_named_for_its_task(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        paths = await download(picture_task(f"{server.base_url}/x/evil.exe?a=1"), tmp_path)

        assert server.received[0].line == "GET /x/evil.exe?a=1 HTTP/1.1"
    assert paths == [tmp_path / "t1.png"]
    assert paths[0].read_bytes() == PNG
    assert files(tmp_path) == ["t1.png"]


async def test_the_pictures_of_a_grid_are_named_for_their_quadrants_and_given_in_order(
    tmp_path: Path,
) -> None:
    bodies = {f"/{number}": PNG + bytes([number]) for number in (1, 2, 3, 4)}
    async with no_leaks(), strict_server() as server:
        server.by_path = {
            path: Act(say=http(body), wait=5.0 - int(path[1:])) for path, body in bodies.items()
        }
        paths = await download(picture_task(*[server.base_url + path for path in bodies]), tmp_path)

    assert [path.name for path in paths] == ["t1-1.png", "t1-2.png", "t1-3.png", "t1-4.png"]
    assert [path.read_bytes() for path in paths] == list(bodies.values())


@pytest.mark.parametrize("suffix", HEADS)
async def test_the_suffix_is_that_of_what_the_file_holds(suffix: str, tmp_path: Path) -> None:
    async with strict_server(Act(say=http(HEADS[suffix], "Content-Type: text/html"))) as server:
        (path,) = await download(picture_task(f"{server.base_url}/a.bmp"), tmp_path)

    assert path.name == f"t1{suffix}"


@pytest.mark.parametrize(
    ("task_id", "stem"),
    [
        ("../../etc/passwd", "_etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("..", "_"),
        (".hidden", "_hidden"),
        ("a\\..\\b", "a_b"),
        ("C:\\x", "C_x"),
        ("a\0b", "a_b"),
        ("a b\n", "a_b_"),
        ("日本", "_"),
        ("", ""),
        ("6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d", "6886fc4d-11b4-4bbe-9f2c-1f0e7b1b8a2d"),
        ("x" * 5000, "x" * 100),
        ("-rf", "-rf"),
        ("~root", "_root"),
        ("$(reboot)", "_reboot_"),
    ],
)
def test_no_task_id_leads_out_of_the_directory(task_id: str, stem: str) -> None:
    found = safe_stem(task_id)

    assert (
        found == stem if stem and task_id == stem else re.fullmatch(re.escape(stem) + "-[0-9a-f]{8}", found)
    )


def test_two_task_ids_never_share_a_name() -> None:
    ids = ["a/b", "a_b", "a:b", "x" * 101, "x" * 102, "", "_"]

    assert len({safe_stem(task_id) for task_id in ids}) == len(ids)


async def test_a_hosts_id_with_a_path_in_it_stays_in_the_directory(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    async with strict_server(Act(say=http(PNG))) as server:
        (path,) = await download(picture_task(f"{server.base_url}/a", task_id="../../etc/passwd"), inner)

    assert path.parent == inner
    assert path.name.startswith("_etc_passwd-")
    assert files(tmp_path) == ["inner"]


@pytest.mark.parametrize("head", [b"", b"<html>", b"\x89PNG", b"GIF90a", b"{}", b"\0" * 16, b"BM"])
def test_what_is_no_picture_has_no_suffix(head: bytes) -> None:
    assert suffix_of(head) == ""


async def test_the_directory_is_made_and_may_be_a_text(tmp_path: Path) -> None:
    async with strict_server(Act(say=http(PNG))) as server:
        (path,) = await download(picture_task(f"{server.base_url}/a"), str(tmp_path / "a" / "b"))

    assert path == tmp_path / "a" / "b" / "t1.png"


async def test_an_older_file_of_that_name_is_replaced_only_by_a_whole_one(tmp_path: Path) -> None:
    (tmp_path / "t1.png").write_bytes(b"old")
    async with (
        no_leaks(),
        strict_server(Act(say=http(PNG, length=10**6), then="close"), Act(say=http(PNG))) as server,
    ):
        task = picture_task(f"{server.base_url}/a")
        with pytest.raises(DownloadError):
            await download(task, tmp_path, retry=ONCE)
        assert (tmp_path / "t1.png").read_bytes() == b"old"

        await download(task, tmp_path)

    assert (tmp_path / "t1.png").read_bytes() == PNG
    assert files(tmp_path) == ["t1.png"]


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["processing", "failed", "cancelled"])
async def test_a_task_without_pictures_has_nothing_to_save(status: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=status):
        await download(picture_task("", status=status), tmp_path / "x")

    assert files(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_an_expired_link_says_so_and_is_not_asked_for_again(status: int, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(b"<html>gone", status=status))) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", retry=RetryPolicy())

        assert "expired" in str(error)
        assert error.status == status
        assert error.url == f"{server.base_url}/a"
        assert len(server.received) == 1


@pytest.mark.parametrize(
    "body",
    [b"<html>not found</html>", b"", b"{}"],
    ids=["html", "empty", "json"],
)
async def test_what_is_no_picture_is_not_saved_whatever_it_claims(body: bytes, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(body, "Content-Type: image/png"))) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", retry=RetryPolicy())

        assert "no picture" in str(error)
        assert len(server.received) == 1


BROKEN = {
    "a short body": Act(say=http(PNG, length=len(PNG) + 1), then="close"),
    "a reset body": Act(say=http(PNG, length=len(PNG) + 1), then="reset"),
    "a short chunk": Act(say=http(b"ffff\r\n" + PNG, "Transfer-Encoding: chunked"), then="close"),
    "no end of chunks": Act(
        say=http(b"%x\r\n%b\r\n" % (len(PNG), PNG), "Transfer-Encoding: chunked"), then="close"
    ),
    "no answer": Act(then="close"),
    "no HTTP": Act(say=b"SSH-2.0\r\n", then="close"),
    "bad gzip": Act(say=http(PNG, "Content-Encoding: gzip")),
    "408": Act(say=http(b"", status=408)),
    "429": Act(say=http(b"", status=429)),
    "500": Act(say=http(b"", status=500)),
    "503": Act(say=http(PNG, status=503)),
    "silence": Act(then="stall"),
    "silence inside": Act(say=http(PNG, length=10**6), then="stall"),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_failure_that_may_pass_leaves_nothing_and_another_try_mends_it(
    what: str, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server(BROKEN[what]) as server:
        await refused(tmp_path, f"{server.base_url}/a", timeout=9.0)
        assert len(server.received) <= 2  # aiohttp itself repeats a GET that got no answer at all

        server.play(BROKEN[what], BROKEN[what], Act(say=http(PNG)))
        (path,) = await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert path.read_bytes() == PNG
        assert server.acts == []
    assert files(tmp_path) == ["t1.png"]


async def test_tries_are_bounded(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=503))
        await refused(tmp_path, f"{server.base_url}/a", retry=RetryPolicy(attempts=4))

        assert len(server.received) == 4


@pytest.mark.parametrize("status", [201, 206, 304, 400, 451])
async def test_any_other_status_is_no_picture_and_not_asked_for_again(status: int, tmp_path: Path) -> None:
    body = b"" if status == 304 else PNG
    async with no_leaks(), strict_server(Act(say=http(body, status=status))) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", retry=RetryPolicy())

        assert error.status == status
        assert len(server.received) == 1


async def test_a_host_that_is_not_there_is_a_download_error(tmp_path: Path) -> None:
    error = await refused(tmp_path, f"http://127.0.0.1:{free_port()}/a")

    assert isinstance(error.__cause__, aiohttp.ClientConnectorError)


async def test_the_timeout_bounds_one_file_to_the_tick(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG, length=10**6), then="stall")) as server:
        began = now()
        await refused(tmp_path, f"{server.base_url}/a", timeout=7.3)

        assert now() - began == pytest.approx(7.3, abs=0.2)  # threads take their real time


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/a.png",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "//127.0.0.1/a.png",
        "a.png",
        "http://",
        "http://[bad",
        "http://h:999999/",
        "http://a..b/",
        "http://\ud800/",
        f"http://{'a' * 300}/",
        "http://127.0.0.1:1\0/",
        "http://127.0.0.1:port/",
        "javascript:alert(1)",
    ],
)
async def test_a_link_that_is_none_is_a_download_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        await download(with_image(url), tmp_path, retry=ONCE)

    assert files(tmp_path) == []


def with_image(url: str) -> Task[Any]:
    """Give a task with a link that no JSON could carry."""
    return attrs.evolve(picture_task("http://x"), images=(url,))


# -- size and space -----------------------------------------------------------------------------------------------


async def test_a_picture_that_announces_too_much_is_not_read(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield http(PNG, length=200 * 2**20)
        for _ in range(200 * 16):
            yield bytes(65536)

    async with no_leaks(), strict_server(Act(say=pieces)) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", max_bytes=2**20, retry=RetryPolicy())

        assert "limit" in str(error)
        assert server.written < 32 * 2**20
        assert len(server.received) == 1


async def test_a_picture_that_goes_on_and_on_is_not_read_on(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield http(b"%x\r\n%b\r\n" % (len(PNG), PNG), "Transfer-Encoding: chunked")
        for _ in range(200 * 16):
            yield b"10000\r\n" + bytes(65536) + b"\r\n"

    async with no_leaks(), strict_server(Act(say=pieces)) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", max_bytes=2**20, retry=RetryPolicy())

        assert "limit" in str(error)
        assert server.written < 32 * 2**20
        assert len(server.received) == 1


async def test_a_small_packed_picture_that_is_huge_unpacked_is_not_saved(tmp_path: Path) -> None:
    bomb = gzip.compress(PNG + bytes(64 * 2**20))
    async with no_leaks(), strict_server(Act(say=http(bomb, "Content-Encoding: gzip"))) as server:
        await refused(tmp_path, f"{server.base_url}/a", max_bytes=2**20)


@pytest.mark.parametrize("extra", [0, 1])
async def test_the_limit_is_exact(extra: int, tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        if extra:
            await refused(tmp_path, f"{server.base_url}/a", max_bytes=len(PNG) - 1)
        else:
            assert await download(picture_task(f"{server.base_url}/a"), tmp_path, max_bytes=len(PNG))


async def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    act = Act(say=http(PNG, length=free + 2**40), then="stall")
    async with no_leaks(), strict_server(act) as server:
        error = await refused(tmp_path, f"{server.base_url}/a", max_bytes=free + 2**41)

        assert "disk" in str(error)


async def test_a_directory_that_is_a_file_is_a_download_error(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"x")
    async with strict_server() as server:
        for directory in (tmp_path / "taken", tmp_path / "taken" / "deeper"):
            with pytest.raises(DownloadError, match=r"is not a directory|cannot be used") as caught:
                await download(picture_task(f"{server.base_url}/a"), directory)
            assert caught.value.path == directory

        assert server.connections == 0


async def test_a_name_that_is_taken_by_a_directory_is_a_download_error(tmp_path: Path) -> None:
    (tmp_path / "t1.png").mkdir()
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        with pytest.raises(DownloadError, match="cannot be written"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert len(server.received) == 1
    assert files(tmp_path) == ["t1.png"]


async def test_a_directory_that_vanishes_under_a_download_is_a_download_error(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    async with no_leaks(), strict_server(Act(wait=5.0, say=http(PNG))) as server:
        saving = asyncio.create_task(download(picture_task(f"{server.base_url}/a"), directory))
        await asyncio.sleep(1.0)
        directory.rmdir()

        with pytest.raises(DownloadError, match="cannot be written"):
            await saving


async def test_a_directory_that_cannot_be_made_is_a_download_error() -> None:
    async with strict_server() as server:
        with pytest.raises(DownloadError, match="cannot be used"):
            await download(picture_task(f"{server.base_url}/a"), "/proc/piapi_async")  # not even by root

        assert server.connections == 0


# -- several ------------------------------------------------------------------------------------------------------


async def test_one_picture_that_cannot_be_had_does_not_cost_the_others(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        gone = f"http://127.0.0.1:{free_port()}/2"
        urls = [f"{server.base_url}/1", gone, f"{server.base_url}/3"]
        with pytest.raises(DownloadError) as caught:
            await download(picture_task(*urls), tmp_path, retry=ONCE)

    assert caught.value.url == gone
    assert files(tmp_path) == ["t1-1.png", "t1-3.png"]


async def test_a_link_that_is_none_does_not_cost_the_others(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        urls = ["http://[bad", f"{server.base_url}/2"]
        with pytest.raises(DownloadError) as caught:
            await download(picture_task(*urls), tmp_path, retry=ONCE)

    assert caught.value.url == urls[0]
    assert files(tmp_path) == ["t1-2.png"]


# -- who is told what ---------------------------------------------------------------------------------------------


async def test_no_api_key_and_no_cookie_go_to_an_image_host(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_debug(enabled=True)
    async with strict_server(Act(say=http(PNG, "Set-Cookie: a=1"))) as images, serving() as (_, piapi):
        await (await piapi.submit(Reroll("x", prompt="y"))).wait()
        for _ in range(2):
            images.play(Act(say=http(PNG)))
            await download(picture_task(f"{images.base_url}/a"), tmp_path)

        for received in images.received:
            headers = dict(received.headers)
            assert KEY.encode() not in received.raw
            assert {"x-api-key", "cookie", "authorization"}.isdisjoint(headers)
            assert headers["user-agent"] == USER_AGENT
    assert everything_logged.records
    assert KEY not in everything_logged.text


async def test_a_redirect_is_followed_to_the_picture(tmp_path: Path) -> None:
    async with no_leaks(), strict_server(Act(say=http(PNG))) as store:
        moved = Act(say=http(b"", f"Location: {store.base_url}/real", status=302))
        async with strict_server(moved) as server:
            await download(picture_task(f"{server.base_url}/a"), tmp_path)

    assert files(tmp_path) == ["t1.png"]


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/a", "http://[bad", "http://a..b/"]
)
async def test_a_redirect_to_what_is_no_link_is_a_download_error(location: str, tmp_path: Path) -> None:
    moved = Act(say=http(b"", f"Location: {location}", status=302))
    async with no_leaks(), strict_server(moved) as server:
        await refused(tmp_path, f"{server.base_url}/a")


async def test_redirects_in_a_circle_end(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", "Location: /a", status=302))
        await refused(tmp_path, f"{server.base_url}/a")

        assert len(server.received) <= 7


async def test_a_users_session_is_used_and_not_closed(tmp_path: Path) -> None:
    async with (
        strict_server(Act(say=http(PNG))) as server,
        aiohttp.ClientSession(headers={"X-Mine": "1"}, raise_for_status=True) as session,
    ):
        await download(picture_task(f"{server.base_url}/a"), tmp_path, session=session)

        assert dict(server.received[0].headers)["x-mine"] == "1"
        assert not session.closed
        server.play(Act(say=http(b"", status=404)))
        with pytest.raises(DownloadError, match="expired"):
            await download(picture_task(f"{server.base_url}/a"), tmp_path, session=session)


async def test_a_users_session_that_is_closed_is_a_download_error(tmp_path: Path) -> None:
    session = aiohttp.ClientSession()
    await session.close()

    with pytest.raises(DownloadError):
        await download(
            picture_task("http://127.0.0.1:9/a", "http://127.0.0.1:9/b"), tmp_path, session=session
        )


# -- from the service ---------------------------------------------------------------------------------------------


async def test_a_rerolls_pictures_are_saved_and_copies_and_the_whole_grid_on_request(
    case: FamilyCase, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"durations": 5.0, "picture_size": 32}
    async with no_leaks(), serving({}, **options) as (emulator, piapi):
        task = await (await piapi.submit(case.reroll("x", prompt="a cute cat"))).wait()

        paths = await download(task, tmp_path / "results")
        everything = await download(task, tmp_path / "all", all_files=True)
        [whole] = await download(task, tmp_path / "grid", grid=True)
        both = await download(task, tmp_path / "both", grid=True, all_files=True)

        assert emulator.seen.keys_to_images == 0
    assert [path.name for path in paths] == [f"{task.task_id}-{number}.png" for number in (1, 2, 3, 4)]
    assert len({path.read_bytes() for path in paths}) == 4
    assert len(everything) == len(task.files) > 4
    assert {file.role for file in task.files[4:]} == {FileRole.COPY}
    assert whole.name == both[0].name == f"{task.task_id}.png"
    assert len(both) == len(everything) - 4  # the grid is not one of its own copies
    assert whole.read_bytes() in {path.read_bytes() for path in everything[4:]}


async def test_links_that_have_expired_can_be_read_again_but_stay_expired(
    case: FamilyCase, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"durations": 5.0, "links_expire_after": 60.0, "expired_status": 403}
    async with no_leaks(), serving({}, **options) as (_, piapi):
        task = await (await piapi.submit(case.reroll("x", prompt="a cute cat"))).wait()
        await asyncio.sleep(100.0)

        with pytest.raises(DownloadError, match="expired") as caught:
            await download(task, tmp_path)

    assert caught.value.status == 403
    assert files(tmp_path) == []


# -- cancelled between two threads --------------------------------------------------------------------------------


class Lagging(ThreadPoolExecutor):
    """Does the work at once and tells of it 20 turns later, so that whoever asked can be cancelled in between."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        loop = asyncio.get_running_loop()
        done: Future[Any] = Future()
        done.set_running_or_notify_cancel()
        try:
            tell = partial(done.set_result, fn(*args, **kwargs))
        except OSError as error:
            tell = partial(done.set_exception, error)

        def later(left: int) -> None:
            if left:
                loop.call_soon(later, left - 1)
            else:
                tell()

        later(20)
        return done


@pytest.mark.parametrize("after", range(0, 175, 7))
async def test_a_download_cancelled_while_a_thread_works_for_it_leaves_no_partial_file(
    after: int, tmp_path: Path
) -> None:
    asyncio.get_running_loop().set_default_executor(Lagging())
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        saving = asyncio.create_task(download(picture_task(f"{server.base_url}/a"), tmp_path))
        await turns(after)
        saving.cancel()
        await asyncio.gather(saving, return_exceptions=True)
        await turns(200)

    assert files(tmp_path) in ([], ["t1.png"])
    assert all((tmp_path / name).read_bytes() == PNG for name in files(tmp_path))


class SlowFile(io.BytesIO):
    """A file that is discarded in another thread while it is written, and tells in which order that was."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.part = PartFile(path, self)
        self.done: list[str] = []
        self.begun = threading.Event()
        self.discarding = threading.Thread(target=self.discard)

    def discard(self) -> None:
        self.begun.set()
        self.part.discard()

    def write(self, data: Any) -> int:
        self.discarding.start()
        self.begun.wait(PATIENCE)
        for _ in range(1000):  # the other thread goes as far as it can
            os.sched_yield()
        self.done.append("written")
        return len(data)

    def fileno(self) -> int:
        raise OSError

    def close(self) -> None:
        self.done.append("closed")


def test_a_file_is_not_closed_while_a_thread_writes_it(tmp_path: Path) -> None:
    file = SlowFile(tmp_path / "a.part")
    file.part.write(PNG)
    file.discarding.join(PATIENCE)

    assert file.done == ["written", "closed"]


# -- files of every kind ------------------------------------------------------------------------------------------

LINK = "https://h.test/in"
PROMPT = {"prompt": "a cat"}
GRID = ["-1.png", "-2.png", "-3.png", "-4.png", "-copy-1.png", "-copy-2.png"]
MADE: dict[str, tuple[CreateTask, list[str]]] = {
    "pictures": (
        CreateTask("Qubico/flux1-dev", "txt2img", {**PROMPT, "batch_size": 2}),
        ["-1.png", "-2.png"],
    ),
    "video": (CreateTask("kling", "video_generation", PROMPT), [".mp4", "-watermarked.mp4", "-cover.png"]),
    "sound": (
        CreateTask("Qubico/tts", "zero-shot", {"gen_text": "hi", "ref_audio": f"{LINK}.wav"}),
        [".wav"],
    ),
    "model": (
        CreateTask("Qubico/trellis", "image-to-3d", {"image": f"{LINK}.png"}),
        ["-1.glb", "-2.mp4", "-3.png"],
    ),
    "grid": (CreateTask("midjourney", "imagine", PROMPT), GRID),
}


@pytest.mark.parametrize("kind", MADE)
async def test_files_of_every_kind_are_saved_under_what_they_hold(kind: str, tmp_path: Path) -> None:
    request, suffixes = MADE[kind]
    async with serving(picture_size=32) as (emulator, piapi):
        task = await (await piapi.submit(request)).wait()
        paths = await download(task, tmp_path, all_files=True)

        assert [path.name.removeprefix(task.task_id) for path in paths] == suffixes
        assert all(path.suffix == suffix_of(path.read_bytes()) for path in paths)
        assert paths_of(saved_files(task, tmp_path, all_files=True) or ()) == paths
        assert emulator.seen.keys_to_images == 0


NOUNS = {"image_url": "picture", "video_url": "video", "audio_url": "sound", "model_file": "model"}


@pytest.mark.parametrize("name", NOUNS)
async def test_a_page_in_place_of_a_file_of_any_kind_is_refused_by_its_kind(
    name: str, tmp_path: Path
) -> None:
    async with no_leaks(), strict_server(Act(say=http(b"<!doctype html><html>sorry</html>"))) as server:
        answer = {"status": "completed", "output": {name: f"{server.base_url}/a.mp4"}}
        task = UNIFIED.read(answer, TaskId("t1"))
        with pytest.raises(DownloadError, match=f"A {NOUNS[name]} of task t1 .*no {NOUNS[name]}; it begins"):
            await download(task, tmp_path, retry=ONCE)

    assert files(tmp_path) == []


async def test_whoever_leaves_while_connections_are_closed_leaves_none(tmp_path: Path) -> None:
    session = FileSession.make("127.0.0.1")
    connector = session._connector.inner
    closing = asyncio.ensure_future(Downloads(tmp_path, session).close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    assert connector.closed
