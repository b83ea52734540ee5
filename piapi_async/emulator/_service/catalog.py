"""The systems behind the unified protocol as data: models, task types, inputs, and what comes out.  Pure.

Midjourney is not in the table: its ten verbs are the legacy ones (`_verbs.VERBS`), with the same machine behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

from attrs import evolve, field, frozen

from .checks import (
    Check,
    endpoint,
    flag,
    items,
    number,
    ratio,
    remembered,
    scalar,
    short,
    source,
    string,
    table,
    text,
    whole,
)
from .requests import MIDJOURNEY, WEBHOOK_FIELDS, Ask, Door, Kind, Refused
from .verbs import VERBS, asked


@frozen
class System:
    """One row: which tasks of which models, what they need and take, and which output they end in.

    A task type may be a pattern ("wan22-*").  `required`: names, "a|b" = one of them.  `known` inputs are checked, all
    others pass as they are: the vendor adds inputs faster than anyone writes tables.  `pace`: what its durations are
    called by, and what it makes.  `derives`: its `origin_task_id` must be a finished task.
    """

    models: tuple[str, ...]
    task_types: tuple[str, ...]
    output: str
    required: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    pace: str = "image"
    limits: Mapping[str, Check] = field(factory=dict)
    derives: bool = False

    def does(self, model: str, task_type: str) -> bool:
        """Say whether this row speaks of that task."""
        return model in self.models and any(fnmatchcase(task_type, pattern) for pattern in self.task_types)


_FLUX = ("Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced")
_FLUX_INPUTS = (
    *("prompt", "negative_prompt", "width", "height", "guidance_scale", "steps", "batch_size", "denoise", "image"),
    *("lora_settings", "control_net_settings", "custom_settings"),
)
_KLING = ("kling", "kling-turbo")
_KLING_INPUTS = (
    *("prompt", "negative_prompt", "cfg_scale", "duration", "aspect_ratio", "camera_control", "mode", "version"),
    *("image_url", "image_tail_url", "elements", "motion_brush", "effect"),
)
#: The vendor's own client names the version in place of the model.
HAILUO = (
    "hailuo",
    *("t2v-01", "i2v-01", "s2v-01", "t2v-01-director", "i2v-01-director", "i2v-01-live", "t2v-02", "i2v-02", "v2.3"),
)
#: Models that the vendor had, and what it calls them.
_STOPPED: Mapping[str, str] = {"music-s": "Suno"}
_KLING_LIMITS: Mapping[str, Check] = {"prompt": short(2500), "cfg_scale": number(0, 1)}
_VIDEO_INPUTS = ("prompt", "negative_prompt", "aspect_ratio", "image", "guidance_scale", "steps", "lora_settings")
_SWAP_INPUTS = ("target_image", "swap_image", "swap_faces_index", "target_faces_index")
_IMAGES, _VIDEOS = ("Qubico/image-toolkit",), ("Qubico/video-toolkit",)

SYSTEMS: tuple[System, ...] = (
    System(_FLUX, ("txt2img",), "flux", ("prompt",), _FLUX_INPUTS, limits={"batch_size": number(1, 4)}),
    System(_FLUX, ("img2img",), "flux", ("prompt", "image"), _FLUX_INPUTS, limits={"batch_size": number(1, 4)}),
    System(_FLUX[2:], ("txt2img-lora", "controlnet-lora"), "flux", ("prompt",), _FLUX_INPUTS),
    System(
        _FLUX[2:],
        ("img2img-lora", "fill-inpaint", "fill-outpaint", "kontext"),
        "flux",
        ("prompt", "image"),
        _FLUX_INPUTS,
    ),
    System(_FLUX[2:], ("redux-variation",), "flux", ("image",), _FLUX_INPUTS),
    System(
        ("music-u",),
        ("generate_music",),
        "songs",
        (),
        (
            *("gpt_description_prompt", "prompt", "title", "lyrics", "lyrics_type", "negative_tags", "seed"),
            *("continue_song_id", "continue_at"),
        ),
        "audio",
    ),
    System(("music-u",), ("generate_lyrics",), "lyrics", (), ("gpt_description_prompt", "prompt"), "audio"),
    System(_KLING, ("video_generation",), "kling", ("prompt|image_url",), _KLING_INPUTS, "video", _KLING_LIMITS),
    System(_KLING, ("extend_video",), "kling", ("origin_task_id",), ("prompt",), "video", _KLING_LIMITS, derives=True),
    System(
        _KLING,
        ("lip_sync",),
        "kling",
        ("origin_task_id|video_url",),
        ("tts_text", "tts_speed", "tts_timbre", "local_dubbing_url", "video_url"),
        "video",
        derives=True,
    ),
    System(
        _KLING,
        ("sound",),
        "kling",
        ("prompt|origin_task_id|video_url",),
        ("prompt", "video_url"),
        "video",
        _KLING_LIMITS,
        derives=True,
    ),
    System(_KLING, ("effects",), "kling", ("effect",), ("effect", "image_url"), "video"),
    System(
        _KLING,
        ("ai_try_on",),
        "try_on",
        ("model_input", "dress_input|upper_input|lower_input"),
        ("model_input", "dress_input", "upper_input", "lower_input", "batch_size"),
        limits={"batch_size": number(1, 4)},
    ),
    System(
        _KLING,
        ("avatar", "motion_control"),
        "kling",
        (),
        (*_KLING_INPUTS, "local_dubbing_url", "video_url"),
        "video",
        _KLING_LIMITS,
    ),
    System(_KLING, ("omni_video_generation",), "video", (), _KLING_INPUTS, "video", _KLING_LIMITS),
    System(
        HAILUO,
        ("video_generation",),
        "hailuo",
        ("prompt|image_url",),
        ("model", "prompt", "image_url", "expand_prompt", "duration", "resolution"),
        "video",
    ),
    System(
        ("luma",),
        ("video_generation", "extend_video"),
        "luma",
        ("prompt|key_frames",),
        ("prompt", "expand_prompt", "aspect_ratio", "loop", "key_frames", "model_name"),
        "video",
    ),
    System(("Qubico/hug-video",), ("image_to_video",), "video_url", ("image_url",), ("image_url",), "video"),
    System(_IMAGES, ("face-swap", "multi-face-swap"), "image", ("target_image", "swap_image"), _SWAP_INPUTS),
    System(
        _VIDEOS,
        ("face-swap",),
        "video_url",
        ("target_video", "swap_image"),
        ("target_video", "swap_image", "swap_faces_index", "target_faces_index"),
        "video",
    ),
    System(
        ("Qubico/tts",),
        ("zero-shot",),
        "audio",
        ("gen_text", "ref_audio"),
        ("gen_text", "ref_audio", "ref_text"),
        "audio",
        {"gen_text": short(10_000)},
    ),
    System(("Qubico/trellis", "Qubico/trellis2"), ("image-to-3d",), "model", ("image|images",), ("image",), "model"),
    System(("Qubico/trellis", "Qubico/trellis2"), ("text-to-3d",), "model", ("prompt",), ("prompt",), "model"),
    System(
        ("Qubico/wanx",),
        ("txt2video-*", "wan22-txt2video-*"),
        "video_url",
        ("prompt",),
        _VIDEO_INPUTS,
        "video",
    ),
    # From pictures a prompt may be left out.
    System(
        ("Qubico/wanx",),
        ("img2video-*", "wan22-*"),
        "video_url",
        ("prompt|image|start_image|first_frame",),
        (*_VIDEO_INPUTS, "start_image", "end_image", "first_frame", "last_frame"),
        "video",
    ),
    System(("Wan",), ("wan26-txt2video",), "video_url", ("prompt",), _VIDEO_INPUTS, "video"),
    System(("Wan",), ("wan26-img2video",), "video_url", ("prompt|image",), _VIDEO_INPUTS, "video"),
    System(("Qubico/skyreels",), ("img2video",), "video_url", ("prompt", "image"), _VIDEO_INPUTS, "video"),
    System(("Qubico/framepack",), ("img2video",), "video_url", ("prompt", "image|start_image"), _VIDEO_INPUTS, "video"),
    System(
        ("Qubico/hunyuan",),
        ("txt2video", "fast-txt2video", "txt2video-lora", "img2video-*"),
        "video_url",
        ("prompt",),
        _VIDEO_INPUTS,
        "video",
    ),
    System(
        ("Qubico/mmaudio",),
        ("video2audio",),
        "audio",
        ("video",),
        ("prompt", "video", "steps", "seed", "negative_prompt"),
        "audio",
    ),
    System(
        ("Qubico/diffrhythm",),
        ("txt2audio-*",),
        "audio",
        (),
        ("lyrics", "style_prompt", "style_audio"),
        "audio",
    ),
    System(_IMAGES, ("upscale",), "image", ("image",), ("image", "scale", "face_enhance")),
    System(_IMAGES, ("background-remove",), "image", ("image",), ("image",)),
    System(_IMAGES, ("segment",), "image", ("image", "prompt"), ("image", "prompt", "segment_factor")),
    System(_VIDEOS, ("upscale", "background-remove"), "video_url", ("video",), ("video",), "video"),
    # The newer ones take whatever is sent, under whatever task type: new ones appear by the month.
    System(("gemini", "seedream", "Qubico/qwen-image", "Qubico/z-image"), ("*",), "images"),
    System(("sora2", "veo3", "veo3.1", "seedance", "omni-human"), ("*",), "video", pace="video"),
    System(("Qubico/ace-step", "byteaudio"), ("*",), "audio", pace="audio"),
    System(("Qubico/pixal3d",), ("*",), "mesh", pace="model"),
    System(("Qubico/joycaption",), ("*",), "text"),
)

#: Of an input of that name, in whichever system.  A type is checked, for the vendor refuses another; a range or a word
#: only where it is documented and nothing else was ever seen.
CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(("prompt", "gpt_description_prompt", "style_prompt", "gen_text", "lyrics", "effect"), text),
    **dict.fromkeys(("image", "target_image", "swap_image", "model_input", "dress_input", "upper_input"), source),
    **dict.fromkeys(("image_url", "image_tail_url", "video", "video_url", "target_video", "ref_audio"), source),
    **dict.fromkeys(("local_dubbing_url", "first_frame", "last_frame", "style_audio", "lower_input"), source),
    **dict.fromkeys(("start_image", "end_image"), source),
    **dict.fromkeys(("tts_text", "tts_timbre", "ref_text", "origin_task_id"), text),
    **dict.fromkeys(("negative_prompt", "negative_tags", "model", "model_name", "continue_song_id", "title"), string),
    # Words that the vendor adds to as systems grow: "turbo" as a mode, "auto" as a ratio.
    **dict.fromkeys(("mode", "lyrics_type", "aspect_ratio"), string),
    **dict.fromkeys(("version", "resolution"), scalar),
    **dict.fromkeys(("lora_settings", "control_net_settings", "custom_settings", "elements"), items),
    **dict.fromkeys(("key_frames", "camera_control", "motion_brush"), table),
    **dict.fromkeys(("expand_prompt", "loop", "face_enhance"), flag),
    **dict.fromkeys(("steps", "seed", "batch_size"), whole),
    **dict.fromkeys(("width", "height"), number(1, 100_000)),
    **dict.fromkeys(("guidance_scale", "tts_speed", "segment_factor", "continue_at"), number(-10_000, 10_000)),
    "duration": number(-1, 10_000),  # -1: as long as the source
    "denoise": number(0, 1),
    "scale": number(2, 10),
}


def find_system(model: str, task_type: str) -> System | None:
    """Return the row of a task, None for Midjourney's and for unknown ones."""
    return next((system for system in SYSTEMS if system.does(model, task_type)), None)


