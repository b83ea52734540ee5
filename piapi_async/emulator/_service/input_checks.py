"""Which inputs of the unified protocol are checked, and how.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .catalog import System
from .checks import (
    Check,
    flag,
    items,
    number,
    remembered,
    scalar,
    source,
    string,
    table,
    text,
    whole,
)
from .requests import Refusal


def _inputs_by_check(check: Check, *names: str) -> dict[str, Check]:
    return dict.fromkeys(names, check)


#: Checks of inputs by name, in whichever system.  A type is checked, because the vendor refuses
#: another; a range or a word only where it is documented and nothing else was ever seen.
CHECKS: Mapping[str, Check] = {
    **_inputs_by_check(
        text,
        *("prompt", "gpt_description_prompt", "style_prompt", "gen_text", "lyrics", "effect"),
        *("tts_text", "tts_timbre", "ref_text", "origin_task_id"),
    ),
    **_inputs_by_check(
        source,
        *("image", "target_image", "swap_image", "model_input", "dress_input", "upper_input"),
        *("image_url", "image_tail_url", "video", "video_url", "target_video", "ref_audio"),
        *("local_dubbing_url", "first_frame", "last_frame", "style_audio", "lower_input"),
        *("start_image", "end_image"),
    ),
    **_inputs_by_check(
        string,
        *("negative_prompt", "negative_tags", "model", "model_name", "continue_song_id", "title"),
        # Words that the vendor adds to as systems grow: "turbo" as a mode, "auto" as a ratio.
        *("mode", "lyrics_type", "aspect_ratio"),
    ),
    **_inputs_by_check(scalar, "version", "resolution"),
    **_inputs_by_check(
        items,
        *("lora_settings", "control_net_settings", "custom_settings", "elements"),
    ),
    **_inputs_by_check(table, "key_frames", "camera_control", "motion_brush"),
    **_inputs_by_check(flag, "expand_prompt", "loop", "face_enhance"),
    **_inputs_by_check(whole, "steps", "seed", "batch_size"),
    **_inputs_by_check(number(1, 100_000), "width", "height"),
    **_inputs_by_check(
        number(-10_000, 10_000),
        *("guidance_scale", "tts_speed", "segment_factor", "continue_at"),
    ),
    "duration": number(-1, 10_000),  # -1: as long as the source
    "denoise": number(0, 1),
    "scale": number(2, 10),
}


def check_input(system: System, given: Mapping[str, object], *, from_memory: bool = False) -> None:
    """Raise `Refusal` if a required input is missing or a known one is wrong.

    "" and null mean unset, as in the vendor's own examples.  `from_memory`: the inputs are those of
    a remembered task, whose long values are digests.
    """
    there = {name: value for name, value in given.items() if value not in (None, "")}

    for names in system.required:
        if not any(name in there for name in names.split("|")):
            raise Refusal(f"{' or '.join(names.split('|'))} is required")

    for name in (*system.inputs, *_single_names(system.required)):
        check = system.limits.get(name, CHECKS.get(name))
        if check is None or name not in there:
            continue
        if from_memory:
            check = remembered(check)
        if problem := check(there[name]):
            raise Refusal(f"invalid {name}: {problem}")


def _single_names(required: tuple[str, ...]) -> Iterator[str]:
    for names in required:
        yield from names.split("|")
