"""Files saved at URLs: fsspec's local and memory file systems, and a real object store on a socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import fsspec
import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer
from support.picture_tasks import PNG, files, picture_task
from support.serving import REROLL, serving
from support.strict_server import Act, http, strict_server
from support.threaded_emulator import threaded_emulator

from piapi_async import BatchRunner, Ledger, PiAPI, PollPolicy, RetryPolicy, download, read
from piapi_async.batch import BatchItem
from piapi_async.cli import _session, cli
from piapi_async.downloads._options import DownloadOptions
from piapi_async.downloads._saver import Downloads
from piapi_async.downloads._session import FileSession
from piapi_async.downloads._sink import Sink, _is_refused
from piapi_async.errors import DownloadError

BIG = PNG + bytes(12 * 2**20)  # two parts of an upload
ONCE = RetryPolicy.never()
POLLED: dict[str, Any] = {"poll": PollPolicy.every(0.01)}  # real seconds pass here


class Store(Protocol):
    """A sink under test: its URL, and all that is in it."""

    url: str

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...


class FileSystem:
    """A folder of one of fsspec's file systems."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.root = fsspec.core.url_to_fs(url)

    def names(self) -> list[str]:
        self.fs.invalidate_cache()
        if not self.fs.exists(self.root):
            return []
        return sorted(str(name).rsplit("/", 1)[-1] for name in self.fs.ls(self.root, detail=False))

    def read(self, name: str) -> bytes:
        data: bytes = self.fs.cat_file(f"{self.root}/{name}")
        return data

    def uploads(self) -> list[Any]:
        """Return the uploads that were begun and neither completed nor aborted."""
        return self.fs.call_s3("list_multipart_uploads", Bucket=self.root.split("/")[0]).get("Uploads", [])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def object_store() -> Iterator[None]:
    """Serve S3 on a port of this machine, and let every client of S3 find it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(fsspec.config.conf)
    fsspec.config.conf["s3"] = {
        "endpoint_url": f"http://{host}:{port}",
        "key": "testing",
        "secret": "testing",
    }
    try:
        yield
    finally:
        fsspec.config.conf.clear()
        fsspec.config.conf.update(before)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    if request.param == "file":
        return FileSystem(f"file://{tmp_path}/sink/run")
    if request.param == "memory":
        return FileSystem(f"memory://{uuid4().hex}/run")
    request.getfixturevalue("object_store")
    found = FileSystem(f"s3://bucket-{uuid4().hex}/run")
    found.fs.mkdir(found.root.split("/")[0])
    return found


async def test_a_file_is_streamed_to_a_sink_under_the_name_that_it_has_on_a_disk(store: FileSystem) -> None:
    async with strict_server(Act(say=http(BIG)), Act(say=http(PNG))) as server:
        task = picture_task(f"{server.base_url}/a", f"{server.base_url}/b")
        saved = await download(task, f"{store.url}/", parallel=1)

    assert [f"{store.url}/t1-1.png", f"{store.url}/t1-2.png"] == saved
    assert ["t1-1.png", "t1-2.png"] == store.names()
    assert (BIG, PNG) == (store.read("t1-1.png"), store.read("t1-2.png"))


async def test_what_breaks_off_or_is_an_error_page_leaves_nothing(store: FileSystem) -> None:
    cut_off = Act(say=http(BIG, length=len(BIG) + 5), then="close")
    page = Act(say=http(b"<html>expired" + bytes(100_000), "Content-Type: text/html"))
    async with strict_server(cut_off, page) as server:
        for path in ("cut-off", "page"):
            with pytest.raises(DownloadError) as caught:
                await download(picture_task(f"{server.base_url}/{path}"), store.url, retry=ONCE)
            assert caught.value.path == store.url
            assert "stays paid for" in str(caught.value)

    assert [] == store.names()
    if not store.url.startswith("s3:"):  # whose older file of that name is untouched, too
        store.fs.pipe_file(f"{store.root}/t1.png", b"older")
        async with strict_server(cut_off) as server:
            with pytest.raises(DownloadError):
                await download(picture_task(f"{server.base_url}/cut-off"), store.url, retry=ONCE)
        assert b"older" == store.read("t1.png")
        assert ["t1.png"] == store.names()
    if store.url.startswith("s3:"):
        assert [] == store.uploads()


async def test_a_broken_stream_is_resumed_into_the_same_upload(store: FileSystem) -> None:
    first = http(BIG[: 9 * 2**20], 'ETag: "1"', length=len(BIG))
    rest = http(BIG[9 * 2**20 :], f"Content-Range: bytes {9 * 2**20}-{len(BIG) - 1}/{len(BIG)}", status=206)
    async with strict_server(Act(say=first, then="close"), Act(say=rest)) as server:
        task = picture_task(f"{server.base_url}/a")
        await download(task, store.url, retry=RetryPolicy(initial=0.001))

        assert f"bytes={9 * 2**20}-" == dict(server.received[1].headers)["range"]
    assert BIG == store.read("t1.png")
    assert ["t1.png"] == store.names()


async def test_a_batch_saves_at_a_url_and_saves_nothing_twice(store: FileSystem, tmp_path: Path) -> None:
    settings = {"ledger": Ledger(tmp_path / "run.db")}
    async with serving(POLLED | settings, durations=0.01, picture_size=32) as (emulator, piapi):
        items: list[Any] = [BatchItem(REROLL, "one")]
        [first] = await BatchRunner(piapi, download=store.url).run(items)
        asked = emulator.seen.requests["image"]
        [second] = await BatchRunner(piapi, download=store.url).run(items)

        assert first.ok, first.error
        assert (4, asked) == (len(first.files), emulator.seen.requests["image"])
        assert first.files == second.files
        assert [str(path).rpartition("/")[2] for path in first.files] == store.names()


async def test_a_sink_that_cannot_be_written_to_is_told_before_anything_is_paid_for(
    object_store: None,
) -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(DownloadError, match=r"(?s)cannot be written to: .*\. Nothing was submitted\.$"):
            await BatchRunner(piapi, download="s3://NO_such_bucket!/run").run([REROLL])

        assert 0 == emulator.seen.creates


async def test_a_sink_that_fails_is_tried_again_and_then_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileSystem(f"memory://{uuid4().hex}/run")
    opened = type(store.fs)._open
    failing = 2

    def fail_at_first(self: Any, *args: Any, **options: Any) -> Any:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise RuntimeError("a hiccup")
        return opened(self, *args, **options)

    monkeypatch.setattr(type(store.fs), "_open", fail_at_first)
    async with strict_server() as server:
        server.usual = Act(say=http(PNG))
        task = picture_task(f"{server.base_url}/a")
        with pytest.raises(DownloadError, match="a hiccup"):
            await download(task, store.url, retry=ONCE)
        assert [f"{store.url}/t1.png"] == await download(task, store.url, retry=RetryPolicy(initial=0.001))


async def test_a_store_that_refuses_is_told_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Azure's driver does for a container that is not there."""
    store = FileSystem(f"memory://{uuid4().hex}/run")

    class AzureError(Exception):
        status_code = 404

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to upload") from AzureError()

    monkeypatch.setattr(type(store.fs), "_open", refuse)
    async with strict_server() as server:
        server.usual = Act(say=http(PNG))
        with pytest.raises(DownloadError, match="Failed to upload"):
            await download(picture_task(f"{server.base_url}/a"), store.url)
        assert 1 == len(server.received)


