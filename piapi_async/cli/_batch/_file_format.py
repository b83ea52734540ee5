"""What a file of requests is: its encoding, its kind, its columns.  Pure.

People's files are CSV as Excel, Numbers and pandas write it (comma, semicolon or tab, a ``sep=;``
line, UTF-8 or UTF-16 with a byte-order mark, capitals in the header, an unnamed index column), JSON
lines, JSON arrays, what ``jq`` prints without ``-c``, and plain texts with a prompt on each line.
`sniff` finds out which from the first bytes.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection
from enum import Enum
from typing import BinaryIO

from attrs import evolve, frozen

_HEAD = 64 * 1024  # bytes that are looked at


class FileRefusedError(ValueError):
    """The file as a whole cannot be read as requests; says why, and what to do."""


class Kind(Enum):
    """How a file writes its rows."""

    CSV = "csv"
    JSON_LINES = "json lines"
    JSON_VALUES = "json values"
    """An array, or values that go on over several lines."""
    TEXTS = "texts"
    """A text on each line, for the one field that `header` names."""


@frozen
class Format:
    """What a file was found to be; `header` are the columns of a CSV file, "" for one without a name."""

    kind: Kind
    encoding: str = "utf-8-sig"
    delimiter: str = ","
    spaced: bool = False
    """Whether a blank follows each separator."""
    header: tuple[str, ...] = ()
    header_ends: int = 0
    """The number of the header's last line."""

    @property
    def noun(self) -> str:
        """What the number of a row counts."""
        if self.kind is Kind.JSON_VALUES:
            return "item"
        return "line"


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
_TEXT_SUFFIXES = frozenset({".txt", ".text"})
_JSON_SUFFIXES = frozenset({".jsonl", ".ndjson", ".json"})
_BEGINS_JSON = re.compile(r'\[\s*(\{|\]\s*$)|\{\s*"|\{\s*\}')
_SEP = re.compile(r'"?sep=(.)"?\s*')


def sniff(stream: BinaryIO, suffix: str, known: Collection[str], text_field: str = "") -> Format:
    """Return what a file is, from its beginning; raise `FileRefusedError` if it holds no rows.

    `suffix` is that of its name, which decides if the content does not; `known` are the names that a
    column may have; `text_field` the one that a line of plain text is for, "" if there is none.
    """
    encoding, text = _decoded(stream.read(_HEAD))
    is_text = suffix.lower() in _TEXT_SUFFIXES
    start = text.lstrip()

    if is_text and text_field and not _is_structured(start, known):
        return Format(Kind.TEXTS, encoding, header=(text_field,))
    if start.startswith("["):
        return Format(Kind.JSON_VALUES, encoding)
    if start.startswith("{"):
        return Format(_kind_of_objects(start), encoding)
    if not start:
        return Format(Kind.JSON_LINES, encoding)

    try:
        return _csv_format(text, encoding, known)
    except FileRefusedError:
        if suffix.lower() in _JSON_SUFFIXES:
            return Format(Kind.JSON_LINES, encoding)
        if is_text and not text_field:
            reason = "its lines are texts: name the verb that they are for, as with --verb imagine"
            raise FileRefusedError(reason) from None
        raise


def _decoded(head: bytes) -> tuple[str, str]:
    """Return a file's encoding and the text of its beginning; raise `FileRefusedError` if it is no text."""
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise FileRefusedError(f"it is {what}")

    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8-sig")
    errors = "replace"
    if encoding == "utf-8-sig":
        errors = "surrogateescape"
        if b"\0" in head:
            raise FileRefusedError(
                "it has NUL bytes: it is UTF-16 without a byte-order mark, or not text; save it as UTF-8"
            )
    return encoding, codecs.getincrementaldecoder(encoding)(errors).decode(head)


def _is_structured(text: str, known: Collection[str]) -> bool:
    """Return whether a file that is called a text is JSON or CSV all the same.

    A prompt may begin with a bracket, or have commas; so JSON must begin as an object, or a list of
    objects, and a header must have names of fields alone, among them `prompt` or `verb`.
    """
    if _BEGINS_JSON.match(text):
        return True

    first = text.split("\n", 1)[0]
    for delimiter in _DELIMITERS:
        names = [_column(cell, known) for cell in first.rstrip("\r").split(delimiter)]
        if {"prompt", "verb"}.intersection(names) and all(name in known for name in names):
            return True
    return False


