"""A long run through every fault: whether anything gets lost or is paid twice, and whether anything grows.

    python -m benchmarks.soak [--seconds N] [--in-flight N] [--json FILE]      20 minutes unless told otherwise

Two clients, one polling and one with webhooks, each with a ledger, are used in every way at once; the emulator, in a
process of its own, serves them with all of its faults.  At the end its books are held against the ledgers: for each
intent at most one task was made, and each task that was made is in a ledger, under its id or as unknown.  Whatever was
opened is closed by then, and resident memory has stayed level.  Exits with 1 if not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import itertools
import logging
import os
import socket
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import orjson
from aiohttp import web
from attrs import asdict, define, field, frozen

from piapi_async import Ledger, PiAPI, PollPolicy, WebhookReceiver
from piapi_async.ledger import LedgerState

from ._goals import Goal, goals_table
from ._soak_host import KEY, SPEED, TIMEOUT
from ._soak_life import PATIENCE, Numbers, Users

MINUTES = 20
SMOKE_SECONDS = 5.0
LINES = 20
"""About so many lines are printed of any run."""
IN_FLIGHT = 200

GOAL_SLOPE = 0.5
"""MB per minute by which resident memory may grow."""

_JUDGED_FROM = (
    600.0  # seconds; shorter runs only fill what is bounded, such as the deliveries that are remembered
)
_SETTLE = 0.5  # seconds in which the loop closes what was closed
_ADOPT = 5.0  # seconds for which a lost answer's delivery is waited for

COLUMNS = (
    "seconds",
    "intents",
    "per s",
    "waiting",
    "requests per s",
    "MB",
    "files",
    "tasks",
    "unknown",
    "refused",
)


@frozen
class Sample:
    """What the process was like at one moment."""

    seconds: float
    intents: int
    waiting: int
    requests: int
    resident: float
    files: int
    tasks: int
    unknown: int
    refused: int

    def cells(self, before: Sample) -> list[str]:
        """Give the line's texts."""
        passed = max(self.seconds - before.seconds, 1e-9)
        rates = [(self.intents - before.intents) / passed, (self.requests - before.requests) / passed]
        numbers = (self.files, self.tasks, self.unknown, self.refused)
        return [
            f"{self.seconds:.0f}",
            f"{self.intents:,}",
            f"{rates[0]:.0f}",
            f"{self.waiting:,}",
            f"{rates[1]:.0f}",
            f"{self.resident:.1f}",
            *(f"{number:,}" for number in numbers),
        ]


@define(eq=False)
class Soak:
    """One run: its clients, what was heard, and what the process was like meanwhile."""

    numbers: Numbers = field(factory=Numbers)
    outcomes: Counter[str] = field(factory=Counter)
    broken: list[str] = field(factory=list)
    samples: list[Sample] = field(factory=list)
    left: Counter[str] = field(factory=Counter)
    """What was still there when everything had been closed."""
    begun: float = field(factory=time.perf_counter)

    def sample(self, clients: Sequence[PiAPI]) -> Sample:
        """Note what the process is like now."""
        stats = [client.stats for client in clients]
        found = Sample(
            time.perf_counter() - self.begun,
            self.numbers.given,
            sum(each.waiting for each in stats),
            sum(sum(each.requests.values()) for each in stats),
            _resident(),
            open_files(),
            len(asyncio.all_tasks()),
            self.outcomes["unknown"],
            self.outcomes["refused"],
        )
        self.samples.append(found)
        return found

    def slope(self) -> float | None:
        """Give by how many MB per minute memory has grown after the first third; None for a short run."""
        if not self.samples or self.samples[-1].seconds < _JUDGED_FROM:
            return None
        taken = [each for each in self.samples if each.seconds >= self.samples[-1].seconds / 3]
        mean_x = sum(each.seconds for each in taken) / len(taken)
        mean_y = sum(each.resident for each in taken) / len(taken)
        across = sum((each.seconds - mean_x) * (each.resident - mean_y) for each in taken)
        return 60 * across / sum((each.seconds - mean_x) ** 2 for each in taken)


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 2**20


