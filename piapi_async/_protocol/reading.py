"""Reads the parts of any task object: numbers, status words, times, costs, links, reasons.  Pure.

Hosts spell the same fact in many ways: ``42``, ``"42"`` or ``"42%"``; "finished", "completed" or
"success"; a link as a `str`, an object or a list.  Each reader takes all spellings that the
vendor's pages show, that were observed at compatible hosts, or that other clients of such hosts
know.

Only the status word decides whether a task has ended.  What stands beside it never makes an end
unreadable: the readers of links, images, times, costs and reasons raise nothing, and return an
empty value for what they cannot read, which `Task.raw` still has.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .._text import shorten
from ..errors import UnexpectedAnswer
from ..tasks import Cost, TaskId, TaskState

# -- places ----------------------------------------------------------------------------------------


def join(path: str, *steps: str | int) -> str:
    """Return a JSON path with more steps: names follow a dot, positions stand in brackets."""
    for step in steps:
        if isinstance(step, int):
            path = f"{path}[{step}]"
        elif path:
            path = f"{path}.{step}"
        else:
            path = step
    return path


def text_at(response: Mapping[str, Any], name: str, path: str = "") -> str:
    """Return the `str` under a name, "" if there is none; objects and lists are `UnexpectedAnswer`."""
    value = response.get(name)
    if type(value) is str:
        return value

    try:
        return read_text(value)
    except TypeError as error:
        path = join(path, name)
        message = f"The response is not understood at {path}: {error}"
        raise UnexpectedAnswer(message, path=path) from None


def object_at(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the object under a name, an empty one if there is none."""
    value = holder.get(name)
    if isinstance(value, dict):
        return value
    return {}


# -- single values ---------------------------------------------------------------------------------


class WrongItem(TypeError):
    """One item of a list has the wrong shape, not the list; `index` is its position."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def read_text(value: object, _type: object = None) -> str:
    """Return a `str`: numbers are spelt out, null is ""; raise `TypeError` for an object or a list."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError("expected a string")


def read_texts(value: object, _type: object = None) -> tuple[str, ...]:
    """Return a tuple of `str`: empty for null and "", of one for a lone `str`; else `TypeError`."""
    if not value:
        return ()
    if type(value) is not list:
        return (read_text(value),)

    texts = list(value)  # a copy: the JSON is kept as received
    for index, item in enumerate(value):
        if type(item) is not str:
            try:
                texts[index] = read_text(item)
            except TypeError as error:
                raise WrongItem(index, str(error)) from None
    return tuple(texts)


def read_number(value: object, _type: object = None) -> float | None:
    """Return a number, None if there is none; "42%" is 42; objects and lists are `TypeError`."""
    if type(value) is int or value is None:
        return value
    if isinstance(value, str):
        return _spelt_number(value)
    if isinstance(value, (int, float)):
        return +value  # an `int` for a `bool`
    raise TypeError("expected a number")


def _spelt_number(text: str) -> float | None:
    try:
        number = float(text.strip().removesuffix("%"))
    except ValueError:
        return None

    if number.is_integer():
        return int(number)
    return number if math.isfinite(number) else None


def read_int(value: object, _type: object = None) -> int | None:
    """Return a whole number, rounded towards zero; None if there is none.  Raises as `read_number`."""
    if type(value) is int:
        return value

    number = read_number(value)
    return None if number is None else int(number)


_FULL = 100


def read_percent(value: object) -> int | None:
    """Return a progress as 0..100, whatever the host counts; None if it is not a number."""
    if type(value) is int and 0 <= value <= _FULL:
        return value
    if isinstance(value, (dict, list)):
        return None

    number = read_int(value)
    return None if number is None else max(0, min(_FULL, number))


def read_flag(value: object, _type: object = None) -> bool:
    """Return a `bool`: "true", "yes" and "1" are true, null is not; objects and lists: `TypeError`."""
    if isinstance(value, str):
        return value.strip().lower() in {"true", "1", "yes"}
    if isinstance(value, (dict, list)):
        raise TypeError("expected true or false")
    return bool(value)


# -- the status ------------------------------------------------------------------------------------

