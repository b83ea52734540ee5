"""From the bytes of a file to rows with their positions.  Pure: it reads a stream, opens nothing and knows no verb.

People's files are CSV as Excel, Numbers and pandas write it (comma, semicolon or tab, a ``sep=;`` line, UTF-8 or
UTF-16 with a byte-order mark, capitals in the header, rows of nothing but commas, an unnamed index column), JSON lines,
JSON arrays, and what ``jq`` prints without ``-c``.  `sniff` finds out which, from the first bytes; `read_rows` reads
the whole as a stream, within `MAX_ROW` characters of memory.

What is wrong with the file as a whole is a `FileRefusedError`, told once; what is wrong with one row is a `BadRow`,
after which reading goes on.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import Any, BinaryIO, TextIO

from attrs import define, evolve, field, frozen

MAX_ROW = 16 * 1024 * 1024
"""Characters of one row: no host takes a larger request."""

_HEAD = 64 * 1024  # bytes that are looked at to find out what a file is
_LINE_WEIGHT = 64  # what a line weighs beside its characters, so that a quoted cell of empty lines has an end, too
_PIECE = 64 * 1024  # characters that are read at a time where there are no lines


class FileRefusedError(ValueError):
    """The file as a whole cannot be read as requests; says why, and what to do."""


class Kind(Enum):
    """How a file writes down its rows."""

    CSV = "csv"
    JSON_LINES = "json lines"
    JSON_VALUES = "json values"
    """An array, or values that go on over several lines."""


@frozen
class Format:
    """What a file was found to be; `header` are the columns of a CSV file, "" for one that has no name."""

    kind: Kind
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    spaced: bool = False
    header: tuple[str, ...] = ()
    header_ends: int = 0
    """The number of the header's last line."""

    @property
    def noun(self) -> str:
        """What the number of a row counts."""
        return "item" if self.kind is Kind.JSON_VALUES else "line"


@frozen
class Row:
    """One row: `number` is the line on which it begins (or the item's, see `Format.noun`)."""

    number: int
    cells: Mapping[str, Any]


@frozen
class BadRow:
    """One row that cannot be read, and why; `byte` is one that is not UTF-8."""

    number: int
    reason: str
    byte: int | None = None
    text_before: bool = False
    """Whether the file has had other letters than ASCII's before, so that it is UTF-8 as a whole."""


# -- what a file is -----------------------------------------------------------------------------------------------

_PANDAS = "python -c \"import pandas; pandas.{}('FILE').to_csv('new.csv', index=False)\""

_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (
        b"PK\x03\x04",
        'an Excel workbook (.xlsx) or another zip file: save it as "CSV UTF-8" in Excel, or convert it: '
        + _PANDAS.format("read_excel"),
    ),
    (b"\xd0\xcf\x11\xe0", 'an old Excel workbook (.xls): save it as "CSV UTF-8" in Excel'),
    (b"PAR1", "a Parquet file: convert it: " + _PANDAS.format("read_parquet")),
    (b"\x1f\x8b", "compressed with gzip: gunzip -c FILE | piapi-async batch -"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: zstd -dc FILE | piapi-async batch -"),
    (b"BZh", "compressed with bzip2: bunzip2 -c FILE | piapi-async batch -"),
    (b"\xfd7zXZ\x00", "compressed with xz: xz -dc FILE | piapi-async batch -"),
    (b"SQLite format 3\x00", "an SQLite database: a ledger is given with --ledger"),
    (b"%PDF", "a PDF file"),
    (b"{\\rtf", "a rich text file: save it as plain text"),
)

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_DELIMITERS = (",", ";", "\t", "|")
_NO_DELIMITER = "\x1f"  # where there is one column, a comma is a part of its text
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
_SEP = re.compile(r'"?sep=(.)"?\s*')


