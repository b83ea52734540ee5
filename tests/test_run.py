"""`PiAPI.run`: submit, watch, wait and save in one, and what becomes of it when its caller leaves."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from support.families import FamilyCase
from support.serving import REROLL, now, serving, turns

from piapi_async import (
    DownloadError,
    Ledger,
    NotFoundError,
    PiAPI,
    Reroll,
    Task,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
)
from piapi_async.emulator import Emulator, SlowFirstByte, Status

pytestmark = pytest.mark.looptime


def created(emulator: Emulator) -> list[Any]:
    """Return the tasks that were made, but for adopted parents."""
    return [task for task in emulator.engine.tasks.values() if task.origin]


async def test_returns_the_finished_task_and_says_where_its_files_are(
    case: FamilyCase, tmp_path: Path
) -> None:
    shown: list[Task[Any]] = []
    async with serving() as (emulator, piapi):
        request = case.reroll("6886fc4d")
        task = await piapi.run(request, timeout=600, on_update=shown.append, download=tmp_path / "new")

        assert len(created(emulator)) == 1
    assert task.ok
    assert shown[-1].ok
    assert len(shown) > 2
    assert any(not one.done for one in shown)
    saved = [Path(file.saved_as) for file in task.files if file.saved_as is not None]
    assert saved
    assert all(path.is_file() and path.parent == tmp_path / "new" for path in saved)


async def test_an_update_that_raises_is_logged_once_and_one_that_hangs_ends_with_the_timeout(
    case: FamilyCase, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no such message")

    async def hang(_: object) -> None:
        await asyncio.sleep(1000.0)

    async with serving() as (_, piapi):
        assert (await piapi.run(case.reroll("p1"), on_update=fail)).ok
        began = now()
        with pytest.raises(WaitTimeout):
            await piapi.run(case.reroll("p2"), on_update=hang, timeout=5)

        assert now() - began == pytest.approx(5.0, abs=0.1)
    assert "no such message" in caplog.text
    assert 1 == caplog.text.count("on_update raised")


@pytest.mark.parametrize("watched", [True, False])
async def test_a_task_that_fails_raises_as_a_wait_does(case: FamilyCase, *, watched: bool) -> None:
    shown: list[Task[Any]] = []
    on_update = shown.append if watched else None
    async with serving(failure_rate=1.0) as (_, piapi):
        with pytest.raises(TaskFailed) as caught:
            await piapi.run(case.reroll("p"), on_update=on_update)

    assert caught.value.task.done
    assert watched == bool(shown)


async def test_a_failed_save_carries_the_task(case: FamilyCase, tmp_path: Path) -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("download", Status(410), rate=1.0)
        with pytest.raises(DownloadError) as caught:
            await piapi.run(case.reroll("p"), download=tmp_path)

    assert caught.value.task is not None
    assert caught.value.task.ok


async def test_what_cannot_work_is_refused_before_it_is_paid_for(case: FamilyCase, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    async with serving() as (emulator, piapi):
        wrong: list[dict[str, Any]] = [
            {"timeout": float("nan")},
            {"on_cancel": "stop"},
            {"on_update": 5},
            {"key": "k"},
            {"download": tmp_path / "a file"},
            {"download": "bad\0name"},
        ]
        for keywords in wrong:
            with pytest.raises((ValueError, TypeError, DownloadError)):
                await piapi.run(case.reroll("p"), **keywords)

        assert created(emulator) == []


async def test_a_key_runs_once_and_tells_its_end_again(case: FamilyCase, tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "l.db")}) as (emulator, piapi):
        first = await piapi.run(case.reroll("p"), key="order 17", download=tmp_path)
        shown: list[Task[Any]] = []
        again = await piapi.run(case.reroll("p"), key="order 17", download=tmp_path, on_update=shown.append)

        assert len(created(emulator)) == 1
    assert first.task_id == again.task_id
    assert [True] == [task.ok for task in shown]
    assert [file.saved_as for file in first.files] == [file.saved_as for file in again.files]


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("on_cancel", ["leave", "cancel_remote"])
async def test_a_caller_who_leaves_the_wait_has_the_task_cancelled_if_that_was_asked_for(
    cancelling_case: FamilyCase, on_cancel: Any, caplog: pytest.LogCaptureFixture, *, watched: bool
) -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        busy = await piapi.submit(cancelling_case.reroll("other"))
        on_update = (lambda _: None) if watched else None
        run = asyncio.create_task(
            piapi.run(cancelling_case.reroll("p"), on_update=on_update, on_cancel=on_cancel)
        )
        await asyncio.sleep(5.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await busy.wait()

        ref = created(emulator)[-1].task_id
        handle = piapi.attach(ref, family=cancelling_case.family)
        told = f"run was cancelled; its task {ref} goes on, and stays paid for"
        assert (told in caplog.text) == (on_cancel == "leave")
        if on_cancel == "leave":
            assert (await handle.wait()).ok
        else:
            with pytest.raises(TaskCancelled):
                await handle.wait()


@pytest.mark.parametrize("watched", [True, False])
async def test_a_caller_who_leaves_is_told_of_a_task_that_had_started_and_so_could_not_be_cancelled(
    cancelling_case: FamilyCase, caplog: pytest.LogCaptureFixture, *, watched: bool
) -> None:
    async with serving(durations=60.0) as (emulator, piapi):
        on_update = (lambda _: None) if watched else None
        request = cancelling_case.reroll("p")
        run = asyncio.create_task(piapi.run(request, on_update=on_update, on_cancel="cancel_remote"))
        await asyncio.sleep(30.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        task_id = created(emulator)[-1].task_id
    assert f"{task_id} could not be cancelled at the host; it goes on, and stays paid for" in caplog.text


@pytest.mark.parametrize(("ledger", "level"), [(False, logging.WARNING), (True, logging.INFO)])
async def test_a_caller_who_leaves_while_files_are_saved_is_told_of_the_task(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    ledger: bool,  # noqa: FBT001 - a table's column
    level: int,
) -> None:
    caplog.set_level(logging.INFO, logger="piapi_async")  # commands of other tests may have raised it
    options = {"ledger": Ledger(tmp_path / "run.db")} if ledger else {}
    async with serving(options, durations=10.0) as (emulator, piapi):
        emulator.fail("download", SlowFirstByte(1000.0), times=None)
        run = asyncio.create_task(piapi.run(REROLL, download=tmp_path / "pictures"))
        await asyncio.sleep(30.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        [told] = [record for record in caplog.records if "run was cancelled" in record.getMessage()]
        assert (told.levelno, told.__dict__["task_id"]) == (level, created(emulator)[-1].task_id)
        assert "has ended, and its files may not have been saved" in told.getMessage()


@pytest.mark.parametrize("closes", [True, False])
async def test_an_id_that_arrives_after_the_caller_left_is_cancelled_at_the_host(
    cancelling_case: FamilyCase, *, closes: bool
) -> None:
    async with serving(concurrency=1) as (emulator, piapi):
        # so that the next one waits, and can be cancelled
        await piapi.submit(cancelling_case.reroll("other"))
        emulator.fail(cancelling_case.create, SlowFirstByte(10.0))
        run = asyncio.create_task(piapi.run(cancelling_case.reroll("p"), on_cancel="cancel_remote"))
        await asyncio.sleep(2.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        if closes:
            await piapi.close()
        await asyncio.sleep(20.0)

        assert emulator.seen.requests[cancelling_case.cancel] == 1


async def test_a_caller_who_leaves_in_any_turn_of_the_loop_leaves_no_task_that_goes_on() -> None:
    turn, done = 0, False
    while not done:
        async with serving(concurrency=1) as (emulator, piapi):
            await piapi.submit(Reroll("other"))
            run = asyncio.create_task(piapi.run(Reroll("p"), on_cancel="cancel_remote"))
            await turns(turn)
            done = emulator.seen.requests["fetch"] + emulator.seen.requests["multi_fetch"] > 0 or turn > 60
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            await piapi.close()
            assert emulator.seen.requests["cancel"] == len(created(emulator)) - 1
        turn += 6


async def test_a_refusal_is_raised_as_submit_raises_it(case: FamilyCase) -> None:
    async with serving(adopt_parents=False) as (_, piapi):
        with pytest.raises(NotFoundError):
            await piapi.run(case.reroll("nobody's"))


async def test_a_cancellation_out_of_on_update_is_the_callers_only_if_he_was_cancelled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def cancel_itself(_: object) -> None:
        raise asyncio.CancelledError

    async def sleep(_: object) -> None:
        await asyncio.sleep(1000.0)

    async with serving(concurrency=1) as (emulator, piapi):
        assert (await piapi.run(Reroll("p"), on_update=cancel_itself)).ok
        assert "on_update raised" in caplog.text

        await piapi.submit(Reroll("other"))
        run = asyncio.create_task(piapi.run(Reroll("q"), on_update=sleep, on_cancel="cancel_remote"))
        await asyncio.sleep(5.0)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

        assert emulator.seen.requests["cancel"] == 1


async def test_a_folder_that_goes_while_one_waits_costs_no_task(tmp_path: Path) -> None:
    folder = tmp_path / "new"

    def replace_folder(_: object) -> None:
        if folder.is_dir():
            folder.rmdir()
            folder.write_text("")

    async with serving() as (_, piapi):
        with pytest.raises(DownloadError) as caught:
            await piapi.run(Reroll("p"), download=folder, on_update=replace_folder)

    assert caught.value.task is not None
    assert caught.value.task.ok


def test_every_argument_is_checked_by_the_client_alone() -> None:
    for wrong, kind in (
        ({"connections": 0}, ValueError),
        ({"retry": 5}, TypeError),
        ({"recover": -1}, ValueError),
    ):
        with pytest.raises(kind, match=next(iter(wrong))):
            PiAPI("k", **wrong)  # type: ignore[arg-type]
