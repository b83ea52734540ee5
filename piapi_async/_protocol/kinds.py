"""Kinds of tasks, and how long each usually takes before anything is known of it.  Pure.

The figures are the vendor's "typical" ones for Midjourney, and else the orders of magnitude that
users report (our choice); a client corrects them by what it sees.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from ..tasks import Usual

PICTURE = Usual(12.0, 0.73)
SOUND = Usual(40.0, 0.67)
SOLID = Usual(60.0, 0.67)
VIDEO = Usual(150.0, 0.63)

FAST = Usual(45.0, 0.6)
TURBO = Usual(15.0, 0.31)
RELAX = Usual(150.0, 0.84)


@frozen
class Kind:
    """Tasks that take about as long as each other: of one model, task type and mode.

    `usual` is how long that is before anything is known.
    """

    name: str
    usual: Usual


UNKNOWN = Kind("", FAST)
"""The kind of a task of which only the family is known."""

# Names of models and task types, of which the first that matches tells what is made.
_MADE = (
    (r"3d|trellis", SOLID),
    (r"music|audio|song|lyric|tts|udio|ace-step|rhythm", SOUND),
    (
        r"video|kling|hailuo|luma|wan|sora|veo|seedance|skyreels|framepack|hunyuan|omni|lip_sync|effects|animate",
        VIDEO,
    ),
)

_MODES = {"turbo": TURBO, "relax": RELAX}


_WORDS = frozenset({"describe", "shorten", "seed"})  # verbs that draw nothing


def _of_midjourney(verb: str, mode: str) -> Usual:
    if verb in _WORDS:
        return PICTURE
    if "video" in verb:
        return VIDEO
    return _MODES.get(mode, FAST)


@lru_cache(maxsize=1024)
def kind_of(model: str, task_type: str, mode: str = "") -> Kind:
    """Return the kind of a task by the names that the wire has for it."""
    name = f"{model}/{task_type}/{mode}".lower()
    if "midjourney" in model.lower():
        return Kind(name, _of_midjourney(task_type, mode))
    return Kind(name, next((usual for words, usual in _MADE if re.search(words, name)), PICTURE))
