"""What observers are told of a client's life, and that they can do it no harm."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from support.hooking import LOST, hooked
from support.serving import TICK, serving
from support.watching import Recorder

import piapi_async.observe
from piapi_async import (
    AuthenticationError,
    BatchRunner,
    CreateTask,
    Imagine,
    InvalidRequestError,
    Ledger,
    PiAPI,
    Reroll,
    SubmissionUnknown,
    TaskState,
)
from piapi_async.emulator import Drop, Status
from piapi_async.observe import (
    CallRetried,
    Event,
    FileSaved,
    LedgerWritten,
    Notice,
    PollMade,
    RateLimited,
    SubmissionAccepted,
    SubmissionBecameUnknown,
    SubmissionRecovered,
    SubmissionRefused,
    SubmissionSending,
    SubmissionStarted,
    TaskEnded,
    TaskRead,
    TaskStateChanged,
    WebhookReceived,
)

pytestmark = pytest.mark.looptime

SECRET_PROMPT = "a prompt that is nobody's business"


async def test_a_reroll_is_told_from_its_submission_to_its_end(tmp_path: Path) -> None:
    recorder = Recorder()
    client = {"observers": [recorder], "ledger": Ledger(tmp_path / "run.db")}
    async with serving(client, durations=5.0) as (emulator, piapi):
        handle = await piapi.submit(Reroll("p"), key="order 17")
        await handle.wait()
        await handle.refresh()
        await handle.refresh()

    assert [
        "SubmissionStarted",
        "SubmissionSending",
        "SubmissionAccepted",
        "TaskStateChanged",
        "TaskEnded",
        "TaskRead",
        "TaskRead",
        "ClientShutDown",
    ] == recorder.story

    started, accepted, ended = (
        recorder.one(SubmissionStarted),
        recorder.one(SubmissionAccepted),
        recorder.one(TaskEnded),
    )
    assert Reroll("p") == started.task_request
    assert {event.origin for event in recorder.events} == {handle.ref.origin}
    assert {"order 17"} == {event.key for event in (started, accepted, ended)}
    assert (started.submission, "Reroll", "legacy") == (ended.submission, ended.request, ended.family)
    assert handle.task_id == accepted.task_id == ended.task_id
    assert not accepted.resumed

    assert TaskState.DONE is ended.state
    assert handle.task is not None
    assert handle.task.images == ended.task.images
    assert ended.seconds == pytest.approx(5.5, abs=0.6)
    assert ended.polls == len(recorder.of(PollMade)) == emulator.seen.requests["fetch"] - 2
    assert ended.detection_seconds == pytest.approx(0.5, abs=0.1)
    assert TaskState.RUNNING is recorder.one(TaskStateChanged).state
    # Claimed, accepted, ended; each reading of the end is recorded again; and earlier durations are read.
    assert 6 == sum(commit.operations for commit in recorder.of(LedgerWritten))


async def test_of_two_submissions_each_event_names_its_own() -> None:
    recorder = Recorder()
    async with serving({"observers": [recorder]}, durations=5.0) as (_, piapi):
        handles = await asyncio.gather(*[piapi.submit(Reroll(parent)) for parent in ("p", "q")])
        await asyncio.gather(*[handle.wait() for handle in handles])

    accepted = {event.task_id: event.submission for event in recorder.of(SubmissionAccepted)}
    assert 2 == len(set(accepted.values()))
    assert accepted == {event.task_id: event.submission for event in recorder.of(TaskEnded)}


async def test_a_submission_that_makes_no_task_is_told_to_be_refused_or_unknown() -> None:
    recorder = Recorder()
    async with serving({"observers": [recorder]}) as (emulator, piapi):
        emulator.fail("reroll", Status(403, body={"message": "no"}))
        with pytest.raises(AuthenticationError) as refused:
            await piapi.submit(Reroll("p"))

        emulator.fail("reroll", Drop(after_body=True))
        with pytest.raises(SubmissionUnknown) as unknown:
            await piapi.submit(Reroll("p"))

        piapi._runtime.sender.throttle.pause(10.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(piapi.submit(Reroll("p")), 1.0)
        never_ran = asyncio.ensure_future(piapi.submit(Reroll("p")))
        asyncio.get_running_loop().call_soon(never_ran.cancel)
        await asyncio.gather(never_ran, return_exceptions=True)

    assert [refused.value] == [event.error for event in recorder.of(SubmissionRefused)][:1]
    assert [asyncio.CancelledError] * 2 == [type(event.error) for event in recorder.of(SubmissionRefused)][1:]
    assert recorder.of(SubmissionRefused)[1].seconds == pytest.approx(1.0, abs=TICK)
    assert unknown.value is recorder.one(SubmissionBecameUnknown).error
    assert 4 == len(recorder.of(SubmissionStarted))


async def test_what_is_tried_again_and_what_slows_the_client_down_is_told() -> None:
    recorder = Recorder()
    async with serving({"observers": [recorder]}) as (emulator, piapi):
        emulator.fail("imagine", Status(429, retry_after=7))
        await piapi.submit(Imagine(SECRET_PROMPT))

    retried = recorder.one(CallRetried)
    assert ("Imagine", 2) == (retried.request, retried.attempt)
    assert 7.0 <= retried.pause < 10.0
    assert 7.0 == recorder.one(RateLimited).pause
    assert SECRET_PROMPT not in retried.reason
    assert [1, 2] == [event.attempt for event in recorder.of(SubmissionSending)]


async def test_a_lost_response_that_comes_home_is_told_to_be_recovered(tmp_path: Path) -> None:
    recorder = Recorder()
    client = {"observers": [recorder], "ledger": Ledger(tmp_path / "run.db"), "recover": 60.0}
    async with serving(client) as (emulator, piapi):
        emulator.fail("create", LOST)
        cat = CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"})
        handle = await piapi.submit(cat, key="k")

    recovered, accepted = recorder.one(SubmissionRecovered), recorder.one(SubmissionAccepted)
    assert (handle.task_id, "history", "k") == (recovered.task_id, recovered.how, recovered.key)
    assert (handle.ref.origin, "unified") == (recovered.origin, recovered.family)
    assert recovered.submission == accepted.submission
    assert recorder.events.index(recovered) < recorder.events.index(accepted)


async def test_webhooks_are_told_and_find_lost_submissions(tmp_path: Path) -> None:
    recorder = Recorder()
    client = {"observers": [recorder], "ledger": Ledger(tmp_path / "run.db")}
    async with hooked(client=client, durations=5.0) as (emulator, piapi, _):
        emulator.fail("reroll", LOST)
        handle = await piapi.submit(Reroll("p"), key="k")
        await handle.wait()

    recovered = recorder.one(SubmissionRecovered)
    assert (handle.task_id, "webhook", "k") == (recovered.task_id, recovered.how, recovered.key)
    assert handle.ref.origin == recovered.origin
    assert {handle.task_id} == {event.task_id for event in recorder.of(WebhookReceived)}
    assert not recorder.of(WebhookReceived)[0].waited


async def test_reads_of_several_tasks_are_told_one_by_one() -> None:
    recorder = Recorder()
    async with serving({"observers": [recorder]}, durations=5.0) as (_, piapi):
        handles = [await piapi.submit(Reroll(parent)) for parent in ("p", "q")]
        await piapi.fetch_many([*[handle.task_id for handle in handles], "nobody's"])

    assert [handle.task_id for handle in handles] == [event.task_id for event in recorder.of(TaskRead)]
    assert {TaskState.WAITING} >= {event.state for event in recorder.of(TaskRead)} - {TaskState.RUNNING}


# -- what observers cannot do ---------------------------------------------------------------------


class Failing(Recorder):
    """Fails at the second event."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def on_event(self, event: Event) -> None:
        super().on_event(event)
        if len(self.events) > 1:
            raise self.error

    def trace_of(self, _: int) -> str | None:
        raise self.error


