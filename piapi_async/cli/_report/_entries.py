"""From a line of results to what the page shows of it.  Pure.

Everything in a line is somebody's text: the host's, a prompt's, or that of whoever wrote the file.
So links are only http(s), saved files only paths, and whatever is missing or of another shape is
left out.  Names are short because a page may hold a hundred thousand entries.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from attrs import frozen

from ... import errors
from .._requests import recipes

_LINK = re.compile(r"https?://[^\s/?#]\S*\Z", re.IGNORECASE)
_CUT = re.compile(r"… \(\d+ characters\)\Z")  # what results leave of a long value
_UPSCALE = re.compile(r"upscale([1-4])\Z")

_QUADRANTS = 4
_PROMPTS = ("prompt", "gpt_description_prompt", "text", "tts_text", "style_prompt", "lyrics")
_WORDS = ("message", "seed", "text", "caption", "lyrics")
_DRAWS_GRIDS = frozenset({"imagine", "reroll", "variation", "blend", "inpaint", "outpaint", "pan"})
_LONGEST_TEXT = 4000

_STATES_OF_ERRORS: Mapping[str, str] = {
    "SubmissionUnknown": "unknown",
    "DownloadError": "unsaved",
    "WaitTimeout": "open",  # the task goes on
    "ClientClosed": "open",
}

Locate = Callable[[str], str | None]
"""Returns the relative URL of a saved file, None if it is not there."""


@frozen
class _Row:
    """A line of results, whose values may be of any shape."""

    values: Mapping[str, Any]

    def text(self, name: str) -> str:
        return _text(self.values.get(name))

    def object(self, name: str) -> Mapping[str, Any]:
        value = self.values.get(name)
        if isinstance(value, dict):
            return value
        return {}

    def list(self, name: str) -> list[Any]:
        value = self.values.get(name)
        if isinstance(value, list):
            return value
        return []


def entry_of(values: Mapping[str, Any], number: int, locate: Locate) -> dict[str, Any]:
    """Return what the page shows of a line; `number` is for a line that does not tell its own."""
    row = _Row(values)
    request, result = row.object("request"), row.object("result")
    state = _state_of(row)
    verb = _text(request.get("verb")) or row.text("task_type")

    entry = {
        "line": _whole(values.get("line")) or number,
        "id": row.text("task_id"),
        "key": row.text("key"),
        "verb": verb,
        "state": state,
        "status": row.text("status"),
        "prompt": _prompt_of(request, result),
        "error": row.text("reason") or row.text("error"),
        "kind": row.text("error_type"),
        "cost": _cost_of(row.object("cost")),
        "seconds": _seconds(row, "created_at", "ended_at"),
        "worked": _seconds(row, "started_at", "ended_at"),
        "media": _media_of(row, locate),
        "words": _words_of(result),
        "request": _json_of(request),
        "extra": _json_of(row.object("extra")),
        "actions": _actions_of(row, state, verb),
    }
    return {name: value for name, value in entry.items() if value not in ("", None, [], {})}


def _state_of(row: _Row) -> str:
    """Return the state of an item: its error's, else its task's."""
    state, kind = row.text("state"), row.text("error_type")
    known = _STATES_OF_ERRORS.get(kind)
    if known:
        return known
    if state in {"done", "failed", "cancelled"} and not (kind and state == "done"):
        return state
    if kind:
        return "failed"
    return "open"


def _prompt_of(request: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    for values in (request, result):
        for name in _PROMPTS:
            prompt = _text(values.get(name))
            if prompt:
                return prompt
        if values is request and isinstance(request.get("input"), dict):  # of a task as it is called
            return _prompt_of(request["input"], {}) or _prompt_of({}, result)
    return ""


def _words_of(result: Mapping[str, Any]) -> str:
    """Return the result of a task that ends in words."""
    return next(filter(None, (_text(result.get(name)) for name in _WORDS)), "")


def _cost_of(cost: Mapping[str, Any]) -> list[Any] | None:
    amount = cost.get("amount")
    if not _is_number(amount):
        return None
    return [amount, _text(cost.get("unit"))]


def _seconds(row: _Row, begin: str, end: str) -> float | None:
    try:
        passed = datetime.fromisoformat(row.text(end)) - datetime.fromisoformat(row.text(begin))
    except (ValueError, TypeError):  # not told; one of them without a time zone
        return None
    return max(0.0, round(passed.total_seconds(), 1))


# -- files ----------------------------------------------------------------------------------------


def _media_of(row: _Row, locate: Locate) -> list[dict[str, Any]]:
    """Return the files of a task: `at` is where the page shows it from, `link` the host's."""
    places = {_text(link): place for place, link in enumerate(row.list("images"), 1)}
    is_grid = len(places) == _QUADRANTS and _text(row.object("request").get("verb")) != "describe"

    media = []
    for file in row.list("files"):
        found = _file(file, locate)
        if not found:
            continue
        if is_grid and found.get("link") in places:
            found["quadrant"] = places[found["link"]]
        media.append(found)
    return media


