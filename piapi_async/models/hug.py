"""AI Hug: two people of a picture embrace (piapi.ai/docs/ai-hug-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class Hug(ModelRequest[VideoOutput]):
    """Let the people of a picture embrace."""

    _model = "Qubico/hug-video"
    _task_type = "image_to_video"
    image_url: str | PurePath = link(kw_only=False)
