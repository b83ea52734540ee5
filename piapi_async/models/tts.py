"""Speech in a voice that is heard in a file, with F5-TTS (piapi.ai/docs/tts-api/f5-tts)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, text
from ..unified import ModelRequest, request
from ._outputs import AudioOutput


@request
class Speech(ModelRequest[AudioOutput]):
    """Say some words; `ref_text` is what is said in `ref_audio`, found out by the host if left out."""

    _model = "Qubico/tts"
    _task_type = "zero-shot"
    gen_text: str = text(kw_only=False)
    ref_audio: str | PurePath = link()
    ref_text: str | None = text(default=None)
