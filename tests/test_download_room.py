"""What files share: descriptors, disks, a folder that another process was killed in; what counts as saved."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.picture_tasks import PNG, files, picture_task
from support.processes import started
from support.serving import REROLL, no_leaks, now, serving
from support.strict_server import Act, StrictServer, http, strict_server

from piapi_async import BatchItem, BatchRunner, Ledger, RetryPolicy, download
from piapi_async.downloads import _disk, _place
from piapi_async.downloads._disk import (
    RESERVE,
    DiskFullError,
    PartFile,
    Room,
    _places_of,
    clear_partial,
    is_saved,
    places,
)
from piapi_async.downloads._folder import prepare_directory
from piapi_async.downloads._names import saved_files
from piapi_async.downloads._saver import Downloads
from piapi_async.downloads._session import FileSession
from piapi_async.errors import DownloadError

pytestmark = pytest.mark.looptime

MB = 2**20


def links(server: StrictServer, count: int) -> list[str]:
    return [f"{server.base_url}/{number}" for number in range(count)]


# -- descriptors --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process have no more than so many beside those that it has."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE,
        (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + count, before[1]),
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(("allowed", "expected"), [(16, 4), (256, 64), (100, 25), (1024, 64), (10**9, 64)])
def test_a_quarter_of_the_descriptors_may_be_files_under_way_and_no_more_than_64(
    allowed: int, expected: int
) -> None:
    assert _places_of(allowed) == expected


async def test_a_task_of_very_many_files_is_saved_with_few_descriptors(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        with descriptors(150):  # of which the server has as many as we
            paths = await download(picture_task(*links(server, 200)), tmp_path)

    assert len(paths) == 200
    assert len(files(tmp_path)) == 200


async def test_no_more_files_are_under_way_than_there_are_places(tmp_path: Path) -> None:
    most = 0

    def say() -> Iterator[bytes]:
        nonlocal most
        most = max(most, int(places().borrowed_tokens))
        yield http(PNG)

    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=say, wait=5.0)
        await download(picture_task(*links(server, 100)), tmp_path)

        assert most == 64
        assert now() == pytest.approx(10.0, abs=1.0)


async def test_fewer_files_may_be_wanted_at_a_time(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG), wait=5.0)
        await download(picture_task(*links(server, 9)), tmp_path, parallel=3)

        assert now() == pytest.approx(15.0, abs=1.0)


async def test_a_batch_has_its_files_at_a_time_over_all_tasks(tmp_path: Path) -> None:
    async with serving(durations=5.0, picture_size=32, latency={"image": 10.0}) as (_, piapi):
        runner = BatchRunner(piapi, download=tmp_path, parallel_files=2)
        outcomes = await runner.run([REROLL] * 2)

        assert [len(outcome.files) for outcome in outcomes] == [4, 4]
        assert now() > 40.0


async def test_a_file_that_waits_to_be_tried_again_gives_its_place_to_others(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(b"", status=503))
        server.by_path = {"/1": Act(say=http(PNG)), "/2": Act(say=http(PNG))}
        with pytest.raises(DownloadError):
            await download(picture_task(*links(server, 3)), tmp_path, parallel=1)

        lines = [received.line.split()[1] for received in server.received]
        assert lines.index("/2") < 3
    assert files(tmp_path) == ["t1-2.png", "t1-3.png"]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
async def test_a_file_that_cannot_be_opened_for_want_of_descriptors_is_tried_again(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = 3
    create = PartFile.create

    def fail_at_first(folder: Path, name: str) -> PartFile:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise OSError(number, os.strerror(number))
        return create(folder, name)

    prepare_directory(tmp_path)
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        session = Downloads(tmp_path, FileSession.make())
        monkeypatch.setattr(PartFile, "create", fail_at_first)
        monkeypatch.setattr(_place, "prepare_directory", lambda _: None)
        async with session:
            [file] = await session.save(picture_task(f"{server.base_url}/a"))

    assert file.saved_as == tmp_path / "t1.png"
    assert failing < 0


# -- disks --------------------------------------------------------------------------------------------------------


class TestRoom:
    def test_is_promised_to_one_and_so_not_to_another(self) -> None:
        one, other = Room(-1), Room(-1)
        one.claim(60 * MB, RESERVE + 100 * MB)
        with pytest.raises(DiskFullError) as caught:
            other.claim(50 * MB, RESERVE + 100 * MB)
        assert caught.value.others

        one.written(60 * MB)  # it is there now, and no longer free
        other.claim(40 * MB, RESERVE + 40 * MB)
        one.release()
        other.release()

    def test_of_another_disk_is_another_matter(self) -> None:
        one, other = Room(-1), Room(-2)
        one.claim(100 * MB, RESERVE + 100 * MB)
        other.claim(100 * MB, RESERVE + 100 * MB)
        one.release()
        other.release()

    def test_that_is_missing_without_others_is_missing_for_good(self) -> None:
        with pytest.raises(DiskFullError) as caught:
            Room(-1).claim(1, RESERVE)
        assert not caught.value.others

    def test_is_given_back_once(self) -> None:
        one, other = Room(-1), Room(-1)
        one.claim(10 * MB, RESERVE + 10 * MB)
        one.written(20 * MB)
        one.release()
        one.release()
        assert not other.others
        other.claim(10 * MB, RESERVE + 10 * MB)
        other.release()

    def test_for_a_file_of_unknown_length_is_claimed_step_by_step(self) -> None:
        room = Room(-1)
        assert room.step_for(MB) == 16 * MB
        assert room.step_for(20 * MB) == 20 * MB
        room.claim(16 * MB, RESERVE + 16 * MB)
        assert room.step_for(MB) == 0
        room.release()


async def test_a_file_waits_for_room_that_is_promised_to_others(tmp_path: Path) -> None:
    half = int(shutil.disk_usage(tmp_path).free * 0.45)
    large = http(PNG, length=half)

    def third() -> Iterator[bytes]:
        asked.append(now())
        yield large if len(asked) < 4 else http(PNG)

    asked: list[float] = []
    async with no_leaks(), strict_server() as server:
        server.by_path = {
            "/0": Act(say=large, pause=30.0, then="close"),
            "/1": Act(say=large, pause=30.0, then="close"),
            "/2": Act(say=third, wait=1.0, then="close"),
        }
        with pytest.raises(DownloadError):
            await download(
                picture_task(*links(server, 3)), tmp_path, retry=RetryPolicy.never(), max_bytes=2 * half
            )

    assert len(asked) == 4  # though it is tried once only
    assert files(tmp_path) == ["t1-3.png"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Make disks of a size; skip where that is not allowed."""
    made: list[Path] = []

    def make(size: int) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(command, capture_output=True, check=False).returncode
        ):
            pytest.skip("needs the right to mount")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607 - wherever it is


