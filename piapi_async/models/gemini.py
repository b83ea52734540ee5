"""Gemini: pictures from words and pictures, "Nano Banana" (piapi.ai/docs/gemini-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from .._protocol.fields import flag, links, open_choice, ratio, text
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class Image(ModelRequest[ImageOutput]):
    """Draw a picture from a prompt, or from up to 14 pictures.

    `resolution` is such as "2K", `output_format` such as "png".
    """

    _model = "gemini"
    prompt: str = text(kw_only=False)
    task_type: str = open_choice(
        "gemini-2.5-flash-image",
        "nano-banana-pro",
        "nano-banana-2",
        names=True,
        default="gemini-2.5-flash-image",
    )
    image_urls: Sequence[str | PurePath] | None = links(default=None)
    aspect_ratio: str | None = ratio(default=None)
    resolution: str | None = text(default=None)
    output_format: str | None = text(default=None)
    safety_level: str | None = text(default=None)
    enable_web_search: bool | None = flag(default=None)
