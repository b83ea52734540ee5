from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import NoneType
from typing import Any

import anyio
import pytest
from support.families import FamilyCase
from support.serving import KEY, REROLL, now, serving, turns

from piapi_async import (
    BatchItem,
    BatchRunner,
    ClientClosed,
    DownloadError,
    InvalidRequestError,
    Ledger,
    LedgerError,
    NotFoundError,
    PiAPI,
    PollPolicy,
    Reroll,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TaskState,
    TransportError,
    Upscale,
    WaitTimeout,
)
from piapi_async.batch import Totals
from piapi_async.emulator import (
    Drop,
    Emulator,
    Huge,
    Refuse,
    SlowBody,
    SlowFirstByte,
    StaleKeepAlive,
    Status,
    TaskFails,
    TaskRetries,
    TaskTakes,
    Truncated,
    UnknownStatus,
    WrongTypes,
)

pytestmark = pytest.mark.looptime

WIDE: dict[str, Any] = {"concurrency": 1000, "queue": 10_000}
"""An account that starts everything at once."""


def rerolls(count: int, reroll: Callable[[str], Any] = Reroll) -> list[Any]:
    return [reroll(f"parent-{number}") for number in range(count)]


def submits_that_hang() -> SlowFirstByte:
    return SlowFirstByte(1000)


