"""What a state file says, believed field by field: a file may be cut, edited by hand, or of another program.  Pure.

A task that is taken must never make an answer fail later, so its values are held against the same tables as a create's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

import attrs
from attrs import frozen

from .._api.older import MAKES
from .catalog import check_given, find_system, hook_of
from .requests import MIDJOURNEY, Door, Kind, Refused
from .tasks import DURATIONS, ENDS, LIFE, Event, Fate, Stage, Task
from .verbs import VERBS, accept

VERSION = 1
#: That of a picture whose width and height were asked for has their digits.
_RATIO = re.compile(r"0*[1-9]\d{0,5}:0*[1-9]\d{0,5}")
#: No second of a run, and no unix time, is further from zero.
_FAR = 1e11
_LONGEST_ID = 200

E = TypeVar("E", bound=Enum)
Read = Callable[[object], Any]


@frozen
class Saved:
    """A snapshot: the tasks, emulated `now`, the unix times of emulated second 0 and of the saving."""

    tasks: tuple[Task, ...]
    now: float
    serial: int
    epoch: float
    saved_at: float


def recalled(content: object) -> Saved:
    """Return what a file's JSON says; `ValueError` says which field of which task makes no sense."""
    saved = _object(content)
    if _field(saved, "version", _whole) != VERSION:
        raise ValueError(f"its version is {saved['version']}, not {VERSION}")
    tasks = []
    for number, fields in enumerate(_field(saved, "tasks", _list), 1):
        try:
            tasks.append(_task(_object(fields)))
        except ValueError as error:
            raise ValueError(f"task {number}: {error}") from error
    for what in ("task_id", "serial"):
        if len({getattr(task, what) for task in tasks}) < len(tasks):
            raise ValueError(f"two tasks have the same {what}")
    serial = _field(saved, "serial", _whole)
    if serial < max((task.serial for task in tasks), default=0):
        raise ValueError(f"serial: {serial} is less than a task's")
    now, epoch, saved_at = (_field(saved, name, _number) for name in ("now", "epoch", "saved_at"))
    return Saved(tuple(tasks), now, serial, epoch, saved_at)


def _task(fields: dict[str, Any]) -> Task:
    known = attrs.fields_dict(Task)
    if unknown := sorted(fields.keys() - known.keys()):
        raise ValueError(f"{str(unknown[0])[:100]}: unknown field")
    # A file of an earlier release lacks the fields that came later: they have defaults.
    required = [name for name, attribute in known.items() if attribute.default is attrs.NOTHING or name in _ALWAYS]
    if missing := [name for name in required if name not in fields]:
        raise ValueError(f"{missing[0]}: missing")
    task = Task(**{name: _field(fields, name, _READ[name]) for name in fields})
    _check_life(task)
    _check_making(task)
    return task


def _check_life(task: Task) -> None:
    """Refuse a task that stands where no life leads."""
    ended = task.stage in ENDS
    if ended is not (task.ended is not None):
        raise ValueError(f"ended: {task.ended} does not go with the stage {task.stage}")
    if task.stage in (Stage.PROCESSING, Stage.RETRY) and task.started is None:
        raise ValueError(f"started: {task.started} does not go with the stage {task.stage}")
    stage = task.stage
    for _, event in task.script:
        if (stage, event) not in LIFE:
            raise ValueError(f"script: {event.name} cannot follow {stage}")
        stage = LIFE[stage, event]
    if stage not in ENDS and stage is not Stage.STAGED:
        raise ValueError("script: it has no end")


