"""A ledger of many rows: what is asked of it costs what it returns, not the ledger's size."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.hooking import HEADERS, PUBLIC, SECRET, delivery
from support.ledgers import FAMILY, ORIGIN, accept, identity, opened, ref
from support.serving import KEY

from piapi_async import Ledger, LedgerError, PiAPI, WebhookReceiver
from piapi_async._submit.nonces import NONCE
from piapi_async.ledger import LedgerState
from piapi_async.ledger._entries import EndedAttempt
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._queries import ended_well
from piapi_async.ledger._recovery import take_back
from piapi_async.ledger._schema import SCHEMA
from piapi_async.ledger._sqlite import make
from piapi_async.ledger._writer import LedgerWriter
from piapi_async.tasks import TaskId

ROWS = 30_000  # enough for a file that is not read through when it is opened


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of which all has ended but what begins with "open"."""
    path = tmp_path_factory.mktemp("large") / "run.db"
    make(path, SCHEMA)
    with sqlite3.connect(path) as file:
        file.executemany(
            "INSERT INTO submits (key, state, origin, family, digest, request, task_id, at, outcome, answer) "
            "VALUES (?, 'ended', ?, ?, ?, ?, ?, ?, 'done', ?)",
            (
                (
                    f"key {number:09}",
                    ORIGIN,
                    FAMILY,
                    b"d" * 32,
                    "/mj/v2/imagine {}",
                    f"t{number}",
                    1.0,
                    b"{}" * 150,
                )
                for number in range(ROWS)
            ),
        )
    file.close()
    return path


class Counter:
    """Counts the steps of SQLite's machine, which are as many as the rows it looks at and more."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.steps = 0

    async def start(self) -> None:
        await writer_of(self.ledger).run(lambda connection: connection.set_progress_handler(self._step, 10))

    def _step(self) -> int:
        self.steps += 10
        return 0


async def test_what_is_asked_for_is_found_without_looking_at_the_rest(large: Path) -> None:
    async with opened(large) as ledger:
        await accept(ledger, "open: accepted")
        unknown = identity("open: unknown")
        await writer_of(ledger).claim(unknown)
        await writer_of(ledger).mark_unknown(unknown)
        await writer_of(ledger).claim(identity("open: sending"))
        counter = Counter(ledger)
        await counter.start()

        found = {
            "pending": [entry.key for entry in await ledger.pending()],
            "unknown": [entry.key for entry in await ledger.unknown()],
            "sending": [entry.key async for entry in ledger.entries(LedgerState.SENDING)],
            "open": sorted(key for key, _ in await writer_of(ledger).open_keys()),
        }
        assert await ledger.find("key 000012345") is not None
        await ledger.resolve("open: unknown", resubmit=True)
        await writer_of(ledger).attach_task("open: sending", "t")

    assert found == {
        "pending": ["open: accepted"],
        "unknown": ["open: unknown"],
        "sending": ["open: sending"],
        "open": ["open: sending", "open: unknown"],
    }
    assert counter.steps < 2_000


def plans_of(file: sqlite3.Connection, statements: Sequence[str]) -> dict[str, list[str]]:
    """Return how SQLite finds the rows of each statement."""
    return {
        text: [step["detail"] for step in file.execute(f"EXPLAIN QUERY PLAN {text}")] for text in statements
    }


async def test_no_operation_reads_the_table_through(large: Path) -> None:
    statements: set[str] = set()
    mine = identity("again")
    async with opened(large) as ledger:
        writer = writer_of(ledger)
        await writer.run(lambda file: file.set_trace_callback(statements.add))
        await writer.claim(mine)
        await writer.accept(mine, ref("task of again"))
        writer.end(ref("task of again"), "failed", {})
        ended = EndedAttempt(1, TaskId("task of again"), "failed")
        await writer.claim(mine, replaces=ended)
        await writer.lose(mine, (1.0, 2.0, None))
        await writer.open_rows(ORIGIN, FAMILY)
        await writer.known_ids(ORIGIN, [TaskId("t")], 5e4, 5e4)
        await writer.run(take_back, mine, TaskId("t"))
        await writer.open_keys()
        await writer.forget(mine)
        await writer.run(ended_well, ORIGIN, 5)
        assert ROWS == (await ledger.counts())["done"]
        await ledger.pending()
        await ledger.unknown()

        await writer.run(lambda file: file.set_trace_callback(None))
        words = ("SELECT", "INSERT", "UPDATE", "DELETE")
        asked = [text for text in statements if text.strip().startswith(words)]
        plans = await writer.run(plans_of, asked)

    assert len(asked) > 15
    assert {} == {text: plan for text, plan in plans.items() if "SCAN submits" in plan}


def steps_of(file: sqlite3.Connection, statements: Sequence[str]) -> dict[str, set[str]]:
    """Return the names of the steps of which SQLite's program for each statement consists."""
    file.text_factory = lambda text: text.decode(errors="replace")  # what is bound may be no text
    return {text: {step["opcode"] for step in file.execute(f"EXPLAIN {text}")} for text in statements}


