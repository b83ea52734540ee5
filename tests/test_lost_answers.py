"""Submissions whose response was lost, and their tasks in the host's history."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from support.hooking import hooked
from support.serving import KEY, now, serving

from piapi_async import CreateTask, Ledger, PiAPI, SubmissionUnknown
from piapi_async._submit.peers import Peers
from piapi_async.emulator import Dialect, Drop, Emulator, SlowFirstByte
from piapi_async.ledger import LedgerState

pytestmark = pytest.mark.looptime

MODEL, TASK_TYPE = "Qubico/flux1-schnell", "txt2img"
LOST = Drop(after_body=True)
WIDE: dict[str, Any] = {"concurrency": 5_000, "queue": 10_000}


def cat(prompt: str = "a cat", **inputs: Any) -> CreateTask:
    return CreateTask(MODEL, TASK_TYPE, {"prompt": prompt, **inputs})


def made(emulator: Emulator, prompt: str = "a cat") -> list[str]:
    """The tasks that were made of a prompt, the earliest first."""
    return [task_id for task_id, task in emulator.engine.tasks.items() if task.input.get("prompt") == prompt]


def asked(emulator: Emulator) -> tuple[int, int]:
    """How many pages of the history were read, and how many tasks."""
    return emulator.seen.requests["history"], emulator.seen.requests["task_read"]


async def test_its_task_is_found_and_nothing_is_sent_again() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(history_lag=3.5)) as (emulator, piapi):
        emulator.fail("create", LOST)
        handle = await piapi.submit(cat())

        assert [handle.task_id] == made(emulator)
        assert now() == pytest.approx(7.0, abs=0.1)  # looked for after 1, 3 and 7 seconds
        assert piapi.stats.recovered == 1
        assert (await handle.wait()).images


@pytest.mark.parametrize("count", [200, pytest.param(1_000, marks=pytest.mark.storm)])
async def test_of_many_with_equals_among_them_each_gets_its_own(count: int, tmp_path: Path) -> None:
    dialect = Dialect(history_lag=3.0)
    async with serving({"ledger": Ledger(tmp_path / "run.db"), "recover": 60.0}, dialect=dialect, **WIDE) as (
        emulator,
        piapi,
    ):
        emulator.fail("create", LOST, rate=0.1)
        slots = asyncio.Semaphore(64)

        async def one(number: int) -> tuple[str, str]:
            prompt = f"cat {number % (count * 7 // 10)}"
            async with slots:
                handle = await piapi.submit(cat(prompt), key=str(number))
            return prompt, handle.task_id

        told = await asyncio.gather(*map(one, range(count)))
        lost = piapi.stats.recovered
        pages, reads = asked(emulator)

        assert len(made_all := {task_id for _, task_id in told}) == count == emulator.seen.creates
        assert made_all == set(emulator.engine.tasks)
        assert all(emulator.engine.tasks[task_id].input["prompt"] == prompt for prompt, task_id in told)
        assert 0.04 * count < lost < 0.16 * count
        assert pages <= 0.5 * lost
        assert reads <= 1.3 * lost


def one_unknown(error: BaseException) -> SubmissionUnknown:
    assert isinstance(error, SubmissionUnknown)
    return error


async def lose(emulator: Emulator, piapi: PiAPI, **options: Any) -> str:
    """Submit a cat whose response is lost; return its task's id."""
    emulator.fail("create", LOST)
    return (await piapi.submit(cat(), **options)).task_id


# -- found ----------------------------------------------------------------------------------------


async def test_it_is_found_among_hundreds_of_others_of_the_same_seconds() -> None:
    async with (
        serving({"recover": 60.0}, dialect=Dialect(history_lag=2.0), **WIDE) as (emulator, piapi),
        PiAPI(KEY, base_url=emulator.base_url, recover=0) as other,
    ):
        await asyncio.gather(*[other.submit(cat(f"a dog, {number}")) for number in range(230)])

        assert [await lose(emulator, piapi)] == made(emulator)


@pytest.mark.parametrize("wrong", [3600.0, -3600.0])
async def test_a_wrong_clock_does_no_harm(
    wrong: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    true_time = time.time
    async with serving({"recover": 60.0, "ledger": Ledger(tmp_path / "run.db")}) as (emulator, piapi):
        monkeypatch.setattr(time, "time", lambda: true_time() + wrong)
        assert [await lose(emulator, piapi)] == made(emulator)


async def test_rows_that_appear_only_at_the_end_are_waited_for() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(history_from="end"), durations=20.0) as (
        emulator,
        piapi,
    ):
        assert [await lose(emulator, piapi)] == made(emulator)
        assert now() == pytest.approx(31.0, abs=0.5)


