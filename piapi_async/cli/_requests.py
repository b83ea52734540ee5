"""From words to requests: every verb that makes a task, by its name, and how its fields are read from text."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin, get_type_hints

import attrs
from attrs import frozen

from .. import legacy
from ..models import catalog
from ._verbs import VERBS

if TYPE_CHECKING:
    from .._wire import Attaching, TaskRequest

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
        fields = sorted(
            attrs.fields(self.request), key=lambda f: (f.kw_only, f.default is not attrs.NOTHING, f.name in AROUND)
        )
        return {f.name: f for f in fields if f.init and f.name not in self.preset}

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

    def from_text(self, name: str, text: str) -> object:
        """Give the value that a text stands for, by the type of the field; a field that is unknown keeps its text."""
        cls: Any = self.request
        hint = _hints(cls).get(name)
        kinds = {hint, *get_args(hint)}
        if any(get_origin(kind) in {tuple, Sequence} for kind in kinds):
            return tuple(text.split())
        if bool in kinds and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        for kind in (int, float):
            if kind in kinds:
                with contextlib.suppress(ValueError):  # the field itself says what it wants
                    return kind(text)
        return text


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