# The vendor's words, those of compatible hosts, and those that other clients of such hosts know.
# Hosts add to them, so the word itself stays a `str`.
_WORDS: Mapping[TaskState, tuple[str, ...]] = {
    TaskState.WAITING: (
        *("staged", "pending", "queued", "submitted", "scheduled", "waiting"),
        *("retry", "retrying", "cancelling", "canceling"),
    ),
    TaskState.RUNNING: ("starting", "processing", "running", "in_progress"),
    TaskState.DONE: (*("finished", "completed", "succeeded", "succeed", "success", "complete", "done"),),
    TaskState.FAILED: (
        *("failed", "fail", "failure", "error", "timeout", "timed_out", "time_out"),
        *("expired", "aborted", "rejected"),
    ),
    TaskState.CANCELLED: ("cancelled", "canceled"),
}
_STATES: Mapping[str, TaskState] = {word: state for state, words in _WORDS.items() for word in words}
_MERE_NO = frozenset({"failed", "fail", "failure", "error", "rejected"})  # of a request as well as of a task
_KNOWN: Mapping[str, tuple[str, TaskState]] = {word: (word, state) for word, state in _STATES.items()}

_LONGEST_STATUS = 100


def classify(status: str) -> TaskState:
    """Return the state that a status word means; a task with an unknown word is still waiting."""
    # As it stands first: hosts spell it in lower case, and this runs for every poll.
    return _STATES.get(status) or _STATES.get(_normalized(status), TaskState.WAITING)


def is_known_status(status: str) -> bool:
    """Return whether `classify` knows the word, or falls back to "waiting"."""
    return status in _STATES or _normalized(status) in _STATES


def goes_well(word: str) -> bool:
    """Return whether a word is the status of a task that has neither failed nor been cancelled."""
    state = _STATES.get(_normalized(word), TaskState.FAILED)
    return state not in (TaskState.FAILED, TaskState.CANCELLED)


def tells_of_a_task(status: str) -> bool:
    """Return whether a status word is one that nothing but a task has, be it one that went wrong."""
    word = _normalized(status)
    return word in _STATES and word not in _MERE_NO


def is_end(status: object) -> bool:
    """Return whether a value is a status word for the end of a task, good or bad."""
    return isinstance(status, str) and classify(status).terminal


def _normalized(status: str) -> str:
    """Return a status word in lower case and stripped, its parts joined as in "timed_out"."""
    return "_".join(status.lower().replace("-", " ").replace("_", " ").split())


def read_state(data: Mapping[str, Any], asked: TaskId, path: str = "") -> tuple[str, TaskState]:
    """Return the status word of the task that was asked for, and what it means.  Raises as `read_status`."""
    word = data.get("status")
    if type(word) is str and data.get("task_id") == asked:  # nearly always
        known = _KNOWN.get(word)
        if known is not None:
            return known  # one `str` for all tasks, which may be many

    status = read_status(data, asked, path)
    return status, classify(status)


def read_status(data: Mapping[str, Any], asked: TaskId, path: str = "") -> str:
    """Return the status word of the task that was asked for.

    Raises `UnexpectedAnswer` if there is none, or if the object is about another task.
    """
    status = text_at(data, "status", path).strip()
    if not status:
        raise UnexpectedAnswer(f"The response has no status of {asked}", path=join(path, "status"))
    if len(status) > _LONGEST_STATUS:
        status = shorten(status, _LONGEST_STATUS)

    named = id_of(data)
    if named != asked and not _may_mean(named, asked):  # nearly always they are equal
        other = shorten(str(named), _LONGEST_STATUS)
        message = f"The response about {asked} is about another task, {other}"
        raise UnexpectedAnswer(message, path=join(path, "task_id"))
    return status


def id_of(task: Mapping[str, Any]) -> object:
    """Return what an object of a task calls its id: `task_id`, or LegNext's `job_id`."""
    named = task.get("task_id")
    if named is None:
        return task.get("job_id")
    return named


def _may_mean(named: object, asked: TaskId) -> bool:
    """Return whether an object with this `task_id` may be about a task; a non-id says nothing."""
    if not isinstance(named, (str, int, float)) or isinstance(named, bool):
        return True

    text = str(named).strip().lower()
    return not text or text == asked.lower()


# -- times and costs -------------------------------------------------------------------------------


def read_time(value: object) -> datetime | None:
    """Return an ISO 8601 time in UTC; None for anything else, and for the year 1: "not reached"."""
    if not isinstance(value, str):
        return None

    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None

    if time.year <= 1:
        return None
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    return time.astimezone(UTC)


