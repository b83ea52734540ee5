"""The input of a batch: JSONL or CSV, one request per line, read as a stream and checked before anything is sent.

A line names its `verb` and the fields of that verb's request, and may bring a `key`.  Errors are collected, not raised:
whoever wrote the file wants to hear of all of them at once, each with its line and its field.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from attrs import field, frozen

from ..._wire import MAX_ANSWER, TaskRequest
from ...ledger import check_key
from .._requests import recipes, unknown_verb


class BadLineError(ValueError):
    """A line that is no request, and why."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@frozen
class Line:
    """One good line: where it stands, what it asks for, under which key."""

    number: int
    request: TaskRequest[Any]
    key: str | None


@frozen
class BatchInput:
    """A file of requests, but for the lines with some numbers; it can be read any number of times."""

    path: Path
    without: Collection[int] = ()
    is_csv: bool = field(init=False)

    @is_csv.default
    def _sniff(self) -> bool:
        return _is_csv(self.path)

    def lines(self) -> Iterator[Line | BadLineError]:
        """Give every line that is not blank, as a request or as what is wrong with it."""
        keys: dict[int, int] = {}
        for number, row in self._rows():
            if number in self.without:
                continue
            if isinstance(row, BadLineError):
                yield row
                continue
            try:
                line = self._read(number, row)
                if line.key is not None and (first := keys.setdefault(mark(line.key), number)) != number:
                    raise BadLineError(number, f"key: {line.key!r} stands on line {first} already")
                yield line
            except (ValueError, TypeError) as error:
                yield error if isinstance(error, BadLineError) else BadLineError(number, str(error))

    def _rows(self) -> Iterator[tuple[int, dict[str, Any] | BadLineError]]:
        read: Callable[[Path], Iterator[tuple[int, dict[str, Any] | BadLineError]]] = (
            _csv_rows if self.is_csv else _json_rows
        )
        return read(self.path)

    def _read(self, number: int, row: dict[str, Any]) -> Line:
        fields = dict(row)
        key, verb = fields.pop("key", None), fields.pop("verb", None)
        recipe = recipes().get(verb) if isinstance(verb, str) else None
        if recipe is None:
            raise BadLineError(number, f"verb: {unknown_verb(verb)}")
        if key is not None:
            check_key(key)
        if self.is_csv:
            fields = {name: recipe.from_text(name, cell) for name, cell in fields.items()}
        return Line(number, recipe.make(fields), key)


def mark(key: str) -> int:
    """Give 64 bits of a key's digest, in place of the key: a hundred thousand of them are to fit beside a run."""
    return int.from_bytes(sha256(key.encode("utf-8", "replace")).digest()[:8])


def spool(stream: Any = None) -> Path:  # noqa: ANN401 - any binary file
    """Copy standard input, or what else can be read only once, to a file; the caller removes it."""
    with tempfile.NamedTemporaryFile("wb", prefix="piapi-batch-", delete=False) as file:
        shutil.copyfileobj(stream or sys.stdin.buffer, file)
    return Path(file.name)


def _is_csv(path: Path) -> bool:
    if path.suffix.lower() in {".csv", ".jsonl", ".ndjson", ".json"}:
        return path.suffix.lower() == ".csv"
    with path.open("rb") as file:
        return not file.read(1024).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{")


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLineError]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:  # of UTF-8 as of JSON
                yield number, BadLineError(number, f"it is not JSON ({error})")
                continue
            yield number, row if isinstance(row, dict) else BadLineError(number, "it is not a JSON object")


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | BadLineError]]:
    csv.field_size_limit(MAX_ANSWER)  # an Inpaint's mask is a long cell
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        names: list[str] = []
        while True:
            number = reader.line_num + 1  # where the row begins: a quoted cell may go on over many lines
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield number, BadLineError(number, f"it is not CSV ({error})")
                continue
            if cells is None:
                return
            if not names:
                names = cells
            elif cells:
                row: dict[str, Any] = {name: cell for name, cell in zip(names, cells, strict=False) if cell}
                if rest := cells[len(names) :]:
                    row["more cells than the header has"] = rest
                yield number, row
