"""The fields of request classes: what an input may hold, declared in one call each.  Pure.

::

    @request
    class Imagine(ModelRequest[MidjourneyOutput]):
        prompt: str = text(kw_only=False)
        aspect_ratio: str | None = whole_ratio(default=None)
        skip_prompt_check: bool | None = flag(default=None)

A field is a keyword unless `kw_only` is False, and required unless it has a `default`; a default of
None stands for "not set", which is not sent.  What a field refuses raises `ValueError`, which names
class, field, value and what is allowed.

**The rule**: a check refuses only what the host certainly refuses.  A wrong refusal cannot be
worked around, because an input that has a field cannot go into `extra`; a wrong acceptance costs
one refused call.  So

- a set of words that the vendor adds to (versions, modes, task types, aspect ratios) is
  `open_choice` or `ratio`, which take any string; `choice` and `word` are for sets that cannot grow
  (directions, the quadrants of a grid), and for the `model`, because another model is another kind
  of request: `CreateTask` makes it;
- a range is the widest that any page, sample or real answer shows, or none;
- an input is required only if every source requires it;
- an optional string, choice or link may be "", and an optional list may be empty: the vendor's own
  clients send both for "not set", and so does this one where its user says so;
- a type is what the host's own decoder insists on (it refuses a string for a number).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs
from attrs import NOTHING, Attribute

from .values import (
    UPLOADABLE,
    is_base64,
    is_http_url,
    is_link,
    is_link_or_base64,
    is_object,
    is_ratio,
    is_text,
    is_whole,
    is_zoom,
    takes_webhooks,
    to_mask,
    to_own,
    to_tuple,
    to_word,
)

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)

Check = Callable[[Any], bool]

_LONGEST_SHOWN = 60


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


def _make(
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
    **metadata: object,
) -> Any:  # noqa: ANN401 - stands for a value of the field's type
    """Return the field.

    `unset` is what, beside None, says on the wire that an optional input is not set; `takes` are
    its bounds in a few words, for lists of inputs; `files` tells that it may hold local files;
    `shown` is how a repr shows it.
    """
    optional = default is None
    if optional:
        allowed += ", or None"

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if optional and (value is None or (unset is not None and value == unset)):
            return
        if not check(value):
            raise _refusal(instance, attribute, value, allowed)

    field: Any = attrs.field
    return field(
        default=default,
        kw_only=kw_only,
        validator=validate,
        converter=converter,
        repr=shown,
        metadata={"takes": takes, "files": files, **metadata},
    )


def _refusal(instance: object, attribute: Attribute[Any], value: object, allowed: str) -> ValueError:
    """Return the error for a value, of which it shows no more than the beginning."""
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        value = f"{value[:_LONGEST_SHOWN]}…"
    return ValueError(f"{_place(instance, attribute)}: {value!r} is not allowed; {allowed}")


def _place(instance: object, attribute: Attribute[Any]) -> str:
    return f"{type(instance).__name__}.{attribute.name}"


AROUND: Mapping[str, Any] = {"around": True}
"""Marks a field that is not an input but shared by many requests, such as the webhook's."""


def around(field: Any) -> Any:  # noqa: ANN401 - as `_make`
    """Return the field as one that is not an input, and stands last in signatures."""
    field.metadata = {**field.metadata, **AROUND}
    return field


# -- strings, numbers, flags -----------------------------------------------------------------------


