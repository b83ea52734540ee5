"""Qwen Image: pictures from words and pictures (piapi.ai/docs/qwen-image-api)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, number, text, whole
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class _Drawing(ModelRequest[ImageOutput]):
    _model = "Qubico/qwen-image"
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    steps: int | None = whole(0, default=None)
    flow_shift: float | None = number(default=None)
    seed: int | None = whole(default=None)


@request
class TextToImage(_Drawing):
    """Draw a picture from a prompt."""

    _task_type = "txt2img"


@request
class EditImage(_Drawing):
    """Change a picture as the prompt says, with up to two more to go by."""

    _task_type = "image-edit"
    image1: str | PurePath = link()
    image2: str | PurePath | None = link(default=None)
    image3: str | PurePath | None = link(default=None)
