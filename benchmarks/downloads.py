"""What saving files costs: pictures beside a bare aiohttp loop that writes the same files, and one long video.

    python -m benchmarks.downloads [--smoke] [--json FILE]

The files come over loopback from a process of its own, on a core of its own.  `download` and the bare loop take turns,
into a folder on a disk and into one in memory; a ratio is the median over the rounds.  The bare loop promises nothing:
it neither checks what it gets nor waits for the disk, and while it writes nothing else runs.  What loops cost that
write in threads, or wait for the disk, file by file, stands beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from attrs import asdict, frozen

from piapi_async import Task, download
from piapi_async._http import HTTPResponse
from piapi_async.midjourney import Fetch
from piapi_async.tasks import TaskId

from ._goals import Goal, goals_table
from ._slices import Slice, Spread, cpu, ratios, wall
from ._table import short, table

PICTURES = 64
PICTURE, VIDEO = 2 * 1024 * 1024, 200 * 1024 * 1024
"""Bytes of a file."""

GOAL_SPEED = 0.8
"""Of the bare loop's megabytes per second."""

GOAL_BESIDE_DURABLE = 1.0
"""Of the megabytes per second of a bare loop that waits for the disk, as `download` does."""

GOAL_MEMORY = 8 * 1024 * 1024
"""Bytes in memory that a video may take, however long it is."""

_MEGABYTE = 1_000_000
_DISK, _MEMORY = "on disk", "in memory"
_BARE, _OURS = "bare aiohttp", "piapi_async"
_THREADED, _DURABLE = "bare aiohttp, writing in threads", "bare aiohttp, fsync"

Way = Callable[[str, int, Path], Awaitable[object]]
"""Saves so many pictures of a host in a folder."""


# -- the host -------------------------------------------------------------------------------------------------------


async def _serve(core: int | None) -> None:
    if core is not None:
        os.sched_setaffinity(0, {core})
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        async with asyncio.TaskGroup() as group:
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                group.create_task(_answer(connection))


async def _answer(connection: socket.socket) -> None:
    """Answer every GET with a file; the last part of its path is the file's size.

    Sockets instead of a transport, which would copy what is left of a file whenever a piece was sent.
    """
    loop = asyncio.get_running_loop()
    with connection, contextlib.suppress(ConnectionError):
        while request := await loop.sock_recv(connection, 64 * 1024):
            size = int(request.split(b" ", 2)[1].rpartition(b"-")[2])
            head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % size
            await loop.sock_sendall(connection, head)
            await loop.sock_sendall(connection, _content(size))


