r"""Values that must not be shown, taken out of what hosts send back.  Pure.

A secret is found by its value, however JSON spells it: ``sk-1/2`` is also ``sk\u002d1\/2``.  Where
an answer holds no such escapes, which is nearly always, a search for the plain bytes is all it
takes.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from attrs import define, field, frozen

_SHORTEST = 8  # characters; a toy secret may be part of any word
_REMEMBERED = 8
_SHOWN = "…"
# The short escapes of JSON (RFC 8259, section 7).
_SHORT = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(rb'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])')


@frozen(repr=False)
class Hidden:
    """A value that no repr shows: what holds it may stand in a traceback that shows local variables."""

    value: Any

    def __repr__(self) -> str:
        return _SHOWN


@define(eq=False, repr=False)
class Secrets:
    """The secrets of one client: its key, which comes first, and its latest webhook secrets."""

    _values: dict[str, bytes] = field(factory=dict, init=False, repr=False)
    _units: frozenset[int] = field(default=frozenset(), init=False, repr=False)
    """The UTF-16 code units that they are made of."""

    def add(self, secret: object) -> None:
        """Hide a str from now on, unless it is too short to be a secret."""
        if not isinstance(secret, str) or secret in self._values or len(secret) < _SHORTEST:
            return
        if len(self._values) >= _REMEMBERED:
            del self._values[list(self._values)[1]]
        self._values[secret] = secret.encode("utf-8", "surrogatepass")
        self._units = frozenset(unit for value in self._values for unit in _code_units(value))

    def hide(self, body: bytes) -> bytes:
        """Return JSON, or any other bytes, without the secrets."""
        if b"\\" in body and self._may_be_spelt_in(body):
            for secret in self._values:
                body = _spellings(secret).sub(_SHOWN.encode(), body)
        for value in self._values.values():
            if value in body:
                body = body.replace(value, _SHOWN.encode())
        return body

    def hide_text(self, text: str) -> str:
        """Return the text without the secrets."""
        for secret in self._values:
            text = text.replace(secret, _SHOWN)
        return text

    def _may_be_spelt_in(self, body: bytes) -> bool:
        """Return whether a body holds an escape that stands for a part of a secret."""
        return any(_unit_of(escape) in self._units for escape in set(_ESCAPE.findall(body)))


@lru_cache(maxsize=256)
def _unit_of(escape: bytes) -> int:
    letter = chr(escape[1])
    if letter == "u":
        return int.from_bytes(bytes.fromhex(escape[2:].decode()), "big")
    return ord(_SHORT[letter])


def _code_units(text: str) -> list[int]:
    wide = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(wide[place : place + 2], "big") for place in range(0, len(wide), 2)]


@lru_cache(maxsize=2 * _REMEMBERED)
def _spellings(secret: str) -> re.Pattern[bytes]:
    """Return the pattern of all spellings of a secret in JSON."""
    return re.compile(b"".join(map(_spellings_of_one, secret)))


def _spellings_of_one(character: str) -> bytes:
    plain = character.encode("utf-8", "surrogatepass")
    short = [re.escape(f"\\{letter}".encode()) for letter, meant in _SHORT.items() if meant == character]
    code = b"".join(rb"\\u(?i:%04x)" % unit for unit in _code_units(character))
    return b"(?:%b)" % b"|".join([*short, code, re.escape(plain)])  # what begins with a backslash first
