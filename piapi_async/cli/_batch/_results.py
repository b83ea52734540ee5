"""The outcomes that a batch writes, a line of JSON for each item, and what a later run reads of them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import click
from attrs import define, field

from ..._protocol.family import TaskRequest
from ...batch import Outcome
from ...batch._outcome import outcome_fields
from ...errors import TaskCancelled, TaskFailed
from ...ledger._entries import SubmissionKey
from ...ledger._sqlite import lock_file
from .._output import (
    leave_stdout,
    on_terminal,
    reason_of,
    stdout_encoding,
    to_json,
    write_out,
)
from .._stderr import say
from ._earlier import Earlier, Keeping, drop_replaced, read_row
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

    def close(self) -> None:
        """Write no more."""
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

    def close(self) -> None:
        """Leave it open: it is not ours."""


@define
class _File:
    """A file to append to: a line is written as a whole, or not at all.

    If another takes its name while it is written to, as an editor that saves it makes one, that is
    gone on with; if it has no name any more it is made anew, and if it was moved it is followed.
    """

    _path: Path
    _descriptor: int = field(default=-1, init=False)
    encoding: str = "utf-8"

    def __attrs_post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags, 0o666)

        end = os.lseek(self._descriptor, 0, os.SEEK_END)
        if end:  # a person's editor may have left the last line without an end
            os.lseek(self._descriptor, end - 1, os.SEEK_SET)
            if os.read(self._descriptor, 1) != b"\n":
                os.write(self._descriptor, b"\n")

    def close(self) -> None:
        """Close it, unless that was done."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _follow(self) -> None:
        status = os.fstat(self._descriptor)
        named = _identity(self._path)
        was_moved = named is None and status.st_nlink
        if was_moved or named == (status.st_dev, status.st_ino):
            return

        self.close()
        self._open()

    def write(self, line: str) -> None:
        self._follow()
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
    """The outcomes: a line for each item, written when it is known.

    A later run skips the items that have ended.  The lines of the others stay until there is a new
    one, which replaces it when the results are settled.
    """

    _sink: Sink
    _earlier: Earlier = field(factory=Earlier)
    skipped: int = field(default=0, init=False)
    """Items that were skipped, because an earlier run has recorded their end."""
    copy: IO[str] | None = field(default=None, init=False)
    """Where every line is written once more, for the page of a run whose results are not in a file."""
    _replaced: set[int] = field(factory=set, init=False)
    """Items that have an older line, too, by the marks of their keys."""

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
            earlier = Earlier()
            if real.exists():
                earlier = Earlier.take_in(real, path, keeping)

            file = _File(real)
            try:
                yield cls(file, earlier)
            finally:
                file.close()

    @contextlib.contextmanager
    def settled(self, path: Path | None) -> Iterator[None]:
        """Have one line for each item at the end; that it could not be done is told, and harms nothing."""
        try:
            yield
        finally:
            if path is not None and self._replaced:
                self._sink.close()
                try:
                    drop_replaced(path.resolve(), self._replaced)
                except OSError as error:
                    say(
                        f"{path} has old rows of {len(self._replaced)} items beside their new ones, which "
                        f"could not be removed ({reason_of(error)}): the next run with it does that"
                    )

    @property
    def failed(self) -> int:
        """How many items have ended badly in earlier runs."""
        return self._earlier.failed

    @property
    def on_terminal(self) -> bool:
        """Whether outcomes go to a terminal."""
        return isinstance(self._sink, _Stdout) and on_terminal()

    def skips(self, key: str | None) -> bool:
        """Return whether an earlier run has recorded the end of the item with this key, and count it."""
        skip = key is not None and mark(key) in self._earlier.ended
        self.skipped += skip
        return skip

    def write(self, outcome: Outcome[Any], origin: Origin) -> None:
        """Write the outcome of a line; raise `OSError` or `ValueError` if that fails."""
        row = row_of(outcome, origin)
        self._sink.write(to_json(row, encoding=self._sink.encoding))
        item = mark(outcome.key)
        if item in self._earlier.open:
            self._replaced.add(item)
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
        for row in filter(None, map(read_row, file)):
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
