"""What a file of results has of earlier runs: which items have ended, and which row of an item counts.

A run appends.  Until an item has a new row its old one stays, which may be all that names a task that
was paid for; then the old one is replaced, at the end of the run, or of the next one after a kill.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from attrs import define, field, frozen

from ..._protocol.result_files import makes_text
from ...downloads._disk import is_saved
from ...downloads._target import Target
from ...errors import SubmissionUnknown, TaskCancelled, TaskFailed
from ...tasks import FileRole
from .._output import reason_of, to_json
from .._saving import Saving
from .._stderr import say
from ._lines import mark

Row = dict[str, Any]

_BEGINNING = to_json({"line": 0}).rstrip("0}")
"""With which every row begins."""


@define
class Earlier:
    """What earlier runs have left in a file, as a run must know it; items by the marks of their keys."""

    failed: int = field(default=0, init=False)
    """Items that ended badly."""
    ended: set[int] = field(factory=set, init=False)
    open: set[int] = field(factory=set, init=False)
    """Items to which a run may have something to add."""
    replaced: set[int] = field(factory=set, init=False)
    """Items that have several rows, as a run was killed."""
    is_cut_off: bool = field(default=False, init=False)

    @classmethod
    def take_in(cls, path: Path, shown: Path, keeping: Keeping) -> Earlier:
        """Read a file, and put it in order after a run that was killed.

        Raises `click.UsageError` if it is no file of results; it is left as it is then.
        """
        earlier = cls._read(path, shown, keeping)
        if not earlier.replaced and not earlier.is_cut_off:
            return earlier

        try:
            drop_replaced(path, earlier.replaced)
        except OSError as error:  # items with several rows are looked at anew, and pay for nothing twice
            say(f"{shown} could not be put in order after a run that was killed: {reason_of(error)}")
            earlier.ended -= earlier.replaced
            earlier.open |= earlier.replaced
            return earlier
        return cls._read(path, shown, keeping)

    @classmethod
    def _read(cls, path: Path, shown: Path, keeping: Keeping) -> Earlier:
        earlier = cls()
        for line, row in _lines(path):
            if row is None:
                if not _is_cut_off(line):
                    text = f"{shown} exists and is not a file of results with keys: move it away"
                    raise click.UsageError(text)
                earlier.is_cut_off = True
                continue

            item = mark(row["key"])
            if item in earlier.ended or item in earlier.open:
                earlier.replaced.add(item)
            elif keeping.keeps(row):
                earlier.ended.add(item)
                earlier.failed += bool(row.get("error"))
            else:
                earlier.open.add(item)
        return earlier


def drop_replaced(path: Path, items: set[int]) -> None:
    """Leave one row of each of these items, the one that counts, and no last row that was cut off.

    What is no row stays: somebody may have put the file there during the run.  Raises `OSError`; the
    file is as it was then.
    """
    kept = _rows_that_count(path, items)
    fresh = path.with_name(f".{path.name}.piapi-async-new")  # ours alone while the lock is held
    try:
        with fresh.open("w", encoding="utf-8") as new:
            for number, (line, row) in enumerate(_lines(path)):
                stays = not _is_cut_off(line)
                if row is not None:
                    stays = mark(row["key"]) not in items or number in kept
                if stays:
                    new.write(line.rstrip("\n") + "\n")
        shutil.copymode(path, fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@frozen
class _Said:
    """A row by its number, and what it says of its item."""

    number: int
    final: bool
    names_task: bool
    error_type: str

    @classmethod
    def by(cls, number: int, row: Row) -> _Said:
        return cls(number, bool(row["final"]), bool(row.get("task_id")), str(row.get("error_type", "")))

    def is_more_than(self, later: _Said) -> bool:
        """Return whether a later row only says that it went wrong, where this names the task, or why."""
        if self.final or not later.error_type:
            return False
        if self.names_task:
            return not later.names_task
        return self.error_type == later.error_type == _UNKNOWN


def _rows_that_count(path: Path, items: set[int]) -> set[int]:
    """Return the numbers of the rows that count: of each item the last, unless that says less."""
    found: dict[int, _Said] = {}
    for number, (_, row) in enumerate(_lines(path)):
        if row is None or (item := mark(row["key"])) not in items:
            continue

        later, earlier = _Said.by(number, row), found.get(item)
        if earlier is None or not earlier.is_more_than(later):
            found[item] = later
    return {said.number for said in found.values()}


def _lines(path: Path) -> Iterator[tuple[str, Row | None]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            yield line, read_row(line)


def _is_cut_off(line: str) -> bool:
    """Return whether a line is the beginning of a row that a kill has cut off."""
    if line.endswith("\n") or not (line.startswith(_BEGINNING) or _BEGINNING.startswith(line)):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return True
    return False


def read_row(text: str) -> Row | None:
    """Return a line of results, None if it is not one."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None

    if not isinstance(row, dict) or "final" not in row:
        return None
    key = row.get("key")
    if not isinstance(key, str) or not key:
        return None
    return row


_FAILURES = frozenset({TaskFailed.__name__, TaskCancelled.__name__})
_UNKNOWN = SubmissionUnknown.__name__


@frozen
class Keeping:
    """Which lines of an earlier run stay as they are: those to which this run has nothing to add."""

    saving: Saving
    retry_failed: bool = False

    def keeps(self, row: dict[str, Any]) -> bool:
        """Return whether a line stays."""
        if self.retry_failed and row.get("error_type") in _FAILURES:
            return False
        return _is_final(row, self.saving)


def _is_final(row: dict[str, Any], saving: Saving) -> bool:
    """Return whether a later run has nothing to add: the task has ended, wanted files are saved."""
    if not row["final"] or row.get("error") or saving.directory is None:
        return bool(row["final"])
    files = row.get("files") or []
    if not files:
        return _is_text(row)

    roles = [_role_of(file) for file in files]
    best = next((role for role in FileRole if role in roles), None)
    for file, role in zip(files, roles, strict=True):
        wanted = saving.all_files or role in {best, None}
        name = _saved_as(file)
        if wanted and (name is None or not _is_there(name, saving.directory)):
            return False
    return True


def _is_there(name: str, target: Target) -> bool:
    """Return whether a row's file is saved there; of a sink that is believed: to ask would take hours."""
    if isinstance(target, Path):
        path = Path(name)
        return is_saved(path) and path.parent.resolve() == target.resolve()
    return name.startswith(f"{target.url}/")


def _role_of(file: object) -> str | None:
    if not isinstance(file, dict):
        return None
    return file.get("role")


def _is_text(row: dict[str, Any]) -> bool:
    """Return whether the result of a row without files is text."""
    request = row.get("request")
    if not isinstance(request, dict):  # of an older release
        return not row.get("images")

    return any(makes_text(str(request.get(name, ""))) for name in ("verb", "model", "task_type"))


def _saved_as(file: object) -> str | None:
    """Return where a file of a row was saved; rows of older releases have just the name."""
    name = file
    if isinstance(file, dict):
        name = file.get("saved_as")
    if not isinstance(name, str):
        return None
    return name