def open_files() -> int:
    """Give the number of open file descriptors."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a path per descriptor is of no use


# -- the run ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def host_process() -> AsyncIterator[tuple[Process, str]]:
    """Give the host's process, and its base URL."""
    words = (sys.executable, "-m", "benchmarks._soak_host")
    root = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, limit=2**30, cwd=root)
    assert process.stdout is not None  # noqa: S101 - a pipe, as asked
    try:
        base_url = (await process.stdout.readline()).decode().strip()
        if not base_url:  # a client without a base URL would speak to the real host
            raise RuntimeError("the host did not start")
        yield process, base_url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _books(process: Process) -> dict[str, Any]:
    """Have the host close its books, and give them."""
    found, _ = await process.communicate(b"")  # nothing to say, and the end of the input
    books: dict[str, Any] = orjson.loads(found)
    return books


@asynccontextmanager
async def two_clients(base_url: str, folder: Path) -> AsyncIterator[list[PiAPI]]:
    """Give a client that polls and one that has webhooks, each with a ledger in the folder."""

    def client(name: str) -> PiAPI:
        poll = PollPolicy().at_speed(SPEED)
        return PiAPI(KEY, base_url=base_url, timeout=TIMEOUT, poll=poll, ledger=Ledger(folder / f"{name}.db"))

    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    async with client("polling") as polling, client("hooked") as hooked:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/piapi"
        receiver = WebhookReceiver(hooked, secret="soaked", url=url, adopt_timeout=_ADOPT)  # noqa: S106 - made up
        app = web.Application()
        app.add_routes(receiver.routes())
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        yield [polling, hooked]
        await asyncio.gather(polling.close(), hooked.close())
        await runner.cleanup()


async def run(soak: Soak, base_url: str, folder: Path, *, seconds: float, in_flight: int) -> None:
    """Use two clients for so many seconds, and close them."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: soak.broken.append(f"asyncio complains: {context}"))
    stop = asyncio.Event()
    before = Counter(files=open_files(), tasks=len(asyncio.all_tasks()))
    async with two_clients(base_url, folder) as clients:
        users = [
            Users(clients[number % 2], soak.numbers, Random(number), soak.outcomes, soak.broken)  # noqa: S311
            for number in range(in_flight)
        ]
        using = [asyncio.create_task(each.use(stop)) for each in users]
        watching = asyncio.create_task(_watch(soak, clients, seconds))
        await asyncio.sleep(seconds)
        stop.set()
        watching.cancel()
        _, late = await asyncio.wait(using, timeout=2 * PATIENCE)
        for task in late:
            soak.broken.append(f"still busy: {task.get_stack()}")
            task.cancel()
        soak.left["waits and submits"] = sum(each.stats.waiting + each.stats.submitting for each in clients)
    await asyncio.sleep(_SETTLE)
    soak.left["tasks"] = len(asyncio.all_tasks()) - before["tasks"]
    soak.left["files"] = open_files() - before["files"]


async def _watch(soak: Soak, clients: Sequence[PiAPI], seconds: float) -> None:
    """Look at the process each second, and tell of it now and then."""
    every = max(1, round(seconds / LINES))
    widths = [max(len(column), 7) for column in COLUMNS]
    print("  ".join(column.rjust(width) for column, width in zip(COLUMNS, widths, strict=True)))
    told = soak.sample(clients)
    for second in itertools.count(1):
        await asyncio.sleep(1.0)
        gc.collect()
        found = soak.sample(clients)
        if second % every == 0:
            cells = zip(found.cells(told), widths, strict=True)
            print("  ".join(cell.rjust(width) for cell, width in cells), flush=True)
            told = found


# -- judging ------------------------------------------------------------------------------------------------------


@frozen
class Account:
    """The host's books against the ledgers."""

    tasks: int
    intents: int
    doubled: tuple[int, ...]
    """Intents for which more than one task was made."""
    lost: tuple[int, ...]
    """Intents whose task is not in the ledger: neither by its id nor as unknown."""
    imagined: tuple[int, ...]
    """Intents for which the ledger has an id that is none of the host's."""
    states: Mapping[str, int]