async def test_as_many_files_are_saved_as_have_room_and_the_reserve_stays(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(170 * MB)
    body = PNG + bytes(8 * MB - len(PNG))
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(body))
        with pytest.raises(DownloadError, match="the disk has") as caught:
            await download(picture_task(*links(server, 30)), folder)

    assert len(files(folder)) == len(caught.value.files) == 13
    assert RESERVE <= shutil.disk_usage(folder).free < RESERVE + 8 * MB


async def test_a_disk_that_somebody_else_fills_is_a_download_error_and_leaves_nothing(
    small_disk: Callable[[int], Path],
) -> None:
    folder = small_disk(80 * MB)

    def pieces() -> Iterator[bytes]:
        yield http(PNG, length=len(PNG) + 8 * MB)
        with (folder / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
            while True:
                other.write(bytes(MB))
        yield bytes(8 * MB)

    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=pieces, pause=1.0)  # the room is claimed before it is taken
        with pytest.raises(DownloadError, match=r"No space left|the disk has 0 bytes"):
            await download(picture_task(f"{server.base_url}/a"), folder)

    assert files(folder) == ["other"]


# -- what a dead process has left ---------------------------------------------------------------------------------

LEFT = ".t0-1.0123abcd.piapi-part"
CHILD = """
import sys, time
from pathlib import Path
from piapi_async.downloads._disk import PartFile
part = PartFile.create(Path(sys.argv[1]), "t9")
part.write(b"half")
print("ready", flush=True)
sys.stdin.read()
"""


async def test_partial_files_of_dead_processes_are_cleared_by_the_next_download(tmp_path: Path) -> None:
    for name in (LEFT, ".trial.0011223344556677.piapi-part", ".0011223344556677.piapi-part"):
        (tmp_path / name).write_bytes(b"half")
    for name in ("mine.part", ".mine.part", ".x.0123abcd.piapi-part.txt", ".backup.20251128.part"):
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".d.0123abcd.piapi-part").mkdir()
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

    assert files(tmp_path) == [
        ".backup.20251128.part",
        ".d.0123abcd.piapi-part",
        ".mine.part",
        ".x.0123abcd.piapi-part.txt",
        "mine.part",
        "t1.png",
    ]


def test_those_of_a_process_that_lives_stay_until_it_is_killed(tmp_path: Path) -> None:
    with started(sys.executable, "-c", CHILD, str(tmp_path)) as child:
        assert child.hear() == "ready\n"
        clear_partial(tmp_path)
        assert len(files(tmp_path)) == 1
    clear_partial(tmp_path)

    assert files(tmp_path) == []


def test_our_own_that_are_under_way_stay(tmp_path: Path) -> None:
    part = PartFile.create(tmp_path, "t1")
    clear_partial(tmp_path)
    assert len(files(tmp_path)) == 1
    part.discard()
    part.discard()

    assert files(tmp_path) == []


def test_a_folder_that_is_not_there_has_nothing_to_clear(tmp_path: Path) -> None:
    clear_partial(tmp_path / "nope")


