"""How requests and bodies are named in messages for people.  Pure."""

from __future__ import annotations

from typing import Any

import attrs

from ._http import Request


def label(request: Request[Any]) -> str:
    """Name a request in an error text by its class and first field, if that is set: ``Reroll('6886fc4d-…')``."""
    cls = type(request)
    if not attrs.has(cls):
        return cls.__name__
    subject = next((getattr(request, f.name) for f in attrs.fields(cls) if f.init and not f.kw_only), "")
    if subject is None:
        return f"{cls.__name__}()"
    if not isinstance(subject, str):
        subject = ", ".join(subject) if isinstance(subject, (tuple, list)) else str(subject)
    return f"{cls.__name__}({shorten(subject, 60)!r})"


def shorten(text: str, length: int = 300) -> str:
    """Cut a text to about `length` characters, on one line, for people to read."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def excerpt(body: bytes) -> str:
    """Give the beginning of an answer, for people to read."""
    return shorten(body[:1200].decode("utf-8", "replace"))
