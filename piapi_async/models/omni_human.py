"""OmniHuman: a picture speaks (piapi.ai/docs/omni-human-api/omni-human-1-5)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import flag, link, text
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class Speak(ModelRequest[VideoOutput]):
    """Let the person of a picture say what is heard in a file."""

    _model = "omni-human"
    _task_type = "omni-human-1.5"
    image_url: str | PurePath = link(kw_only=False)
    audio_url: str | PurePath = link()
    prompt: str | None = text(default=None)
    fast_mode: bool | None = flag(default=None)
