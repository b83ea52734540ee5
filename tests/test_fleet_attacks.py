"""Who wants a key of a fleet to be paid twice, a job to be lost, or another's task for it: one attack each."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from dbos import error as engine_errors
from sqlalchemy.exc import DBAPIError
from support.fleets import NEEDS_SQLITE, at_work, cat, empty_database, host
from support.processes import becomes_true, ended

from piapi_async import PiAPIError, RetryPolicy, SubmissionUnknown, TaskRef
from piapi_async.batch import BatchItem
from piapi_async.emulator import Dialect, Drop, Status
from piapi_async.fleet import Fleet, Worker
from piapi_async.fleet import _codec as codec
from piapi_async.fleet import _engine as engine
from piapi_async.fleet import _jobs as jobs
from piapi_async.fleet._database import Database, KeyNote
from piapi_async.fleet._looking import FleetRecords
from piapi_async.fleet._tables import create
from piapi_async.fleet._watcher import Watcher
from piapi_async.tasks import TaskId

pytestmark = NEEDS_SQLITE

REF = TaskRef("https://api.piapi.ai", "unified", TaskId("t-1"))


@pytest.fixture
async def url(tmp_path: Path) -> str:
    return f"sqlite:///{empty_database(tmp_path)}"


@pytest.fixture
async def fleet(url: str) -> AsyncIterator[Fleet]:
    async with Fleet(url, poll=0.05) as opened:
        yield opened


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    opened = Database.open(url)
    yield opened
    opened.close()


def rows(url: str, statement: str, *values: object) -> list[Any]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        return connection.execute(statement, values).fetchall()


def set_status(url: str, status: str, item: str) -> None:
    rows(
        url, "UPDATE workflow_status SET status = ?, executor_id = 'w' WHERE workflow_uuid = ?", status, item
    )


async def left_unknown(fleet: Fleet, database: Database, key: str) -> None:
    """Have a job that nobody could tell of, without a worker."""
    await fleet.submit(cat(key), key=key)
    listed = jobs.listed_item(database, f"{key}#1")
    assert listed is not None
    database.note_end(KeyNote(key, 1, codec.UNKNOWN, (listed.attributes or {})["digest"]))


async def test_a_job_whose_task_has_become_known_is_not_submitted_again(
    fleet: Fleet, database: Database
) -> None:
    await left_unknown(fleet, database, "k")
    database.settle_origin(REF.origin)
    database.take_task(REF, "k#1")  # the late answer of a worker that was given up

    with pytest.raises(ValueError, match="has made task t-1, which has become known"):
        await fleet.resolve("k", resubmit=True)
    await fleet.resolve("k", task_id="t-1")
    assert database.task_of("k#2") == (REF, False)
    assert jobs.listed_item(database, "k#1") is None


async def test_what_a_fault_of_the_worker_has_ended_is_unknown_and_can_be_resolved(
    fleet: Fleet, url: str
) -> None:
    for key in ("broken", "dead"):
        await fleet.submit(cat(key), key=key)
    set_status(url, "ERROR", "broken#1")
    set_status(url, "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "dead#1")

    counts = await fleet.counts()
    assert (counts["unknown"], counts["failed"]) == (2, 0)
    unknown = await fleet.unknown()
    assert {outcome.key for outcome in unknown} == {"broken", "dead"}
    assert all(isinstance(outcome.error, SubmissionUnknown) for outcome in unknown)

    await fleet.submit(cat("broken"), key="broken")  # a key never pays again by itself
    assert (await fleet.counts())["queued"] == 0
    await fleet.resolve("broken", resubmit=True)
    await fleet.resolve("dead", task_id="t-1")
    counts = await fleet.counts()
    assert (counts["unknown"], counts["queued"]) == (0, 2)


async def test_jobs_enter_the_database_in_one_order_so_that_two_services_never_wait_for_each_other(
    fleet: Fleet, url: str
) -> None:
    await fleet.submit_many([BatchItem(cat(key), key) for key in "cab"])

    stored = rows(url, "SELECT workflow_uuid FROM workflow_status ORDER BY rowid")
    assert stored == [("a#1",), ("b#1",), ("c#1",)]


async def test_what_is_removed_while_a_worker_is_replaced_stops_neither(
    fleet: Fleet, database: Database, url: str
) -> None:
    await fleet.submit_many([BatchItem(cat(key), key) for key in "ab"])
    for item in ("a#1", "b#1"):
        set_status(url, "PENDING", item)
    looks = iter(range(100))

    def is_late() -> bool:
        if next(looks) == 1:  # between the list of what the worker held and its release
            database.client.delete_workflows(["a#1"])
        return False

    assert database.release("w", is_late=is_late) == 1
    assert (await fleet.counts())["queued"] == 1


async def test_tables_of_another_release_are_left_alone(url: str) -> None:
    rows(url, "UPDATE piapi_fleet SET value = '2' WHERE name = 'layout'")

    with pytest.raises(RuntimeError, match="have layout 2, and this release"):
        async with Fleet(url):
            pass


async def test_each_start_of_a_worker_has_a_name_of_its_own(url: str) -> None:
    async with host() as (_, piapi):
        worker = Worker(url, piapi)
        names = set()
        for _ in range(2):
            async with worker:
                names.add(worker.name)
    assert len(names) == 2


async def test_of_two_people_who_resubmit_at_once_one_does(fleet: Fleet, database: Database) -> None:
    await left_unknown(fleet, database, "k")
    ends = await asyncio.gather(
        *[fleet.resolve("k", resubmit=True) for _ in range(4)], return_exceptions=True
    )

    assert [type(end) for end in ends if end is not None] == [ValueError] * 3
    assert (await fleet.counts())["queued"] == 1


async def test_a_cancellation_that_a_worker_was_just_before_leaves_the_job_to_it(
    fleet: Fleet, database: Database, url: str
) -> None:
    await fleet.submit(cat("k"), key="k")
    rows(
        url,
        "CREATE TRIGGER claimed BEFORE UPDATE OF status ON workflow_status WHEN NEW.status = 'CANCELLED' BEGIN"
        " UPDATE workflow_status SET executor_id = 'w' WHERE workflow_uuid = NEW.workflow_uuid; END",
    )

    assert not await fleet.cancel("k")
    assert (await fleet.counts())["queued"] == 1  # it is not lost, and its worker is asked
    assert database.cancels() == ["k#1"]


async def test_a_job_that_the_host_has_cancelled_is_not_paid_for_again_by_its_key(
    fleet: Fleet, database: Database
) -> None:
    await left_unknown(fleet, database, "k")
    database.note_end(evolve(database.notes(["k"])["k"], state=codec.CANCELLED))
    database.take_task(REF, "k#1")

    await fleet.submit(cat("k"), key="k")
    assert database.notes(["k"])["k"].attempt == 1


async def test_a_job_that_is_pruned_while_a_batch_is_followed_keeps_nobody_waiting(
    fleet: Fleet, database: Database
) -> None:
    await left_unknown(fleet, database, "k")
    database.keep(evolve(database.notes(["k"])["k"], state=codec.DONE, kept="{}"))

    assert [outcome async for outcome in fleet.outcomes()] == []


async def test_a_waiter_outlives_the_database(caplog: pytest.LogCaptureFixture) -> None:
    kept = KeyNote("k", 1, codec.DONE, "d", "{}")
    answers: list[Any] = [RuntimeError("gone"), RuntimeError("gone"), {"k": kept}]

    class Away:
        def notes(self, _: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    watcher = Watcher(Away(), 0.001)  # type: ignore[arg-type]
    assert await watcher.wait("k") == kept
    await watcher.close()
    assert caplog.text.count("out of reach") == 1


def test_two_that_make_the_tables_at_once_both_have_them() -> None:
    collisions = [DBAPIError("CREATE", {}, Exception("exists"))]

    class Table:
        @property
        def metadata(self) -> Any:
            return self

        def create_all(self, *_: Any, **__: Any) -> None:
            if collisions:
                raise collisions.pop()

    create(None, [Table()])  # type: ignore[arg-type, list-item]
    assert not collisions
    collisions[:] = [DBAPIError("CREATE", {}, Exception("no right"))] * 2
    with pytest.raises(DBAPIError):
        create(None, [Table()])  # type: ignore[arg-type, list-item]


async def test_a_finding_gives_no_task_away_that_is_somebody_s(database: Database) -> None:
    database.settle_origin(REF.origin)
    database.take_task(REF, "b#1")
    records = FleetRecords(database, "d", "unified", 1.0)
    row: Any = SimpleNamespace(key="a#1")

    assert (await records.give_unknown(row, REF.task_id, "history")).task_id is None
    assert await records.open_rows(REF.origin, "legacy") == []


# -- with a worker ------------------------------------------------------------------------------------


@pytest.mark.measured
@pytest.mark.storm
async def test_a_late_answer_makes_the_next_attempt_needless_though_a_person_has_asked_for_it(
    url: str, fleet: Fleet, database: Database
) -> None:
    async with host({"timeout": 0.3}, dialect=Dialect(history=False)) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True), times=1)
        async with at_work(url, piapi, lease=0.3):
            job = await fleet.submit(cat("late"), key="late")
            assert isinstance((await job.wait(30)).error, SubmissionUnknown)
        await fleet.resolve("late", resubmit=True)
        [task_id] = emulator.engine.tasks
        database.take_task(TaskRef(piapi.origin, "unified", TaskId(task_id)), "late#1")

        async with at_work(url, piapi):
            outcome = await job.wait(30)
        assert outcome.ok, outcome.error
        assert outcome.ref is not None
        assert list(emulator.engine.tasks) == [outcome.ref.task_id]
        assert rows(url, "SELECT item FROM piapi_tasks") == [("late#2",)]


@pytest.mark.measured
@pytest.mark.storm
async def test_a_slow_rate_limit_of_the_client_refuses_no_job(url: str, fleet: Fleet) -> None:
    slow = {"rate_limit": (1, 0.2), "retry": RetryPolicy(attempts=2)}
    async with host(slow, durations=0.1) as (emulator, piapi), at_work(url, piapi, lease=0.5):
        outcomes = await asyncio.gather(
            *[job.wait(50) for job in await fleet.submit_many(map(cat, range(5)))]
        )

    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert len(emulator.engine.tasks) == 5


@pytest.mark.measured
@pytest.mark.storm
async def test_a_job_that_is_cancelled_while_the_host_puts_it_off_is_not_sent(url: str, fleet: Fleet) -> None:
    async with host() as (emulator, piapi), at_work(url, piapi):
        emulator.fail("create", Status(429, retry_after=2.0), times=1)
        job = await fleet.submit(cat("unwanted"), key="unwanted")
        await becomes_true(lambda: piapi.stats.rate_limited)
        assert not await job.cancel()
        outcome = await job.wait(30)

        assert isinstance(outcome.error, PiAPIError)
        assert "nothing was paid" in str(outcome.error)
        assert (await fleet.counts())["cancelled"] == 1
        assert not emulator.engine.tasks


@pytest.mark.measured
@pytest.mark.storm
async def test_jobs_that_are_unknown_stand_in_no_prune_s_way(
    url: str, fleet: Fleet, database: Database
) -> None:
    impatient = host({"timeout": 0.3}, dialect=Dialect(history=False))
    async with impatient as (emulator, piapi), at_work(url, piapi, lease=0.3):
        emulator.fail("create", Drop(after_body=True), times=1)
        assert not (await (await fleet.submit(cat("lost"), key="lost")).wait(30)).ok
        assert (await (await fleet.submit(cat("done"), key="done")).wait(30)).ok

    later = datetime.now(UTC) + timedelta(days=1)
    assert jobs.prune(database, later, at_once=1) == 1
    assert [outcome.key for outcome in await fleet.unknown()] == ["lost"]


@pytest.mark.measured
@pytest.mark.storm
async def test_an_engine_that_cannot_be_launched_leaves_the_process_free_for_another(
    url: str, fleet: Fleet, tmp_path: Path
) -> None:
    process: Any = None
    with pytest.raises(engine_errors.DBOSException, match="does not exist"):
        await asyncio.to_thread(engine.launch, f"sqlite:///{tmp_path / 'nowhere' / 'run.db'}", "w", process)
    async with host() as (_, piapi), at_work(url, piapi):
        assert (await (await fleet.submit(cat("k"))).wait(30)).ok


@pytest.mark.measured
@pytest.mark.storm
def test_a_program_with_a_dbos_application_of_its_own_is_told_to_run_its_worker_elsewhere(
    tmp_path: Path,
) -> None:
    program = """