def known_models() -> Iterator[str]:
    """Give every model, each once."""
    yield from dict.fromkeys((MIDJOURNEY, *(model for system in SYSTEMS for model in system.models)))


_MODELS = frozenset(known_models())


def asked_unified(body: Mapping[str, object], route: str) -> Ask:
    """Return what a create of the unified protocol asks for; `Refused` says why it cannot be had."""
    model, task_type, given = body.get("model"), body.get("task_type"), body.get("input")
    if isinstance(model, str) and model in _STOPPED:
        raise Refused(f"{_STOPPED[model]} is no longer served: the vendor stopped {model}, and no host takes its tasks")
    if not isinstance(model, str) or model not in _MODELS:
        raise Refused(f"invalid model: {str(model)[:100]!r}" if isinstance(model, str) else "model is required")
    if not isinstance(task_type, str) or not task_type:
        raise Refused("task_type is required")
    if not isinstance(given, dict):
        raise Refused("input is required and must be an object")
    hook, service_mode = _config(body.get("config"))
    if model == MIDJOURNEY:
        if task_type not in VERBS:
            raise Refused(f"invalid task_type for {model}: {task_type!r}")
        ask = asked(task_type, {**_without_hooks(given), **hook}, door=Door.UNIFIED, route=route)
        return evolve(ask, service_mode=service_mode)
    return ask_of(model, task_type, given, hook, door=Door.UNIFIED, route=route, service_mode=service_mode)


