"""How requests and bodies are shown in messages for people.  Pure."""

from __future__ import annotations

import re
from typing import Any

import attrs

from ._http import Request

_LONGEST_SUBJECT = 60
_BEGINNING = 60
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


def brief(value: object, longest: int = 100) -> str:
    """Return the repr of what a user has given, without its end if it is long: it may be a whole file."""
    text = repr(value)
    if len(text) <= longest:
        return text
    return f"{text[:_BEGINNING]}… ({len(text)} characters)"


_CREDENTIALS = r"^([^:/?#]+://[^:@/?#]*):[^/?#]*@"


def without_password(url: str, instead: str = "") -> str:
    """Return a URL without the password in it, with `instead` in the place of ``:password``."""
    return re.sub(_CREDENTIALS, lambda found: f"{found[1]}{instead}@", url)


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as text on one line."""
    return shorten(body[:_EXCERPT].decode("utf-8", "replace"))


_NOT_FOR_USERS = r"""(?x)
    \b[A-Za-z][A-Za-z0-9+.-]*://\S+                       # links, of any scheme
    | \b(?:sk|pk|key|token)[-_][\w-]{12,}                 # keys
    | \b[A-Za-z]:\\[^\s"']*                              # paths, of Windows
    | (?<![\w<])~?/[\w.@+-]+(?:/[\w.@+-]*)+               # and of others; "and/or" is none
    | \b(?=[\w-]*\d)[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4,}){1,}\b  # ids: UUIDs, with and without dashes
    | \b\d{7,}\b                                         # and numbers
    """


def plain(text: str) -> str:
    """Return a host's words for end users: on one line, without links, paths and ids."""
    return shorten(re.sub(_NOT_FOR_USERS, "…", text))
