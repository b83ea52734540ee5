"""`retry_failed`: what is submitted anew, what never is, and what becomes of the attempt before."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.batching import WIDE, rerolls, start_at_most
from support.families import FamilyCase
from support.hooking import HEADERS, PUBLIC, SECRET, delivery, made
from support.serving import KEY, serving

from piapi_async import (
    AuthenticationError,
    BatchItem,
    BatchRunner,
    InsufficientCreditError,
    Ledger,
    LedgerError,
    PiAPI,
    Reroll,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
    WebhookReceiver,
)
from piapi_async._submit.nonces import NONCE, nonce_of
from piapi_async._submit.submission import Terms
from piapi_async.client import runtime_of
from piapi_async.emulator import Drop, Emulator, Status, TaskFails
from piapi_async.ledger._entries import EndedAttempt
from piapi_async.tasks import TaskId

pytestmark = pytest.mark.looptime

ITEM = BatchItem(Reroll("p"), key="order 17")


async def failed_once(emulator: Emulator, piapi: PiAPI) -> str:
    """Have the item's first attempt fail; return its task."""
    emulator.fail("create", TaskFails("no luck"))
    [outcome] = await BatchRunner(piapi).run([ITEM])
    assert isinstance(outcome.error, TaskFailed)
    assert outcome.ref is not None
    return outcome.ref.task_id


async def retried(piapi: PiAPI, **options: Any) -> Any:
    [outcome] = await BatchRunner(piapi, retry_failed=True, **options).run([ITEM])
    return outcome


async def entry_of(ledger: Ledger) -> tuple[str, int, str | None]:
    entry = await ledger.find("order 17")
    assert entry is not None
    return entry.state.value, entry.attempt, entry.task_id


def earlier(path: Path) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT task_id, attempt, outcome FROM earlier ORDER BY attempt").fetchall()


async def test_what_failed_or_was_cancelled_is_submitted_anew_under_its_key(
    tmp_path: Path, cancelling_case: FamilyCase
) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, durations=5.0, **WIDE) as (emulator, piapi):
        emulator.fail("create", TaskFails("no luck"))
        first = await BatchRunner(piapi, concurrency=1).run(rerolls(3, cancelling_case.reroll)[:1])
        start_at_most(emulator, 0)
        waiting = asyncio.ensure_future(BatchRunner(piapi).run(rerolls(3, cancelling_case.reroll)[1:2]))
        while not (
            staged := [task for task in emulator.engine.tasks.values() if task.stage.value == "staged"]
        ):
            await asyncio.sleep(0.1)
        await piapi.cancel(staged[0].task_id, family=cancelling_case.family)
        [cancelled] = await waiting
        start_at_most(emulator, 30)
        done = await BatchRunner(piapi).run(rerolls(3, cancelling_case.reroll)[2:])

        plain = await BatchRunner(piapi).run(rerolls(3, cancelling_case.reroll))
        runner = BatchRunner(piapi, retry_failed=True)
        again = await runner.run(rerolls(3, cancelling_case.reroll))
        third = await BatchRunner(piapi, retry_failed=True).run(rerolls(3, cancelling_case.reroll))

    assert [type(outcome.error) for outcome in plain] == [TaskFailed, TaskCancelled, type(None)]
    assert [outcome.ok for outcome in again] == [True] * 3
    assert [outcome.resumed for outcome in again] == [False, False, True]
    assert [outcome.ref for outcome in third] == [outcome.ref for outcome in again]
    assert [outcome.key for outcome in third] == [outcome.key for outcome in plain]
    assert emulator.seen.creates == 3 + 2
    totals = runner.totals
    assert (totals.submitted, totals.retried, totals.resumed, totals.done) == (2, 2, 1, 3)
    assert {row[0] for row in earlier(path)} == {str(one.ref) for one in (first[0], cancelled)}
    assert done[0].ref == again[2].ref


