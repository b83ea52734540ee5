"""Tools for pictures (piapi.ai/docs/image-editing-api)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import flag, link, number, text
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class Upscale(ModelRequest[ImageOutput]):
    """Enlarge a picture."""

    _model = "Qubico/image-toolkit"
    _task_type = "upscale"
    image: str | PurePath = link(kw_only=False)
    scale: float | None = number(2, 10, default=None)
    face_enhance: bool | None = flag(default=None)


@request
class RemoveBackground(ModelRequest[ImageOutput]):
    """Cut out what a picture shows."""

    _model = "Qubico/image-toolkit"
    _task_type = "background-remove"
    image: str | PurePath = link(kw_only=False)
    rmbg_model: str | None = text(default=None)


@request
class Segment(ModelRequest[ImageOutput]):
    """Cut out what a prompt names."""

    _model = "Qubico/image-toolkit"
    _task_type = "segment"
    image: str | PurePath = link(kw_only=False)
    prompt: str = text()
    negative_prompt: str | None = text(default=None)
    segment_factor: float | None = number(default=None)
