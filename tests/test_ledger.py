"""The ledger by itself: what is written, who is told what, and what a bad file or disk does to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import stat
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.processes import PATIENCE, ended

from piapi_async import Imagine, Ledger, LedgerError, Reroll, TaskRef
from piapi_async._http import HTTPRequest, post
from piapi_async.ledger import LedgerEntry, LedgerState
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._recovery import Taken
from piapi_async.ledger._store import LedgerStore
from piapi_async.observe._emitter import Events

ORIGIN, FAMILY = "https://host.test", "midjourney"
SENDING, ACCEPTED, ENDED, UNKNOWN = LedgerState


def identity(key: str = "k", prompt: str = "a cat", **fields: str) -> SubmissionKey:
    given = {"origin": ORIGIN, "family": FAMILY} | fields
    return SubmissionKey.of(post("/mj/v2/imagine", {"prompt": prompt}), key=key, **given)


def ref(task_id: str = "t") -> TaskRef:
    return TaskRef(ORIGIN, FAMILY, task_id)  # type: ignore[arg-type]  # a TaskId is a str to all but the checker


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[Ledger]:
    async with opened(path) as ledger:
        yield ledger


async def entries_of(ledger: Ledger) -> dict[str, LedgerEntry]:
    return {entry.key: entry async for entry in ledger}


async def states_of(ledger: Ledger) -> dict[str, LedgerState]:
    return {entry.key: entry.state async for entry in ledger}


async def make_accepted(ledger: Ledger, *keys: str) -> None:
    """Have tasks named after their keys."""

    async def one(key: str) -> None:
        mine = identity(key)
        assert await writer_of(ledger).claim(mine) is None
        await writer_of(ledger).accept(mine, ref(f"task of {key}"))

    await asyncio.gather(*(one(key) for key in keys))


# -- from claim to end --------------------------------------------------------------------------------------------


async def test_a_submit_is_written_down_step_by_step(ledger: Ledger) -> None:
    mine = identity()

    assert await writer_of(ledger).claim(mine) is None
    assert {"k": SENDING} == await states_of(ledger)
    await writer_of(ledger).accept(mine, ref())
    assert {"k": ACCEPTED} == await states_of(ledger)
    assert ["t"] == [entry.task_id for entry in await ledger.pending()]
    writer_of(ledger).end(ref(), "done", {"status": "finished"})
    entry = (await entries_of(ledger))["k"]

    assert {} == writer_of(ledger)._store._owned  # a long run must not grow
    assert entry.state is ENDED
    assert entry.outcome == "done"
    assert json.loads(entry.answer) == {"status": "finished"}
    assert ref() == entry.ref
    assert entry.request == '/mj/v2/imagine {"prompt":"a cat"}'
    assert [] == await ledger.pending() == await ledger.unknown()


async def test_a_key_that_was_accepted_gives_its_task_for_ever(path: Path) -> None:
    async with opened(path) as ledger:
        await make_accepted(ledger, "k")
        writer_of(ledger).end(ref("task of k"), "failed", {})
    for _ in range(2):
        async with opened(path) as ledger:
            entry = await writer_of(ledger).claim(identity())
            assert entry is not None
            assert entry.task_id == "task of k"


async def test_a_released_key_is_new_again(ledger: Ledger) -> None:
    mine = identity()
    await writer_of(ledger).claim(mine)
    await writer_of(ledger).forget(mine)

    assert {} == await states_of(ledger)
    assert await writer_of(ledger).claim(identity()) is None


async def test_a_doubtful_key_stays_unknown_until_it_is_resolved_to_a_task(ledger: Ledger) -> None:
    mine = identity()
    await writer_of(ledger).claim(mine)
    await writer_of(ledger).mark_unknown(mine)

    entry = await writer_of(ledger).claim(identity())
    assert entry is not None
    assert (entry.state, entry.task_id, entry.ref) == (UNKNOWN, None, None)
    assert ["k"] == [entry.key for entry in await ledger.unknown()]

    await ledger.resolve("k", task_id="found")
    assert ref("found") == (await entries_of(ledger))["k"].ref
    assert ["k"] == [entry.key for entry in await ledger.pending()]


async def test_a_doubtful_key_may_be_submitted_again_when_a_person_says_so(ledger: Ledger) -> None:
    mine = identity()
    await writer_of(ledger).claim(mine)
    await writer_of(ledger).mark_unknown(mine)
    await ledger.resolve("k", resubmit=True)

    assert {} == await states_of(ledger)
    assert await writer_of(ledger).claim(identity()) is None


async def test_only_an_unknown_submit_can_be_resolved(ledger: Ledger) -> None:
    await make_accepted(ledger, "accepted")
    await writer_of(ledger).claim(identity("sending"))

    for key, complaint in (
        ("accepted", "is accepted"),
        ("sending", "is sending"),
        ("missing", "no key 'missing'"),
    ):
        with pytest.raises(LedgerError, match=complaint):
            await ledger.resolve(key, resubmit=True)
    for contradiction in ({}, {"task_id": "t", "resubmit": True}):
        with pytest.raises(ValueError, match="either task_id="):
            await ledger.resolve("sending", **contradiction)  # type: ignore[arg-type]  # what is passed is the test
    assert {"accepted": ACCEPTED, "sending": SENDING} == await states_of(ledger)


async def test_the_end_of_a_task_it_does_not_know_is_none_of_its_business(ledger: Ledger) -> None:
    await make_accepted(ledger, "k")
    writer_of(ledger).end(ref("another"), "done", {})
    writer_of(ledger).end(evolve(ref("task of k"), origin="https://other.test"), "done", {})
    writer_of(ledger).end(evolve(ref("task of k"), family="unified"), "done", {})

    assert {"k": ACCEPTED} == await states_of(ledger)


async def test_only_the_first_end_counts(ledger: Ledger) -> None:
    await make_accepted(ledger, "k")
    writer_of(ledger).end(ref("task of k"), "done", {})
    writer_of(ledger).end(ref("task of k"), "failed", {})

    assert (await entries_of(ledger))["k"].outcome == "done"


async def test_an_answer_too_deep_to_be_written_does_not_keep_an_end_from_being_recorded(
    ledger: Ledger,
) -> None:
    await make_accepted(ledger, "k")
    writer_of(ledger).end(ref("task of k"), "done", json.loads("[" * 400 + "]" * 400))

    assert {"k": ENDED} == await states_of(ledger)


async def test_iteration_gives_any_number_of_submits_in_the_order_of_the_keys(ledger: Ledger) -> None:
    keys = [f"key {number:04}" for number in range(1_203)]
    await asyncio.gather(*(writer_of(ledger).claim(identity(key)) for key in reversed(keys)))

    assert keys == [entry.key async for entry in ledger]


@pytest.mark.parametrize("key", ["order 17", "'; DROP TABLE submits; --", "ключ", "a\0b", "\n", "x" * 10_000])
async def test_any_text_can_be_a_key(ledger: Ledger, key: str) -> None:
    await make_accepted(ledger, key)

    assert [key] == list(await entries_of(ledger))


# -- one key, several who want it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("books", [1, 2, 3])
async def test_of_many_who_claim_a_key_at_once_one_gets_it(path: Path, books: int) -> None:
    ledgers = [Ledger(path) for _ in range(books)]
    claims = await asyncio.gather(
        *(writer_of(ledger).claim(identity()) for ledger in ledgers for _ in range(20))
    )
    for ledger in ledgers:
        await ledger.close()

    assert claims.count(None) == 1
    assert {SENDING} == {entry.state for entry in claims if entry is not None}


async def test_a_submit_is_under_way_for_others_as_long_as_its_ledger_is_open(path: Path) -> None:
    async with opened(path) as other:
        async with opened(path) as mine:
            await writer_of(mine).claim(identity())
            assert {"k": SENDING} == await states_of(other)
        assert {"k": UNKNOWN} == await states_of(other)


async def test_a_ledger_closed_by_one_client_stays_open_for_the_other(path: Path) -> None:
    ledger = Ledger(path)
    first, second = Events(), Events()
    writer_of(ledger).join(first)
    writer_of(ledger).join(second)
    mine = identity()
    await writer_of(ledger).claim(mine)
    await writer_of(ledger).leave(first)
    async with opened(path) as other:
        assert {"k": SENDING} == await states_of(other)
        await writer_of(ledger).accept(mine, ref())
        await writer_of(ledger).leave(second)
        assert {"k": ACCEPTED} == await states_of(other)


async def test_a_submit_let_go_of_is_unknown_to_everybody_in_the_same_process_too(ledger: Ledger) -> None:
    mine = identity()
    await writer_of(ledger).claim(mine)
    writer_of(ledger)._store.disown(mine)

    entry = await writer_of(ledger).claim(identity())
    assert entry is not None
    assert entry.state is UNKNOWN


def test_what_was_being_sent_in_a_loop_that_was_closed_is_unknown(path: Path) -> None:
    ledger = Ledger(path)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(writer_of(ledger).claim(identity()))

    async def state() -> LedgerState:
        return (await entries_of(ledger))["k"].state

    assert loop.run_until_complete(state()) is SENDING
    loop.close()
    assert asyncio.run(state()) is LedgerState.UNKNOWN
    asyncio.run(ledger.close())


async def test_who_did_not_get_the_key_can_neither_release_nor_doubt_it(ledger: Ledger) -> None:
    mine, other = identity(), identity()
    await writer_of(ledger).claim(mine)
    await writer_of(ledger).claim(other)
    await writer_of(ledger).forget(other)
    await writer_of(ledger).mark_unknown(other)

    assert {"k": SENDING} == await states_of(ledger)


async def test_an_id_is_recorded_even_when_the_row_has_gone_meanwhile(path: Path) -> None:
    async with opened(path) as mine, opened(path) as other:
        ours = identity()
        await writer_of(mine).claim(ours)
        for lock in path.parent.glob("run.db-owner-*"):
            lock.unlink()  # a cleaner of temporary files, say
        await writer_of(other).run(lambda connection: connection.execute("UPDATE submits SET at = at - 3600"))
        await other.resolve("k", resubmit=True)
        await writer_of(mine).accept(ours, ref())

        assert {"k": ACCEPTED} == await states_of(other)


async def test_a_key_stands_for_one_request(ledger: Ledger) -> None:
    await make_accepted(ledger, "k")

    with pytest.raises(ValueError, match=r"key: 'k' is not allowed.*another request, /mj/v2/imagine.*a cat"):
        await writer_of(ledger).claim(identity(prompt="a dog"))
    other_verb = SubmissionKey.of(
        post("/mj/v2/describe", {"prompt": "a cat"}), key="k", origin=ORIGIN, family=FAMILY
    )
    with pytest.raises(ValueError, match="another request"):
        await writer_of(ledger).claim(other_verb)
    assert {"k": ACCEPTED} == await states_of(ledger)


async def test_a_request_of_any_size_is_named_by_its_beginning(ledger: Ledger) -> None:
    await writer_of(ledger).claim(identity(prompt="a cat " * 100_000))

    with pytest.raises(ValueError, match=r"another request, /mj/v2/imagine.*a cat") as caught:
        await writer_of(ledger).claim(identity(prompt="a dog"))
    assert len(str(caught.value)) < 500
    assert str(caught.value).endswith("…. Nothing was sent, nothing was paid.")


@pytest.mark.parametrize("fields", [{"origin": "https://other.test"}, {"family": "unified"}])
async def test_a_key_belongs_to_one_host_and_family(ledger: Ledger, fields: dict[str, str]) -> None:
    await make_accepted(ledger, "k")

    with pytest.raises(LedgerError, match=r"'k' belongs to https://host.test \(midjourney\)"):
        await writer_of(ledger).claim(identity(**fields))


async def test_where_the_answer_is_delivered_does_not_make_another_request(ledger: Ledger) -> None:
    plain = Reroll("parent", prompt="a cat").to_http()
    hooked = Reroll(
        "parent",
        prompt="a cat",
        webhook_endpoint="https://h.test/x",
        webhook_secret="s3cret",
        notify_progress=True,
    ).to_http()
    first, second = (
        SubmissionKey.of(request, key="k", origin=ORIGIN, family=FAMILY) for request in (plain, hooked)
    )

    assert first == second
    assert await writer_of(ledger).claim(first) is None
    assert await writer_of(ledger).claim(second) is not None


async def test_the_order_of_the_fields_does_not_make_another_request() -> None:
    bodies = b'{"a":1,"b":{"c":2,"d":3}}', b'{"b":{"d":3,"c":2},"a":1}'
    first, second = (
        SubmissionKey.of(HTTPRequest("POST", "/x", body), key="k", origin=ORIGIN, family=FAMILY)
        for body in bodies
    )

    assert first.digest == second.digest


async def test_submits_without_a_key_get_one_each() -> None:
    request = Imagine("a cat").to_http()
    first, second = (SubmissionKey.of(request, key=None, origin=ORIGIN, family=FAMILY) for _ in range(2))

    assert first.key != second.key


# -- the file -----------------------------------------------------------------------------------------------------


async def test_making_a_ledger_touches_no_file(path: Path) -> None:
    Ledger(path)

    assert [] == list(path.parent.iterdir())


async def test_the_files_are_private_and_hold_no_webhook_secret(path: Path) -> None:
    request = Reroll("parent", webhook_endpoint="https://h.test/", webhook_secret="s3cret").to_http()
    async with opened(path) as ledger:
        await writer_of(ledger).claim(SubmissionKey.of(request, key="k", origin=ORIGIN, family=FAMILY))
        files = list(path.parent.iterdir())

        assert "run.db-wal" in {file.name for file in files}
        assert {0o600} == {stat.S_IMODE(file.stat().st_mode) for file in files}
        assert not any(b"s3cret" in file.read_bytes() for file in files)
    assert [path] == list(path.parent.iterdir())


async def test_a_closed_ledger_opens_again_when_it_is_used(path: Path) -> None:
    async with opened(path) as ledger:
        for round_ in range(3):
            await make_accepted(ledger, f"k{round_}")
            await ledger.close()
            await ledger.close()

        assert ["k0", "k1", "k2"] == list(await entries_of(ledger))


async def test_what_is_queued_when_it_is_closed_is_written(path: Path) -> None:
    async with opened(path) as ledger:
        works = [
            asyncio.ensure_future(writer_of(ledger).claim(identity(f"k{number}"))) for number in range(50)
        ]
        await asyncio.sleep(0)
        await ledger.close()
        assert [None] * 50 == await asyncio.gather(*works)
        await make_accepted(ledger, "later")
    async with opened(path) as ledger:
        assert len(await entries_of(ledger)) == 51


async def test_what_is_queued_is_written_though_whoever_asked_is_cancelled(ledger: Ledger) -> None:
    mine = [identity(f"k{number}") for number in range(20)]
    await asyncio.gather(*(writer_of(ledger).claim(each) for each in mine))
    busy = asyncio.ensure_future(writer_of(ledger).claim(identity("busy")))
    await asyncio.sleep(0)
    accepts = [asyncio.ensure_future(writer_of(ledger).accept(each, ref(each.key))) for each in mine]
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(busy, *accepts, return_exceptions=True)

    assert 20 == len(await ledger.pending())


def test_what_is_queued_is_written_though_the_loop_is_gone(path: Path) -> None:
    async def leave_in_haste() -> None:
        ledger = Ledger(path)
        mine = identity()
        await writer_of(ledger).claim(mine)
        works = writer_of(ledger).claim(identity("busy")), writer_of(ledger).accept(mine, ref())
        haste.extend(asyncio.ensure_future(work) for work in works)
        ledgers.append(ledger)
        await asyncio.sleep(0)

    async def read() -> dict[str, LedgerState]:
        async with opened(path) as ledger:
            return await states_of(ledger)

    ledgers: list[Ledger] = []
    haste: list[asyncio.Future[Any]] = []
    asyncio.run(leave_in_haste())
    writer = writer_of(ledgers[0])
    assert writer._thread is not None
    writer._thread.submit(writer._store.close).result()

    assert asyncio.run(read())["k"] is ACCEPTED


def test_a_ledger_goes_on_in_the_next_loop_though_the_last_one_stopped_in_the_middle(path: Path) -> None:
    ledger = Ledger(path)

    async def leave_in_haste() -> None:
        await make_accepted(ledger, "k")
        writer_of(ledger).end(ref("task of k"), "done", {})

    async def go_on() -> dict[str, LedgerState]:
        await writer_of(ledger).flush()
        states = await states_of(ledger)
        writer_of(ledger).end(ref("unheard-of"), "done", {})
        await writer_of(ledger).flush()
        await ledger.close()
        return states

    asyncio.run(leave_in_haste())

    assert {"k": LedgerState.ENDED} == asyncio.run(go_on())


async def test_the_end_of_a_task_is_found_by_an_index_that_holds_only_tasks_under_way(ledger: Ledger) -> None:
    statements: list[str] = []
    await make_accepted(ledger, "k")
    await writer_of(ledger).run(lambda connection: connection.set_trace_callback(statements.append))
    writer_of(ledger).end(ref("task of k"), "done", {})
    await writer_of(ledger).flush()
    await writer_of(ledger).run(lambda connection: connection.set_trace_callback(None))

    (update,) = (statement for statement in statements if statement.lstrip().startswith("UPDATE"))
    plan = await writer_of(ledger).run(
        lambda connection: connection.execute(f"EXPLAIN QUERY PLAN {update}").fetchall()
    )
    by_row, _, by_task = (step["detail"] for step in plan)
    assert "INTEGER PRIMARY KEY" in by_row
    assert "INDEX submits_by_task" in by_task
    assert 0 == await writer_of(ledger).run(
        lambda connection: connection.execute(
            "SELECT count(*) FROM submits INDEXED BY submits_by_task WHERE state = 'accepted'"
        ).fetchone()[0]
    )


def test_an_id_that_could_not_be_recorded_is_logged_though_the_loop_is_gone(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._file._BUSY_SECONDS", 0.2)
    ledger = Ledger(path)
    held: list[sqlite3.Connection] = []

    async def leave_in_haste() -> None:
        mine = identity()
        await writer_of(ledger).claim(mine)
        held.append(sqlite3.connect(path, isolation_level=None))
        held[0].execute("BEGIN IMMEDIATE")
        haste.append(asyncio.ensure_future(writer_of(ledger).accept(mine, ref("t1"))))
        await asyncio.sleep(0)

    haste: list[asyncio.Future[Taken | None]] = []
    asyncio.run(leave_in_haste())
    writer = writer_of(ledger)
    assert writer._thread is not None
    writer._thread.submit(writer._store.close).result()
    held[0].close()

    assert "Task t1 was accepted, and is paid for, but could not be recorded" in caplog.text
    assert not writer_of(ledger)._store._owned


async def test_a_file_that_is_held_fails_all_who_ask_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._file._BUSY_SECONDS", 0.05)
    groups: list[int] = []

    class Counted(LedgerStore):
        def commit(self, operations: Sequence[Any]) -> list[Any]:
            groups.append(len(operations))
            return super().commit(operations)

    async with opened(path) as ledger:
        writer_of(ledger)._store = Counted(path)
        await ledger.counts()
        groups.clear()
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            claims = await asyncio.gather(
                *(writer_of(ledger).claim(identity(f"k{n}")) for n in range(64)), return_exceptions=True
            )

    assert ["LedgerError"] * 64 == [type(error).__name__ for error in claims]
    assert len(set(map(id, claims))) == 64
    assert len(groups) <= 2


async def test_a_lock_that_cannot_be_removed_keeps_nobody_from_closing(path: Path) -> None:
    ledger = Ledger(path)
    await make_accepted(ledger, "k")
    lock = writer_of(ledger)._store._file._owners.path_of(writer_of(ledger)._store.owner)
    lock.unlink()
    lock.mkdir()  # which cannot be unlinked, as a file on a disk that has become read-only

    await ledger.close()

    assert ["k"] == list(await entries_of(ledger))
    await ledger.close()


async def test_a_file_that_cannot_be_closed_says_so_to_whoever_closes_it(path: Path) -> None:
    stuck = True

    class Stuck(LedgerStore):
        def close(self) -> None:
            super().close()
            if stuck:
                raise OSError("stuck")

    ledger = Ledger(path)
    writer_of(ledger)._store = Stuck(path)
    await make_accepted(ledger, "k")

    for _ in range(2):
        with pytest.raises(LedgerError, match="could not be closed: stuck"):
            await ledger.close()
        assert ["k"] == list(await entries_of(ledger))
    stuck = False
    await ledger.close()


async def test_a_relative_path_is_the_same_file_after_a_change_of_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    ledger = Ledger(Path("run.db"))
    await make_accepted(ledger, "k")
    await ledger.close()
    monkeypatch.chdir(tmp_path / "b")

    assert ["k"] == list(await entries_of(ledger))
    await ledger.close()


async def test_what_is_asked_for_together_is_committed_together(ledger: Ledger) -> None:
    statements: list[str] = []
    await writer_of(ledger).run(lambda connection: connection.set_trace_callback(statements.append))
    await make_accepted(ledger, *(f"k{number}" for number in range(64)))
    await writer_of(ledger).run(lambda connection: connection.set_trace_callback(None))

    assert len(await ledger.pending()) == 64
    assert statements.count("COMMIT") < 20  # of 128 works


async def test_a_work_that_cannot_be_done_does_not_cost_the_others_theirs(ledger: Ledger) -> None:
    mine = [identity(f"k{number}") for number in range(5)]
    await asyncio.gather(*(writer_of(ledger).claim(each) for each in mine))
    no_keys: list[Any] = [("a", "tuple"), 2**70, "\ud800"]
    bad = [evolve(identity(), key=key) for key in no_keys]
    results = await asyncio.gather(
        writer_of(ledger).claim(identity("mine all the time")),
        *(writer_of(ledger).claim(each) for each in bad),
        *(writer_of(ledger).accept(each, ref(each.key)) for each in mine[:3]),
        writer_of(ledger).forget(mine[3]),
        writer_of(ledger).mark_unknown(mine[4]),
        return_exceptions=True,
    )

    assert [LedgerError, LedgerError] == [type(result) for result in results[1:3]]
    assert isinstance(results[3], ValueError)
    assert [None] * 5 == results[4:]
    expected = dict.fromkeys(("k0", "k1", "k2"), ACCEPTED) | {"k4": UNKNOWN, "mine all the time": SENDING}
    assert expected == await states_of(ledger)


# -- files that are no good ---------------------------------------------------------------------------------------


async def test_a_ledger_of_a_newer_version_is_left_alone(path: Path) -> None:
    async with opened(path) as ledger:
        await make_accepted(ledger, "k")
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    async with opened(path) as ledger:
        for work in (
            writer_of(ledger).claim(identity()),
            ledger.pending(),
            ledger.resolve("k", resubmit=True),
        ):
            with pytest.raises(
                LedgerError, match=r"newer piapi_async \(its version is 3.*upgrade piapi_async"
            ):
                await work

    assert before == path.read_bytes()


async def test_another_program_s_database_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE submits (key TEXT)")
    before = path.read_bytes()
    async with opened(path) as ledger:
        with pytest.raises(LedgerError, match="another program"):
            await writer_of(ledger).claim(identity())

    assert before == path.read_bytes()


NOISE = random.Random(1).randbytes(20_000)  # noqa: S311 - the same again each time
NO_LEDGERS = {"text": b"not a database at all", "zeros": bytes(5_000), "noise": NOISE}


@pytest.mark.parametrize("content", NO_LEDGERS.values(), ids=NO_LEDGERS)
async def test_a_file_that_is_no_ledger_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    async with opened(path) as ledger:
        with pytest.raises(LedgerError, match="not a database"):
            await writer_of(ledger).claim(identity())

    assert content == path.read_bytes()


async def test_a_path_that_is_no_file_is_a_clear_error(tmp_path: Path) -> None:
    for no_file in (tmp_path, tmp_path / "missing" / "run.db"):
        async with opened(no_file) as ledger:
            with pytest.raises(LedgerError, match="cannot be used"):
                await writer_of(ledger).claim(identity())


KEYS = [f"key {number:03}" for number in range(60)]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a ledger with sixty tasks."""

    async def make() -> None:
        async with opened(whole) as ledger:
            await make_accepted(ledger, *KEYS)

    whole = tmp_path_factory.mktemp("content") / "run.db"
    asyncio.run(make())
    return whole.read_bytes()


