"""From words to requests: every verb that makes a task, by its name, and how its fields are read from text."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from .. import legacy
from ..models import catalog
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._protocol.family import Attaching, TaskRequest

OLDER: Mapping[str, type[Any]] = {
    legacy.FACE_SWAP.name: legacy.FaceSwap,
    legacy.DREAM_MACHINE.name: legacy.DreamMachine,
    legacy.LEGACY_KLING.name: legacy.LegacyKling,
}


AROUND = frozenset({"service_mode", "webhook_endpoint", "webhook_secret", "notify_progress", "extra"})
"""Fields that many requests have, and that are no inputs of the model."""


@frozen
class Recipe:
    """How one verb's request is made from its fields; those in `preset` follow from the verb's name."""

    verb: str
    request: type[Any]
    preset: Mapping[str, Any]

    @property
    def fields(self) -> Mapping[str, attrs.Attribute[Any]]:
        """The fields that can be given: the positional one first, what all requests have last."""
        return _fields_of(self._class, tuple(self.preset))

    @property
    def required(self) -> list[str]:
        """The names of the fields that must be given."""
        return [name for name, f in self.fields.items() if f.default is attrs.NOTHING]

    def make(self, given: Mapping[str, Any]) -> TaskRequest[Any]:
        """Give the request; raise `ValueError` that names what is unknown, missing or not allowed."""
        fields = self.fields
        if unknown := [name for name in given if name not in fields]:
            close = difflib.get_close_matches(unknown[0], fields, 1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"{', '.join(sorted(unknown))}: {self.verb} takes only {', '.join(fields)}{hint}")
        if missing := [name for name in self.required if name not in given]:
            raise ValueError(f"{', '.join(missing)}: missing; {self.verb} cannot do without")
        values = {name: with_files(value) if _takes_file(fields[name]) else value for name, value in given.items()}
        positional = [values.pop(name) for name, f in fields.items() if not f.kw_only and name in values]
        request: TaskRequest[Any] = self.request(*positional, **values, **self.preset)
        return request

    def from_text(self, name: str, text: str, *, decimal: str = ".") -> object:
        """Return the value that a text stands for, by the type of the field; a field that is unknown keeps its text.

        Spreadsheets write 5.0 for a whole number, where a cell of the column is empty; `decimal` is their decimal sign.
        """
        kinds = self._kinds(name)
        if any(get_origin(kind) in {tuple, Sequence} for kind in kinds):
            return tuple(text.split())
        if bool in kinds and text.strip().lower() in _FLAGS:
            return _FLAGS[text.strip().lower()]
        if kinds & {int, float} or _spells_numbers(self._class, name):
            return _number(text, decimal)
        return text

    def from_json(self, name: str, value: object) -> object:
        """Return a value of JSON for a field: pandas writes 5.0 for a whole number, too."""
        kinds = self._kinds(name)
        if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
            return int(value)
        return value

    def _kinds(self, name: str) -> frozenset[Any]:
        return _kinds_of(self._class, name)

    @property
    def _class(self) -> Any:  # noqa: ANN401 - a class, which type checkers do not take for hashable
        return self.request


_FLAGS = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


def _number(text: str, decimal: str) -> object:
    """Return the number that a text stands for, the text where it is none: the field itself says what it wants."""
    plain = text.strip()
    with contextlib.suppress(ValueError):
        return int(plain)
    if decimal != ".":
        plain = plain.replace(decimal, ".")
    with contextlib.suppress(ValueError):
        value = float(plain)
        if value.is_integer():
            return int(value)
        if math.isfinite(value):
            return value
    return text


@cache
def _fields_of(cls: Any, preset: tuple[str, ...]) -> Mapping[str, attrs.Attribute[Any]]:  # noqa: ANN401 - a class
    fields = sorted(attrs.fields(cls), key=lambda f: (f.kw_only, f.default is not attrs.NOTHING, f.name in AROUND))
    return MappingProxyType({f.name: f for f in fields if f.init and f.name not in preset})


@cache
def _kinds_of(cls: Any, name: str) -> frozenset[Any]:  # noqa: ANN401 - a class
    """Return the types that a field may have, those of the values that a `Literal` lists among them."""
    hint = _hints(cls).get(name)
    kinds = {hint, *get_args(hint)}
    return frozenset(kinds | {type(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)})


@cache
def _spells_numbers(cls: Any, name: str) -> bool:  # noqa: ANN401 - a class
    """Return whether a field takes a number for the text that the wire has for it."""
    converter = getattr(attrs.fields_dict(cls).get(name), "converter", None)
    return callable(converter) and converter(1) == "1"


@cache
def _hints(cls: Any) -> dict[str, Any]:  # noqa: ANN401 - a class
    return get_type_hints(cls)


def _takes_file(attribute: attrs.Attribute[Any]) -> bool:
    return bool(attribute.metadata.get("link"))


def with_files(value: Any) -> Any:  # noqa: ANN401 - as it was given
    """Give a path for every ``@cat.png`` in a value, which is to be uploaded, and the text ``@bob`` for ``@@bob``."""
    if isinstance(value, dict):
        return {name: with_files(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_files(item) for item in value]
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    return value[1:] if value.startswith("@@") else Path(value[1:])


def missing_file(request: TaskRequest[Any]) -> str:
    """Say which file of a request is not there, "" if all are."""
    files = cast("Attaching", request).local_files() if hasattr(request, "local_files") else ()
    missing = next((path for path in files if not Path(path).is_file()), None)
    if missing is None:
        return ""
    return f"{missing}: no such file (@ begins a file to be uploaded, @@ a text that begins with @)"


@cache
def recipes() -> Mapping[str, Recipe]:
    """Give every verb that makes a task: the legacy ones, then ``system/task_type``."""
    verbs = {cls.__name__.lower(): Recipe(cls.__name__.lower(), cls, {}) for cls in VERBS}
    unified = {
        name: Recipe(name, entry.request, {"task_type": entry.task_type} if _chooses(entry.request) else {})
        for name, entry in catalog().items()
    }
    older = {name: Recipe(name, cls, {}) for name, cls in OLDER.items()}
    return {**verbs, **unified, **older}


def _chooses(cls: type[Any]) -> bool:
    """Tell whether a class leaves its task type open, so that the verb's name must say it."""
    return any(f.name == "task_type" and f.metadata.get("names") for f in attrs.fields(cls))


_SUNO = frozenset({"suno", "music-s"})
"""What tasks of a model were called that the vendor has stopped."""


def unknown_verb(verb: object) -> str:
    """Say that there is no such verb, and which is meant perhaps."""
    if str(verb).lower().replace(":", "/").partition("/")[0] in _SUNO:
        return f"{verb!r} is not allowed: the vendor has stopped Suno; udio/generate_music makes songs"
    close = difflib.get_close_matches(str(verb), recipes(), 3)
    verbs = ", ".join(cls.__name__.lower() for cls in VERBS)
    hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {verbs}, or one that `models` lists"
    return f"{verb!r} is not allowed; {hint}"
