"""What is somebody else's (an input, a callback, a request, a cancellation) costs a batch nothing that it paid for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve, field, frozen
from support.batching import WIDE, Oops, rerolls
from support.serving import REROLL, now, serving, turns

from piapi_async import (
    LEGACY,
    BatchRunner,
    Ledger,
    MidjourneyResult,
    Reroll,
    TaskRef,
    TaskState,
    WaitTimeout,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async.batch import Outcome, Totals
from piapi_async.emulator import Emulator
from piapi_async.handle import TaskHandle
from piapi_async.tasks import Created, TaskId

pytestmark = pytest.mark.looptime


def made(emulator: Emulator) -> set[str]:
    return {task_id for task_id, task in emulator.engine.tasks.items() if not task.adopted}


def ids(outcomes: Any) -> set[str]:
    return {outcome.ref.task_id for outcome in outcomes if outcome.ref is not None}


def warnings_in(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


def told_in(caplog: pytest.LogCaptureFixture, emulator: Emulator) -> set[str]:
    """Return the tasks that warnings name."""
    return {task_id for task_id in made(emulator) if task_id in warnings_in(caplog)}


# -- an input that fails --------------------------------------------------------------------------------------------


def that_raises(error: BaseException, after: int) -> Iterator[Reroll]:
    yield from rerolls(after)
    raise error


async def async_that_raises(error: BaseException, after: int) -> AsyncIterator[Reroll]:
    for request in rerolls(after):
        yield request
    raise error


@frozen
class EvenStricter:
    """An async iterator that is no generator, whose `__anext__` raises by itself."""

    error: BaseException
    items: list[Reroll]

    def __aiter__(self) -> AsyncIterator[Reroll]:
        return self

    def __anext__(self) -> Any:
        if not self.items:
            raise self.error
        return asyncio.sleep(0, self.items.pop())


def by_hand(error: BaseException, after: int) -> EvenStricter:
    return EvenStricter(error, rerolls(after))


class Loud(BaseException):
    """Such as pytest's own, or trio's."""


each_shape = pytest.mark.parametrize("shape", [that_raises, async_that_raises, by_hand])


@each_shape
async def test_a_run_whose_input_fails_raises_its_error_with_the_outcomes(shape: Callable[..., Any]) -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        with pytest.raises(Oops, match="as it is") as caught:
            await BatchRunner(piapi).run(shape(Oops("as it is"), 20))

        outcomes = caught.value.outcomes  # type: ignore[attr-defined]
        assert list(range(20)) == [outcome.index for outcome in outcomes]
        assert made(emulator) == ids(outcomes)
        assert all(task_id in caught.value.__notes__[0] for task_id in made(emulator))


@each_shape
@pytest.mark.parametrize("error", [asyncio.CancelledError("whose?"), Loud("whose?"), GeneratorExit("whose?")])
async def test_an_input_that_raises_what_would_end_its_reader_has_failed(
    shape: Callable[..., Any], error: BaseException
) -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        with pytest.raises(RuntimeError, match="whose") as caught:
            await BatchRunner(piapi, concurrency=3).run(shape(error, 5))

        assert made(emulator) == ids(caught.value.outcomes)  # type: ignore[attr-defined]
        assert error is caught.value.__cause__


async def test_an_input_that_raises_the_end_of_another_kind_of_input_has_failed() -> None:
    async with serving(durations=30.0, **WIDE) as (_, piapi):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await BatchRunner(piapi, concurrency=3).run(by_hand(StopIteration(), 5))


class Sealed(Exception):
    """An error that takes no attributes."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "outcomes":
            raise AttributeError(name)
        super().__setattr__(name, value)


async def test_a_note_is_of_bounded_length() -> None:
    async with serving(durations=1.0, **WIDE) as (_, piapi):
        with pytest.raises(Oops) as caught:
            await BatchRunner(piapi).run(that_raises(Oops(), 150))

        assert 150 == len(caught.value.outcomes)  # type: ignore[attr-defined]
        assert "the last 100 of 150 tasks" in caught.value.__notes__[0]
        assert len(caught.value.__notes__[0]) < 5_000


async def test_an_error_that_takes_no_attribute_names_the_tasks_in_a_note() -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        with pytest.raises(Sealed) as caught:
            await BatchRunner(piapi).run(that_raises(Sealed(), 3))

        assert not hasattr(caught.value, "outcomes")
        assert all(task_id in caught.value.__notes__[0] for task_id in made(emulator))


# -- a reader that is stopped ---------------------------------------------------------------------------------------


async def run_cancelled(runner: BatchRunner) -> Any:
    running = asyncio.create_task(runner.run(rerolls(12)))
    await asyncio.sleep(40)
    running.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await running
    return caught.value


async def run_timed_out(runner: BatchRunner) -> Any:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(40):
            await runner.run(rerolls(12))
    return caught.value.__cause__