@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine")])
async def test_one_that_raises_is_logged_once_and_told_no_more(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    failing, recorder = Failing(error), Recorder()
    async with serving({"observers": [failing, recorder]}, durations=5.0) as (_, piapi):
        await (await piapi.submit(Reroll("p"))).wait()

    assert 2 == len(failing.events)
    assert {"SubmissionStarted", "SubmissionAccepted", "TaskEnded", "ClientShutDown"} < set(recorder.counts)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "The observer Failing raised" in record.getMessage()
    assert record.exc_info


async def test_one_whose_trace_fails_is_dropped_and_the_next_is_asked(tmp_path: Path) -> None:
    failing, tracing = Failing(ValueError("mine")), Tracing("a trace")
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"observers": [failing, tracing], "ledger": ledger}) as (_, piapi):
        await piapi.submit(Reroll("p"), key="k")
        entry = await ledger.find("k")

    assert entry is not None
    assert f"a trace {tracing.one(SubmissionStarted).submission}" == entry.trace
    assert 1 == len(failing.events)


@pytest.mark.parametrize("observer", [object(), Recorder, None])
async def test_what_is_no_observer_is_refused(observer: Any) -> None:
    with pytest.raises(TypeError, match=r"observers: .* must have a method on_event"):
        PiAPI("key", observers=[observer])


