"""The input of a batch: one request per row, read as a stream and checked before anything is sent.

A row names its `verb` and the fields of that verb's request, and may bring a `key`.  Columns that are no fields are
carried along.  Errors are collected, not raised: whoever wrote the file wants to hear of all of them at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache, cached_property
from hashlib import sha256
from typing import Any

from attrs import field, frozen

from ..._protocol.family import TaskRequest
from ...ledger._entries import check_key
from .._requests import Recipe, recipes, unknown_verb
from .._verbs import VERBS
from ._rows import BadRow, FileRefusedError, Format, Kind, Row, not_utf8, read_rows, sniff
from ._source import Source


class BadLineError(ValueError):
    """A row that is no request, and why."""

    def __init__(self, line: int, reason: str, *, encoding: FileRefusedError | None = None) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason
        self.encoding = encoding


@frozen
class Origin:
    """Where a request stands in its file, how it was said there, and what else stood there."""

    number: int
    verb: str
    fields: Mapping[str, Any]
    extra: Mapping[str, Any]

    def said(self) -> dict[str, Any]:
        """Return the request as it was said, without secrets, and long values (a mask) cut short."""
        return {"verb": self.verb, **_to_show(self.fields)}

    def carried(self) -> dict[str, Any]:
        """Return the columns that are no fields, without secrets."""
        return dict(_to_show(self.extra))


@frozen
class Line:
    """One good row: what it asks for, under which key, and where it comes from."""

    request: TaskRequest[Any]
    key: str | None
    origin: Origin

    @property
    def number(self) -> int:
        """The number of the row."""
        return self.origin.number


@frozen(slots=False)
class BatchInput:
    """A source of requests, but for the rows with some numbers; it can be read any number of times.

    `verb` is that of rows which name none; `ignore_extra` leaves out what is no field, instead of carrying it along.
    """

    source: Source
    verb: str | None = None
    ignore_extra: bool = False
    without: Collection[int] = ()
    found: Format = field(init=False)

    @found.default
    def _sniffed(self) -> Format:
        with self.source.open() as stream:
            found = sniff(stream, self.source.suffix, known_names())
        if found.kind is Kind.CSV and "verb" not in found.header and self.verb is None:
            raise FileRefusedError(
                "it has no column `verb`: add one, or say what all lines are, as with --verb imagine; "
                f"it has {', '.join(name for name in found.header if name)[:200]}"
            )
        return found

    def lines(self) -> Iterator[Line | BadLineError]:
        """Yield every row that is not blank, as a request or as what is wrong with it; raise `FileRefusedError`."""
        keys: dict[int, int] = {}
        with self.source.open() as stream:
            for row in read_rows(stream, self.found, self._begins_row):
                if row.number in self.without:
                    continue
                if isinstance(row, BadRow):
                    yield self._unreadable(row)
                    continue
                try:
                    line = self._read(row)
                except (ValueError, TypeError) as error:
                    yield BadLineError(row.number, _for_files(str(error)))
                    continue
                first = row.number if line.key is None else keys.setdefault(mark(line.key), row.number)
                if first != row.number:
                    yield BadLineError(row.number, f"key: {line.key!r} stands on {self.found.noun} {first} already")
                    continue
                yield line

    def _unreadable(self, row: BadRow) -> BadLineError:
        if row.byte is None:
            return BadLineError(row.number, row.reason)
        whole = not_utf8(row.byte, f"{self.found.noun} {row.number}", text_before=row.text_before)
        return BadLineError(row.number, row.reason, encoding=whole)

    @cached_property
    def _verb_column(self) -> int | None:
        header = self.found.header
        return header.index("verb") if "verb" in header else None

    def _begins_row(self, cells: list[str]) -> bool:
        """Tell whether cells look like those of a row, and not like a line of a text."""
        if self._verb_column is not None:
            return len(cells) > self._verb_column and _recipe(cells[self._verb_column]) is not None
        # Without a verb only the number of cells tells; in a text a comma is followed by a blank.
        count = len(self.found.header)
        return count > 1 and len(cells) == count and all(cells)

    def _read(self, row: Row) -> Line:
        fields = dict(row.cells)
        key, verb = fields.pop("key", None), fields.pop("verb", None)
        if verb is None or verb == "":
            verb = self.verb
        if verb is None:
            raise ValueError("verb: missing; name one, or say what all are, as with --verb imagine")
        recipe = _recipe(verb)
        if recipe is None:
            raise ValueError(f"verb: {unknown_verb(verb)}")
        if key is not None:
            check_key(key)
        extra = {name: fields.pop(name) for name in self._extra(recipe, fields)}
        if self.found.kind is Kind.CSV:
            decimal = "," if self.found.delimiter == ";" else "."
            fields = {name: recipe.from_text(name, cell, decimal=decimal) for name, cell in fields.items()}
        else:
            fields = {name: recipe.from_json(name, value) for name, value in fields.items()}
        try:
            request = recipe.make(fields)
        except ValueError as error:
            if any(name not in recipe.fields for name in fields):
                raise ValueError(f"{error}; --ignore-extra leaves out what is no field") from None
            raise
        if self.ignore_extra:
            extra = {}
        return Line(request, key, Origin(row.number, recipe.verb, fields, extra))

    def _extra(self, recipe: Recipe, fields: Mapping[str, Any]) -> list[str]:
        """Return the names of what is no field; not those that may be meant as one, for that would cost money."""
        known = recipe.fields
        unknown = [name for name in fields if name not in known]
        if self.ignore_extra or not unknown:
            return unknown
        meant = _names_of(recipe.verb)
        return [name for name in unknown if name not in meant and not _resembles(name, tuple(known))]


def mark(key: str) -> int:
    """Return 64 bits of a key's digest, in place of the key: a hundred thousand of them are to fit beside a run."""
    return int.from_bytes(sha256(key.encode("utf-8", "replace")).digest()[:8])


