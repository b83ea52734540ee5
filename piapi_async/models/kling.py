"""Kling: videos, lip sync, effects, sound, clothes (piapi.ai/docs/kling-api).

Which inputs go together depends on `version` (1.0, 1.5, 1.6, 2.0, 2.1, 2.1-master, 2.5, 2.6, 3.0,
o1 so far): elements on 1.6, sound and several shots on 3.0 (clients say so).  A `mode` is "std" or
"pro"; one client says "turbo" on 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from attrs import field, frozen

from .._protocol.checks import Converted
from .._protocol.fields import (
    choice,
    flag,
    item,
    items,
    link,
    links,
    number,
    open_choice,
    parent,
    ratio,
    text,
    whole,
)
from ..tasks import TaskLike
from ..unified import ModelRequest, request


@frozen
class Resource:
    """A file of a work, with and without the watermark; `duration` in milliseconds."""

    resource: str = ""
    resource_without_watermark: str = ""
    width: int | None = None
    height: int | None = None
    duration: float | None = None


@frozen
class Work:
    """One of the works of a task."""

    content_type: str = ""
    type: str = ""
    video: Resource = field(factory=Resource)
    image: Resource = field(factory=Resource)
    audio: Resource = field(factory=Resource)
    cover: Resource = field(factory=Resource)


@frozen
class KlingOutput:
    """The works of a task; `video_url` (newer versions: `video`) is the video without the watermark."""

    type: str = ""
    status: int | None = None
    video_url: str = ""
    video: str = ""
    works: tuple[Work, ...] = ()


@frozen(kw_only=True)
class CameraMove:
    """How far the camera moves along each axis, from -10 to 10."""

    horizontal: float | None = None
    vertical: float | None = None
    pan: float | None = None
    tilt: float | None = None
    roll: float | None = None
    zoom: float | None = None


@frozen(kw_only=True)
class CameraControl:
    """How the camera moves: `type` "simple" takes a `config`."""

    type: str
    config: CameraMove | Mapping[str, Any] | None = None


@frozen(kw_only=True)
class Element:
    """A picture of something that the video is to show."""

    image_url: str | PurePath


@frozen(kw_only=True)
class MotionBrush:
    """What of a picture moves, and along which points."""

    mask_url: str | PurePath | None = None
    static_masks: Sequence[Mapping[str, Any]] | None = None
    dynamic_masks: Sequence[Mapping[str, Any]] | None = None


@frozen(kw_only=True)
class Shot:
    """One shot of several; `duration` in seconds."""

    prompt: str
    duration: int | None = None


@request
class Video(ModelRequest[KlingOutput]):
    """Make a video from a prompt, from a picture (and a last one), or from elements.

    `duration` is in seconds.  `start_image_url` and `end_image_url` are what model kling-turbo has
    for `image_url` and `image_tail_url`.
    """

    _task_type = "video_generation"
    _needs = (("prompt", "image_url", "start_image_url", "elements", "multi_shots"),)
    prompt: str | None = text(most=2500, default=None, kw_only=False)
    model: Literal["kling", "kling-turbo"] = choice("kling", "kling-turbo", names=True, default="kling")
    negative_prompt: str | None = text(most=2500, default=None)
    cfg_scale: float | None = number(0, 1, default=None)
    duration: int | None = whole(3, 15, default=None)
    aspect_ratio: str | None = ratio(default=None)
    mode: str | None = open_choice("std", "pro", default=None)
    version: str | None = text(default=None)
    image_url: str | PurePath | None = link(default=None)
    image_tail_url: str | PurePath | None = link(default=None)
    start_image_url: str | PurePath | None = link(default=None)
    end_image_url: str | PurePath | None = link(default=None)
    elements: Sequence[Element | Mapping[str, Any]] | None = items(Element, default=None)
    camera_control: CameraControl | Mapping[str, Any] | None = item(CameraControl, default=None)
    motion_brush: MotionBrush | Mapping[str, Any] | None = item(MotionBrush, default=None)
    enable_audio: bool | None = flag(default=None)
    prefer_multi_shots: bool | None = flag(default=None)
    multi_shots: Sequence[Shot | Mapping[str, Any]] | None = items(Shot, default=None)


@request
class OmniVideo(ModelRequest[KlingOutput]):
    """Make a video from a prompt that names pictures and a video: "@image_1", "@video".

    `duration` is in seconds.
    """

    _model = "kling"
    _task_type = "omni_video_generation"
    _needs = (("prompt", "multi_shots"),)
    prompt: str | None = text(most=2500, default=None, kw_only=False)
    version: str | None = text(default=None)
    resolution: str | None = text(default=None)
    duration: int | None = whole(3, 15, default=None)
    aspect_ratio: str | None = ratio(default=None)
    images: Sequence[str | PurePath] | None = links(default=None)
    video: str | PurePath | None = link(default=None)
    keep_original_audio: bool | None = flag(default=None)
    enable_audio: bool | None = flag(default=None)
    multi_shots: Sequence[Shot | Mapping[str, Any]] | None = items(Shot, default=None)


@request
class ExtendVideo(ModelRequest[KlingOutput]):
    """Make a finished task's video longer."""

    _model = "kling"
    _task_type = "extend_video"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    prompt: str | None = text(most=2500, default=None)


