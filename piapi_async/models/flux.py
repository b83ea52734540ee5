"""Flux: pictures from words and pictures (piapi.ai/docs/flux-api)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from attrs import frozen

from .._inputs import choice, items, number, text, whole
from ..unified import ModelRequest, request
from ._outputs import ImageOutput

_ADVANCED = "Qubico/flux1-dev-advanced"


@frozen(kw_only=True)
class Lora:
    """A style that the picture is drawn in, by the vendor's name of it."""

    lora_type: str
    lora_strength: float | None = None
    lora_image: str | PurePath | None = None


@request
class TextToImage(ModelRequest[ImageOutput]):
    """Draw pictures from a prompt."""

    _task_type = "txt2img"
    prompt: str = text(kw_only=False)
    model: Literal["Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"] = choice(
        "Qubico/flux1-schnell", "Qubico/flux1-dev", _ADVANCED, names=True, default="Qubico/flux1-schnell"
    )
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    guidance_scale: float | None = number(0, default=None)
    steps: int | None = whole(1, default=None)
    batch_size: int | None = whole(1, default=None)


@request
class TextToImageWithLora(ModelRequest[ImageOutput]):
    """Draw pictures from a prompt, in a style."""

    _model = _ADVANCED
    _task_type = "txt2img-lora"
    prompt: str = text(kw_only=False)
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    guidance_scale: float | None = number(0, default=None)
    steps: int | None = whole(1, default=None)
