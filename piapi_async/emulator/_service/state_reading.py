"""Reading a state file field by field: it may be cut, edited by hand, or of another program.  Pure.

A task that is restored must never make a later response fail, so its values are checked against the
same tables as those of a create.  Errors name fields as the file does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeVar

import attrs
from attrs import frozen

from .catalog import OLDER_TASKS, find_system
from .creating import webhook_fields
from .durations import DURATIONS
from .input_checks import check_input
from .legnext import BY_TASK_TYPE, check_remembered
from .requests import MIDJOURNEY, Kind, Protocol, Refusal
from .tasks import END_STAGES, LIFE, Event, Script, Stage, Step, Task
from .verbs import VERBS, checked_fields

VERSION = 1

#: Fields of a task that have another name in the file, and the names that events have there: the
#: format is older.
STORED_AS: Mapping[str, str] = {"protocol": "door", "script": "fate", "steps": "script"}
EVENT_NAMES: Mapping[Event, str] = {event: event.name for event in Event} | {Event.RETRY: "STUMBLE"}

_ATTRIBUTES = {STORED_AS.get(name, name): name for name in attrs.fields_dict(Task)}
_EVENTS = {name: event for event, name in EVENT_NAMES.items()}
#: That of a picture whose width and height were asked for has their digits.
_RATIO = re.compile(r"0*[1-9]\d{0,5}:0*[1-9]\d{0,5}")
#: No second of a run, and no unix time, is further from zero.
_FAR = 1e11
_LONGEST_ID = 200

E = TypeVar("E", bound=Enum)
Read = Callable[[object], Any]


@frozen
class Saved:
    """What was saved: the tasks, and the time.

    `now` is in emulated seconds; `epoch` and `saved_at` are the unix times of second 0 and of the
    saving.
    """

    tasks: tuple[Task, ...]
    now: float
    serial: int
    epoch: float
    saved_at: float


def read_state(content: object) -> Saved:
    """Return what a file's JSON says; raise `ValueError` naming the field of the task that makes no sense."""
    saved = _object(content)
    if _field(saved, "version", _whole) != VERSION:
        raise ValueError(f"its version is {saved['version']}, not {VERSION}")

    tasks = tuple(_read_tasks(_field(saved, "tasks", _list)))
    for what in ("task_id", "serial"):
        if len({getattr(task, what) for task in tasks}) < len(tasks):
            raise ValueError(f"two tasks have the same {what}")

    serial = _field(saved, "serial", _whole)
    if serial < max((task.serial for task in tasks), default=0):
        raise ValueError(f"serial: {serial} is less than a task's")

    now, epoch, saved_at = (_field(saved, name, _number) for name in ("now", "epoch", "saved_at"))
    return Saved(tasks, now, serial, epoch, saved_at)


def _read_tasks(items: list[Any]) -> Iterable[Task]:
    for number, fields in enumerate(items, 1):
        try:
            yield _task(_object(fields))
        except ValueError as error:
            raise ValueError(f"task {number}: {error}") from error


def _task(fields: dict[str, Any]) -> Task:
    if unknown := sorted(fields.keys() - _ATTRIBUTES.keys()):
        raise ValueError(f"{str(unknown[0])[:100]}: unknown field")
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise ValueError(f"{missing[0]}: missing")

    task = Task(**{_ATTRIBUTES[name]: _field(fields, name, _READ[name]) for name in fields})
    _check_life(task)
    _check_create(task)
    return task


def _check_life(task: Task) -> None:
    """Raise `ValueError` for a task in a state that no life leads to."""
    ended = task.stage in END_STAGES
    if ended is not (task.ended is not None):
        raise ValueError(f"ended: {task.ended} does not go with the stage {task.stage}")

    if task.stage in (Stage.PROCESSING, Stage.RETRY) and task.started is None:
        raise ValueError(f"started: {task.started} does not go with the stage {task.stage}")

    stage = task.stage
    for _, event in task.steps:
        if (stage, event) not in LIFE:
            raise ValueError(f"script: {EVENT_NAMES[event]} cannot follow {stage}")
        stage = LIFE[stage, event]

    if stage not in END_STAGES and stage is not Stage.STAGED:
        raise ValueError("script: it has no end")


