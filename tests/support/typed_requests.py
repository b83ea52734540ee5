"""Each typed request with nothing but what it needs, and what then goes out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from piapi_async import legacy
from piapi_async.models import (
    ace_step,
    byteaudio,
    diffrhythm,
    faceswap,
    flux,
    framepack,
    gemini,
    hailuo,
    hug,
    hunyuan,
    image_tools,
    joycaption,
    kling,
    luma,
    midjourney,
    mmaudio,
    omni_human,
    pixal3d,
    qwen_image,
    seedance,
    seedream,
    skyreels,
    sora2,
    trellis,
    tts,
    udio,
    veo3,
    video_tools,
    wan,
    z_image,
)
from piapi_async.unified import ModelRequest

Build = Callable[..., ModelRequest[Any]]

URL = "https://img.theapi.app/a.png"
URL_2 = "https://img.theapi.app/b.png"
VIDEO = "https://img.theapi.app/a.mp4"
SOUND = "https://img.theapi.app/a.mp3"
PARENT = "6886fc4d-1b41-4b1c-9c45-0e9a2f0b0f0e"

FLUX = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced")
IMAGES, VIDEOS = ("Qubico/image-toolkit",), ("Qubico/video-toolkit",)

LORA = {"lora_type": "ghibli"}

# Each request with nothing but what it needs, and what then goes out.
BARE: list[tuple[Build, str, str, dict[str, Any]]] = [
    (partial(flux.TextToImage, "a cat"), FLUX[0], "txt2img", {"prompt": "a cat"}),
    (partial(flux.ImageToImage, "a cat", image=URL), FLUX[0], "img2img", {"prompt": "a cat", "image": URL}),
    (
        partial(flux.TextToImageWithLora, "a cat", lora_settings=[flux.Lora(lora_type="ghibli")]),
        *(FLUX[2], "txt2img-lora", {"prompt": "a cat", "lora_settings": [LORA]}),
    ),
    (
        partial(flux.ImageToImageWithLora, "a cat", image=URL, lora_settings=[LORA]),
        *(FLUX[2], "img2img-lora", {"prompt": "a cat", "image": URL, "lora_settings": [LORA]}),
    ),
    (
        partial(
            flux.WithControlNet,
            "a cat",
            control_net_settings=[flux.ControlNet(control_type="depth", control_image=URL)],
        ),
        *(FLUX[2], "controlnet-lora"),
        {"prompt": "a cat", "control_net_settings": [{"control_type": "depth", "control_image": URL}]},
    ),
    (partial(flux.Fill, "a cat", image=URL), FLUX[2], "fill-inpaint", {"prompt": "a cat", "image": URL}),
    (
        partial(flux.Extend, "a cat", image=URL, custom_settings=[flux.Outpaint(outpaint_left=64)]),
        *(FLUX[2], "fill-outpaint"),
        {
            "prompt": "a cat",
            "image": URL,
            "custom_settings": [{"setting_type": "outpaint", "outpaint_left": 64}],
        },
    ),
    (partial(flux.Vary, "a cat", image=URL), FLUX[2], "redux-variation", {"prompt": "a cat", "image": URL}),
    (partial(flux.Kontext, "a hat", image=URL), FLUX[2], "kontext", {"prompt": "a hat", "image": URL}),
    (
        partial(udio.GenerateMusic, "a ballad"),
        "music-u",
        "generate_music",
        {"gpt_description_prompt": "a ballad", "lyrics_type": "generate"},
    ),
    (partial(udio.GenerateLyrics, "the sea"), "music-u", "generate_lyrics", {"prompt": "the sea"}),
    (partial(kling.Video, "a cat"), "kling", "video_generation", {"prompt": "a cat"}),
    (partial(kling.OmniVideo, "a cat"), "kling", "omni_video_generation", {"prompt": "a cat"}),
    (partial(kling.ExtendVideo, PARENT), "kling", "extend_video", {"origin_task_id": PARENT}),
    (
        partial(kling.LipSync, PARENT, tts_text="hello"),
        *("kling", "lip_sync", {"origin_task_id": PARENT, "tts_text": "hello"}),
    ),
    (
        partial(kling.Effects, URL, effect="squish"),
        "kling",
        "effects",
        {"image_url": URL, "effect": "squish"},
    ),
    (
        partial(kling.TryOn, URL, dress_input=URL_2),
        *("kling", "ai_try_on", {"model_input": URL, "dress_input": URL_2}),
    ),
    (partial(kling.Sound, "rain"), "kling", "sound", {"prompt": "rain"}),
    (
        partial(kling.Avatar, URL, local_dubbing_url=SOUND),
        *("kling", "avatar", {"image_url": URL, "local_dubbing_url": SOUND}),
    ),
    (
        partial(kling.MotionControl, URL, video_url=VIDEO),
        *("kling", "motion_control", {"image_url": URL, "video_url": VIDEO}),
    ),
    (partial(hailuo.Video, "a cat"), "hailuo", "video_generation", {"prompt": "a cat"}),
    (partial(luma.Video, "a cat"), "luma", "video_generation", {"prompt": "a cat"}),
    (
        partial(luma.ExtendVideo, key_frames=luma.KeyFrames(frame0=luma.KeyFrame(type="video", url=VIDEO))),
        *("luma", "extend_video", {"key_frames": {"frame0": {"type": "video", "url": VIDEO}}}),
    ),
    (partial(hug.Hug, URL), "Qubico/hug-video", "image_to_video", {"image_url": URL}),
    (
        partial(faceswap.FaceSwap, URL, swap_image=URL_2),
        *(IMAGES[0], "face-swap", {"target_image": URL, "swap_image": URL_2}),
    ),
    (
        partial(faceswap.MultiFaceSwap, URL, swap_image=URL_2),
        *(IMAGES[0], "multi-face-swap", {"target_image": URL, "swap_image": URL_2}),
    ),
    (partial(image_tools.Upscale, URL), IMAGES[0], "upscale", {"image": URL}),
    (partial(image_tools.RemoveBackground, URL), IMAGES[0], "background-remove", {"image": URL}),
    (partial(image_tools.Segment, URL, prompt="cat"), IMAGES[0], "segment", {"image": URL, "prompt": "cat"}),
    (
        partial(video_tools.FaceSwap, VIDEO, swap_image=URL),
        *(VIDEOS[0], "face-swap", {"target_video": VIDEO, "swap_image": URL}),
    ),
    (partial(video_tools.Upscale, VIDEO), VIDEOS[0], "upscale", {"video": VIDEO}),
    (partial(video_tools.RemoveBackground, VIDEO), VIDEOS[0], "background-remove", {"video": VIDEO}),
    (
        partial(tts.Speech, "hello", ref_audio=SOUND),
        *("Qubico/tts", "zero-shot", {"gen_text": "hello", "ref_audio": SOUND}),
    ),
    (partial(byteaudio.Speech, "hello"), "byteaudio", "seed-audio-1.0", {"text": "hello"}),
    (partial(pixal3d.ImageTo3D, URL), "Qubico/pixal3d", "image-to-3d", {"image": URL}),
    (partial(trellis.ImageTo3D, URL), "Qubico/trellis", "image-to-3d", {"image": URL}),
    (partial(trellis.TextTo3D, "a chair"), "Qubico/trellis", "text-to-3d", {"prompt": "a chair"}),
    (partial(wan.TextToVideo, "a cat"), "Qubico/wanx", "txt2video-1.3b", {"prompt": "a cat"}),
    (
        partial(wan.TextToVideoWithLora, "a cat", lora_settings=[wan.Lora(lora_type="ghibli")]),
        *("Qubico/wanx", "txt2video-14b-lora", {"prompt": "a cat", "lora_settings": [LORA]}),
    ),
    (
        partial(wan.ImageToVideo, "it runs", image=URL),
        "Qubico/wanx",
        "img2video-14b",
        {"prompt": "it runs", "image": URL},
    ),
    (
        partial(wan.ImageToVideoWithLora, "it runs", image=URL, lora_settings=[LORA]),
        *("Qubico/wanx", "img2video-14b-lora", {"prompt": "it runs", "image": URL, "lora_settings": [LORA]}),
    ),
    (
        partial(wan.KeyFrames, "it runs", first_frame=URL, last_frame=URL_2),
        *(
            "Qubico/wanx",
            "img2video-14b-keyframe",
            {"prompt": "it runs", "first_frame": URL, "last_frame": URL_2},
        ),
    ),
    (
        partial(wan.CameraControl, "it runs", image=URL),
        *("Qubico/wanx", "img2video-14b-control-camera", {"prompt": "it runs", "image": URL}),
    ),
    (partial(wan.TextToVideo26, "a cat"), "Wan", "wan26-txt2video", {"prompt": "a cat"}),
    (
        partial(wan.ImageToVideo26, "it runs", image=URL),
        "Wan",
        "wan26-img2video",
        {"prompt": "it runs", "image": URL},
    ),
    (
        partial(skyreels.ImageToVideo, "it runs", image=URL),
        *("Qubico/skyreels", "img2video", {"prompt": "it runs", "image": URL}),
    ),
    (
        partial(framepack.ImageToVideo, "it runs", start_image=URL),
        *("Qubico/framepack", "img2video", {"prompt": "it runs", "start_image": URL}),
    ),
    (partial(hunyuan.TextToVideo, "a cat"), "Qubico/hunyuan", "txt2video", {"prompt": "a cat"}),
    (
        partial(hunyuan.TextToVideoWithLora, "a cat", lora_settings=[hunyuan.Lora(lora_type="ghibli")]),
        *("Qubico/hunyuan", "txt2video-lora", {"prompt": "a cat", "lora_settings": [LORA]}),
    ),
    (
        partial(hunyuan.ImageToVideo, "it runs", image=URL),
        *("Qubico/hunyuan", "img2video-concat", {"prompt": "it runs", "image": URL}),
    ),
    (partial(mmaudio.VideoToAudio, VIDEO), "Qubico/mmaudio", "video2audio", {"video": VIDEO}),
    (
        partial(diffrhythm.Song, "[00:10.00] la"),
        "Qubico/diffrhythm",
        "txt2audio-base",
        {"lyrics": "[00:10.00] la"},
    ),
    (partial(midjourney.Imagine, "a cat"), "midjourney", "imagine", {"prompt": "a cat"}),
    (partial(midjourney.Reroll, PARENT), "midjourney", "reroll", {"origin_task_id": PARENT}),
    (
        partial(midjourney.Upscale, PARENT, index=1),
        *("midjourney", "upscale", {"origin_task_id": PARENT, "index": "1"}),
    ),
    (
        partial(midjourney.Variation, PARENT, index="2"),
        *("midjourney", "variation", {"origin_task_id": PARENT, "index": "2"}),
    ),
    (partial(midjourney.Describe, URL), "midjourney", "describe", {"image_url": URL}),
    (partial(midjourney.Seed, PARENT), "midjourney", "seed", {"origin_task_id": PARENT}),
    (partial(midjourney.Blend, [URL, URL_2]), "midjourney", "blend", {"image_urls": [URL, URL_2]}),
    (
        partial(midjourney.Inpaint, PARENT, mask=b"mask"),
        *("midjourney", "inpaint", {"origin_task_id": PARENT, "mask": "bWFzaw=="}),
    ),
    (
        partial(midjourney.Outpaint, PARENT, zoom_ratio=1.5),
        *("midjourney", "outpaint", {"origin_task_id": PARENT, "zoom_ratio": "1.5"}),
    ),
    (
        partial(midjourney.Pan, PARENT, direction="up"),
        *("midjourney", "pan", {"origin_task_id": PARENT, "direction": "up"}),
    ),
    (partial(gemini.Image, "a cat"), "gemini", "gemini-2.5-flash-image", {"prompt": "a cat"}),
    (partial(seedream.Image, "a cat"), "seedream", "seedream-5-lite", {"prompt": "a cat"}),
    (partial(seedance.Video, "a cat"), "seedance", "seedance-2", {"prompt": "a cat"}),
    (partial(seedance.RemoveWatermark, VIDEO), "seedance", "remove-watermark", {"video_url": VIDEO}),
    (partial(sora2.Video, "a cat"), "sora2", "sora2-video", {"prompt": "a cat"}),
    (partial(sora2.RemoveWatermark, VIDEO), "sora2", "remove-watermark", {"video_url": VIDEO}),
    (partial(veo3.Video, "a cat"), "veo3", "veo3-video", {"prompt": "a cat"}),
    (partial(veo3.Video31, "a cat"), "veo3.1", "veo3.1-video", {"prompt": "a cat"}),
    (
        partial(omni_human.Speak, URL, audio_url=SOUND),
        *("omni-human", "omni-human-1.5", {"image_url": URL, "audio_url": SOUND}),
    ),
    (partial(qwen_image.TextToImage, "a cat"), "Qubico/qwen-image", "txt2img", {"prompt": "a cat"}),
    (
        partial(qwen_image.EditImage, "a hat", image1=URL),
        *("Qubico/qwen-image", "image-edit", {"prompt": "a hat", "image1": URL}),
    ),
    (partial(z_image.TextToImage, "a cat"), "Qubico/z-image", "txt2img", {"prompt": "a cat"}),
    (partial(ace_step.TextToAudio, "folk"), "Qubico/ace-step", "txt2audio", {"style_prompt": "folk"}),
    (
        partial(ace_step.AudioToAudio, "folk", style_audio=SOUND),
        *("Qubico/ace-step", "audio2audio", {"style_prompt": "folk", "style_audio": SOUND}),
    ),
    (partial(ace_step.Rework, task_type="edit"), "Qubico/ace-step", "edit", {}),
    (partial(joycaption.Caption, URL), "Qubico/joycaption", "joycaption-beta-one", {"image": URL}),
]


def wrong(cls: Any, *args: Any, **inputs: Any) -> Build:
    """Give what type checkers would not let through."""
    return partial(cls, *args, **inputs)


def class_of(build: Build) -> Any:
    return build.func if isinstance(build, partial) else build


def name_of(cls: type[Any]) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def body_of(request: ModelRequest[Any]) -> dict[str, Any]:
    """Give what goes out, which is always a POST to one path."""
    http = request.to_http()
    assert (http.method, http.path) == ("POST", "/api/v1/task")
    body: dict[str, Any] = orjson.loads(http.body)
    return body


LEGACY_BARE: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
    (
        partial(legacy.FaceSwap, URL, swap_image=URL_2),
        "/api/face_swap/v1/async",
        {"target_image": URL, "swap_image": URL_2, "result_type": "url"},
    ),
    (partial(legacy.DreamMachine, "a flying cat"), "/api/luma/v1/video", {"prompt": "a flying cat"}),
    (partial(legacy.LegacyKling, "a flying cat"), "/api/kling/v1/video", {"prompt": "a flying cat"}),
]
"""The older protocols' requests: what makes one, its path, its body."""
