"""How a checked field of a request is made: the check, the refusal, the metadata.  Pure.

`fields` has the makers for each kind of input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
from attrs import Attribute

from .._text import brief

Field = Any
"""What a maker returns: an attrs field, which stands for a value of the annotated type."""

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)

Check = Callable[[Any], bool]


if TYPE_CHECKING:

    class Converted(Generic[I_contra, O_co]):
        """The type of a field that takes an `I` and holds an `O`.

        Type checkers take both from the methods of a descriptor.  At run time it is `O`, and attrs'
        converter makes it.
        """

        def __get__(self, instance: object, owner: type[object] | None) -> O_co: ...

        def __set__(self, instance: object, value: I_contra) -> None: ...
else:

    class Converted:
        def __class_getitem__(cls, types: tuple[Any, Any]) -> Any:  # noqa: ANN401 - a type
            _, held = types
            return held


# -- making a field --------------------------------------------------------------------------------


def make_field(
    check: Check,
    allowed: str,
    *,
    default: Any,  # noqa: ANN401 - of any type
    kw_only: bool,
    converter: Callable[[Any], Any] | None = None,
    unset: Any = None,  # noqa: ANN401 - as the wire has it
    takes: str = "",
    files: bool = False,
    shown: bool | Callable[[Any], str] = True,
    unless_text: str = "",
    **metadata: object,
) -> Field:
    """Return the field.

    `unset` is what, beside None, says on the wire that an optional input is not set; `takes` are
    its bounds in a few words, for lists of inputs; `files` tells that it may hold local files;
    `shown` is how a repr shows it; `unless_text` is what is said of a value that is no `str`.
    """
    optional = default is None
    if optional:
        allowed += ", or None"

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if optional and (value is None or (unset is not None and value == unset)):
            return
        if check(value):
            return
        hint = unless_text
        if isinstance(value, str):
            hint = ""
        raise refusal(instance, attribute, value, allowed + hint)

    field: Any = attrs.field
    return field(
        default=default,
        kw_only=kw_only,
        validator=validate,
        converter=converter,
        repr=shown,
        metadata={"takes": takes, "files": files, **metadata},
    )


def refusal(instance: object, attribute: Attribute[Any], value: object, allowed: str) -> ValueError:
    """Return the error for a value, of which it shows no more than the beginning."""
    return ValueError(f"{place(instance, attribute)}: {brief(value)} is not allowed; {allowed}")


def place(instance: object, attribute: Attribute[Any]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"


AROUND: Mapping[str, Any] = {"around": True}
"""Marks a field that is not an input but shared by many requests, such as the webhook's."""


def around(field: Field) -> Field:
    """Return the field as one that is not an input, and stands last in signatures."""
    field.metadata = {**field.metadata, **AROUND}
    return field


# -- bounds ----------------------------------------------------------------------------------------


def within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def count_of(low: int, high: int | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}"


def bounds_of(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    if high is not None:
        return f" of at most {high}"
    return ""


def short(bounds: str) -> str:
    return bounds.replace(" from ", "").replace(" of ", "")
