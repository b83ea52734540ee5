"""Processes that are killed, at every edge of a submit, and processes that race: what is paid, and what is known.

The children are forked from a process that has imported everything and does nothing else, so each costs milliseconds
(nor is their coverage measured, since it would die with them).  They arrange their own end: the ledger's file and the
session's traces are subclassed here, not the package's code.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.families import CASES, FamilyCase
from support.processes import Child, becomes_true
from support.threaded_emulator import unmeasured

from piapi_async import Ledger, LedgerError, PiAPI, PollPolicy, SubmissionUnknown, TaskRef
from piapi_async.emulator import Drop, Emulator, Status
from piapi_async.ledger import LedgerState
from piapi_async.ledger._entries import NOTHING_KEPT, EndedAttempt, Kept, LedgerEntry, SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._recovery import SentAs, Taken
from piapi_async.ledger._store import LedgerStore, Operation

KEY = "emulator-key"


# -- what happens in a child --------------------------------------------------------------------------------------


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DeadlyStore(LedgerStore):
    """A store that ends its process at an edge."""

    edge: str
    commits = 0

    def _at(self, edge: str) -> None:
        if self.edge == edge:
            die()

    def commit(self, operations: Sequence[Operation]) -> list[Any]:
        self.commits += 1
        self._at(f"before commit {self.commits}")
        results = super().commit(operations)
        self._at(f"after commit {self.commits}")
        return results

    def claim(
        self,
        connection: sqlite3.Connection,
        identity: SubmissionKey,
        sent_as: SentAs | None = None,
        kept: Kept = NOTHING_KEPT,
        replaces: EndedAttempt | None = None,
        *,
        is_gone: Callable[[], bool] = bool,
    ) -> LedgerEntry | None:
        entry = super().claim(connection, identity, sent_as, kept, replaces, is_gone=is_gone)
        self._at("in the claim's transaction")
        return entry

    def accept(self, connection: sqlite3.Connection, identity: SubmissionKey, task_id: str) -> Taken | None:
        taken = super().accept(connection, identity, task_id)
        self._at("in the accept's transaction")
        return taken

    def end(self, connection: sqlite3.Connection, ref: TaskRef, outcome: str, answer: bytes) -> None:
        super().end(connection, ref, outcome, answer)
        self._at("in the end's transaction")


def traces(edge: str) -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    signals: dict[str, Any] = {
        "before the POST": config.on_request_start,
        "connected": config.on_connection_create_end,
        "as the POST begins": config.on_request_chunk_sent,
        "after the POST has left": config.on_request_chunk_sent,
        "after the answer": config.on_request_end,
    }

    async def strike(*_: object) -> None:
        if edge == "after the POST has left":
            asyncio.get_running_loop().call_soon(die)  # aiohttp tells of a chunk, then writes it, in one turn
        else:
            die()

    if edge in signals:
        signals[edge].append(strike)
    return config


async def submit_all(orders: dict[str, Any]) -> dict[str, str]:
    """Submit each key once and wait for its task; give, by key, the task's id or what was raised."""
    ledger = Ledger(orders["path"])
    edge = orders.get("edge", "")
    writer_of(ledger)._store = store = DeadlyStore(Path(ledger))
    store.edge = edge
    case = CASES[orders.get("family", "legacy")]
    options: dict[str, Any] = {"base_url": orders["url"], "poll": PollPolicy.every(0.01), "ledger": ledger}
    outcomes: dict[str, str] = {}

    async def one(piapi: PiAPI, key: str) -> None:
        try:
            handle = await piapi.submit(case.reroll(key), key=key)
        except SubmissionUnknown:
            outcomes[key] = "unknown"
        except LedgerError as error:
            outcomes[key] = str(error)
        else:
            outcomes[key] = handle.task_id
            if orders.get("wait", True):
                await handle.wait()

    async with (
        aiohttp.ClientSession(trace_configs=[traces(edge)]) as session,
        PiAPI(KEY, session=session, **options) as piapi,
    ):
        await asyncio.gather(*(one(piapi, key) for key in orders["keys"]))
    return outcomes


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def zygote() -> None:
    """Fork a child for each line of orders, and say what became of it."""
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as out:
                json.dump(asyncio.run(submit_all(json.loads(line))), out)
            os._exit(0)
        os.close(write)
        say({"pid": child})
        with os.fdopen(read) as told:
            said = told.read()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        say({"killed": killed, "outcomes": json.loads(said or "{}")})


# -- and outside --------------------------------------------------------------------------------------------------


