"""Submits with a ledger: one task per key, whoever asks, whoever leaves, and whatever goes wrong in between."""

from __future__ import annotations

import asyncio
import pickle
import shlex
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.families import FamilyCase

from piapi_async import (
    ClientClosed,
    InvalidRequestError,
    Ledger,
    LedgerError,
    PiAPI,
    RateLimitError,
    Reroll,
    RetryPolicy,
    SubmissionUnknown,
    TransportError,
)
from piapi_async._http import HTTPRequest, HTTPResponse
from piapi_async._protocol.family import TaskRequest
from piapi_async.emulator import Drop, Emulator, Status
from piapi_async.ledger import LedgerState
from piapi_async.ledger._ledger import writer_of
from piapi_async.tasks import TaskId
from piapi_async.unified import request

KEY = "sk-test-5eCr3t"

pytestmark = pytest.mark.looptime


@asynccontextmanager
async def host(**options: Any) -> AsyncIterator[tuple[Emulator, str]]:
    emulator = Emulator(api_keys=(KEY,), adopt_parents=True, durations=30.0, **options)
    async with emulator.run() as url:
        yield emulator, url


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return tmp_path / "run.db"


def client(url: str, path: Path | Ledger, **options: Any) -> PiAPI:
    ledger = path if isinstance(path, Ledger) else Ledger(path)
    return PiAPI(KEY, base_url=url, ledger=ledger, recover=0, **options)


async def states_of(path: Path) -> Mapping[str, tuple[LedgerState, str | None]]:
    ledger = Ledger(path)
    states = {entry.key: (entry.state, entry.task_id) async for entry in ledger}
    await ledger.close()
    return states


def tasks_of(emulator: Emulator) -> list[str]:
    return [task_id for task_id, task in emulator.engine.tasks.items() if task.origin]


# -- one key ------------------------------------------------------------------------------------------------------


async def sent(emulator: Emulator) -> None:
    """Wait until the host has a request, so that the claim is in the file: its thread may be slow."""
    while not any(emulator.seen.requests.values()):
        await asyncio.sleep(0)


async def test_many_submits_of_one_key_at_once_make_one_task(path: Path, case: FamilyCase) -> None:
    async with host(latency=0.5) as (emulator, url), client(url, path) as one, client(url, path) as other:
        handles = await asyncio.gather(
            *(each.submit(case.reroll("p"), key="k") for each in (one, other) for _ in range(20))
        )

        assert {handle.task_id for handle in handles} == set(tasks_of(emulator))
        assert emulator.seen.requests[case.create] == 1


async def test_a_key_gives_its_task_in_a_later_run_and_after_the_task_has_ended(
    path: Path, case: FamilyCase
) -> None:
    async with host() as (emulator, url):
        for _ in range(3):
            async with client(url, path) as piapi:
                task = await (await piapi.submit(case.reroll("p"), key="k")).wait()
                assert [task.task_id] == tasks_of(emulator)
        assert {"k": (LedgerState.ENDED, tasks_of(emulator)[0])} == await states_of(path)


async def test_submits_without_a_key_are_recorded_too_and_are_all_their_own(
    path: Path, case: FamilyCase
) -> None:
    async with host() as (emulator, url):
        async with client(url, path) as piapi:
            await asyncio.gather(*(piapi.submit(case.reroll("p")) for _ in range(5)))
        states = await states_of(path)

        assert sorted(tasks_of(emulator)) == sorted(task_id or "" for _, task_id in states.values())
        assert {LedgerState.ACCEPTED} == {state for state, _ in states.values()}


async def test_a_key_stands_for_one_request_and_one_host(path: Path, case: FamilyCase) -> None:
    async with host() as (emulator, url), host() as (elsewhere, other_url):
        async with client(url, path) as piapi, client(other_url, path) as other:
            await piapi.submit(case.reroll("p"), key="k")
            with pytest.raises(ValueError, match="another request"):
                await piapi.submit(case.reroll("p", prompt="another"), key="k")
            with pytest.raises(LedgerError, match="belongs to"):
                await other.submit(case.reroll("p"), key="k")

        assert (emulator.seen.creates, elsewhere.seen.requests[case.create]) == (1, 0)


@pytest.mark.parametrize("key", ["", " ", 7, b"k", ("k",)])
async def test_what_is_no_key_is_refused_before_anything_is_written(path: Path, key: Any) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        with pytest.raises((ValueError, TypeError), match="key"):
            await piapi.submit(Reroll("p"), key=key)

        assert emulator.seen.requests["reroll"] == 0


