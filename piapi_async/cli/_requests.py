"""From words to requests: every verb that creates a task, and how its fields are read from text."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from .. import legacy, legnext
from ..models import catalog
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._protocol.family import Attaching, TaskRequest

OLDER: Mapping[str, type[Any]] = {
    legacy.FACE_SWAP.name: legacy.FaceSwap,
    legacy.DREAM_MACHINE.name: legacy.DreamMachine,
    legacy.LEGACY_KLING.name: legacy.LegacyKling,
}


LEGNEXT: Mapping[str, type[Any]] = {
    f"legnext/{re.sub('(?<=[a-z])(?=[A-Z])', '_', cls.__name__).lower()}": cls
    for cls in map(vars(legnext).get, legnext.__all__)
    if isinstance(cls, type) and hasattr(cls, "verb")
}
"""LegNext's verbs, by names such as ``legnext/remove_background``."""

AROUND = frozenset({"service_mode", "webhook_endpoint", "webhook_secret", "notify_progress", "extra"})
"""Fields that many requests have and that are not inputs of the model."""


@frozen
class Recipe:
    """How a verb's request is built from its fields; those in `preset` follow from the verb's name."""

    verb: str
    request: type[Any]
    preset: Mapping[str, Any]

    @property
    def fields(self) -> Mapping[str, attrs.Attribute[Any]]:
        """The fields that can be given: the positional one first, those that all requests have last."""
        return _fields_of(self._class, tuple(self.preset))

    @property
    def required(self) -> list[str]:
        """The names of the fields that must be given."""
        return [name for name, f in self.fields.items() if f.default is attrs.NOTHING]

    def make(self, given: Mapping[str, Any]) -> TaskRequest[Any]:
        """Return the request; raise `ValueError` that names unknown, missing or wrong fields."""
        fields = self.fields
        unknown = [name for name in given if name not in fields]
        if unknown:
            raise ValueError(self._unknown_fields(unknown))
        missing = [name for name in self.required if name not in given]
        if missing:
            raise ValueError(f"{', '.join(missing)}: missing; {self.verb} requires it")

        values = dict(given)
        for name in given:
            if _takes_file(fields[name]):
                values[name] = with_files(values[name])
        positional = [values.pop(name) for name, f in fields.items() if not f.kw_only and name in values]
        request: TaskRequest[Any] = self.request(*positional, **values, **self.preset)
        return request

    def _unknown_fields(self, unknown: list[str]) -> str:
        text = f"{', '.join(sorted(unknown))}: {self.verb} takes only {', '.join(self.fields)}"
        close = difflib.get_close_matches(unknown[0], self.fields, 1)
        if close:
            text += f" (did you mean {close[0]}?)"
        hints = getattr(self.request, "hints", {})
        told = [f" ({name}: {hints[name]})" for name in sorted(unknown) if name in hints]
        return text + "".join(told)

    def from_text(self, name: str, text: str, *, decimal: str = ".") -> object:
        """Return the value that a text stands for, by the type of its field; unknown fields keep it.

        Spreadsheets write 5.0 for a whole number if a cell of the column is empty; `decimal` is their
        decimal sign.
        """
        kinds = self._kinds(name)
        if any(get_origin(kind) in {tuple, Sequence} for kind in kinds):
            return tuple(text.split())

        flag = text.strip().lower()
        if bool in kinds and flag in _FLAGS:
            return _FLAGS[flag]
        if kinds & {int, float} or _spells_numbers(self._class, name):
            return _number(text, decimal)
        return text

    def from_json(self, name: str, value: object) -> object:
        """Return a JSON value for a field; pandas too writes 5.0 for a whole number."""
        kinds = self._kinds(name)
        wants_int = int in kinds and float not in kinds
        if wants_int and isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    def _kinds(self, name: str) -> frozenset[Any]:
        return _kinds_of(self._class, name)

    @property
    def _class(self) -> Any:  # noqa: ANN401 - a class, which type checkers do not take for hashable
        return self.request


