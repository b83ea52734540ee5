"""Veo 3 and 3.1: videos with sound (piapi.ai/docs/veo3-api, veo31-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from .._protocol.fields import flag, link, links, open_choice, ratio, text
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class _Video(ModelRequest[VideoOutput]):
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    image_url: str | PurePath | None = link(default=None)
    duration: str | None = open_choice("4s", "6s", "8s", default=None)
    resolution: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    generate_audio: bool | None = flag(default=None)


@request
class Video(_Video):
    """Make a video from a prompt, or from a picture, with Veo 3."""

    _model = "veo3"
    task_type: str = open_choice("veo3-video", "veo3-video-fast", names=True, default="veo3-video")


@request
class Video31(_Video):
    """Make a video from a prompt, between two pictures, or with pictures to go by, with Veo 3.1."""

    _model = "veo3.1"
    task_type: str = open_choice("veo3.1-video", "veo3.1-video-fast", names=True, default="veo3.1-video")
    tail_image_url: str | PurePath | None = link(default=None)
    reference_image_urls: Sequence[str | PurePath] | None = links(default=None)
