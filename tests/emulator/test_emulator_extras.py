"""Where Pillow or PyAV is not installed, it is said at the start and in the place of each file."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.emulating import emulating

pytestmark = pytest.mark.looptime


@pytest.fixture
def without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "piapi_async.emulator._media.painter", raising=False)


@pytest.fixture
def without_pyav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)


@pytest.mark.usefixtures("without_pillow")
async def test_without_pillow_pictures_are_refused_in_words(caplog: pytest.LogCaptureFixture) -> None:
    async with emulating() as caller:
        assert ["Pillow is not installed" in record.message for record in caplog.records] == [True]
        task = await caller.done("imagine", prompt="a cat")
        result = task["task_result"]
        for url in (result["image_url"], *result["temporary_image_urls"]):
            status, body, kind = await caller.get(url)
            assert (status, kind) == (424, "text/plain")
            assert b"pip install 'piapi_async[emulator]'" in body
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.usefixtures("without_pyav")
async def test_without_pyav_only_videos_are_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with emulating(durations=1.0) as caller:
        assert [record.message.partition(",")[0] for record in caplog.records] == [
            "The emulator cannot make videos"
        ]
        made = await caller.ask("kling", "video_generation", {"prompt": "a cat"})
        await asyncio.sleep(5)
        output = (await caller.read(made["task_id"]))["output"]
        assert (await caller.get(output["video_url"]))[0] == 424
        assert (await caller.get(output["works"][0]["cover"]["resource"]))[0] == 200


async def test_with_both_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with emulating():
        assert not caplog.records