async def spoil(path: Path, content: bytes) -> tuple[set[str], set[str]]:
    """Give the keys that a spoilt file knows and those that it takes for new; nothing but LedgerError may be raised."""
    path.write_bytes(content)
    known: set[str] = set()
    new: set[str] = set()
    async with asyncio.timeout(PATIENCE), opened(path) as ledger:
        for key in KEYS:
            try:
                entry = await writer_of(ledger).claim(identity(key))
            except LedgerError:
                continue
            (new if entry is None else known).add(key)
    for left in path.parent.glob("run.db*"):
        left.unlink()
    return known, new


async def test_a_truncated_file_is_an_error_and_never_takes_a_known_key_for_new(
    path: Path, content: bytes
) -> None:
    lengths = {0, 1, *range(2, 200, 49), *range(200, len(content), 7_591), *range(4_096, len(content), 8_192)}
    for length in sorted(lengths):
        assert (length, set(), set()) == (length, *await spoil(path, content[:length]))


@pytest.mark.storm
async def test_a_hole_in_the_file_is_an_error_or_harmless(path: Path, content: bytes) -> None:
    for start in range(0, len(content), 1_024):
        holed = content[:start] + bytes(1_024) + content[start + 1_024 :]
        known, new = await spoil(path, holed)
        assert known in (set(), set(KEYS))
        assert new == set()


