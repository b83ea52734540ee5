"""What a finished task offers (`result.actions`), as requests; and how notebooks show tasks and outcomes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.families import LEGACY_CASE, UNIFIED_CASE, FamilyCase
from support.serving import serving

from piapi_async import (
    LEGACY,
    UNIFIED,
    BatchRunner,
    HTTPResponse,
    Imagine,
    Inpaint,
    Outpaint,
    Pan,
    Upscale,
    Variation,
    legnext,
)
from piapi_async.legacy import FACE_SWAP
from piapi_async.models import midjourney
from piapi_async.tasks import TaskId
from piapi_async.unified import family_of

both = pytest.mark.parametrize("case", [LEGACY_CASE, UNIFIED_CASE], ids=str)
MASK = "iVBORw0KGgo="
ID = TaskId("6886fc4d")


def read(family: Any, **fields: Any) -> Any:
    body = {family.id_field: ID, "status": "finished", **fields}
    return family.fetch(ID).parse(HTTPResponse(200, orjson.dumps(body)))


@both
@pytest.mark.looptime
async def test_every_action_that_a_host_offers_is_a_request_that_it_takes(case: FamilyCase) -> None:
    offered: set[str] = set()
    async with serving(durations=1.0, concurrency=100, picture_size=32) as (_, piapi):
        grid = await piapi.run(case.reroll("6886fc4d"))
        single = await piapi.run(grid.action("upscale2"))
        for task in (grid, single):
            actions = task.result["actions"] if isinstance(task.result, dict) else task.result.actions
            offered |= {*actions}
            for word in actions:
                inputs = {"mask": MASK} if word == "inpaint" else {}
                assert (await piapi.run(task.action(word, **inputs))).ok

    assert {
        "reroll",
        "upscale4",
        "variation1",
        "upscale_subtle",
        "high_variation",
        "outpaint_1.5x",
        "pan_up",
    } <= offered


@pytest.mark.looptime
async def test_every_action_of_a_legnext_job_is_a_request_that_its_host_takes() -> None:
    area = {"width": 1024, "height": 1024, "points": [0, 0, 512, 0, 512, 512]}
    canvas, old = {"width": 1024, "height": 1024}, {"width": 512, "height": 512, "x": 0, "y": 0}
    needs: dict[str, dict[str, Any]] = {
        "remix": {"prompt": "a dog"},
        "pan": {"direction": "up"},
        "outpaint": {"scale": 1.5},
        "inpaint": {"mask": [area]},
        "edit": {"canvas": canvas, "img_pos": old, "prompt": "a dog"},
    }
    service = {"family": legnext.LEGNEXT}
    async with serving(service, durations=1.0, concurrency=100, picture_size=32) as (_, piapi):
        grid = await piapi.run(legnext.Imagine("a cat"))
        for word in grid.result.actions:
            if not word.endswith(("1", "2", "3")):
                assert (await piapi.run(grid.action(word, **needs.get(word.rstrip("4"), {})))).ok
        single = await piapi.run(grid.action("upscale2", type="creative"))

    assert {"reroll", "upscale1", "variation4", "edit1"} <= {*grid.result.actions}
    assert legnext.Pan(grid, 3, direction="up") == grid.action("pan3", direction="up")
    assert legnext.Upscale(single, 1) == single.action("upscale_1")


def test_words_become_the_classes_of_their_family() -> None:
    task = read(LEGACY)
    assert Upscale(ID, 2) == task.action("upscale2") == task.action(" Upscale_2 ")
    assert Variation(ID, "low_variation", prompt="a cat") == task.action("low_variation", prompt="a cat")
    assert Outpaint(ID, zoom_ratio="1.5") == task.action("outpaint_1.5x")
    assert Pan(ID, direction="left") == task.action("pan_left")
    assert Inpaint(ID, mask=MASK) == task.action("inpaint", mask=MASK)

    typed = read(family_of(midjourney.MidjourneyOutput))
    assert midjourney.Upscale(ID, 2) == typed.action("upscale2")
    assert typed.action("pan_up").to_http() == read(UNIFIED).action("pan_up").to_http()
    for copied in (pickle.loads(pickle.dumps(typed)), copy.deepcopy(typed)):  # noqa: S301 - our own
        assert copied.action("reroll") == midjourney.Reroll(ID)


def test_a_word_that_needs_more_than_the_task_says_what() -> None:
    for task in (read(LEGACY), read(family_of(midjourney.MidjourneyOutput))):
        with pytest.raises(ValueError, match=r"action: 'inpaint' needs mask .* or Inpaint\(task, mask=…\)"):
            task.action("inpaint")
        with pytest.raises(ValueError, match=r"unexpected keyword argument 'mask'"):
            task.action("reroll", mask=MASK)
    with pytest.raises(ValueError, match=r"'pan' needs index and direction"):
        read(legnext.LEGNEXT).action("pan")


@pytest.mark.parametrize(
    "word", ["", "upscale5", "upscale", "describe", "reroll1", "pan_north", "variation 2x"]
)
def test_another_word_is_refused(word: str) -> None:
    families: list[Any] = [LEGACY, UNIFIED, FACE_SWAP]
    if word != "upscale5":  # a LegNext grid that was drawn with --draft has up to 24 pictures
        families.append(legnext.LEGNEXT)

    for family in families:
        with pytest.raises(ValueError, match="action: "):
            read(family).action(word)
    for family in (LEGACY, legnext.LEGNEXT):
        with pytest.raises(TypeError, match=r"a word of result\.actions"):
            read(family).action(2)


# -- notebooks ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.looptime
async def test_a_notebook_shows_the_pictures_and_what_went_wrong(case: FamilyCase, tmp_path: Path) -> None:
    async with serving(adopt_parents=False, picture_size=32) as (_, piapi):
        grid = await piapi.run(Imagine("a cat"))
        saved, refused = await BatchRunner(piapi, download=tmp_path).run(
            [case.reroll(grid.task_id), case.reroll("no")]
        )

    assert saved.task is not None
    for shown in (saved.task._repr_html_(), saved._repr_html_()):
        assert shown.count("<img ") == len([file for file in saved.task.files if file.role == "result"])
        assert saved.task.images[0] in shown
    files = [file for file in saved.task.files if file.role != "copy"]
    assert f"<Task {saved.task.task_id}: {saved.task.status}, {len(files)} files>" == repr(saved.task)
    assert f"done, {len(saved.files)} files saved>" in repr(saved)
    assert "NotFoundError: " in repr(refused)
    assert "parent task not found" in refused._repr_html_()
    assert len(repr(saved)) < 120


def test_nothing_of_a_hosts_is_markup_or_script() -> None:
    evil = '"><script>alert(1)</script>'
    links = [f"https://a.b/1.png{evil}", "javascript:alert(1)//.png"]
    task = read(LEGACY, status=f"finished{evil}", task_result={"image_urls": links})
    failed = read(LEGACY, status="failed", task_result={"error_messages": [evil]})

    for shown in (task._repr_html_(), failed._repr_html_()):
        assert "<script" not in shown
        assert 'src="javascript' not in shown
    assert "alert(1)" in failed._repr_html_()


def test_videos_and_sounds_have_players_and_a_model_a_link() -> None:
    output = {
        "video_url": "https://a.b/c.mp4",
        "audio_url": "https://a.b/c.mp3",
        "model_url": "https://a.b/c.glb",
    }
    shown = read(UNIFIED, status="completed", output=output)._repr_html_()

    assert all(tag in shown for tag in ("<video ", "<audio ", '<a href="https://a.b/c.glb"'))


def test_a_running_task_shows_how_far_it_is() -> None:
    task = read(LEGACY, status="processing", task_result={"task_progress": 40})

    assert f"<Task {ID}: processing, 40 %>" == repr(task)
    assert "processing, 40 %" in task._repr_html_()