def from_unix(seconds: float | None) -> datetime | None:
    """Return a unix time in UTC; None for 0, which means "not reached", and for what is not a time."""
    if not seconds or seconds < 0:
        return None

    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):  # a year outside the calendar
        return None


_LONGEST_UNIT = 40


def read_cost(amount: object, unit: object = "") -> Cost | None:
    """Return the cost that a response tells of, None if the amount is not one."""
    if isinstance(amount, (bool, dict, list)):
        return None

    number = read_number(amount)
    if number is None or not math.isfinite(number) or number < 0:
        return None

    if not isinstance(unit, str):
        unit = ""
    elif len(unit) > _LONGEST_UNIT:
        unit = shorten(unit, _LONGEST_UNIT)
    return Cost(number, unit)


def read_usage(raw: Mapping[str, Any]) -> Cost | None:
    """Return what a task has consumed, as ``meta.usage`` says; PiAPI's unified API and LegNext have it."""
    usage = object_at(object_at(raw, "meta"), "usage")
    return read_cost(usage.get("consume"), usage.get("type"))


# -- links -----------------------------------------------------------------------------------------

LINK_NAMES = ("url", "href", "image_url", "uri")
"""Where a link is an object, it stands under the first of these names."""

IMAGE_FIELDS = (
    "image_urls",
    "temporary_image_urls",
    "image_url",
    "discord_image_url",
    "permanent_url",
)
"""Where the pictures of a result are; with Midjourney the first that is there has them all."""


def links_in(value: object) -> tuple[str, ...]:
    """Return the links of a value, in its order: a `str`, an object with a link, or a list of them."""
    if type(value) is str:  # nearly always one of these two
        return (value,) if value.strip() else ()
    if type(value) is list:
        try:
            return tuple(filter(str.strip, value))
        except TypeError:  # not all of them are of `str`
            pass

    links: list[str] = []
    ahead: list[Any] = [value]
    while ahead:  # an explicit stack, because JSON may be nested deeper than Python can recurse
        value = ahead.pop()
        if isinstance(value, str):
            if value.strip():
                links.append(value)
        elif isinstance(value, list):
            ahead += reversed(value)
        elif isinstance(value, dict):
            ahead += [value[name] for name in LINK_NAMES if value.get(name)][:1]
    return tuple(links)


def pick_images(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the links of the first field of a result that has any, in the grid's reading order."""
    for name in IMAGE_FIELDS:
        if result.get(name):
            links = links_in(result[name])
            if links:
                return links
    return ()


# -- reasons of a failure --------------------------------------------------------------------------

# In the order in which they are shown: the documented list, then the host's error, then more
# general texts.
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


def failure_text(task: Mapping[str, Any], result: object) -> str:
    """Return why a task failed: the reasons in its `result` and beside it, each once; "" if none."""
    reasons: dict[str, None] = {}
    for holder in (result, task):
        if not isinstance(holder, dict):
            continue

        for reason in reasons_in(_known_reasons(holder)):
            reasons[reason] = None
            if len(reasons) == _MOST_REASONS:
                break
    return shorten("; ".join(reasons), _LONGEST_ERROR)


def reasons_in(value: object) -> Iterator[str]:
    """Yield the reasons that a value gives, in its order.

    They are strings and numbers, in lists and objects of any shape.  If an object has none under a
    known name, all that it holds is shown with its name: ``{"code": 7}`` is "code: 7".
    """
    ahead: list[Any] = [value]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += reversed(value)
        elif isinstance(value, dict):
            ahead += reversed(_known_reasons(value) or _named_values(value))
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            text = str(value).strip()
            if text:
                yield shorten(text, _LONGEST_REASON)


def _known_reasons(holder: Mapping[str, Any]) -> list[Any]:
    """Return what an object says under the names of reasons; of `logs` only the last line."""
    found = []
    for name in _REASON_NAMES:
        value = holder.get(name)
        if name == "logs" and isinstance(value, list):
            value = value[-1:]
        if value:
            found.append(value)
    return found


def _named_values(holder: Mapping[str, Any]) -> list[Any]:
    values: list[Any] = []
    for name, value in holder.items():
        if isinstance(value, (dict, list)) and value:
            values.append(value)
        elif value and value is not True:
            values.append(f"{name}: {value}")
    return values


def texts_in(value: object) -> tuple[str, ...]:
    """Return the strings that a value holds where a `str`, or a list of them, was meant.

    An object stands for its link, or for what it gives as a reason.
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
