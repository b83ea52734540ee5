"""What the vendor's pages, schemas and clients were seen to send: a model, a task type, and the `input` as it stood.

Links are made up, texts are shortened.  An input that only one source shows stands here, too: a request must not refuse
what any of them sends.
"""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from piapi_async.models import Entry, catalog
from piapi_async.unified import ModelRequest

LINK = "https://i.ibb.co/kgz3ZhwY/cat.jpg"
LINK_2 = "https://i.ibb.co/kgz3ZhwY/dog.jpg"
CLIP = "https://i.ibb.co/kgz3ZhwY/cat.mp4"
SOUND = "https://i.ibb.co/kgz3ZhwY/cat.mp3"
DATA = "data:image/png;base64,iVBORw0KGgo="
BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
PARENT = "parent"
CAT = {"prompt": "a cute cat"}

_SCHNELL, _DEV, _ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"
_IMAGES, _VIDEOS = "Qubico/image-toolkit", "Qubico/video-toolkit"
_CONTROL = {"control_type": "depth", "control_image": LINK}

SAMPLES: list[tuple[str, str, dict[str, Any]]] = [
    # Flux
    (_SCHNELL, "txt2img", {**CAT, "width": 1024, "height": 1024, "guidance_scale": 1.5, "batch_size": 1}),
    (_DEV, "txt2img", {**CAT, "negative_prompt": "", "steps": 28, "guidance_scale": 5}),
    (_DEV, "img2img", {**CAT, "image": LINK, "denoise": 0.7}),
    (_ADVANCED, "txt2img-lora", {**CAT, "lora_settings": [{"lora_type": "mjv6", "lora_strength": 1}]}),
    (_ADVANCED, "img2img-lora", {**CAT, "image": LINK, "lora_settings": [{"lora_type": "moebius-style"}]}),
    (
        _ADVANCED,
        "controlnet-lora",
        {
            **CAT,
            "image": LINK,
            "denoise": 0.5,
            "batch_size": 2,
            "lora_settings": [],
            "control_net_settings": [
                {**_CONTROL, "control_strength": 0.45, "return_preprocessed_image": True}
            ],
        },
    ),
    (_ADVANCED, "controlnet-lora", {**CAT, "lora_settings": [], "control_net_settings": [_CONTROL]}),
    (_ADVANCED, "fill-inpaint", {**CAT, "image": LINK, "denoise": 1, "batch_size": 1}),
    (
        _ADVANCED,
        "fill-outpaint",
        {**CAT, "image": LINK, "custom_settings": [{"setting_type": "outpaint", "outpaint_left": 500}]},
    ),
    (_ADVANCED, "redux-variation", {**CAT, "image": LINK, "batch_size": 1}),
    (_ADVANCED, "redux-variation", {"image": LINK, "prompt": ""}),
    (_ADVANCED, "kontext", {**CAT, "image": BASE64, "width": 1024, "height": 1024, "steps": 28, "seed": -1}),
    # Udio
    (
        "music-u",
        "generate_music",
        {"gpt_description_prompt": "a ballad", "lyrics_type": "generate", "seed": -1},
    ),
    ("music-u", "generate_music", {"gpt_description_prompt": "night breeze", "lyrics_type": "instrumental"}),
    (
        "music-u",
        "generate_music",
        {"lyrics": "la la", "lyrics_type": "user", "title": "Night", "negative_tags": ""},
    ),
    ("music-u", "generate_music", {"prompt": "la la", "lyrics_type": "user"}),
    (
        "music-u",
        "generate_music",
        {
            "gpt_description_prompt": "go on",
            "lyrics_type": "generate",
            "continue_song_id": "d5a7a9d0",
            "continue_at": 30,
        },
    ),
    ("music-u", "generate_lyrics", {"prompt": "White egrets fly over the vast paddy fields"}),
    # Kling
    (
        "kling",
        "video_generation",
        {**CAT, "negative_prompt": "", "cfg_scale": 0.5, "duration": 5, "aspect_ratio": "1:1", "mode": "std"},
    ),
    (
        "kling",
        "video_generation",
        {
            **CAT,
            "camera_control": {
                "type": "simple",
                "config": {"horizontal": 0, "vertical": 0, "pan": -10, "tilt": 0, "roll": 0, "zoom": 0},
            },
        },
    ),
    ("kling", "video_generation", {**CAT, "version": "2.5", "mode": "turbo", "duration": 10}),
    ("kling", "video_generation", {**CAT, "version": "2.1-master", "image_url": LINK, "image_tail_url": ""}),
    (
        "kling",
        "video_generation",
        {**CAT, "version": "3.0", "mode": "std", "enable_audio": False, "duration": 15},
    ),
    (
        "kling",
        "video_generation",
        {**CAT, "version": "1.6", "elements": [{"image_url": LINK}, {"image_url": LINK_2}]},
    ),
    (
        "kling",
        "video_generation",
        {
            **CAT,
            "image_url": LINK,
            "motion_brush": {"mask_url": LINK, "static_masks": [{"points": [{"x": 1, "y": 2}]}]},
        },
    ),
    ("kling-turbo", "video_generation", {**CAT, "aspect_ratio": "16:9", "duration": 5}),
    (
        "kling",
        "omni_video_generation",
        {**CAT, "version": "o1", "resolution": "720p", "aspect_ratio": "auto"},
    ),
    ("kling", "omni_video_generation", {**CAT, "images": [LINK, LINK_2], "video": "", "duration": 5}),
    ("kling", "extend_video", {"origin_task_id": PARENT, **CAT}),
    (
        "kling",
        "lip_sync",
        {
            "video_url": CLIP,
            "tts_text": "hello",
            "tts_timbre": "Rock",
            "tts_speed": 0.8,
            "local_dubbing_url": "",
        },
    ),
    ("kling", "lip_sync", {"origin_task_id": PARENT, "local_dubbing_url": SOUND}),
    *(
        ("kling", "effects", {"image_url": LINK, "effect": effect})
        for effect in ("squish", "expansion", "kissing", "hugging", "fighting")
    ),
    ("kling", "ai_try_on", {"model_input": LINK, "dress_input": LINK_2, "batch_size": 1}),
    (
        "kling",
        "ai_try_on",
        {
            "model_input": LINK,
            "dress_input": "",
            "upper_input": LINK_2,
            "lower_input": LINK_2,
            "batch_size": 4,
        },
    ),
    ("kling", "sound", {"prompt": "rain", "duration": 5}),
    (
        "kling",
        "avatar",
        {"image_url": LINK, "local_dubbing_url": SOUND, "prompt": "", "mode": "pro", "batch_size": 1},
    ),
    (
        "kling",
        "motion_control",
        {
            "image_url": LINK,
            "video_url": "",
            "preset_motion": "Heart Gesture Dance",
            "motion_direction": "video",
            "keep_original_sound": True,
            "mode": "std",
            "version": "2.6",
        },
    ),
    ("kling", "motion_control", {"image_url": LINK, "video_url": CLIP, "preset_motion": ""}),
    # Hailuo, Luma, Hug
    *(
        ("hailuo", "video_generation", {**CAT, "model": model, "expand_prompt": True})
        for model in ("t2v-01", "t2v-01-director", "t2v-02", "v2.3", "v2.3-fast")
    ),
    *(
        ("hailuo", "video_generation", {**CAT, "model": model, "image_url": LINK, "expand_prompt": False})
        for model in ("i2v-01", "i2v-01-live", "s2v-01", "i2v-02")
    ),
    ("hailuo", "video_generation", {**CAT, "model": "v2.3", "duration": 6, "resolution": 1080}),
    ("luma", "video_generation", {**CAT, "expand_prompt": True, "aspect_ratio": "16:9", "loop": False}),
    (
        "luma",
        "video_generation",
        {
            **CAT,
            "model_name": "ray-v2",
            "duration": 5,
            "key_frames": {
                "frame0": {"type": "image", "url": LINK},
                "frame1": {"type": "image", "url": LINK_2},
            },
        },
    ),
    ("luma", "extend_video", {**CAT, "key_frames": {"frame0": {"type": "video", "url": CLIP}}}),
    ("Qubico/hug-video", "image_to_video", {"image_url": LINK}),
    # Faces and other tools
    (_IMAGES, "face-swap", {"target_image": LINK, "swap_image": LINK_2}),
    (_IMAGES, "face-swap", {"target_image": BASE64, "swap_image": BASE64}),
    (
        _IMAGES,
        "multi-face-swap",
        {"target_image": LINK, "swap_image": DATA, "swap_faces_index": "0,1", "target_faces_index": ""},
    ),
    (_VIDEOS, "face-swap", {"target_video": CLIP, "swap_image": LINK, "swap_faces_index": "0"}),
    (_IMAGES, "upscale", {"image": LINK, "scale": 2, "face_enhance": True}),
    (_IMAGES, "background-remove", {"image": LINK, "rmbg_model": "RMBG-2.0"}),
    (_IMAGES, "segment", {"image": LINK, "prompt": "cat", "negative_prompt": "", "segment_factor": -15}),
    (_VIDEOS, "upscale", {"video": CLIP}),
    (_VIDEOS, "background-remove", {"video": CLIP, "invert_output": False}),
    # Sounds
    ("Qubico/tts", "zero-shot", {"gen_text": "hello", "ref_text": "", "ref_audio": SOUND}),
    (
        "Qubico/mmaudio",
        "video2audio",
        {"prompt": "", "negative_prompt": "", "steps": 25, "seed": 0, "video": CLIP},
    ),
    (
        "Qubico/diffrhythm",
        "txt2audio-base",
        {"lyrics": "[00:10.00] la", "style_prompt": "pop", "style_audio": ""},
    ),
    ("Qubico/diffrhythm", "txt2audio-full", {"lyrics": "", "style_prompt": "", "style_audio": BASE64}),
    ("Qubico/ace-step", "txt2audio", {"style_prompt": "folk", "lyrics": "[inst]", "duration": 60}),
    (
        "byteaudio",
        "seed-audio-1.0",
        {
            "text": "Welcome.",
            "format": "wav",
            "sample_rate": 24000,
            "speech_rate": 0,
            "pitch_rate": 0,
            "loudness_rate": 0,
        },
    ),
    # Objects
    ("Qubico/trellis", "image-to-3d", {"image": BASE64, "seed": 0, "ss_sampling_steps": 50}),
    ("Qubico/trellis2", "image-to-3d", {"image": LINK, "seed": 0}),
    ("Qubico/trellis", "text-to-3d", {"prompt": "a chair"}),
    ("Qubico/pixal3d", "image-to-3d", {"image": LINK, "seed": 0}),
    # Wan and its kin
    ("Qubico/wanx", "txt2video-1.3b", {**CAT, "negative_prompt": "", "aspect_ratio": "16:9"}),
    (
        "Qubico/wanx",
        "txt2video-14b-lora",
        {**CAT, "lora_settings": [{"lora_type": "ghibli", "lora_strength": 1.0}]},
    ),
    ("Qubico/wanx", "img2video-14b", {"image": LINK}),
    ("Qubico/wanx", "img2video-14b", {**CAT, "image": BASE64, "negative_prompt": ""}),
    (
        "Qubico/wanx",
        "img2video-14b-lora",
        {**CAT, "image": LINK, "lora_settings": [{"lora_type": "fighting"}]},
    ),
    ("Qubico/wanx", "img2video-14b-keyframe", {"image": BASE64, "start_image": BASE64, "end_image": BASE64}),
    ("Qubico/wanx", "img2video-14b-keyframe", {**CAT, "first_frame": LINK, "last_frame": LINK_2}),
    (
        "Qubico/wanx",
        "img2video-14b-control-camera",
        {"image": LINK, "control_camera_settings": [{"motion_type": "zoom_in", "motion_speed": 0.2}]},
    ),
    ("Qubico/wanx", "wan22-txt2video-14b", CAT),
    ("Qubico/wanx", "wan22-img2video-14b", {"image": LINK, "prompt": ""}),
    (
        "Wan",
        "wan26-txt2video",
        {
            **CAT,
            "resolution": "720P",
            "duration": 5,
            "prompt_extend": True,
            "shot_type": "multi",
            "watermark": False,
        },
    ),
    ("Wan", "wan26-img2video", {**CAT, "image": BASE64, "audio": True, "audio_url": ""}),
    ("Qubico/skyreels", "img2video", {**CAT, "image": LINK, "aspect_ratio": "16:9", "guidance_scale": 3.5}),
    ("Qubico/framepack", "img2video", {**CAT, "start_image": LINK, "end_image": LINK_2, "duration": 10}),
    ("Qubico/hunyuan", "txt2video", {**CAT, "aspect_ratio": "16:9"}),
    ("Qubico/hunyuan", "img2video-concat", {**CAT, "image": LINK}),
    ("Qubico/hunyuan", "txt2video-lora", {**CAT, "lora_settings": [{"lora_type": "ghibli"}], "steps": 20}),
    # The newer ones
    (
        "gemini",
        "gemini-2.5-flash-image",
        {**CAT, "aspect_ratio": "16:9", "output_format": "png", "image_urls": []},
    ),
    ("gemini", "nano-banana-pro", {**CAT, "image_urls": [LINK], "resolution": "2K", "safety_level": "high"}),
    (
        "gemini",
        "nano-banana-2",
        {**CAT, "image_urls": [LINK] * 14, "enable_web_search": True, "aspect_ratio": "auto"},
    ),
    ("seedream", "seedream-5-lite", {**CAT, "aspect_ratio": "16:9", "output_format": "png", "size": "2K"}),
    *(
        ("seedream", task_type, {**CAT, "size": "1K", "image_urls": [LINK]})
        for task_type in (
            "seedream-5-pro",
            "seedream-5-lite-less-restriction",
            "seedream-5-pro-less-restriction",
        )
    ),
    ("seedance", "seedance-2-preview", {"prompt": "she sings", "duration": 5, "aspect_ratio": "16:9"}),
    ("seedance", "seedance-2", {**CAT, "duration": -1, "aspect_ratio": "auto", "video_urls": [CLIP]}),
    (
        "seedance",
        "seedance-2.5",
        {
            **CAT,
            "mode": "omni_reference",
            "omni_reference_task_type": "edit",
            "aspect_ratio": "adaptive",
            "duration": 30,
            "resolution": "720p",
            "audio": True,
            "image_urls": [LINK] * 30,
            "video_urls": [CLIP] * 10,
            "audio_urls": [SOUND] * 10,
        },
    ),
    *(
        (
            "seedance",
            f"seedance-2{kind}-less-restriction",
            {**CAT, "image_urls": ["asset://a1"], "auto_upload_assets": True, "asset_retention_hours": 3},
        )
        for kind in ("", "-fast", "-mini", ".5")
    ),
    ("seedance", "seedance-2.5", {"draft_task_id": "d1", "duration": 5}),
    ("seedance", "seedance-2.5", {**CAT, "parent_task_id": "p1"}),
    ("seedance", "remove-watermark", {"video_url": CLIP}),
    ("sora2", "sora2-video", {**CAT, "duration": 10, "aspect_ratio": "16:9"}),
    ("sora2", "sora2-pro-video", {**CAT, "image_url": LINK, "resolution": "1080p", "duration": 25}),
    ("veo3", "veo3-video", {**CAT, "duration": "8s", "resolution": "1080p", "generate_audio": True}),
    (
        "veo3.1",
        "veo3.1-video-fast",
        {**CAT, "tail_image_url": "", "reference_image_urls": [LINK], "aspect_ratio": "auto"},
    ),
    (
        "omni-human",
        "omni-human-1.5",
        {"image_url": LINK, "audio_url": SOUND, "prompt": "", "fast_mode": True},
    ),
    ("Qubico/qwen-image", "txt2img", {**CAT, "width": 1024, "height": 1024, "flow_shift": 3, "seed": -1}),
    ("Qubico/qwen-image", "image-edit", {**CAT, "image1": LINK, "image2": ""}),
    ("Qubico/z-image", "txt2img", {**CAT, "batch_size": 2}),
    ("Qubico/joycaption", "joycaption-beta-one", {"image": LINK, "prompt": ""}),
]