async def test_a_key_whose_submit_was_refused_is_free_again(path: Path, case: FamilyCase) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("create", Status(400))
        with pytest.raises(InvalidRequestError):
            await piapi.submit(case.reroll("p"), key="k")
        handle = await piapi.submit(case.reroll("p", prompt="another"), key="k")

        assert [handle.task_id] == tasks_of(emulator)


async def test_who_waits_for_a_key_sends_it_when_the_one_before_could_not(
    path: Path, case: FamilyCase
) -> None:
    async with host(latency=1.0) as (emulator, url), client(url, path) as piapi, client(url, path) as other:
        emulator.fail("create", Status(400))
        first = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="k"))
        await sent(emulator)
        second = asyncio.ensure_future(other.submit(case.reroll("p"), key="k"))
        results = await asyncio.gather(first, second, return_exceptions=True)

        assert isinstance(results[0], InvalidRequestError)
        assert [results[1].task_id] == tasks_of(emulator)  # type: ignore[union-attr]  # a handle


async def test_a_key_is_free_again_when_the_host_asks_for_more_patience_than_there_is(path: Path) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("reroll", Status(429, retry_after=1_000))
        with pytest.raises(RateLimitError):
            await piapi.submit(Reroll("p"), key="k")

    assert {} == await states_of(path)


async def test_an_unreachable_host_leaves_nothing_behind(path: Path, case: FamilyCase) -> None:
    async with host() as (_, url):
        pass
    async with client(url, path) as piapi:
        with pytest.raises(TransportError) as caught:
            await piapi.submit(case.reroll("p"), key="k")

    assert not caught.value.sent
    assert {} == await states_of(path)


# -- what nobody knows --------------------------------------------------------------------------------------------


async def test_an_unknown_submit_says_what_happened_and_what_to_do_and_stays_unknown_until_resolved(
    tmp_path: Path, case: FamilyCase
) -> None:
    path = tmp_path / "my run.db"
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("create", Drop(after_body=True))
        with pytest.raises(SubmissionUnknown) as caught:
            await piapi.submit(case.reroll("p"), key="order 17")
        error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own

        assert (error.request, error.key) == (case.reroll("p"), "order 17")
        assert isinstance(caught.value.__cause__, TransportError)
        assert "may have been paid for" in str(error)
        command = ["piapi-async", "ledger", "resolve", str(path), "order 17"]
        assert shlex.join(command) in str(error)

        with pytest.raises(SubmissionUnknown, match="earlier submission of this key"):
            await piapi.submit(case.reroll("p"), key="order 17")
        assert emulator.seen.requests[case.create] == 1

        ledger = Ledger(path)
        await ledger.resolve("order 17", task_id=tasks_of(emulator)[0])
        await ledger.close()
        handle = await piapi.submit(case.reroll("p"), key="order 17")
        assert [handle.task_id] == tasks_of(emulator)


@request
class Clumsy(Reroll):
    """A request class with a mistake in it."""

    def parse(self, response: HTTPResponse, /) -> TaskId:
        raise KeyError(response.status)


async def test_a_request_class_that_fails_on_its_answer_does_not_undo_what_was_sent(path: Path) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        for _ in range(2):  # the answer names a task, and the host knows it
            assert [(await piapi.submit(Clumsy("p"), key="k")).task_id] == tasks_of(emulator)

        assert emulator.seen.creates == 1


@request
class Cancelling(Reroll):
    """A request class that raises what looks like a cancellation."""

    def parse(self, response: HTTPResponse, /) -> TaskId:
        raise asyncio.CancelledError(response.status)


async def test_a_request_class_that_raises_a_cancellation_loses_no_task(path: Path) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        assert [(await piapi.submit(Cancelling("p"), key="k")).task_id] == tasks_of(emulator)


async def test_a_request_class_that_fails_on_an_answer_without_an_id_leaves_it_unknown(path: Path) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("reroll", Status(200, body={}, made=True))
        for _ in range(2):
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(Clumsy("p"), key="k")

        assert emulator.seen.creates == 1


@request
class Bodiless(Reroll):
    """A request that says all in its path."""

    def to_http(self) -> HTTPRequest:
        return HTTPRequest("POST", "/mj/v2/reroll")


async def test_a_request_without_a_body_that_may_have_arrived_is_not_sent_again(path: Path) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("reroll", Drop(after_body=True, made=False))
        for _ in range(2):
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(Bodiless("p"), key="k")

        assert emulator.seen.requests["reroll"] == 1


