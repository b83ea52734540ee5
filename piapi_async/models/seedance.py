"""Seedance: videos from words, pictures, videos and sounds (piapi.ai/docs/seedance-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from .._inputs import choice, flag, link, links, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import VideoOutput

_TASK_TYPES = (
    *("seedance-2", "seedance-2-fast", "seedance-2-mini", "seedance-2.5"),
    *("seedance-2-preview", "seedance-2-preview-vip", "seedance-2-fast-preview", "seedance-2-fast-preview-vip"),
)


@request
class Video(ModelRequest[VideoOutput]):
    """Make a video from a prompt that names what is given with it: "@image1"; `duration` in seconds.

    Without a `mode` the host sees it from what is given: one or two pictures are the first and the last frame.
    """

    _model = "seedance"
    prompt: str = text(most=4000, kw_only=False)
    task_type: Literal[
        "seedance-2",
        "seedance-2-fast",
        "seedance-2-mini",
        "seedance-2.5",
        "seedance-2-preview",
        "seedance-2-preview-vip",
        "seedance-2-fast-preview",
        "seedance-2-fast-preview-vip",
    ] = choice(*_TASK_TYPES, names=True, default="seedance-2")
    mode: Literal["text_to_video", "first_last_frames", "omni_reference"] | None = choice(
        "text_to_video", "first_last_frames", "omni_reference", default=None
    )
    duration: int | None = whole(1, 30, default=None)
    resolution: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    audio: bool | None = flag(default=None)
    image_urls: Sequence[str | PurePath] | None = links(1, 9, default=None)
    video_urls: Sequence[str | PurePath] | None = links(1, 3, default=None)
    audio_urls: Sequence[str | PurePath] | None = links(1, 3, default=None)


@request
class RemoveWatermark(ModelRequest[VideoOutput]):
    """Clean a video."""

    _model = "seedance"
    _task_type = "remove-watermark"
    video_url: str | PurePath = link(kw_only=False)