async def test_garbage_in_the_file_is_an_error_or_a_key_that_reads_as_another(
    path: Path, content: bytes
) -> None:
    rng = random.Random(1)  # noqa: S311 - reproducible garbage
    for _ in range(15):
        garbage = bytearray(content)
        for _ in range(rng.choice((1, 3, 20))):
            garbage[rng.randrange(len(garbage))] = rng.randrange(256)
        # A flipped letter makes a readable row of another request, or of another key.
        with contextlib.suppress(ValueError):
            await spoil(path, bytes(garbage))


async def test_a_truncated_log_loses_at_most_what_stands_behind_the_cut(path: Path, tmp_path: Path) -> None:
    async with opened(path) as ledger:
        for key in KEYS[:10]:
            await make_accepted(ledger, key)
        main, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    seen: list[int] = []
    for index, length in enumerate(range(0, len(log), 7_001)):
        copy = tmp_path / f"{index}" / "run.db"
        copy.parent.mkdir()
        copy.write_bytes(main)
        Path(f"{copy}-wal").write_bytes(log[:length])
        async with opened(copy) as ledger:
            entries = await entries_of(ledger)
        assert KEYS[: len(entries)] == list(entries)
        seen.append(len(entries))

    assert sorted(seen) == seen


# -- disks that are no good ---------------------------------------------------------------------------------------