def _file(file: object, locate: Locate) -> dict[str, Any]:
    if isinstance(file, str):  # of an older release: where it was saved
        file = {"saved_as": file, "kind": "image", "role": "result"}
    if not isinstance(file, dict):
        return {}

    link, saved_as = _text(file.get("url")).strip(), _text(file.get("saved_as"))
    if not _LINK.match(link):
        link = ""
    local = None
    if saved_as:
        local = locate(saved_as)
    if not (link or local):
        return {}
    if file.get("role") == "copy" and not saved_as:  # what it shows is shown
        return {}

    found = {"at": local or link, "link": link, "kind": _text(file.get("kind")), "saved": saved_as}
    if file.get("role") != "result":
        found["role"] = _text(file.get("role"))
    return {name: value for name, value in found.items() if value}


# -- what can be chosen -----------------------------------------------------------------------------


def _actions_of(row: _Row, state: str, verb: str) -> dict[str, Any]:
    """Return which lines of a batch can be made of an entry.

    `upscale` are the quadrants that can be taken, `reroll` says that the grid can be drawn anew, and
    `system` stands before these verbs; `again` says that the request itself can be sent anew.
    """
    actions: dict[str, Any] = {}
    if _may_be_sent_again(row, state):
        actions["again"] = True
    if row.text("state") != "done" or not row.text("task_id"):
        return actions

    words = {_text(word) for word in _Row(row.object("result")).list("actions")}
    system = verb[: verb.rfind("/") + 1]
    if not words and verb.removeprefix(system) in _DRAWS_GRIDS and len(row.list("images")) == _QUADRANTS:
        words = {"reroll", *(f"upscale{number}" for number in range(1, _QUADRANTS + 1))}

    numbers = sorted(int(found[1]) for found in map(_UPSCALE.match, words) if found)
    if numbers and f"{system}upscale" in recipes():
        actions |= {"upscale": numbers, "system": system}
    if "reroll" in words and f"{system}reroll" in recipes():
        actions |= {"reroll": True, "system": system}
    return actions


def _may_be_sent_again(row: _Row, state: str) -> bool:
    """Return whether a request may be paid for once more: nothing of it is open or unknown."""
    request = row.object("request")
    if _text(request.get("verb")) not in recipes() or _is_cut(request):
        return False
    if row.text("state") in {"done", "failed", "cancelled"}:
        return state in {"done", "failed", "cancelled"}

    error = getattr(errors, row.text("error_type"), None)
    was_refused = isinstance(error, type) and issubclass(error, errors.APIError)
    return was_refused and not row.text("task_id")


def _is_cut(value: object) -> bool:
    """Return whether a request lacks what results leave out: long values."""
    ahead = [value]
    while ahead:
        value = ahead.pop()
        if isinstance(value, dict):
            ahead += value.values()
        elif isinstance(value, list):
            ahead += value
        elif isinstance(value, str) and _CUT.search(value):
            return True
    return False


# -- values -----------------------------------------------------------------------------------------


def _text(value: object) -> str:
    """Return a value as text that a page can hold, "" for what is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    text = str(value)
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]}…"
    return text.encode("utf-8", "replace").decode()  # half of a surrogate pair is no text


def _json_of(values: Mapping[str, Any]) -> str:
    """Return an object as JSON: a script would round its large numbers."""
    if not values:
        return ""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "replace").decode()


def _whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
