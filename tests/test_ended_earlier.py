"""Results of earlier runs that the ledger has no more: the host alone has them, and nobody pays again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.serving import REROLL, now, serving

from piapi_async import BatchItem, BatchRunner, Ledger, NotFoundError, PiAPI, WaitTimeout
from piapi_async.emulator import Emulator, Status
from piapi_async.emulator._service.tasks import Stage
from piapi_async.ledger import compact

pytestmark = pytest.mark.looptime


async def end_and_compact(emulator: Emulator, piapi: PiAPI, ledger: Ledger, *, faults: int = 0) -> str:
    """Have the host make a task whose end the ledger forgets; the host's edge fails for a while then."""
    task = await piapi.run(REROLL, key="k")
    report = await compact(ledger, datetime.now(UTC) + timedelta(days=1))
    assert report.entries == 1
    if faults:
        emulator.fail("fetch", Status(502, body="<html>bad gateway</html>"), times=faults)
    return task.task_id


@pytest.mark.parametrize("in_batch", [False, True])
async def test_a_host_that_is_out_of_reach_is_waited_for(
    tmp_path: Path,
    in_batch: bool,  # noqa: FBT001 - a parameter
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        task_id = await end_and_compact(emulator, piapi, ledger, faults=12)
        began = now()
        if in_batch:
            [outcome] = await BatchRunner(piapi).run([BatchItem(REROLL, key="k")])
            assert outcome.error is None
            task = outcome.task
        else:
            task = await piapi.run(REROLL, key="k")

        assert task is not None
        assert (task.task_id, bool(task.images)) == (task_id, True)
        assert now() - began > 30.0
        assert emulator.seen.creates == 1


async def test_it_is_waited_for_no_longer_than_the_caller_allows(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        task_id = await end_and_compact(emulator, piapi, ledger, faults=12)
        with pytest.raises(
            WaitTimeout, match=f"{task_id} .*ended in an earlier run.* within 3 s.*502.*nothing was paid"
        ):
            await piapi.run(REROLL, key="k", timeout=3.0)


async def test_nobody_waits_for_ever_for_what_has_ended(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        await end_and_compact(emulator, piapi, ledger, faults=10_000)
        with pytest.raises(WaitTimeout, match="within 300 s"):
            await piapi.run(REROLL, key="k")


@pytest.mark.parametrize("in_batch", [False, True])
async def test_what_was_done_is_done_though_the_host_says_otherwise_later(
    tmp_path: Path,
    in_batch: bool,  # noqa: FBT001 - a parameter
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        first = await piapi.run(REROLL, key="k")
        emulator.engine.tasks[first.task_id].stage = Stage.FAILED
        if in_batch:
            runner = BatchRunner(piapi, retry_failed=True)
            [outcome] = await runner.run([BatchItem(REROLL, key="k")])
            assert outcome.error is None
            again = outcome.task
        else:
            again = await piapi.run(REROLL, key="k")

        assert again is not None
        assert (again.task_id, again.images) == (first.task_id, first.images)
        assert emulator.seen.creates == 1


async def test_a_result_that_the_ledger_has_no_more_and_the_host_denies_is_told(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        task_id = await end_and_compact(emulator, piapi, ledger)
        emulator.engine.tasks[task_id].stage = Stage.FAILED
        with pytest.raises(NotFoundError, match=r"ended well in an earlier run.*\(failed\)"):
            await piapi.run(REROLL, key="k")
        emulator.fail("fetch", Status(502, body="<html>bad gateway</html>"), times=3)
        with pytest.raises(NotFoundError, match="nothing was paid"):
            await piapi.run(REROLL, key="k")


async def test_a_task_that_the_host_has_forgotten_is_told_with_what_to_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=1.0) as (emulator, piapi):
        task_id = await end_and_compact(emulator, piapi, ledger)
        emulator.engine.tasks.clear()
        with pytest.raises(NotFoundError) as caught:
            await piapi.run(REROLL, key="k")

    for words in (task_id, "'k'", "task not found", "not kept it", "nothing was paid", "another key"):
        assert words in str(caught.value)