# -- what one process leaves for the next ---------------------------------------------------------


class Tracing(Recorder):
    """Has a text for every submission."""

    def __init__(self, text: str | None) -> None:
        super().__init__()
        self.text = text

    def trace_of(self, submission: int) -> str | None:
        return None if self.text is None else f"{self.text} {submission}"


async def test_what_an_observer_has_to_say_reaches_the_process_that_submits_the_key_again(
    tmp_path: Path,
) -> None:
    first, silent, later = Tracing("trace of"), Tracing(None), Recorder()
    path = tmp_path / "run.db"
    async with serving({"observers": [silent, first], "ledger": Ledger(path)}, durations=5.0) as (
        emulator,
        piapi,
    ):
        await piapi.submit(Reroll("p"), key="k")
        settings: dict[str, Any] = {
            "base_url": emulator.base_url,
            "observers": [later],
            "ledger": Ledger(path),
        }
        async with PiAPI(emulator.api_key, **settings) as again:
            await (await again.submit(Reroll("p"), key="k")).wait()

    resumed = later.one(SubmissionAccepted)
    assert resumed.resumed
    assert f"trace of {first.one(SubmissionStarted).submission}" == resumed.trace
    assert first.one(SubmissionAccepted).trace is None
    assert later.one(TaskEnded).submission == resumed.submission


# -- the log --------------------------------------------------------------------------------------


async def test_every_line_says_which_task_and_request_and_none_tells_a_prompt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "piapi_async")
    ledger = Ledger(tmp_path / "run.db")
    async with serving({"ledger": ledger}, durations=5.0, failure_rate=1.0) as (emulator, piapi):
        emulator.fail("imagine", Status(429))
        handle = await piapi.submit(Imagine(SECRET_PROMPT), key="order 17")
        await asyncio.gather(handle.wait(), return_exceptions=True)
        await piapi.submit(Imagine(SECRET_PROMPT), key="order 17")
        emulator.fail("imagine", Status(400, body={"message": f"banned: {SECRET_PROMPT}"}))
        with pytest.raises(InvalidRequestError):
            await piapi.submit(Imagine(SECRET_PROMPT))
        emulator.fail("imagine", Drop(after_body=True))
        with pytest.raises(SubmissionUnknown):
            await piapi.submit(Imagine(SECRET_PROMPT))

    lines: list[Any] = [record for record in caplog.records if record.name == "piapi_async"]
    assert {"Imagine"} == {line.request for line in lines}
    assert {handle.ref.origin} == {line.origin for line in lines}
    assert 3 == [line.task_id for line in lines].count(handle.task_id)
    assert SECRET_PROMPT not in caplog.text

    told = {line.event for line in lines}
    assert {"SubmissionStarted", "CallRetried", "SubmissionAccepted", "TaskEnded"} < told
    assert {"SubmissionRefused", "SubmissionBecameUnknown"} < told
    [ended] = [line for line in lines if line.event == "TaskEnded"]
    assert ("order 17", "failed") == (ended.key, ended.state)
    assert "Imagine had been submitted before: task" in caplog.text