async def test_a_connection_that_closes_between_being_taken_and_being_written_to_is_never_sent(
    path: Path,
) -> None:
    closed: list[asyncio.Transport] = []

    async def close_once(session: aiohttp.ClientSession, *_: object) -> None:
        if not closed:
            assert isinstance(session.connector, aiohttp.TCPConnector)
            closed.extend(
                taken.transport for taken in session.connector._acquired if taken.transport is not None
            )
            for connection in closed:
                connection.close()

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(close_once)
    trace.freeze()
    async with host() as (emulator, url):
        piapi = client(url, path)
        await piapi.submit(Reroll("p"), key="first")
        for session in piapi._runtime.sender.transport._own.values():
            session.trace_configs.append(trace)
        await piapi.submit(Reroll("p"), key="second")
        await piapi.close()

        assert closed
        assert emulator.seen.creates == 2


# -- a ledger that fails ------------------------------------------------------------------------------------------


async def fill_up(ledger: Ledger) -> None:
    """Let the ledger's disk be full from now on: long ids find no room."""
    await writer_of(ledger).run(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall())


LONG_ID = "t" * 50_000


@request
class Wordy(Reroll):
    """A request whose tasks have ids that fill a disk."""

    def parse(self, response: HTTPResponse, /) -> TaskId:
        super().parse(response)
        return TaskId(LONG_ID)


async def test_an_id_that_cannot_be_recorded_is_in_the_error_and_the_key_is_not_sent_again(
    path: Path,
) -> None:
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url), client(url, ledger) as piapi:
        submit = asyncio.ensure_future(piapi.submit(Wordy("p"), key="k"))
        await sent(emulator)
        await fill_up(ledger)
        with pytest.raises(LedgerError, match="was accepted, and is paid for") as caught:
            await submit
        assert caught.value.ref is not None
        assert caught.value.ref.task_id == LONG_ID

        with pytest.raises(SubmissionUnknown):
            await piapi.submit(Wordy("p"), key="k")
        assert emulator.seen.requests["reroll"] == 1


async def test_an_id_that_cannot_be_recorded_is_logged_when_its_caller_has_left(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url), client(url, ledger) as piapi:
        submit = asyncio.ensure_future(piapi.submit(Wordy("p"), key="k"))
        await sent(emulator)
        await fill_up(ledger)
        submit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submit
        await piapi.close()

    assert LONG_ID in caplog.text


async def test_without_a_ledger_the_id_of_a_task_whose_caller_has_left_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with host(latency=1.0) as (emulator, url), PiAPI(KEY, base_url=url) as piapi:
        submit = asyncio.ensure_future(piapi.submit(Reroll("p")))
        await asyncio.sleep(0.5)
        submit.cancel()
        await piapi.close()

        assert tasks_of(emulator)[0] in caplog.text


async def test_without_a_ledger_that_works_nothing_is_sent(tmp_path: Path) -> None:
    async with host() as (emulator, url), client(url, tmp_path) as piapi:
        with pytest.raises(LedgerError):
            await piapi.submit(Reroll("p"))

        assert emulator.seen.requests["reroll"] == 0


async def test_a_client_that_closes_leaves_the_submits_of_another_one_on_the_same_ledger_alone(
    path: Path,
) -> None:
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url), client(url, ledger) as piapi:
        async with client(url, ledger) as other:
            await other.fetch_many([])
            submit = asyncio.ensure_future(piapi.submit(Reroll("p"), key="k"))
            await sent(emulator)
        assert {"k": (LedgerState.SENDING, None)} == await states_of(path)
        handle = await submit

        assert {"k": (LedgerState.ACCEPTED, handle.task_id)} == await states_of(path)
        assert [handle.task_id] == tasks_of(emulator)


async def test_neither_the_api_key_nor_a_webhook_secret_is_in_any_file_of_the_ledger(
    path: Path, case: FamilyCase
) -> None:
    request = case.reroll("p", webhook_endpoint="https://h.test/", webhook_secret="hush-hush")
    async with host() as (emulator, url):
        async with client(url, path) as piapi:
            await (await piapi.submit(request)).wait()
            emulator.fail("create", Status(502))
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(request, key="k")
            contents = [file.read_bytes() for file in path.parent.iterdir()]
            assert len(contents) > 2
        contents.append(path.read_bytes())

    assert not any(secret in content for content in contents for secret in (KEY.encode(), b"hush-hush"))


# -- those who leave ----------------------------------------------------------------------------------------------


