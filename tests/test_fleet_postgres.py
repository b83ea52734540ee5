"""A fleet on PostgreSQL: a batch whose workers are elsewhere, and a server that goes away and comes back."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from support import fleet_worker
from support.fleets import at_work, cat, host
from support.postgres import Server, postgres_server
from support.processes import PATIENCE, becomes_true, started
from support.threaded_emulator import threaded_emulator

from piapi_async.cli import cli
from piapi_async.emulator import Dialect, Drop
from piapi_async.fleet import Fleet

# Connections that a stop of the server has cut are dropped by SQLAlchemy with their pool, and closed by
# whoever collects them.
CUT_OFF = "ignore:<psycopg.Connection:ResourceWarning"
pytestmark = [pytest.mark.storm, pytest.mark.measured, pytest.mark.filterwarnings(CUT_OFF)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server("-c log_min_duration_statement=0") as running:
        yield running


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Leave no connection that was cut off for the next test to collect."""
    yield
    gc.collect()


def database_of(server: Server, name: str) -> str:
    return server.url.replace("/app?", f"/{name}?")


def test_a_batch_is_worked_on_by_workers_elsewhere_and_a_second_run_follows_the_same_jobs(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats.jsonl").write_text('{"verb": "imagine", "prompt": "a cat"}\n' * 2)
    url = database_of(server, "batch")
    run = ("batch", "cats.jsonl", "--database", url, "--out")
    limits = ("--concurrency", "3", "--per-worker", "2", "--rate-limit", "9/2")
    words = ("worker", "--database", url, "--emulator", *limits, "--download", "pictures")
    with started(sys.executable, "-m", "piapi_async", *words) as worker:
        worker.says("is at work for postgresql://")
        ids = []
        for out in ("first.jsonl", "second.jsonl"):
            result = CliRunner().invoke(cli, [*run, out])
            assert result.exit_code == 0, result.stderr
            assert "2 jobs are in postgresql://" in result.stderr
            ids.append({json.loads(line)["task_id"] for line in Path(out).read_text().splitlines()})
        worker.signal(signal.SIGTERM)
        assert worker.finish() == 0, worker.said
        assert "Handed over." in worker.said

    # A name would be unknown to the next connection behind a pooler; making the tables is one connection's work.
    statements = [line for line in server.log.read_text().splitlines() if "FROM piapi." in line]
    assert any("execute <unnamed>" in line for line in statements)
    assert not [line for line in statements if "execute _pg3" in line]

    assert any(Path("pictures").iterdir())
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2
    status = CliRunner().invoke(cli, ["batch", "status", "--database", url])
    assert json.loads(status.stdout)["done"] == 2


def waiting(caplog: pytest.LogCaptureFixture) -> set[str]:
    """Return the keys whose lines say that they wait for the database."""
    lines = [record for record in caplog.records if "waits for the fleet's database" in record.getMessage()]
    return {vars(record)["key"] for record in lines}


def stopping(server: Server, at: int) -> Callable[[Random], float]:
    """Return the durations of tasks; the database's server stops before the response to create number `at`."""
    numbers = count(1)

    def duration(_: Random) -> float:
        if next(numbers) == at:
            server.stop()
        return 3600.0

    return duration


async def test_a_server_that_goes_away_for_a_while_loses_no_job(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = database_of(server, "outage")
    patient = {"timeout": 60.0, "recover": 600.0}
    dialect = Dialect(history_from="end")  # one job is looked for until its task ends
    in_vain = host(patient, dialect=dialect, durations=stopping(server, at=2))
    async with in_vain as (emulator, piapi), Fleet(url, poll=0.05) as fleet:
        emulator.fail("create", Drop(after_body=True), times=1)
        async with at_work(url, piapi, lease=1.0):
            lost = await fleet.submit(cat("lost"), key="lost")
            await becomes_true(lambda: emulator.engine.tasks)
            kept = await fleet.submit(cat("kept"), key="kept")
            try:
                await becomes_true(lambda: waiting(caplog) == {"lost", "kept"})
            finally:
                await asyncio.to_thread(server.start)

            for task_id in list(emulator.engine.tasks):
                emulator.end(task_id)
            outcomes = [await job.wait(PATIENCE) for job in (lost, kept)]

        assert all(outcome.ok for outcome in outcomes), outcomes
        assert not await fleet.unknown()
        assert len(emulator.engine.tasks) == 2


async def test_a_worker_that_is_told_to_leave_ends_though_its_database_is_away(server: Server) -> None:
    url = database_of(server, "leaving")
    with threaded_emulator(durations=stopping(server, at=1)) as (emulator, base_url):
        async with Fleet(url) as fleet:
            await fleet.submit(cat("held"))
            words = (url, base_url, emulator.api_key, "4")
            with started(sys.executable, fleet_worker.__file__, *words) as worker:
                try:
                    await asyncio.to_thread(worker.says, "waits for the fleet's database")
                    worker.signal(signal.SIGTERM)
                    assert await asyncio.to_thread(worker.finish) is not None
                finally:
                    await asyncio.to_thread(server.start)


async def test_a_connection_that_is_lost_in_a_commit_makes_no_second_job(server: Server) -> None:
    async with Fleet(database_of(server, "commits")) as fleet:
        database: Any = fleet._opened
        lost: list[Any] = []

        def lose(connection: Any) -> None:
            """Commit, and lose the connection before anybody hears of it."""
            if not lost:
                lost.append(connection)
                driver = connection.connection.dbapi_connection
                driver.commit()
                driver.close()

        sa.event.listen(database.engine, "commit", lose)
        await fleet.submit(cat("once"))
        assert lost
        assert (await fleet.counts())["queued"] == 1


async def test_a_server_that_is_gone_is_told_of_with_what_to_do(server: Server) -> None:
    async with Fleet(database_of(server, "gone")) as fleet:
        await asyncio.to_thread(server.stop)
        try:
            with pytest.raises(
                ConnectionError, match="To repeat it with the same key pays for nothing twice"
            ):
                await fleet.submit(cat("k"), key="k")
            with pytest.raises(ConnectionError, match="is out of reach"):
                await Fleet(database_of(server, "gone")).__aenter__()
        finally:
            await asyncio.to_thread(server.start)
        await fleet.submit(cat("k"), key="k")
        assert (await fleet.counts())["queued"] == 1