def entry_of(model: str, task_type: str) -> Entry:
    return next(e for e in catalog().values() if model in e.models and e.task_type == task_type)


def chosen(model: str, task_type: str) -> dict[str, str]:
    """Return the names that the request class of a task leaves open, as they are for it."""
    cls: Any = entry_of(model, task_type).request
    fields = {f.name for f in attrs.fields(cls) if f.metadata.get("names")}
    return {name: word for name, word in (("model", model), ("task_type", task_type)) if name in fields}


def typed(model: str, task_type: str, given_: dict[str, Any]) -> ModelRequest[Any]:
    """Make the typed request of a task as a program would: the first input positional, the others by name."""
    cls: Any = entry_of(model, task_type).request
    inputs = dict(given_)
    first = [inputs.pop(f.name) for f in attrs.fields(cls) if not f.kw_only and f.name in inputs]
    request: ModelRequest[Any] = cls(*first, **inputs, **chosen(model, task_type))
    return request


def body_of(request: Any) -> Any:
    return orjson.loads(request.to_http().body)


def expected(model: str, task_type: str, given_: dict[str, Any]) -> dict[str, Any]:
    return {"model": model, "task_type": task_type, "input": given_}


def without_task_type(model: str, task_type: str) -> dict[str, str]:
    """Return the model where it must be said, for a verb whose name has the task type."""
    return {name: word for name, word in chosen(model, task_type).items() if name == "model"}
