"""What a run learns of how long the tasks of a kind take, and what polls make of it."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from pathlib import Path
from random import Random

import pytest
from support.tables import for_each

from piapi_async import CreateTask, Imagine, Ledger, PiAPI, Reroll, legacy, legnext
from piapi_async._protocol.kinds import kind_of
from piapi_async._wait.durations import KindDurations, Kinds
from piapi_async.client import runtime_of
from piapi_async.emulator import Emulator
from piapi_async.models import flux, kling
from piapi_async.tasks import Usual

GUESS = Usual(45.0, 0.6)
RNG = Random(7)  # noqa: S311 - the same in every run


def guessed(_: Usual) -> Usual:
    return GUESS


def drawn(median: float, spread: float = 0.4) -> float:
    return median * math.exp(RNG.gauss(0, spread))


def seen(durations: KindDurations, seconds: float, *, told: float | None = None) -> bool:
    """Let one task be begun at 0 and seen to end."""
    task = object()
    durations.begun(task, 0.0)
    return durations.ended(task, seconds, seconds, told=told)


@for_each("median", [2.0, 45.0, 600.0])
def test_is_learnt_from_ten_tasks(median: float) -> None:
    durations = KindDurations(GUESS)
    for _ in range(10):
        seen(durations, drawn(median))

    usual = durations.usual(0.0)

    assert usual.known
    assert usual.median == pytest.approx(median, rel=0.5)


def test_those_that_still_run_count() -> None:
    """Of a hundred tasks begun at once the first ten to end are not what is usual."""
    durations = KindDurations(GUESS)
    tasks = sorted(drawn(240.0) for _ in range(32))
    watches = [object() for _ in tasks]
    for watch in watches:
        durations.begun(watch, 0.0)
    for watch, seconds in zip(watches[:8], tasks[:8], strict=True):
        durations.ended(watch, seconds, seconds, told=None)

    assert durations.usual(tasks[7]).median > 1.3 * sum(tasks[:8]) / 8


@for_each("factor", [10.0, 0.1])
def test_a_change_at_the_host_is_noticed_within_ten_tasks(factor: float) -> None:
    durations = KindDurations(GUESS)
    for _ in range(50):
        seen(durations, drawn(45.0))
        durations.usual(0.0)

    noticed = [seen(durations, drawn(45.0 * factor)) for _ in range(10)]

    assert True in noticed
    assert durations.usual(0.0).median == pytest.approx(45.0 * factor, rel=0.5)


def test_the_host_is_believed_only_between_two_polls() -> None:
    def learnt(told: float) -> float:
        durations = KindDurations(GUESS)
        for _ in range(4):
            task = object()
            durations.begun(task, 0.0)
            durations.ended(task, 2.0, 30.0, told=told)
        return durations.usual(0.0).median

    assert learnt(5.0) == pytest.approx(5.0, rel=0.01)
    assert learnt(100.0) == pytest.approx(16.0, rel=0.1)


def test_what_is_kept_is_small() -> None:
    kinds = Kinds()
    for number in range(600):
        durations = kinds.of("unified", kind_of("model", str(number)), guessed)
        for _ in range(2):
            seen(durations, 10.0)
    for _ in range(500):
        durations.begun(object(), 0.0)

    assert len(kinds.take_news()) == 500
    assert len(durations._cohort) <= 256


def test_another_run_goes_on_from_there() -> None:
    first, second = Kinds(), Kinds()
    for _ in range(10):
        seen(first.of("legacy", kind_of("midjourney", "reroll"), guessed), 3.0)
    second.of("legacy", kind_of("midjourney", "upscale"), guessed)
    second.remember(first.take_news())

    assert second.of("legacy", kind_of("midjourney", "reroll"), guessed).usual(0.0).median == pytest.approx(
        3.0
    )
    assert second.take_news() == {}


@for_each(
    ("request_", "median"),
    [
        (Reroll("6886fc4d"), 45.0),
        (Imagine("a cat", process_mode="turbo"), 15.0),
        (Imagine("a cat", process_mode="relax"), 150.0),
        (flux.TextToImage("a cat"), 12.0),
        (kling.Video("a cat"), 150.0),
        (CreateTask("music-u", "generate_music", {}), 40.0),
        (CreateTask("Qubico/trellis", "image-to-3d", {}), 60.0),
        (legnext.Imagine("a cat --turbo"), 15.0),
        (legnext.Describe("https://x.test/a.png"), 12.0),
        (legnext.VideoUpscale("j", 1), 150.0),
        (legacy.FaceSwap("https://x.test/a.png", swap_image="https://x.test/b.png"), 12.0),
        (legacy.DreamMachine("a cat"), 150.0),
        (legacy.LegacyKling("a cat", professional_mode=True), 150.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_request_class_says_what_is_usual(request_: CreateTask, median: float) -> None:
    assert request_.kind.usual.median == median


@pytest.mark.looptime
async def test_a_fast_emulator_is_noticed_and_its_progress_shown(tmp_path: Path) -> None:
    emulator = Emulator(seed=1, speed=20.0)
    polls = []
    async with emulator.run() as base_url:
        for _ in range(2):  # the second client knows from the ledger
            ledger = Ledger(tmp_path / "ledger.db")
            async with PiAPI(emulator.api_key, base_url=base_url, ledger=ledger) as piapi:
                for _ in range(6):
                    handle = await piapi.submit(Imagine("a cat"))
                    polls.append([task.progress async for task in handle.updates()])
                assert runtime_of(piapi).poller.schedule.kinds.take_news()

    assert all(len(shown) >= 3 for shown in polls[5:])


@pytest.mark.looptime
async def test_a_process_that_is_killed_has_kept_what_it_learnt(tmp_path: Path) -> None:
    """The durations stand in the ledger before the client closes, in the commit of an end."""
    path = tmp_path / "ledger.db"
    async with (
        Emulator(seed=1).run() as base_url,
        PiAPI("emulator-key", base_url=base_url, ledger=Ledger(path)) as piapi,
    ):
        await piapi.run(Imagine("a cat"))
        writer = runtime_of(piapi).ledger
        assert writer is not None
        await writer.flush()
        with contextlib.closing(sqlite3.connect(path)) as killed:
            assert killed.execute("SELECT family FROM durations").fetchall() == [("legacy",)]
