"""What type checkers see of the typed requests.  Never run: mypy and pyright, both strict, read it.

A line that must be refused carries an ignore, which both report once the line is accepted.
"""

# mypy: warn-unused-ignores
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_type

from piapi_async import UNIFIED, Cost, CreateTask, HistoryEntry, PiAPI, Task, TaskHandle
from piapi_async.legacy import (
    DREAM_MACHINE,
    FACE_SWAP,
    LEGACY_KLING,
    DreamMachine,
    DreamMachineResult,
    FaceSwap,
    FaceSwapResult,
    LegacyKling,
    LegacyKlingResult,
)
from piapi_async.models import (
    flux,
    hailuo,
    image_tools,
    joycaption,
    kling,
    luma,
    midjourney,
    trellis,
    udio,
    wan,
)
from piapi_async.models._outputs import ImageOutput, VideoOutput
from piapi_async.unified import Output, family_of


async def what_is_told_of_money(piapi: PiAPI) -> None:
    handle = await piapi.submit(kling.Video("a cat"))
    assert_type(handle.frozen, Cost | None)
    assert_type((await handle.wait()).cost, Cost | None)
    async for entry in piapi.history("kling", since=datetime.now(UTC)):
        assert_type(entry, HistoryEntry)
    assert_type((await piapi.account()).credits.available, float | None)


async def submit_some_of_each_system(piapi: PiAPI) -> None:
    assert_type(await piapi.submit(CreateTask("m", "t", {"prompt": "a cat"})), TaskHandle[Output])
    assert_type(await piapi.submit(flux.TextToImage("a cat")), TaskHandle[ImageOutput])
    assert_type(
        await piapi.submit(flux.ImageToImage("a cat", image=Path("cat.png"))), TaskHandle[ImageOutput]
    )
    assert_type(await piapi.submit(image_tools.Upscale("https://a.b/c.png")), TaskHandle[ImageOutput])
    assert_type(await piapi.submit(kling.Video("a cat", duration=5)), TaskHandle[kling.KlingOutput])
    assert_type(await piapi.submit(hailuo.Video("a cat")), TaskHandle[hailuo.HailuoOutput])
    assert_type(await piapi.submit(luma.Video("a cat")), TaskHandle[luma.LumaOutput])
    assert_type(await piapi.submit(udio.GenerateMusic("a ballad")), TaskHandle[udio.SongsOutput])
    assert_type(await piapi.submit(udio.GenerateLyrics("the sea")), TaskHandle[udio.LyricsOutput])
    assert_type(await piapi.submit(trellis.ImageTo3D("https://a.b/c.png")), TaskHandle[trellis.TrellisOutput])
    assert_type(await piapi.submit(wan.TextToVideo("a cat")), TaskHandle[VideoOutput])
    assert_type(await piapi.submit(midjourney.Imagine("a cat")), TaskHandle[midjourney.MidjourneyOutput])
    assert_type(await piapi.submit(joycaption.Caption("https://a.b/c.png")), TaskHandle[Output])
    assert_type(await piapi.submit(FaceSwap("https://a.b/c.png", swap_image="u")), TaskHandle[FaceSwapResult])
    assert_type(await piapi.submit(DreamMachine("a cat")), TaskHandle[DreamMachineResult])
    assert_type(await piapi.submit(LegacyKling("a cat")), TaskHandle[LegacyKlingResult])


async def what_their_tasks_hold(piapi: PiAPI) -> None:
    task = await (await piapi.submit(kling.Video("a cat"))).wait()
    assert_type(task.result.works[0].video.resource_without_watermark, str)
    songs = (await (await piapi.submit(udio.GenerateMusic("a ballad"))).wait()).result.songs
    assert_type(songs[0].duration, float | None)


async def resume_and_read(piapi: PiAPI) -> None:
    assert_type(await piapi.fetch("c0d39b5a", family=UNIFIED), Task[Output])
    assert_type(await piapi.fetch("c0d39b5a", family=family_of(ImageOutput)), Task[ImageOutput])
    assert_type(await piapi.fetch("c0d39b5a", family=FACE_SWAP), Task[FaceSwapResult])
    assert_type(await piapi.fetch("c0d39b5a", family=DREAM_MACHINE), Task[DreamMachineResult])
    assert_type(await piapi.fetch("c0d39b5a", family=LEGACY_KLING), Task[LegacyKlingResult])


def what_requests_take(settings: dict[str, Any]) -> None:
    flux.TextToImage("a cat", model="Qubico/flux1-dev", width=512, extra={"newer": 1}, service_mode="public")
    flux.TextToImageWithLora("a cat", lora_settings=[flux.Lora(lora_type="ghibli"), settings])
    kling.Video(image_url=Path("cat.png"), camera_control=kling.CameraControl(type="simple"))
    kling.Video("a cat", camera_control=settings)
    midjourney.Upscale("c0d39b5a", index=1)


def misspelt_inputs_are_refused() -> None:
    flux.TextToImage("a cat", widht=512)  # type: ignore[call-arg]
    flux.TextToImage("a cat", 512)  # type: ignore[call-arg, arg-type]
    flux.TextToImage()  # type: ignore[call-arg]
    flux.TextToImage(5)  # type: ignore[arg-type]
    flux.TextToImage("a cat", model="flux")  # type: ignore[arg-type]
    flux.ImageToImage("a cat")  # type: ignore[call-arg]
    kling.Video("a cat", mode=5)  # type: ignore[arg-type]
    kling.Video("a cat", camera_control="simple")  # type: ignore[arg-type]
    luma.KeyFrame(type="image")  # type: ignore[call-arg]
    DreamMachine("a cat", lop=True)  # type: ignore[call-arg]


def values_are_not_changed(request: flux.TextToImage) -> None:
    request.prompt = "other"  # type: ignore[misc]