async def fill(ledger: Ledger) -> dict[str, str]:
    """Accept tasks until there is no room; give those of which the ledger said that it has them."""
    told: dict[str, str] = {}
    for number in range(2_000):
        mine = identity(f"k{number:04}", prompt="p" * 500)
        try:
            await writer_of(ledger).claim(mine)
            await writer_of(ledger).accept(mine, ref(f"t{number}"))
        except LedgerError as error:
            told["complaint"] = str(error)
            break
        told[mine.key] = f"t{number}"
    return told


async def test_on_a_full_disk_nothing_that_was_committed_is_lost(path: Path) -> None:
    async with opened(path) as ledger:
        await writer_of(ledger).claim(identity("early"))
        await writer_of(ledger).run(
            lambda connection: connection.execute("PRAGMA max_page_count = 20").fetchall()
        )  # SQLite's own small disk
        told = await fill(ledger)
        assert "database or disk is full" in told.pop("complaint")
        for _ in range(2):
            with pytest.raises(LedgerError, match="Make room; what was committed is safe"):
                await writer_of(ledger).claim(identity("k9999", prompt="p" * 9_000))
        assert len(told) > 5
    async with opened(path) as ledger:
        assert told == {
            key: entry.task_id for key, entry in (await entries_of(ledger)).items() if entry.task_id
        }
        await make_accepted(ledger, "there is room again")


