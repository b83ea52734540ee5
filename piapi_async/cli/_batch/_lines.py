"""The input of a batch: one request per row, read as a stream and checked before anything is sent.

A row names its `verb` and the fields of that verb's request, and may have a `key`.  Columns that are
not fields are carried along.  Errors are collected, not raised, so that all are reported at once.
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
from ._file_format import FileRefusedError, Format, Kind, not_utf8, sniff
from ._rows import BadRow, Row, read_rows
from ._source import Source


class BadLineError(ValueError):
    """A row that is not a request, and why."""

    def __init__(self, line: int, reason: str, *, encoding: FileRefusedError | None = None) -> None:
        super().__init__(reason)
        self.line = line
        self.reason = reason
        self.encoding = encoding


@frozen
class Origin:
    """The row that a request comes from: its number, and what it holds.

    `digest` is what the results have of the request's, "" while nobody has asked for it.
    """

    number: int
    verb: str
    fields: Mapping[str, Any]
    extra: Mapping[str, Any]
    digest: str = ""

    def as_given(self) -> dict[str, Any]:
        """Return the request as it was given, without secrets, and long values (a mask) cut short."""
        return {"verb": self.verb, **_to_show(self.fields)}

    def carried(self) -> dict[str, Any]:
        """Return the columns that are not fields, without secrets."""
        return dict(_to_show(self.extra))

    @property
    def size(self) -> int:
        """The number of characters of its fields, more or less: a mask makes a row large."""
        return _size(self.fields)


@frozen
class Line:
    """One good row: its request, its key, and where it comes from."""

    request: TaskRequest[Any]
    key: str | None
    origin: Origin

    @property
    def number(self) -> int:
        """The number of the row."""
        return self.origin.number


@frozen(slots=False)
class BatchInput:
    """A source of requests, `without` the rows of some numbers; it can be read any number of times.

    `verb` is that of rows which name none; `ignore_extra` drops columns that are not fields.
    """

    source: Source
    verb: str | None = None
    ignore_extra: bool = False
    without: Collection[int] = ()
    found: Format = field(init=False)

    @found.default
    def _sniffed(self) -> Format:
        with self.source.open() as stream:
            found = sniff(stream, self.source.suffix, known_names(), self._text_field())

        names_verb = found.kind not in {Kind.CSV, Kind.TEXTS} or "verb" in found.header
        if self.verb is None and not names_verb:
            columns = ", ".join(name for name in found.header if name)
            raise FileRefusedError(
                "it has no column `verb`: add one, or name the verb of all lines, as with --verb imagine; "
                f"it has {columns[:200]}"
            )
        return found

    def _text_field(self) -> str:
        """Return the field that a line of plain text is for: the first of the verb of all lines."""
        recipe = _recipe(self.verb)
        if recipe is None:
            return ""
        return next(iter(recipe.fields), "")

    def lines(self) -> Iterator[Line | BadLineError]:
        """Yield every row that is not blank, as a request or as its error; raise `FileRefusedError`."""
        keys: dict[int, int] = {}
        with self.source.open() as stream:
            for row in read_rows(stream, self.found, self._begins_row):
                if row.number in self.without:
                    continue
                line = self._line(row)
                if isinstance(line, Line) and line.key is not None:
                    first = keys.setdefault(mark(line.key), row.number)
                    if first != row.number:
                        reason = f"key: {line.key!r} is already on {self.found.noun} {first}"
                        line = BadLineError(row.number, reason)
                yield line

    def _line(self, row: Row | BadRow) -> Line | BadLineError:
        if isinstance(row, BadRow):
            return self._unreadable(row)
        try:
            return self._read(row)
        except (ValueError, TypeError) as error:
            return BadLineError(row.number, _for_files(str(error)))

    def _unreadable(self, row: BadRow) -> BadLineError:
        if row.byte is None:
            return BadLineError(row.number, row.reason)

        where = f"{self.found.noun} {row.number}"
        encoding = not_utf8(row.byte, where, text_before=row.text_before)
        return BadLineError(row.number, row.reason, encoding=encoding)

    @cached_property
    def _verb_column(self) -> int | None:
        if "verb" not in self.found.header:
            return None
        return self.found.header.index("verb")

    def _begins_row(self, cells: list[str]) -> bool:
        """Return whether cells look like those of a row, and not like a line of a text."""
        if self._verb_column is not None:
            return len(cells) > self._verb_column and _recipe(cells[self._verb_column]) is not None

        # Without a verb only the number of cells tells; in a text a comma is followed by a blank.
        count = len(self.found.header)
        return count > 1 and len(cells) == count and all(cells)

    def _read(self, row: Row) -> Line:
        fields = dict(row.cells)
        key, verb = fields.pop("key", None), fields.pop("verb", None)
        recipe = self._recipe_of(verb)
        if key is not None:
            check_key(key)

        extra = {name: fields.pop(name) for name in self._extra(recipe, fields)}
        fields = {name: self._value(recipe, name, cell) for name, cell in fields.items()}
        try:
            request = recipe.make(fields)
        except ValueError as error:
            if any(name not in recipe.fields for name in fields):
                raise ValueError(f"{error}; --ignore-extra drops columns that are not fields") from None
            raise

        if self.ignore_extra:
            extra = {}
        return Line(request, key, Origin(row.number, recipe.verb, fields, extra))

    def _recipe_of(self, verb: object) -> Recipe:
        if verb is None or verb == "":
            verb = self.verb
        if verb is None:
            raise ValueError("verb: missing; name one, or that of all, as with --verb imagine")

        recipe = _recipe(verb)
        if recipe is None:
            raise ValueError(f"verb: {unknown_verb(verb)}")
        return recipe

    def _value(self, recipe: Recipe, name: str, cell: Any) -> object:  # noqa: ANN401 - whatever JSON holds
        if self.found.kind not in {Kind.CSV, Kind.TEXTS}:
            return recipe.from_json(name, cell)

        decimal = "."
        if self.found.delimiter == ";":
            decimal = ","
        return recipe.from_text(name, cell, decimal=decimal)

    def _extra(self, recipe: Recipe, fields: Mapping[str, Any]) -> list[str]:
        """Return the names that are not fields, and not meant as one.

        A task without an input that was meant would cost money all the same.
        """
        known = recipe.fields
        unknown = [name for name in fields if name not in known]
        if self.ignore_extra or not unknown:
            return unknown

        meant = _names_of(recipe.verb)
        return [name for name in unknown if name not in meant and not _resembles(name, tuple(known))]


def mark(key: str) -> int:
    """Return 64 bits of a key's digest: a hundred thousand of them take little memory."""
    return int.from_bytes(sha256(key.encode("utf-8", "replace")).digest()[:8])


