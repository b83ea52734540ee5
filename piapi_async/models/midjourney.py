"""Midjourney behind the unified API (piapi.ai/docs/midjourney-api).

The ten verbs are those of the older protocol, `piapi_async.Imagine` and so on; hosts that speak it
take the requests of `piapi_async` itself.  The vendor has announced the end of Midjourney here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

from attrs import frozen

from .._protocol.actions import action_request, read_action
from .._protocol.checks import Converted
from .._protocol.fields import (
    choice,
    flag,
    link,
    links,
    mask,
    open_choice,
    parent,
    text,
    whole,
    whole_ratio,
    word,
    zoom,
)
from ..midjourney import Dimension, Direction, ProcessMode, UpscaleIndex, VariationIndex, ZoomRatio
from ..tasks import TaskId, TaskLike
from ..unified import ModelRequest, request


@frozen
class MidjourneyOutput:
    """A grid of four, or one picture; `actions` are what can be done with it."""

    image_url: str = ""
    image_urls: tuple[str, ...] = ()
    temporary_image_urls: tuple[str, ...] = ()
    discord_image_url: str = ""
    intermediate_image_urls: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    progress: int | None = None
    seed: str = ""
    message: str = ""
    prompt: str = ""

    @staticmethod
    def derive(task_id: TaskId, word: str, inputs: Mapping[str, Any]) -> ModelRequest[MidjourneyOutput]:
        """Return the request behind a word of `actions`.  For `Task.action`."""
        verb, told = read_action(word)
        request: ModelRequest[MidjourneyOutput] = action_request(_DERIVED[verb], task_id, word, told, inputs)
        return request


@request
class _Midjourney(ModelRequest[MidjourneyOutput]):
    _model = "midjourney"


@request
class Imagine(_Midjourney):
    """Draw a grid of four from a prompt."""

    _task_type = "imagine"
    prompt: str = text(kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)
    aspect_ratio: str | None = whole_ratio(default=None)
    skip_prompt_check: bool | None = flag(default=None)
    bot_id: int | None = whole(default=None)


@request
class Reroll(_Midjourney):
    """Draw a grid anew; `prompt` replaces the parent's."""

    _task_type = "reroll"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    prompt: str | None = text(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Upscale(_Midjourney):
    """Take one picture of a grid (`index` 1 to 4), or enlarge one (2x, 4x, subtle, creative)."""

    _task_type = "upscale"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: Converted[UpscaleIndex, str] = word(
        "1", "2", "3", "4", "2x", "4x", "subtle", "creative", kw_only=False
    )


@request
class Variation(_Midjourney):
    """Vary one picture of a grid (`index` 1 to 4), or one alone (high_variation, low_variation)."""

    _task_type = "variation"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    index: Converted[VariationIndex, str] = word(
        "1", "2", "3", "4", "high_variation", "low_variation", kw_only=False
    )
    prompt: str | None = text(default=None)
    aspect_ratio: str | None = whole_ratio(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Describe(_Midjourney):
    """Find prompts for a picture."""

    _task_type = "describe"
    image_url: str | PurePath = link(kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)


@request
class Seed(_Midjourney):
    """Ask for the seed of a finished task."""

    _task_type = "seed"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)


@request
class Blend(_Midjourney):
    """Mix two to five pictures into one grid."""

    _task_type = "blend"
    image_urls: Sequence[str | PurePath] = links(2, 5, kw_only=False)
    process_mode: ProcessMode | None = open_choice("relax", "fast", "turbo", "mixed", default=None)
    dimension: Dimension | None = open_choice("square", "portrait", "landscape", default=None)


@request
class Inpaint(_Midjourney):
    """Draw the masked part of an upscaled picture anew."""

    _task_type = "inpaint"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    mask: Converted[str | bytes, str] = mask()
    prompt: str | None = text(default=None)
    skip_prompt_check: bool | None = flag(default=None)


@request
class Outpaint(_Midjourney):
    """Zoom out of an upscaled picture; `zoom_ratio` 1 makes it square or gives it `aspect_ratio`."""

    _task_type = "outpaint"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    zoom_ratio: Converted[ZoomRatio, str] = zoom()
    aspect_ratio: str | None = whole_ratio(default=None)
    prompt: str | None = text(default=None)


@request
class Pan(_Midjourney):
    """Extend an upscaled picture to one side."""

    _task_type = "pan"
    origin_task_id: Converted[TaskLike, str] = parent(kw_only=False)
    direction: Direction = choice("up", "down", "left", "right")
    prompt: str | None = text(default=None)


_DERIVED: Mapping[str, type[ModelRequest[MidjourneyOutput]]] = MappingProxyType(
    {cls.__name__.lower(): cls for cls in (Reroll, Upscale, Variation, Inpaint, Outpaint, Pan, Seed)}
)
