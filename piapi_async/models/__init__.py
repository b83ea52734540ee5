"""Typed requests for the models behind the unified API.

There is a module for each system, and in it a class for each kind of task::

    from piapi_async.models import flux

    handle = await piapi.submit(flux.TextToImage("a cute cat", width=1024, height=1024))

Names and words are the vendor's (piapi.ai/docs, one section for each system).  An input that is
newer than this release goes into `extra`; a model that is newer, into `piapi_async.CreateTask`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import evolve, frozen

from ..unified import ModelRequest, known_names

__all__ = ["SYSTEMS", "Entry", "catalog"]

SYSTEMS = (
    *("ace_step", "byteaudio", "diffrhythm", "faceswap", "flux", "framepack", "gemini", "hailuo"),
    *("hug", "hunyuan", "image_tools", "joycaption", "kling", "luma", "midjourney", "mmaudio"),
    *("omni_human", "pixal3d", "qwen_image", "seedance", "seedream", "skyreels", "sora2", "trellis"),
    *("tts", "udio", "veo3", "video_tools", "wan", "z_image"),
)
"""The modules of this package."""


@frozen
class Entry:
    """One kind of task: its `name` as in ``flux/txt2img``, its request class, its models on the wire."""

    name: str
    request: type[ModelRequest[Any]]
    models: tuple[str, ...]
    task_type: str


@cache
def catalog() -> Mapping[str, Entry]:
    """Return every kind of task that has a typed request, by name."""
    entries: dict[str, Entry] = {}
    for system in SYSTEMS:
        for cls in _requests_in(system):
            for model, task_type in known_names(cls):
                name = f"{system.replace('_', '-')}/{task_type}"
                known = entries.get(name, Entry(name, cls, (), task_type))
                entries[name] = evolve(known, models=(*known.models, model))
    return entries


def _requests_in(system: str) -> list[type[ModelRequest[Any]]]:
    module = importlib.import_module(f"{__name__}.{system}")
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ModelRequest)
        and value.__module__ == module.__name__
        and not value.__name__.startswith("_")
    ]