async def as_async(requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        await asyncio.sleep(0.1)
        yield request


def check_account(totals: Totals, concurrency: int) -> None:
    """Check that every item is somewhere: ended, skipped, in flight, or on its way to its task's id."""
    assert totals.ended == totals.done + totals.failed + totals.unknown
    in_flight = totals.waiting + totals.running
    on_their_way = totals.read - totals.ended - totals.skipped - in_flight
    assert 0 <= on_their_way
    assert 0 <= in_flight + on_their_way <= concurrency
    assert totals.submitted + totals.resumed >= totals.done + in_flight


# -- what comes, and when -------------------------------------------------------------------------------------------


async def test_outcomes_come_as_tasks_end_and_run_gives_them_in_input_order() -> None:
    requests = [Reroll("a"), Upscale("b", index=1), Reroll("c"), Upscale("d", index=2)]
    async with serving(durations={"reroll": 60.0, "upscale": 10.0}, **WIDE) as (_, piapi):
        async with BatchRunner(piapi).stream(requests) as outcomes:
            streamed = [outcome.index async for outcome in outcomes]
        ran = await BatchRunner(piapi).run(requests)

    assert [{1, 3}, {0, 2}] == [set(streamed[:2]), set(streamed[2:])]
    assert requests == [outcome.request for outcome in ran]
    assert [0, 1, 2, 3] == [outcome.index for outcome in ran]


async def test_an_outcome_tells_all_about_its_item(case: FamilyCase) -> None:
    async with serving(**WIDE) as (emulator, piapi):
        [outcome] = await BatchRunner(piapi).run([case.reroll("p")])

        assert outcome.ok
        assert outcome.task is not None
        assert outcome.task.state is TaskState.DONE
        assert outcome.ref is not None
        assert emulator.task(outcome.ref.task_id) is not None
        assert (outcome.key, outcome.files, outcome.error, outcome.resumed) == ("", (), None, False)


async def test_without_a_ledger_a_key_is_a_label() -> None:
    async with serving(**WIDE) as (emulator, piapi):
        items: list[Any] = [BatchItem(REROLL, "mine"), BatchItem(REROLL, "mine"), REROLL]
        outcomes = await BatchRunner(piapi).run(items)

        assert ["mine", "mine", ""] == [outcome.key for outcome in outcomes]
        assert emulator.seen.creates == 3


@pytest.mark.parametrize("shape", [list, tuple, iter, as_async, lambda requests: (request for request in requests)])
async def test_requests_may_come_in_any_iterable(shape: Callable[[Any], Any]) -> None:
    async with serving(**WIDE) as (emulator, piapi):
        outcomes = await BatchRunner(piapi, concurrency=3).run(shape(rerolls(10)))

        assert rerolls(10) == [outcome.request for outcome in outcomes]
        assert emulator.seen.creates == 10


@pytest.mark.parametrize("nothing", [[], (), iter(()), as_async([])])
async def test_nothing_gives_nothing(nothing: Any) -> None:
    async with serving() as (_, piapi):
        runner = BatchRunner(piapi)
        assert await runner.run(nothing) == []
        assert runner.totals.read == 0


@pytest.mark.parametrize("shape", [iter, as_async])
async def test_an_endless_iterable_is_read_no_further_ahead_than_twice_the_bound(shape: Callable[[Any], Any]) -> None:
    read = 0

    def endless() -> Iterator[Reroll]:
        nonlocal read
        for read in itertools.count(1):  # noqa: B007 - it is read by the outer function
            yield REROLL

    async with serving(durations=5.0, **WIDE) as (emulator, piapi):
        taken = 0
        async with BatchRunner(piapi, concurrency=4).stream(shape(endless())) as outcomes:
            async for _ in outcomes:
                taken += 1
                await asyncio.sleep(20)  # meanwhile everything has ended
                assert read <= taken + 2 * 4
                assert emulator.seen.creates <= taken + 4
                if taken == 25:
                    break

    assert taken == 25


async def test_a_place_is_taken_from_before_the_submit_until_the_outcome_is() -> None:
    async with serving(durations=5.0, latency={"reroll": 2.0}, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=3)
        async with runner.stream(rerolls(20)) as outcomes:
            await asyncio.sleep(500)
            assert emulator.seen.requests["reroll"] == 3  # nobody has taken an outcome
            taken = 0
            async for _ in outcomes:
                taken += 1
                assert emulator.seen.requests["reroll"] <= taken + 3
                await asyncio.sleep(0.5)
                check_account(runner.totals, 3)


async def test_many_in_flight_wait_in_few_requests() -> None:
    async with serving(**WIDE) as (emulator, piapi):
        await BatchRunner(piapi, concurrency=100).run(rerolls(100))

        looks = emulator.seen.requests["fetch"] + emulator.seen.requests["multi_fetch"]
        assert looks < 100 * 40 / 15


# -- each on its own account ----------------------------------------------------------------------------------------


MISHAPS: dict[str, Any] = {"fails": TaskFails("no luck"), "unknown": Drop(after_body=True), "busy": Status(429)}


async def test_one_items_failure_touches_no_other(tmp_path: Path, case: FamilyCase) -> None:
    async with serving(durations=10.0, picture_size=32, **WIDE) as (emulator, piapi):
        parents = ("good", "refused", "fails", "unknown", "busy", "unsaved", "good too")

        def requests() -> Iterator[Any]:
            for parent in parents:
                if parent in MISHAPS:
                    emulator.fail("create", MISHAPS[parent])
                if parent == "unsaved":
                    emulator.fail("download", Status(404))
                yield case.reroll(parent, prompt="gore" if parent == "refused" else "a cat")

        runner = BatchRunner(piapi, concurrency=1, download=tmp_path)
        outcomes = dict(zip(parents, await runner.run(requests()), strict=True))

        assert {"good", "busy", "good too"} == {parent for parent, outcome in outcomes.items() if outcome.ok}
        assert {"refused": InvalidRequestError, "fails": TaskFailed, "unknown": SubmissionUnknown} == {
            parent: type(outcome.error) for parent, outcome in outcomes.items() if outcome.error
        }
        assert isinstance(outcomes["unsaved"].download_error, DownloadError)
        assert outcomes["fails"].task is not None
        assert outcomes["fails"].task.error == "no luck"
        assert all(len(outcomes[parent].files) == case.files for parent in ("good", "busy", "good too"))
        totals = runner.totals
        assert (totals.done, totals.failed, totals.unknown, totals.unsaved, totals.saved) == (
            4,
            2,
            1,
            1,
            3 * case.files,
        )
        assert totals.submitted == 5


async def test_a_cancelled_task_is_its_items_error(case: FamilyCase) -> None:
    async with serving(durations=10.0, concurrency=1, queue=10) as (emulator, piapi):
        runner = BatchRunner(piapi)
        running = asyncio.create_task(runner.run(rerolls(2, case.reroll)))
        await asyncio.sleep(2)
        staged = [task_id for task_id, task in emulator.machine.tasks.items() if task.origin and task.started is None]
        await piapi.cancel(*staged)
        outcomes = await running

        assert Counter(type(outcome.error) for outcome in outcomes) == {type(None): 1, TaskCancelled: 1}
        assert (runner.totals.done, runner.totals.failed) == (1, 1)


async def test_an_items_timeout_is_its_own_and_its_task_goes_on() -> None:
    async with serving(durations={"reroll": 60.0, "upscale": 10.0}, **WIDE) as (emulator, piapi):
        began = now()
        slow, fast = await BatchRunner(piapi, timeout=20).run([Reroll("a"), Upscale("b", index=1)])

        assert now() - began < 22
        assert isinstance(slow.error, WaitTimeout)
        assert slow.ref is not None
        assert slow.task is not None
        assert slow.task.state is TaskState.RUNNING
        assert fast.ok
        await asyncio.sleep(60)
        shown = emulator.task(slow.ref.task_id)
        assert shown is not None
        assert shown.ended is not None


async def test_an_unreachable_host_is_each_items_error() -> None:
    async with serving() as (emulator, piapi):
        emulator.fail("*", Refuse(1e6))
        outcomes = await BatchRunner(piapi, concurrency=2).run(rerolls(3))

        assert all(isinstance(outcome.error, TransportError) and not outcome.error.sent for outcome in outcomes)
        assert emulator.seen.creates == 0


async def test_a_client_that_is_closed_ends_what_is_in_flight() -> None:
    async with serving(**WIDE) as (_, piapi):
        running = asyncio.create_task(BatchRunner(piapi, concurrency=2).run(rerolls(5)))
        await asyncio.sleep(5)
        await piapi.close()
        outcomes = await running

    assert all(isinstance(outcome.error, ClientClosed) for outcome in outcomes)
    assert len(outcomes) == 5


# -- pictures -------------------------------------------------------------------------------------------------------


async def test_pictures_are_saved_before_the_outcome_is_given(tmp_path: Path) -> None:
    async with serving(picture_size=32, **WIDE) as (_, piapi):
        runner = BatchRunner(piapi, download=tmp_path / "new" / "folder")
        async with runner.stream(rerolls(3)) as outcomes:
            async for outcome in outcomes:
                assert len(outcome.files) == 4
                assert all(path.read_bytes().startswith(b"\x89PNG") for path in outcome.files)
        assert runner.totals.saved == 12


async def test_a_download_that_fails_is_tried_again_and_never_loses_the_task(tmp_path: Path) -> None:
    async with serving(picture_size=32, **WIDE) as (emulator, piapi):
        emulator.fail("image", Status(503), times=2)
        runner = BatchRunner(piapi, concurrency=1, download=tmp_path)
        [mended] = await runner.run([REROLL])
        emulator.fail("image", Status(410), times=1)
        [lost, good] = await runner.run(rerolls(2))

        assert mended.ok
        assert len(mended.files) == 4
        assert lost.error is None
        assert not lost.ok
        assert isinstance(lost.download_error, DownloadError)
        assert lost.task is not None
        assert lost.task.state is TaskState.DONE
        assert good.ok
        assert (runner.totals.done, runner.totals.unsaved, runner.totals.failed) == (2, 1, 0)


async def test_all_downloads_of_a_run_share_their_connections(tmp_path: Path) -> None:
    async with serving(durations=5.0, picture_size=32, **WIDE) as (emulator, piapi):
        opened: list[Any] = []
        runner = BatchRunner(piapi, concurrency=2, download=tmp_path)
        async with runner.stream(rerolls(3)) as outcomes:
            async for outcome in outcomes:
                assert len(outcome.files) == 4
                opened.append(runner._pictures)
        assert len(set(map(id, opened))) == 1
        assert opened[0].closed
        assert emulator.seen.keys_to_images == 0


async def test_a_directory_that_cannot_be_used_is_each_items_download_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    async with serving(picture_size=32, **WIDE) as (_, piapi):
        outcomes = await BatchRunner(piapi, download=tmp_path / "file").run(rerolls(2))

    assert all(outcome.error is None and outcome.download_error is not None for outcome in outcomes)


# -- leaving early --------------------------------------------------------------------------------------------------


class Oops(Exception):
    pass


async def leave_by_break(runner: BatchRunner, requests: Any) -> None:
    async with runner.stream(requests) as outcomes:
        async for _ in outcomes:
            break


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
async def test_leaving_early_stops_reading_and_submits_nothing_new(leave: Callable[[BatchRunner, Any], Any]) -> None:
    read = itertools.count(1)
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=5)
        await leave(runner, (Reroll(f"parent-{number}") for number in read))
        made, reading = emulator.seen.requests["reroll"], next(read)
        await asyncio.sleep(1000)

        assert emulator.seen.requests["reroll"] == made
        assert next(read) == reading + 1
        assert runner.in_flight == []
        assert len(piapi._submitter) == 0
        assert [outcome.ok for outcome in await runner.run([REROLL])] == [True]  # it can be used again


