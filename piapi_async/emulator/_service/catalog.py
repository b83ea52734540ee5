"""The systems of the unified protocol as data: models, task types, inputs, and what comes out.  Pure.

A new model is one `System` row, and a row of `_api/outputs.OUTPUTS` if its output has a shape of
its own.  Midjourney is not in the table: its ten verbs are `verbs.VERBS`, whichever protocol they
come in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from attrs import field, frozen

from .checks import Check, number, short
from .requests import MIDJOURNEY, Protocol


@frozen(kw_only=True)
class System:
    """One row: which tasks of which models, which inputs they need and know, and which output they end in.

    A task type may be a pattern ("wan22-*").  `required` are names of inputs; "a|b" means one of
    them.  Known `inputs` are checked, all others pass as they are, because the vendor adds inputs
    all the time.  `output` is a row of `_api/outputs.OUTPUTS`.  `makes` is what comes out, and what
    its durations and prices are looked up by.  `derives`: its `origin_task_id` must be a finished
    task.
    """

    models: tuple[str, ...]
    task_types: tuple[str, ...]
    output: str
    required: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    makes: str = "image"
    limits: Mapping[str, Check] = field(factory=dict)
    derives: bool = False

    def serves(self, model: str, task_type: str) -> bool:
        """Return whether this row is about that task."""
        if model not in self.models:
            return False
        return any(fnmatchcase(task_type, pattern) for pattern in self.task_types)


_FLUX = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced")
_FLUX_ADVANCED = ("Qubico/flux1-dev-advanced",)
_FLUX_INPUTS = (
    *("prompt", "negative_prompt", "width", "height", "guidance_scale", "steps", "batch_size"),
    *("denoise", "image", "lora_settings", "control_net_settings", "custom_settings"),
)
_UP_TO_FOUR_IMAGES: Mapping[str, Check] = {"batch_size": number(1, 4)}
_KLING = ("kling", "kling-turbo")
_KLING_INPUTS = (
    *("prompt", "negative_prompt", "cfg_scale", "duration", "aspect_ratio", "camera_control"),
    *("mode", "version", "image_url", "image_tail_url", "elements", "motion_brush", "effect"),
)
_KLING_LIMITS: Mapping[str, Check] = {"prompt": short(2500), "cfg_scale": number(0, 1)}
#: The vendor's own client names the version in place of the model.
HAILUO = (
    "hailuo",
    *("t2v-01", "i2v-01", "s2v-01", "t2v-01-director", "i2v-01-director", "i2v-01-live"),
    *("t2v-02", "i2v-02", "v2.3"),
)
_VIDEO_INPUTS = (
    *("prompt", "negative_prompt", "aspect_ratio", "image", "guidance_scale", "steps"),
    "lora_settings",
)
_SWAP_INPUTS = ("target_image", "swap_image", "swap_faces_index", "target_faces_index")
_IMAGES = ("Qubico/image-toolkit",)
_VIDEOS = ("Qubico/video-toolkit",)
_TRELLIS = ("Qubico/trellis", "Qubico/trellis2")

SYSTEMS: tuple[System, ...] = (
    System(
        models=_FLUX,
        task_types=("txt2img",),
        required=("prompt",),
        inputs=_FLUX_INPUTS,
        output="flux",
        limits=_UP_TO_FOUR_IMAGES,
    ),
    System(
        models=_FLUX,
        task_types=("img2img",),
        required=("prompt", "image"),
        inputs=_FLUX_INPUTS,
        output="flux",
        limits=_UP_TO_FOUR_IMAGES,
    ),
    System(
        models=_FLUX_ADVANCED,
        task_types=("txt2img-lora", "controlnet-lora"),
        required=("prompt",),
        inputs=_FLUX_INPUTS,
        output="flux",
    ),
    System(
        models=_FLUX_ADVANCED,
        task_types=("img2img-lora", "fill-inpaint", "fill-outpaint", "kontext"),
        required=("prompt", "image"),
        inputs=_FLUX_INPUTS,
        output="flux",
    ),
    System(
        models=_FLUX_ADVANCED,
        task_types=("redux-variation",),
        required=("image",),
        inputs=_FLUX_INPUTS,
        output="flux",
    ),
    System(
        models=("music-u",),
        task_types=("generate_music",),
        inputs=(
            *(
                "gpt_description_prompt",
                "prompt",
                "title",
                "lyrics",
                "lyrics_type",
                "negative_tags",
                "seed",
            ),
            *("continue_song_id", "continue_at"),
        ),
        output="songs",
        makes="audio",
    ),
    System(
        models=("music-u",),
        task_types=("generate_lyrics",),
        inputs=("gpt_description_prompt", "prompt"),
        output="lyrics",
        makes="audio",
    ),
    System(
        models=_KLING,
        task_types=("video_generation",),
        required=("prompt|image_url",),
        inputs=_KLING_INPUTS,
        output="kling",
        makes="video",
        limits=_KLING_LIMITS,
    ),
    System(
        models=_KLING,
        task_types=("extend_video",),
        required=("origin_task_id",),
        inputs=("prompt",),
        output="kling",
        makes="video",
        limits=_KLING_LIMITS,
        derives=True,
    ),
    System(
        models=_KLING,
        task_types=("lip_sync",),
        required=("origin_task_id|video_url",),
        inputs=("tts_text", "tts_speed", "tts_timbre", "local_dubbing_url", "video_url"),
        output="kling",
        makes="video",
        derives=True,
    ),
    System(
        models=_KLING,
        task_types=("sound",),
        required=("prompt|origin_task_id|video_url",),
        inputs=("prompt", "video_url"),
        output="kling",
        makes="video",
        limits=_KLING_LIMITS,
        derives=True,
    ),
    System(
        models=_KLING,
        task_types=("effects",),
        required=("effect",),
        inputs=("effect", "image_url"),
        output="kling",
        makes="video",
    ),
    System(
        models=_KLING,
        task_types=("ai_try_on",),
        required=("model_input", "dress_input|upper_input|lower_input"),
        inputs=("model_input", "dress_input", "upper_input", "lower_input", "batch_size"),
        output="try_on",
        limits=_UP_TO_FOUR_IMAGES,
    ),
    System(
        models=_KLING,
        task_types=("avatar", "motion_control"),
        inputs=(*_KLING_INPUTS, "local_dubbing_url", "video_url"),
        output="kling",
        makes="video",
        limits=_KLING_LIMITS,
    ),
    System(
        models=_KLING,
        task_types=("omni_video_generation",),
        inputs=_KLING_INPUTS,
        output="video",
        makes="video",
        limits=_KLING_LIMITS,
    ),
    System(
        models=HAILUO,
        task_types=("video_generation",),
        required=("prompt|image_url",),
        inputs=("model", "prompt", "image_url", "expand_prompt", "duration", "resolution"),
        output="hailuo",
        makes="video",
    ),
    System(
        models=("luma",),
        task_types=("video_generation", "extend_video"),
        required=("prompt|key_frames",),
        inputs=("prompt", "expand_prompt", "aspect_ratio", "loop", "key_frames", "model_name"),
        output="luma",
        makes="video",
    ),
    System(
        models=("Qubico/hug-video",),
        task_types=("image_to_video",),
        required=("image_url",),
        inputs=("image_url",),
        output="video_url",
        makes="video",
    ),
    System(
        models=_IMAGES,
        task_types=("face-swap", "multi-face-swap"),
        required=("target_image", "swap_image"),
        inputs=_SWAP_INPUTS,
        output="image",
    ),
    System(
        models=_VIDEOS,
        task_types=("face-swap",),
        required=("target_video", "swap_image"),
        inputs=("target_video", "swap_image", "swap_faces_index", "target_faces_index"),
        output="video_url",
        makes="video",
    ),
    System(
        models=("Qubico/tts",),
        task_types=("zero-shot",),
        required=("gen_text", "ref_audio"),
        inputs=("gen_text", "ref_audio", "ref_text"),
        output="audio",
        makes="audio",
        limits={"gen_text": short(10_000)},
    ),
    System(
        models=_TRELLIS,
        task_types=("image-to-3d",),
        required=("image|images",),
        inputs=("image",),
        output="model",
        makes="model",
    ),
    System(
        models=_TRELLIS,
        task_types=("text-to-3d",),
        required=("prompt",),
        inputs=("prompt",),
        output="model",
        makes="model",
    ),
    System(
        models=("Qubico/wanx",),
        task_types=("txt2video-*", "wan22-txt2video-*"),
        required=("prompt",),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    # From pictures a prompt may be left out.
    System(
        models=("Qubico/wanx",),
        task_types=("img2video-*", "wan22-*"),
        required=("prompt|image|start_image|first_frame",),
        inputs=(*_VIDEO_INPUTS, "start_image", "end_image", "first_frame", "last_frame"),
        output="video_url",
        makes="video",
    ),
    System(
        models=("Wan",),
        task_types=("wan26-txt2video",),
        required=("prompt",),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    System(
        models=("Wan",),
        task_types=("wan26-img2video",),
        required=("prompt|image",),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    System(
        models=("Qubico/skyreels",),
        task_types=("img2video",),
        required=("prompt", "image"),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    System(
        models=("Qubico/framepack",),
        task_types=("img2video",),
        required=("prompt", "image|start_image"),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    System(
        models=("Qubico/hunyuan",),
        task_types=("txt2video", "fast-txt2video", "txt2video-lora", "img2video-*"),
        required=("prompt",),
        inputs=_VIDEO_INPUTS,
        output="video_url",
        makes="video",
    ),
    System(
        models=("Qubico/mmaudio",),
        task_types=("video2audio",),
        required=("video",),
        inputs=("prompt", "video", "steps", "seed", "negative_prompt"),
        output="audio",
        makes="audio",
    ),
    System(
        models=("Qubico/diffrhythm",),
        task_types=("txt2audio-*",),
        inputs=("lyrics", "style_prompt", "style_audio"),
        output="audio",
        makes="audio",
    ),
    System(
        models=_IMAGES,
        task_types=("upscale",),
        required=("image",),
        inputs=("image", "scale", "face_enhance"),
        output="image",
    ),
    System(
        models=_IMAGES,
        task_types=("background-remove",),
        required=("image",),
        inputs=("image",),
        output="image",
    ),
    System(
        models=_IMAGES,
        task_types=("segment",),
        required=("image", "prompt"),
        inputs=("image", "prompt", "segment_factor"),
        output="image",
    ),
    System(
        models=_VIDEOS,
        task_types=("upscale", "background-remove"),
        required=("video",),
        inputs=("video",),
        output="video_url",
        makes="video",
    ),
    # The newer ones take whatever is sent, under whatever task type: new ones appear by the month.
    System(
        models=("gemini", "seedream", "Qubico/qwen-image", "Qubico/z-image"),
        task_types=("*",),
        output="images",
    ),
    System(
        models=("sora2", "veo3", "veo3.1", "seedance", "omni-human"),
        task_types=("*",),
        output="video",
        makes="video",
    ),
    System(
        models=("Qubico/ace-step", "byteaudio"),
        task_types=("*",),
        output="audio",
        makes="audio",
    ),
    System(
        models=("Qubico/pixal3d",),
        task_types=("*",),
        output="mesh",
        makes="model",
    ),
    System(
        models=("Qubico/joycaption",),
        task_types=("*",),
        output="text",
    ),
)

#: The task of the unified protocol that each older protocol makes.
OLDER_TASKS: Mapping[Protocol, tuple[str, str]] = {
    Protocol.FACE_SWAP: ("Qubico/image-toolkit", "face-swap"),
    Protocol.LUMA: ("luma", "video_generation"),
    Protocol.KLING: ("kling", "video_generation"),
}

#: Models that the vendor stopped, and what it calls them.
STOPPED: Mapping[str, str] = {"music-s": "Suno"}


def find_system(model: str, task_type: str) -> System | None:
    """Return the row of a task, None for Midjourney's and for unknown ones."""
    return next((system for system in SYSTEMS if system.serves(model, task_type)), None)


def known_models() -> Iterator[str]:
    """Yield every model once, Midjourney first."""
    yield from dict.fromkeys((MIDJOURNEY, *(model for system in SYSTEMS for model in system.models)))


MODELS = frozenset(known_models())