async def test_an_id_that_finds_no_room_is_told_in_the_error(path: Path) -> None:
    async with opened(path) as ledger:
        mine = [identity(f"mine {number}") for number in range(100)]
        await asyncio.gather(*(writer_of(ledger).claim(each) for each in mine))
        await writer_of(ledger).run(
            lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall()
        )
        task_id = "t" * 5_000
        results = await asyncio.gather(
            *(writer_of(ledger).accept(each, ref(task_id)) for each in mine), return_exceptions=True
        )
        lost = [result for result in results if isinstance(result, LedgerError)]

        assert lost
        assert {ref(task_id)} == {error.ref for error in lost}
        assert "was accepted, and is paid for, but could not be recorded" in str(lost[0])
        await writer_of(ledger).run(
            lambda connection: connection.execute("PRAGMA max_page_count = 100000").fetchall()
        )
        assert len(lost) == len(await ledger.unknown())  # nobody waits for whom the disk has failed


async def test_an_end_that_finds_no_room_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as ledger:
        await make_accepted(ledger, "k")
        await writer_of(ledger).run(
            lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall()
        )
        writer_of(ledger).end(ref("task of k"), "done", ["a long answer" * 1_000])
        assert {"k": ACCEPTED} == await states_of(ledger)

    assert "The end of task task of k was not recorded" in caplog.text


