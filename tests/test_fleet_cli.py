"""`piapi-async batch --database` and its relatives, on a file of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.fleets import cat, empty_database
from support.processes import started, wait_until
from support.threaded_emulator import end_all, threaded_emulator

from piapi_async import BatchItem, DownloadError, Imagine, KeyReused, Outcome, PiAPIError, SubmissionUnknown
from piapi_async.cli import cli
from piapi_async.cli._batch._fleet import FleetRun
from piapi_async.cli._batch._lines import Line, Origin
from piapi_async.cli._batch._results import Results
from piapi_async.cli._exit import ExitCode
from piapi_async.cli._fleet_options import file_of, shown
from piapi_async.cli._setup import Setup
from piapi_async.fleet import Fleet
from piapi_async.fleet import _codec as codec
from piapi_async.fleet import _jobs as jobs
from piapi_async.fleet._database import CAN_SQLITE, Database, KeyNote

pytestmark = pytest.mark.skipif(
    not CAN_SQLITE, reason="the engine needs SQLite 3.42 on Python 3.12 and later"
)

URL = "sqlite:///run.db"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = [{"verb": "imagine", "prompt": f"a cat {number}"} for number in (1, 2, 2)]
    (tmp_path / "cats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return tmp_path


def command(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def rows(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.measured
@pytest.mark.storm
def test_a_batch_on_a_file_has_a_worker_of_its_own_and_goes_on_where_it_was() -> None:
    words = (
        "--emulator",
        "batch",
        "cats.jsonl",
        "--database",
        URL,
        "--out",
        "out.jsonl",
        "--download",
        "pictures",
    )
    first = command(*words)

    assert first.exit_code == 0, first.stderr
    assert "3 done, 0 failed, 0 unknown, 0 in the results already, 0 left" in first.stderr
    assert {row["line"] for row in rows()} == {1, 2, 3}
    assert len({row["task_id"] for row in rows()}) == 3
    results = [file for row in rows() for file in row["files"] if file["role"] == "result"]
    assert all(Path(file["saved_as"]).exists() for file in results)

    kept = rows()
    Path("out.jsonl").write_text(json.dumps(kept[0]) + "\n", encoding="utf-8")
    again = command(*words)
    assert again.exit_code == 0, again.stderr
    assert "2 done, 0 failed, 0 unknown, 1 in the results already" in again.stderr
    assert {row["task_id"] for row in rows()} == {row["task_id"] for row in kept}

    status = command("batch", "status", "--database", URL)
    assert json.loads(status.stdout)["done"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("batch", "cats.jsonl", "--database", "mysql://u:hunter2@h/d"), "must begin with sqlite:///"),
        (("batch", "cats.jsonl", "--database", URL, "--ledger", "l.db"), "exclude each other"),
        (("worker", "--database", URL, "--ledger", "l.db"), "exclude each other"),
        (("worker", "--database", URL, "--rate-limit", "fast"), "not tasks per seconds"),
        (
            ("batch", "cats.jsonl", "--database", URL, "--max-submits", "3"),
            "--max-submits is not for a fleet",
        ),
        (
            ("batch", "cats.jsonl", "--database", "postgresql://h/d", "--download", "x"),
            "--download is the workers'",
        ),
        (("batch", "status"), "give a LEDGER, or --database URL"),
        (("ledger", "resolve", URL, "nobody", "--resubmit"), "is not an unknown job"),
    ],
)
def test_what_does_not_fit_a_fleet_is_refused_before_anything_is_done(
    words: tuple[str, ...], said: str
) -> None:
    result = command(*words)

    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.stderr


def test_an_unknown_job_is_resolved_by_hand(tmp_path: Path) -> None:
    async def submit() -> None:
        async with Fleet(URL) as fleet:
            await fleet.submit(cat("k"), key="k")

    database = Database.open(f"sqlite:///{empty_database(tmp_path)}")
    try:
        asyncio.run(submit())
        listed = jobs.listed_item(database, "k#1")
        assert listed is not None
        database.note_end(KeyNote("k", 1, codec.UNKNOWN, (listed.attributes or {})["digest"]))

        result = command("ledger", "resolve", URL, "k", "--resubmit")
        assert result.exit_code == 0, result.stderr
        assert jobs.listed_item(database, "k#2") is not None
        assert 2 == command("ledger", "resolve", URL, "k", "--resubmit").exit_code
    finally:
        database.close()


def test_a_worker_of_another_host_is_told_whose_the_fleet_is(tmp_path: Path) -> None:
    opened = Database.open(f"sqlite:///{empty_database(tmp_path)}")
    opened.settle_origin("https://elsewhere.example")
    opened.close()
    result = command("worker", "--database", URL, "--emulator")

    assert result.exit_code == 2
    assert "this fleet works at https://elsewhere.example, and its client speaks to http://" in result.stderr


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql://me:hunter2@host/app") == "postgresql://me:***@host/app"
    assert shown("postgresql://me:hunt@2@host/app") == "postgresql://me:***@host/app"
    assert shown(URL) == URL
    assert file_of(URL) == Path("run.db")
    assert file_of("postgresql://host/app") is None


@pytest.mark.measured
@pytest.mark.storm
def test_a_batch_whose_own_worker_is_told_to_leave_ends_and_the_next_goes_on_with_its_tasks() -> None:
    words = ("batch", "cats.jsonl", "--database", URL, "--out", "out.jsonl")
    with threaded_emulator(durations=3600.0) as (emulator, base_url):
        environment = {**os.environ, "PIAPI_API_KEY": emulator.api_key, "PIAPI_BASE_URL": base_url}
        with started(sys.executable, "-m", "piapi_async", *words, env=environment) as child:
            wait_until(lambda: len(emulator.engine.tasks) == 3)
            child.signal(signal.SIGTERM)

            assert child.finish() == ExitCode.INTERRUPTED, child.said
            assert "3 left\nTo go on: piapi-async" in child.said

        end_all(emulator)
        again = CliRunner(env=environment).invoke(cli, words)
        assert again.exit_code == 0, again.stderr
        assert {row["task_id"] for row in rows()} == set(emulator.engine.tasks)


def test_a_run_over_a_fleet_counts_what_its_jobs_came_to(capsys: pytest.CaptureFixture[str]) -> None:
    origin = Origin(1, "imagine", {"prompt": "a cat"}, {})
    line = Line(Imagine("a cat"), "k", origin)
    requests: Any = None
    results = Results.on_stdout()
    run = FleetRun(Setup(), "postgresql://h/d", requests, 5, results, "piapi-async batch …", {})
    for error in (
        None,
        SubmissionUnknown("who knows", request=line.request, at=0.0),
        PiAPIError("no"),
        DownloadError("no room"),
    ):
        download_error = error if isinstance(error, DownloadError) else None
        run._take(
            Outcome(index=0, request=line.request, key="k", error=error, download_error=download_error), line
        )

    assert (run.done, run.failed, run.unknown, run.unsaved) == (2, 1, 1, 1)
    with pytest.raises(SystemExit) as caught:
        run._exit()
    assert caught.value.code == 6
    run._say_totals()
    assert "The workers go on with them. To go on: piapi-async batch" in capsys.readouterr().err


def test_a_key_that_stands_for_another_request_leaves_nothing_in_the_queue() -> None:
    async def submit() -> tuple[str, str, Counter[str]]:
        async with Fleet(URL) as fleet:
            await fleet.submit(Imagine("first"), key="k")
            clash = [*(BatchItem(Imagine(f"p{number}"), f"n{number}") for number in range(3))]
            clash.append(BatchItem(Imagine("another"), "k"))
            with pytest.raises(KeyReused) as alone:
                await fleet.submit_many(clash)
            counts = Counter(await fleet.counts())
            with pytest.raises(KeyReused):
                await fleet.submit_many(
                    [*clash[:3], BatchItem(Imagine("p"), "z"), BatchItem(Imagine("q"), "z")]
                )
            counts.update(await fleet.counts())
            many = [BatchItem(Imagine(f"q{number}"), f"m{number}") for number in range(jobs.AT_ONCE)]
            with pytest.raises(KeyReused) as late:
                await fleet.submit_many([*many, *clash])
            return str(alone.value), str(late.value), counts

    alone, late, counts = asyncio.run(submit())

    assert "'k' stands for another request in this fleet. Nothing was submitted" in alone
    assert counts.total() == 2  # one each time
    assert f"The first {jobs.AT_ONCE} items are in the fleet, which goes on with them" in late
