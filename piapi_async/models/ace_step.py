"""ACE-Step: songs and sounds (piapi.ai/docs/ace-step-api)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, number, open_choice, text, whole
from ..unified import ModelRequest, request
from ._outputs import AudioOutput


@request
class _Sound(ModelRequest[AudioOutput]):
    _model = "Qubico/ace-step"
    style_prompt: str = text(kw_only=False)
    lyrics: str | None = text(default=None)
    negative_style_prompt: str | None = text(default=None)
    duration: float | None = number(0, default=None)
    infer_step: int | None = whole(0, default=None)


@request
class TextToAudio(_Sound):
    """Make a song, or with `lyrics` "[inst]" music alone; `duration` in seconds."""

    _task_type = "txt2audio"


@request
class AudioToAudio(_Sound):
    """Make a song that sounds like another; `duration` in seconds."""

    _task_type = "audio2audio"
    style_audio: str | PurePath = link()


@request
class Rework(ModelRequest[AudioOutput]):
    """Change a song, or make it longer: the inputs, which the vendor's pages list, go into `extra`."""

    _model = "Qubico/ace-step"
    task_type: str = open_choice("edit", "extend", names=True)