import asyncio, sys
from dbos import DBOS
from piapi_async import PiAPI
from piapi_async.fleet import Worker

async def main():
    DBOS(config={"name": "mine", "system_database_url": sys.argv[1]})
    async with PiAPI("k") as piapi, Worker(sys.argv[1], piapi) as worker:
        await worker.run()

asyncio.run(main())
"""
    child = ended(sys.executable, "-c", program, f"sqlite:///{empty_database(tmp_path)}")

    assert child.code == 1
    assert "This process has a DBOS application of its own" in child.said.splitlines()[-1]


async def test_a_worker_that_dies_while_it_settles_a_late_answer_leaves_it_to_the_next(
    fleet: Fleet, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception): ...

    def die(*_: object) -> None:
        raise Died

    await left_unknown(fleet, database, "k")
    database.settle_origin(REF.origin)
    database.take_task(REF, "k#1")
    monkeypatch.setattr(database.client, "enqueue_in_transaction", die)
    with pytest.raises(Died):
        jobs.settle_found(database)
    monkeypatch.undo()

    assert database.task_of("k#1") == (REF, False)
    assert jobs.settle_found(database) == 1
    assert database.task_of("k#2") == (REF, False)


async def test_a_task_of_any_earlier_attempt_makes_a_post_needless(database: Database) -> None:
    database.settle_origin(REF.origin)
    database.take_task(REF, "k#1")

    assert database.task_of_any(["k#1", "k#2", "k#3"]) == (REF, "k#1")
    assert database.move_task(REF, "k#1", "k#3")
    assert database.task_of_any(["k#1", "k#2", "k#3"]) == (REF, "k#3")
    assert database.task_of_any(["k#1", "k#2"]) is None


async def test_a_key_that_is_cancelled_in_the_queue_again_and_again_is_queued_each_time(
    fleet: Fleet,
) -> None:
    for _ in range(3):
        await fleet.submit(cat("k"), key="k")
        assert (await fleet.counts())["queued"] == 1
        assert await fleet.cancel("k")


@pytest.mark.parametrize(("state", "queued"), [(codec.REFUSED, 1), (codec.CANCELLED, 0), (codec.DONE, 0)])
async def test_of_pruned_keys_those_that_were_refused_may_be_submitted_again(
    fleet: Fleet, database: Database, state: str, queued: int
) -> None:
    await fleet.submit(cat("k"), key="k")
    listed = jobs.listed_item(database, "k#1")
    assert listed is not None
    database.keep(KeyNote("k", 1, state, (listed.attributes or {})["digest"], "{}"))
    database.client.delete_workflows(["k#1"])

    await fleet.submit(cat("k"), key="k")

    assert (await fleet.counts())["queued"] == queued
