"""MMAudio: sound for a video (piapi.ai/docs/mmaudio-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, text, whole
from ..unified import ModelRequest, request
from ._outputs import AudioOutput


@request
class VideoToAudio(ModelRequest[AudioOutput]):
    """Make the sound of a video."""

    _model = "Qubico/mmaudio"
    _task_type = "video2audio"
    video: str | PurePath = link(kw_only=False)
    prompt: str | None = text(default=None)
    negative_prompt: str | None = text(default=None)
    steps: int | None = whole(0, default=None)
    seed: int | None = whole(default=None)
