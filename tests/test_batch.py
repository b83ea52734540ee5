"""Outcomes of a batch: what comes and when, each on its own account, with its pictures."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.batching import WIDE, Oops, as_async, check_account, leave_by_break, rerolls
from support.families import FamilyCase
from support.serving import REROLL, now, serving

from piapi_async import (
    BatchItem,
    BatchRunner,
    ClientClosed,
    DownloadError,
    InvalidRequestError,
    Ledger,
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
    Refuse,
    SlowFirstByte,
    Status,
    TaskFails,
)

pytestmark = pytest.mark.looptime


def submits_that_hang() -> SlowFirstByte:
    return SlowFirstByte(1000)


# -- what comes, and when -------------------------------------------------------------------------------------------


async def test_outcomes_come_as_tasks_end_and_run_gives_them_in_input_order() -> None:
    requests = [Reroll("a"), Upscale("b", index=1), Reroll("c"), Upscale("d", index=2)]
    async with serving(durations={"reroll": 60.0, "upscale": 10.0}, **WIDE) as (_, piapi):
        async with BatchRunner(piapi).stream(requests) as outcomes:
            streamed = [outcome.index async for outcome in outcomes]
        runner = BatchRunner(piapi)
        ran = await runner.run(requests)
        assert len(repr(runner)) < 500  # what it is made of would flood a notebook

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


@pytest.mark.parametrize(
    "shape", [list, tuple, iter, as_async, lambda requests: (request for request in requests)]
)
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
async def test_an_endless_iterable_is_read_no_further_ahead_than_twice_the_bound(
    shape: Callable[[Any], Any],
) -> None:
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


MISHAPS: dict[str, Any] = {
    "fails": TaskFails("no luck"),
    "unknown": Drop(after_body=True),
    "busy": Status(429),
}


async def test_one_items_failure_touches_no_other(tmp_path: Path, case: FamilyCase) -> None:
    async with serving(durations=10.0, picture_size=32, **WIDE) as (emulator, piapi):
        parents = ("good", "refused", "fails", "unknown", "busy", "unsaved", "good too")

        def requests() -> Iterator[Any]:
            for parent in parents:
                if parent in MISHAPS:
                    emulator.fail("create", MISHAPS[parent])
                if parent == "unsaved":
                    emulator.fail("download", Status(410))
                prompt = "gore" if parent == "refused" else "a cat"
                yield BatchItem(case.reroll(parent, prompt=prompt), extra=parent)

        runner = BatchRunner(piapi, concurrency=1, download=tmp_path)
        outcomes = {outcome.extra: outcome for outcome in await runner.run(requests())}

        assert list(parents) == list(outcomes)
        assert {"good", "busy", "good too"} == {parent for parent, outcome in outcomes.items() if outcome.ok}
        assert {parent: type(outcome.error) for parent, outcome in outcomes.items() if outcome.error} == {
            "refused": InvalidRequestError,
            "fails": TaskFailed,
            "unknown": SubmissionUnknown,
            "unsaved": DownloadError,
        }
        assert outcomes["unsaved"].download_error is outcomes["unsaved"].error
        assert outcomes["fails"].task is not None
        assert outcomes["fails"].task.error == "no luck"
        assert all(len(outcomes[parent].files) == case.files for parent in ("good", "busy", "good too"))
        totals = runner.totals
        assert (totals.done, totals.failed, totals.unknown, totals.unsaved, totals.saved) == (
            4,
            2,
            1,
            1,
            4 * case.files - 1,
        )
        assert totals.submitted == 5


async def test_a_cancelled_task_is_its_items_error(cancelling_case: FamilyCase) -> None:
    async with serving(durations=10.0, concurrency=1, queue=10) as (emulator, piapi):
        runner = BatchRunner(piapi)
        running = asyncio.create_task(runner.run(rerolls(2, cancelling_case.reroll)))
        await asyncio.sleep(2)
        staged = [
            task_id for task_id, task in emulator.engine.tasks.items() if task.origin and task.started is None
        ]
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

        assert all(
            isinstance(outcome.error, TransportError) and not outcome.error.sent for outcome in outcomes
        )
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
                assert all(Path(path).read_bytes().startswith(b"\x89PNG") for path in outcome.files)
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
        assert not lost.ok
        assert isinstance(lost.download_error, DownloadError)
        assert lost.error is lost.download_error
        assert len(lost.files) == 3
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
                assert runner._latest is not None
                assert runner._latest._saving is not None
                opened.append(runner._latest._saving._downloads)
        assert len(set(map(id, opened))) == 1
        assert opened[0].session._session.closed
        assert emulator.seen.keys_to_images == 0


async def test_a_directory_that_cannot_be_used_is_said_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    async with serving(picture_size=32, **WIDE) as (emulator, piapi):
        with pytest.raises(DownloadError, match=r"is not a directory\. Nothing was submitted\.$"):
            await BatchRunner(piapi, download=tmp_path / "file").run(rerolls(2))

        assert emulator.seen.creates == 0


# -- the account ----------------------------------------------------------------------------------------------------


async def test_the_account_is_exact_at_any_time() -> None:
    seen: list[Totals] = []
    async with serving(durations=20.0, latency={"reroll": 1.0}, concurrency=5, queue=100) as (
        emulator,
        piapi,
    ):
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


async def test_two_runners_on_one_ledger_pay_once_for_what_both_want(
    tmp_path: Path, case: FamilyCase
) -> None:
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