def sniff(stream: BinaryIO, suffix: str, known: Collection[str]) -> Format:
    """Return what a file is, from its beginning; raise `FileRefusedError` for what holds no rows.

    `suffix` is that of its name, for where the content leaves it open; `known` are the names that a column may have.
    """
    head = stream.read(_HEAD)
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise FileRefusedError(f"it is {what}")
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in head:
        raise FileRefusedError("it has NUL bytes: it is UTF-16 without a byte-order mark, or no text; save it as UTF-8")
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape" if encoding == "utf-8-sig" else "replace")
    text = decoder.decode(head)
    start = text.lstrip()
    if start.startswith("["):
        return Format(Kind.JSON_VALUES, encoding)
    if start.startswith("{"):
        return Format(_kind_of_objects(start), encoding)
    if not start:
        return Format(Kind.JSON_LINES, encoding)
    if suffix.lower() in _JSON_SUFFIXES:
        try:
            return _csv_format(text, encoding, known)
        except FileRefusedError:
            return Format(Kind.JSON_LINES, encoding)
    return _csv_format(text, encoding, known)


def _kind_of_objects(text: str) -> Kind:
    """Return whether each line has an object of its own, as far as the beginning of a file tells."""
    first = text.split("\n", 1)[0]
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            return Kind.JSON_VALUES if first.strip() == "{" else Kind.JSON_LINES
        return Kind.JSON_VALUES if "\n" in text[:end] else Kind.JSON_LINES
    return Kind.JSON_LINES


