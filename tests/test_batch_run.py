"""How a batch runs: slots of a semaphore, workers in a task group, one identity per item."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import field, frozen
from support.batching import WIDE, rerolls
from support.serving import serving, turns

from piapi_async import LEGACY, BatchItem, BatchRunner, Ledger, MidjourneyResult, Reroll
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.family import Family
from piapi_async._verdict import read_created
from piapi_async.cli._batch._check import identified
from piapi_async.cli._batch._lines import Line, Origin
from piapi_async.cli._batch._results import digest_of, row_of
from piapi_async.cli._batch._source import Source
from piapi_async.tasks import Created, TaskId


@frozen
class Counted:
    """A reroll that counts how often it is serialised."""

    origin: str
    serialised: list[str] = field(factory=list)
    family: Family[MidjourneyResult] = LEGACY

    def to_http(self) -> HTTPRequest:
        self.serialised.append(self.origin)
        return Reroll(self.origin).to_http()

    def parse(self, response: HTTPResponse) -> TaskId | Created:
        return read_created(response, self)


@pytest.mark.looptime
@pytest.mark.parametrize(("with_ledger", "times"), [(False, 1), (True, 2)])
@pytest.mark.parametrize("key", [None, "a key"])
async def test_an_item_is_serialised_once_and_once_more_for_the_ledger(
    key: str | None, times: int, tmp_path: Path, *, with_ledger: bool
) -> None:
    given: dict[str, Any] = {"ledger": Ledger(tmp_path / "run.db")} if with_ledger else {}
    request = Counted("p")
    async with serving(given, **WIDE) as (_, piapi):
        [outcome] = await BatchRunner(piapi).run([BatchItem(request, key)])

        assert outcome.ok
        assert ["p"] * times == request.serialised


@frozen
class Lines:
    """A batch file of one line."""

    request: Counted
    source: Source = field(factory=lambda: Source("p", None))

    def lines(self) -> Iterator[Line]:
        yield Line(self.request, None, Origin(1, "reroll", {"origin_task_id": self.request.origin}, {}))


@pytest.mark.looptime
@pytest.mark.parametrize("with_ledger", [False, True])
async def test_a_line_of_a_file_is_serialised_twice_from_its_reading_to_its_result(
    tmp_path: Path, *, with_ledger: bool
) -> None:
    given: dict[str, Any] = {"ledger": Ledger(tmp_path / "run.db")} if with_ledger else {}
    file: Any = Lines(Counted("p"))
    async with serving(given, **WIDE) as (_, piapi):
        [outcome] = await BatchRunner(piapi).run(identified(piapi, file))
        row = row_of(outcome, outcome.extra)

        assert ["p"] * 2 == file.request.serialised
        assert row["digest"] == digest_of(outcome.request)


@pytest.mark.looptime
async def test_a_slot_is_held_from_before_an_item_is_taken_until_its_outcome_is() -> None:
    taken = []

    def items() -> Any:
        for request in rerolls(10):
            taken.append(request)
            yield request

    async with serving(durations=1.0, **WIDE) as (_, piapi):
        runner = BatchRunner(piapi, concurrency=3)
        async with runner.stream(items()) as outcomes:
            await turns(20)
            assert 3 == len(taken)
            await asyncio.sleep(100)
            assert 3 == len(taken)

            await anext(outcomes)
            await turns(20)
            assert 4 == len(taken)


@pytest.mark.looptime
async def test_a_stream_may_be_left_by_another_task_and_amid_scopes_of_its_readers() -> None:
    async with serving(durations=5.0, **WIDE) as (_, piapi):
        stack = contextlib.AsyncExitStack()
        scope = anyio.CancelScope()
        with scope:
            outcomes = await stack.enter_async_context(BatchRunner(piapi).stream(rerolls(3)))
        assert (await anext(outcomes)).ok

        await asyncio.create_task(stack.aclose())

        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)


@pytest.mark.looptime
async def test_a_stream_that_is_left_at_once_takes_nothing() -> None:
    async with serving(**WIDE) as (emulator, piapi):
        runner = BatchRunner(piapi)
        async with runner.stream(rerolls(3)):
            pass

        assert 0 == runner.totals.read
        assert 0 == emulator.seen.creates


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_what_ends_the_program_comes_out_of_the_loop_as_itself_and_then_reaches_the_reader(
    error: BaseException,
) -> None:
    loop = asyncio.new_event_loop()

    def items() -> Any:
        yield from rerolls(2)
        raise error

    async def read() -> list[Any]:
        async with (
            serving(**WIDE) as (_, piapi),
            BatchRunner(piapi, concurrency=3).stream(items()) as outcomes,
        ):
            return [outcome async for outcome in outcomes]

    reading = loop.create_task(read())
    with pytest.raises(type(error)) as from_loop:
        loop.run_until_complete(reading)
    assert from_loop.value is error

    with pytest.raises(type(error)) as from_stream:  # the program goes on all the same
        loop.run_until_complete(reading)
    assert from_stream.value is error
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()