def text(*, most: int | None = None, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a string, of at most `most` characters; a required one must not be blank."""
    required = default is NOTHING

    def check(value: object) -> bool:
        if not is_text(value) or (most is not None and len(value) > most):
            return False
        return not required or bool(value.strip())

    kind = "a non-empty string" if required else "a string"
    bound = f"at most {most} characters" if most else ""
    allowed = " of ".join(filter(None, (f"it must be {kind}", bound)))
    return _make(check, allowed, default=default, kw_only=kw_only, takes=bound)


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a finite number from `low` to `high`."""

    def check(value: Any) -> bool:  # noqa: ANN401 - of any type
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return _within(value, low, high)

    bounds = _bounds(low, high)
    return _make(check, f"it must be a number{bounds}", default=default, kw_only=kw_only, takes=_short(bounds))


def whole(
    low: int | None = None,
    high: int | None = None,
    *,
    also: tuple[int, ...] = (),
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a whole number from `low` to `high`, or one of `also`, which mean something special."""

    def check(value: Any) -> bool:  # noqa: ANN401 - of any type
        return is_whole(value) and (value in also or _within(value, low, high))

    bounds = " or ".join((_bounds(low, high), *map(str, also)))
    allowed = f"it must be a whole number{bounds}"
    return _make(check, allowed, default=default, kw_only=kw_only, takes=_short(bounds))


def flag(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for True or False."""

    def check(value: object) -> bool:
        return isinstance(value, bool)

    return _make(check, "it must be True or False", default=default, kw_only=kw_only)


def moment(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a `datetime` with a time zone."""

    def check(value: object) -> bool:
        return isinstance(value, datetime) and value.tzinfo is not None

    return _make(check, "it must be a datetime with a time zone", default=default, kw_only=kw_only)


# -- words -----------------------------------------------------------------------------------------


def choice(
    *words: str | int,
    names: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for one of some words, to which the vendor adds none.

    With `names` it is not an input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return any(value == word and type(value) is type(word) for word in words)

    takes = ", ".join(map(str, words))
    return _make(
        check, _use_one_of(words), default=default, kw_only=kw_only, unset="", takes=takes, **_words(words, names=names)
    )


def open_choice(
    *words: str,
    names: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a word of a set that grows: `words` are those known today, any other string passes too.

    With `names` it is not an input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return is_text(value) and bool(value.strip())

    allowed = f"it must be a string such as {', '.join(map(repr, words))}"
    takes = ", ".join((*words, "…"))
    return _make(check, allowed, default=default, kw_only=kw_only, unset="", takes=takes, **_words(words, names=names))


def word(*words: str, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for one of some words; a number is spelt out, because the wire has strings such as "1"."""
    return _make(
        words.__contains__,
        _use_one_of(words),
        default=default,
        kw_only=kw_only,
        converter=to_word,
        takes=", ".join(words),
    )


def zoom(*, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for how far Midjourney zooms out."""
    allowed = "use a number from 1 to 2, such as 1.5"
    return _make(is_zoom, allowed, default=NOTHING, kw_only=kw_only, converter=to_word, takes="1 to 2")


def ratio(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for an aspect ratio, which newer models also take as a word ("auto", "adaptive")."""
    return open_choice("16:9", "auto", default=default, kw_only=kw_only)


def whole_ratio(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for an aspect ratio of two whole numbers: Midjourney's, which has no words for it."""
    allowed = "use two whole numbers such as '16:9'"
    return _make(is_ratio, allowed, default=default, kw_only=kw_only, unset="")


def _words(words: tuple[str | int, ...], *, names: bool) -> Mapping[str, Any]:
    """Return the metadata of a choice."""
    if names:
        return {"names": True, "words": words}
    return {"words": words}


def _use_one_of(words: tuple[str | int, ...]) -> str:
    return f"use one of {', '.join(map(repr, words))}"


# -- files -----------------------------------------------------------------------------------------

_SUFFIXES = ", ".join(sorted(suffix[1:] for suffix in UPLOADABLE))
_FILE = f"a pathlib.Path of a file to upload ({_SUFFIXES})"

_URL = "http(s) URL that the host can reach"


def link(
    *,
    base64: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a file: an http(s) URL that the host can reach, a data: URI, or a local file to upload.

    With `base64` also the file's bytes as base64, where the vendor documents that.
    """
    check, allowed = _link_check(base64=base64)
    takes = "also base64" if base64 else ""
    return _make(
        check,
        f"it must be {allowed}",
        default=default,
        kw_only=kw_only,
        unset="",
        takes=takes,
        files=True,
        link=True,
    )


def links(
    low: int = 1,
    high: int | None = None,
    *,
    base64: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for `low` to `high` files, each as `link` takes it."""
    is_file, file = _link_check(base64=base64)

    count = _count(low, high)
    takes = count if (low, high) != (1, None) else ""
    return _make(
        _list_check(is_file, low, high),
        f"it must be a list of {count} files, each {file}",
        default=default,
        kw_only=kw_only,
        converter=to_tuple,
        unset=(),
        takes=takes,
        files=True,
        link=True,
    )


def url(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for an http(s) URL that the host can reach: older protocols read no other link."""
    return _make(is_http_url, f"it must be an {_URL}", default=default, kw_only=kw_only)


def urls(low: int, high: int, *, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for `low` to `high` such URLs."""
    count = _count(low, high)
    return _make(
        _list_check(is_http_url, low, high),
        f"it must be a list of {count} URLs, each an {_URL}",
        default=default,
        kw_only=kw_only,
        converter=to_tuple,
        takes=count,
    )


def mask(*, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for an image within the body: base64, a data: URI (its prefix is cut off) or bytes."""
    allowed = "it must be base64, a data: URI or the image's bytes"
    return _make(is_base64, allowed, default=NOTHING, kw_only=kw_only, converter=to_mask, shown=_shown_mask)


def _shown_mask(value: str) -> str:
    return f"'<{len(value)} characters of base64>'"


def _link_check(*, base64: bool) -> tuple[Check, str]:
    """Return the check for a file's link, and what it takes in words."""
    if base64:
        return is_link_or_base64, f"an http(s) URL, a data: URI, base64 or {_FILE}"
    return is_link, f"an http(s) URL, a data: URI or {_FILE}"


def _list_check(is_item: Check, low: int, high: int | None) -> Check:
    def check(value: object) -> bool:
        return isinstance(value, tuple) and _within(len(value), low, high) and all(map(is_item, value))

    return check


# -- settings and JSON -----------------------------------------------------------------------------


def item(kind: type[Any], *, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for settings: a `kind`, or a dict with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, kind) or is_object(value)

    allowed = f"it must be a {kind.__name__} or a dict"
    return _make(check, allowed, default=default, kw_only=kw_only, converter=to_own, files=True)


def items(kind: type[Any], *, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a list of settings, each a `kind` or a dict with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, tuple) and all(isinstance(item, kind) or is_object(item) for item in value)

    allowed = f"it must be a list of {kind.__name__} or of dicts"
    return _make(check, allowed, default=default, kw_only=kw_only, converter=to_tuple, files=True)


def json_object(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Return a field for a dict that is sent as it is; a `pathlib.Path` in it is a file to upload."""
    allowed = "it must be a dict of JSON values"
    return _make(is_object, allowed, default=default, kw_only=kw_only, converter=to_own, files=True)


# -- webhooks --------------------------------------------------------------------------------------


def webhook_url() -> Any:  # noqa: ANN401 - as `_make`
    """Return an optional field for where the host reports the end of a task."""

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if value is None or value == "":
            return
        if not is_http_url(value):
            raise _refusal(instance, attribute, value, f"it must be an {_URL}, or None")
        if not takes_webhooks(value):
            raise _refusal(instance, attribute, value, "the host delivers to port 80 or 443 only")

    field: Any = attrs.field
    return field(default=None, kw_only=True, validator=validate, metadata={"takes": "", "files": False})


def webhook_secret() -> Any:  # noqa: ANN401 - as `_make`
    """Return an optional field for what a webhook brings back in a header; neither repr nor refusal shows it."""

    def validate(instance: Any, attribute: Attribute[Any], value: object) -> None:  # noqa: ANN401 - any request
        if value is not None and not is_text(value):
            raise ValueError(f"{_place(instance, attribute)}: it must be a string, or None")
        if value is not None and not value.isascii():  # frameworks decode headers differently
            raise ValueError(f"{_place(instance, attribute)}: it must be ASCII")
        if value and not instance.webhook_endpoint:
            raise ValueError(f"{_place(instance, attribute)}: set webhook_endpoint too, or leave both out")

    field: Any = attrs.field
    return field(default=None, kw_only=True, repr=False, validator=validate, metadata={"takes": "", "files": False})


# -- bounds ----------------------------------------------------------------------------------------


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _count(low: int, high: int | None) -> str:
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}"


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    if high is not None:
        return f" of at most {high}"
    return ""


def _short(bounds: str) -> str:
    return bounds.replace(" from ", "").replace(" of ", "")