def test_the_first_status_of_a_stores_error_decides() -> None:
    class StoreError(Exception):
        def __init__(self, status_code: int) -> None:
            self.status_code = status_code

    unavailable = StoreError(503)
    unavailable.__cause__ = StoreError(404)
    circular = RuntimeError("a")
    circular.__cause__ = RuntimeError("b")
    circular.__cause__.__cause__ = circular

    assert [_is_refused(error) for error in (StoreError(404), unavailable, circular)] == [True, False, False]


async def test_a_sink_whose_folder_is_a_file_is_told_and_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    async with strict_server() as server:
        server.usual = Act(say=http(PNG))
        task = picture_task(f"{server.base_url}/a")
        with pytest.raises(DownloadError, match=r"cannot be made: .* stays paid for"):
            await download(task, f"file://{tmp_path}/file/run")

        sink = Sink.at(f"file://{tmp_path}/run")
        (tmp_path / "run").mkdir()
        sink.begin()
        (tmp_path / "run").rmdir()
        async with Downloads(sink, FileSession.make()) as downloads:
            sink._made = True
            with pytest.raises(DownloadError, match="No such file"):
                await downloads.save(task)
        assert sink.saved("t1.png") is None
        assert len(server.received) == 1


async def test_a_fresh_link_that_first_leads_to_a_page_is_asked_again(store: FileSystem) -> None:
    page = Act(say=http(b"<html>not yet" + bytes(100_000), "Content-Type: text/html"))
    async with strict_server(page, Act(say=http(PNG))) as server:
        options = DownloadOptions(retry=RetryPolicy(initial=0.001))
        async with Downloads(Sink.at(store.url), FileSession.make(), options) as downloads:
            [file] = await downloads.save(picture_task(f"{server.base_url}/a"), just_ended=True)

    assert (f"{store.url}/t1.png", ["t1.png"]) == (file.saved_as, store.names())


