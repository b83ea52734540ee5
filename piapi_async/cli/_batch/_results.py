"""The outcomes that a batch writes, a line of JSON for each item, and what a later run reads of them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import click
from attrs import define, field, frozen

from ..._protocol.family import TaskRequest
from ..._protocol.result_files import makes_text
from ...batch import Outcome
from ...batch._outcome import outcome_fields
from ...downloads._disk import is_saved
from ...downloads._target import Target
from ...errors import TaskCancelled, TaskFailed
from ...ledger._entries import SubmissionKey
from ...ledger._sqlite import lock_file
from ...tasks import FileRole
from .._output import (
    leave_stdout,
    on_terminal,
    stdout_encoding,
    to_json,
    write_out,
)
from .._saving import Saving
from ._lines import Line, Origin, mark


def check_out(out: Path, source: Path, ledger: Path | None) -> None:
    """Raise `click.UsageError` if outcomes would overwrite the input or the ledger, or cannot be a file."""
    for name, other in (("the input", source), ("the ledger", ledger)):
        if other is not None and out.resolve() == other.resolve():
            raise click.UsageError(f"--out {out} is {name}; it would be overwritten")
    if out.exists() and not out.is_file():
        raise click.UsageError(f"--out {out} is not a file; without --out, outcomes go to standard output")
    if not out.parent.is_dir():
        raise click.UsageError(f"--out {out}: there is no directory {out.parent}")


class Sink(Protocol):
    """Where outcomes are written, line by line."""

    @property
    def encoding(self) -> str:
        """The encoding of the lines."""
        ...

    def write(self, line: str) -> None:
        """Write a line; raise `OSError` or `ValueError` if that fails."""
        ...


class _Stdout:
    @property
    def encoding(self) -> str:
        return stdout_encoding()

    def write(self, line: str) -> None:
        try:
            write_out(line)
        except (OSError, ValueError):
            leave_stdout()
            raise


@define
class _File:
    """A file to append to: a line is written as a whole, or not at all."""

    _descriptor: int
    encoding: str = "utf-8"

    def write(self, line: str) -> None:
        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        data = memoryview(f"{line}\n".encode())
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, end)
            raise


@define
class Results:
    """The outcomes: a line for each item, written when it is known, and never two for one item.

    A later run drops the lines of items whose outcome may still change, and skips the others.
    """

    _sink: Sink
    failed: int = 0
    skipped: int = field(default=0, init=False)
    """Items that were skipped, because an earlier run has recorded their end."""
    copy: IO[str] | None = field(default=None, init=False)
    """Where every line is written once more, for the page of a run whose results are not in a file."""
    _ended: set[int] = field(factory=set)

    @classmethod
    def on_stdout(cls) -> Results:
        """Return results that go to standard output."""
        return cls(_Stdout())

    @classmethod
    @contextlib.contextmanager
    def at(cls, path: Path | None, *, keep: bool, keeping: Keeping) -> Iterator[Results]:
        """Yield results that go to a file, or to stdout for None; with `keep` an earlier run goes on."""
        if path is None:
            yield cls.on_stdout()
            return
        if path.exists() and path.stat().st_size and not keep:
            text = f"{path} exists: move it away, or use --ledger FILE to go on with an earlier run"
            raise click.UsageError(text)

        real = path.resolve()
        with _locked(real, path):
            failed, ended = 0, set[int]()
            if real.exists():
                failed, ended = cls._tidy(real, path, keeping)

            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            descriptor = os.open(real, flags, 0o666)
            try:
                yield cls(_File(descriptor), failed, ended)
            finally:
                os.close(descriptor)

    @classmethod
    def _tidy(cls, path: Path, shown: Path, keeping: Keeping) -> tuple[int, set[int]]:
        """Keep the lines that are final; return how many failed, and the marks of all.

        A last line that was cut off is dropped.
        """
        ended: set[int] = set()
        failed = 0
        fresh = path.with_name(f".{path.name}.piapi-async-new")  # ours alone while the lock is held
        with (
            path.open(encoding="utf-8", errors="replace") as old,
            fresh.open("w", encoding="utf-8") as new,
        ):
            for line in old:
                row = _read_row(line)
                if row is None and line.endswith("\n"):
                    fresh.unlink()
                    text = f"{shown} exists and is not a file of results with keys: move it away"
                    raise click.UsageError(text)
                if row is None or not keeping.keeps(row) or mark(row["key"]) in ended:
                    continue

                ended.add(mark(row["key"]))
                failed += bool(row.get("error"))
                new.write(line.rstrip("\n") + "\n")
        shutil.copymode(path, fresh)
        fresh.replace(path)
        return failed, ended

    @property
    def on_terminal(self) -> bool:
        """Whether outcomes go to a terminal."""
        return isinstance(self._sink, _Stdout) and on_terminal()

    def skips(self, key: str | None) -> bool:
        """Return whether an earlier run has recorded the end of the item with this key, and count it."""
        skip = key is not None and mark(key) in self._ended
        self.skipped += skip
        return skip

    def write(self, outcome: Outcome[Any], origin: Origin) -> None:
        """Write the outcome of a line; raise `OSError` or `ValueError` if that fails."""
        row = row_of(outcome, origin)
        self._sink.write(to_json(row, encoding=self._sink.encoding))
        if self.copy is not None:
            self.copy.write(f"{to_json(row)}\n")


def row_of(outcome: Outcome[Any], origin: Origin) -> dict[str, Any]:
    """Return the line of an outcome: the fields that a single command prints, and the item's own."""
    ended = outcome.error is None or isinstance(outcome.error, (TaskFailed, TaskCancelled))

    return {
        "line": origin.number,
        "digest": origin.digest or digest_of(outcome.request),
        **outcome_fields(outcome),
        "final": ended and outcome.download_error is None,
        "request": origin.as_given(),
        "extra": origin.carried(),
    }


