"""Hunyuan: videos (piapi.ai/docs/hunyuan-video, hunyuan-api-doc)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from attrs import frozen

from .._protocol.fields import items, link, open_choice, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@frozen(kw_only=True)
class Lora:
    """A style, by the vendor's name of it (piapi.ai/docs/hunyuan-lora-type)."""

    lora_type: str
    lora_strength: float | None = None


@request
class _Video(ModelRequest[VideoOutput]):
    _model = "Qubico/hunyuan"
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    steps: int | None = whole(0, default=None)


@request
class TextToVideo(_Video):
    """Make a video from a prompt."""

    task_type: str = open_choice("txt2video", "fast-txt2video", names=True, default="txt2video")


@request
class TextToVideoWithLora(_Video):
    """Make a video from a prompt, in a style."""

    _task_type = "txt2video-lora"
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)


@request
class ImageToVideo(_Video):
    """Make a video from a picture: "replace" keeps closer to it, "concat" moves more."""

    image: str | PurePath = link()
    task_type: str = open_choice(
        "img2video-concat",
        "img2video-replace",
        names=True,
        default="img2video-concat",
    )
