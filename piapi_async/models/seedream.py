"""Seedream: pictures from words and pictures (piapi.ai/docs/seedream-api)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from .._inputs import links, ratio, text
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class Image(ModelRequest[ImageOutput]):
    """Draw a picture from a prompt, or from pictures."""

    _model = "seedream"
    _task_type = "seedream-5-lite"
    prompt: str = text(kw_only=False)
    image_urls: Sequence[str | PurePath] | None = links(default=None)
    aspect_ratio: str | None = ratio(default=None)
