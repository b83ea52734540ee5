"""JSON values that stand in an array or follow one another, read as a stream.  Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

from attrs import define

from ._file_format import FileRefusedError, not_utf8, undecoded_byte

MAX_ROW = 16 * 1024 * 1024
"""Characters of one row: no host takes a larger request."""

PIECE = 64 * 1024
"""Characters that are read at a time where there are no lines."""

TOO_LONG = f"it is longer than {MAX_ROW >> 20} million characters, which no request is"


def json_values(text: TextIO) -> Iterator[object]:
    """Yield the items of an array, or values that follow one another, each over any number of lines.

    Raises `FileRefusedError` for what is not JSON.
    """
    buffer = _Buffer(text)
    is_array = buffer.peek() == "["
    if is_array:
        buffer.position += 1

    number = 0
    begins = buffer.peek()
    while begins and begins != "]":
        number += 1
        yield buffer.value(number)
        separator = buffer.peek()
        if is_array and separator == ",":
            buffer.position += 1
        elif is_array and separator != "]":
            raise buffer.refusal("a comma between items, or the closing bracket, is missing")
        begins = buffer.peek()

    if is_array:
        if begins != "]":
            raise buffer.refusal("the closing bracket is missing")
        buffer.position += 1
        if buffer.peek():
            raise buffer.refusal("there is something after the array")


def why_not_json(error: Exception) -> str:
    """Return why a text is not JSON, without the line, which the caller tells."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


@define
class _Buffer:
    """The part of a text that is in memory, and a position in it."""

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
        """Return the JSON value that begins here, item `number`."""
        while True:
            try:
                value, self.position = json.JSONDecoder().raw_decode(self._held, self.position)
            except json.JSONDecodeError as error:
                self._check_length(number)
                if self._more():
                    continue
                raise self.refusal(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                self._check_length(number)
                raise self.refusal(why_not_json(error)) from None
            return value

    def _check_length(self, number: int) -> None:
        if len(self._held) - self.position > MAX_ROW:
            raise FileRefusedError(f"item {number}: {TOO_LONG}, or a bracket or quote is missing")

    def refusal(self, why: str, at: int | None = None) -> FileRefusedError:
        """Return the error for what is not JSON, with its line."""
        if at is None:
            at = self.position
        line = self._lines_before + self._held.count("\n", 0, at) + 1
        return FileRefusedError(f"it is not JSON: {why} (line {line})")

    def _more(self) -> bool:
        """Read on; return False at the end.

        As much again is read as is held, so that a long value is not parsed over and over.
        """
        if self._over:
            return False

        self._lines_before += self._held.count("\n", 0, self.position)
        self._held, self.position = self._held[self.position :], 0
        piece = self._text.read(max(PIECE, len(self._held)))
        self._over = not piece
        if not piece.isascii():
            self._check(piece)
        self._held += piece
        return bool(piece)

    def _check(self, piece: str) -> None:
        """Raise `FileRefusedError` for a byte that is not UTF-8."""
        byte = undecoded_byte(piece)
        if byte is None:
            self._text_before = True
            return

        before = next(index for index, letter in enumerate(piece) if undecoded_byte(letter) is not None)
        line = self._lines_before + self._held.count("\n") + piece.count("\n", 0, before) + 1
        raise not_utf8(byte, f"line {line}", text_before=self._text_before)