async def test_leaving_early_waits_for_submits_that_have_begun_to_leave(tmp_path: Path, case: FamilyCase) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, latency={"create": 10.0}, durations=1.0, **WIDE) as (emulator, piapi):
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
async def test_an_error_of_the_iterable_is_told_after_the_outcomes_of_what_was_begun(shape: Callable[..., Any]) -> None:
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


@pytest.mark.parametrize("odd", [5, "text", None, object()])
async def test_an_item_that_makes_no_task_is_a_type_error_that_names_its_place(odd: Any) -> None:
    async with serving(**WIDE) as (emulator, piapi):
        with pytest.raises(TypeError, match="item 1 of the batch"):
            await BatchRunner(piapi, concurrency=1).run([REROLL, odd, REROLL])
        assert emulator.seen.creates == 1


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
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(settings: Any) -> None:
    [name] = settings
    with pytest.raises(ValueError, match=f"^{name}: .* is not allowed; it must be"):
        BatchRunner(PiAPI(KEY), **settings)


async def test_an_error_of_the_progress_callback_reaches_the_reader() -> None:
    def shout(_: Totals) -> None:
        raise Oops

    async with serving(**WIDE) as (_, piapi):
        with pytest.raises(Oops):
            await BatchRunner(piapi, on_progress=shout).run(rerolls(3))


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


