"""What the files of one process share: places, disks, and the partial files that dead processes left.

File descriptors belong to the process and free bytes to the disk, whichever client or batch a file
is for.  So here alone something is kept for the whole process: how many bytes are promised to files
that are being written.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import IO

import anyio
import anyio.lowlevel
from attrs import define, field

try:
    import fcntl
    import resource
except ImportError:  # pragma: no cover - Windows: no open file can be removed, descriptors are plenty
    fcntl = resource = None  # type: ignore[assignment]

RESERVE = 64 * 1024 * 1024
"""Bytes that stay free on a disk."""

MAX_OPEN_FILES = 64
"""Files that one process saves at a time."""

_STEP = 16 * 1024 * 1024  # bytes that are promised at a time to a file of unknown length

_NOT_NEEDED_SOON = getattr(os, "POSIX_FADV_DONTNEED", None)  # macOS and Windows take no such advice

PART = ".piapi-part"
"""The suffix of partial files: ours alone, as those that dead processes have left are removed."""
_PARTIAL = re.compile(rf"\.(?:.+\.)?[0-9a-f]{{8,16}}{re.escape(PART)}\Z", re.DOTALL)

# -- places -------------------------------------------------------------------------------------

_PLACES: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("piapi_async.file_places")


def places() -> anyio.CapacityLimiter:
    """Return the limiter of the files that are saved in this loop.

    A file takes a socket and a descriptor, and a process may have only 256 (macOS); half of them are
    left to others.
    """
    try:
        return _PLACES.get()
    except LookupError:
        limiter = anyio.CapacityLimiter(_places_of(_descriptors()))
        _PLACES.set(limiter)
        return limiter


def _places_of(descriptors: int) -> int:
    return max(4, min(MAX_OPEN_FILES, descriptors // 4))


def _descriptors() -> int:
    if resource is None:
        return 4 * MAX_OPEN_FILES

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 4 * MAX_OPEN_FILES
    return soft


# -- disks --------------------------------------------------------------------------------------

_LOCK = threading.Lock()
_PROMISED: Counter[int] = Counter()  # bytes, by device
_WRITERS: Counter[int] = Counter()  # files, by device


class DiskFullError(Exception):
    """There is too little room for a file; with `others` being written there may be some later."""

    def __init__(self, size: int, free: int, *, others: bool) -> None:
        super().__init__(
            f"the disk has {free} bytes free, which is too little for {size} more; {RESERVE} must stay free"
        )
        self.others = others


@define(eq=False)
class Room:
    """Room on a disk for one file: claimed before bytes are requested, given back as they are written.

    Free bytes may be promised already: to files that have claimed them and not written them yet.
    """

    device: int
    _left: int = field(default=0, init=False)
    _open: bool = field(default=False, init=False)

    @property
    def others(self) -> bool:
        """Whether other files are being written to the disk."""
        return _WRITERS[self.device] > self._open

    def claim(self, size: int, free: int) -> None:
        """Claim `size` more bytes of a disk with `free`; raise `DiskFullError` if there are not enough."""
        with _LOCK:
            if free - _PROMISED[self.device] < size + RESERVE:
                raise DiskFullError(size, free, others=_WRITERS[self.device] > self._open)
            _WRITERS[self.device] += not self._open
            _PROMISED[self.device] += size
            self._open = True
            self._left += size

    def step_for(self, size: int) -> int:
        """Return how many bytes must be claimed before `size` are written."""
        if size <= self._left:
            return 0
        return max(_STEP, size)

    def written(self, size: int) -> None:
        """Give back the promise of bytes that are on the disk now."""
        with _LOCK:
            size = min(size, self._left)
            _PROMISED[self.device] -= size
            self._left -= size

    def release(self) -> None:
        """Give back everything."""
        self.written(self._left)
        with _LOCK:
            _WRITERS[self.device] -= self._open
            self._open = False


def free_bytes(folder: Path) -> int:
    """Return the bytes that this process may use on the disk of a folder."""
    return shutil.disk_usage(folder).free


def device_of(folder: Path) -> int:
    """Return the number of the disk that a folder is on."""
    return folder.stat().st_dev


# -- partial files ------------------------------------------------------------------------------


@define(eq=False)
class PartFile:
    """A file that is not whole yet: hidden, and locked for as long as its process lives."""

    path: Path
    file: IO[bytes] = field(repr=False)
    _size: int = field(default=0, init=False)
    # A cancelled caller's thread may still be writing; a descriptor that is closed meanwhile may be
    # another file's by then.
    _lock: threading.Lock = field(factory=threading.Lock, init=False, repr=False)

    @classmethod
    def create(cls, folder: Path, name: str) -> PartFile:
        """Make a partial file in the folder of the whole one."""
        while True:
            path = folder / f".{name}.{secrets.token_hex(4)}{PART}"
            file = path.open("xb", buffering=0)
            # Before the lock another process may have taken it for a dead one's, and removed it.
            if _may_keep(file) and path.exists():
                return cls(path, file)
            file.close()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        view = memoryview(data)
        with self._lock:
            while view:
                view = view[self.file.write(view) :]
            _start_storing(self.file, self._size, len(data))
            self._size += len(data)

    def restart(self) -> None:
        """Empty the file."""
        with self._lock:
            self.file.seek(0)
            self.file.truncate()
            self._size = 0

    def publish(self, path: Path) -> None:
        """Give the whole file its name, once its bytes are on the disk."""
        # A later run takes a name for a saved file, and its link has expired by then: so a crash of
        # the machine must not leave one of half its bytes.  Most of them are there by now.  The files
        # of a task wait at once, which a file system answers with few commits, while others arrive.
        with self._lock:
            os.fsync(self.file.fileno())
            self.file.close()
            self.path.replace(path)

    def discard(self) -> None:
        """Remove the file."""
        with self._lock:
            with contextlib.suppress(OSError):
                self.file.close()
            self.path.unlink(missing_ok=True)


def _start_storing(file: IO[bytes], begin: int, size: int) -> None:
    """Let the disk begin with bytes that were just written, so that little is left when the file is whole.

    Otherwise they would lie in memory until then.  On Linux this advice does it, and returns at once;
    nothing is dropped from memory, because bytes on their way to the disk cannot be.
    """
    if _NOT_NEEDED_SOON is not None:  # pragma: no branch - Linux has it
        with contextlib.suppress(OSError):  # it is only a hint
            os.posix_fadvise(file.fileno(), begin, size, _NOT_NEEDED_SOON)


_CLEARED: set[tuple[int, int]] = set()  # folders


def clear_once(folder: Path) -> None:
    """Remove what dead processes have left in a folder; each process looks once, folders may be large."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity not in _CLEARED:
        _CLEARED.add(identity)
        clear_partial(folder)


def clear_partial(folder: Path) -> None:
    """Remove the partial files of processes that have ended."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.match(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_dead(Path(entry.path))


def _remove_dead(path: Path) -> None:
    if fcntl is None:
        path.unlink()  # refused while it is open
        return
    with path.open("r+b") as file:
        if _lock(file):
            path.unlink()


def _lock(file: IO[bytes]) -> bool:
    """Lock a file until it is closed; return False if another process has locked it.

    Raises `OSError` on a file system without locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _may_keep(file: IO[bytes]) -> bool:
    try:
        return _lock(file)
    except OSError:  # no locks here, so no process removes it either
        return True


def is_saved(path: Path) -> bool:
    """Return whether a path is a file that is not empty, as a crash of the machine may leave one."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0