async def test_a_caller_who_leaves_does_not_end_the_search(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"recover": 60.0, "ledger": ledger}, dialect=Dialect(history_lag=3.0)) as (
        emulator,
        piapi,
    ):
        emulator.fail("create", LOST)
        caller = asyncio.create_task(piapi.submit(cat(), key="k"))
        while not emulator.seen.creates:  # the ledger is a thread, which virtual time does not wait for
            await asyncio.sleep(0.1)
        caller.cancel()
        while not piapi.stats.recovered:
            await asyncio.sleep(1.0)

        entry = await ledger.find("k")
        assert entry is not None
        assert [entry.task_id] == made(emulator)
        assert entry.found == "history"


async def test_a_close_looks_once_more(tmp_path: Path) -> None:
    async with serving() as (emulator, _):
        for lag, found in ((0.2, True), (30.0, False)):
            emulator._host.view = evolve(emulator._host.view, dialect=Dialect(history_lag=lag))
            async with PiAPI(KEY, base_url=emulator.base_url, recover=60.0) as piapi:
                emulator.fail("create", LOST)
                caller = asyncio.create_task(piapi.submit(cat(f"lag {lag}")))
                await asyncio.sleep(0.5)
            before = now()
            [end] = await asyncio.gather(caller, return_exceptions=True)
            assert found is not isinstance(end, SubmissionUnknown)
            assert now() == before


async def test_a_delivery_may_be_first() -> None:
    dialect = Dialect(history_lag=50.0)
    async with hooked({"recover": 60.0}, dialect=dialect, durations=10.0) as (emulator, piapi, receiver):
        assert [await lose(emulator, piapi)] == made(emulator)
        assert now() == pytest.approx(10.0, abs=0.5)
        assert receiver.counts["adopted"] == 1


@pytest.mark.parametrize("hides_input", [False, True])
async def test_the_endpoint_that_a_task_echoes_proves_it(hides_input: bool) -> None:  # noqa: FBT001 - a parameter
    dialect = Dialect(history_lag=0.5, hides_input=hides_input)
    async with hooked({"recover": 60.0}, dialect=dialect) as (emulator, piapi, _):
        emulator.fail("create", LOST, times=2)
        handles = await asyncio.gather(piapi.submit(cat()), piapi.submit(cat()))
        assert {handle.task_id for handle in handles} == set(made(emulator))


# -- not found ------------------------------------------------------------------------------------


async def test_what_made_nothing_is_unknown_within_the_time_and_was_sent_once() -> None:
    async with serving({"recover": 60.0}) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True, made=False))
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat())

        assert now() == pytest.approx(60.0, abs=0.5)
        assert emulator.seen.requests["task_create"] == 1
        assert asked(emulator)[0] <= 9


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_host_without_a_history_is_not_asked_again_for_ten_minutes(status: int) -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(history=False, history_off_status=status)) as (
        emulator,
        piapi,
    ):
        for pages, wait in ((1, 500.0), (1, 200.0), (2, 0.0)):
            emulator.fail("create", LOST)
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(cat())
            assert asked(emulator)[0] == pages
            await asyncio.sleep(wait)


async def test_tasks_that_show_no_input_are_nobodys_and_are_not_waited_for() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect(hides_input=True, history_lag=2.0)) as (
        emulator,
        piapi,
    ):
        emulator.fail("create", Drop(after_body=True, made=False))
        emulator.fail("create", LOST)
        others = asyncio.create_task(piapi.submit(cat("a dog")))
        with pytest.raises(SubmissionUnknown, match="shows no inputs of its tasks, so none of 1 can be told"):
            await piapi.submit(cat())
        assert now() == pytest.approx(7.0, abs=0.1)  # a row is there at the second look, and at the third

        with pytest.raises(SubmissionUnknown):
            await others
        assert asked(emulator)[1] == 1


# -- never a wrong one ----------------------------------------------------------------------------


async def test_none_is_taken_while_an_equal_one_may_still_be_answered() -> None:
    async with serving({"recover": 60.0}, dialect=Dialect()) as (emulator, piapi):
        emulator.fail("create", Drop(after_body=True, made=False))
        emulator.fail("create", SlowFirstByte(20.0))
        lost, slow = await asyncio.gather(piapi.submit(cat()), piapi.submit(cat()), return_exceptions=True)

        assert isinstance(lost, SubmissionUnknown)
        assert not isinstance(slow, BaseException)
        assert [slow.task_id] == made(emulator)


async def test_a_slow_response_and_a_lost_one_of_equals_get_a_task_each() -> None:
    async with serving({"recover": 60.0}) as (emulator, piapi):
        emulator.fail("create", LOST)
        emulator.fail("create", SlowFirstByte(20.0))
        lost, slow = await asyncio.gather(piapi.submit(cat()), piapi.submit(cat()))

        assert {lost.task_id, slow.task_id} == set(made(emulator))
        assert now() == pytest.approx(31.0, abs=0.5)


async def test_none_is_taken_where_more_fit_than_were_lost() -> None:
    async with (
        serving({"recover": 10.0}) as (emulator, piapi),
        PiAPI(KEY, base_url=emulator.base_url, recover=0) as stranger,
    ):
        stranger._runtime.submitter.finder._peers = Peers()  # as if it were in another process
        piapi._runtime.submitter.finder._peers = None
        emulator.fail("create", LOST)
        ours, theirs = await asyncio.gather(
            piapi.submit(cat()), stranger.submit(cat()), return_exceptions=True
        )

        assert not isinstance(theirs, BaseException)
        assert {ref.task_id for ref in one_unknown(ours).candidates} == set(made(emulator))  # type: ignore[arg-type]


