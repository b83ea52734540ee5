"""The typed requests: every kind of task of the vendor's pages, what it sends, what it refuses, what it ends in."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.tables import for_each
from support.typed_requests import (
    BARE,
    FLUX,
    IMAGES,
    PARENT,
    URL,
    URL_2,
    VIDEOS,
    Build,
    body_of,
    class_of,
    name_of,
    wrong,
)

from piapi_async import FileKind, TaskState, models
from piapi_async.models import (
    SYSTEMS,
    catalog,
    diffrhythm,
    faceswap,
    flux,
    framepack,
    gemini,
    hailuo,
    hug,
    image_tools,
    joycaption,
    kling,
    luma,
    midjourney,
    seedance,
    sora2,
    trellis,
    tts,
    udio,
    veo3,
    wan,
)
from piapi_async.models._outputs import SizedFile
from piapi_async.unified import ModelRequest, known_names

# The vendor's kinds of tasks: models, task types.
KINDS: list[tuple[tuple[str, ...], str]] = [
    (FLUX, "txt2img img2img"),
    (
        FLUX[2:],
        "txt2img-lora img2img-lora controlnet-lora fill-inpaint fill-outpaint redux-variation kontext",
    ),
    (("music-u",), "generate_music generate_lyrics"),
    (("kling", "kling-turbo"), "video_generation"),
    (("kling",), "extend_video lip_sync effects ai_try_on sound avatar motion_control omni_video_generation"),
    (("hailuo",), "video_generation"),
    (("luma",), "video_generation extend_video"),
    (("Qubico/hug-video",), "image_to_video"),
    (IMAGES, "face-swap multi-face-swap"),
    (VIDEOS, "face-swap"),
    (("Qubico/tts",), "zero-shot"),
    (("Qubico/trellis", "Qubico/trellis2"), "image-to-3d text-to-3d"),
    (("Qubico/wanx",), "txt2video-1.3b txt2video-14b txt2video-14b-lora img2video-14b img2video-14b-lora"),
    (("Qubico/wanx",), "img2video-14b-keyframe img2video-14b-control-camera"),
    (("Qubico/wanx",), "wan22-txt2video-14b wan22-img2video-14b"),
    (("Wan",), "wan26-txt2video wan26-img2video"),
    (("Qubico/skyreels", "Qubico/framepack"), "img2video"),
    (("Qubico/hunyuan",), "txt2video fast-txt2video img2video-concat img2video-replace txt2video-lora"),
    (("Qubico/mmaudio",), "video2audio"),
    (("Qubico/diffrhythm",), "txt2audio-base txt2audio-full"),
    (IMAGES, "upscale background-remove segment"),
    (VIDEOS, "upscale background-remove"),
    (("midjourney",), "imagine reroll upscale variation describe seed blend inpaint outpaint pan"),
    (("gemini",), "gemini-2.5-flash-image nano-banana-pro nano-banana-2"),
    (
        ("seedream",),
        "seedream-5-lite seedream-5-pro seedream-5-lite-less-restriction seedream-5-pro-less-restriction",
    ),
    (("byteaudio",), "seed-audio-1.0"),
    (("Qubico/pixal3d",), "image-to-3d"),
    (("seedance",), "seedance-2 seedance-2-fast seedance-2-preview seedance-2.5 remove-watermark"),
    (("seedance",), "seedance-2-less-restriction seedance-2-fast-less-restriction"),
    (("seedance",), "seedance-2-mini-less-restriction seedance-2.5-less-restriction"),
    (("sora2",), "sora2-video sora2-pro-video remove-watermark"),
    (("veo3",), "veo3-video veo3-video-fast"),
    (("veo3.1",), "veo3.1-video veo3.1-video-fast"),
    (("omni-human",), "omni-human-1.5"),
    (("Qubico/qwen-image",), "txt2img image-edit"),
    (("Qubico/z-image",), "txt2img"),
    (("Qubico/ace-step",), "txt2audio audio2audio edit extend"),
    (("Qubico/joycaption",), "joycaption-beta-one"),
]
ROWS = [(model, task_type) for of, types in KINDS for model in of for task_type in types.split()]


AROUND = {"service_mode", "webhook_endpoint", "webhook_secret", "_links", "extra"}


def inputs_of(cls: Any) -> list[attrs.Attribute[Any]]:
    return [f for f in attrs.fields(cls) if f.name not in AROUND]


each = for_each(
    ("build", "model", "task_type", "expected"), BARE, ids=[name_of(class_of(build)) for build, *_ in BARE]
)
each_build = for_each(
    "build", [build for build, *_ in BARE], ids=[name_of(class_of(build)) for build, *_ in BARE]
)


class TestCatalog:
    @for_each(("model", "task_type"), ROWS)
    def test_has_every_kind_of_task_of_the_vendors_pages(self, model: str, task_type: str) -> None:
        assert (model, task_type) in {
            pair for entry in catalog().values() for pair in known_names(entry.request)
        }

    def test_gives_every_kind_of_task_of_every_class_a_name_of_its_own(self) -> None:
        made = [pair for build, *_ in BARE for pair in known_names(class_of(build))]

        assert sorted((m, e.task_type) for e in catalog().values() for m in e.models) == sorted(made)

    def test_names_a_kind_by_its_system_and_task_type(self) -> None:
        entry = catalog()["image-tools/background-remove"]

        assert (entry.request, entry.models, entry.task_type) == (
            image_tools.RemoveBackground,
            IMAGES,
            "background-remove",
        )

    def test_leads_from_a_name_to_the_class_that_makes_it(self) -> None:
        for entry in catalog().values():
            assert {(model, entry.task_type) for model in entry.models} <= set(known_names(entry.request))

    def test_lists_the_modules_in_the_order_of_the_alphabet(self) -> None:
        there = [m.name for m in pkgutil.iter_modules(models.__path__) if not m.name.startswith("_")]

        assert list(SYSTEMS) == sorted(SYSTEMS) == there

    def test_holds_every_class_that_these_tests_know(self) -> None:
        assert {entry.request for entry in catalog().values()} == {class_of(build) for build, *_ in BARE}

    @for_each("system", SYSTEMS)
    def test_every_module_names_the_page_its_facts_are_from(self, system: str) -> None:
        about = inspect.getdoc(importlib.import_module(f"piapi_async.models.{system}"))

        assert about is not None
        assert "piapi.ai/docs" in about or system == "midjourney"


class TestBody:
    @each
    def test_of_a_bare_request_has_what_is_needed_and_no_more(
        self, build: Build, model: str, task_type: str, expected: dict[str, Any]
    ) -> None:
        assert body_of(build()) == {"model": model, "task_type": task_type, "input": expected}

    @each_build
    def test_has_every_input_that_is_given(self, build: Build) -> None:
        for f in inputs_of(class_of(build)):
            if f.metadata.get("names") or f.default is attrs.NOTHING or f.default is not None:
                continue
            body = body_of(say(build, f.name, sample(f)))
            assert f.name in body["input"]

    @each_build
    def test_names_the_model_and_the_task_type_that_are_chosen(self, build: Build) -> None:
        for model, task_type in known_names(class_of(build)):
            chosen = {"model": model, "task_type": task_type}
            fields = {f.name for f in attrs.fields(class_of(build)) if f.metadata.get("names")}
            body = body_of(build(**{name: word for name, word in chosen.items() if name in fields}))
            assert (body["model"], body["task_type"]) == (model, task_type)

    @each_build
    def test_takes_inputs_that_are_newer_than_this_release(self, build: Build) -> None:
        request = build(extra={"newer": {"than": ["this"]}})

        assert body_of(request)["input"]["newer"] == {"than": ["this"]}

    @each_build
    def test_has_the_webhook_beside_the_inputs(self, build: Build) -> None:
        request = build(
            webhook_endpoint="https://bot.example/hook", webhook_secret="hush-hush", service_mode="public"
        )

        assert body_of(request)["config"] == {
            "service_mode": "public",
            "webhook_config": {"endpoint": "https://bot.example/hook", "secret": "hush-hush"},
        }
        assert "hush-hush" not in repr(request)

    def test_of_nested_settings_leaves_out_what_was_not_said(self) -> None:
        request = kling.Video(
            "a cat",
            camera_control=kling.CameraControl(type="simple", config=kling.CameraMove(zoom=-5)),
            motion_brush={"mask_url": URL, "static_masks": [{"points": []}]},
            elements=[kling.Element(image_url=URL), {"image_url": URL_2}],
            multi_shots=[kling.Shot(prompt="it sits", duration=3)],
        )

        assert body_of(request)["input"] == {
            "prompt": "a cat",
            "camera_control": {"type": "simple", "config": {"zoom": -5}},
            "motion_brush": {"mask_url": URL, "static_masks": [{"points": []}]},
            "elements": [{"image_url": URL}, {"image_url": URL_2}],
            "multi_shots": [{"prompt": "it sits", "duration": 3}],
        }


def say(build: Any, name: str, value: object) -> Any:
    """Give a request with an input more; the positional one cannot be said twice."""
    if isinstance(build, partial) and build.args and first_of(build.func) == name:
        return partial(build.func, **build.keywords)(value)
    return build(**{name: value})


def first_of(cls: Any) -> object:
    return next(f.name for f in attrs.fields(cls) if not f.kw_only)


def sample(f: attrs.Attribute[Any]) -> Any:
    """Give a value that a field takes, found by trying."""
    words = f.metadata.get("words", ())
    for value in (*words, True, 6, 1, 0.5, "16:9", URL, [URL], [{}], {}):
        if takes(f, value):
            return value
    raise AssertionError(f"no sample for {f.name}")


def takes(f: attrs.Attribute[Any], value: object) -> bool:
    converted: Any = value if f.converter is None else f.converter(value)  # type: ignore[operator]  # ours are functions
    try:
        assert f.validator is not None
        f.validator(None, f, converted)
    except ValueError:
        return False
    return True


class TestRefusal:
    @each_build
    def test_of_a_misspelt_input_is_a_type_error(self, build: Build) -> None:
        with pytest.raises(TypeError, match="promt"):
            build(promt="a cat")

    @each_build
    def test_of_a_value_names_class_field_value_and_what_is_allowed(self, build: Build) -> None:
        cls = class_of(build)
        for f in inputs_of(cls):
            with pytest.raises(
                ValueError, match=rf"^{cls.__name__}\.{f.name}: .*None.* is not allowed; \w+"
            ) as caught:
                say(build, f.name, [None])
            assert len(str(caught.value)) < 1000

    @each_build
    def test_of_nothing_where_something_is_required(self, build: Build) -> None:
        cls = class_of(build)
        for f in inputs_of(cls):
            if f.default is attrs.NOTHING:
                with pytest.raises(ValueError, match=rf"^{cls.__name__}\.{f.name}: None is not allowed"):
                    say(build, f.name, None)

    @each_build
    def test_of_a_second_positional_argument(self, build: Build) -> None:
        cls = class_of(build)
        if any(f.name == "index" for f in inputs_of(cls)):  # of a grid, which may be positional
            return
        with pytest.raises(TypeError, match="positional"):
            cls("one", "two")

    @each_build
    def test_of_an_extra_input_that_has_a_field(self, build: Build) -> None:
        cls = class_of(build)
        taken = next((f.name for f in inputs_of(cls) if not f.metadata.get("names")), None)
        if taken is not None:
            with pytest.raises(ValueError, match=rf"^{cls.__name__}\.extra: {taken} is not allowed"):
                build(extra={taken: 1})

    @for_each(
        ("build", "told"),
        [
            (udio.GenerateMusic, "GenerateMusic.gpt_description_prompt: None is not allowed; give "),
            (seedance.Video, "prompt or draft_task_id or parent_task_id"),
            (udio.GenerateLyrics, "prompt or gpt_description_prompt"),
            (kling.Video, "prompt or image_url or start_image_url or elements or multi_shots"),
            (kling.OmniVideo, "prompt or multi_shots"),
            (partial(kling.LipSync, tts_text="hello"), "origin_task_id or video_url"),
            (partial(kling.LipSync, PARENT), "tts_text or local_dubbing_url"),
            (partial(kling.TryOn, URL), "dress_input or upper_input or lower_input"),
            (kling.Sound, "prompt or origin_task_id or video_url"),
            (partial(kling.MotionControl, URL), "video_url or preset_motion"),
            (hailuo.Video, "prompt or image_url"),
            (luma.Video, "prompt or key_frames"),
            (luma.ExtendVideo, "prompt or key_frames"),
            (trellis.ImageTo3D, "image or images"),
            (partial(wan.KeyFrames, "a cat", first_frame=URL), "last_frame or end_image"),
            (partial(framepack.ImageToVideo, "a cat"), "image or start_image"),
            (diffrhythm.Song, "lyrics or style_prompt or style_audio"),
        ],
    )
    def test_of_a_request_without_any_of_what_is_needed(self, build: Build, told: str) -> None:
        with pytest.raises(ValueError, match="None is not allowed; give") as caught:
            build()
        assert told in str(caught.value)

    @for_each(
        ("build", "told"),
        [
            (
                wrong(flux.TextToImage, " "),
                "TextToImage.prompt: ' ' is not allowed; it must be a non-em",
            ),
            (wrong(flux.TextToImage, "a cat", batch_size=5), "a whole number from 1 to 4, or None"),
            (wrong(flux.TextToImage, "a cat", width=0), "a whole number of at least 1, or None"),
            (wrong(flux.TextToImage, "a cat", width=True), "TextToImage.width: True"),
            (wrong(flux.TextToImage, "a cat", steps=2**63), "TextToImage.steps"),
            (
                wrong(flux.TextToImage, "a cat", guidance_scale=float("nan")),
                "TextToImage.guidance_scale: nan",
            ),
            (wrong(flux.TextToImage, "a cat", model="Qubico/flux2"), "use one of 'Qubico/flux1-schnell', "),
            (wrong(flux.ImageToImage, "a cat", image=URL, denoise=1.5), "a number from 0 to 1, or None"),
            (
                wrong(flux.ImageToImage, "a cat", image="cat.png"),
                "an http(s) URL, a data: URI or a pathlib.Path",
            ),
            (wrong(flux.ImageToImage, "a cat", image=Path("cat.gif")), "jpeg, jpg, mp3, mp4, png, wav, webp"),
            (wrong(flux.TextToImageWithLora, "a", lora_settings=["ghibli"]), "a list of Lora or of dicts"),
            (wrong(flux.TextToImageWithLora, "a", lora_settings={"lora_type": "x"}), "a list of Lora"),
            (wrong(kling.Video, "a" * 2501), "of at most 2500 characters"),
            (wrong(kling.Video, "a", cfg_scale=1.1), "a number from 0 to 1"),
            (wrong(kling.Video, "a", duration=2), "a whole number from 3 to 15"),
            (wrong(kling.Video, "a", mode=1), "a string such as 'std', 'pro'"),
            (wrong(kling.Video, "a", aspect_ratio=16), "a string such as '16:9', 'auto'"),
            (wrong(midjourney.Imagine, "a", aspect_ratio="wide"), "two whole numbers such as '16:9'"),
            (wrong(midjourney.Pan, PARENT, direction="upwards"), "use one of 'up', 'down'"),
            (wrong(midjourney.Outpaint, PARENT, zoom_ratio=3), "a number from 1 to 2"),
            (wrong(seedance.Video, "a", duration=-2), "a whole number from 1 to 30 or -1"),
            (wrong(kling.Video, "a", camera_control="simple"), "a CameraControl or a dict"),
            (wrong(kling.TryOn, URL, dress_input=URL, batch_size=5), "a whole number from 1 to 4"),
            (wrong(kling.OmniVideo, "a", images=["cat.png"]), "a list of at least 1 files"),
            (wrong(hailuo.Video, "a", duration="6"), "a whole number of at least 1"),
            (wrong(image_tools.Upscale, URL, scale=11), "a number from 2 to 10"),
            (wrong(image_tools.Upscale, URL, face_enhance="yes"), "True or False"),
            (wrong(midjourney.Upscale, PARENT, index=5), "use one of '1', '2', '3', '4', '2x'"),
            (wrong(midjourney.Upscale, PARENT, index=True), "Upscale.index: True is not allowed"),
            (wrong(midjourney.Blend, [URL]), "a list of 2 to 5 files"),
            (wrong(midjourney.Blend, URL), "a list of 2 to 5 files"),
            (
                wrong(midjourney.Inpaint, PARENT, mask="no base64!"),
                "base64, a data: URI or the image's bytes",
            ),
            (wrong(gemini.Image, "a", image_urls=[5]), "a list of at least 1 files"),
            (wrong(faceswap.FaceSwap, "cat.png", swap_image=URL), "a data: URI, base64 or a pathlib.Path"),
            (wrong(veo3.Video, "a", duration=8), "a string such as '4s', '6s', '8s'"),
        ],
    )
    def test_says_what_is_allowed(self, build: Build, told: str) -> None:
        with pytest.raises(ValueError, match="is not allowed") as caught:
            build()
        assert told in str(caught.value)


class TestFiles:
    @each_build
    def test_that_are_here_stand_where_links_do(self, build: Build) -> None:
        for f in inputs_of(class_of(build)):
            if not f.metadata.get("link"):
                continue
            path = Path("cat.png")
            several = takes(f, [URL, URL])
            request = say(build, f.name, [path, URL] if several else path)
            assert path in request.local_files()
            linked = request.with_links({path: URL_2})
            assert body_of(linked)["input"][f.name] == ([URL_2, URL] if several else URL_2)
            assert body_of(request)["input"][f.name] == (["file:cat.png", URL] if several else "file:cat.png")

    @for_each(
        ("request_", "where"),
        [
            (
                luma.Video(key_frames=luma.KeyFrames(frame0=luma.KeyFrame(type="image", url=Path("a.png")))),
                lambda given: given["key_frames"]["frame0"]["url"],
            ),
            (
                kling.Video(elements=[kling.Element(image_url=Path("a.png"))]),
                lambda given: given["elements"][0]["image_url"],
            ),
            (
                flux.WithControlNet(
                    "a",
                    control_net_settings=[flux.ControlNet(control_type="hed", control_image=Path("a.png"))],
                ),
                lambda given: given["control_net_settings"][0]["control_image"],
            ),
            (gemini.Image("a", extra={"newer": [Path("a.png")]}), lambda given: given["newer"][0]),
        ],
        ids=["key frame", "element", "control image", "extra"],
    )
    def test_may_be_deep_in_the_settings(
        self, request_: ModelRequest[Any], where: Callable[[dict[str, Any]], object]
    ) -> None:
        assert request_.local_files() == (Path("a.png"),)
        assert where(body_of(request_.with_links({Path("a.png"): URL}))["input"]) == URL

    def test_are_each_named_once(self) -> None:
        request = faceswap.FaceSwap(Path("a.png"), swap_image=Path("a.png"))

        assert request.local_files() == (Path("a.png"),)

    def test_of_the_vendors_own_library_are_links(self) -> None:
        assert seedance.Video("a", image_urls=["asset://a1"]).local_files() == ()

    def test_within_the_body_do_not_fill_the_repr(self) -> None:
        request = image_tools.Upscale("data:image/png;base64," + "A" * 10_000)

        assert len(repr(request)) < 200


def read(cls: type[ModelRequest[Any]], output: object, status: str = "completed") -> Any:
    """Give the task that an answer tells of, read as one that such a request has made."""
    build = next(build for build, *_ in BARE if class_of(build) is cls)
    return build().family.read({"task_id": "t1", "status": status, "output": output}, "t1")  # type: ignore[arg-type]


FILE = "https://img.theapi.app/"

# What finished tasks were seen to end in, and what is to be found there: fields of the result, kinds of the files.
OUTPUTS: list[tuple[Any, dict[str, Any], dict[str, Any], str]] = [
    (
        flux.TextToImage,
        {"image_url": f"{FILE}a.png", "image_base64": ""},
        {"image_url": f"{FILE}a.png", "image_urls": ()},
        "image",
    ),
    (
        gemini.Image,
        {"image_url": f"{FILE}a.png", "image_urls": [f"{FILE}a.png", f"{FILE}b.png"]},
        {"image_urls": (f"{FILE}a.png", f"{FILE}b.png")},
        "image image",
    ),
    (hug.Hug, {"video_url": f"{FILE}a.mp4"}, {"video_url": f"{FILE}a.mp4"}, "video"),
    (sora2.Video, {"video": f"{FILE}a.mp4"}, {"video": f"{FILE}a.mp4"}, "video"),
    (tts.Speech, {"audio_url": f"{FILE}a.wav"}, {"audio_url": f"{FILE}a.wav"}, "audio"),
    (
        trellis.ImageTo3D,
        {
            "no_background_image": f"{FILE}a.png",
            "combined_video": f"{FILE}a.mp4",
            "model_file": f"{FILE}a.glb",
        },
        {
            "model_file": f"{FILE}a.glb",
            "combined_video": f"{FILE}a.mp4",
            "no_background_image": f"{FILE}a.png",
        },
        "image video model",
    ),
    (
        hailuo.Video,
        {
            "percent": 100,
            "video_url": f"{FILE}a.mp4",
            "cover_url": f"{FILE}a.png",
            "download_url": f"{FILE}a.mp4?download=1",
            "prompt_img_url": f"{FILE}mine.png",
        },
        {"video_url": f"{FILE}a.mp4", "percent": 100},
        "video image",
    ),
    (
        luma.Video,
        {
            "video": {"url": f"{FILE}w.mp4", "width": 1280, "height": 720},
            "video_raw": {"url": f"{FILE}a.mp4", "width": 1280, "height": 720},
            "thumbnail": {"url": f"{FILE}a.png", "width": 1280, "height": 720},
            "last_frame": None,
        },
        {"video_raw": SizedFile(f"{FILE}a.mp4", 1280, 720), "last_frame": SizedFile()},
        "video video image",
    ),
    (
        udio.GenerateMusic,
        {
            "songs": [
                {
                    "id": "s1",
                    "title": "Rain",
                    "song_path": f"{FILE}a.mp3",
                    "image_path": f"{FILE}a.png",
                    "tags": ["folk"],
                    "duration": 32.8,
                    "finished": True,
                    "error_type": None,
                    "video_path": None,
                }
            ]
        },
        {
            "songs": (
                udio.Song(
                    "s1", "Rain", f"{FILE}a.mp3", f"{FILE}a.png", "", "", ("folk",), 32.8, finished=True
                ),
            )
        },
        "audio image",
    ),
    (
        udio.GenerateLyrics,
        {"lyrics_pairs": [{"title": "Rain", "text": "It rains"}]},
        {"lyrics_pairs": (udio.Lyrics("Rain", "It rains"),)},
        "",
    ),
    (
        kling.TryOn,
        {
            "works": [
                {
                    "content_type": "image",
                    "image": {
                        "resource": f"{FILE}w.png",
                        "resource_without_watermark": f"{FILE}a.png",
                        "width": 768,
                    },
                }
            ]
        },
        {"works": (kling.Work("image", image=kling.Resource(f"{FILE}w.png", f"{FILE}a.png", 768)),)},
        "image image",
    ),
    (
        kling.Video,
        {
            "type": "m2v_txt2video",
            "status": 99,
            "video_url": f"{FILE}a.mp4",
            "works": [
                {
                    "cover": {"resource": f"{FILE}a.png", "resource_without_watermark": ""},
                    "video": {"resource": f"{FILE}w.mp4", "resource_without_watermark": f"{FILE}a.mp4"},
                }
            ],
        },
        {"video_url": f"{FILE}a.mp4", "status": 99},
        "video video image",
    ),
    (joycaption.Caption, {"text": "a cat at https://a.b/c.png"}, {}, ""),
]


class TestResult:
    @for_each(("cls", "output", "fields", "kinds"), OUTPUTS, ids=[name_of(cls) for cls, *_ in OUTPUTS])
    def test_has_the_fields_and_files_of_the_output(
        self, cls: Any, output: dict[str, Any], fields: dict[str, Any], kinds: str
    ) -> None:
        task = read(cls, output)

        assert task.state is TaskState.DONE
        assert {name: getattr(task.result, name) for name in fields} == fields
        assert [file.kind for file in task.files] == [FileKind(kind) for kind in kinds.split()]

    def test_that_nobody_has_written_down_is_the_output_as_it_came(self) -> None:
        assert read(joycaption.Caption, {"text": "a cat"}).result == {"text": "a cat"}

    @each_build
    def test_is_empty_where_there_is_none(self, build: Build) -> None:
        task: Any = read(class_of(build), None, "pending")

        assert task.files == task.images == ()
        assert not task.result if isinstance(task.result, dict) else task.result == type(task.result)()

    @each_build
    def test_is_of_the_unified_family(self, build: Build) -> None:
        assert build().family.name == "unified"

    def test_of_hailuo_tells_its_progress(self) -> None:
        assert read(hailuo.Video, {"percent": 40}, "processing").progress == 40

    def test_is_empty_where_it_cannot_be_read(self) -> None:
        assert read(kling.Video, {"works": [{}, 5]}).result == kling.KlingOutput(
            works=(kling.Work(), kling.Work())
        )
