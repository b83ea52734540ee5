"""Midjourney's verbs: each is a command, and a `verb` of batch files."""

from __future__ import annotations

from typing import Any

from .. import midjourney

VERBS: dict[str, type[Any]] = {
    cls.__name__.lower(): cls
    for cls in (
        midjourney.Imagine,
        midjourney.Reroll,
        midjourney.Upscale,
        midjourney.Variation,
        midjourney.Inpaint,
        midjourney.Outpaint,
        midjourney.Pan,
        midjourney.Describe,
        midjourney.Blend,
        midjourney.Seed,
    )
}
