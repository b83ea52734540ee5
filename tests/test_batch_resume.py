"""Batches that go on where an earlier run left off."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from types import NoneType
from typing import Any

import pytest
from support.batching import WIDE, rerolls
from support.families import FamilyCase
from support.serving import KEY, REROLL, serving

from piapi_async import (
    BatchItem,
    BatchRunner,
    KeyReused,
    Ledger,
    LedgerError,
    NotFoundError,
    PiAPI,
    Reroll,
    SubmissionUnknown,
    TaskFailed,
    TaskState,
)
from piapi_async.emulator import (
    Drop,
    Status,
    TaskFails,
    UnknownStatus,
)
from piapi_async.ledger._ledger import writer_of
from piapi_async.ledger._recovery import Taken
from piapi_async.ledger._writer import LedgerWriter

pytestmark = pytest.mark.looptime


async def test_a_second_run_gives_every_outcome_again_and_submits_nothing(
    tmp_path: Path, case: FamilyCase
) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, **WIDE) as (emulator, piapi):
        first = await BatchRunner(piapi).run(rerolls(8, case.reroll))
        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as other:
            again = BatchRunner(other)
            second = await again.run(rerolls(8, case.reroll))

        assert emulator.seen.creates == 8
        assert [outcome.resumed for outcome in first] == [False] * 8
        assert [outcome.resumed for outcome in second] == [True] * 8
        assert [(outcome.ref, outcome.key, outcome.ok) for outcome in first] == [
            (outcome.ref, outcome.key, outcome.ok) for outcome in second
        ]
        assert (again.totals.submitted, again.totals.resumed, again.totals.done) == (0, 8, 8)


async def test_what_the_host_has_forgotten_is_read_from_the_ledger(tmp_path: Path, case: FamilyCase) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("create", TaskFails("no luck"))
        [failed] = await BatchRunner(piapi).run(rerolls(1, case.reroll))
        first = await BatchRunner(piapi).run(rerolls(3, case.reroll)[1:])
        emulator.engine.tasks.clear()
        second = await BatchRunner(piapi).run(rerolls(3, case.reroll))

        assert isinstance(failed.error, TaskFailed)
        assert isinstance(second[0].error, TaskFailed)
        assert second[0].task is not None
        assert second[0].task.error == "no luck"
        for before, after in zip(first, second[1:], strict=True):
            assert before.task is not None
            assert after.task is not None
            assert after.task.images == before.task.images
            assert after.resumed
            assert after.ok


async def test_an_end_that_the_host_takes_back_stays_an_end(tmp_path: Path, case: FamilyCase) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run([case.reroll("p")])
        emulator.fail("read", UnknownStatus("retry"), times=None)
        [outcome] = await BatchRunner(piapi).run([case.reroll("p")])

        assert outcome.ok
        assert outcome.task is not None
        assert outcome.task.state is TaskState.DONE


async def test_a_host_that_is_down_does_not_take_away_what_the_ledger_has(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run([REROLL])
        emulator.fail("fetch", Status(503), times=None)
        [outcome] = await BatchRunner(piapi).run([REROLL])

        assert outcome.ok
        assert outcome.resumed


async def test_what_ended_in_an_earlier_run_is_read_back_in_few_requests(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi, concurrency=40).run(rerolls(200))
        looks = emulator.seen.ids_per_request.total()
        again = await BatchRunner(piapi, concurrency=40).run(rerolls(200))

        assert [True] * 200 == [outcome.ok for outcome in again]
        assert emulator.seen.ids_per_request.total() - looks <= 2 * 200 / 20


@pytest.mark.parametrize("passing", [Status(503), Drop(before_body=True)])
async def test_a_fault_while_reading_back_does_not_cost_the_fresher_links(
    passing: Any, tmp_path: Path
) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        [first] = await BatchRunner(piapi).run(rerolls(1))
        emulator.fail("fetch", passing)
        [second] = await BatchRunner(piapi).run(rerolls(1))

        assert first.task is not None
        assert second.task is not None
        assert second.ok
        assert second.task.raw is not first.task.raw
        assert emulator.seen.requests["fetch"] >= 3


async def test_an_end_without_an_answer_is_asked_for_and_the_hosts_no_is_the_items_error(
    tmp_path: Path,
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run(rerolls(2))
        await writer_of(ledger).run(lambda connection: connection.execute("UPDATE submits SET answer = NULL"))
        emulator.engine.tasks.popitem()
        outcomes = await BatchRunner(piapi).run(rerolls(2))

        assert {NoneType, NotFoundError} == {type(outcome.error) for outcome in outcomes}


async def test_an_end_is_in_the_ledger_before_its_outcome_is_given(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("reroll", TaskFails("no luck"), nth=3)
        async with BatchRunner(piapi, concurrency=4).stream(rerolls(12)) as outcomes:
            async for outcome in outcomes:
                with closing(sqlite3.connect(ledger)) as file:
                    rows = file.execute("SELECT state FROM submits WHERE key = ?", (outcome.key,)).fetchall()
                assert rows == [("ended",)]


async def test_what_still_runs_is_waited_for(tmp_path: Path, case: FamilyCase) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=60.0, **WIDE) as (emulator, piapi):
        running = asyncio.create_task(BatchRunner(piapi, concurrency=3).run(rerolls(3, case.reroll)))
        await asyncio.sleep(10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        runner = BatchRunner(piapi)
        outcomes = await runner.run(rerolls(5, case.reroll))

        assert [True] * 5 == [outcome.ok for outcome in outcomes]
        assert [True] * 3 + [False] * 2 == [outcome.resumed for outcome in outcomes]
        assert emulator.seen.creates == 5


async def test_a_task_the_host_lost_while_it_ran_is_its_items_error(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=60.0, **WIDE) as (emulator, piapi):
        running = asyncio.create_task(BatchRunner(piapi).run([REROLL]))
        await asyncio.sleep(10)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        emulator.engine.tasks.clear()
        [outcome] = await BatchRunner(piapi).run([REROLL])

        assert isinstance(outcome.error, NotFoundError)
        assert emulator.seen.creates == 1


async def test_an_unknown_submit_is_told_again_and_never_repeated(tmp_path: Path, case: FamilyCase) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True))
        for _ in range(3):
            runner = BatchRunner(piapi)
            [outcome] = await runner.run([case.reroll("p")])
            assert isinstance(outcome.error, SubmissionUnknown)
            assert outcome.error.key == outcome.key
            assert runner.totals.unknown == 1
            assert emulator.seen.requests[case.create] == 1

        [task_id] = [task_id for task_id, task in emulator.engine.tasks.items() if task.origin == "p"]
        await ledger.resolve(outcome.key, task_id=task_id)
        [outcome] = await BatchRunner(piapi).run([case.reroll("p")])
        assert outcome.ok
        assert outcome.resumed
        assert emulator.seen.requests[case.create] == 1


async def test_a_refused_item_is_submitted_again_by_the_next_run(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("reroll", Status(400))
        [refused] = await BatchRunner(piapi).run([REROLL])
        [good] = await BatchRunner(piapi).run([REROLL])

        assert not refused.ok
        assert good.ok
        assert not good.resumed


async def test_pictures_of_an_earlier_run_are_not_loaded_again(tmp_path: Path, case: FamilyCase) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, picture_size=32, **WIDE) as (emulator, piapi):
        first = await BatchRunner(piapi, download=tmp_path).run(rerolls(2, case.reroll))
        loaded = emulator.seen.requests["image"]
        second = await BatchRunner(piapi, download=tmp_path).run(rerolls(2, case.reroll))
        assert emulator.seen.requests["image"] == loaded
        assert [outcome.files for outcome in first] == [outcome.files for outcome in second]

        Path(first[0].files[0]).unlink()
        third = await BatchRunner(piapi, download=tmp_path).run(rerolls(2, case.reroll))
        assert emulator.seen.requests["image"] > loaded
        assert Path(third[0].files[0]).exists()


@pytest.mark.parametrize("runs", [2, 3])
async def test_equal_requests_in_one_input_are_items_of_their_own_in_every_run(
    runs: int, tmp_path: Path, case: FamilyCase
) -> None:
    requests = [case.reroll("p"), case.reroll("other"), case.reroll("p"), case.reroll("p")]
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        refs = set()
        for _ in range(runs):
            outcomes = await BatchRunner(piapi, concurrency=2).run(requests)
            refs.add(frozenset(outcome.ref for outcome in outcomes))
            assert len({outcome.key for outcome in outcomes}) == 4

        assert emulator.seen.creates_by_parent == {"p": 3, "other": 1}
        assert len(refs) == 1


async def test_one_more_of_the_same_is_one_more_submit(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        for count in (2, 3, 1, 3):
            assert len(await BatchRunner(piapi).run([REROLL] * count)) == count

        assert emulator.seen.creates == 3


async def test_an_own_key_makes_the_item_whatever_its_place(tmp_path: Path) -> None:
    items = [BatchItem(REROLL, f"key-{number}") for number in range(4)]
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        first = await BatchRunner(piapi).run(items)
        anew: list[Any] = [*reversed(items), REROLL]
        second = await BatchRunner(piapi).run(anew)

        assert {outcome.key: outcome.ref for outcome in first}.items() <= {
            outcome.key: outcome.ref for outcome in second
        }.items()
        assert emulator.seen.creates == 5


async def test_equal_own_keys_are_one_task_and_other_requests_under_them_an_error(tmp_path: Path) -> None:
    items: list[Any] = [
        BatchItem(REROLL, "k"),
        BatchItem(REROLL, "k"),
        BatchItem(Reroll("other"), "k"),
        REROLL,
    ]
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi)
        one, same, other, own = await runner.run(items)

        assert one.ref == same.ref
        assert one.ok
        assert same.ok
        assert isinstance(other.error, KeyReused)
        assert "for another request" in str(other.error)
        assert own.ok
        assert emulator.seen.creates == 2


@pytest.mark.parametrize("key", ["", " ", "a\nb"])
async def test_a_key_that_is_none_is_its_items_error(key: str, tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (_, piapi):
        items: list[Any] = [BatchItem(Reroll("a"), key), Reroll("b")]
        odd, good = await BatchRunner(piapi).run(items)

        assert good.ok
        assert odd.ok is (key == "")  # no key at all, so one is minted


async def test_a_ledger_that_cannot_be_used_submits_nothing(tmp_path: Path) -> None:
    (tmp_path / "run.db").write_text("not a ledger, but a diary" * 100, encoding="ascii")
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, **WIDE) as (emulator, piapi):
        outcomes = await BatchRunner(piapi).run(rerolls(3))

        assert all(isinstance(outcome.error, LedgerError) for outcome in outcomes)
        assert emulator.seen.requests["reroll"] == 0


class _FullDisk(LedgerWriter):
    """A ledger whose disk is full when an id is to be written."""

    async def accept(self, identity: Any, ref: Any) -> Taken | None:
        await self.mark_unknown(identity)
        raise LedgerError(f"Task {ref.task_id} was accepted, but could not be recorded", ref=ref)


async def test_an_id_that_could_not_be_recorded_is_on_the_outcome(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    ledger._writer = _FullDisk(Path(ledger))
    async with serving({"ledger": ledger}, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi)
        [outcome] = await runner.run([REROLL])

        assert isinstance(outcome.error, LedgerError)
        assert outcome.ref is not None
        assert emulator.task(outcome.ref.task_id) is not None
        assert runner.totals.submitted == 1