def ask_of(
    model: str,
    task_type: str,
    given: Mapping[str, object],
    hook: Mapping[str, object],
    *,
    door: Door,
    route: str,
    service_mode: str = "",
) -> Ask:
    """Return what is asked of any system but Midjourney, the inputs checked."""
    system = find_system(model, task_type)
    if system is None:
        raise Refused(f"invalid task_type for {model}: {task_type!r}")
    check_given(system, given)
    origin = system.derives and given.get("origin_task_id")
    return Ask(
        name=task_type,
        route=route,
        door=door,
        model=model,
        makes=Kind.FILES,
        given={**_without_hooks(given), **hook},
        parent=Kind.FILES if origin else "",
        prompt=_prompt(given),
        mode=system.pace,
        aspect_ratio=_aspect_ratio(given),
        service_mode=service_mode,
    )


def check_given(system: System, given: Mapping[str, object], *, kept: bool = False) -> None:
    """Refuse what is missing or makes no sense; "" and null mean unset, as in the vendor's own examples.

    `kept`: the inputs are those of a task that is remembered, its long values as digests.
    """
    there = {name: value for name, value in given.items() if value not in (None, "")}
    for names in system.required:
        if not any(name in there for name in names.split("|")):
            raise Refused(f"{' or '.join(names.split('|'))} is required")
    for name in (*system.known, *_words(system.required)):
        check = system.limits.get(name, CHECKS.get(name))
        if check is None or name not in there:
            continue
        if problem := (remembered(check) if kept else check)(there[name]):
            raise Refused(f"invalid {name}: {problem}")


