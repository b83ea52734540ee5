"""Midjourney's verbs, each of which is a command and a word of a batch file."""

from __future__ import annotations

from typing import Any

from .. import midjourney

VERBS: tuple[type[Any], ...] = (
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
