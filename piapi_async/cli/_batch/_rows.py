"""From the bytes of a file to rows with their positions.  Pure: opens nothing, knows no verb.

`read_rows` reads the whole file as a stream, within `MAX_ROW` characters of memory.  What is wrong
with the file as a whole is a `FileRefusedError`, raised once; what is wrong with one row is a
`BadRow`, after which reading goes on.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TextIO

from attrs import define, field, frozen

from ._file_format import FileRefusedError, Format, Kind, undecoded_byte
from ._json_values import MAX_ROW, PIECE, TOO_LONG, json_values, why_not_json

_LINE_WEIGHT = 64  # added to a line's characters, so that a quoted cell of empty lines is bounded too

BeginsRow = Callable[[list[str]], bool]
"""Whether cells look like a row's.  If a line within a quoted cell does, a quote was not closed."""


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
    """Whether letters beyond ASCII came before, so that the file as a whole is UTF-8."""


def read_rows(stream: BinaryIO, found: Format, begins_row: BeginsRow) -> Iterator[Row | BadRow]:
    """Yield every row that is not blank, from the beginning of a stream; raise `FileRefusedError`."""
    errors = "strict"
    if found.encoding == "utf-8-sig":
        errors = "surrogateescape"
    text = io.TextIOWrapper(stream, found.encoding, errors, newline="")

    try:
        match found.kind:
            case Kind.CSV:
                yield from _csv_rows(_Lines(text), found, begins_row)
            case Kind.JSON_LINES:
                yield from _json_lines(_Lines(text))
            case Kind.TEXTS:
                yield from _texts(_Lines(text), found.header[0])
            case Kind.JSON_VALUES:
                for number, value in enumerate(json_values(text), 1):
                    yield _object(number, value)
    except UnicodeError as error:
        raise FileRefusedError(f"it is damaged {found.encoding.upper()} ({error})") from None
    finally:
        with contextlib.suppress(ValueError):  # the caller has closed the stream
            text.detach()


def _object(number: int, value: object) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(number, value)
    return BadRow(number, "it is not a JSON object")


# -- lines --------------------------------------------------------------------------------------


class _TooLongError(Exception):
    pass


@define
class _Lines(Iterator[str]):
    """The lines of a text, numbered; one row's lines together are not longer than `MAX_ROW`."""

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
                line = self._text.readline(PIECE)
            raise _TooLongError

        if not line.isascii():
            self._check(line)
        self.row.append(line)
        return line

    def _check(self, line: str) -> None:
        byte = undecoded_byte(line)
        if byte is None:
            self.text_before = True
        elif self.bad_byte is None:
            self.bad_byte = byte

    def undecoded(self, number: int) -> BadRow:
        """Return the row that has a byte which is not UTF-8."""
        reason = f"byte 0x{self.bad_byte:02x} is not UTF-8"
        return BadRow(number, reason, self.bad_byte, self.text_before)


# -- a row on each line -------------------------------------------------------------------------


def _each(lines: _Lines, read: Callable[[int, str], Row | BadRow]) -> Iterator[Row | BadRow]:
    """Yield what is read of every line that is not blank, stripped.

    A line may have megabytes: none is held while its row is worked on, which may take as long as a task.
    """
    while True:
        lines.begin_row()
        try:
            text = next(lines).strip("\ufeff \t\r\n")
        except StopIteration:
            return
        except _TooLongError:
            yield BadRow(lines.number, TOO_LONG)
            continue

        if not text:
            continue
        row = read(lines.number, text)
        if lines.bad_byte is not None:
            row = lines.undecoded(lines.number)
        lines.begin_row()
        del text
        yield row
        del row


def _texts(lines: _Lines, name: str) -> Iterator[Row | BadRow]:
    return _each(lines, lambda number, text: Row(number, {name: text}))


def _json_lines(lines: _Lines) -> Iterator[Row | BadRow]:
    return _each(lines, _json_row)


def _json_row(number: int, text: str) -> Row | BadRow:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(number, f"it is not JSON ({why_not_json(error)})")
    return _object(number, value)


# -- CSV ----------------------------------------------------------------------------------------


def _csv_rows(lines: _Lines, found: Format, begins_row: BeginsRow) -> Iterator[Row | BadRow]:
    csv.field_size_limit(MAX_ROW)  # a mask is a long cell
    for _ in range(found.header_ends):
        next(lines)
    reader = csv.reader(lines, delimiter=found.delimiter, strict=True, skipinitialspace=found.spaced)

    while True:
        lines.begin_row()
        number = lines.number + 1  # a quoted cell may go on over many lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except _TooLongError:
            yield BadRow(number, TOO_LONG)
            continue
        except csv.Error as error:
            yield BadRow(number, f"it is not CSV ({error}); is a quote missing?")
            continue

        if not any(cells):
            continue
        if lines.bad_byte is not None:
            yield lines.undecoded(number)
            continue

        swallowed = _swallowed(lines.row, found, begins_row)
        if swallowed:
            yield BadRow(
                number,
                f"a quoted cell goes on to line {lines.number}, though line {number + swallowed} "
                "begins like a row; is a closing quote missing?",
            )
            continue
        yield _csv_row(number, found.header, cells)


def _csv_row(number: int, names: tuple[str, ...], cells: list[str]) -> Row | BadRow:
    if any(cells[len(names) :]):
        return BadRow(number, "more cells than the header has; a cell with the separator in it needs quotes")

    found = {}
    for position, (name, cell) in enumerate(zip(names, cells, strict=False)):
        if cell and name:
            found[name] = cell
        elif cell and position:  # the first one without a name is an index
            return BadRow(number, f"column {position + 1} has a value but no name")
    return Row(number, found)


def _swallowed(row: list[str], found: Format, begins_row: BeginsRow) -> int:
    """Return the offset of a line within a quoted cell that begins like a row, 0 if there is none."""
    for offset, line in enumerate(row[1:], 1):
        cells = line.rstrip("\r\n").split(found.delimiter)
        if begins_row([cell.strip().strip('"') for cell in cells]):
            return offset
    return 0
