"""A request refuses nothing that the vendor's pages or clients were seen to send, and sends it as they do."""

from __future__ import annotations

import base64
from typing import Any, cast

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tables import for_each
from support.vendor_samples import LINK, SAMPLES, body_of, chosen, entry_of, expected, typed

from piapi_async import CreateTask
from piapi_async.models import faceswap, kling, luma, seedance, trellis, udio

each_sample = for_each(
    ("model", "task_type", "given_"),
    SAMPLES,
    ids=[f"{number}-{sample[1]}" for number, sample in enumerate(SAMPLES)],
)


class TestEverySample:
    @each_sample
    def test_goes_out_as_it_stands(self, model: str, task_type: str, given_: dict[str, Any]) -> None:
        assert body_of(typed(model, task_type, given_)) == expected(model, task_type, given_)

    @each_sample
    def test_of_a_typed_request_equals_that_of_a_plain_one(
        self, model: str, task_type: str, given_: dict[str, Any]
    ) -> None:
        assert body_of(typed(model, task_type, given_)) == body_of(CreateTask(model, task_type, given_))


# What the sources show of single inputs, by name; sets that grow have words that nobody has seen yet, too.
NEW_WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
VERSIONS = ("1.0", "1.5", "1.6", "2.0", "2.1", "2.1-master", "2.5", "2.6", "3.0", "o1")
LORAS = (
    *("anime", "art", "disney", "furry", "mjv6", "realism", "scenery", "collage-artstyle", "creepcute"),
    *(
        "cyberpunk-anime-style",
        "deco-pulse",
        "deep-sea-particle-enhencer",
        "faetastic-details",
        "fractal-geometry",
    ),
    *(
        "galactixy-illustrations-style",
        "geometric-woman",
        "graphic-portrait",
        "mat-miller-art",
        "moebius-style",
    ),
    *("ob3d-isometric-3d-room", "paper-quilling-and-layering-style"),
)
SHOWN: dict[str, st.SearchStrategy[Any]] = {
    "aspect_ratio": st.sampled_from(["16:9", "9:16", "4:3", "21:9", "auto", "adaptive", ""]) | NEW_WORDS,
    "version": st.sampled_from(VERSIONS) | NEW_WORDS,
    "mode": st.sampled_from(["std", "pro", "turbo", "omni_reference", ""]) | NEW_WORDS,
    "effect": st.sampled_from(["squish", "expansion", "kissing", "hugging", "fighting"]) | NEW_WORDS,
    "lyrics_type": st.sampled_from(["generate", "instrumental", "user"]) | NEW_WORDS,
    "omni_reference_task_type": st.sampled_from(["auto", "reference", "edit", "extend"]) | NEW_WORDS,
    "size": st.sampled_from(["1K", "2K", "3K"]) | NEW_WORDS,
    "lora_settings": st.lists(st.sampled_from(LORAS).map(lambda name: {"lora_type": name}), max_size=3),
    "cfg_scale": st.floats(0, 1),
    "guidance_scale": st.floats(1.5, 5),
    "denoise": st.floats(0, 1),
    "tts_speed": st.floats(0.8, 2),
    "scale": st.floats(2, 10),
    "batch_size": st.integers(1, 4),
    "asset_retention_hours": st.integers(3, 8),
    "steps": st.integers(1, 50),
    "seed": st.integers(-1, 2**32),
    "width": st.integers(64, 1024),
    "height": st.integers(64, 1024),
    "task_type": NEW_WORDS,
}
PRESETS = (
    *(
        "Cute Baby Dance",
        "Nezha",
        "Heart Gesture Dance",
        "Motorcycle Dance",
        "Subject 3 Dance",
        "Ghost Step Dance",
    ),
    *("Martial Arts", "Running", "Poping"),
)
ENCODED = {
    ("Qubico/flux1-dev-advanced", "kontext"): {"image"},
    ("Qubico/image-toolkit", "face-swap"): {"target_image", "swap_image"},
    ("Qubico/image-toolkit", "multi-face-swap"): {"target_image", "swap_image"},
    ("Qubico/wanx", "img2video-14b"): {"image"},
    ("Qubico/wanx", "img2video-14b-keyframe"): {"start_image", "end_image"},
    ("Wan", "wan26-img2video"): {"image"},
    ("Qubico/trellis", "image-to-3d"): {"image"},
    ("Qubico/diffrhythm", "txt2audio-full"): {"style_audio"},
}
"""Where the vendor's pages allow a file as base64 text without the prefix of a data: URI."""
BYTES = st.binary(min_size=1, max_size=90)
ENCODED_BYTES = (BYTES.map(base64.b64encode) | BYTES.map(base64.encodebytes)).map(bytes.decode)


@st.composite
def variations(draw: st.DrawFn) -> tuple[str, str, dict[str, Any], str]:
    """Draw a sample with other values in some of its inputs, and a task type of its own."""
    model, task_type, given_ = draw(st.sampled_from(SAMPLES))
    inputs, cls = dict(given_), cast("Any", entry_of(model, task_type).request)
    fields = attrs.fields_dict(cls)
    for name in draw(
        st.sets(st.sampled_from(sorted(SHOWN.keys() & fields.keys() - {"task_type"} or {""})))
    ) - {""}:
        inputs[name] = draw(SHOWN[name])
    for name in ENCODED.get((model, task_type), ()):
        inputs[name] = draw(ENCODED_BYTES)
    return model, task_type, inputs, draw(st.sampled_from([task_type]) | NEW_WORDS)


class TestWhateverASourceShows:
    @given(variations())
    def test_is_sent_as_it_stands(self, drawn: tuple[str, str, dict[str, Any], str]) -> None:
        model, task_type, given_, other = drawn
        request = typed(model, task_type, given_)
        if "task_type" in chosen(model, task_type):
            request = attrs.evolve(cast("Any", request), task_type=other)
            task_type = other

        assert body_of(request) == expected(model, task_type, given_)

    @for_each("preset", PRESETS)
    def test_of_motions(self, preset: str) -> None:
        assert kling.MotionControl(LINK, preset_motion=preset, video_url="").preset_motion == preset

    @for_each("cls", [luma.Video, trellis.ImageTo3D, kling.Video, udio.GenerateMusic, seedance.Video])
    def test_of_nothing_set_is_nothing_given(self, cls: Any) -> None:
        first = next(f.name for f in attrs.fields(cls) if not f.kw_only)

        with pytest.raises(ValueError, match="give "):
            cls(**{first: ""})

    def test_of_lyrics_decides_their_kind(self) -> None:
        kinds = [
            udio.GenerateMusic("a ballad").lyrics_type,
            udio.GenerateMusic(lyrics="la la").lyrics_type,
            udio.GenerateMusic(prompt="la la").lyrics_type,
            udio.GenerateMusic("a ballad", lyrics_type="instrumental").lyrics_type,
        ]

        assert kinds == ["generate", "user", "user", "instrumental"]

    @for_each("name", ["cat.png", "cat", "./cat", "ftp://a.b/cat.png"])
    def test_is_not_a_file_that_nobody_can_read(self, name: str) -> None:
        with pytest.raises(ValueError, match="target_image"):
            faceswap.FaceSwap(name, swap_image=LINK)
