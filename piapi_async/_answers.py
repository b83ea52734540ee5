"""What can be taken out of an answer about a task, whatever shape its details have.  Pure.

A task's status word decides alone whether it has ended.  Everything beside it is read by the functions here, which
raise nothing: what cannot be read is empty, and stays in `Task.raw`.  The places and shapes are those of the vendor's
pages, of compatible hosts that were observed, and of answers that clients were seen to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._wire import shorten

LINK_NAMES = ("url", "href", "image_url", "uri")
"""Where a link is an object, it stands under the first of these names."""

# In the order in which reasons are told: the documented list, what the host says of the error, then more general texts.
_REASON_NAMES = (
    "error_messages",
    "error_message",
    "error",
    "message",
    "raw_message",
    "reason",
    "fail_reason",
    "detail",
    "logs",
    "description",
)

_MOST_REASONS = 20
_LONGEST_REASON = 500
_LONGEST_ERROR = 1000


def links_in(value: object) -> tuple[str, ...]:
    """Return the links that a value holds, in its order: a `str`, an object with a link, or a list of such."""
    if type(value) is str:  # nearly always one of these two
        return (value,) if value.strip() else ()
    if type(value) is list and all(type(item) is str for item in value):
        return tuple([item for item in value if item.strip()])

    links: list[str] = []
    ahead: list[Any] = [value]
    while ahead:  # a stack of our own, for JSON may be nested deeper than Python calls
        value = ahead.pop()
        if isinstance(value, str):
            links += [value] if value.strip() else []
        elif isinstance(value, list):
            ahead += reversed(value)
        elif isinstance(value, dict):
            ahead += [value[name] for name in LINK_NAMES if value.get(name)][:1]
    return tuple(links)


def reasons_in(value: object) -> Iterator[str]:
    """Yield the reasons that a value gives, in its order.

    They are texts and numbers, in lists and objects of any shape.  Where an object has none under a known name, all it
    holds is told with its name: ``{"code": 7}`` is "code: 7".
    """
    ahead: list[Any] = [value]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += reversed(value)
        elif isinstance(value, dict):
            ahead += reversed(_known_reasons(value) or _named_values(value))
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool) and (text := str(value).strip()):
            yield shorten(text, _LONGEST_REASON)


def _known_reasons(holder: Mapping[str, Any]) -> list[Any]:
    """Return what an object says under the names of reasons; of the log only its last line, which tells of the end."""
    found = []
    for name in _REASON_NAMES:
        value = holder.get(name)
        if name == "logs" and isinstance(value, list):
            value = value[-1:]
        if value:
            found.append(value)
    return found


def _named_values(holder: Mapping[str, Any]) -> list[Any]:
    said = [(name, value) for name, value in holder.items() if value and value is not True]
    return [value if isinstance(value, (dict, list)) else f"{name}: {value}" for name, value in said]


def failure_text(task: Mapping[str, Any], result: object) -> str:
    """Return why a task failed: the reasons in its `result` and beside it, each once, joined; "" if there are none."""
    reasons: dict[str, None] = {}
    for holder in (result, task):
        if not isinstance(holder, dict):
            continue
        for reason in reasons_in(_known_reasons(holder)):
            reasons[reason] = None
            if len(reasons) == _MOST_REASONS:
                break
    return shorten("; ".join(reasons), _LONGEST_ERROR)


def texts_in(value: object) -> tuple[str, ...]:
    """Return the texts that a value holds where a text, or a list of texts, was meant.

    Of an object this is its link, else what it says as a reason.
    """
    texts: list[str] = []
    ahead: list[Any] = [value]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += reversed(value)
        elif isinstance(value, dict):
            ahead += reversed(links_in(value) or _known_reasons(value))
        elif isinstance(value, bool):
            texts.append(str(value).lower())
        elif value is not None:
            texts.append(str(value))
    return tuple(texts)