# -- the account ----------------------------------------------------------------------------------------------------


async def test_the_account_is_exact_at_any_time() -> None:
    seen: list[Totals] = []
    async with serving(durations=20.0, latency={"reroll": 1.0}, concurrency=5, queue=100) as (emulator, piapi):
        emulator.fail("reroll", Drop(after_body=True), rate=0.1)
        emulator.fail("reroll", TaskFails(), rate=0.1)
        emulator.fail("reroll", Status(400), rate=0.1)
        runner = BatchRunner(piapi, concurrency=10, on_progress=seen.append)
        running = asyncio.create_task(runner.run(rerolls(60)))
        while not running.done():
            check_account(runner.totals, 10)
            await asyncio.sleep(0.37)
        outcomes = await running

        for before, after in itertools.pairwise(seen):
            check_account(after, 10)
            assert after.ended >= before.ended
        last = runner.totals
        unknown = sum(isinstance(outcome.error, SubmissionUnknown) for outcome in outcomes)
        assert last.read == last.ended == 60
        assert (last.unknown, last.done) == (unknown, sum(outcome.ok for outcome in outcomes))
        assert last.submitted + unknown == emulator.seen.creates
        assert (last.waiting, last.running) == (0, 0)
        assert last.rate == pytest.approx(60 / last.seconds)
        assert any(totals.running for totals in seen)
        assert any(totals.waiting for totals in seen)


async def test_after_an_early_exit_the_account_claims_nothing_in_flight() -> None:
    async with serving(**WIDE) as (_, piapi):
        runner = BatchRunner(piapi, concurrency=5)
        await leave_by_break(runner, itertools.repeat(REROLL))

        assert (runner.totals.waiting, runner.totals.running) == (0, 0)
        assert runner.totals.seconds > 30


