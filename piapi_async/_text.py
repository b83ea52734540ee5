"""How requests and bodies are shown in messages for people.  Pure."""

from __future__ import annotations

from typing import Any

import attrs

from ._http import Request

_LONGEST_SUBJECT = 60
_EXCERPT = 1200  # bytes: of characters that take four each, 300 remain


def label(request: Request[Any]) -> str:
    """Return a request's class and first argument, if it is set: ``Reroll('6886fc4d-…')``."""
    cls = type(request)
    if not attrs.has(cls):
        return cls.__name__

    positional = (f.name for f in attrs.fields(cls) if f.init and not f.kw_only)
    name = next(positional, None)
    subject = "" if name is None else getattr(request, name)
    if subject is None:
        return f"{cls.__name__}()"
    if isinstance(subject, (tuple, list)):
        subject = ", ".join(subject)
    return f"{cls.__name__}({shorten(str(subject), _LONGEST_SUBJECT)!r})"


def shorten(text: str, length: int = 300) -> str:
    """Return a text on one line, cut to `length` characters."""
    text = " ".join(text.split())
    if len(text) <= length:
        return text
    return text[: length - 1] + "…"


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as text on one line."""
    return shorten(body[:_EXCERPT].decode("utf-8", "replace"))