async def test_who_has_left_is_not_served_again_when_the_host_asks_for_another_try(
    path: Path, case: FamilyCase
) -> None:
    async with host(latency=1.0) as (emulator, url), client(url, path) as piapi:
        emulator.fail("create", Status(429, retry_after=5))
        submit = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="k"))
        await sent(emulator)
        submit.cancel()
        while len(piapi._runtime.submitter):
            await asyncio.sleep(0.1)

        assert {} == await states_of(path)
        await asyncio.sleep(60)
        assert emulator.seen.requests[case.create] == 1


# -- waiting without a claim ---------------------------------------------------------------------------------------


async def test_a_submit_that_waits_is_not_under_way_in_the_ledger(path: Path, case: FamilyCase) -> None:
    async with host() as (emulator, url), client(url, path) as piapi:
        emulator.fail("create", Status(429, retry_after=30))
        first = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="refused"))
        await asyncio.sleep(1.0)
        others = [
            asyncio.ensure_future(piapi.submit(case.reroll("p"), key=f"k{number}")) for number in range(5)
        ]
        await asyncio.sleep(5.0)

        assert {} == await states_of(path)

        await asyncio.gather(first, *others)
        assert {LedgerState.ACCEPTED} == {state for state, _ in (await states_of(path)).values()}
        assert emulator.seen.creates == 6


async def test_a_key_that_another_has_submitted_meanwhile_is_the_others(path: Path, case: FamilyCase) -> None:
    async with (
        host() as (emulator, url),
        client(url, path, rate_limit=(1, 60.0)) as slow,
        client(url, path) as quick,
    ):
        await slow.submit(case.reroll("p"))
        waiting = asyncio.ensure_future(slow.submit(case.reroll("p"), key="k"))
        await asyncio.sleep(10.0)

        handle = await quick.submit(case.reroll("p"), key="k")

        assert (await waiting).task_id == handle.task_id
        assert emulator.seen.creates == 2


@pytest.mark.parametrize("moment", [0.5, 5.0])  # before it begins to wait, and meanwhile
async def test_a_file_that_fails_while_a_submit_waits_fails_the_submit_and_pays_nothing(
    moment: float, path: Path, case: FamilyCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._file._BUSY_SECONDS", 0.05)
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url), client(url, ledger) as piapi:
        emulator.fail("create", Status(429, retry_after=30))
        submit = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="k"))
        await asyncio.sleep(moment)
        with (
            locked(path),
            pytest.raises(LedgerError, match=r"holds it\. (Nothing was sent, n|N)othing was paid"),
        ):
            await submit
        await asyncio.sleep(60.0)
        assert emulator.seen.creates == 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the ledger's file as a backup or a shell would, once it is there."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=5.0)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


# -- a file that is held by others ---------------------------------------------------------------------------------


async def test_closing_waits_until_an_id_that_arrived_is_recorded(path: Path, case: FamilyCase) -> None:
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url):
        piapi = client(url, ledger, timeout=2.0)
        submit = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="k"))
        await sent(emulator)
        with locked(path):
            closing_ = asyncio.ensure_future(piapi.close())
            await asyncio.sleep(1.1)  # the answer has come, and waits for the file
            assert not submit.done()
        await closing_

        handle = await submit
        assert [handle.task_id] == tasks_of(emulator)
        assert {"k": (LedgerState.ACCEPTED, handle.task_id)} == await states_of(path)