# -- what is saved ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["directory", "empty", "fifo", "dangling"])
def test_what_is_no_file_with_something_in_it_is_not_saved(made: str, tmp_path: Path) -> None:
    path = tmp_path / "t1.png"
    if made == "directory":
        path.mkdir()
    elif made == "empty":
        path.touch()
    elif made == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("nowhere")

    assert not is_saved(path)
    assert saved_files(picture_task("http://h.test/a.png"), tmp_path) is None


def test_a_saved_file_is_found_under_the_suffix_of_its_link_or_any_known(tmp_path: Path) -> None:
    for suffix in (".unheard", ".webp", ".bin"):
        path = tmp_path / f"t1{suffix}"
        path.write_bytes(b"x")
        [found] = saved_files(picture_task("http://h.test/a.unheard?x=1"), tmp_path) or ()
        assert found.saved_as == path
        path.unlink()


@pytest.mark.parametrize("suffix", [".json", ".txt", ".zip", ".mp3", ".3mf", ".csv"])
def test_a_file_beside_a_picture_is_not_the_picture(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"t1{suffix}").write_bytes(b"my own notes")
    assert saved_files(picture_task("http://h.test/a.png"), tmp_path) is None


@pytest.mark.parametrize("spoil", ["directory", "empty", "gone"])
async def test_a_resumed_batch_saves_again_what_is_no_saved_picture(spoil: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, picture_size=32) as (
        emulator,
        piapi,
    ):
        items: list[Any] = [BatchItem(REROLL, "one")]
        [first] = await BatchRunner(piapi, download=folder).run(items)
        path = Path(first.files[1])
        path.unlink()
        if spoil == "empty":
            path.touch()
        elif spoil == "directory":
            path.mkdir()
        [second] = await BatchRunner(piapi, download=folder).run(items)

        assert emulator.seen.creates == 1
        if spoil == "directory":
            assert isinstance(second.download_error, DownloadError)
            assert not second.ok
        else:
            assert second.ok
            assert is_saved(path)


async def test_files_of_a_batch_that_are_there_are_not_asked_for_again(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, picture_size=32) as (
        emulator,
        piapi,
    ):
        items: list[Any] = [BatchItem(REROLL, "one")]
        [first] = await BatchRunner(piapi, download=folder).run(items)
        asked = emulator.seen.requests["image"]
        [second] = await BatchRunner(piapi, download=folder).run(items)

        assert emulator.seen.requests["image"] == asked
        assert second.files == first.files
        assert second.task is not None
        assert [file.saved_as for file in second.task.files if file.saved_as] == list(first.files)


async def test_a_saved_file_that_cannot_be_had_leaves_the_others_told(tmp_path: Path) -> None:
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        server.by_path = {"/1": Act(say=http(b"", status=410))}
        task = picture_task(*links(server, 3))
        with pytest.raises(DownloadError) as caught:
            await download(task, tmp_path)

    assert caught.value.files == (tmp_path / "t1-1.png", tmp_path / "t1-3.png")
    assert caught.value.task is task


@pytest.mark.storm
@pytest.mark.measured
async def test_a_large_video_takes_little_memory(tmp_path: Path) -> None:
    def body() -> Iterator[bytes]:
        yield http(PNG, length=len(PNG) + 200 * MB)
        for _ in range(200):
            yield bytes(MB)

    async with no_leaks(), strict_server(Act(say=body)) as server:
        tracemalloc.start()
        [path] = await download(picture_task(f"{server.base_url}/a"), tmp_path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert path.stat().st_size == len(PNG) + 200 * MB
    assert most < 16 * MB  # of which the server has some


# -- other systems ------------------------------------------------------------------------------------------------


async def test_on_a_system_without_locks_and_limits_files_are_saved_and_parts_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where a file that is open cannot be removed."""
    monkeypatch.setattr(_disk, "fcntl", None)
    monkeypatch.setattr(_disk, "resource", None)
    (tmp_path / LEFT).write_bytes(b"half")
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

        assert places().total_tokens == 64
    assert files(tmp_path) == ["t1.png"]


async def test_on_a_file_system_without_locks_files_are_saved_and_parts_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / LEFT).write_bytes(b"half")
    async with no_leaks(), strict_server(Act(say=http(PNG))) as server:
        await download(picture_task(f"{server.base_url}/a"), tmp_path)

    assert files(tmp_path) == [LEFT, "t1.png"]


def test_a_part_that_another_process_takes_for_a_dead_ones_is_made_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clear_first(file: Any, how: int) -> None:
        monkeypatch.undo()
        clear_partial(tmp_path)
        fcntl.flock(file, how)

    monkeypatch.setattr(fcntl, "flock", clear_first)
    part = PartFile.create(tmp_path, "t1")

    assert part.path.exists()
    part.discard()


async def test_a_bug_in_one_file_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(_place, "free_bytes", fail)
    async with no_leaks(), strict_server() as server:
        server.usual = Act(say=http(PNG))
        with pytest.raises(ZeroDivisionError):
            await download(picture_task(*links(server, 3)), tmp_path)

    assert files(tmp_path) == []
