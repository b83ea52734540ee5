"""The source of a batch's requests: a file, or a copy of what can be read only once."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO, BinaryIO

import click
from attrs import define


@define
class Source:
    """A file of requests, which is read several times and must not change meanwhile.

    Standard input and pipes are copied to a temporary file without a name, so that nothing of them is
    left behind however the command ends.
    """

    name: str
    path: Path | None
    """None if it can be read only once."""
    _copy: IO[bytes] | None = None
    _stamp: tuple[int, ...] | None = None

    @classmethod
    def of(cls, path: Path) -> Source:
        """Return the source at a path; raise `click.ClickException` if a pipe cannot be copied."""
        if str(path) == "-":
            return cls("standard input", None, _copied(sys.stdin.buffer, "standard input"))
        if path.is_file():
            return cls(str(path), path)
        with path.open("rb") as pipe:
            return cls(str(path), None, _copied(pipe, str(path)))

    @property
    def suffix(self) -> str:
        """The suffix of its name, which may tell its kind."""
        return Path(self.name).suffix

    def open(self) -> BinaryIO:
        """Open it at its beginning; raise `click.ClickException` if it has changed since the first time."""
        if self._copy is not None:
            self._copy.seek(0)
            return os.fdopen(os.dup(self._copy.fileno()), "rb")

        assert self.path is not None  # noqa: S101 - there is a file or a copy
        stream = self.path.open("rb")
        stamp = _stamp_of(os.fstat(stream.fileno()))
        if self._stamp not in (None, stamp):
            stream.close()
            raise self._has_changed()
        self._stamp = stamp
        return stream

    def check_unchanged(self) -> None:
        """Raise `click.ClickException` if it has been written to since it was opened first.

        One that has another file in its place now does not matter: what is open is read to its end.
        """
        if self.path is None or self._stamp is None:
            return
        with contextlib.suppress(OSError):
            stamp = _stamp_of(self.path.stat())
            if stamp[:2] == self._stamp[:2] and stamp != self._stamp:
                raise self._has_changed()

    def _has_changed(self) -> click.ClickException:
        return click.ClickException(
            f"{self.name} has changed since it was checked. Nothing more is submitted."
        )

    def close(self) -> None:
        """Close the copy."""
        if self._copy is not None:
            self._copy.close()


def _stamp_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _copied(stream: BinaryIO, name: str) -> IO[bytes]:
    copy = tempfile.TemporaryFile("w+b", prefix="piapi-batch-")  # noqa: SIM115 - it outlives this function
    try:
        shutil.copyfileobj(stream, copy)
        copy.flush()
    except OSError as error:
        with contextlib.suppress(OSError):  # what is still buffered would fail again
            copy.close()
        raise click.ClickException(
            f"{name} could not be copied to {tempfile.gettempdir()} ({error.strerror}); set TMPDIR to a "
            "folder with room. Nothing was submitted."
        ) from None
    return copy
