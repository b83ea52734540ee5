"""A program that is shown in the README shows progress on an emulator that is faster than life, too."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from piapi_async import CreateTask, PiAPI, PollPolicy, Reroll, Task
from piapi_async.emulator import Dialect, Drop, Emulator


@pytest.mark.looptime
async def test_the_environment_tells_how_fast_the_emulator_is(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Task[Any]] = []
    async with Emulator(seed=1, speed=20, adopt_parents=True).run() as base_url:
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        monkeypatch.setenv("PIAPI_POLL_SPEED", "20")
        async with PiAPI() as piapi:
            await piapi.run(Reroll("6886fc4d"), on_update=shown.append)

    assert len({task.progress for task in shown}) > 2


def speed_of(piapi: PiAPI) -> float:
    return piapi._runtime.poller.schedule.policy.speed


def test_it_is_for_emulators_alone_and_arguments_beat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    local = "http://127.0.0.1:9"
    monkeypatch.setenv("PIAPI_POLL_SPEED", "20")

    assert (20, 1) == (speed_of(PiAPI("k", base_url=local)), speed_of(PiAPI("k")))
    assert speed_of(PiAPI("k", base_url=local, poll=PollPolicy())) == 1
    for wrong in ("fast", "0", "-1", "inf", "nan"):
        monkeypatch.setenv("PIAPI_POLL_SPEED", wrong)
        with pytest.raises(ValueError, match=r"PIAPI_POLL_SPEED: .* above 0"):
            PiAPI("k", base_url=local)


@pytest.mark.looptime
async def test_a_lost_submission_is_looked_for_at_that_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its window, the pauses between two looks and the end of the search are the emulator's time."""
    emulator = Emulator(seed=1, speed=20, dialect=Dialect(history_lag=60.0))
    async with emulator.run() as base_url:
        monkeypatch.setenv("PIAPI_POLL_SPEED", "20")
        async with PiAPI("emulator-key", base_url=base_url, recover=10.0) as piapi:
            emulator.fail("create", Drop(after_body=True))
            handle = await piapi.submit(CreateTask("Qubico/flux1-schnell", "txt2img", {"prompt": "a cat"}))

            assert [handle.task_id] == list(emulator.engine.tasks)
            # after 1, 3, 7 … 63 seconds
            assert asyncio.get_running_loop().time() == pytest.approx(63 / 20, abs=0.3)
    assert emulator.seen.requests["history"] == 7  # one to learn the time
