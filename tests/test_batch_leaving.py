"""Batches that are left early or stopped, and iterables that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.batching import WIDE, Oops, as_async, check_account, leave_by_break, rerolls
from support.families import FamilyCase
from support.serving import KEY, REROLL, now, serving

from piapi_async import (
    BatchRunner,
    Ledger,
    PiAPI,
    Reroll,
    WaitTimeout,
)
from piapi_async.emulator import (
    SlowFirstByte,
)
from piapi_async.observe import Event, SubmissionAccepted

pytestmark = pytest.mark.looptime


def submits_that_hang() -> SlowFirstByte:
    return SlowFirstByte(1000)


# -- leaving early --------------------------------------------------------------------------------------------------


async def leave_by_error(runner: BatchRunner, requests: Any) -> None:
    with pytest.raises(Oops, match="as it is"):
        async with runner.stream(requests) as outcomes:
            async for _ in outcomes:
                raise Oops("as it is")


async def leave_by_timeout(runner: BatchRunner, requests: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(33), runner.stream(requests) as outcomes:
            async for _ in outcomes:
                await asyncio.sleep(100)


async def leave_by_cancellation(runner: BatchRunner, requests: Any) -> None:
    running = asyncio.create_task(runner.run(requests))
    await asyncio.sleep(33)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_error, leave_by_timeout, leave_by_cancellation])
async def test_leaving_early_stops_reading_and_submits_nothing_new(
    leave: Callable[[BatchRunner, Any], Any],
) -> None:
    read = itertools.count(1)
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=5)
        await leave(runner, (Reroll(f"parent-{number}") for number in read))
        made, reading = emulator.seen.requests["reroll"], next(read)
        await asyncio.sleep(1000)

        assert emulator.seen.requests["reroll"] == made
        assert next(read) == reading + 1
        assert runner.in_flight == []
        assert len(piapi._runtime.submitter) == 0
        assert [outcome.ok for outcome in await runner.run([REROLL])] == [True]  # it can be used again


async def test_leaving_early_waits_for_submits_that_have_begun_to_leave(
    tmp_path: Path, case: FamilyCase
) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, latency={"create": 10.0}, durations=1.0, **WIDE) as (
        emulator,
        piapi,
    ):
        with pytest.raises(Oops):
            async with BatchRunner(piapi, concurrency=4).stream(rerolls(9, case.reroll)):
                await asyncio.sleep(5)
                began = now()
                raise Oops

        assert 4 < now() - began < 6
        assert emulator.seen.creates == 4
        assert len(await ledger.pending()) == 4


async def test_leaving_early_waits_no_longer_than_the_time_out() -> None:
    async with serving({"timeout": 20.0}, **WIDE) as (emulator, piapi):
        emulator.fail("reroll", submits_that_hang(), times=None)
        with pytest.raises(Oops):
            async with BatchRunner(piapi, concurrency=4).stream(rerolls(9)):
                await asyncio.sleep(5)
                began = now()
                raise Oops

        assert 14 < now() - began < 16


async def test_being_cancelled_while_leaving_leaves_nothing_behind() -> None:
    async with serving(latency={"reroll": 10.0}, durations=1.0, **WIDE) as (_, piapi):
        runner = BatchRunner(piapi, concurrency=4)

        async def leave() -> None:
            async with runner.stream(rerolls(9)):
                await asyncio.sleep(5)

        leaving = asyncio.create_task(leave())
        await asyncio.sleep(7)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.sleep(10)
        assert [outcome.ok for outcome in await runner.run([REROLL])] == [True]


async def test_a_task_that_is_accepted_in_the_turn_in_which_its_batch_is_cancelled_is_told_of() -> None:
    class Canceller:
        """Cancels a batch the moment its first task is known, and its worker is yet to hear of it."""

        batch: asyncio.Task[Any]

        def on_event(self, event: Event) -> None:
            if isinstance(event, SubmissionAccepted):
                self.batch.cancel()

    canceller = Canceller()
    async with serving({"observers": [canceller]}, **WIDE) as (emulator, piapi):
        canceller.batch = asyncio.create_task(BatchRunner(piapi, concurrency=1).run([REROLL]))
        with pytest.raises(asyncio.CancelledError) as caught:
            await canceller.batch

    [left] = caught.value.outcomes  # type: ignore[attr-defined]  # what a run got to, on its exception
    assert [left.ref.task_id] == [task.task_id for task in emulator.engine.tasks.values() if not task.adopted]
    assert isinstance(left.error, WaitTimeout)


async def test_whoever_still_reads_when_the_block_is_left_hears_that_it_is_over() -> None:
    async with serving(**WIDE) as (emulator, piapi):
        async with BatchRunner(piapi, concurrency=2).stream(itertools.repeat(REROLL)) as outcomes:
            reading = asyncio.ensure_future(anext(outcomes))
            await asyncio.sleep(5)
        with pytest.raises(StopAsyncIteration):
            await reading
        await asyncio.sleep(100)
        assert emulator.seen.creates == 2


# -- iterables that misbehave ---------------------------------------------------------------------------------------


def that_raises(count: int) -> Iterator[Reroll]:
    yield from rerolls(count)
    raise Oops("of the iterable")


@pytest.mark.parametrize("shape", [iter, as_async])
async def test_an_error_of_the_iterable_is_told_after_the_outcomes_of_what_was_begun(
    shape: Callable[..., Any],
) -> None:
    async with serving(**WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=4)
        seen = []
        with pytest.raises(Oops, match="of the iterable"):
            async with runner.stream(shape(that_raises(10))) as outcomes:
                async for outcome in outcomes:
                    seen.append(outcome.index)

        assert sorted(seen) == list(range(10))
        assert emulator.seen.creates == 10
        assert runner.totals.done == 10


@pytest.mark.parametrize("count", [0, 7])
async def test_an_async_generator_may_hold_what_belongs_to_one_task_around_its_yields(count: int) -> None:
    async def drawn() -> AsyncIterator[Reroll]:
        with anyio.fail_after(3600):
            async with anyio.create_task_group() as group:
                group.start_soon(asyncio.sleep, 60)
                for request in rerolls(count):
                    yield request

    async with serving(**WIDE) as (emulator, piapi):
        outcomes = await BatchRunner(piapi, concurrency=3).run(drawn())
        assert [outcome.ok for outcome in outcomes] == [True] * count
        assert emulator.seen.creates == count


async def test_draining_lets_a_generator_clean_up_and_tells_what_that_raises() -> None:
    async def endless() -> AsyncIterator[Reroll]:
        yield REROLL
        try:
            await asyncio.sleep(10_000)
        finally:
            await asyncio.sleep(1)
            raise Oops("while cleaning up")

    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=3)
        running = asyncio.create_task(runner.run(endless()))
        await asyncio.sleep(5)
        runner.drain()
        with pytest.raises(Oops, match="while cleaning up"):
            await running
        assert emulator.seen.creates == 1


async def test_a_generator_that_goes_on_when_it_is_stopped_is_not_heeded() -> None:
    async def stubborn() -> AsyncIterator[Reroll]:
        yield REROLL
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10_000)
        yield REROLL

    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=3)
        running = asyncio.create_task(runner.run(stubborn()))
        await asyncio.sleep(5)
        runner.drain()
        assert len(await running) == 1
        assert emulator.seen.creates == 1


async def test_an_iterable_that_raises_at_once_submits_nothing() -> None:
    async with serving() as (emulator, piapi):
        with pytest.raises(Oops):
            await BatchRunner(piapi).run(that_raises(0))
        assert emulator.seen.creates == 0


async def test_what_is_no_iterable_is_refused_and_the_runner_stays_good() -> None:
    async with serving(**WIDE) as (_, piapi):
        runner = BatchRunner(piapi)
        wrong: Any = 5
        with pytest.raises(TypeError):
            await runner.run(wrong)
        assert [outcome.ok for outcome in await runner.run([REROLL])] == [True]


async def test_a_runner_runs_one_stream_at_a_time() -> None:
    async with serving(**WIDE) as (_, piapi):
        runner = BatchRunner(piapi)
        async with runner.stream([REROLL]):
            with pytest.raises(RuntimeError, match="running already"):
                await runner.run([REROLL])


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": 2.5},
        {"concurrency": float("inf")},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"max_submits": -1},
        {"max_submits": 1.5},
        {"max_submits": True},
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: Any) -> None:
    [name] = settings
    with pytest.raises(ValueError, match=f"^{name}: .* is not allowed; it must be"):
        BatchRunner(PiAPI(KEY), **settings)


# -- stopping on purpose --------------------------------------------------------------------------------------------


async def test_draining_takes_no_more_and_sees_through_what_is_in_flight() -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=4)
        running = asyncio.create_task(runner.run(itertools.repeat(REROLL)))
        await asyncio.sleep(5)
        runner.drain()
        outcomes = await running

        assert [True] * 4 == [outcome.ok for outcome in outcomes]
        assert emulator.seen.creates == 4
        check_account(runner.totals, 0)


async def test_draining_does_not_wait_for_items_that_do_not_come() -> None:
    queue: asyncio.Queue[Reroll] = asyncio.Queue()

    async def fed() -> AsyncIterator[Reroll]:
        while True:
            yield await queue.get()

    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=3)
        queue.put_nowait(REROLL)
        running = asyncio.create_task(runner.run(fed()))
        await asyncio.sleep(5)
        began = now()
        runner.drain()
        for _ in range(10):
            queue.put_nowait(REROLL)
        assert len(await running) == 1
        assert now() - began < 30
        assert emulator.seen.creates == 1


async def test_draining_a_runner_that_does_not_run_does_nothing() -> None:
    async with serving(**WIDE) as (_, piapi):
        runner = BatchRunner(piapi)
        runner.drain()
        assert len(await runner.run(rerolls(2))) == 2
        runner.drain()
        assert len(await runner.run(rerolls(2))) == 2


@pytest.mark.parametrize("shape", [iter, as_async])
@pytest.mark.parametrize("allowed", [0, 2, 5])
async def test_no_more_tasks_are_made_than_allowed_even_of_an_endless_iterable(
    allowed: int, shape: Callable[..., Any]
) -> None:
    async with serving(**WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=3, max_submits=allowed)
        outcomes = await runner.run(shape(itertools.repeat(REROLL)))

        assert [True] * allowed == [outcome.ok for outcome in outcomes]
        assert emulator.seen.creates == allowed
        assert runner.totals.skipped >= 1


async def test_what_an_earlier_run_submitted_counts_not_towards_the_allowance(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run(rerolls(3))
        runner = BatchRunner(piapi, concurrency=2, max_submits=2)
        outcomes = await runner.run(rerolls(10))

        assert emulator.seen.creates == 5
        assert len(outcomes) == 5
        assert (runner.totals.resumed, runner.totals.submitted, runner.totals.skipped) == (3, 2, 5)