async def test_two_runners_share_a_client() -> None:
    async with serving(**WIDE) as (emulator, piapi):
        runners = [BatchRunner(piapi, concurrency=3) for _ in range(2)]
        both = await asyncio.gather(*(runner.run(rerolls(20)) for runner in runners))

        assert all(outcome.ok for outcomes in both for outcome in outcomes)
        assert set(emulator.seen.creates_by_parent.values()) == {2}
        assert [20, 20] == [runner.totals.submitted for runner in runners]


async def test_two_runners_on_one_ledger_pay_once_for_what_both_want(tmp_path: Path, case: FamilyCase) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, **WIDE) as (emulator, piapi):
        runners = [BatchRunner(piapi, concurrency=3) for _ in range(2)]
        one, other = await asyncio.gather(*(runner.run(rerolls(20, case.reroll)) for runner in runners))

        assert [outcome.ref for outcome in one] == [outcome.ref for outcome in other]
        assert set(emulator.seen.creates_by_parent.values()) == {1}
        assert sum(runner.totals.submitted for runner in runners) == 20
        assert sum(runner.totals.resumed for runner in runners) == 20


async def test_leaving_one_of_two_streams_leaves_the_other_alone() -> None:
    async with serving(latency={"reroll": 5.0}, **WIDE) as (_, piapi):
        running = asyncio.create_task(BatchRunner(piapi, concurrency=3).run(rerolls(9)))
        await asyncio.sleep(1)
        with pytest.raises(Oops):
            async with BatchRunner(piapi, concurrency=3).stream(rerolls(9)):
                await asyncio.sleep(2)
                raise Oops
        assert [True] * 9 == [outcome.ok for outcome in await running]


# -- runs that are resumed ------------------------------------------------------------------------------------------