async def test_what_every_submission_writes_makes_no_table_of_its_own(tmp_path: Path) -> None:
    # SQLite makes one for the words of a long IN, and for what it sorts, each time that a statement is run.
    statements: set[str] = set()
    mine = identity("again")
    async with opened(tmp_path / "l.db") as ledger:
        writer = writer_of(ledger)
        await writer.run(lambda file: file.set_trace_callback(statements.add))
        await writer.claim(mine)
        await writer.accept(mine, ref("task of again"))
        writer.end(ref("task of again"), "done", {})
        await writer.flush()
        await writer.run(lambda file: file.set_trace_callback(None))
        written = [text for text in statements if text.strip().startswith(("INSERT", "UPDATE"))]
        steps = await writer.run(steps_of, written)

    assert len(written) == 3
    assert {} == {text: found for text, found in steps.items() if "OpenEphemeral" in found}


def set_state(file: sqlite3.Connection, state: LedgerState) -> None:
    file.execute("UPDATE submits SET state = ?", (state.value,))


async def test_no_row_has_a_state_that_there_is_not(tmp_path: Path) -> None:
    async with opened(tmp_path / "l.db") as ledger:
        await accept(ledger, "k")
        with pytest.raises(LedgerError, match="CHECK"):
            await writer_of(ledger).run(lambda file: file.execute("UPDATE submits SET state = 'paid'"))
        for state in LedgerState:
            await writer_of(ledger).run(set_state, state)


async def test_the_first_of_those_that_ended_comes_at_once(large: Path) -> None:
    async with opened(large) as ledger:
        counter = Counter(ledger)
        await counter.start()
        async for entry in ledger.entries(LedgerState.ENDED):
            assert "key 000000000" == entry.key
            break

    assert counter.steps < 50_000  # of 500 rows with all their columns; the table has 60 times as many


async def test_opening_does_not_read_it_through(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        file: sqlite3.Connection = connect(*args, **options)
        file.set_trace_callback(statements.append)
        return file

    monkeypatch.setattr(sqlite3, "connect", traced)
    async with opened(large) as ledger:
        assert await ledger.find("key 000000001") is not None

    assert statements
    assert not [statement for statement in statements if "quick_check" in statement or "CREATE" in statement]


async def test_a_large_file_that_was_cut_off_is_an_error_all_the_same(large: Path, tmp_path: Path) -> None:
    cut = tmp_path / "run.db"
    cut.write_bytes(large.read_bytes()[:-4096])
    async with opened(cut) as ledger:
        with pytest.raises(LedgerError, match="damaged"):
            await ledger.find("key 000000001")


async def test_a_file_of_an_older_release_gets_its_index_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with opened(path) as ledger:
        await accept(ledger, "k")
        unknown = identity("u")
        await writer_of(ledger).claim(unknown)
        await writer_of(ledger).mark_unknown(unknown)
    with sqlite3.connect(path) as file:
        file.execute("DROP INDEX submits_open")
        version = file.execute("PRAGMA user_version").fetchone()
    file.close()

    async with opened(path) as ledger:
        assert ["u"] == [entry.key for entry in await ledger.unknown()]
        assert ["k"] == [entry.key for entry in await ledger.pending()]
        (row,) = await writer_of(ledger).run(
            lambda connection: connection.execute(
                "SELECT name FROM sqlite_master WHERE name = 'submits_open'"
            ).fetchall()
        )
        assert "submits_open" == row["name"]
        assert tuple(version) == await writer_of(ledger).run(
            lambda connection: tuple(connection.execute("PRAGMA user_version").fetchone())
        )


async def test_entries_come_in_the_order_in_which_they_were_recorded(tmp_path: Path) -> None:
    keys = [f"key {(number * 7) % 1_201:04}" for number in range(1_201)]
    async with opened(tmp_path / "run.db") as ledger:
        await writer_of(ledger).run(
            lambda it: [writer_of(ledger)._store.claim(it, identity(key)) for key in keys]
        )
        assert keys == [entry.key async for entry in ledger.entries()]
        assert keys == [entry.key async for entry in ledger.entries(LedgerState.SENDING)]
        assert [] == [entry async for entry in ledger.entries(LedgerState.ENDED)]
        assert sorted(keys) == [entry.key async for entry in ledger]


async def test_an_entry_that_has_moved_on_meanwhile_is_not_given_for_what_it_was(tmp_path: Path) -> None:
    keys = [f"key {number:04}" for number in range(600)]
    async with opened(tmp_path / "run.db") as ledger:
        await writer_of(ledger).run(
            lambda it: [writer_of(ledger)._store.claim(it, identity(key)) for key in keys]
        )
        given = []
        async for entry in ledger.entries(LedgerState.SENDING):
            given.append(entry.key)
            if len(given) == 1:
                await writer_of(ledger).attach_task(keys[-1], "t")

    assert keys[:-1] == given


async def test_deliveries_of_tasks_that_nobody_knows_share_a_look_at_the_ledger(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    open_keys = LedgerWriter.open_keys

    async def counted(ledger: LedgerWriter) -> list[tuple[str, int]]:
        nonlocal looks
        looks += 1
        return await open_keys(ledger)

    monkeypatch.setattr(LedgerWriter, "open_keys", counted)
    async with PiAPI(KEY, base_url="http://localhost:1", ledger=Ledger(large)) as piapi:
        receiver = WebhookReceiver(piapi, secret=SECRET, url=PUBLIC)
        for number in range(500):
            await receiver.handle(HEADERS, delivery(f"task {number}"), query=f"{NONCE}={number}")
        await asyncio.sleep(0)
        await piapi._runtime.correlation.finish()

    assert receiver.counts == {"accepted": 500, "unknown": 500}
    assert looks <= 2
