"""WanX and Wan: videos (piapi.ai/docs/wanx-api, wanx_lora, wan-api)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from attrs import frozen

from .._protocol.fields import flag, items, link, open_choice, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@frozen(kw_only=True)
class Lora:
    """A style, by the vendor's name of it (piapi.ai/docs/wanx-lora-type)."""

    lora_type: str
    lora_strength: float | None = None


@frozen(kw_only=True)
class CameraMove:
    """One movement of the camera, such as "zoom_in"."""

    motion_type: str
    motion_speed: float | None = None


@request
class _Video(ModelRequest[VideoOutput]):
    _model = "Qubico/wanx"
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)


@request
class _VideoOfPictures(ModelRequest[VideoOutput]):
    """What can do without a prompt (a client's; the vendor's page asks for one)."""

    _model = "Qubico/wanx"
    prompt: str | None = text(default=None, kw_only=False)
    negative_prompt: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)


@request
class TextToVideo(_Video):
    """Make a video from a prompt."""

    task_type: str = open_choice(
        "txt2video-1.3b", "txt2video-14b", "wan22-txt2video-14b", names=True, default="txt2video-1.3b"
    )


@request
class TextToVideoWithLora(_Video):
    """Make a video from a prompt, in a style."""

    _task_type = "txt2video-14b-lora"
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)


@request
class ImageToVideo(_VideoOfPictures):
    """Make a video from a picture."""

    image: str | PurePath = link(base64=True)
    task_type: str = open_choice("img2video-14b", "wan22-img2video-14b", names=True, default="img2video-14b")


@request
class ImageToVideoWithLora(_Video):
    """Make a video from a picture, in a style."""

    _task_type = "img2video-14b-lora"
    image: str | PurePath = link(base64=True)
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)


@request
class KeyFrames(_VideoOfPictures):
    """Make a video between two pictures; the vendor's pages had one pair of names, then the other.

    One of them lists `image`, too.
    """

    _task_type = "img2video-14b-keyframe"
    _needs = (("first_frame", "start_image"), ("last_frame", "end_image"))
    first_frame: str | PurePath | None = link(base64=True, default=None)
    last_frame: str | PurePath | None = link(base64=True, default=None)
    start_image: str | PurePath | None = link(base64=True, default=None)
    end_image: str | PurePath | None = link(base64=True, default=None)
    image: str | PurePath | None = link(base64=True, default=None)


@request
class CameraControl(_VideoOfPictures):
    """Make a video from a picture, in which the camera moves."""

    _task_type = "img2video-14b-control-camera"
    image: str | PurePath = link(base64=True)
    control_camera_settings: Sequence[CameraMove | Mapping[str, Any]] | None = items(CameraMove, default=None)


@request
class _Wan26(_Video):
    _model = "Wan"
    resolution: str | None = text(default=None)
    duration: int | None = whole(1, default=None)
    audio: bool | None = flag(default=None)
    audio_url: str | PurePath | None = link(default=None)
    watermark: bool | None = flag(default=None)
    prompt_extend: bool | None = flag(default=None)
    shot_type: str | None = open_choice("single", "multi", default=None)


@request
class TextToVideo26(_Wan26):
    """Make a video from a prompt with Wan 2.6; `duration` in seconds, `resolution` as "720P"."""

    _task_type = "wan26-txt2video"


@request
class ImageToVideo26(_Wan26):
    """Make a video from a picture with Wan 2.6; `duration` in seconds, `resolution` as "720P"."""

    _task_type = "wan26-img2video"
    image: str | PurePath = link(base64=True)