def _check_making(task: Task) -> None:
    """Refuse a task that no create could have made."""
    if not _RATIO.fullmatch(task.aspect_ratio):
        raise ValueError(f"aspect_ratio: {task.aspect_ratio[:100]!r} is no ratio")
    if task.mode not in DURATIONS:
        raise ValueError(f"mode: {task.mode[:100]!r} is unknown")
    system = find_system(task.model, task.verb)
    if task.verb not in VERBS if task.model == MIDJOURNEY else system is None:
        raise ValueError(f"verb: {task.verb[:100]!r} is none of {task.model[:100]!r}")
    if (task.kind is Kind.FILES) is (task.model == MIDJOURNEY):
        raise ValueError(f"kind: {task.kind} is not what {task.model} makes")
    if task.adopted:
        return
    doors = (Door.MIDJOURNEY, Door.UNIFIED) if task.model == MIDJOURNEY else (Door.UNIFIED,)
    if task.door not in doors and MAKES.get(task.door) != (task.model, task.verb):
        raise ValueError(f"door: {task.model[:100]}'s tasks are not made by {task.door}")
    try:
        if system is None:
            accept(VERBS[task.verb], task.given, kept=True)
        else:
            check_given(system, task.given, kept=True)
            hook_of({"endpoint": task.given.get("webhook_endpoint"), "secret": task.given.get("webhook_secret")})
    except Refused as refusal:
        raise ValueError(f"given: {refusal.message}") from refusal


# -- one value --------------------------------------------------------------------------------------------------------


def _field(fields: Mapping[str, Any], name: str, read: Read) -> Any:  # noqa: ANN401 - whatever `read` returns
    if name not in fields:
        raise ValueError(f"{name}: missing")
    try:
        return read(fields[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")  # noqa: TRY004 - all that is wrong with a file is a ValueError
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is expected")  # noqa: TRY004 - the same
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is expected")  # noqa: TRY004 - the same
    return value


def _id(value: object) -> str:
    if not 0 < len(_text(value)) <= _LONGEST_ID:
        raise ValueError(f"1 to {_LONGEST_ID} characters are expected")
    return _text(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false is expected")  # noqa: TRY004 - the same
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_FAR <= value <= _FAR:
        raise ValueError("a number is expected")
    return float(value)


def _positive(value: object) -> float:
    if not _number(value) > 0:
        raise ValueError("a number above 0 is expected")
    return _number(value)


def _skew(value: object) -> float:
    if not _number(value) > -1:
        raise ValueError("a number above -1 is expected")
    return _number(value)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise ValueError("a whole number is expected")
    return value


def _word(kind: type[E]) -> Callable[[object], E]:
    def read(value: object) -> E:
        try:
            return kind(value)
        except ValueError:
            raise ValueError(f"{str(value)[:100]!r} is unknown") from None

    return read


def _maybe(read: Read) -> Read:
    return lambda value: None if value is None else read(value)


def _script(value: object) -> tuple[tuple[float, Event], ...]:
    steps = []
    for step in _list(value):
        if not isinstance(step, list) or len(step) != 2:  # noqa: PLR2004 - a pair
            raise ValueError("pairs of a time and an event are expected")
        at, name = step
        if _text(name) not in Event.__members__:
            raise ValueError(f"{name[:100]!r} is unknown")
        steps.append((_number(at), Event[name]))
    if sorted(at for at, _ in steps) != [at for at, _ in steps]:
        raise ValueError("its times do not rise")
    return tuple(steps)


def _fate(value: object) -> Fate:
    fields = _object(value)
    return Fate(
        _field(fields, "fails", _text),
        _field(fields, "retries", _maybe(_whole)),
        _field(fields, "seconds", _maybe(_positive)),
    )


_READ: Mapping[str, Read] = {
    "task_id": _id,
    **dict.fromkeys(
        ("account", "verb", "prompt", "mode", "aspect_ratio", "error", "model", "service_mode", "key_id"), _text
    ),
    **dict.fromkeys(("created", "attempt"), _number),
    **dict.fromkeys(("admitted", "started", "ended"), _maybe(_number)),
    **dict.fromkeys(("serial", "retries"), _whole),
    "length": _positive,
    "skew": _skew,
    "adopted": _flag,
    "given": _object,
    "kind": _word(Kind),
    "stage": _word(Stage),
    "door": _word(Door),
    "fate": _fate,
    "script": _script,
}
#: Fields that were there from the first release on, defaults or not.
_ALWAYS = frozenset(
    ("stage", "admitted", "started", "ended", "retries", "error", "adopted", "skew", "attempt", "length", "script")
)