@cache
def _content(size: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + os.urandom(size - 8)


@contextlib.contextmanager
def _host() -> Iterator[str]:
    """Give the base URL of a host in a process of its own, on the last core if there are several."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    words = [sys.executable, "-m", "benchmarks.downloads", "--serve"]
    if len(cores) > 1:
        words += ["--core", str(cores[-1])]
        os.sched_setaffinity(0, set(cores[:-1]))
    root = Path(__file__).parents[1]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root)  # noqa: S603 - this very module
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()
        if len(cores) > 1:
            os.sched_setaffinity(0, set(cores))


# -- the ways -------------------------------------------------------------------------------------------------------


async def bare(
    base_url: str, count: int, folder: Path, *, durable: bool = False, threaded: bool = False
) -> None:
    """Save pictures as the aiohttp documentation does, all at once.

    `durable` makes sure that each is on the disk; `threaded` keeps the event loop free while they are written.
    """

    async def save(session: aiohttp.ClientSession, number: int) -> None:
        path = folder / f"{number}.png"
        async with session.get(f"{base_url}/{number}-{PICTURE}") as response:
            with path.open("wb") as file:
                async for chunk in response.content.iter_chunked(256 * 1024):
                    if threaded:
                        await asyncio.to_thread(file.write, chunk)
                    else:
                        file.write(chunk)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(save(session, number) for number in range(count)))


async def ours(base_url: str, count: int, folder: Path) -> None:
    """Save the pictures of one task."""
    paths = await download(_task([f"{base_url}/{number}-{PICTURE}" for number in range(count)]), folder)
    if len(paths) != count:
        raise RuntimeError(f"{len(paths)} files were saved of {count}")


def _task(links: list[str]) -> Task[Any]:
    answer = {"task_id": "t1", "status": "finished", "task_result": {"temporary_image_urls": links}}
    return Fetch(TaskId("t1")).parse(HTTPResponse(200, orjson.dumps(answer)))


WAYS: dict[str, Way] = {
    _BARE: bare,
    _THREADED: partial(bare, threaded=True),
    _DURABLE: partial(bare, durable=True),
    _OURS: ours,
}


# -- measuring ------------------------------------------------------------------------------------------------------


@frozen
class Row:
    """One line of the table: a way to save pictures in a place, per megabyte, and its pace beside the bare loop's."""

    place: str
    way: str
    rate: Spread
    millis: Spread
    pace: Spread
    cost: Spread

    def cells(self) -> list[str]:
        """Give the line's texts."""
        figures = [short(self.rate.median), short(self.millis.median), str(self.pace), str(self.cost)]
        return [f"{self.way}, {self.place}", *figures]


def _paces(rows: list[Row], place: str) -> dict[str, float]:
    return {row.way: row.pace.median for row in rows if row.place == place}


def beside_bare(rows: list[Row], place: str, count: int) -> Goal:
    """Hold our speed in a place against a bare loop's, which promises nothing."""
    paces = _paces(rows, place)
    why = (
        f"a bare loop that writes in threads, so that no disk holds the event loop up, is itself at "
        f"{short(paces[_THREADED])}, and one that makes sure of its files at {short(paces[_DURABLE])}"
    )
    return Goal(
        f"speed of saving {count} pictures of 2 MB {place}, of bare aiohttp's",
        short(paces[_OURS]),
        f">= {GOAL_SPEED}",
        paces[_OURS] >= GOAL_SPEED,
        why=why,
    )


def beside_durable(rows: list[Row], count: int) -> Goal:
    """Hold our speed on a disk against that of a bare loop which promises as much of the disk."""
    paces = _paces(rows, _DISK)
    pace = paces[_OURS] / paces[_DURABLE]
    return Goal(
        f"speed of saving {count} pictures of 2 MB {_DISK}, of bare aiohttp's with fsync",
        short(pace),
        f">= {GOAL_BESIDE_DURABLE:g}",
        pace >= GOAL_BESIDE_DURABLE,
    )


def places() -> dict[str, Path]:
    """Give where files can be saved here: a folder on a disk and, on Linux, one in memory."""
    found = {_DISK: Path(tempfile.gettempdir())}
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    if os.access(memory, os.W_OK):
        found[_MEMORY] = memory
    return found


async def _take_turns(base_url: str, root: Path, *, count: int, rounds: int) -> dict[str, list[Slice]]:
    """Let all ways save pictures by turns; a first turn warms up."""
    slices: dict[str, list[Slice]] = {name: [] for name in WAYS}
    for number in range(rounds + 1):
        for name in list(WAYS)[:: -1 if number % 2 else 1]:
            turn = await _turn(partial(WAYS[name], base_url, count), root)
            if number:
                slices[name].append(turn)
    return slices


async def _turn(save: Callable[[Path], Awaitable[object]], root: Path) -> Slice:
    # In a folder of its own: to replace files would be another thing to measure.
    with tempfile.TemporaryDirectory(dir=root) as folder:
        gc.collect()
        began, spent = time.perf_counter(), time.process_time()
        await save(Path(folder))
        return Slice(time.process_time() - spent, time.perf_counter() - began)


def pictures(base_url: str, place: str, root: Path, *, count: int, rounds: int) -> list[Row]:
    """Give what all ways cost in a place."""
    slices = asyncio.run(_take_turns(base_url, root, count=count, rounds=rounds))
    size = count * PICTURE / _MEGABYTE
    base = slices[_BARE]
    return [
        Row(
            place,
            name,
            Spread.of([size / turn.wall for turn in turns]),
            Spread.of([1000 * turn.cpu / size for turn in turns]),
            ratios(base, turns, wall),
            ratios(turns, base, cpu),
        )
        for name, turns in slices.items()
    ]


def video(base_url: str, size: int, root: Path) -> tuple[int, int]:
    """Save a long file; give the bytes that it took at most, as allocated and as resident."""
    with tempfile.TemporaryDirectory(dir=root) as folder:
        asyncio.run(ours(base_url, 1, Path(folder)))  # so that everything is imported
        resident = _peak_resident()
        tracemalloc.start()
        asyncio.run(_save_one(f"{base_url}/0-{size}", Path(folder)))
        return tracemalloc.get_traced_memory()[1], _peak_resident() - resident


async def _save_one(link: str, folder: Path) -> None:
    await download(_task([link]), folder)


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(*, smoke: bool = False, json_path: Path | None = None) -> None:
    """Print the tables."""
    count, rounds, size = (8, 2, 16 * 1024 * 1024) if smoke else (PICTURES, 9, VIDEO)
    with _host() as base_url:
        rows = [
            row
            for place, root in places().items()
            for row in pictures(base_url, place, root, count=count, rounds=rounds)
        ]
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            allocated, resident = pool.submit(video, base_url, size, places()[_DISK]).result()

    columns = ("pictures of 2 MB", "MB/s", "ms of CPU per MB", "speed", "CPU")
    print(table(f"downloads: {count} at once", columns, [row.cells() for row in rows]), end="\n\n")
    goals = [beside_bare(rows, place, count) for place in places()]
    goals.append(beside_durable(rows, count))
    goals.append(
        Goal(
            f"bytes in memory of a video of {size // 1024**2} MB",
            f"{allocated:,} ({resident:,} resident)",
            f"<= {GOAL_MEMORY:,}",
            allocated <= GOAL_MEMORY,
        )
    )
    print(goals_table("goals", goals), end="\n\n")

    if json_path is not None:
        found = {
            "goals": [asdict(goal) for goal in goals],
            "pictures": [asdict(row) for row in rows],
            "video": {"bytes": size, "allocated": allocated, "resident": resident},
        }
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What saving files costs.")
    parser.add_argument("--smoke", action="store_true", help="fewer files")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        asyncio.run(_serve(given.core))
    else:
        main(smoke=given.smoke, json_path=given.json)
