"""A worker in this process: what becomes of each kind of job, and what a person can do about it."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.fleets import NEEDS_SQLITE, at_work, cat, empty_database, host
from support.processes import PATIENCE, becomes_true

from piapi_async import (
    AuthenticationError,
    DownloadError,
    InvalidRequestError,
    Ledger,
    PiAPI,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
)
from piapi_async.emulator import Dialect, Drop, NoFiles, Status, TaskFails
from piapi_async.fleet import Fleet, Worker

pytestmark = [pytest.mark.storm, pytest.mark.measured, NEEDS_SQLITE]


@pytest.fixture
async def url(tmp_path: Path) -> str:
    return f"sqlite:///{empty_database(tmp_path)}"


def items_with(task_id: str, url: str) -> list[Any]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute("SELECT item FROM piapi_tasks WHERE task_id = ?", (task_id,)).fetchall()


async def test_each_job_has_the_outcome_that_a_batch_would_give(url: str, tmp_path: Path) -> None:
    impatient = host({"timeout": 0.3}, dialect=Dialect(history=False), durations=0.05)
    async with impatient as (emulator, piapi), Fleet(url, poll=0.05) as fleet:
        async with at_work(
            url,
            piapi,
            concurrency=1,
            per_worker=1,
            rate_limit=(100, 1),
            download=tmp_path / "pics",
            lease=0.3,
        ):
            done = await (await fleet.submit(cat("done"), key="done")).wait(30)
            assert done.ok
            assert [Path(path).parent.name for path in done.files] == ["pics"]

            emulator.fail("create", Status(429, retry_after=0.1), times=1)
            assert (await (await fleet.submit(cat("later"))).wait(30)).ok

            emulator.fail(
                "create",
                Status(400, body={"data": {"task_id": "named"}, "message": "no"}, made=False),
                times=1,
            )
            refused = await fleet.submit(cat("refused"), key="refused")
            outcome = await refused.wait(30)
            assert isinstance(outcome.error, InvalidRequestError)
            assert (await fleet.counts())["refused"] == 1
            # nobody's: no worker finds it for the key's next attempt
            assert items_with("named", url) == [("",)]
            await fleet.submit(cat("refused"), key="refused")
            assert (await refused.wait(30)).ok

            emulator.fail("create", TaskFails("no cats"), times=1)
            failed = await (await fleet.submit(cat("failed"))).wait(30)
            assert isinstance(failed.error, TaskFailed)
            assert failed.task is not None
            assert failed.error.task is failed.task

            emulator.fail("create", Drop(after_body=True), times=1)
            lost = await fleet.submit(cat("lost"), key="lost")
            unknown = await lost.wait(30)
            assert isinstance(unknown.error, SubmissionUnknown)
            assert [each.key for each in await fleet.unknown()] == ["lost"]
            assert (await (await fleet.submit(cat("lost"), key="lost")).wait(30)).error is not None
            task_id = next(
                task.task_id for task in emulator.engine.tasks.values() if task.given["prompt"] == "cat lost"
            )
            with pytest.raises(ValueError, match="belongs to another"):
                await fleet.resolve("lost", task_id=done.ref.task_id if done.ref else "")
            await fleet.resolve("lost", task_id=task_id)
            assert (await lost.wait(30)).ok

            emulator.fail("create", Drop(after_body=True, made=False), times=1)
            never = await fleet.submit(cat("never"), key="never")
            await never.wait(30)
            await fleet.resolve("never", resubmit=True)
            assert (await never.wait(30)).ok
            assert await fleet.unknown() == []

            emulator.fail("read", NoFiles(), times=None)
            unsaved = await (await fleet.submit(cat("unsaved"))).wait(30)
            assert isinstance(unsaved.download_error, DownloadError)

        made = [task.given["prompt"] for task in emulator.engine.tasks.values()]
        assert len(made) == len(set(made))

        counts = await fleet.counts()
        assert await fleet.prune(datetime.now(UTC) + timedelta(days=1)) == sum(counts.values())
        assert await fleet.counts() == counts
        again = await (await fleet.submit(cat("done"), key="done")).wait(5)
        assert (again.ref, again.files, again.task) == (done.ref, done.files, None)
        with pytest.raises(ValueError, match="stands for another request"):
            await fleet.submit(cat("other"), key="done")


async def test_files_may_go_to_a_sink_that_all_machines_share(url: str) -> None:
    async with host({}, durations=0.05, picture_size=32) as (_, piapi), Fleet(url, poll=0.05) as fleet:
        async with at_work(url, piapi, download="memory://fleet/run", lease=0.3):
            outcome = await (await fleet.submit(cat("sunk"), key="sunk")).wait(30)

        assert outcome.ok, outcome.error
        assert outcome.files
        assert all(str(place).startswith("memory://") for place in outcome.files)
        places = [str(place).removeprefix("memory://") for place in outcome.files]
        assert all(MemoryFileSystem().exists(place) for place in places)


async def test_what_is_in_flight_is_handed_over_on_sigterm_and_cancelled_by_its_worker(url: str) -> None:
    async with host(durations=3600.0) as (emulator, piapi), Fleet(url, poll=0.05) as fleet:
        jobs = await fleet.submit_many([cat(number) for number in range(3)], batch="cats")
        async with at_work(url, piapi) as working:
            await becomes_true(lambda: len(emulator.engine.tasks) == 3)
            assert not await jobs[0].cancel()
            os.kill(os.getpid(), signal.SIGTERM)
            await working

        assert (await fleet.counts())["queued"] == 3
        async with at_work(url, piapi):
            assert isinstance((await jobs[0].wait(30)).error, TaskCancelled)
            for task_id in list(emulator.engine.tasks):
                emulator.end(task_id)
            outcomes = [outcome async for outcome in fleet.outcomes(batch="cats")]
        assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2]
        assert sum(outcome.ok for outcome in outcomes) == 2
        assert len(emulator.engine.tasks) == 3


async def test_a_lost_answer_is_found_in_the_history_and_of_equal_ones_each_its_own(url: str) -> None:
    patient = {"timeout": 30.0, "recover": 30.0}  # on a busy machine two looks take long
    async with host(patient) as (emulator, piapi), Fleet(url, poll=0.05) as fleet:
        emulator.fail("create", Drop(after_body=True), times=3)
        async with at_work(url, piapi):
            jobs = await fleet.submit_many([cat("same"), cat("same"), cat("other")])
            outcomes = [await job.wait(30) for job in jobs]

        assert all(outcome.ok for outcome in outcomes), [outcome.error for outcome in outcomes]
        assert {outcome.ref.task_id for outcome in outcomes if outcome.ref} == set(emulator.engine.tasks)
        assert len(emulator.engine.tasks) == 3


async def test_a_refused_key_ends_the_worker_and_no_job(url: str) -> None:
    async with host() as (emulator, piapi), Fleet(url, poll=0.05) as fleet:
        job = await fleet.submit(cat("patient"))
        base_url = piapi.origin
        async with (
            PiAPI("wrong", base_url=base_url) as stranger,
            at_work(url, stranger) as working,
        ):
            with pytest.raises(AuthenticationError):
                await working

        async with at_work(url, piapi):
            assert (await job.wait(30)).ok
        assert len(emulator.engine.tasks) == 1


async def test_a_worker_says_what_it_cannot_be(url: str, tmp_path: Path) -> None:
    async with host() as (_, piapi):
        for options in (
            {"concurrency": 0},
            {"per_worker": True},
            {"rate_limit": (0, 1)},
            {"lease": 0},
            {"poll": -1},
        ):
            with pytest.raises(ValueError, match="is not allowed"):
                Worker(url, piapi, **options)
        with pytest.raises(RuntimeError, match="async with Worker"):
            await Worker(url, piapi).run()

        async with PiAPI("k", base_url=piapi.origin, ledger=Ledger(tmp_path / "l.db")) as other:
            with pytest.raises(ValueError, match="its ledger is not allowed"):
                Worker(url, other)

        async with at_work(url, piapi) as working:
            async with Fleet(url, poll=0.05) as fleet:
                await (await fleet.submit(cat("first"))).wait(PATIENCE)  # so that this worker is the first
            async with Worker(url, piapi) as second:
                with pytest.raises(RuntimeError, match="one only"):
                    await second.run()
            assert not working.done()

        async with PiAPI("k", base_url="https://elsewhere.example") as other:
            with pytest.raises(ValueError, match="this fleet works at"):
                async with Worker(url, other):
                    pass