@pytest.mark.parametrize("stop", [run_cancelled, run_timed_out])
async def test_a_run_that_is_stopped_carries_and_logs_what_was_paid_for(
    stop: Callable[[BatchRunner], Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        error = await stop(BatchRunner(piapi, concurrency=4))
        outcomes = error.outcomes

        assert made(emulator) == ids(outcomes)
        assert [True] * 4 + [False] * 4 == [outcome.ok for outcome in outcomes]
        late = [outcome.error for outcome in outcomes if not outcome.ok]
        assert all(
            isinstance(error, WaitTimeout) and "attach(outcome.error.ref)" in str(error) for error in late
        )
        assert {error.ref.task_id for error in late} == told_in(caplog, emulator)


async def test_a_stream_that_is_left_logs_what_nobody_has_taken(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi, concurrency=5)
        async with runner.stream(rerolls(5)) as outcomes:
            taken = await anext(outcomes)
            await asyncio.sleep(10)  # the others have ended, and offer their outcomes

        assert taken.ref is not None
        assert made(emulator) - {taken.ref.task_id} == told_in(caplog, emulator)
        assert runner.in_flight == []


async def test_with_a_ledger_it_is_no_warning_for_nothing_is_lost(
    tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db")}
    async with serving(client, durations=30.0, **WIDE) as (_, piapi):
        await run_cancelled(BatchRunner(piapi, concurrency=4))

        assert "" == warnings_in(everything_logged)
        assert "the ledger has them" in everything_logged.text


async def test_a_stream_that_is_read_to_its_end_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(durations=30.0, **WIDE) as (_, piapi):
        await BatchRunner(piapi).run(rerolls(5))

    assert "" == warnings_in(caplog)


async def test_a_submission_that_ends_after_its_reader_has_left_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(latency={"reroll": 10.0}, durations=30.0, **WIDE) as (emulator, piapi):
        with pytest.raises(Oops):
            async with BatchRunner(piapi, concurrency=4).stream(rerolls(9)):
                await asyncio.sleep(5)
                raise Oops

        assert 4 == len(made(emulator))
        assert all(task_id in warnings_in(caplog) for task_id in made(emulator))


# -- a callback that raises -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Oops, asyncio.CancelledError, StopIteration])
async def test_a_progress_callback_that_raises_ends_nothing_and_is_logged_once(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    def shout(_: Totals) -> None:
        raise error

    async with serving(durations=30.0, **WIDE) as (_, piapi):
        runner = BatchRunner(piapi, on_progress=shout)
        outcomes = await runner.run(rerolls(5))

        assert [True] * 5 == [outcome.ok for outcome in outcomes]
        assert 1 == warnings_in(caplog).count("on_progress raised")
        await runner.run(rerolls(1))
        assert 2 == warnings_in(caplog).count("on_progress raised")


# -- an item that raises --------------------------------------------------------------------------------------------


@frozen
class Odd:
    """Somebody's own request, which fails where it is told to."""

    error: BaseException
    where: str
    inner: Reroll = REROLL
    answers: list[HTTPResponse] = field(factory=list)

    @property
    def family(self) -> Family[MidjourneyResult]:
        def read(*_: object) -> Any:
            raise self.error

        if self.where == "family" or (self.where == "family, once accepted" and self.answers):
            raise self.error
        return evolve(LEGACY, read=read) if self.where == "read" else LEGACY

    def to_http(self) -> HTTPRequest:
        if self.where == "to_http":
            raise self.error
        return self.inner.to_http()

    def parse(self, response: HTTPResponse, /) -> TaskId | Created:
        self.answers.append(response)
        if self.where == "parse":
            raise self.error
        return self.inner.parse(response)


async def outcomes_around(odd: Any, client: dict[str, Any] | None = None) -> tuple[Outcome[Any], int]:
    """Return the outcome of an item between two good ones, and the number of tasks that were made."""
    async with serving(client, durations=30.0, **WIDE) as (emulator, piapi):
        first, outcome, last = await BatchRunner(piapi, concurrency=2).run([REROLL, odd, REROLL])
        assert first.ok
        assert last.ok
        assert outcome.ok == (outcome.error is None)
        return outcome, len(made(emulator))


@pytest.mark.parametrize("ledger", [False, True])
@pytest.mark.parametrize(
    "error", [TypeError("odd"), KeyError("odd"), RecursionError("odd"), ValueError("odd")]
)
async def test_an_item_that_cannot_be_written_is_its_own_outcome(
    error: Exception, *, ledger: bool, tmp_path: Path
) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db")} if ledger else None
    outcome, count = await outcomes_around(Odd(error, "to_http"), client)

    assert error is outcome.error
    assert outcome.ref is None
    assert 2 == count


async def test_an_item_whose_answer_it_cannot_read_and_that_names_a_task_is_waited_for() -> None:
    outcome, count = await outcomes_around(Odd(TypeError("odd"), "parse"))

    assert outcome.ok
    assert 3 == count


@pytest.mark.parametrize("error", [asyncio.CancelledError("odd"), Loud("odd")])
async def test_an_item_that_raises_what_would_end_its_worker_is_its_own_outcome(error: BaseException) -> None:
    outcome, _ = await outcomes_around(Odd(error, "family"))

    assert isinstance(outcome.error, RuntimeError)
    assert error is outcome.error.__cause__


@pytest.mark.parametrize("ledger", [False, True])
async def test_a_request_that_is_paid_for_is_asked_for_nothing_any_more(
    *, ledger: bool, tmp_path: Path
) -> None:
    client = {"ledger": Ledger(tmp_path / "run.db")} if ledger else None
    odd = Odd(Oops(), "family, once accepted")
    async with serving(client, durations=30.0, **WIDE) as (emulator, piapi):
        handle = await piapi.submit(odd)

        assert odd.answers
        assert made(emulator) == {handle.task_id}


class Quarrelsome(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise Oops(record.getMessage())


async def test_a_handler_of_logs_that_raises_costs_no_task_its_id() -> None:
    log, handler = logging.getLogger("piapi_async"), Quarrelsome(logging.INFO)
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        async with serving(durations=30.0, **WIDE) as (emulator, piapi):
            handle = await piapi.submit(REROLL)
            await handle.wait()

            assert made(emulator) == {handle.task_id}
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


@pytest.mark.parametrize("odd", [5, "text", None, object()])
async def test_an_item_that_makes_no_task_is_an_outcome_that_names_its_place(odd: Any) -> None:
    outcome, _ = await outcomes_around(odd)

    assert isinstance(outcome.error, TypeError)
    assert "item 1 of the batch" in str(outcome.error)


async def test_what_fails_after_a_task_was_paid_for_keeps_its_ref(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(TaskHandle, "wait", fail)
    async with serving(durations=30.0, **WIDE) as (emulator, piapi):
        outcomes = await BatchRunner(piapi).run(rerolls(3))

        assert made(emulator) == ids(outcomes)
        assert ["no room"] * 3 == [str(outcome.error) for outcome in outcomes]
        assert all(isinstance(outcome.ref, TaskRef) for outcome in outcomes)


async def test_a_disk_that_raises_anything_leaves_a_done_task_unsaved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> Any:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "odd")

    monkeypatch.setattr("piapi_async.downloads._saver.Downloads.save", fail)
    async with serving(durations=30.0, **WIDE) as (_, piapi):
        runner = BatchRunner(piapi, download=tmp_path)
        (outcome,) = await runner.run(rerolls(1))

        assert outcome.error is outcome.download_error is not None
        assert outcome.task is not None
        assert outcome.task.state is TaskState.DONE
        assert (1, 0, 1) == (runner.totals.done, runner.totals.failed, runner.totals.unsaved)


# -- an input that is closed ----------------------------------------------------------------------------------------


async def left_by_break(runner: BatchRunner, items: Any) -> None:
    async with runner.stream(items) as outcomes:
        await anext(outcomes)


async def left_by_error(runner: BatchRunner, items: Any) -> None:
    with contextlib.suppress(Oops):
        async with runner.stream(items):
            raise Oops


async def left_by_drain(runner: BatchRunner, items: Any) -> None:
    async with runner.stream(items) as outcomes:
        async for _ in outcomes:
            runner.drain()


async def left_by_allowance(runner: BatchRunner, items: Any) -> None:
    runner.max_submits = 1
    await runner.run(items)


@pytest.mark.parametrize("leave", [left_by_break, left_by_error, left_by_drain, left_by_allowance])
async def test_an_async_input_is_closed_by_the_task_that_reads_it(leave: Callable[..., Any]) -> None:
    readers: list[Any] = []

    async def endless() -> AsyncIterator[Reroll]:
        try:
            readers.append(asyncio.current_task())
            async with asyncio.timeout(1000):  # belongs to the task that has entered it
                while True:
                    yield REROLL
        finally:
            await asyncio.sleep(1)
            readers.append(asyncio.current_task())

    async with serving(durations=30.0, **WIDE) as (_, piapi):
        await leave(BatchRunner(piapi, concurrency=2), endless())
        await turns()

        assert len(readers) != 1, "it was not closed"
        assert 1 >= len(set(readers))


async def test_an_input_that_will_not_close_is_left_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> AsyncIterator[Reroll]:
        try:
            yield REROLL
            yield REROLL
        finally:
            await asyncio.sleep(10_000)

    async with serving({"timeout": 20.0}, durations=30.0, **WIDE) as (_, piapi):
        async with BatchRunner(piapi, concurrency=1).stream(stubborn()) as outcomes:
            await anext(outcomes)
            left = now()

        assert 20.0 == pytest.approx(now() - left, abs=0.1)
        assert "still busy 20 s after it was closed" in warnings_in(caplog)


async def test_what_closing_an_input_raises_is_logged_where_nobody_reads_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def untidy() -> AsyncIterator[Reroll]:
        try:
            while True:
                yield REROLL
        finally:
            raise Oops("untidy")

    async with serving(durations=30.0, **WIDE) as (_, piapi):
        await left_by_break(BatchRunner(piapi, concurrency=1), untidy())

    assert "failed when it was closed: Oops('untidy')" in warnings_in(caplog)
