"""The file of outcomes that a batch writes: a line of JSON for each item, and what a later run makes of it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import click
from attrs import define, field

from ..._ledger_file import Intent
from ..._sqlite import lock_file
from ..._wire import TaskRequest
from ...batch import Outcome
from ...errors import TaskCancelled, TaskFailed
from ._lines import Line, mark


def check_out(out: Path, source: Path, ledger: Path | None) -> None:
    """Refuse to write outcomes over the input, the ledger, or what is no file."""
    for name, other in (("the input", source), ("the ledger", ledger)):
        if other is not None and out.resolve() == other.resolve():
            raise click.UsageError(f"--out {out} is {name}; it would be overwritten")
    if out.exists() and not out.is_file():
        raise click.UsageError(f"--out {out} is not a file; without --out, outcomes go to standard output")
    if not out.parent.is_dir():
        raise click.UsageError(f"--out {out}: there is no directory {out.parent}")


@define
class Results:
    """The file of outcomes: a line for each item, written when it is known, and never two for one item.

    A later run drops the lines of items that may still come to something else, and skips those that cannot.
    """

    _file: IO[str]
    failed: int = 0
    _ended: set[int] = field(factory=set)

    @classmethod
    @contextlib.contextmanager
    def at(cls, path: Path | None, *, keep: bool, pictures: bool) -> Iterator[Results]:
        if path is None:
            yield cls(sys.stdout)
            return
        if path.exists() and path.stat().st_size and not keep:
            raise click.UsageError(f"{path} exists: move it away, or use --ledger FILE to go on with an earlier run")
        held = path.with_name(f"{path.name}-lock")
        try:
            lock = lock_file(held)
        except sqlite3.OperationalError as error:
            reason = f"another run is writing {path}" if "locked" in str(error) else f"--out {path}: {error}"
            raise click.UsageError(reason) from None
        try:
            failed, ended = cls._tidy(path, pictures=pictures) if path.exists() else (0, set())
            with path.open("a", encoding="utf-8") as file:
                yield cls(file, failed, ended)
        finally:
            lock.close()
            held.unlink(missing_ok=True)

    @classmethod
    def _tidy(cls, path: Path, *, pictures: bool) -> tuple[int, set[int]]:
        """Keep the lines that are final; give how many failed, and the marks of all.  One cut off by a crash goes."""
        ended: set[int] = set()
        failed = 0
        fresh = path.with_name(f"{path.name}-new")
        with path.open(encoding="utf-8", errors="replace") as old, fresh.open("w", encoding="utf-8") as new:
            for text in old:
                row = _read_row(text)
                if row is None and text.endswith("\n"):
                    fresh.unlink()
                    raise click.UsageError(f"{path} exists and is no file of results with keys: move it away")
                if row is None or not _is_final(row, pictures=pictures) or mark(row["key"]) in ended:
                    continue
                ended.add(mark(row["key"]))
                failed += bool(row.get("error"))
                new.write(text.rstrip("\n") + "\n")
        fresh.replace(path)
        return failed, ended

    @property
    def on_terminal(self) -> bool:
        """Whether a person reads the outcomes where they would read the table."""
        return self._file is sys.stdout and sys.stdout.isatty()

    def has(self, key: str | None) -> bool:
        return key is not None and mark(key) in self._ended

    def write(self, outcome: Outcome[Any], line: int) -> None:
        task, error = outcome.task, outcome.error or outcome.download_error
        ended = outcome.error is None or isinstance(outcome.error, (TaskFailed, TaskCancelled))
        row = {
            "line": line,
            "key": outcome.key,
            "digest": digest_of(outcome.request),
            "task_id": outcome.ref.task_id if outcome.ref else None,
            "state": task.state.value if task else None,
            "images": task.images if task else [],
            "files": [str(path) for path in outcome.files],
            "error": str(error) if error else "",
            "error_type": type(error).__name__ if error else "",
            "resumed": outcome.resumed,
            "final": ended and outcome.download_error is None,
        }
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()


def digest_of(request: TaskRequest[Any]) -> str:
    """Give 64 bits that tell a request from another, as a ledger tells them apart."""
    return Intent.of(request.to_http(), key="", origin="", family="").digest.hex()[:16]


def read_digests(out: Path) -> dict[int, int]:
    """Give the digests of the requests that results are final about, by the marks of their keys.

    A row that an older release has written has none, and is believed.
    """
    digests: dict[int, int] = {}
    with out.open(encoding="utf-8", errors="replace") as file:
        for row in filter(None, map(_read_row, file)):
            if row["final"]:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    digests[mark(row["key"])] = int(row["digest"], 16)
    return digests


def stands_for_another(line: Line, digests: Mapping[int, int]) -> bool:
    """Tell whether final results have a line's own key for another request; a key that is made up follows from it."""
    known = digests.get(mark(line.key)) if line.key is not None else None
    return known is not None and known != int(digest_of(line.request), 16)


def _read_row(text: str) -> dict[str, Any] | None:
    """Give a line of results, None for what is none of ours."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("key"), str) and row["key"] and "final" in row else None


def _is_final(row: dict[str, Any], *, pictures: bool) -> bool:
    """Tell whether a later run has nothing to add: the task has ended and, if wanted, its files are there."""
    if not row["final"] or row.get("error") or not pictures or not row.get("images"):
        return bool(row["final"])
    files = row.get("files") or []
    return bool(files) and all(Path(file).exists() for file in files)