def _check_create(task: Task) -> None:
    """Raise `ValueError` for a task that no create could have made."""
    is_midjourney = task.model == MIDJOURNEY
    if not _RATIO.fullmatch(task.aspect_ratio):
        raise ValueError(f"aspect_ratio: {task.aspect_ratio[:100]!r} is not a ratio")
    if task.mode not in DURATIONS:
        raise ValueError(f"mode: {task.mode[:100]!r} is unknown")

    if task.protocol is Protocol.LEGNEXT:
        _check_legnext(task)
        return

    known = task.verb in VERBS if is_midjourney else find_system(task.model, task.verb) is not None
    if not known:
        raise ValueError(f"verb: {task.verb[:100]!r} is none of {task.model[:100]!r}")
    if (task.kind is Kind.FILES) is is_midjourney:
        raise ValueError(f"kind: {task.kind} is not what {task.model} makes")

    if not task.adopted:
        _check_protocol(task)
        _check_given(task)


def _check_legnext(task: Task) -> None:
    try:
        check_remembered(task.verb, task.given)
    except Refusal as refusal:
        raise ValueError(f"given: {refusal.message}") from refusal
    if task.model != MIDJOURNEY or task.kind is not BY_TASK_TYPE[task.verb].makes:
        raise ValueError(f"kind: {task.kind} is not what {task.verb} makes")


def _check_protocol(task: Task) -> None:
    protocols = {Protocol.UNIFIED}
    if task.model == MIDJOURNEY:
        protocols.add(Protocol.MIDJOURNEY)

    if task.protocol not in protocols and OLDER_TASKS.get(task.protocol) != (task.model, task.verb):
        raise ValueError(f"door: {task.model[:100]}'s tasks are not made by {task.protocol}")


def _check_given(task: Task) -> None:
    system = find_system(task.model, task.verb)
    try:
        if system is None:
            checked_fields(VERBS[task.verb], task.given, from_memory=True)
        else:
            check_input(system, task.given, from_memory=True)
            endpoint, secret = (task.given.get(f"webhook_{name}") for name in ("endpoint", "secret"))
            webhook_fields({"endpoint": endpoint, "secret": secret})
    except Refusal as refusal:
        raise ValueError(f"given: {refusal.message}") from refusal


# -- single values ------------------------------------------------------------------------------


def _field(fields: Mapping[str, Any], name: str, read: Read) -> Any:  # noqa: ANN401 - whatever `read` returns
    if name not in fields:
        raise ValueError(f"{name}: missing")
    try:
        return read(fields[name])
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object is expected")  # noqa: TRY004 - as all that is wrong
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("a list is expected")  # noqa: TRY004 - the same
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a string is expected")  # noqa: TRY004 - the same
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


def _steps(value: object) -> tuple[Step, ...]:
    steps = []
    for step in _list(value):
        if not isinstance(step, list) or len(step) != 2:  # noqa: PLR2004 - a pair
            raise ValueError("pairs of a time and an event are expected")
        at, name = step
        if _text(name) not in _EVENTS:
            raise ValueError(f"{name[:100]!r} is unknown")
        steps.append((_number(at), _EVENTS[name]))

    times = [at for at, _ in steps]
    if times != sorted(times):
        raise ValueError("its times do not rise")
    return tuple(steps)


def _script(value: object) -> Script:
    fields = _object(value)
    return Script(
        fails=_field(fields, "fails", _text),
        retries=_field(fields, "retries", _maybe(_whole)),
        seconds=_field(fields, "seconds", _maybe(_positive)),
    )


#: How each field of a task is read, by its name in the file.
_READ: Mapping[str, Read] = {
    "task_id": _id,
    "account": _text,
    "verb": _text,
    "kind": _word(Kind),
    "given": _object,
    "prompt": _text,
    "mode": _text,
    "aspect_ratio": _text,
    "created": _number,
    "serial": _whole,
    "stage": _word(Stage),
    "admitted": _maybe(_number),
    "started": _maybe(_number),
    "ended": _maybe(_number),
    "retries": _whole,
    "error": _text,
    "adopted": _flag,
    "model": _text,
    "door": _word(Protocol),
    "service_mode": _text,
    "key_id": _text,
    "skew": _skew,
    "attempt": _number,
    "length": _positive,
    "fate": _script,
    "script": _steps,
}
#: Fields that were there from the first version on, although they have defaults.
_FIRST = frozenset(
    (
        "stage",
        "admitted",
        "started",
        "ended",
        "retries",
        "error",
        "adopted",
        "skew",
        "attempt",
        "length",
        "script",
    )
)
#: A file of an earlier release lacks the fields that came later; they all have defaults.
_REQUIRED = tuple(
    stored
    for stored, name in _ATTRIBUTES.items()
    if attrs.fields_dict(Task)[name].default is attrs.NOTHING or stored in _FIRST
)