def _kind_of_objects(text: str) -> Kind:
    """Return whether each line holds a whole object, as far as the beginning of a file tells."""
    first = text.split("\n", 1)[0]
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError):
            if first.strip() == "{":
                return Kind.JSON_VALUES
            return Kind.JSON_LINES
        if "\n" in text[:end]:
            return Kind.JSON_VALUES
    return Kind.JSON_LINES


def _csv_format(text: str, encoding: str, known: Collection[str]) -> Format:
    lines = io.StringIO(text, newline="").readlines()
    first = _next_line(lines, 0)
    delimiters: tuple[str, ...] = _DELIMITERS
    named = _SEP.fullmatch(lines[first])
    if named is not None:
        delimiters = (named[1],)
        first = _next_line(lines, first + 1)

    candidates = [_header(lines, first, delimiter, encoding, known) for delimiter in delimiters]
    best = max(candidates, key=lambda found: _likelihood(found, known))
    for number, line in enumerate(lines[: best.header_ends], 1):
        byte = undecoded_byte(line)
        if byte is not None:
            raise not_utf8(byte, f"line {number}", text_before=False)

    _check_names(best, known)
    if len(best.header) == 1 and named is None:
        return evolve(best, delimiter=_NO_DELIMITER)
    return best


def _next_line(lines: list[str], start: int) -> int:
    """Return the index of the next line that is not blank, the number of lines if there is none."""
    for index in range(start, len(lines)):
        if lines[index].strip():
            return index
    return len(lines)


def _likelihood(found: Format, known: Collection[str]) -> tuple[int, int]:
    return sum(name in known for name in found.header), len(found.header)


def _check_names(found: Format, known: Collection[str]) -> None:
    names = [name for name in found.header if name]
    if not any(name in known for name in names):
        shown = ", ".join(map(repr, names[:8])) or "nothing"
        raise FileRefusedError(
            "its first line must name the columns, as in verb,prompt or, with --verb imagine, just "
            f"prompt; it has {shown[:200]} (a file of prompts without a header is one whose name "
            "ends in .txt)"
        )

    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FileRefusedError(f"two of its columns are called {twice[0]!r}")


def _header(lines: list[str], first: int, delimiter: str, encoding: str, known: Collection[str]) -> Format:
    reader = csv.reader(iter(lines[first:]), delimiter=delimiter)
    cells = next(reader, [])
    spaced = len(cells) > 1 and all(cell.startswith(" ") for cell in cells[1:])
    names = [_column(cell, known) for cell in cells]
    if names and (names[0] == "" or re.fullmatch(r"Unnamed: \d+", names[0])):
        names[0] = ""  # the index that pandas writes
    return Format(
        Kind.CSV,
        encoding,
        delimiter=delimiter,
        spaced=spaced,
        header=tuple(names),
        header_ends=first + reader.line_num,
    )


def _column(text: str, known: Collection[str]) -> str:
    """Return the field that a column's name means (``Aspect Ratio`` is aspect_ratio), else the name."""
    name = text.strip().strip('"')
    plain = name.lower().replace(" ", "_").replace("-", "_")
    for spelling in (plain, plain.removesuffix("s")):  # "Prompts"
        if spelling in known:
            return spelling
    return name


# -- bytes that are not UTF-8 ---------------------------------------------------------------------

_UNDECODED = re.compile("[\udc80-\udcff]")  # how surrogateescape keeps bytes 0x80 to 0xff
_FIRST_SURROGATE = 0xDC00


def undecoded_byte(text: str) -> int | None:
    """Return the first byte of a text that was not UTF-8, None if all were."""
    found = _UNDECODED.search(text)
    if found is None:
        return None
    return ord(found[0]) - _FIRST_SURROGATE


def not_utf8(byte: int, where: str, *, text_before: bool) -> FileRefusedError:
    """Return the error for a file with a byte that is not UTF-8; it names the likely encoding."""
    letter = bytes([byte]).decode("cp1252", "replace")
    if text_before or letter == "\ufffd":
        return FileRefusedError(f"it is damaged: byte 0x{byte:02x} in {where} is not UTF-8")
    return FileRefusedError(
        f"it is Windows-1252, not UTF-8: byte 0x{byte:02x} ({letter!r}) in {where}. "
        'Save it as "CSV UTF-8" or UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > new.csv'
    )
