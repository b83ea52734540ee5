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
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from attrs import NOTHING

from ..tasks import to_task_id
from .checks import (
    Check,
    Field,
    bounds_of,
    count_of,
    make_field,
    short,
    within,
)
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
    to_mask,
    to_own,
    to_regions,
    to_tuple,
    to_word,
)

# -- strings, numbers, flags -----------------------------------------------------------------------


def text(*, most: int | None = None, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for a string, of at most `most` characters; a required one must not be blank."""
    required = default is NOTHING

    def check(value: object) -> bool:
        if not is_text(value) or (most is not None and len(value) > most):
            return False
        return not required or bool(value.strip())

    kind = "a non-empty string" if required else "a string"
    bound = f"at most {most} characters" if most else ""
    allowed = " of ".join(filter(None, (f"it must be {kind}", bound)))
    return make_field(check, allowed, default=default, kw_only=kw_only, takes=bound)


def parent(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for the task that another is made from: the task, its handle, its ref, or its id."""
    required = default is NOTHING

    def check(value: object) -> bool:
        return is_text(value) and not (required and not value.strip())

    kind = "a non-empty string" if required else "a string"
    return make_field(
        check,
        f"it must be {kind}",
        default=default,
        kw_only=kw_only,
        converter=to_task_id,
        unless_text=": pass task.task_id, or the task itself, its handle or its ref",
    )


def number(
    low: float | None = None,
    high: float | None = None,
    *,
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for a finite number from `low` to `high`."""

    def check(value: Any) -> bool:  # noqa: ANN401 - of any type
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return within(value, low, high)

    bounds = bounds_of(low, high)
    allowed = f"it must be a number{bounds}"
    return make_field(check, allowed, default=default, kw_only=kw_only, takes=short(bounds))


def whole(
    low: int | None = None,
    high: int | None = None,
    *,
    also: tuple[int, ...] = (),
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for a whole number from `low` to `high`, or one of `also`, which are special."""

    def check(value: Any) -> bool:  # noqa: ANN401 - of any type
        return is_whole(value) and (value in also or within(value, low, high))

    bounds = " or ".join((bounds_of(low, high), *map(str, also)))
    allowed = f"it must be a whole number{bounds}"
    return make_field(check, allowed, default=default, kw_only=kw_only, takes=short(bounds))


def flag(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for True or False."""

    def check(value: object) -> bool:
        return isinstance(value, bool)

    return make_field(check, "it must be True or False", default=default, kw_only=kw_only)


def moment(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for a `datetime` with a time zone."""

    def check(value: object) -> bool:
        return isinstance(value, datetime) and value.tzinfo is not None

    return make_field(check, "it must be a datetime with a time zone", default=default, kw_only=kw_only)


# -- words -----------------------------------------------------------------------------------------


def choice(
    *words: str | int,
    names: bool = False,
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for one of some words, to which the vendor adds none.

    With `names` it is not an input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return any(value == word and type(value) is type(word) for word in words)

    takes = ", ".join(map(str, words))
    return make_field(
        check,
        _use_one_of(words),
        default=default,
        kw_only=kw_only,
        unset="",
        takes=takes,
        **_words(words, names=names),
    )


def open_choice(
    *words: str,
    names: bool = False,
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for a word of a set that grows: `words` are known today, others pass too.

    With `names` it is not an input but the task's `model` or `task_type`.
    """

    def check(value: object) -> bool:
        return is_text(value) and bool(value.strip())

    allowed = f"it must be a string such as {', '.join(map(repr, words))}"
    takes = ", ".join((*words, "…"))
    return make_field(
        check,
        allowed,
        default=default,
        kw_only=kw_only,
        unset="",
        takes=takes,
        **_words(words, names=names),
    )


def word(*words: str, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for one of some words; a number is spelt out: the wire has strings ("1")."""
    return make_field(
        words.__contains__,
        _use_one_of(words),
        default=default,
        kw_only=kw_only,
        converter=to_word,
        takes=", ".join(words),
    )


def zoom(*, kw_only: bool = True) -> Field:
    """Return a field for how far Midjourney zooms out."""
    allowed = "use a number from 1 to 2, such as 1.5"
    return make_field(is_zoom, allowed, default=NOTHING, kw_only=kw_only, converter=to_word, takes="1 to 2")


def ratio(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for an aspect ratio, which newer models also take as a word ("auto")."""
    return open_choice("16:9", "auto", default=default, kw_only=kw_only)


def whole_ratio(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for an aspect ratio of two whole numbers, as Midjourney wants it."""
    allowed = "use two whole numbers such as '16:9'"
    return make_field(is_ratio, allowed, default=default, kw_only=kw_only, unset="")


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
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for a file: an http(s) URL, a data: URI, or a local file to upload.

    With `base64` also the file's bytes as base64, where the vendor documents that.
    """
    check, allowed = _link_check(base64=base64)
    takes = "also base64" if base64 else ""
    return make_field(
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
    default: Field = NOTHING,
    kw_only: bool = True,
) -> Field:
    """Return a field for `low` to `high` files, each as `link` takes it."""
    is_file, file = _link_check(base64=base64)

    count = count_of(low, high)
    takes = count if (low, high) != (1, None) else ""
    return make_field(
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


def url(*, most: int | None = None, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for an http(s) URL that the host can reach: older protocols read no other link."""

    def check(value: object) -> bool:
        return is_http_url(value) and (most is None or len(value) <= most)

    allowed = f"it must be an {_URL}"
    if most is not None:
        allowed += f", of at most {most} characters"
    return make_field(check, allowed, default=default, kw_only=kw_only)


def urls(low: int, high: int, *, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for `low` to `high` such URLs."""
    count = count_of(low, high)
    return make_field(
        _list_check(is_http_url, low, high),
        f"it must be a list of {count} URLs, each an {_URL}",
        default=default,
        kw_only=kw_only,
        converter=to_tuple,
        takes=count,
    )


def mask(*, kw_only: bool = True) -> Field:
    """Return a field for an image within the body: base64, a data: URI or bytes; held as base64."""
    allowed = "it must be base64, a data: URI or the image's bytes"
    return make_field(
        is_base64,
        allowed,
        default=NOTHING,
        kw_only=kw_only,
        converter=to_mask,
        shown=_shown_mask,
    )


def regions(kind: type[Any], *, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for parts of a picture: a list of `kind`, or the URL of an image that marks them."""

    def check(value: object) -> bool:
        if not isinstance(value, Mapping) or not is_object(value):
            return False
        areas = value.get("areas")
        if areas is None:
            return is_http_url(value.get("url"))
        return bool(areas) and all(isinstance(area, kind) or is_object(area) for area in areas)

    allowed = f"it must be a list of {kind.__name__}, or an {_URL}"
    return make_field(check, allowed, default=default, kw_only=kw_only, converter=to_regions)


def _shown_mask(value: str) -> str:
    return f"'<{len(value)} characters of base64>'"


def _link_check(*, base64: bool) -> tuple[Check, str]:
    """Return the check for a file's link, and what it takes in words."""
    if base64:
        return is_link_or_base64, f"an http(s) URL, a data: URI, base64 or {_FILE}"
    return is_link, f"an http(s) URL, a data: URI or {_FILE}"


def _list_check(is_item: Check, low: int, high: int | None) -> Check:
    def check(value: object) -> bool:
        return isinstance(value, tuple) and within(len(value), low, high) and all(map(is_item, value))

    return check


# -- settings and JSON -----------------------------------------------------------------------------


def item(kind: type[Any], *, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for settings: a `kind`, or a dict with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, kind) or is_object(value)

    allowed = f"it must be a {kind.__name__} or a dict"
    return make_field(check, allowed, default=default, kw_only=kw_only, converter=to_own, files=True)


def items(kind: type[Any], *, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for a list of settings, each a `kind` or a dict with the vendor's names."""

    def check(value: object) -> bool:
        return isinstance(value, tuple) and all(isinstance(item, kind) or is_object(item) for item in value)

    allowed = f"it must be a list of {kind.__name__} or of dicts"
    return make_field(check, allowed, default=default, kw_only=kw_only, converter=to_tuple, files=True)


def json_object(*, default: Field = NOTHING, kw_only: bool = True) -> Field:
    """Return a field for a dict that is sent as it is; a `pathlib.Path` in it is a file to upload."""
    allowed = "it must be a dict of JSON values"
    return make_field(is_object, allowed, default=default, kw_only=kw_only, converter=to_own, files=True)
