"""Flux: pictures from words and pictures (piapi.ai/docs/flux-api, flux-with-lora-and-controlnet)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal

from attrs import frozen

from .._protocol.fields import choice, items, link, number, text, whole
from ..unified import ModelRequest, request
from ._outputs import ImageOutput

_SCHNELL, _DEV, _ADVANCED = "Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"
_Model = Literal["Qubico/flux1-schnell", "Qubico/flux1-dev", "Qubico/flux1-dev-advanced"]


@frozen(kw_only=True)
class Lora:
    """A style by its vendor's name; the list grows (piapi.ai/docs/available-lora-and-controlnet).

    Known are anime, art, disney, furry, mjv6, realism, scenery, collage-artstyle, creepcute,
    cyberpunk-anime-style, deco-pulse, deep-sea-particle-enhencer, faetastic-details,
    fractal-geometry, galactixy-illustrations-style, geometric-woman, graphic-portrait,
    mat-miller-art, moebius-style, ob3d-isometric-3d-room and paper-quilling-and-layering-style.
    """

    lora_type: str
    lora_strength: float | None = None
    lora_image: str | PurePath | None = None


@frozen(kw_only=True)
class ControlNet:
    """A picture whose depth, edges or pose the new one keeps.

    `control_type` is depth, soft_edge, canny or openpose.
    """

    control_type: str
    control_image: str | PurePath
    control_strength: float | None = None
    return_preprocessed_image: bool | None = None


@frozen(kw_only=True)
class Outpaint:
    """How many pixels to add at each side."""

    setting_type: str = "outpaint"
    outpaint_left: int | None = None
    outpaint_right: int | None = None
    outpaint_top: int | None = None
    outpaint_bottom: int | None = None


@request
class _Drawing(ModelRequest[ImageOutput]):
    """The inputs of all kinds; the vendor's defaults depend on the model.

    The vendor's page allows `guidance_scale` 1.5 to 5, and `width` x `height` up to 1,048,576
    pixels.
    """

    _model = _ADVANCED
    prompt: str = text(kw_only=False)
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    guidance_scale: float | None = number(0, default=None)
    steps: int | None = whole(0, default=None)
    seed: int | None = whole(default=None)


@request
class TextToImage(_Drawing):
    """Draw pictures from a prompt."""

    _task_type = "txt2img"
    model: _Model = choice(_SCHNELL, _DEV, _ADVANCED, names=True, default=_SCHNELL)
    batch_size: int | None = whole(1, 4, default=None)


@request
class ImageToImage(_Drawing):
    """Draw a picture anew; `denoise` 0 keeps it, 1 forgets it."""

    _task_type = "img2img"
    image: str | PurePath = link()
    model: _Model = choice(_SCHNELL, _DEV, _ADVANCED, names=True, default=_SCHNELL)
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class TextToImageWithLora(_Drawing):
    """Draw a picture in a style."""

    _task_type = "txt2img-lora"
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)
    batch_size: int | None = whole(1, 4, default=None)


@request
class ImageToImageWithLora(_Drawing):
    """Draw a picture anew in a style."""

    _task_type = "img2img-lora"
    image: str | PurePath = link()
    lora_settings: Sequence[Lora | Mapping[str, Any]] = items(Lora)
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class WithControlNet(_Drawing):
    """Draw a picture, or draw an `image` anew, so that it keeps the depth, edges or pose of another.

    Each of the two lists may be empty, as the vendor's own client sends `lora_settings`.
    """

    _task_type = "controlnet-lora"
    control_net_settings: Sequence[ControlNet | Mapping[str, Any]] | None = items(ControlNet, default=None)
    lora_settings: Sequence[Lora | Mapping[str, Any]] | None = items(Lora, default=None)
    image: str | PurePath | None = link(default=None)
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class Fill(_Drawing):
    """Draw a part of a picture anew: the part that is white in the mask; black is kept."""

    _task_type = "fill-inpaint"
    image: str | PurePath = link()
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class Extend(_Drawing):
    """Draw what lies beyond the edges of a picture."""

    _task_type = "fill-outpaint"
    image: str | PurePath = link()
    custom_settings: Sequence[Outpaint | Mapping[str, Any]] | None = items(Outpaint, default=None)
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class Vary(ModelRequest[ImageOutput]):
    """Draw a picture that is like another; the vendor's own client can do without a prompt."""

    _model = _ADVANCED
    _task_type = "redux-variation"
    prompt: str | None = text(default=None, kw_only=False)
    negative_prompt: str | None = text(default=None)
    width: int | None = whole(1, default=None)
    height: int | None = whole(1, default=None)
    guidance_scale: float | None = number(0, default=None)
    steps: int | None = whole(0, default=None)
    seed: int | None = whole(default=None)
    image: str | PurePath = link()
    denoise: float | None = number(0, 1, default=None)
    batch_size: int | None = whole(1, 4, default=None)


@request
class Kontext(_Drawing):
    """Change a picture as the prompt says."""

    _task_type = "kontext"
    image: str | PurePath = link(base64=True)
