"""Seedance: videos from words, pictures, videos and sounds (piapi.ai/docs/seedance-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from .._protocol.checks import Converted
from .._protocol.fields import flag, link, links, open_choice, parent, ratio, text, whole
from ..tasks import TaskLike
from ..unified import ModelRequest, request
from ._outputs import VideoOutput

_TASK_TYPES = (
    *("seedance-2", "seedance-2-fast", "seedance-2-mini", "seedance-2.5"),
    *("seedance-2-less-restriction", "seedance-2-fast-less-restriction"),
    *("seedance-2-mini-less-restriction", "seedance-2.5-less-restriction"),
    # These have left the vendor's catalog.
    *("seedance-2-preview", "seedance-2-preview-vip"),
    *("seedance-2-fast-preview", "seedance-2-fast-preview-vip"),
)


@request
class Video(ModelRequest[VideoOutput]):
    """Make a video from a prompt that names what is given with it: "@image1"; `duration` in seconds.

    Without a `mode` ("text_to_video", "first_last_frames", "omni_reference") the host sees it from
    what is given: one or two pictures are the first and the last frame.  `duration` -1 is that of
    the source; 2.5 takes up to 30.  `aspect_ratio` may be "auto", for edits and extensions of 2.5
    "adaptive".  How many files it takes is told differently: 9 pictures, 3 videos, 3 sounds and 12
    in all, or 30, 10 and 10 for 2.5.

    `auto_upload_assets` puts what is given into the account's private asset library for
    `asset_retention_hours`, as the less-restriction kinds need; ``asset://ID`` is a link into it.
    """

    _model = "seedance"
    _needs = (("prompt", "draft_task_id", "parent_task_id"),)
    prompt: str | None = text(most=4000, default=None, kw_only=False)
    task_type: str = open_choice(*_TASK_TYPES, names=True, default="seedance-2")
    mode: str | None = open_choice("text_to_video", "first_last_frames", "omni_reference", default=None)
    duration: int | None = whole(1, 30, also=(-1,), default=None)
    resolution: str | None = text(default=None)
    aspect_ratio: str | None = ratio(default=None)
    audio: bool | None = flag(default=None)
    image_urls: Sequence[str | PurePath] | None = links(1, 30, default=None)
    video_urls: Sequence[str | PurePath] | None = links(1, 10, default=None)
    audio_urls: Sequence[str | PurePath] | None = links(1, 10, default=None)
    auto_upload_assets: bool | None = flag(default=None)
    asset_retention_hours: int | None = whole(3, 8, default=None)
    omni_reference_task_type: str | None = open_choice("auto", "reference", "edit", "extend", default=None)
    draft_task_id: Converted[TaskLike | None, str | None] = parent(default=None)
    parent_task_id: Converted[TaskLike | None, str | None] = parent(default=None)


@request
class RemoveWatermark(ModelRequest[VideoOutput]):
    """Clean a video."""

    _model = "seedance"
    _task_type = "remove-watermark"
    video_url: str | PurePath = link(kw_only=False)