@cache
def known_names() -> frozenset[str]:
    """Return every name that a column may have: `verb`, `key`, and all fields of all verbs."""
    return frozenset({"verb", "key"}.union(*(recipe.fields for recipe in recipes().values())))


@cache
def _names_of(verb: str) -> frozenset[str]:
    """Return the fields of all verbs of a verb's system: one that is given to the wrong verb is an error."""
    system, slash, _ = verb.partition("/")
    if slash:
        related = [recipe for name, recipe in recipes().items() if name.startswith(f"{system}/")]
    else:
        related = [recipes()[name] for name in VERBS]
    return frozenset[str]().union(*(recipe.fields for recipe in related))


def _recipe(verb: object) -> Recipe | None:
    if not isinstance(verb, str):
        return None
    return recipes().get(verb) or recipes().get(verb.strip().lower())


_SHORTEST_PART = 3


@cache
def _resembles(name: str, fields: tuple[str, ...]) -> bool:
    """Return whether a name may be meant for a field: a typing error (promt), or a part of one (image)."""
    plain = re.sub(r"[\s-]+", "_", name.strip().lower())
    if difflib.get_close_matches(plain, fields, 1, cutoff=0.7):
        return True
    return len(plain) >= _SHORTEST_PART and any(plain in field.split("_") for field in fields)


_PATH = re.compile(r"a pathlib\.Path of a file")


def _for_files(reason: str) -> str:
    """Return an error text in the words of a file's author, not of a programmer."""
    return _PATH.sub("@file for a file", reason)


def _size(value: object) -> int:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return sum(map(_size, value))
    if isinstance(value, (str, bytes)):
        return len(value)
    return 1


_SECRET = re.compile(r"secret|password|api_?key", re.IGNORECASE)
_MAX_SHOWN = 10_000  # characters of a value that is shown whole
_EXCERPT = 60


def _to_show(value: Any, name: str = "") -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, Mapping):
        return {str(key): _to_show(item, str(key)) for key, item in value.items()}
    if value and _SECRET.search(name):
        return ""
    if isinstance(value, (list, tuple)):
        return [_to_show(item) for item in value]
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{value[:_EXCERPT]}… ({len(value)} characters)"
    return value
