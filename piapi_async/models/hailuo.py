"""Hailuo: videos (piapi.ai/docs/hailuo-api/generate-video)."""

from __future__ import annotations

from pathlib import PurePath

from attrs import frozen

from .._protocol.fields import flag, link, open_choice, text, whole
from ..unified import ModelRequest, request

_MODELS = (
    *("t2v-01", "t2v-01-director", "i2v-01", "i2v-01-director", "i2v-01-live", "s2v-01"),
    *("t2v-02", "i2v-02", "v2.3", "v2.3-fast"),
)


@frozen
class HailuoOutput:
    """A video; `download_url` is the same under another link, `percent` how far the work is."""

    video_url: str = ""
    video: str = ""
    download_url: str = ""
    cover_url: str = ""
    percent: int | None = None
    width: int | None = None
    height: int | None = None
    model_id: str = ""
    message: str = ""


@request
class Video(ModelRequest[HailuoOutput]):
    """Make a video from a prompt (t2v-…, v2.3) or a picture (i2v-…, v2.3; s2v-01 keeps the face).

    `duration` in seconds (6 or 10) and `resolution` in lines (768 or 1080) are for models 02 and
    newer; 10 seconds only in 768 lines.  Some clients name the version as the task's model itself:
    ``CreateTask("t2v-01", …)`` says it so.
    """

    _model = "hailuo"
    _task_type = "video_generation"
    _needs = (("prompt", "image_url"),)
    prompt: str | None = text(most=2000, default=None, kw_only=False)
    model: str | None = open_choice(*_MODELS, default=None)
    image_url: str | PurePath | None = link(default=None)
    expand_prompt: bool | None = flag(default=None)
    duration: int | None = whole(1, default=None)
    resolution: int | None = whole(1, default=None)
