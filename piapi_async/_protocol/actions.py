"""The words of `result.actions`: what can be done with a finished Midjourney task, as verb and inputs.  Pure.

"upscale2", "high_variation", "outpaint_1.5x", "pan_left": the vendor's pages show the words of a
grid, those of a single picture were observed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from .._text import brief

_JOINED = r"[ _-]?"
_WORDS = (
    ("(reroll|seed|inpaint)", ()),
    (rf"(upscale){_JOINED}([1-4]|2x|4x|subtle|creative)", ("index",)),
    (rf"(variation){_JOINED}([1-4])", ("index",)),
    (r"((?:high|low)_variation)", ()),
    (rf"(outpaint){_JOINED}(1(?:\.\d+)?|2)x?", ("zoom_ratio",)),
    (rf"(pan){_JOINED}(up|down|left|right)", ("direction",)),
)
_SHOWN = "reroll, upscale2, variation3, upscale_subtle, high_variation, inpaint, outpaint_2x and pan_left"


def read_action(word: str) -> tuple[str, Mapping[str, Any]]:
    """Return the verb of a word and the inputs that it tells; raise `ValueError` for any other."""
    if not isinstance(word, str):
        raise TypeError(f"action: {brief(word)} is not allowed; it must be a word of result.actions")

    spelt = word.strip().lower()
    for pattern, names in _WORDS:
        found = re.fullmatch(pattern, spelt)
        if found is None:
            continue
        verb, *values = found.groups()
        if verb.endswith("_variation"):
            return "variation", {"index": verb}
        return verb, dict(zip(names, values, strict=True))

    raise ValueError(f"action: {brief(word)} is not allowed; known are words such as {_SHOWN}")


def action_request(
    cls: Any,  # noqa: ANN401 - a class of requests, whose first field is the parent
    task_id: str,
    word: str,
    told: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> Any:  # noqa: ANN401 - an instance of it
    """Return the request of a class: `told` is what its word has told, `inputs` what was given beside.

    Raises `ValueError` for inputs that are missing, and for those that the class does not have.
    """
    _, *others = (f for f in attrs.fields(cls) if f.init)
    needed = [f.name for f in others if f.default is attrs.NOTHING]
    missing = [name for name in needed if name not in told and name not in inputs]
    if missing:
        values = ", ".join(f"{name}=…" for name in missing)
        raise ValueError(
            f"action: {brief(word)} needs {' and '.join(missing)} beside the task: "
            f"task.action({brief(word)}, {values}), or {cls.__name__}(task, {values})"
        )
    try:
        return cls(task_id, **told, **inputs)
    except TypeError as error:  # an input of another request, or one that the word has told
        raise ValueError(f"action: {brief(word)} is not allowed; {error}") from None