async def test_two_clients_of_one_loop_share_no_task_though_they_have_no_ledger() -> None:
    async with (
        serving({"recover": 60.0}) as (emulator, one),
        PiAPI(KEY, base_url=emulator.base_url) as other,
    ):
        emulator.fail("create", LOST, times=4)
        handles = await asyncio.gather(*[client.submit(cat()) for client in (one, other, one, other)])
        assert {handle.task_id for handle in handles} == set(made(emulator))

        emulator.fail("create", Drop(after_body=True, made=False))
        ends = await asyncio.gather(one.submit(cat("b")), other.submit(cat("b")), return_exceptions=True)
        assert sorted(isinstance(end, SubmissionUnknown) for end in ends) == [False, True]


async def test_two_processes_on_one_ledger_share_no_task(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with (
        serving({"recover": 60.0, "ledger": Ledger(path)}, dialect=Dialect(history_lag=2.0)) as (
            emulator,
            one,
        ),
        PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as other,
    ):
        other._runtime.submitter.finder._peers = Peers()  # as in another process
        emulator.fail("create", LOST, times=4)
        clients = enumerate((one, other, one, other))
        handles = await asyncio.gather(*[client.submit(cat(), key=f"k{n}") for n, client in clients])
        assert {handle.task_id for handle in handles} == set(made(emulator))

        emulator.fail("create", Drop(after_body=True, made=False))
        emulator.fail("create", SlowFirstByte(20.0))
        ends = await asyncio.gather(
            one.submit(cat("b"), key="b1"), other.submit(cat("b"), key="b2"), return_exceptions=True
        )
        assert [False, True] == sorted(isinstance(end, SubmissionUnknown) for end in ends)


async def test_an_identical_task_of_a_day_later_is_not_taken(tmp_path: Path) -> None:
    async with (
        serving({"recover": 5.0, "ledger": Ledger(tmp_path / "run.db")}) as (emulator, piapi),
        PiAPI(KEY, base_url=emulator.base_url, recover=0) as other,
    ):
        emulator.fail("create", Drop(after_body=True, made=False))
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat(), key="k")
        await asyncio.sleep(86_400)
        other._runtime.submitter.finder._peers = Peers()
        await other.submit(cat())

        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat(), key="k")
        assert emulator.seen.creates == 1


async def test_a_task_that_ended_long_ago_is_taken_by_nobody_else(tmp_path: Path) -> None:
    async with serving({"recover": 60.0, "ledger": Ledger(tmp_path / "run.db")}, durations=1.0) as (
        emulator,
        piapi,
    ):
        first = await piapi.submit(cat(), key="first")
        emulator.fail("create", Drop(after_body=True, made=False))
        second = asyncio.create_task(piapi.submit(cat(), key="second"))
        await first.wait()
        piapi._runtime.submitter.finder._ids._young.clear()
        piapi._runtime.submitter.finder._peers = None
        with pytest.raises(SubmissionUnknown):
            await second


# -- afterwards -----------------------------------------------------------------------------------


async def test_an_unknown_key_is_looked_for_when_it_is_submitted_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"recover": 2.0, "ledger": ledger}, dialect=Dialect(history_lag=30.0)) as (
        emulator,
        piapi,
    ):
        emulator.fail("create", LOST)
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(cat(), key="k")
        await asyncio.sleep(3600)

        again = await piapi.submit(cat(), key="k")
        assert [again.task_id] == made(emulator)
        entry = await ledger.find("k")
        assert entry is not None
        assert (LedgerState.ACCEPTED, "history") == (entry.state, entry.found)


async def test_all_unknown_keys_are_looked_for_in_one_pass(tmp_path: Path) -> None:
    path = tmp_path / "run.db"
    async with serving(dialect=Dialect(), **WIDE) as (emulator, first):
        del first
        emulator.fail("create", LOST, times=30)
        emulator.fail("create", Drop(after_body=True, made=False), times=1)
        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path), recover=0) as piapi:
            submits = [piapi.submit(cat(f"cat {n}"), key=f"k{n}") for n in range(31)]
            assert all(map(one_unknown, await asyncio.gather(*submits, return_exceptions=True)))  # type: ignore[arg-type]

        async with PiAPI(KEY, base_url=emulator.base_url, ledger=Ledger(path)) as piapi:
            report = await piapi.recover()
        assert (30, ("k30",)) == (len(report.found), report.unknown)
        assert {ref.task_id for ref in report.found.values()} == set(emulator.engine.tasks)
        assert asked(emulator)[0] <= 2


async def test_without_a_ledger_there_is_nothing_to_look_for() -> None:
    async with serving() as (_, piapi):
        with pytest.raises(ValueError, match="ledger"):
            await piapi.recover()