async def test_a_second_run_gives_every_outcome_again_and_submits_nothing(tmp_path: Path, case: FamilyCase) -> None:
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
        emulator.machine.tasks.clear()
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
async def test_a_fault_while_reading_back_does_not_cost_the_fresher_links(passing: Any, tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        [first] = await BatchRunner(piapi).run(rerolls(1))
        emulator.fail("fetch", passing)
        [second] = await BatchRunner(piapi).run(rerolls(1))

        assert first.task is not None
        assert second.task is not None
        assert second.ok
        assert second.task.raw is not first.task.raw
        assert emulator.seen.requests["fetch"] >= 3


async def test_an_end_without_an_answer_is_asked_for_and_the_hosts_no_is_the_items_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run(rerolls(2))
        await ledger._do(lambda file: file.execute("UPDATE submits SET answer = NULL"))
        emulator.machine.tasks.popitem()
        outcomes = await BatchRunner(piapi).run(rerolls(2))

        assert {NoneType, NotFoundError} == {type(outcome.error) for outcome in outcomes}


async def test_an_end_is_in_the_ledger_before_its_outcome_is_given(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("reroll", TaskFails("no luck"), nth=3)
        async with BatchRunner(piapi, concurrency=4).stream(rerolls(12)) as outcomes:
            async for outcome in outcomes:
                with closing(sqlite3.connect(ledger.path)) as file:
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
        emulator.machine.tasks.clear()
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

        [task_id] = [task_id for task_id, task in emulator.machine.tasks.items() if task.origin == "p"]
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

        first[0].files[0].unlink()
        third = await BatchRunner(piapi, download=tmp_path).run(rerolls(2, case.reroll))
        assert emulator.seen.requests["image"] > loaded
        assert third[0].files[0].exists()


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
    items: list[Any] = [BatchItem(REROLL, "k"), BatchItem(REROLL, "k"), BatchItem(Reroll("other"), "k"), REROLL]
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi)
        one, same, other, own = await runner.run(items)

        assert one.ref == same.ref
        assert one.ok
        assert same.ok
        assert isinstance(other.error, LedgerError)
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


class _ForgetfulLedger(Ledger):
    """A ledger whose disk is full when an id is to be written."""

    async def accept(self, intent: Any, ref: Any) -> None:
        await self.doubt(intent)
        raise LedgerError(f"Task {ref.task_id} was accepted, but could not be recorded", ref=ref)


async def test_an_id_that_could_not_be_recorded_is_on_the_outcome(tmp_path: Path) -> None:
    async with serving({"ledger": _ForgetfulLedger(tmp_path / "run.db")}, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi)
        [outcome] = await runner.run([REROLL])

        assert isinstance(outcome.error, LedgerError)
        assert outcome.ref is not None
        assert emulator.task(outcome.ref.task_id) is not None
        assert runner.totals.submitted == 1


# -- everything at once ---------------------------------------------------------------------------------------------

ON_THE_WIRE: list[Any] = [
    Status(429),
    Status(429, retry_after=3),
    Status(400),
    Status(408),
    Status(500),
    Status(502),
    Status(503),
    Status(504, made=True),
    Status(200, body="<html>"),
    Status(200, body={}),
    Drop(before_body=True),
    Drop(after_body=True),
    Drop(after_body=True, made=False),
    Drop(inside_answer=True),
    Truncated(0.3),
    WrongTypes(),
    WrongTypes(broken=True),
    UnknownStatus("dreaming"),
    SlowFirstByte(3),
    SlowFirstByte(40),
    SlowBody(3),
    SlowBody(40),
    StaleKeepAlive(),
]
FATEFUL: list[Any] = [TaskFails(), TaskRetries(), TaskTakes(300)]


def mix_in(emulator: Emulator, rate: float) -> None:
    """Let a share of all requests meet with one of all the faults."""
    for fault in ON_THE_WIRE:
        emulator.fail("*", fault, rate=rate / len(ON_THE_WIRE))
    for fault in FATEFUL:
        emulator.fail("create", fault, rate=rate / len(FATEFUL))
    for route in ("create", "read", "download"):
        emulator.fail(route, Refuse(5), nth=30)
    emulator.fail("read", Huge(17 * 2**20), nth=40)
    emulator.fail("create", Huge(17 * 2**20), nth=50)


async def check_a_stormy_run(reroll: Callable[[str], Any], count: int, rate: float, seed: int, path: Path) -> None:
    client: dict[str, Any] = {"ledger": Ledger(path / "run.db"), "poll": PollPolicy.every(5.0)}
    async with serving(client, durations=30.0, seed=seed, **WIDE) as (emulator, piapi):
        mix_in(emulator, rate)
        runner = BatchRunner(piapi, concurrency=100)
        outcomes = await runner.run(rerolls(count, reroll))

        assert list(range(count)) == [outcome.index for outcome in outcomes]
        made = emulator.seen.creates_by_parent
        assert set(made.values()) == {1}
        for outcome in outcomes:
            parent = f"parent-{outcome.index}"
            if outcome.ref is not None:
                task = emulator.task(outcome.ref.task_id)
                assert task is not None
                assert task.origin == parent
                assert outcome.ok is (not task.error)
            elif isinstance(outcome.error, SubmissionUnknown):
                assert made[parent] <= 1
            else:
                assert made[parent] == 0
        totals = runner.totals
        assert totals.read == totals.ended == count
        assert totals.unknown > 0
        assert totals.done > count / 2
        assert totals.submitted <= emulator.seen.creates <= totals.submitted + totals.unknown


async def test_rerolls_in_a_storm_are_accounted_for_and_paid_once(tmp_path: Path, case: FamilyCase) -> None:
    await check_a_stormy_run(case.reroll, 300, 0.05, 1, tmp_path)


async def test_a_run_that_is_left_in_a_storm_again_and_again_pays_once(tmp_path: Path, case: FamilyCase) -> None:
    client: dict[str, Any] = {"ledger": Ledger(tmp_path / "run.db"), "poll": PollPolicy.every(5.0)}
    async with serving(client, durations=30.0, seed=4, **WIDE) as (emulator, piapi):
        mix_in(emulator, 0.05)
        for stop in (1, 7, 20, 31, 33, 60):
            running = asyncio.create_task(BatchRunner(piapi, concurrency=50).run(rerolls(120, case.reroll)))
            await asyncio.sleep(stop)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await turns()
        outcomes = await BatchRunner(piapi, concurrency=50).run(rerolls(120, case.reroll))

        assert len(outcomes) == 120
        assert set(emulator.seen.creates_by_parent.values()) == {1}
