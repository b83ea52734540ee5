"""Luma Dream Machine: videos (piapi.ai/docs/dream-machine)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from attrs import field, frozen

from .._protocol.fields import flag, item, ratio, text, whole
from ..unified import ModelRequest, request
from ._outputs import SizedFile


@frozen
class LumaOutput:
    """A video; `video` has a watermark, `video_raw` has none."""

    video: SizedFile = field(factory=SizedFile)
    video_raw: SizedFile = field(factory=SizedFile)
    thumbnail: SizedFile = field(factory=SizedFile)
    last_frame: SizedFile = field(factory=SizedFile)
    prompt: str = ""
    internal_state: str = ""


@frozen(kw_only=True)
class KeyFrame:
    """A picture (`type` "image") or a video ("video") at one end of the new video."""

    type: str
    url: str | PurePath


@frozen(kw_only=True)
class KeyFrames:
    """What the new video begins with and ends in."""

    frame0: KeyFrame | Mapping[str, Any] | None = None
    frame1: KeyFrame | Mapping[str, Any] | None = None


@request
class Video(ModelRequest[LumaOutput]):
    """Make a video from a prompt, from key frames or from both; `duration` in seconds."""

    _model = "luma"
    _task_type = "video_generation"
    _needs = (("prompt", "key_frames"),)
    prompt: str | None = text(default=None, kw_only=False)
    key_frames: KeyFrames | Mapping[str, Any] | None = item(KeyFrames, default=None)
    expand_prompt: bool | None = flag(default=None)
    aspect_ratio: str | None = ratio(default=None)
    loop: bool | None = flag(default=None)
    model_name: str | None = text(default=None)
    duration: int | None = whole(1, default=None)


@request
class ExtendVideo(ModelRequest[LumaOutput]):
    """Make a video longer: it is a key frame, `frame0` to go on from it."""

    _model = "luma"
    _task_type = "extend_video"
    _needs = (("prompt", "key_frames"),)
    prompt: str | None = text(default=None, kw_only=False)
    key_frames: KeyFrames | Mapping[str, Any] | None = item(KeyFrames, default=None)
    expand_prompt: bool | None = flag(default=None)
    aspect_ratio: str | None = ratio(default=None)
    loop: bool | None = flag(default=None)
    model_name: str | None = text(default=None)
