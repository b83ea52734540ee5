"""DiffRhythm: songs from lyrics with times (piapi.ai/docs/diffrhythm-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, open_choice, text
from ..unified import ModelRequest, request
from ._outputs import AudioOutput


@request
class Song(ModelRequest[AudioOutput]):
    """Sing lyrics in a style that is described or heard in a file.

    The lines of the lyrics begin with times such as "[00:10.00]".
    """

    _model = "Qubico/diffrhythm"
    _needs = (("lyrics", "style_prompt", "style_audio"),)
    lyrics: str | None = text(default=None, kw_only=False)
    style_prompt: str | None = text(default=None)
    style_audio: str | PurePath | None = link(base64=True, default=None)
    task_type: str = open_choice("txt2audio-base", "txt2audio-full", names=True, default="txt2audio-base")