async def settle_accounts(made: Mapping[str, Sequence[str]], ledgers: Sequence[Path]) -> Account:
    """Hold the host's books against the ledgers."""
    left = {int(number): list(ids) for number, ids in made.items()}
    doubled = tuple(number for number, ids in left.items() if len(ids) > 1)
    tasks, imagined, states = sum(map(len, left.values())), [], Counter[str]()
    for path in ledgers:
        ledger = Ledger(path)
        async for entry in ledger:
            number = int(entry.key.rpartition("-")[2])
            ids = left.pop(number, [])
            states[entry.outcome or entry.state.value] += 1
            known = entry.state is LedgerState.UNKNOWN if entry.task_id is None else entry.task_id in ids
            if not known:
                imagined.append(number)
        await ledger.close()
    return Account(tasks, len(made), doubled, tuple(left), tuple(imagined), states)


def goals(soak: Soak, account: Account) -> list[Goal]:
    """Hold what was found against what is promised."""
    slope = soak.slope()
    return [
        _none("tasks made twice for one intent", account.doubled, f"of {account.tasks:,} tasks"),
        _none("tasks made and not in the ledger", account.lost, f"of {account.tasks:,} tasks"),
        _none("tasks in the ledger that nobody made", account.imagined),
        _none(f"waits that did not end within {PATIENCE:g} s", range(soak.outcomes["late"])),
        _none("errors that should never be seen", soak.broken),
        *(_none(f"{what} left after the end", range(abs(left))) for what, left in soak.left.items()),
        Goal(
            "growth of resident memory",
            "too short a run" if slope is None else f"{slope:.2f} MB per minute",
            f"<= {GOAL_SLOPE:g}",
            None if slope is None else slope <= GOAL_SLOPE,
        ),
    ]


def _none(what: str, found: Sequence[object], of: str = "") -> Goal:
    why = ", ".join(str(each) for each in found[:5])
    return Goal(what, f"{len(found)} {of}".strip(), "0", not found, why=why)


async def soak_through(seconds: float, in_flight: int) -> tuple[Soak, Account, dict[str, Any]]:
    """Do all of it."""
    soak = Soak()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with host_process() as (process, base_url):
            await run(soak, base_url, folder, seconds=seconds, in_flight=in_flight)
            books = await _books(process)
        account = await settle_accounts(books.pop("made"), sorted(folder.glob("*.db")))
    return soak, account, books


def main(
    *,
    smoke: bool = False,
    json_path: Path | None = None,
    seconds: float | None = None,
    in_flight: int = IN_FLIGHT,
) -> None:
    """Print what was seen; `SystemExit` when anything was lost, doubled or leaks."""
    # What a client warns of here is what is done to it.
    logging.getLogger("piapi_async").setLevel(logging.CRITICAL)
    seconds = seconds or (SMOKE_SECONDS if smoke else MINUTES * 60.0)
    soak, account, books = asyncio.run(soak_through(seconds, in_flight))
    print(f"\nheard: {_counts(soak.outcomes)}\nin the ledgers: {_counts(account.states)}")
    print(f"requests: {_counts(books['requests'])}\nfaults: {_counts(books['faults'])}\n")
    judged = goals(soak, account)
    print(goals_table(f"soak, {seconds:g} s, {in_flight} in flight", judged), end="\n\n")
    if json_path is not None:
        found = {
            "goals": [asdict(goal) for goal in judged],
            "samples": [asdict(sample) for sample in soak.samples],
            "account": asdict(account),
            "outcomes": soak.outcomes,
            **books,
        }
        json_path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    if any(goal.met is False for goal in judged):
        sys.exit(1)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A long run through every fault.")
    parser.add_argument("--smoke", action="store_true", help=f"{SMOKE_SECONDS:g} seconds")
    parser.add_argument("--seconds", type=float, help=f"how long; {MINUTES} minutes unless told otherwise")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="how many users there are")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    main(smoke=given.smoke, json_path=given.json, seconds=given.seconds, in_flight=given.in_flight)