@request
class LipSync(ModelRequest[KlingOutput]):
    """Let the people of a video say some words, or what is heard in a file; `tts_speed` 0.8 to 2."""

    _model = "kling"
    _task_type = "lip_sync"
    _needs = (("origin_task_id", "video_url"), ("tts_text", "local_dubbing_url"))
    origin_task_id: Converted[TaskLike | None, str | None] = parent(default=None, kw_only=False)
    video_url: str | PurePath | None = link(default=None)
    tts_text: str | None = text(default=None)
    tts_timbre: str | None = text(default=None)
    tts_speed: float | None = number(0, default=None)
    local_dubbing_url: str | PurePath | None = link(default=None)


@request
class Effects(ModelRequest[KlingOutput]):
    """Apply an effect to the people of a picture.

    Known are squish, expansion, kissing, hugging and fighting.
    """

    _model = "kling"
    _task_type = "effects"
    image_url: str | PurePath = link(kw_only=False)
    effect: str = text()
    prompt: str | None = text(most=2500, default=None)
    professional_mode: bool | None = flag(default=None)


@request
class TryOn(ModelRequest[KlingOutput]):
    """Dress a person: in a dress, or in an upper and a lower part."""

    _model = "kling"
    _task_type = "ai_try_on"
    _needs = (("dress_input", "upper_input", "lower_input"),)
    model_input: str | PurePath = link(kw_only=False)
    dress_input: str | PurePath | None = link(default=None)
    upper_input: str | PurePath | None = link(default=None)
    lower_input: str | PurePath | None = link(default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class Sound(ModelRequest[KlingOutput]):
    """Make sounds from a prompt, or for a video; `duration` in seconds."""

    _model = "kling"
    _task_type = "sound"
    _needs = (("prompt", "origin_task_id", "video_url"),)
    prompt: str | None = text(default=None, kw_only=False)
    duration: int | None = whole(1, default=None)
    origin_task_id: Converted[TaskLike | None, str | None] = parent(default=None)
    video_url: str | PurePath | None = link(default=None)


@request
class Avatar(ModelRequest[KlingOutput]):
    """Let the person of a picture say what is heard in a file."""

    _model = "kling"
    _task_type = "avatar"
    image_url: str | PurePath = link(kw_only=False)
    local_dubbing_url: str | PurePath = link()
    prompt: str | None = text(most=2500, default=None)
    mode: str | None = open_choice("std", "pro", default=None)
    batch_size: int | None = whole(1, default=None)


@request
class MotionControl(ModelRequest[KlingOutput]):
    """Let the person of a picture move as in a video, or as in a preset.

    Known presets are Cute Baby Dance, Nezha, Heart Gesture Dance, Motorcycle Dance, Subject 3
    Dance, Ghost Step Dance, Martial Arts, Running and Poping.
    """

    _model = "kling"
    _task_type = "motion_control"
    _needs = (("video_url", "preset_motion"),)
    image_url: str | PurePath = link(kw_only=False)
    video_url: str | PurePath | None = link(default=None)
    preset_motion: str | None = text(default=None)
    prompt: str | None = text(most=2500, default=None)
    motion_direction: str | None = text(default=None)
    keep_original_sound: bool | None = flag(default=None)
    mode: str | None = open_choice("std", "pro", default=None)
    version: str | None = text(default=None)
