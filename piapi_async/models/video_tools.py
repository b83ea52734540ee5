"""Tools for videos (piapi.ai/docs/tools, faceswap-api/video-faceswap)."""

from __future__ import annotations

from pathlib import PurePath

from .._protocol.fields import flag, link, text
from ..unified import ModelRequest, request
from ._outputs import VideoOutput


@request
class FaceSwap(ModelRequest[VideoOutput]):
    """Give a video the face of a picture; indexes are strings such as "0,1", from left to right."""

    _model = "Qubico/video-toolkit"
    _task_type = "face-swap"
    target_video: str | PurePath = link(kw_only=False)
    swap_image: str | PurePath = link()
    swap_faces_index: str | None = text(default=None)
    target_faces_index: str | None = text(default=None)


@request
class Upscale(ModelRequest[VideoOutput]):
    """Enlarge a video."""

    _model = "Qubico/video-toolkit"
    _task_type = "upscale"
    video: str | PurePath = link(kw_only=False)


@request
class RemoveBackground(ModelRequest[VideoOutput]):
    """Cut out what a video shows."""

    _model = "Qubico/video-toolkit"
    _task_type = "background-remove"
    video: str | PurePath = link(kw_only=False)
    invert_output: bool | None = flag(default=None)
