"""Where files are saved: the one interface of local folders, sinks and memory.

A `Place` makes `Part`s, files that are not whole yet and have no name, and gives them one when they
are whole.  Its methods block; they are called in threads of `executor`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from ._disk import PartFile, device_of, free_bytes, is_saved
from ._folder import prepare_directory

PLENTY = 1 << 62
"""Bytes that are free where nobody counts them."""

NO_DISK = -1
"""The device of places that are on none; disks have positive numbers."""


class Part(Protocol):
    """A file that is not whole yet."""

    def write(self, data: bytes) -> None:
        """Append bytes; raises `OSError`."""
        ...

    def restart(self) -> None:
        """Empty the file."""
        ...

    def publish(self, name: str) -> Path | str:
        """Give the whole file its name, at once; return where it is."""
        ...

    def discard(self) -> None:
        """Remove the file."""
        ...


class Place(Protocol):
    """Where the files of tasks are saved."""

    @property
    def shown(self) -> Path | str | None:
        """The place, for error texts and `DownloadError.path`."""
        ...

    @property
    def executor(self) -> Executor | None:
        """Whose threads may block here; None for those of the event loop."""
        ...

    def begin(self) -> int:
        """Prepare for the files of a task; return the number of the disk.  Raises `DownloadError`."""
        ...

    def free(self) -> int:
        """Return the bytes that are free."""
        ...

    def create(self, stem: str, suffix: Callable[[], str]) -> Part:
        """Return a new part; `suffix` tells what is known of its suffix by then."""
        ...

    def saved(self, name: str) -> Path | str | None:
        """Return where a file of an earlier run is, None if there is none that is whole."""
        ...

    def close(self) -> None:
        """Free what was used."""
        ...


@frozen
class _LocalPart:
    folder: Path
    file: PartFile

    def write(self, data: bytes) -> None:
        self.file.write(data)

    def restart(self) -> None:
        self.file.restart()

    def publish(self, name: str) -> Path:
        path = self.folder / name
        self.file.publish(path)
        return path

    def discard(self) -> None:
        self.file.discard()


@frozen
class LocalFolder:
    """A folder on a disk of this machine."""

    path: Path
    executor: Executor | None = field(default=None, init=False)

    @property
    def shown(self) -> Path:
        """Its path."""
        return self.path

    def begin(self) -> int:
        """Make the folder if need be; return the number of its disk."""
        prepare_directory(self.path)
        return device_of(self.path)

    def free(self) -> int:
        """Return the bytes that are free on its disk."""
        return free_bytes(self.path)

    def create(self, stem: str, suffix: Callable[[], str]) -> Part:  # noqa: ARG002 - the name comes when it is whole
        """Return a hidden file."""
        return _LocalPart(self.path, PartFile.create(self.path, stem))

    def saved(self, name: str) -> Path | None:
        """Return the path of a file that is not empty."""
        path = self.path / name
        if is_saved(path):
            return path
        return None

    def close(self) -> None:
        """Do nothing: no file is kept open."""


@define
class _MemoryPart:
    files: dict[str, bytes]
    data: bytearray = field(factory=bytearray)

    def write(self, data: bytes) -> None:
        self.data += data

    def restart(self) -> None:
        self.data.clear()

    def publish(self, name: str) -> str:
        self.files[name] = bytes(self.data)
        return name

    def discard(self) -> None:
        self.data.clear()


@frozen
class Memory:
    """The memory of this process: `files` by their names."""

    files: dict[str, bytes] = field(factory=dict, init=False)
    executor: Executor | None = field(default=None, init=False)

    @property
    def shown(self) -> None:
        """It has no path."""
        return

    def begin(self) -> int:
        """Return the number of no disk."""
        return NO_DISK

    def free(self) -> int:
        """Return what `max_bytes` alone bounds."""
        return PLENTY

    def create(self, stem: str, suffix: Callable[[], str]) -> Part:  # noqa: ARG002 - the name comes when it is whole
        """Return an empty part."""
        return _MemoryPart(self.files)

    def saved(self, name: str) -> None:
        """Return None: nothing is left of earlier runs."""

    def close(self) -> None:
        """Do nothing: the caller has the files."""
