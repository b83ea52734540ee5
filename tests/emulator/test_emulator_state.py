"""Tasks outlive the emulator that made them, if it was given a file."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from support.emulating import Inbox, emulating

from piapi_async._http import HTTPRequest
from piapi_async.emulator import PLANS, Constant, Dialect, Emulator, StateError
from piapi_async.emulator._api.host import Host
from piapi_async.emulator._api.router import Router
from piapi_async.emulator._api.unified import file_names
from piapi_async.emulator._api.view import View
from piapi_async.emulator._server import dashboard
from piapi_async.emulator._service import state_reading
from piapi_async.emulator._service.catalog import OLDER_TASKS
from piapi_async.emulator._service.creating import system_request, unified_request
from piapi_async.emulator._service.durations import DURATIONS
from piapi_async.emulator._service.engine import TaskEngine
from piapi_async.emulator._service.requests import Protocol
from piapi_async.emulator._service.state_file import StateFile, snapshot
from piapi_async.emulator._service.tasks import Task
from piapi_async.emulator._service.verbs import midjourney_request
from piapi_async.emulator.pictures import pictures_of

pytestmark = pytest.mark.looptime

#: The names of a task's fields in a state file.
STORED = [state_reading.STORED_AS.get(name, name) for name in attrs.fields_dict(Task)]


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
        assert [task["status"] for task in after] == [
            "processing",
            "processing",
            "staged",
            "staged",
            "finished",
        ]
        await asyncio.sleep(120)
        assert [(await caller.fetch(task_id))["status"] for task_id in ids] == ["finished"] * 4
        assert await caller.create("imagine", prompt="new") not in ids


async def test_time_passes_while_it_is_down_unless_the_epoch_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    async with Inbox().open() as inbox:
        async with emulating(state=path, durations=60.0) as caller:
            task_id = await caller.create(
                "imagine", prompt="a cat", webhook_endpoint=inbox.url, notify_progress=True
            )
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
    with pytest.raises(StateError, match=r"state\.json is not an emulator's state file.*Move it away"):
        StateFile(path).load()


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.mkdir()
    with pytest.raises(StateError, match=r"cannot be saved in .*state\.json: Is a directory"):
        StateFile(path).write(snapshot(TaskEngine(), epoch=0, saved_at=0))
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


class TestDamage:
    """Whatever a file says, it is refused by name, or every answer about its tasks can be given."""

    VALUES: tuple[Any, ...] = (
        None,
        True,
        -1,
        1e300,
        10**400,
        0,
        2**60,
        "x",
        "",
        "\ud83d\ude00",
        [],
        [[1]],
        [["a", "FAIL"]],
        {},
        {"a": 1},
    )

    @pytest.mark.storm
    @pytest.mark.parametrize("name", [*STORED, "version", "now", "serial", "epoch", "saved_at", "tasks"])
    def test_every_field_is_checked(self, name: str, tmp_path: Path) -> None:
        refused = 0
        for number in range(len(every_task())):
            for value in self.VALUES:
                content = saved()
                place = content["tasks"][number] if name in content["tasks"][number] else content
                place[name] = value
                refused += not is_answered(tmp_path / "state.json", content)
        assert refused >= 10

    @pytest.mark.parametrize("number", range(9))
    def test_every_input_is_checked(self, number: int, tmp_path: Path) -> None:
        for name in every_task()[number].given:
            refused = 0
            for value in self.VALUES:
                content = saved()
                content["tasks"][number]["given"][name] = value
                refused += not is_answered(tmp_path / "state.json", content)
            assert refused >= 5

    def test_a_digest_stands_for_a_long_value_alone(self, tmp_path: Path) -> None:
        content = saved()
        for task in content["tasks"]:
            task["given"] |= {"prompt": f"sha256:{'0' * 64}"}
        assert is_answered(tmp_path / "state.json", content)
        for name, digest in (
            ("direction", f"sha256:{'0' * 64}"),
            ("mask", "sha256:x"),
            ("mask", f"sha256:{'0' * 65}"),
        ):
            content = saved()
            (task,) = [task for task in content["tasks"] if name in task["given"]]
            task["given"][name] = digest
            assert not is_answered(tmp_path / "state.json", content)

    def test_every_field_of_a_task_is_read(self) -> None:
        assert state_reading._READ.keys() == set(STORED)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"stage": "dreaming"}, "task 1: stage: 'dreaming' is unknown"),
            ({"ended": None}, "task 1: ended: None does not go with the stage finished"),
            (
                {"stage": "processing", "ended": None, "started": None},
                "started: None does not go with the stage",
            ),
            ({"stage": "processing", "ended": None}, "script: it has no end"),
            ({"script": [[1, "START"]]}, "script: START cannot follow finished"),
            ({"script": [[2, "ADMIT"], [1, "START"]]}, "script: its times do not rise"),
            ({"script": [[2, "RUN"]]}, "script: 'RUN' is unknown"),
            ({"verb": "paint"}, "verb: 'paint' is none of 'midjourney'"),
            ({"kind": "files"}, "kind: files is not what midjourney makes"),
            ({"aspect_ratio": "1:0"}, "aspect_ratio: '1:0' is not a ratio"),
            ({"given": {}}, "given: prompt is required"),
            ({"door": "kling"}, "door: midjourney's tasks are not made by kling"),
            ({"colour": "blue"}, "colour: unknown field"),
            ({"serial": 2}, "two tasks have the same serial"),
            ({"serial": 99}, "serial: 9 is less than a task's"),
            ({"task_id": "x" * 201}, "task_id: 1 to 200 characters are expected"),
        ],
    )
    def test_the_text_says_where_and_what(self, change: dict[str, Any], message: str, tmp_path: Path) -> None:
        path, content = tmp_path / "state.json", saved()
        content["tasks"][0] |= change
        path.write_text(json.dumps(content))
        with pytest.raises(StateError) as caught:
            StateFile(path).load()
        assert message in str(caught.value)
        assert str(caught.value).startswith(f"{path} is not an emulator's state file, or is damaged: ")

    @pytest.mark.parametrize("name", ["now", "task_id", "script"])
    def test_what_is_missing_is_named(self, name: str, tmp_path: Path) -> None:
        path, content = tmp_path / "state.json", saved()
        content.pop(name, None)
        content["tasks"][0].pop(name, None)
        path.write_text(json.dumps(content))
        with pytest.raises(StateError, match=f"{name}: missing"):
            StateFile(path).load()

    async def test_a_place_where_no_file_can_be_is_said_at_the_start(self, tmp_path: Path) -> None:
        for path, message in (
            (tmp_path, "it is a directory"),
            (tmp_path / "no" / "s.json", "no is not a directory"),
        ):
            with pytest.raises(StateError, match=message):
                async with Emulator(state=path).run():
                    raise AssertionError

    def test_a_file_that_may_not_be_read_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.mkdir()
        with pytest.raises(StateError, match=r"state\.json cannot be read: Is a directory"):
            StateFile(path).load()


class TestSaving:
    async def test_a_failed_save_is_told_and_tried_again(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder, path = tmp_path / "folder", tmp_path / "folder" / "state.json"
        folder.mkdir()
        async with emulating(state=path) as caller:
            folder.rmdir()
            await caller.create("imagine", prompt="a cat")
            await asyncio.sleep(1)
            assert [record.message for record in caplog.records] == [
                f"the tasks cannot be saved in {path}: No such file or directory"
            ]
            folder.mkdir()
            await caller.create("imagine", prompt="a cat")
            await asyncio.sleep(1)
            assert len(json.loads(path.read_bytes())["tasks"]) == 2

    async def test_a_last_save_that_fails_is_an_error_of_the_run(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        with pytest.raises(StateError, match="the tasks cannot be saved"):
            async with emulating(state=folder / "state.json"):
                folder.rmdir()

    def test_what_has_ended_is_written_down_once(self, tmp_path: Path) -> None:
        engine, file = machine_of_every_task(), StateFile(tmp_path / "state.json")
        file.write(snapshot(engine, epoch=0, saved_at=0))
        first = json.loads(file.path.read_bytes())
        engine.tasks[first["tasks"][0]["task_id"]].prompt = "not looked at again"
        file.write(snapshot(engine, epoch=0, saved_at=0))
        assert first == json.loads(file.path.read_bytes())

    def test_what_changes_after_the_snapshot_is_not_in_it(self, tmp_path: Path) -> None:
        engine, file = (
            TaskEngine(durations=dict.fromkeys(DURATIONS, Constant(10.0))),
            StateFile(tmp_path / "state.json"),
        )
        engine.create(midjourney_request("imagine", {"prompt": "a cat"}), account="a", now=0.0)
        early = snapshot(engine, epoch=0, saved_at=0)
        engine.advance(100.0)
        file.write(early)
        assert [task["stage"] for task in json.loads(file.path.read_bytes())["tasks"]] == ["pending"]
        file.write(snapshot(engine, epoch=0, saved_at=0))
        assert [task["stage"] for task in json.loads(file.path.read_bytes())["tasks"]] == ["finished"]


def machine_of_every_task() -> TaskEngine:
    """Return a engine in which a task of every kind has ended or runs."""
    engine = TaskEngine(durations=dict.fromkeys(DURATIONS, Constant(10.0)))
    hook = {"webhook_endpoint": "http://127.0.0.1:1/", "notify_progress": True}

    def make(verb: str, **given: object) -> str:
        return engine.create(midjourney_request(verb, given), account="a", now=engine.now).task_id

    grid = make("imagine", prompt="a cat", aspect_ratio="4:3")
    engine.advance(50.0)
    single = make("upscale", origin_task_id=grid, index="2")
    engine.advance(100.0)
    make("pan", origin_task_id=single, direction="left")
    make("inpaint", origin_task_id=single, mask="iVBORw0KGgo=")
    make("outpaint", origin_task_id=single, zoom_ratio="1.5")
    make("describe", image_url="https://example.com/cat.png")
    flux = {"prompt": "a cat", "batch_size": 2, "width": 1024, "height": 768}
    body = {"model": "Qubico/flux1-dev", "task_type": "txt2img", "input": flux}
    engine.create(unified_request(body, "task_create"), account="a", now=engine.now)
    swap = {"target_image": "https://example.com/a.png", "swap_image": "https://example.com/b.png"}
    model, task_type = OLDER_TASKS[Protocol.FACE_SWAP]
    request = system_request(model, task_type, swap, {}, protocol=Protocol.FACE_SWAP, route="r")
    engine.create(request, account="a", now=engine.now)
    engine.advance(150.0)
    make("reroll", origin_task_id=grid, **hook)
    engine.advance(155.0)
    return engine


def every_task() -> list[Task]:
    return list(machine_of_every_task().tasks.values())


@cache
def _saved() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        file = StateFile(Path(directory) / "state.json")
        file.write(snapshot(machine_of_every_task(), epoch=1e9, saved_at=1e9))
        return file.path.read_bytes()


def saved() -> dict[str, Any]:
    """Return what a file of these tasks says."""
    content: dict[str, Any] = json.loads(_saved())
    return content


def is_answered(path: Path, content: dict[str, Any]) -> bool:
    """Tell whether a file is taken; if it is, everything that can be asked about its tasks has been answered."""
    path.write_text(json.dumps(content))
    try:
        found = StateFile(path).load()
    except StateError:
        return False
    assert found is not None
    engine = TaskEngine()
    engine.restore(found.tasks, now=found.now, serial=found.serial)
    view = View(PLANS["pro-hya"], Dialect(), epoch=found.epoch)
    router = Router(Host(engine, view, frozenset({"key"})))
    for now in (found.now, found.now + 1000):
        for task in found.tasks:
            for request in (
                HTTPRequest("GET", f"/api/v1/task/{quote(task.task_id, safe='')}", b"", {"x-api-key": "key"}),
                HTTPRequest("POST", "/mj/v2/fetch", json.dumps({"task_id": task.task_id}).encode()),
            ):
                assert router.respond(request, now).status < 500
            router.webhook_body(task, now)
            file_names(view, task)
            pictures_of(task, engine.tasks.get, 64)
        dashboard.tasks(router.host, now, 1.0)
        for path_ in ("/account/info", "/account/active_tasks"):
            assert router.respond(HTTPRequest("GET", path_, b"", {"x-api-key": "key"}), now).status == 200
    return True