def _words(required: tuple[str, ...]) -> Iterator[str]:
    for names in required:
        yield from names.split("|")


def _config(config: object) -> tuple[dict[str, object], str]:
    """Return the webhook as fields of a task, and the service mode."""
    if config is None:
        return {}, ""
    if not isinstance(config, dict) or not isinstance(config.get("webhook_config") or {}, dict):
        raise Refused("invalid config: must be an object")
    service_mode = config.get("service_mode") or ""
    if not isinstance(service_mode, str):
        raise Refused("invalid service_mode: must be a string")
    return hook_of(config.get("webhook_config") or {}), str(service_mode)


def hook_of(webhook_config: Mapping[str, object]) -> dict[str, object]:
    """Return the fields a task knows its webhook by."""
    hook: dict[str, object] = {}
    for name, check in (("endpoint", endpoint), ("secret", text)):
        value = webhook_config.get(name)
        if value in (None, ""):
            continue
        if problem := check(value):
            raise Refused(f"invalid webhook {name}: {problem}")
        hook[f"webhook_{name}"] = value
    return hook


def _without_hooks(given: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in given.items() if name not in WEBHOOK_FIELDS}


def _prompt(given: Mapping[str, object]) -> str:
    for name in ("prompt", "gpt_description_prompt", "style_prompt", "gen_text", "lyrics"):
        if isinstance(value := given.get(name), str) and value.strip():
            return value
    return ""


def _aspect_ratio(given: Mapping[str, object]) -> str:
    width, height = given.get("width"), given.get("height")
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        return f"{width}:{height}"
    asked_for = given.get("aspect_ratio")
    return str(asked_for) if asked_for and not ratio(asked_for) else ""