def run_apart(script: str, *arguments: object) -> Any:
    """Run a script in a process of its own, with this module imported; give the JSON that it printed."""
    prelude = "import asyncio, json, os, resource, sys\nimport test_ledger as here\nfrom test_ledger import writer_of\n"
    # A measured script would want to write its measurements where it may not.
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = (sys.executable, "-c", prelude + textwrap.dedent(script), *map(str, arguments))
    done = ended(*command, env=environment)
    assert done.said == ""
    return json.loads(done.printed)


async def test_when_the_system_refuses_to_write_nothing_that_was_committed_is_lost(path: Path) -> None:
    told = run_apart(
        """
        async def main(path):
            async with here.opened(here.Path(path)) as ledger:
                await writer_of(ledger).claim(here.identity("early"))
                resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
                print(json.dumps(await here.fill(ledger)))
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        asyncio.run(main(sys.argv[1]))
        """,
        path,
    )

    assert "cannot be used" in told.pop("complaint")
    assert len(told) > 5
    async with opened(path) as ledger:
        assert told == {
            key: entry.task_id for key, entry in (await entries_of(ledger)).items() if entry.task_id
        }


@pytest.fixture
def public_directory(tmp_path: Path) -> Iterator[Path]:
    """A directory that any user of the machine can reach."""
    parents = [parent for parent in (tmp_path, *tmp_path.parents) if parent.stat().st_uid == os.geteuid()]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    for parent, mode in modes.items():
        if mode & 0o011 != 0o011:
            parent.chmod(mode | 0o055)
    yield tmp_path
    for parent, mode in modes.items():
        parent.chmod(mode)


