"""Decodes JSON into attrs values, leniently.  Pure.

`Structure` holds two cattrs converters' views of one class.  The fast one does the work.  What is
merely spelt in another way (``"42"``, ``42.0``, null) it reads; a wrong shape (an object where a
string was meant) is an error.  Then `Structure.__call__` runs a slower converter, which knows the
place of the error, and raises `UnexpectedAnswer` with it; `Structure.salvage` runs one that raises
nothing and leaves empty what it cannot read, because the details of a task that has ended must not
make its end unreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from types import GenericAlias
from typing import Any, Generic, TypeVar, get_args, get_origin

import attrs
import cattrs
import orjson
from cattrs.errors import AttributeValidationNote, BaseValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from .._text import excerpt
from ..errors import UnexpectedAnswer
from .reading import (
    WrongItem,
    join,
    read_flag,
    read_int,
    read_number,
    read_text,
    read_texts,
    texts_in,
)

T = TypeVar("T")

Hook = Callable[[Any, Any], Any]
"""What cattrs calls with a value and the type to make of it."""


class Structure(Generic[T]):
    """Reads JSON as one attrs class."""

    def __init__(self, cls: type[T]) -> None:
        self._cls = cls

    @cached_property
    def _fast(self) -> Hook:
        # Made when it is first called: cattrs writes a function for every class, and most programs
        # read a few of them.
        return _converter().get_structure_hook(self._cls)

    def prepare(self) -> None:
        """Raise what cattrs raises for a class that it cannot make: before anything is paid for."""
        _ = self._fast

    def __reduce__(self) -> tuple[Any, ...]:
        return Structure, (self._cls,)  # the fast converter is a generated function: no pickle

    def __call__(self, data: object, path: str = "") -> T:
        """Return `data` as the class; raise `UnexpectedAnswer` with the place that does not fit."""
        try:
            value: T = self._fast(data, self._cls)
        except (TypeError, ValueError) as error:
            raise _explain(data, self._cls, path, error) from None
        return value

    def salvage(self, data: object) -> T:
        """Return `data` as the class; what cannot be read of it is empty."""
        try:
            value: T = self._fast(data, self._cls)
        except (TypeError, ValueError, OverflowError):
            value = _salvager().structure(data, self._cls)
        return value


# -- the fast converter, and the one that explains -------------------------------------------------


@cache
def _converter() -> cattrs.Converter:
    return _make_converter(detailed=False)


@cache
def _explainer() -> cattrs.Converter:
    return _make_converter(detailed=True)


def _make_converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    hooks: dict[Any, Hook] = {
        tuple[str, ...]: read_texts,
        int | None: read_int,
        float | None: read_number,
    }
    converter.register_structure_hook_factory(hooks.__contains__, lambda kind: hooks[kind])

    # cattrs looks `str` and `bool` up by type before it asks hook factories.
    converter.register_structure_hook(str, read_text)
    converter.register_structure_hook(bool, read_flag)

    converter.register_structure_hook_factory(attrs.has, _lenient_class)
    converter.register_structure_hook_factory(_is_tuple_of_objects, _lenient_tuple)
    return converter


def _lenient_class(cls: type[Any], converter: cattrs.Converter) -> Hook:
    """Structure an attrs class from an object, or an empty one from null, "" and []."""
    structure = _class_hook(cls, converter)

    def lenient(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is dict:
            return structure(value, cls)
        if _is_empty(value):
            return cls()
        raise TypeError("expected an object")

    return lenient


def _lenient_tuple(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type
    """Structure a tuple of attrs values from a list, or an empty one from null and ""."""
    many = GenericAlias(list, get_args(kind)[:1])
    structure = converter.get_structure_hook(many)

    def lenient(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if _is_empty(value):
            return ()
        if type(value) is not list:
            raise TypeError("expected a list")
        return tuple(structure(value, many))

    return lenient


def _class_hook(cls: type[Any], converter: cattrs.Converter) -> Hook:
    return make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=False,
        _cattrs_use_alias=True,  # some names on the wire are not spelt as Python's are
        _cattrs_detailed_validation=converter.detailed_validation,
    )


def _is_tuple_of_objects(kind: Any) -> bool:  # noqa: ANN401 - a type
    return get_origin(kind) is tuple and attrs.has(get_args(kind)[0])


def _is_empty(value: object) -> bool:
    return not value and value is not False and value != 0


# -- the converter that raises nothing -------------------------------------------------------------


@cache
def _salvager() -> cattrs.Converter:
    """Make a converter that raises nothing, whatever JSON it is given."""
    converter = cattrs.Converter(detailed_validation=False)
    hooks: dict[Any, Hook] = {
        tuple[str, ...]: _salvage_texts,
        int | None: _or(None, read_int),
        float | None: _or(None, read_number),
    }
    converter.register_structure_hook_factory(hooks.__contains__, lambda kind: hooks[kind])

    converter.register_structure_hook(str, _salvage_text)
    converter.register_structure_hook(bool, _or(False, read_flag))  # noqa: FBT003 - the value of a field

    converter.register_structure_hook_factory(attrs.has, _salvage_class)
    converter.register_structure_hook_factory(_is_tuple_of_objects, _salvage_tuple)
    return converter


def _or(empty: T, read: Callable[[object], T]) -> Callable[[object, object], T]:
    """Make a hook of a reader; it returns `empty` for what the reader refuses."""

    def salvage(value: object, _type: object) -> T:
        try:
            return read(value)
        except (TypeError, ValueError, OverflowError):
            return empty

    return salvage


def _salvage_text(value: object, _type: object = None) -> str:
    try:
        return read_text(value)
    except TypeError:
        return next(iter(texts_in(value)), "")


def _salvage_texts(value: object, _type: object = None) -> tuple[str, ...]:
    try:
        return read_texts(value)
    except TypeError:
        return texts_in(value)


def _salvage_class(cls: type[Any], converter: cattrs.Converter) -> Hook:
    """Structure an attrs class from an object, or from a `url` alone; anything else is an empty one."""
    structure = _class_hook(cls, converter)
    names = {f.alias for f in attrs.fields(cls)}

    def salvage(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is str and "url" in names:
            value = {"url": value}
        if type(value) is dict:
            return structure(value, cls)
        return cls()

    return salvage


def _salvage_tuple(kind: Any, converter: cattrs.Converter) -> Hook:  # noqa: ANN401 - a type
    """Structure a tuple of attrs values from a list, or from one value alone."""
    many = GenericAlias(list, get_args(kind)[:1])
    structure = converter.get_structure_hook(many)

    def salvage(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is dict:
            value = [value]
        if type(value) is list:
            return tuple(structure(value, many))
        return ()

    return salvage


# -- where it went wrong ---------------------------------------------------------------------------


def _explain(data: object, cls: type[Any], path: str, error: Exception) -> UnexpectedAnswer:
    """Return the error for JSON that the fast converter has refused with `error`."""
    try:
        _explainer().structure(data, cls)
    except BaseValidationError as group:
        steps, error = _deepest(group)
        path, data = join(path, *steps), _dig(data, steps)
    except (TypeError, ValueError):
        pass  # the whole is of the wrong shape, and `error` says so

    try:
        found = excerpt(orjson.dumps(data))
    except orjson.JSONEncodeError:  # orjson reads deeper nesting than it writes
        found = "nesting too deep to show"

    place = path or "its top"
    message = f"The response is not understood at {place}: {error}, got {found}"
    return UnexpectedAnswer(message, path=path, excerpt=found)


def _deepest(error: Exception) -> tuple[list[str | int], Exception]:
    """Follow the first error of every nested group down to the value it is about."""
    steps: list[str | int] = []
    while isinstance(error, BaseValidationError):
        cls, error = error.cl, error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                alias = attrs.fields_dict(cls)[note.name].alias
                steps.append(alias or note.name)  # as the wire spells it
            elif isinstance(note, IterableValidationNote):
                steps.append(note.index)

    if isinstance(error, WrongItem):
        steps.append(error.index)
    return steps, error


def _dig(data: Any, steps: list[str | int]) -> Any:  # noqa: ANN401 - anything may stand at the bottom
    for step in steps:
        data = data[step]
    return data
