"""Face swap in pictures (piapi.ai/docs/faceswap-api, multi-face-swap); for videos: `video_tools`."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import link, text
from ..unified import ModelRequest, request
from ._outputs import ImageOutput


@request
class FaceSwap(ModelRequest[ImageOutput]):
    """Give a picture the face of another."""

    _model = "Qubico/image-toolkit"
    _task_type = "face-swap"
    target_image: str | PurePath = link(base64=True, kw_only=False)
    swap_image: str | PurePath = link(base64=True)


@request
class MultiFaceSwap(ModelRequest[ImageOutput]):
    """Give a picture several faces of another; indexes are strings such as "0,1", from left to right."""

    _model = "Qubico/image-toolkit"
    _task_type = "multi-face-swap"
    target_image: str | PurePath = link(base64=True, kw_only=False)
    swap_image: str | PurePath = link(base64=True)
    swap_faces_index: str | None = text(default=None)
    target_faces_index: str | None = text(default=None)
