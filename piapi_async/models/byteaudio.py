"""Seed Audio: speech from words (piapi.ai/docs/byteaudio-api/seed-audio)."""

from __future__ import annotations

from .._protocol.fields import open_choice, text, whole
from ..unified import ModelRequest, request
from ._outputs import AudioOutput


@request
class Speech(ModelRequest[AudioOutput]):
    """Say up to 2,048 characters; `format` "wav", "mp3" or "pcm", `sample_rate` in Hz.

    The rates are 0 for normal: speech and loudness from -50 (half) to 100 (double), pitch from -12
    to 12 semitones.  Voices to go by ("@Audio1" in the text) go into `extra`, as the vendor's page
    calls them.
    """

    _model = "byteaudio"
    _task_type = "seed-audio-1.0"
    text: str = text(kw_only=False)
    format: str | None = open_choice("wav", "mp3", "pcm", default=None)
    sample_rate: int | None = whole(1, default=None)
    speech_rate: int | None = whole(default=None)
    pitch_rate: int | None = whole(default=None)
    loudness_rate: int | None = whole(default=None)