_FLAGS = {
    **dict.fromkeys(("true", "yes", "1", "1.0"), True),
    **dict.fromkeys(("false", "no", "0", "0.0"), False),
}


def _number(text: str, decimal: str) -> object:
    """Return the number that a text stands for, else the text, which the field will refuse."""
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
def _fields_of(
    cls: Any,  # noqa: ANN401 - a class
    preset: tuple[str, ...],
) -> Mapping[str, attrs.Attribute[Any]]:
    def rank(f: attrs.Attribute[Any]) -> tuple[bool, bool, bool]:
        return f.kw_only, f.default is not attrs.NOTHING, f.name in AROUND

    fields = sorted(attrs.fields(cls), key=rank)
    return MappingProxyType({f.name: f for f in fields if f.init and f.name not in preset})


@cache
def _kinds_of(cls: Any, name: str) -> frozenset[Any]:  # noqa: ANN401 - a class
    """Return the types that a field may have, including those of a `Literal`'s values."""
    hint = _hints(cls).get(name)
    kinds = {hint, *get_args(hint)}
    literals = [kind for kind in kinds if get_origin(kind) is Literal]
    return frozenset(kinds | {type(word) for literal in literals for word in get_args(literal)})


@cache
def _spells_numbers(cls: Any, name: str) -> bool:  # noqa: ANN401 - a class
    """Return whether a field accepts a number for what is a string on the wire."""
    converter = getattr(attrs.fields_dict(cls).get(name), "converter", None)
    return callable(converter) and converter(1) == "1"


@cache
def _hints(cls: Any) -> dict[str, Any]:  # noqa: ANN401 - a class
    return get_type_hints(cls)


def _takes_file(attribute: attrs.Attribute[Any]) -> bool:
    return bool(attribute.metadata.get("link"))


def with_files(value: Any) -> Any:  # noqa: ANN401 - as it was given
    """Return a value with a path, to be uploaded, for every ``@cat.png``, and ``@bob`` for ``@@bob``."""
    if isinstance(value, dict):
        return {name: with_files(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_files(item) for item in value]
    if not isinstance(value, str) or not value.startswith("@"):
        return value
    if value.startswith("@@"):
        return value[1:]
    return Path(value[1:])


def missing_file(request: TaskRequest[Any]) -> str:
    """Return an error text for the first file of a request that does not exist, "" if all do."""
    if not hasattr(request, "local_files"):
        return ""

    for path in cast("Attaching", request).local_files():
        if not Path(path).is_file():
            return f"{path}: no such file (@ begins a file to upload, @@ a string that begins with @)"
    return ""


@cache
def recipes() -> Mapping[str, Recipe]:
    """Return all verbs that create a task: Midjourney's, ``system/task_type``, the older ones, LegNext's."""
    found = {name: Recipe(name, cls, {}) for name, cls in VERBS.items()}

    for name, entry in catalog().items():
        preset = {}
        if _chooses(entry.request):
            preset["task_type"] = entry.task_type
        found[name] = Recipe(name, entry.request, preset)

    for name, cls in {**OLDER, **LEGNEXT}.items():
        found[name] = Recipe(name, cls, {})
    return found


def _chooses(cls: type[Any]) -> bool:
    """Return whether a class leaves its task type open, so that the verb's name must say it."""
    return any(f.name == "task_type" and f.metadata.get("names") for f in attrs.fields(cls))


_SUNO = frozenset({"suno", "music-s"})
"""Names of a model that the vendor has withdrawn (vendor page)."""


def unknown_verb(verb: object) -> str:
    """Return the error text for a verb that does not exist, with a suggestion."""
    if str(verb).lower().replace(":", "/").partition("/")[0] in _SUNO:
        return f"{verb!r} is not allowed: the vendor has withdrawn Suno; udio/generate_music makes songs"

    close = difflib.get_close_matches(str(verb), recipes(), 3)
    if close:
        return f"{verb!r} is not allowed; did you mean {' or '.join(close)}?"
    verbs = ", ".join(VERBS)
    return f"{verb!r} is not allowed; use one of {verbs}, or one that `models` lists"