async def test_a_log_handler_that_raises_loses_nothing() -> None:
    class Broken(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise RuntimeError("the disk is full")

    recorder, broken = Recorder(), Broken()
    logging.getLogger("piapi_async").addHandler(broken)
    try:
        async with serving({"observers": [recorder]}, durations=5.0) as (emulator, piapi):
            emulator.fail("reroll", Drop(after_body=True))
            with pytest.raises(SubmissionUnknown):
                await piapi.submit(Reroll("p"))
            await (await piapi.submit(Reroll("p"))).wait()
    finally:
        logging.getLogger("piapi_async").removeHandler(broken)

    assert 1 == len(recorder.of(TaskEnded))


# -- the recipe -----------------------------------------------------------------------------------


async def test_the_recipe_for_prometheus_counts_what_the_client_has_done() -> None:
    _, _, rest = (piapi_async.observe.__doc__ or "").partition("whenever it scrapes::\n\n")
    recipe = textwrap.dedent(rest.partition("\n\nMay import")[0])
    assert len([line for line in recipe.splitlines() if line]) <= 15

    registry = prometheus_client.CollectorRegistry()
    async with serving(durations=5.0) as (_, piapi):
        names: dict[str, Any] = {"piapi": piapi}
        exec(recipe.replace("REGISTRY.register(PiAPICollector(piapi))", ""), names)  # noqa: S102 - our own words
        registry.register(names["PiAPICollector"](piapi))
        await (await piapi.submit(Reroll("p"))).wait()

        text = prometheus_client.generate_latest(registry).decode()
        assert f"piapi_polls_total {float(piapi.stats.polls)}" in text
        assert "piapi_ended_total 1.0" in text
        assert "piapi_waiting 0.0" in text


# -- what is saved --------------------------------------------------------------------------------


async def test_files_that_a_batch_saves_are_told_with_their_places(tmp_path: Path) -> None:
    recorder = Recorder()
    async with serving({"observers": [recorder]}, durations=5.0) as (emulator, piapi):
        emulator.fail("download", Status(503))
        [outcome] = await BatchRunner(piapi, download=tmp_path).run([Imagine("a cat")])

    assert set(outcome.files) == {event.path for event in recorder.of(FileSaved)}
    assert {outcome.task.task_id if outcome.task else ""} == {
        event.task_id for event in recorder.of(FileSaved)
    }
    assert "legacy" == recorder.of(FileSaved)[0].family
    [retried] = recorder.of(Notice)
    assert "It is tried again in" in retried.text
    assert {"task_id": outcome.files[0].name[:36]} == retried.details  # type: ignore[union-attr]


async def test_the_log_has_a_line_for_every_request_with_its_task_and_none_below_debug_has_a_prompt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "piapi_async")
    async with serving(durations=5.0) as (_, piapi):
        handle = await piapi.submit(CreateTask("Qubico/flux1-dev", "txt2img", {"prompt": SECRET_PROMPT}))
        await handle.refresh()
    lines: list[Any] = [record for record in caplog.records if record.name == "piapi_async"]
    requests = [line for line in lines if ": HTTP 200 in " in line.getMessage()]

    assert [line.request for line in requests] == ["CreateTask", "GetTask"]
    assert [line.task_id for line in requests] == [None, handle.task_id]
    assert all(line.origin == piapi.origin and line.seconds >= 0 for line in requests)
    told = [line.getMessage() for line in lines if line.levelno == logging.INFO]
    assert told
    assert SECRET_PROMPT not in "".join(told)


def test_an_event_shows_what_it_holds_but_for_the_prompt() -> None:
    event = SubmissionStarted(
        origin="https://host.test",
        client=1,
        submission=2,
        request="Imagine",
        family="legacy",
        key=None,
        task_request=Imagine(SECRET_PROMPT),
    )

    facts = "origin='https://host.test', client=1, submission=2, request='Imagine', family='legacy', key=None"
    assert repr(event) == f"SubmissionStarted({facts})"