async def test_the_key_stands_for_the_last_attempt(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        first = await failed_once(emulator, piapi)
        outcome = await retried(piapi)
        handle = await piapi.submit(ITEM.request, key=ITEM.key)

        assert await entry_of(ledger) == ("ended", 2, outcome.ref.task_id)
    assert handle.ref == outcome.ref != first
    assert earlier(tmp_path / "run.db") == [(first, 1, "failed")]


async def test_a_run_submits_an_item_once_whatever_comes_of_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        emulator.fail("create", TaskFails("no luck"), times=None)
        fresh = await retried(piapi)  # nothing failed before
        again = await retried(piapi)

        assert await entry_of(ledger) == ("ended", 2, again.ref.task_id)
    assert isinstance(fresh.error, TaskFailed)
    assert isinstance(again.error, TaskFailed)
    assert (fresh.resumed, again.resumed) == (False, False)
    assert emulator.seen.creates == 2


async def test_a_task_of_an_earlier_run_that_fails_in_this_one_is_submitted_anew(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0) as (emulator, piapi):
        emulator.fail("create", TaskFails("no luck"))
        [left] = await BatchRunner(piapi, timeout=0.5).run([ITEM])
        outcome = await retried(piapi)

    assert isinstance(left.error, WaitTimeout)
    assert outcome.ok
    assert emulator.seen.creates == 2


async def test_a_wait_that_timed_out_is_no_failure(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=50.0) as (emulator, piapi):
        await BatchRunner(piapi, timeout=1.0).run([ITEM])
        outcome = await retried(piapi, timeout=1.0)

    assert isinstance(outcome.error, WaitTimeout)
    assert emulator.seen.creates == 1


@pytest.mark.parametrize("fault", [Status(400), Status(429)])
async def test_an_attempt_that_made_nothing_gives_its_place_back(fault: Any, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        first = await failed_once(emulator, piapi)
        emulator.fail("create", fault, times=10)
        refused = await retried(piapi)
        after = await entry_of(ledger)
        emulator.fault_rules.rules.clear()
        [plain] = await BatchRunner(piapi).run([ITEM])
        emulator.engine.tasks.clear()  # the host forgets: the ledger knows that it failed, and no more
        [forgotten] = await BatchRunner(piapi).run([ITEM])
        outcome = await retried(piapi)

    assert refused.error is not None
    assert not isinstance(refused.error, TaskFailed)
    assert after == ("ended", 1, first)
    assert isinstance(plain.error, TaskFailed)
    assert isinstance(forgotten.error, TaskFailed)
    assert outcome.ok
    assert earlier(tmp_path / "run.db") == [(first, 1, "failed")]


async def test_an_attempt_whose_response_was_lost_is_unknown_and_not_repeated(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        first = await failed_once(emulator, piapi)
        emulator.fail("create", Drop(after_body=True))
        lost = await retried(piapi)
        once_more = await retried(piapi)
        state = await entry_of(ledger)
        with pytest.raises(LedgerError, match="earlier attempt of the submission 'order 17'"):
            await ledger.resolve("order 17", task_id=first)
        await ledger.resolve("order 17", resubmit=True)
        resolved = await entry_of(ledger)
        outcome = await retried(piapi)

    assert isinstance(lost.error, SubmissionUnknown)
    assert isinstance(once_more.error, SubmissionUnknown)
    assert state == ("unknown", 2, None)
    assert resolved == ("ended", 1, first)
    assert outcome.ok
    assert emulator.seen.creates == 3


async def test_two_processes_that_retry_one_key_at_once_make_one_attempt(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, durations=5.0) as (emulator, piapi):
        await failed_once(emulator, piapi)
        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as other:
            outcomes = await asyncio.gather(*[retried(one) for one in (piapi, other, piapi, other)])

    assert {outcome.ref for outcome in outcomes} == {outcomes[0].ref}
    assert [outcome.ok for outcome in outcomes] == [True] * 4
    assert emulator.seen.creates == 2


async def test_a_new_attempt_is_not_replaced_by_who_saw_the_one_before(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        seen = EndedAttempt(1, TaskId(await failed_once(emulator, piapi)), "failed")
        emulator.fail("create", TaskFails("no luck again"))
        second = await retried(piapi)
        _, late = await runtime_of(piapi).submit(ITEM.request, ITEM.key, None, terms=Terms(replaces=seen))

    assert late.task_id == second.ref.task_id
    assert isinstance(second.error, TaskFailed)
    assert emulator.seen.creates == 2


async def test_a_late_delivery_of_the_attempt_before_settles_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=PUBLIC, adopt_timeout=5.0)
        first = await failed_once(emulator, piapi)
        emulator.fail("create", Drop(after_body=True))
        retrying = asyncio.ensure_future(retried(piapi))
        while emulator.seen.creates < 2:
            await asyncio.sleep(0.1)
        for key in (nonce_of("order 17", SECRET), nonce_of("order 17", SECRET, attempt=2)):
            await receiver.handle(HEADERS, delivery(first, "failed", note=key), query=f"{NONCE}={key}")
        outcome = await retrying

        assert isinstance(outcome.error, SubmissionUnknown)
        assert await entry_of(ledger) == ("unknown", 2, None)


async def test_a_delivery_finds_the_second_attempt_whose_response_was_lost(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0) as (emulator, piapi):
        receiver = WebhookReceiver(piapi, secret=SECRET, url=PUBLIC)
        await failed_once(emulator, piapi)
        emulator.fail("create", Drop(after_body=True))
        retrying = asyncio.ensure_future(retried(piapi))
        while len(made(emulator)) < 2:
            await asyncio.sleep(0.1)
        second = made(emulator)[1]
        await receiver.handle(
            HEADERS, delivery(second), query=f"{NONCE}={nonce_of('order 17', SECRET, attempt=2)}"
        )
        outcome = await retrying

        assert outcome.ok
        assert await entry_of(ledger) == ("ended", 2, second)


async def test_draining_and_max_submits_hold_back_new_attempts_too(tmp_path: Path) -> None:
    async with serving({"ledger": Ledger(tmp_path / "run.db")}, durations=5.0) as (emulator, piapi):
        await failed_once(emulator, piapi)
        outcome = await retried(piapi, max_submits=0)
        runner = BatchRunner(piapi, retry_failed=True, on_progress=lambda _: runner.drain())
        [drained] = await runner.run([ITEM])

    assert isinstance(outcome.error, TaskFailed)
    assert outcome.resumed
    assert isinstance(drained.error, TaskFailed)
    assert emulator.seen.creates == 1


async def test_an_attempt_whose_process_died_is_unknown(tmp_path: Path) -> None:
    """The row is there before the POST leaves: whoever comes later pays no second time."""
    path = tmp_path / "run.db"
    async with serving({"ledger": Ledger(path)}, durations=5.0) as (emulator, piapi):
        await failed_once(emulator, piapi)
        with closing(sqlite3.connect(path)) as connection, connection:  # as it is on the disk then
            connection.execute(
                "UPDATE submits SET state = 'sending', owner = 'dead', task_id = NULL, attempt = 2, at = 1"
            )
        outcome = await retried(piapi)

    assert isinstance(outcome.error, SubmissionUnknown)


def test_it_needs_a_ledger() -> None:
    with pytest.raises(ValueError, match="retry_failed: only a ledger knows"):
        BatchRunner(PiAPI(KEY), retry_failed=True)


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Status(401), AuthenticationError), (Status(402), InsufficientCreditError)],
)
async def test_no_credit_or_a_refused_key_submits_nothing_more(
    fault: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving({}, durations=5.0, **WIDE) as (emulator, piapi):
        await BatchRunner(piapi).run(rerolls(1))
        emulator.fail("create", fault, times=None)
        runner = BatchRunner(piapi, concurrency=4)
        outcomes = await runner.run(rerolls(1000))

    assert len(outcomes) <= 8
    assert {type(outcome.error) for outcome in outcomes} == {error}
    assert sum("Nothing more is submitted" in line for line in caplog.messages) == 1