class Zygote:
    """The process that children are forked from."""

    def __init__(self) -> None:
        self._child = Child(sys.executable, __file__, env=unmeasured())

    async def start(self, **orders: Any) -> int:
        """Start a child and give its process id."""
        self._child.tell(json.dumps(orders, default=str))
        pid: int = (await self._hear())["pid"]
        return pid

    async def finish(self) -> dict[str, Any]:
        """Wait for the child's end."""
        return await self._hear()

    async def run(self, **orders: Any) -> dict[str, Any]:
        await self.start(**orders)
        return await self.finish()

    async def _hear(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(await asyncio.to_thread(self._child.hear))
        return said

    def close(self) -> None:
        self._child.kill()


@pytest.fixture(scope="module")
def zygotes() -> Iterator[tuple[Zygote, Zygote]]:
    with closing(Zygote()) as one, closing(Zygote()) as other:
        yield one, other


@asynccontextmanager
async def host(**options: Any) -> AsyncIterator[tuple[Emulator, str]]:
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=0.01, **options)
    async with emulator.run() as url:
        yield emulator, url


def tasks_of(emulator: Emulator) -> dict[str, str]:
    """The tasks that were made, by parent."""
    return {task.origin: task_id for task_id, task in emulator.engine.tasks.items() if task.origin}


async def entries_of(path: Path) -> dict[str, LedgerEntry]:
    ledger = Ledger(path)
    entries = {entry.key: entry async for entry in ledger}
    await ledger.close()
    return entries


NOTHING, UNKNOWN, ACCEPTED, ENDED = None, LedgerState.UNKNOWN, LedgerState.ACCEPTED, LedgerState.ENDED

# Each edge, how many tasks were made by then, and what the ledger knows afterwards.
EDGES = {
    "before commit 1": (0, NOTHING),
    "in the claim's transaction": (0, NOTHING),
    "after commit 1": (0, UNKNOWN),
    "before the POST": (0, UNKNOWN),
    "connected": (0, UNKNOWN),
    "as the POST begins": (0, UNKNOWN),
    "after the POST has left": (1, UNKNOWN),
    "after the answer": (1, UNKNOWN),
    "before commit 2": (1, UNKNOWN),
    "in the accept's transaction": (1, UNKNOWN),
    "after commit 2": (1, ACCEPTED),
    "before commit 3": (1, ACCEPTED),
    "in the end's transaction": (1, ACCEPTED),
    "after commit 3": (1, ACCEPTED),  # it asked how long tasks took before
    "before commit 4": (1, ACCEPTED),
    "after commit 4": (1, ENDED),
}


