"""A client that was not made, or not for this loop; and what it logs of its tasks."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.processes import ended
from support.serving import KEY, serving

import piapi_async
from piapi_async import LEGACY, BatchRunner, Imagine, Ledger, PiAPI, Reroll, download
from piapi_async.emulator import Status
from piapi_async.errors import APIError, TaskFailed


def test_a_client_that_was_not_made_goes_without_a_noise(capsys: pytest.CaptureFixture[str]) -> None:
    refused: list[tuple[dict[str, Any], Any]] = [
        ({"nonsense": 1}, TypeError),
        ({"timeout": "soon"}, (TypeError, ValueError)),
        ({"base_url": "nowhere"}, ValueError),
        ({"ledger": "run.db"}, TypeError),
        ({"api_key": ""}, ValueError),
    ]
    for settings, error in refused:
        with pytest.raises(error) as caught:
            PiAPI(**{"api_key": KEY, **settings})
        del caught
    gc.collect()  # pytest turns what `__del__` raises into a failure

    assert "" == capsys.readouterr().err


@pytest.mark.storm
def test_a_client_that_was_not_made_tells_nothing_on_stderr() -> None:
    program = (
        "import piapi_async\ntry: piapi_async.PiAPI(nonsense=1)\nexcept TypeError as error: print(error)"
    )
    done = ended(sys.executable, "-c", program)

    assert 0 == done.code
    assert "nonsense" in done.printed
    assert "" == done.said


def test_a_half_made_client_has_a_repr() -> None:
    assert "<PiAPI: not made>" == repr(PiAPI.__new__(PiAPI))


def test_a_half_made_client_in_a_traceback_has_a_repr() -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        PiAPI(KEY, base_url="nowhere")
    trace = caught.value.__traceback__
    shown = ""
    while trace is not None:
        shown += repr(trace.tb_frame.f_locals.get("self"))
        trace = trace.tb_next

    assert "<PiAPI: not made>" in shown


# -- without asyncio ------------------------------------------------------------------------------------------------


async def submit(piapi: PiAPI) -> None:
    await piapi.submit(Reroll("p"))


async def enter(piapi: PiAPI) -> None:
    async with piapi:
        pass


async def wait(piapi: PiAPI) -> None:
    await piapi.attach("t").wait()


async def run_batch(piapi: PiAPI) -> None:
    await BatchRunner(piapi).run([Reroll("p")])


async def look_up(_: PiAPI) -> None:
    await Ledger("run.db").find("k")


async def save(_: PiAPI) -> None:
    task = LEGACY.read(
        {"task_id": "t", "status": "finished", "task_result": {"image_url": "https://a.b/c.png"}},
        "t",  # type: ignore[arg-type]
    )
    await download(task, "files")


@pytest.mark.parametrize("use", [submit, enter, wait, run_batch, look_up, save])
def test_where_asyncio_does_not_run_the_error_says_what_is_needed(
    use: Callable[[PiAPI], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    coroutine = use(PiAPI(KEY))
    with pytest.raises(RuntimeError, match=r"needs a running asyncio event loop.*trio cannot run it"):
        coroutine.send(None)  # as any other library would run it


# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TaskRequest", "Request", "HTTPRequest", "HTTPResponse"])
def test_what_one_needs_for_requests_of_ones_own_is_public(name: str) -> None:
    assert name in piapi_async.__all__
    assert getattr(piapi_async, name).__name__ == name


# -- what is logged -------------------------------------------------------------------------------------------------


def steps_in(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any, Any]]:
    """Return what is said of tasks, by its telling word, with the attributes."""
    records = [record.__dict__ for record in caplog.records if record.levelno == logging.INFO]
    return [
        (
            re.findall("submitted|accepted|refused|ended", record["message"])[0],
            record["task_id"],
            record["request"],
        )
        for record in records
    ]


@pytest.mark.looptime
@pytest.mark.parametrize("ledger", [False, True])
async def test_each_step_of_a_task_is_logged_with_its_id_and_request(
    *, ledger: bool, tmp_path: Path, everything_logged: pytest.LogCaptureFixture
) -> None:
    client: dict[str, Any] = {"ledger": Ledger(tmp_path / "run.db")} if ledger else {}
    async with serving(client, durations=5.0) as (_, piapi):
        handle = await piapi.submit(Imagine("a prompt that is nobody's business"))
        await handle.wait()
        await handle.refresh()

        assert [
            ("submitted", None, "Imagine"),
            ("accepted", handle.task_id, "Imagine"),
            ("ended", handle.task_id, "Imagine"),
        ] == steps_in(everything_logged)
        told = [record.getMessage() for record in everything_logged.records if record.levelno == logging.INFO]
        assert 3 == len(told)
        assert "nobody's business" not in "".join(told)


@pytest.mark.looptime
async def test_a_task_that_fails_has_ended_and_one_that_is_refused_was_never_accepted(
    everything_logged: pytest.LogCaptureFixture,
) -> None:
    async with serving(durations=5.0, failure_rate=1.0) as (emulator, piapi):
        handle = await piapi.submit(Reroll("p"))
        with pytest.raises(TaskFailed):
            await handle.wait()
        emulator.fail("reroll", Status(403, body={"message": "no"}))
        with pytest.raises(APIError):
            await piapi.submit(Reroll("p"))
        await asyncio.sleep(0)

    assert ["submitted", "accepted", "ended", "submitted", "refused"] == [
        step for step, _, _ in steps_in(everything_logged)
    ]
