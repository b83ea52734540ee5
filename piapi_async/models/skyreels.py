"""Skyreels: videos from pictures (piapi.ai/docs/skyreels-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, number, ratio, text
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class ImageToVideo(ModelRequest[VideoOutput]):
    """Make a video from a picture."""

    _model = "Qubico/skyreels"
    _task_type = "img2video"
    prompt: str = text(kw_only=False)
    image: str | PurePath = link()
    negative_prompt: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    guidance_scale: float | None = number(0, default=None)