async def test_an_id_that_could_not_be_recorded_is_raised_though_the_client_was_closed(
    path: Path, case: FamilyCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("piapi_async.ledger._file._BUSY_SECONDS", 0.1)
    ledger = Ledger(path)
    async with host(latency=1.0) as (emulator, url):
        piapi = client(url, ledger, timeout=2.0)
        submit = asyncio.ensure_future(piapi.submit(case.reroll("p"), key="k"))
        await sent(emulator)
        with locked(path):
            await asyncio.gather(piapi.close(), submit, return_exceptions=True)

        with pytest.raises(LedgerError, match="is paid for") as caught:
            await submit
        assert caught.value.ref is not None
        assert [caught.value.ref.task_id] == tasks_of(emulator)
        assert not writer_of(ledger)._store._owned


async def test_whoever_has_left_is_told_by_the_log_that_a_task_may_exist(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with host(latency=1.0) as (emulator, url), PiAPI(KEY, base_url=url) as piapi:
        emulator.fail("reroll", Drop(after_body=True))
        submit = asyncio.ensure_future(piapi.submit(Reroll("p")))
        await asyncio.sleep(0.5)
        submit.cancel()
        await piapi.close()

        assert "Reroll('p') may have been accepted" in caplog.text


async def test_an_unknown_submit_whose_key_was_minted_names_it(path: Path) -> None:
    async with host(latency=100.0) as (_, url):
        piapi = client(url, path, timeout=10.0)
        submit = asyncio.ensure_future(piapi.submit(Reroll("p")))
        await asyncio.sleep(1.0)
        await piapi.close()
        with pytest.raises(SubmissionUnknown) as caught:
            await submit

    assert [caught.value.key] == list(await states_of(path))
    assert f"resolve {path} {caught.value.key} --task-id" in str(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="loops start tasks eagerly since Python 3.12")
async def test_a_loop_that_starts_tasks_eagerly_is_no_trouble(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - of newer Pythons
    async with host() as (emulator, url), client(url, path) as piapi, PiAPI(KEY, base_url=url) as plain:
        handles = [await piapi.submit(Reroll("p"), key="k"), await piapi.submit(Reroll("p"), key="k")]
        handles.append(await plain.submit(Reroll("p")))

        assert len({handle.task_id for handle in handles}) == emulator.seen.creates == 2
        assert len(piapi._runtime.submitter) == len(plain._runtime.submitter) == 0
    assert "Error" not in caplog.text


async def test_a_middleware_of_the_users_session_sends_nothing_twice(case: FamilyCase) -> None:
    async def again(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ClientError:
            return await handler(request)

    async with (
        host() as (emulator, url),
        aiohttp.ClientSession(middlewares=(again,)) as session,
        PiAPI(KEY, base_url=url, session=session, recover=0) as piapi,
    ):
        emulator.fail("create", Drop(after_body=True))

        with pytest.raises(SubmissionUnknown):
            await piapi.submit(case.reroll("p"))

        assert emulator.seen.requests[case.create] == 1
        await piapi.submit(case.reroll("p"))


async def test_a_client_that_was_closed_before_it_was_used_lets_go_of_a_ledger_it_never_had(
    path: Path,
) -> None:
    ledger = Ledger(path)
    async with host() as (_, url):
        idle = client(url, ledger)
        await idle.close()
        with pytest.raises(ClientClosed):
            await idle.submit(Reroll("p"))
        await idle.close()
        async with client(url, ledger) as piapi:
            await piapi.submit(Reroll("p"), key="k")

            assert 1 == len(writer_of(ledger)._clients)
    assert [] == writer_of(ledger)._clients


async def next_turn(ledger: Ledger) -> None:
    """Let the loop turn once; while the ledger's thread is at work, till it has done."""
    thread = writer_of(ledger)._draining
    await asyncio.sleep(0)
    while thread is not None and writer_of(ledger)._draining is thread:
        await asyncio.sleep(0)


async def abandon(path: Path, url: str, request: TaskRequest[Any], turns: int, how: str) -> bool:
    """Submit, and after so many turns of the loop cancel the caller, or close the client; tell whether it was left."""
    ledger = Ledger(path)
    piapi = client(url, ledger, retry=RetryPolicy.never())
    submit = asyncio.ensure_future(piapi.submit(request, key="k"))
    for _ in range(turns):
        await next_turn(ledger)
    if how == "cancel":
        submit.cancel()
    await piapi.close()
    outcome: object = (await asyncio.gather(submit, return_exceptions=True))[0]
    if isinstance(outcome, BaseException):
        assert isinstance(outcome, asyncio.CancelledError if how == "cancel" else ClientClosed)
        return True
    return False


@pytest.mark.storm
@pytest.mark.parametrize("how", ["cancel", "close"])
async def test_whoever_leaves_at_any_turn_of_the_loop_has_a_key_that_tells_the_truth(
    how: str, tmp_path: Path, case: FamilyCase
) -> None:
    seen: list[LedgerState | None] = []
    left = True
    while left and len(seen) < 200:
        path = tmp_path / f"{len(seen)}.db"
        async with host() as (emulator, url):
            left = await abandon(path, url, case.reroll("p"), len(seen), how)
            state, task_id = (await states_of(path)).get("k", (None, None))
            seen.append(state)
            assert state in (None, LedgerState.ACCEPTED)
            assert tasks_of(emulator) == ([] if task_id is None else [task_id])

            async with client(url, path) as piapi:
                handle = await piapi.submit(case.reroll("p"), key="k")
            assert [handle.task_id] == tasks_of(emulator)

    assert not left
    assert {None, LedgerState.ACCEPTED} == set(seen)
