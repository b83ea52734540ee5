"""Tasks outlive the emulator that made them, if it was given a file."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from support.emulating import Inbox, emulating

from piapi_async.emulator import Emulator
from piapi_async.emulator import _state as state

pytestmark = pytest.mark.looptime


async def test_a_restart_goes_on_where_it_stood(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    options = {"state": path, "epoch": 1e9, "durations": 60.0, "concurrency": 2, "retry_rate": 1.0}
    async with emulating(**options) as caller:
        ids = [await caller.create("imagine", prompt=f"cat {number}") for number in range(4)]
        caller.emulator.adopt("known")
        await asyncio.sleep(20)
        before = [await caller.fetch(task_id) for task_id in [*ids, "known"]]

    async with emulating(**options) as caller:
        after = [await caller.fetch(task_id) for task_id in [*ids, "known"]]
        # Links point to wherever the emulator is now.
        for answer in (*before, *after):
            answer["task_result"] |= dict.fromkeys(
                ("image_url", "discord_image_url", "temporary_image_urls", "intermediate_image_urls")
            )
        assert before == after
        assert [task["status"] for task in after] == ["processing", "processing", "staged", "staged", "finished"]
        await asyncio.sleep(120)
        assert [(await caller.fetch(task_id))["status"] for task_id in ids] == ["finished"] * 4
        assert await caller.create("imagine", prompt="new") not in ids


async def test_time_passes_while_it_is_down_unless_the_epoch_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with Inbox().open() as inbox:
        async with emulating(state=path, durations=60.0) as caller:
            task_id = await caller.create("imagine", prompt="a cat", webhook_endpoint=inbox.url, notify_progress=True)
        saved = json.loads(path.read_bytes())
        path.write_text(json.dumps(saved | {"saved_at": time.time() - 100}))

        async with emulating(state=str(path), durations=60.0) as caller:
            await asyncio.sleep(1)
            fetched = await caller.fetch(task_id)
            assert (fetched["status"], inbox.words[-1]) == ("finished", "finished")
            assert fetched["meta"]["ended_at"] - fetched["meta"]["created_at"] == 60


async def test_changes_are_saved_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with emulating(state=path) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
        await caller.create("imagine", prompt="a cat")
        await asyncio.sleep(1)
        assert [task_id] == [task["task_id"] for task in json.loads(path.read_bytes())["tasks"]][:1]
        await caller.create("imagine", prompt="a cat")  # a save is due at the stop
    assert len(json.loads(path.read_bytes())["tasks"]) == 3
    assert [path] == list(path.parent.glob("*"))


async def test_the_same_emulator_runs_twice_and_keeps_its_tasks() -> None:
    emulator = Emulator()
    async with emulator.run():
        emulator.adopt("x")
        assert emulator.now == pytest.approx(0, abs=0.1)
        with pytest.raises(RuntimeError, match="running already"):
            async with emulator.run():
                raise AssertionError
    async with emulator.run():
        await asyncio.sleep(5)
        task = emulator.task("x")
    assert task is not None
    assert pytest.approx(emulator.now, abs=0.1) == 5


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "tasks": [{}]}'])
def test_a_file_that_is_not_ours_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"state\.json is not an emulator's state file"):
        state.load(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()
    with pytest.raises(OSError, match=r"state\.json"):
        state.write(path, b"{}")
    assert [path] == list(tmp_path.iterdir())


async def test_a_file_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with emulating(state=path) as caller:
        task_id = await caller.create("imagine", prompt="a cat")
    saved = json.loads(path.read_bytes())
    for name in ("model", "door", "service_mode"):
        del saved["tasks"][0][name]
    path.write_text(json.dumps(saved))

    async with emulating(state=path) as caller:
        assert (await caller.fetch(task_id))["task_id"] == task_id
        assert (await caller.read(task_id))["model"] == "midjourney"
