"""The fields of request classes: what an input may hold, said in one call each.  Pure.

All of them are keywords unless `kw_only` is False, and required unless there is a `default`; a default of None makes
"not said" possible, which is not sent.  A refusal is a `ValueError` that names class, field, value and what is allowed.

**The rule**: a check refuses only what the host certainly refuses.  A wrong refusal cannot be worked around, because an
input that has a field cannot go into `extra`; a wrong acceptance costs one refused call.  So

- a set of words that the vendor adds to (versions, modes, task types, aspect ratios) is `open_choice` or `ratio`, which
  take any text; `choice` and `word` are for sets that cannot grow (directions, the quadrants of a grid), and for the
  `model`, because another model is another kind of request: `CreateTask` makes it;
- a range is the widest that any page, sample or real answer shows, or none;
- an input is required only if every source requires it;
- an optional text, choice or link may be "", and an optional list may be empty: the vendor's own clients send both for
  "not set", and so does this one where its user says so;
- a type is what the host's own decoder insists on (it refuses a text for a number).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import PurePath
from typing import Any

import attrs
import orjson
from attrs import NOTHING, Attribute

from .values import AROUND, is_base64, is_http_url, is_path, is_ratio, is_text, is_zoom, refuse, to_mask, to_word

UPLOADABLE = frozenset({".jpg", ".jpeg", ".png", ".webp", ".mp4", ".wav", ".mp3"})
"""The kinds of files that the upload host takes, by suffix (the vendor's page)."""

Check = Callable[[Any], bool]


def _make(
    check: Check,
    allowed: str,
    *,
    default: Any,  # noqa: ANN401 - of any type
    kw_only: bool,
    converter: Callable[[Any], Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    unset: Any = None,  # noqa: ANN401 - as the wire has it
    takes: str = "",
) -> Any:  # noqa: ANN401 - stands for a value of the field's type
    """Return the field.

    `unset` is what, beside None, says on the wire that an optional input is not set; `takes` are its bounds in a few
    words, for lists of inputs.
    """

    def validate(instance: object, attribute: Attribute[Any], value: object) -> None:
        if default is None and (value is None or (unset is not None and value == unset)):
            return
        if not check(value):
            shown = f"{value[:60]}…" if isinstance(value, str) and len(value) > 60 else value  # noqa: PLR2004 - to read
            raise refuse(instance, attribute, shown, f"{allowed}, or None" if default is None else allowed)

    field: Any = attrs.field
    metadata = {**(metadata or {}), "takes": takes}
    return field(default=default, kw_only=kw_only, validator=validate, converter=converter, metadata=metadata)


def text(*, most: int | None = None, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a text, of at most so many characters; a required one must not be blank."""
    required = default is NOTHING

    def check(value: object) -> bool:
        return is_text(value) and (most is None or len(value) <= most) and bool(value.strip() or not required)

    allowed = "it must be a text" + (" that is not empty" if required else "")
    bound = f"at most {most} characters" if most else ""
    return _make(check, ", of ".join(filter(None, (allowed, bound))), default=default, kw_only=kw_only, takes=bound)


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a number within bounds, these included."""

    def check(value: Any) -> bool:  # noqa: ANN401 - whatever was given
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return good and _within(value, low, high)

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
    """Give a field for a whole number within bounds, these included, or one of those that mean something special."""

    def check(value: Any) -> bool:  # noqa: ANN401 - whatever was given
        good = isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < 64  # noqa: PLR2004 - JSON's
        return good and (value in also or _within(value, low, high))

    bounds = " or ".join((_bounds(low, high), *map(str, also)))
    return _make(check, f"it must be a whole number{bounds}", default=default, kw_only=kw_only, takes=_short(bounds))


def flag(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for True or False."""
    return _make(lambda value: isinstance(value, bool), "it must be True or False", default=default, kw_only=kw_only)


def choice(
    *words: str | int,
    names: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for one of some words, to which the vendor adds none.

    With `names` it is no input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return any(value == word and type(value) is type(word) for word in words)

    metadata = {"names": True, "words": words} if names else {"words": words}
    allowed = f"use one of {', '.join(map(repr, words))}"
    takes = ", ".join(map(str, words))
    return _make(check, allowed, default=default, kw_only=kw_only, metadata=metadata, unset="", takes=takes)


def open_choice(
    *words: str,
    names: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a word of a set that grows: `words` are those known today, any other text passes too.

    With `names` it is no input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return is_text(value) and bool(value.strip())

    metadata = {"names": True, "words": words} if names else {"words": words}
    allowed = f"it must be a text such as {', '.join(map(repr, words))}"
    takes = ", ".join((*words, "…"))
    return _make(check, allowed, default=default, kw_only=kw_only, metadata=metadata, unset="", takes=takes)


def word(*words: str, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for one of some words; a number is spelt out, for the wire has texts such as "1"."""
    allowed = f"use one of {', '.join(map(repr, words))}"
    check, takes = words.__contains__, ", ".join(words)
    return _make(check, allowed, default=default, kw_only=kw_only, converter=to_word, takes=takes)


def zoom(*, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for how far Midjourney zooms out."""
    allowed = "use a number from 1 to 2, such as 1.5"
    return _make(is_zoom, allowed, default=NOTHING, kw_only=kw_only, converter=to_word, takes="1 to 2")


def ratio(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for an aspect ratio, which newer models also take as a word ("auto", "adaptive")."""
    return open_choice("16:9", "auto", default=default, kw_only=kw_only)


def whole_ratio(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for an aspect ratio of two whole numbers: Midjourney's, which has no words for it."""
    return _make(is_ratio, "use two whole numbers such as '16:9'", default=default, kw_only=kw_only, unset="")


_OTHER_LINKS = ("data:", "asset://")  # asset: the vendor's Private Asset Library, which Seedance reads

_FILE = "a pathlib.Path of a file to upload (" + ", ".join(sorted(suffix[1:] for suffix in UPLOADABLE)) + ")"


def link(
    *,
    base64: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a file: an http(s) URL that the host can reach, a data: URI, or a file here to be uploaded.

    With `base64` also the file's bytes as a base64 text, where the vendor documents that.
    """
    check, allowed = _link_check(base64=base64)
    takes = "also base64" if base64 else ""
    field = partial(_make, check, f"it must be {allowed}", metadata={"link": True}, unset="", takes=takes)
    return field(default=default, kw_only=kw_only)


def links(
    low: int = 1,
    high: int | None = None,
    *,
    base64: bool = False,
    default: Any = NOTHING,  # noqa: ANN401 - as `_make`
    kw_only: bool = True,
) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for several files, each as `link` takes it."""
    is_file, file = _link_check(base64=base64)

    def check(value: object) -> bool:
        return isinstance(value, tuple) and _within(len(value), low, high) and all(map(is_file, value))

    count = f"{low} to {high}" if high is not None else f"at least {low}"
    allowed = f"it must be a list of {count} files, each {file}"
    takes = count if (low, high) != (1, None) else ""
    field = partial(_make, check, allowed, converter=_to_tuple, metadata={"link": True}, unset=(), takes=takes)
    return field(default=default, kw_only=kw_only)


def mask(*, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a picture within the body: base64 text, a data: URI (its prefix is cut off) or bytes."""
    allowed = "it must be a base64 text, a data: URI or the image's bytes"
    return _make(is_base64, allowed, default=NOTHING, kw_only=kw_only, converter=to_mask)


def item(kind: type[Any], *, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for settings: a `kind`, or an object with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, kind) or _is_object(value)

    allowed = f"it must be a {kind.__name__} or an object (a dict)"
    return _make(check, allowed, default=default, kw_only=kw_only, converter=_to_own)


def items(kind: type[Any], *, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for a list of settings, each a `kind` or an object with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, tuple) and all(isinstance(item, kind) or _is_object(item) for item in value)

    allowed = f"it must be a list of {kind.__name__} or of objects"
    return _make(check, allowed, default=default, kw_only=kw_only, converter=_to_tuple)


def json_object(*, default: Any = NOTHING, kw_only: bool = True) -> Any:  # noqa: ANN401 - as `_make`
    """Give a field for an object that is sent as it is; a `pathlib.Path` in it is a file to be uploaded."""
    allowed = "it must be an object (a dict) of JSON values"
    return _make(_is_object, allowed, default=default, kw_only=kw_only, converter=_to_own)


def around(field: Any) -> Any:  # noqa: ANN401 - as `_make`
    """Return the field as one that is no input, and stands last in signatures."""
    field.metadata = {**field.metadata, **AROUND}
    return field


def _within(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _bounds(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""


def _short(bounds: str) -> str:
    return bounds.replace(" from ", "").replace(" of ", "")


def _link_check(*, base64: bool) -> tuple[Check, str]:
    """Return what tells a file's link, and what it takes in words."""
    if not base64:
        return _is_link, f"an http(s) URL, a data: URI or {_FILE}"
    return lambda value: _is_link(value) or _is_encoded(value), f"an http(s) URL, a data: URI, a base64 text or {_FILE}"


def _is_encoded(value: object) -> bool:
    """Tell whether a text is base64, perhaps in lines, as many programs write it."""
    return isinstance(value, str) and is_base64("".join(value.split()))


def _is_link(value: object) -> bool:
    if isinstance(value, PurePath):
        return value.suffix.lower() in UPLOADABLE and is_path(value)
    return is_http_url(value) or (is_text(value) and value.startswith(_OTHER_LINKS))


def _is_object(value: object) -> bool:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        return False
    try:
        orjson.dumps(dict(value), default=_stand_in)
        json.dumps(value, default=_stand_in, allow_nan=False)  # orjson would send null for what is no number
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _stand_in(value: object) -> object:
    if isinstance(value, PurePath) and is_path(value):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    if attrs.has(type(value)):
        return attrs.asdict(value, recurse=False)  # type: ignore[arg-type]  # `has` is no type guard
    raise TypeError(type(value).__name__)


def _to_own(value: Any) -> Any:  # noqa: ANN401 - what is no object is left for the check to refuse
    """Give an object of one's own, so that a request stays as it was made whatever becomes of its maker's dict."""
    try:
        return _copied(value)
    except RecursionError:  # it holds itself
        return value


def _copied(value: Any) -> Any:  # noqa: ANN401 - JSON, files, settings
    if isinstance(value, Mapping):
        return {name: _copied(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(item) for item in value]
    return value


def _to_tuple(value: Any) -> Any:  # noqa: ANN401 - what is no list is left for the check to refuse
    many = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    return tuple(map(_to_own, value)) if many else value