@contextlib.contextmanager
def _locked(path: Path, shown: Path) -> Iterator[None]:
    """Hold the lock of a file of results, which only one process can hold, and which ends with it."""
    lock_path = path.with_name(f".{path.name}.piapi-async-lock")
    while True:
        identity = _identity(lock_path)
        try:
            lock = lock_file(lock_path)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise click.UsageError(f"another run is writing {shown}") from None
            raise click.UsageError(f"--out {shown}: {error}") from None

        # The holder before us removes the file while it holds the lock, so ours may be on a removed file.
        if identity is not None and _identity(lock_path) == identity:
            break
        lock.close()
        with contextlib.suppress(FileExistsError):
            os.close(os.open(lock_path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):  # Windows does not remove open files
            lock_path.unlink(missing_ok=True)
        lock.close()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def digest_of(request: TaskRequest[Any]) -> str:
    """Return 64 bits of a request's digest, which is the ledger's."""
    return digest_text(SubmissionKey.of(request.to_http(), key="", origin="", family=""))


def digest_text(identity: SubmissionKey) -> str:
    """Return 64 bits of an identity's digest, as results have them."""
    return identity.digest.hex()[:16]


def read_digests(out: Path) -> dict[int, int]:
    """Return the digests of the requests whose results are final, by the marks of their keys.

    A row that an older release has written has none, and is left out.
    """
    digests: dict[int, int] = {}
    with out.open(encoding="utf-8", errors="replace") as file:
        for row in filter(None, map(_read_row, file)):
            if row["final"]:
                with contextlib.suppress(KeyError, TypeError, ValueError):
                    digests[mark(row["key"])] = int(row["digest"], 16)
    return digests


def stands_for_another(line: Line, digests: Mapping[int, int]) -> bool:
    """Return whether final results have a line's key for another request; minted keys cannot."""
    if line.key is None:
        return False
    known = digests.get(mark(line.key))
    return known is not None and known != int(digest_of(line.request), 16)


def _read_row(text: str) -> dict[str, Any] | None:
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
    """Return whether a row's file is saved; what it says of a sink is believed: to ask would take hours."""
    if isinstance(target, Path):
        return is_saved(Path(name))
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