def test_a_password_in_a_url_is_in_no_text() -> None:
    assert "memory://me@host/x" == Sink.at("memory://me:secret@host/x/").url
    with pytest.raises(ValueError, match="not allowed") as caught:
        Sink.at("nosuch://me:secret@host/x")
    assert "secret" not in str(caught.value)


async def test_without_the_extra_a_url_is_refused_when_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.setitem(sys.modules, name, None)

    async with PiAPI("key") as piapi:
        with pytest.raises(ValueError, match=r"URLs need fsspec: pip install 'piapi_async\[fsspec\]'"):
            BatchRunner(piapi, download="s3://bucket/run")


def test_the_command_saves_at_a_url_and_skips_what_a_row_says_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_session, "PiAPI", partial(PiAPI, **POLLED))
    url = f"file://{tmp_path}/sink"
    Path("in.jsonl").write_text('{"verb": "flux/txt2img", "prompt": "a"}')
    with threaded_emulator() as (emulator, base_url):
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        words = ["batch", "in.jsonl", "--ledger", "l.db", "--out", "out.jsonl", "--download", url]
        first = CliRunner().invoke(cli, words)
        fetched = sum(emulator.seen.requests.values())
        second = CliRunner().invoke(cli, words)

        assert (0, 0) == (first.exit_code, second.exit_code), first.stderr
        assert fetched == sum(emulator.seen.requests.values())
    assert "1 in the results already" in second.stderr
    [file] = json.loads(Path("out.jsonl").read_text())["files"]
    assert file["saved_as"].startswith(f"{url}/")
    assert [file["saved_as"].rpartition("/")[2]] == files(tmp_path / "sink")


# -- grids, and files in memory ---------------------------------------------------------------------


async def test_a_grid_is_saved_as_one_picture_and_read_into_memory(tmp_path: Path) -> None:
    async with serving(POLLED, durations=0.01, picture_size=32) as (_, piapi):
        task = await piapi.run(REROLL, timeout=60)
        four = await read(task)
        [whole] = await download(task, tmp_path, grid=True)
        [picture] = await read(task, grid=True)
        [outcome] = await BatchRunner(piapi, download=tmp_path / "batch", grid=True).run([REROLL])

    assert 4 == len(set(four))
    assert (f"{task.task_id}.png", picture) == (whole.name, whole.read_bytes())
    assert picture not in four
    assert [1] == [len(outcome.files)]


async def test_a_grid_without_a_picture_of_its_own_keeps_its_quadrants() -> None:
    async with strict_server() as server:
        server.usual = Act(say=http(PNG))
        task = picture_task(*[f"{server.base_url}/{number}" for number in (1, 2, 3, 4)])

        assert [PNG] * 4 == await read(task, grid=True)


async def test_what_is_read_into_memory_is_checked_as_what_is_saved() -> None:
    async with strict_server(
        Act(say=http(b"<html>gone", "Content-Type: text/html")), Act(say=http(BIG))
    ) as server:
        with pytest.raises(DownloadError, match="web page"):
            await read(picture_task(f"{server.base_url}/a"), retry=ONCE)
        with pytest.raises(DownloadError, match="limit"):
            await read(picture_task(f"{server.base_url}/a"), retry=ONCE, max_bytes=1000)


async def test_a_sink_of_a_client_that_runs_one_request(store: FileSystem) -> None:
    async with serving(POLLED, durations=0.01, picture_size=32) as (_, piapi):
        task = await piapi.run(REROLL, timeout=60, download=store.url)

    saved = [str(file.saved_as) for file in task.files if file.saved_as]
    assert store.names() == [path.rpartition("/")[2] for path in saved]
    assert isinstance(task.files[0].saved_as, str)
