"""Framepack: longer videos from pictures (piapi.ai/docs/framepack-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, number, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class ImageToVideo(ModelRequest[VideoOutput]):
    """Make a video from a picture, and up to another; `duration` in seconds.

    The first picture has two names: clients were seen to send `start_image`.
    """

    _model = "Qubico/framepack"
    _task_type = "img2video"
    _needs = (("image", "start_image"),)
    prompt: str = text(kw_only=False)
    image: str | PurePath | None = link(default=None)
    start_image: str | PurePath | None = link(default=None)
    end_image: str | PurePath | None = link(default=None)
    duration: int | None = whole(1, default=None)
    negative_prompt: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    guidance_scale: float | None = number(0, default=None)
