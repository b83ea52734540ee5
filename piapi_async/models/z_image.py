"""Z-Image: pictures from words (piapi.ai/docs/z-image-api/text-to-image)."""

from __future__ import annotations

from .._protocol.fields import number, text, whole
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class TextToImage(ModelRequest[ImageOutput]):
    """Draw pictures from a prompt."""

    _model = "Qubico/z-image"
    _task_type = "txt2img"
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    batch_size: int | None = whole(1, default=None)
    flow_shift: float | None = number(default=None)
    seed: int | None = whole(default=None)
