"""Pixal3D: objects in three dimensions (piapi.ai/docs/pixal-3d-api/create-task)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, whole
from ..unified import ModelRequest, request
from .trellis import TrellisOutput


@request
class ImageTo3D(ModelRequest[TrellisOutput]):
    """Make an object (a .glb file) from a picture."""

    _model = "Qubico/pixal3d"
    _task_type = "image-to-3d"
    image: str | PurePath = link(base64=True, kw_only=False)
    seed: int | None = whole(default=None)
