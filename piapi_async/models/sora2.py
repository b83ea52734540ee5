"""Sora 2: videos (piapi.ai/docs/sora2-api, sora2-pro-api)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, open_choice, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class Video(ModelRequest[VideoOutput]):
    """Make a video from a prompt or a picture; `duration` in seconds, `resolution` for the pro kind."""

    _model = "sora2"
    prompt: str = text(kw_only=False)
    task_type: str = open_choice("sora2-video", "sora2-pro-video", names=True, default="sora2-video")
    image_url: str | PurePath | None = link(default=None)
    duration: int | None = whole(1, default=None)
    aspect_ratio: str | None = ratio(default=None)
    resolution: str | None = open_choice("720p", "1080p", default=None)


@request
class RemoveWatermark(ModelRequest[VideoOutput]):
    """Clean a video of Sora's."""

    _model = "sora2"
    _task_type = "remove-watermark"
    video_url: str | PurePath = link(kw_only=False)