@pytest.mark.storm
@pytest.mark.parametrize("edge", EDGES)
async def test_a_process_killed_at_any_edge_has_paid_once_and_its_successor_does_not_pay_again(
    edge: str, case: FamilyCase, zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    path, (made, state) = tmp_path / "run.db", EDGES[edge]
    async with host() as (emulator, url):
        orders = {"path": path, "url": url, "keys": ["k"], "family": case}
        end = await zygotes[0].run(**orders, edge=edge)
        await becomes_true(lambda: emulator.seen.creates >= made)  # it may still be reading
        assert end["killed"]

        entries = await entries_of(path)
        assert ({} if state is None else {"k": state}) == {key: entry.state for key, entry in entries.items()}

        again = await zygotes[1].run(**orders)
        has_history = case.family.trace is not None
        if state is UNKNOWN and not (made and has_history):
            assert {"k": "unknown"} == again["outcomes"]
        else:
            assert tasks_of(emulator) == again["outcomes"]
        assert max(made, int(state is None)) == emulator.seen.creates


@pytest.mark.storm
@pytest.mark.parametrize("commit", range(1, 7))
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_busy_process_killed_at_its_nth_commit_is_continued_without_a_duplicate(
    side: str, commit: int, zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    path, keys = tmp_path / "run.db", [f"k{number}" for number in range(8)]
    async with host() as (emulator, url):
        await zygotes[0].run(path=path, url=url, keys=keys, edge=f"{side} commit {commit}")
        before = await entries_of(path)
        again = await zygotes[1].run(path=path, url=url, keys=keys)
        made = emulator.seen.creates_by_parent
        tasks = tasks_of(emulator)

    assert set(made.values()) <= {1}
    for key in keys:
        if key in before and before[key].task_id is not None:
            assert tasks[key] == before[key].task_id == again["outcomes"][key]
        elif key in before:
            assert again["outcomes"][key] == "unknown"
        else:
            assert tasks[key] == again["outcomes"][key]


@pytest.mark.storm
@pytest.mark.measured
async def test_two_processes_that_submit_one_key_get_the_same_task_and_one_post_leaves(
    case: FamilyCase, zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    async with host(latency={"create": 0.05}) as (emulator, url):
        for number in range(3):
            key = f"k{number}"
            for each in zygotes:
                await each.start(path=tmp_path / "run.db", url=url, keys=[key], family=case)
            ends = [await each.finish() for each in zygotes]
            assert [{key: tasks_of(emulator)[key]}] * 2 == [end["outcomes"] for end in ends]
            assert number + 1 == emulator.seen.requests[case.create]


async def test_a_process_killed_while_it_sends_leaves_the_other_one_with_unknown_and_no_post(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    async with host(latency={"reroll": 1e6}) as (emulator, url):
        orders = {"path": tmp_path / "run.db", "url": url, "keys": ["k"]}
        sender = await zygotes[0].start(**orders)
        await becomes_true(lambda: emulator.seen.requests["reroll"])
        await zygotes[1].start(**orders)
        await becomes_true(lambda: len(list(tmp_path.glob("run.db-owner-*"))) == 2)  # the other one is there
        os.kill(sender, signal.SIGKILL)
        ends = [await each.finish() for each in zygotes]

        assert [True, False] == [end["killed"] for end in ends]
        assert {"k": "unknown"} == ends[1]["outcomes"]
        assert emulator.seen.requests["reroll"] == 1


async def test_a_key_whose_process_was_killed_while_it_sent_is_unknown_to_whoever_looks_it_up(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    async with host() as (_, url):
        await zygotes[0].run(path=path, url=url, keys=["k"], edge="before the POST")

    ledger = Ledger(path)
    entry = await ledger.find("k")
    await ledger.close()

    assert entry is not None
    assert entry.state is UNKNOWN


async def test_a_process_killed_while_its_submits_wait_for_the_host_leaves_no_doubt_behind(
    case: FamilyCase, zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    path, keys = tmp_path / "run.db", [f"k{number}" for number in range(6)]
    async with host() as (emulator, url):
        emulator.fail("create", Status(429, retry_after=60), times=None)
        sender = await zygotes[0].start(path=path, url=url, keys=keys, family=case)
        await becomes_true(lambda: emulator.seen.requests[case.create] and not in_the_file(path))
        os.kill(sender, signal.SIGKILL)
        assert (await zygotes[0].finish())["killed"]

        assert {} == await entries_of(path)
        assert emulator.seen.creates == 0


def in_the_file(path: Path) -> int:
    """Count the submits, whatever their owners do."""
    with closing(sqlite3.connect(path)) as file:
        count: int = file.execute("SELECT count(*) FROM submits").fetchone()[0]
        return count


@pytest.mark.storm
async def test_a_process_that_hears_nothing_leaves_the_other_one_with_unknown_and_no_post(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    async with host(latency={"reroll": 0.2}) as (emulator, url):
        emulator.fail("reroll", Drop(after_body=True), times=None)
        for each in zygotes:
            await each.start(path=tmp_path / "run.db", url=url, keys=["k"])
        ends = [await each.finish() for each in zygotes]

        assert [{"k": "unknown"}, {"k": "unknown"}] == [end["outcomes"] for end in ends]
        assert emulator.seen.creates == 1


@pytest.mark.storm
async def test_two_processes_may_open_a_fresh_file_at_the_same_moment(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    async with host() as (emulator, url):
        for number in range(20):
            path = tmp_path / f"{number}.db"
            for index, each in enumerate(zygotes):
                await each.start(path=path, url=url, keys=[f"k{index}"], wait=False)
            ends = [await each.finish() for each in zygotes]
            told = ends[0]["outcomes"] | ends[1]["outcomes"]
            entries = await entries_of(path)
            assert told == {key: entry.task_id for key, entry in entries.items()}
            assert 2 * (number + 1) == emulator.seen.creates
            assert [path] == sorted(tmp_path.glob(f"{number}.db*"))


@pytest.mark.storm
async def test_what_killed_owners_leave_beside_the_file_is_removed(
    zygotes: tuple[Zygote, Zygote], tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    async with host() as (_, url):
        await zygotes[0].run(path=path, url=url, keys=["k"], edge="after commit 2")
        assert list(tmp_path.glob("run.db-owner-*"))

        assert [ACCEPTED] == [entry.state for entry in (await entries_of(path)).values()]
        assert [path] == list(tmp_path.iterdir())


if __name__ == "__main__":
    zygote()
