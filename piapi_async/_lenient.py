"""JSON to attrs values, leniently: what hosts were seen to send where a text, a number or nothing was meant.  Pure.

A value that is merely spelt otherwise (``"42"``, ``42.0``, null) is read.  One of the wrong shape (an object for a
text) is an `UnexpectedAnswer` that names its place; or, where `Structure.salvage` reads, it is empty, for the details
of a task that has ended must not make its end unreadable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import GenericAlias
from typing import Any, Generic, TypeVar, get_args, get_origin

import attrs
import cattrs
import orjson
from cattrs.errors import AttributeValidationNote, BaseValidationError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from ._answers import texts_in
from ._wire import excerpt
from .errors import UnexpectedAnswer

T = TypeVar("T")


def read_text(value: object, _type: object = None) -> str:
    """Give a text; numbers are spelt out, null is ""."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise TypeError("expected a text")


class _WrongItem(TypeError):
    """One item of a list is wrong, not the list."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index


def read_texts(value: object, _type: object = None) -> tuple[str, ...]:
    """Give a tuple of texts; null and "" are empty, a lone text is one of one."""
    if not value:
        return ()
    if type(value) is not list:
        return (read_text(value),)
    texts = list(value)  # a copy: the JSON is kept as it came
    for index, item in enumerate(value):
        if type(item) is not str:
            try:
                texts[index] = read_text(item)
            except TypeError as error:
                raise _WrongItem(index, str(error)) from None
    return tuple(texts)


def read_number(value: object, _type: object = None) -> float | None:
    """Give a number; "42" and "42%" are 42, what is no number is None."""
    if type(value) is int or value is None:
        return value
    if isinstance(value, str):
        try:
            number = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
        return int(number) if number.is_integer() else number if math.isfinite(number) else None
    if isinstance(value, (int, float)):
        return +value
    raise TypeError("expected a number")


def read_int(value: object, _type: object = None) -> int | None:
    """Give a whole number, rounded towards zero; what is no number is None."""
    if type(value) is int:
        return value
    number = read_number(value)
    return None if number is None else int(number)


def read_percent(value: object) -> int | None:
    """Return a progress as 0..100, whatever the host counts; what is no number is None."""
    if type(value) is int and 0 <= value <= 100:  # noqa: PLR2004 - per cent
        return value
    if isinstance(value, (dict, list)):
        return None
    number = read_int(value)
    return None if number is None else max(0, min(100, number))


def read_flag(value: object, _type: object = None) -> bool:
    """Give a boolean; the texts "true" and "1" count, null is False."""
    if isinstance(value, str):
        return value.strip().lower() in {"true", "1", "yes"}
    if isinstance(value, (dict, list)):
        raise TypeError("expected true or false")
    return bool(value)


def _lenient_class(cls: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Structure an attrs class from an object, or an empty one from null, "" and [] (all are seen for "nothing")."""
    structure = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=False,
        _cattrs_use_alias=True,  # for names that are not spelt as Python's are
        _cattrs_detailed_validation=converter.detailed_validation,
    )

    def lenient(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is dict:
            return structure(value, cls)
        if not value and value is not False and value != 0:
            return cls()
        raise TypeError("expected an object")

    return lenient


def _is_tuple_of_objects(kind: Any) -> bool:  # noqa: ANN401 - a type
    return get_origin(kind) is tuple and attrs.has(get_args(kind)[0])


def _lenient_tuple(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - a type
    """Structure a tuple of attrs values from a list, or an empty one from null and ""."""
    many = GenericAlias(list, get_args(kind)[:1])
    structure = converter.get_structure_hook(many)

    def lenient(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if not value and value is not False and value != 0:
            return ()
        if type(value) is not list:
            raise TypeError("expected a list")
        return tuple(structure(value, many))

    return lenient


def _make_converter(*, detailed: bool) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=detailed)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
        tuple[str, ...]: read_texts,
        int | None: read_int,
        float | None: read_number,
    }
    converter.register_structure_hook_factory(hooks.__contains__, lambda kind: hooks[kind])
    # For these cattrs has hooks of its own, by type, and asks no factory.
    converter.register_structure_hook(str, read_text)
    converter.register_structure_hook(bool, read_flag)
    converter.register_structure_hook_factory(attrs.has, _lenient_class)
    converter.register_structure_hook_factory(_is_tuple_of_objects, _lenient_tuple)
    return converter


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


def _or(nothing: T, read: Callable[[object], T]) -> Callable[[object, object], T]:
    """Make a hook of a reader: `nothing` is what it returns of what it cannot read."""

    def salvage(value: object, _type: object) -> T:
        try:
            return read(value)
        except (TypeError, ValueError, OverflowError):
            return nothing

    return salvage


def _salvage_class(cls: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """Structure an attrs class from an object; a lone text is its `url`, if it has one; all else is an empty one."""
    structure = make_dict_structure_fn(
        cls, converter, _cattrs_forbid_extra_keys=False, _cattrs_use_alias=True, _cattrs_detailed_validation=False
    )
    names = {f.alias for f in attrs.fields(cls)}

    def salvage(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is str and "url" in names:
            value = {"url": value}
        return structure(value, cls) if type(value) is dict else cls()

    return salvage


def _salvage_tuple(kind: Any, converter: cattrs.Converter) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - a type
    """Structure a tuple of attrs values from a list, or from one alone."""
    many = GenericAlias(list, get_args(kind)[:1])
    structure = converter.get_structure_hook(many)

    def salvage(value: Any, _type: Any) -> Any:  # noqa: ANN401 - the shape of a cattrs hook
        if type(value) is dict:
            value = [value]
        return tuple(structure(value, many)) if type(value) is list else ()

    return salvage


def _make_salvager() -> cattrs.Converter:
    """Make a converter that raises nothing, whatever JSON it is given."""
    converter = cattrs.Converter(detailed_validation=False)
    hooks: dict[Any, Callable[[Any, Any], Any]] = {
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


_CONVERTER = _make_converter(detailed=False)
_EXPLAINER = _make_converter(detailed=True)
_SALVAGER = _make_salvager()


class Structure(Generic[T]):
    """Reads JSON as one attrs class; the fast converter does the work, the explaining one runs only when it failed."""

    def __init__(self, cls: type[T]) -> None:
        self._cls = cls
        self._fast = _CONVERTER.get_structure_hook(cls)

    def __reduce__(self) -> tuple[Any, ...]:
        return Structure, (self._cls,)  # the fast converter is a function made for it, which does not pickle

    def __call__(self, data: object, path: str = "") -> T:
        """Give `data` as the class; raise `UnexpectedAnswer` with the place below `path` that does not fit."""
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
            value = _SALVAGER.structure(data, self._cls)
        return value


def _explain(data: object, cls: type[Any], path: str, error: Exception) -> UnexpectedAnswer:
    try:
        _EXPLAINER.structure(data, cls)
    except BaseValidationError as group:
        steps, error = _deepest(group)
        path, data = join(path, *steps), _dig(data, steps)
    except (TypeError, ValueError):
        pass  # the whole is of the wrong shape, and `error` says so
    try:
        found = excerpt(orjson.dumps(data))
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        found = "nesting too deep to show"
    return UnexpectedAnswer(
        f"The answer is not understood at {path or 'its top'}: {error}, got {found}", path=path, excerpt=found
    )


def _deepest(error: Exception) -> tuple[list[str | int], Exception]:
    """Follow the first error of every nested group down to the value it is about."""
    steps: list[str | int] = []
    while isinstance(error, BaseValidationError):
        cls, error = error.cl, error.exceptions[0]
        for note in getattr(error, "__notes__", ()):
            if isinstance(note, AttributeValidationNote):
                steps.append(attrs.fields_dict(cls)[note.name].alias or note.name)  # as the wire has it
            elif isinstance(note, IterableValidationNote):
                steps.append(note.index)
    if isinstance(error, _WrongItem):
        steps.append(error.index)
    return steps, error


def _dig(data: Any, steps: list[str | int]) -> Any:  # noqa: ANN401 - anything may stand at the bottom
    for step in steps:
        data = data[step]
    return data


def text_at(answer: Mapping[str, Any], name: str, path: str = "") -> str:
    """Give a text of an answer, "" where it has none; raise `UnexpectedAnswer` for what is none."""
    value = answer.get(name)
    if type(value) is str:
        return value
    try:
        return read_text(value)
    except TypeError as error:
        path = join(path, name)
        raise UnexpectedAnswer(f"The answer is not understood at {path}: {error}", path=path) from None


def join(path: str, *steps: str | int) -> str:
    """Lengthen a JSON path: names by dots, positions in brackets."""
    for step in steps:
        path = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}" if path else step
    return path