@cache
def known_names() -> frozenset[str]:
    """Return every name that a column may have: `verb`, `key`, and all fields of all verbs."""
    return frozenset({"verb", "key"}.union(*(recipe.fields for recipe in recipes().values())))


@cache
def _names_of(verb: str) -> frozenset[str]:
    """Return the fields of all verbs of the same system: one given to the wrong verb was meant to do something."""
    system, slash, _ = verb.partition("/")
    if slash:
        related = [recipe for name, recipe in recipes().items() if name.startswith(f"{system}/")]
    else:
        related = [recipes()[cls.__name__.lower()] for cls in VERBS]
    return frozenset[str]().union(*(recipe.fields for recipe in related))


def _recipe(verb: object) -> Recipe | None:
    if not isinstance(verb, str):
        return None
    return recipes().get(verb) or recipes().get(verb.strip().lower())


_SHORTEST_PART = 3


@cache
def _resembles(name: str, fields: tuple[str, ...]) -> bool:
    """Tell whether a name may be meant for a field: a slip of the pen (promt), or a part of one (image)."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    if difflib.get_close_matches(plain, fields, 1, cutoff=0.7):
        return True
    return len(plain) >= _SHORTEST_PART and any(plain in field.split("_") for field in fields)


_PATH = re.compile(r"a pathlib\.Path of a file")


def _for_files(reason: str) -> str:
    """Return what is wrong in the words of whoever writes a file, not a program."""
    return _PATH.sub("@file for a file", reason)


_SECRET = re.compile(r"secret|password|api_?key", re.IGNORECASE)
_LONGEST = 10_000
_SHOWN = 60


def _to_show(value: Any, name: str = "") -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, Mapping):
        return {str(key): _to_show(item, str(key)) for key, item in value.items()}
    if value and _SECRET.search(name):
        return ""
    if isinstance(value, (list, tuple)):
        return [_to_show(item) for item in value]
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"{value[:_SHOWN]}… ({len(value)} characters)"
    return value
