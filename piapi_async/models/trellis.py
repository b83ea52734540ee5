"""Trellis: objects in three dimensions (piapi.ai/docs/trellis-api, trellis2-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Literal

from attrs import frozen

from .._protocol.fields import choice, link, links, number, text, whole
from ..unified import ModelRequest, request


@frozen
class TrellisOutput:
    """An object (a .glb file), a video of it, and the picture that it was made from."""

    model_file: str = ""
    combined_video: str = ""
    no_background_image: str = ""


@request
class _Trellis(ModelRequest[TrellisOutput]):
    model: Literal["Qubico/trellis", "Qubico/trellis2"] = choice(
        "Qubico/trellis", "Qubico/trellis2", names=True, default="Qubico/trellis"
    )
    seed: int | None = whole(default=None)
    ss_sampling_steps: int | None = whole(0, default=None)
    slat_sampling_steps: int | None = whole(0, default=None)
    ss_guidance_strength: float | None = number(0, default=None)
    slat_guidance_strength: float | None = number(0, default=None)


@request
class ImageTo3D(_Trellis):
    """Make an object from a picture, or from several that show it."""

    _task_type = "image-to-3d"
    _needs = (("image", "images"),)
    image: str | PurePath | None = link(base64=True, default=None, kw_only=False)
    images: Sequence[str | PurePath] | None = links(base64=True, default=None)
    prompt: str | None = text(default=None)


@request
class TextTo3D(_Trellis):
    """Make an object from a prompt."""

    _task_type = "text-to-3d"
    prompt: str = text(kw_only=False)