@pytest.mark.parametrize("directory_too", [False, True])
async def test_a_file_that_may_not_be_written_is_a_clear_error_and_stays_as_it_is(
    public_directory: Path, *, directory_too: bool
) -> None:
    path = public_directory / "run.db"
    async with opened(path) as ledger:
        await make_accepted(ledger, "k")
    before = path.read_bytes()
    path.chmod(0o444)
    public_directory.chmod(0o555 if directory_too else 0o777)
    complaint = run_apart(
        """
        async def main(path):
            async with here.opened(here.Path(path)) as ledger:
                try:
                    await writer_of(ledger).claim(here.identity("new"))
                except here.LedgerError as error:
                    print(json.dumps(str(error)))
        here.Ledger(sys.argv[1])  # loads SQLite, which the other user might not reach
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write anything
        asyncio.run(main(sys.argv[1]))
        """,
        path,
    )

    assert str(path) in complaint
    assert "may write" in complaint or "writable" in complaint
    assert before == path.read_bytes()


# -- a model ------------------------------------------------------------------------------------------------------

some_key, some_book = st.sampled_from("abc"), st.sampled_from([0, 1])


@settings(max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
class Books(RuleBasedStateMachine):
    """Two ledgers of one file, against a dictionary: state, task and, while it is sent, who sends it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(self._make_directory())
        self.books = [Ledger(self.directory / "run.db") for _ in range(2)]
        self.model: dict[str, tuple[LedgerState, str | None]] = {}
        self.hands: dict[tuple[int, str], SubmissionKey] = {}
        self.tasks = 0

    @staticmethod
    def _make_directory() -> str:
        import tempfile  # noqa: PLC0415 - hypothesis makes the machine, so no fixture can

        return tempfile.mkdtemp()

    def teardown(self) -> None:
        for book in self.books:
            self.runner.run(book.close())
        self.runner.close()
        for left in self.directory.iterdir():
            left.unlink()
        self.directory.rmdir()

    @rule(book=some_book, key=some_key)
    def claim(self, book: int, key: str) -> None:
        mine = identity(key)
        entry = self.runner.run(writer_of(self.books[book]).claim(mine))
        if key not in self.model:
            assert entry is None
            self.model[key] = SENDING, None
            self.hands[book, key] = mine
        else:
            assert entry is not None
            assert self.model[key] == (entry.state, entry.task_id)

    @rule(book=some_book, key=some_key)
    def accept(self, book: int, key: str) -> None:
        if mine := self.hands.pop((book, key), None):
            self.tasks += 1
            self.runner.run(writer_of(self.books[book]).accept(mine, ref(f"t{self.tasks}")))
            self.model[key] = ACCEPTED, f"t{self.tasks}"

    @rule(book=some_book, key=some_key)
    def doubt(self, book: int, key: str) -> None:
        if mine := self.hands.pop((book, key), None):
            self.runner.run(writer_of(self.books[book]).mark_unknown(mine))
            self.model[key] = UNKNOWN, None

    @rule(book=some_book, key=some_key)
    def release(self, book: int, key: str) -> None:
        if mine := self.hands.pop((book, key), None):
            self.runner.run(writer_of(self.books[book]).forget(mine))
            del self.model[key]

    @rule(book=some_book, key=some_key)
    def end(self, book: int, key: str) -> None:
        state, task_id = self.model.get(key, (None, None))

        async def end() -> None:
            writer_of(self.books[book]).end(ref(task_id or "nobody's"), "done", {})
            await self.books[book].pending()

        self.runner.run(end())
        if state is ACCEPTED:
            self.model[key] = ENDED, task_id

    @rule(book=some_book, key=some_key, resubmit=st.booleans())
    def resolve(self, book: int, key: str, *, resubmit: bool) -> None:
        what: dict[str, Any] = {"resubmit": True} if resubmit else {"task_id": f"found for {key}"}
        if self.model.get(key, (None, None))[0] is not UNKNOWN:
            with pytest.raises(LedgerError):
                self.runner.run(self.books[book].resolve(key, **what))
            return
        self.runner.run(self.books[book].resolve(key, **what))
        if resubmit:
            del self.model[key]
        else:
            self.model[key] = ACCEPTED, what["task_id"]

    @rule(book=some_book)
    def die(self, book: int) -> None:
        self.runner.run(self.books[book].close())
        self.books[book] = Ledger(self.directory / "run.db")
        for _, key in [hand for hand in self.hands if hand[0] == book]:
            del self.hands[book, key]
            self.model[key] = UNKNOWN, None

    @invariant()
    def both_books_say_what_the_model_says(self) -> None:
        for book in self.books:
            entries = self.runner.run(entries_of(book))
            assert self.model == {key: (entry.state, entry.task_id) for key, entry in entries.items()}


TestBooks = pytest.mark.storm(Books.TestCase)