def _csv_format(text: str, encoding: str, known: Collection[str]) -> Format:
    lines = io.StringIO(text, newline="").readlines()
    first = next(number for number, line in enumerate(lines) if line.strip())
    given = None
    if (said := _SEP.fullmatch(lines[first])) is not None:
        given = said[1]
        first = next((number for number, line in enumerate(lines) if number > first and line.strip()), len(lines))
    candidates = [
        _header(lines, first, delimiter, encoding, known)
        for delimiter in ([given] if given is not None else _DELIMITERS)
    ]
    best = max(candidates, key=lambda found: (sum(name in known for name in found.header), len(found.header)))
    for number, line in enumerate(lines[: best.header_ends], 1):
        if (undecoded := _UNDECODED.search(line)) is not None:
            raise not_utf8(ord(undecoded[0]) - 0xDC00, f"line {number}", text_before=False)
    names = [name for name in best.header if name]
    if not any(name in known for name in names):
        shown = ", ".join(map(repr, names[:8])) or "nothing"
        raise FileRefusedError(
            "its first line must name the columns, as in verb,prompt or, with --verb imagine, just prompt; "
            f"it has {shown[:200]}"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FileRefusedError(f"two of its columns are called {twice[0]!r}")
    if len(best.header) == 1 and given is None:
        return evolve(best, delimiter=_NO_DELIMITER)
    return best


def _header(lines: list[str], first: int, delimiter: str, encoding: str, known: Collection[str]) -> Format:
    reader = csv.reader(iter(lines[first:]), delimiter=delimiter)
    cells = next(reader, [])
    spaced = len(cells) > 1 and all(cell.startswith(" ") for cell in cells[1:])
    names = [_column(cell, known) for cell in cells]
    if names and (names[0] == "" or re.fullmatch(r"Unnamed: \d+", names[0])):
        names[0] = ""  # the index that pandas writes
    return Format(Kind.CSV, encoding, delimiter, spaced, tuple(names), first + reader.line_num)


def _column(text: str, known: Collection[str]) -> str:
    """Return a column's name as fields are called (``Aspect Ratio`` is aspect_ratio), one that is none as it stands."""
    name = text.strip().strip('"')
    plain = name.lower().replace(" ", "_").replace("-", "_")
    return plain if plain in known else name


# -- rows ---------------------------------------------------------------------------------------------------------


def read_rows(stream: BinaryIO, found: Format, begins_row: Callable[[list[str]], bool]) -> Iterator[Row | BadRow]:
    """Yield every row that is not blank, from the beginning of a stream; raise `FileRefusedError`.

    `begins_row` tells whether cells look like a row's: within a quoted cell, such a line means that a quote was not
    closed.
    """
    errors = "surrogateescape" if found.encoding == "utf-8-sig" else "strict"
    text = io.TextIOWrapper(stream, found.encoding, errors, newline="")
    try:
        match found.kind:
            case Kind.CSV:
                yield from _csv_rows(_Lines(text), found, begins_row)
            case Kind.JSON_LINES:
                yield from _json_lines(_Lines(text))
            case Kind.JSON_VALUES:
                yield from _json_values(text)
    except UnicodeError as error:
        raise FileRefusedError(f"it is damaged {found.encoding.upper()} ({error})") from None
    finally:
        with contextlib.suppress(ValueError):  # whoever opened the stream has closed it
            text.detach()


class _TooLongError(Exception):
    pass


_UNDECODED = re.compile("[\udc80-\udcff]")  # how surrogateescape keeps bytes 0x80 to 0xff


@define
class _Lines(Iterator[str]):
    """The lines of a text, numbered, none longer than `MAX_ROW`, and those of the present row together neither."""

    _text: TextIO
    number: int = 0
    row: list[str] = field(factory=list)
    bad_byte: int | None = None
    text_before: bool = False
    _size: int = 0

    def begin_row(self) -> None:
        """Forget the lines of the row before."""
        self.row.clear()
        self._size, self.bad_byte = 0, None

    def __next__(self) -> str:
        line = self._text.readline(MAX_ROW + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._size += len(line) + _LINE_WEIGHT
        if self._size > MAX_ROW:
            while line and not line.endswith(("\n", "\r")):
                line = self._text.readline(_PIECE)
            raise _TooLongError
        if not line.isascii():
            self._look_at(line)
        self.row.append(line)
        return line

    def _look_at(self, line: str) -> None:
        found = _UNDECODED.search(line)
        if found is None:
            self.text_before = True
        elif self.bad_byte is None:
            self.bad_byte = ord(found[0]) - 0xDC00

    def undecoded(self, number: int) -> BadRow:
        """Return the row that has a byte which is not UTF-8."""
        return BadRow(number, f"byte 0x{self.bad_byte:02x} is not UTF-8", self.bad_byte, self.text_before)


_TOO_LONG = f"it is longer than {MAX_ROW >> 20} million characters, which no request is"


def _json_lines(lines: _Lines) -> Iterator[Row | BadRow]:
    while True:
        lines.begin_row()
        try:
            line = next(lines)
        except StopIteration:
            return
        except _TooLongError:
            yield BadRow(lines.number, _TOO_LONG)
            continue
        text = line.strip("\ufeff \t\r\n")
        if not text:
            continue
        if lines.bad_byte is not None:
            yield lines.undecoded(lines.number)
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield BadRow(lines.number, f"it is not JSON ({_why_not_json(error)})")
            continue
        yield _object(lines.number, value)


def _why_not_json(error: Exception) -> str:
    """Return why a text is not JSON, without the line, which the reader is told already."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def _object(number: int, value: object) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(number, value)
    return BadRow(number, "it is not a JSON object")


def _csv_rows(lines: _Lines, found: Format, begins_row: Callable[[list[str]], bool]) -> Iterator[Row | BadRow]:
    csv.field_size_limit(MAX_ROW)  # a mask is a long cell
    for _ in range(found.header_ends):
        next(lines)
    reader = csv.reader(lines, delimiter=found.delimiter, strict=True, skipinitialspace=found.spaced)
    names = found.header
    while True:
        lines.begin_row()
        number = lines.number + 1  # a quoted cell may go on over many lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            yield BadRow(number, _TOO_LONG)
            continue
        except csv.Error as error:
            yield BadRow(number, f"it is not CSV ({error}); is a quote missing?")
            continue
        if not any(cells):
            continue
        if lines.bad_byte is not None:
            yield lines.undecoded(number)
        elif swallowed := _swallowed(lines.row, found, begins_row):
            yield BadRow(
                number,
                f"a quoted cell goes on to line {lines.number}, though line {number + swallowed} begins like a row; "
                "is a closing quote missing?",
            )
        else:
            yield _csv_row(number, names, cells)


def _csv_row(number: int, names: tuple[str, ...], cells: list[str]) -> Row | BadRow:
    if any(cells[len(names) :]):
        return BadRow(number, "more cells than the header has; a text with the separator in it needs quotes")
    for position, (name, cell) in enumerate(zip(names, cells, strict=False)):
        if cell and not name and position:  # the first one is an index
            return BadRow(number, f"column {position + 1} has a value but no name")
    return Row(number, {name: cell for name, cell in zip(names, cells, strict=False) if cell and name})


def _swallowed(row: list[str], found: Format, begins_row: Callable[[list[str]], bool]) -> int:
    """Return the offset of a line within a quoted cell that begins like a row, 0 if there is none."""
    for offset, line in enumerate(row[1:], 1):
        cells = line.rstrip("\r\n").split(found.delimiter)
        if begins_row([cell.strip().strip('"') for cell in cells]):
            return offset
    return 0


def _json_values(text: TextIO) -> Iterator[Row | BadRow]:
    """Yield the items of an array, or objects that follow one another, each over any number of lines."""
    buffer = _Buffer(text)
    is_array = buffer.peek() == "["
    if is_array:
        buffer.position += 1
    number = 0
    while (begins := buffer.peek()) and begins != "]":
        number += 1
        yield _object(number, buffer.value(number))
        separator = buffer.peek()
        if is_array and separator == ",":
            buffer.position += 1
        elif is_array and separator != "]":
            raise buffer.refusal("a comma between items, or the closing bracket, is missing")
    if is_array:
        buffer.position += 1
        if begins != "]":
            raise buffer.refusal("the closing bracket is missing")
        if buffer.peek():
            raise buffer.refusal("there is something after the array")


@define
class _Buffer:
    """The part of a text that is looked at."""

    _text: TextIO
    position: int = 0
    _held: str = ""
    _lines_before: int = 0
    _over: bool = False
    _text_before: bool = False

    def peek(self) -> str:
        """Return the next character that is not blank, "" at the end."""
        while True:
            while self.position < len(self._held):
                if self._held[self.position] not in " \t\r\n\ufeff":
                    return self._held[self.position]
                self.position += 1
            if not self._more():
                return ""

    def value(self, number: int) -> object:
        """Return the JSON value that begins here."""
        while True:
            try:
                value, self.position = json.JSONDecoder().raw_decode(self._held, self.position)
            except (ValueError, RecursionError) as error:
                if len(self._held) - self.position > MAX_ROW:
                    raise FileRefusedError(f"item {number}: {_TOO_LONG}, or a bracket or quote is missing") from None
                if isinstance(error, json.JSONDecodeError) and self._more():
                    continue
                at = error.pos if isinstance(error, json.JSONDecodeError) else self.position
                why = error.msg if isinstance(error, json.JSONDecodeError) else _why_not_json(error)
                raise self.refusal(why, at) from None
            return value

    def refusal(self, why: str, at: int | None = None) -> FileRefusedError:
        """Return the error for what is no JSON, with its line."""
        line = self._lines_before + self._held.count("\n", 0, self.position if at is None else at) + 1
        return FileRefusedError(f"it is not JSON: {why} (line {line})")

    def _more(self) -> bool:
        """Read on, as much again as is held, so that a long value is not read over and over; False at the end."""
        if self._over:
            return False
        self._lines_before += self._held.count("\n", 0, self.position)
        self._held, self.position = self._held[self.position :], 0
        piece = self._text.read(max(_PIECE, len(self._held)))
        self._over = not piece
        if not piece.isascii() and (found := _UNDECODED.search(piece)) is not None:
            line = self._lines_before + self._held.count("\n") + piece.count("\n", 0, found.start()) + 1
            raise not_utf8(ord(found[0]) - 0xDC00, f"line {line}", text_before=self._text_before)
        self._text_before = self._text_before or not piece.isascii()
        self._held += piece
        return bool(piece)


def not_utf8(byte: int, where: str, *, text_before: bool) -> FileRefusedError:
    """Return the error for a file with a byte that is not UTF-8, which names the encoding it is likely to have."""
    letter = bytes([byte]).decode("cp1252", "replace")
    if text_before or letter == "\ufffd":
        return FileRefusedError(f"it is damaged: byte 0x{byte:02x} in {where} is not UTF-8")
    return FileRefusedError(
        f"it is Windows-1252, not UTF-8: byte 0x{byte:02x} ({letter!r}) in {where}. "
        'Save it as "CSV UTF-8" or UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > new.csv'
    )
