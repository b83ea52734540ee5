"""Lost submissions of batches and of the command line, and how their tasks come home."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from click.testing import CliRunner, Result
from support.serving import KEY, serving
from support.threaded_emulator import threaded_emulator

from piapi_async import (
    BatchItem,
    BatchRunner,
    Cost,
    CreateTask,
    Ledger,
    PiAPI,
    PollPolicy,
    SubmissionUnknown,
    TaskFailed,
    Totals,
)
from piapi_async.batch._budget import Budget
from piapi_async.cli import cli
from piapi_async.emulator import Dialect, Drop, Emulator, Status, TaskFails

LOST = Drop(after_body=True)
WIDE: dict[str, Any] = {"concurrency": 1_000, "queue": 10_000}


def cats(count: int) -> list[BatchItem[Any]]:
    return [
        BatchItem(CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": f"cat {number}"}), f"k{number}")
        for number in range(count)
    ]


async def lose(emulator: Emulator, path: Path, count: int) -> None:
    """Leave so many submissions unknown in a ledger."""
    emulator.fail("create", LOST, times=count)
    async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path), recover=0) as piapi:
        submits = [piapi.submit(item.request, key=item.key) for item in cats(count)]
        ends = await asyncio.gather(*submits, return_exceptions=True)
        assert all(isinstance(end, SubmissionUnknown) for end in ends)


@pytest.mark.looptime
async def test_a_batch_that_goes_on_finds_all_that_was_lost_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with serving(**WIDE) as (emulator, _):
        await lose(emulator, path, 60)
        poll = PollPolicy.every(1.0)
        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path), poll=poll) as piapi:
            outcomes = await BatchRunner(piapi, concurrency=10).run(cats(80))

        assert all(outcome.ok for outcome in outcomes)
        assert ["history"] * 60 + [""] * 20 == [outcome.recovered for outcome in outcomes]
        assert len(emulator.engine.tasks) == 80
        assert emulator.seen.requests["history"] <= 2


@pytest.mark.looptime
async def test_a_batch_looks_once_more_at_its_end_and_follows_what_it_finds(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    client = {"ledger": ledger, "recover": 2.0}
    async with serving(client, dialect=Dialect(history_lag=10.0), **WIDE) as (emulator, piapi):
        emulator.fail("create", LOST, times=2)
        seen: list[Totals] = []
        runner = BatchRunner(piapi, on_progress=seen.append)
        outcomes = await runner.run(cats(4))

        assert all(outcome.ok and not outcome.resumed for outcome in outcomes)
        assert {"", "history"} == {outcome.recovered for outcome in outcomes}
        assert len({outcome.ref for outcome in outcomes}) == 4 == len(emulator.engine.tasks)
        assert [] == await ledger.unknown()
        assert (4, 4, 0, 0) == (seen[-1].done, seen[-1].submitted, seen[-1].resumed, seen[-1].unknown)
        assert all(totals.waiting + totals.running + totals.ended <= totals.read for totals in seen)
        assert () == seen[-1].frozen_costs


@pytest.mark.looptime
async def test_what_the_last_look_does_not_find_is_unknown(tmp_path: Path) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db"), "recover": 2.0}
    async with serving(client, **WIDE) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True, made=False))
        outcomes = await BatchRunner(piapi).run(cats(2))

        assert [True, False] == sorted((outcome.ok for outcome in outcomes), reverse=True)
        assert any(isinstance(outcome.error, SubmissionUnknown) for outcome in outcomes)


@pytest.mark.looptime
async def test_leaving_a_stream_tells_what_was_held_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db"), "recover": 1.0}
    async with serving(client, dialect=Dialect(history_lag=99.0), **WIDE) as (emulator, piapi):
        emulator.fail("create", LOST)
        async with BatchRunner(piapi, concurrency=2).stream(cats(2)) as stream:
            async for outcome in stream:
                assert outcome.ok  # the lost one is held while the other goes on
                break

        assert "k0" in caplog.text
        assert "may have been accepted" in caplog.text


@pytest.mark.looptime
async def test_an_attempt_that_takes_a_failed_ones_place_is_looked_for_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    client = {"ledger": Ledger(path), "recover": 2.0}
    async with serving(client, dialect=Dialect(history_lag=10.0), **WIDE) as (emulator, piapi):
        emulator.fail("create", TaskFails("it went wrong"))
        [first] = await BatchRunner(piapi).run(cats(1))
        assert isinstance(first.error, TaskFailed)

        emulator.fail("create", LOST)
        seen: list[Totals] = []
        runner = BatchRunner(piapi, retry_failed=True, concurrency=1, on_progress=seen.append)
        [again, other] = await runner.run(evolve(item, extra=item.key) for item in cats(2))

        assert (again.key, other.key) == (again.extra, other.extra)
        assert again.ok
        assert other.ok
        assert (again.recovered, again.ref != first.ref) == ("history", True)
        assert (2, 1, 0) == (seen[-1].submitted, seen[-1].retried, seen[-1].resumed)


def test_what_an_unknown_item_may_cost_counts_once_when_its_task_is_found() -> None:
    budget = Budget()
    budget.freeze(0, Cost(3, "USD"))
    kept = budget.keep(0)
    assert (Cost(3, "USD"),) == budget.frozen()

    budget.revive(0, kept)
    assert (Cost(3, "USD"),) == budget.frozen()
    budget.consume(0, Cost(2, "USD"), is_done=True)
    assert ((), (Cost(2, "USD"),)) == (budget.frozen(), budget.costs())


# -- from a terminal ------------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    monkeypatch.chdir(tmp_path)
    with threaded_emulator(api_keys=(KEY,)) as (emulator, url):
        monkeypatch.setenv("PIAPI_API_KEY", KEY)
        monkeypatch.setenv("PIAPI_BASE_URL", url)
        yield emulator


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


def shown() -> dict[str, dict[str, Any]]:
    lines = run("ledger", "show", "run.db").stdout.splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def test_a_ledger_is_recovered_by_hand_and_shows_how_each_was_found(host: Emulator) -> None:
    asyncio.run(lose(host, Path("run.db"), 2))
    host.fail("create", Drop(after_body=True, made=False))

    async def nothing_made() -> None:
        async with PiAPI(KEY, base_url=host.base_url, ledger=Ledger("run.db"), recover=0) as piapi:
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(
                    CreateTask("kling", "video_generation", {"prompt": "it yawns"}), key="none"
                )

    asyncio.run(nothing_made())
    result = run("ledger", "recover", "run.db")

    said = {row["key"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert set(host.engine.tasks) == {said[key]["task_id"] for key in ("k0", "k1")}
    assert said["none"] == {"key": "none", "task_id": None, "candidates": []}
    assert (result.exit_code, "2 found, 1 still unknown" in result.stderr) == (6, True)
    assert {"k0": "history", "k1": "history", "none": ""} == {
        key: row["found"] for key, row in shown().items()
    }


def test_a_submission_is_looked_for_before_it_may_be_sent_again(host: Emulator) -> None:
    asyncio.run(lose(host, Path("run.db"), 1))
    result = run("ledger", "resolve", "run.db", "k0", "--resubmit")

    [task_id] = host.engine.tasks
    assert result.exit_code == 0
    assert f"it made task {task_id}" in result.stderr
    assert shown()["k0"]["state"] == "accepted"


def test_without_an_api_key_a_person_is_believed(host: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(lose(host, Path("run.db"), 1))
    monkeypatch.delenv("PIAPI_API_KEY")
    result = run("ledger", "resolve", "run.db", "k0", "--resubmit")

    assert "not looked for" in result.stderr
    assert "may be submitted again" in result.stderr
    assert {} == shown()


def test_what_was_submitted_to_another_host_is_not_said_to_be_known(
    host: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(lose(host, Path("run.db"), 2))
    with threaded_emulator() as (_, other):
        monkeypatch.setenv("PIAPI_BASE_URL", other)
        recovered = run("ledger", "recover", "run.db")
        resolved = run("ledger", "resolve", "run.db", "k0", "--resubmit")

    assert recovered.exit_code == 6
    assert f"2 more are unknown that were submitted to {host.base_url}" in recovered.stderr
    assert f"Its task was not looked for: it was submitted to {host.base_url}" in resolved.stderr


def test_a_look_that_failed_is_told_to_the_person_who_says_that_no_task_was_made(host: Emulator) -> None:
    asyncio.run(lose(host, Path("run.db"), 2))
    host.fail("history", Status(503), times=None)
    recovered = run("ledger", "recover", "run.db")
    resolved = run("ledger", "resolve", "run.db", "k0", "--resubmit")

    assert "0 found, 2 still unknown" in recovered.stderr
    assert "Not all could be looked for" in recovered.stderr
    assert "503" in recovered.stderr
    assert "Its task was not looked for" in resolved.stderr
    assert "may be submitted again" in resolved.stderr


def test_tasks_that_fit_are_told_to_the_person_who_says_that_no_task_was_made(host: Emulator) -> None:
    asyncio.run(lose(host, Path("run.db"), 1))

    async def submit_the_same_elsewhere() -> None:
        async with PiAPI(KEY, base_url=host.base_url, recover=0) as piapi:
            await piapi.submit(cats(1)[0].request)

    asyncio.run(submit_the_same_elsewhere())
    resolved = run("ledger", "resolve", "run.db", "k0", "--resubmit")

    assert "2 tasks fit it" in resolved.stderr
    assert all(task_id in resolved.stderr for task_id in host.engine.tasks)
