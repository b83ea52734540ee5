"""Tasks and outcomes as JSON values, as services return them and tables hold them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.families import FamilyCase
from support.serving import serving

from piapi_async import BatchRunner, TaskFailed, TaskState
from piapi_async.models import flux


@pytest.mark.looptime
async def test_a_tasks_dict_is_json_and_says_what_the_task_does(case: FamilyCase) -> None:
    async with serving(picture_size=32) as (_, piapi):
        handle = await piapi.submit(case.reroll("6886fc4d"))
        waiting = await handle.refresh()
        task = await handle.wait()
        shown = task.to_dict()

        assert (False, False) == (waiting.done, waiting.ok)
        assert (True, True) == (task.done, task.ok)
        assert shown == json.loads(task.to_json())
        assert (task.task_id, "done") == (shown["task_id"], shown["state"])
        assert shown["progress"] == (100 if case.progress else None)
        assert list(task.images) == shown["images"]
        assert [file.url for file in task.files] == [file["url"] for file in shown["files"]]
        assert task.ended_at is not None
        assert task.ended_at.isoformat() == shown["ended_at"]
        assert waiting.to_dict()["ended_at"] is None


@pytest.mark.looptime
async def test_a_typed_result_becomes_plain_values() -> None:
    async with serving(picture_size=32) as (_, piapi):
        handle = await piapi.submit(flux.TextToImage("a cat"))
        task = await handle.wait()

    assert task.result.image_url == task.to_dict()["result"]["image_url"]
    assert [] == task.to_dict()["result"]["image_urls"]


@pytest.mark.looptime
async def test_every_outcome_has_the_same_columns(case: FamilyCase, tmp_path: Path) -> None:
    async with serving(adopt_parents=False, picture_size=32) as (_, piapi):
        parent = await (await piapi.submit(case.imagine("a cat"))).wait()
        around = {"webhook_endpoint": "https://h.test/", "webhook_secret": "hush"}
        requests = [case.reroll(parent.task_id), case.reroll("no such parent", **around)]
        saved, refused = await BatchRunner(piapi, download=tmp_path).run(requests)

    rows = [saved.to_dict(), refused.to_dict()]
    assert [json.loads(outcome.to_json()) for outcome in (saved, refused)] == rows
    assert rows[0].keys() == rows[1].keys()
    assert [(0, True), (1, False)] == [(row["index"], row["ok"]) for row in rows]
    assert ("", "") == (rows[0]["error"], rows[0]["error_type"])
    assert type(refused.error).__name__ == rows[1]["error_type"]
    assert str(refused.error) == rows[1]["error"]
    assert [str(path) for path in saved.files] == [f["saved_as"] for f in rows[0]["files"] if f["saved_as"]]
    assert parent.task_id in str(rows[0]["request"])
    assert "hush" not in str(rows)
    assert rows[1]["task_id"] is None


@pytest.mark.looptime
async def test_a_task_that_failed_is_done_and_not_ok(case: FamilyCase) -> None:
    async with serving(failure_rate=1.0) as (_, piapi):
        handle = await piapi.submit(case.reroll("6886fc4d"))
        with pytest.raises(TaskFailed) as caught:
            await handle.wait()

    task = caught.value.task
    assert (True, False) == (task.done, task.ok)
    assert TaskState.FAILED.value == task.to_dict()["state"]
    assert task.to_dict()["error"]
