"""Seedream: pictures from words and pictures (piapi.ai/docs/seedream-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from .._protocol.fields import links, open_choice, ratio, text
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class Image(ModelRequest[ImageOutput]):
    """Draw a picture from a prompt, or from pictures (up to 10); `output_format` "png" or "jpeg".

    `size` is "2K" or "3K" for the lite kinds, "1K" or "2K" for the pro ones.
    """

    _model = "seedream"
    prompt: str = text(kw_only=False)
    task_type: str = open_choice(
        "seedream-5-lite",
        "seedream-5-pro",
        "seedream-5-lite-less-restriction",
        "seedream-5-pro-less-restriction",
        names=True,
        default="seedream-5-lite",
    )
    image_urls: Sequence[str | PurePath] | None = links(default=None)
    aspect_ratio: str | None = ratio(default=None)
    size: str | None = open_choice("1K", "2K", "3K", default=None)
    output_format: str | None = open_choice("png", "jpeg", default=None)
