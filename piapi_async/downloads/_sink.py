"""Sinks: object stores and other file systems that fsspec knows, by URLs such as ``s3://bucket/run``.

A file is streamed under its final name and committed when it is whole: an object store shows it only
then, and an upload that is given up is aborted.  Where a file system has no such commit, the file has
a hidden name until it is whole, and is moved.  fsspec's calls block, some for as long as an upload
takes, so a sink has threads of its own: those of the event loop also resolve names.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, RLock
from typing import Any
from urllib.parse import urlsplit

from attrs import define, field

from .._protocol.signatures import HEAD
from .._text import shorten, without_password
from ..errors import DownloadError
from ._disk import PART
from ._place import NO_DISK, PLENTY, Part

_THREADS = 16
_BLOCK = 8 * 1024 * 1024  # bytes of one part of an upload; S3 takes at most 10,000 of them

_READ_ONLY = frozenset({"http", "https", "data", "github", "git"})
_HAVE_FOLDERS = frozenset({"file", "local", "memory", "sftp", "ssh", "ftp", "smb", "hdfs", "webhdfs"})
_CHAINED = "::"

_PASSING = frozenset({408, 409, 412, 423, 425, 429})
"""Among the 4xx of an object store those that another try may mend."""


class SinkError(OSError):
    """A sink failed in a way that another try may mend."""


@define(eq=False)
class Sink:
    """A folder that fsspec can write to; `url` has no password and no slash at its end."""

    url: str
    _fs: Any = field(repr=False)
    _root: str = field(repr=False)
    _executor: ThreadPoolExecutor | None = field(default=None, init=False, repr=False)
    _earlier: dict[str, int] | None = field(default=None, init=False, repr=False)  # sizes, by name
    _made: bool = field(default=False, init=False, repr=False)
    _lock: Lock = field(factory=Lock, init=False, repr=False)

    @classmethod
    def at(cls, target: str) -> Sink:
        """Return the sink of a URL; raise `ValueError` if none can be made of it."""
        try:
            import fsspec  # noqa: PLC0415 - an extra
        except ModuleNotFoundError:
            raise _not_allowed(target, "URLs need fsspec: pip install 'piapi_async[fsspec]'") from None

        scheme = target.partition("://")[0].lower()
        if _CHAINED in target or scheme in _READ_ONLY:
            raise _not_allowed(target, f"nothing can be saved at a {scheme} URL")
        if not urlsplit(target).path.strip("/") and not urlsplit(target).netloc:
            raise _not_allowed(target, "the URL names no place")
        try:
            fs, root = fsspec.core.url_to_fs(target)
        except (ImportError, ValueError) as error:  # of a driver that is missing, of an unknown scheme
            raise _not_allowed(target, str(error)) from None
        return cls(without_password(target).rstrip("/"), fs, str(root).rstrip("/"))

    @property
    def shown(self) -> str:
        """The URL."""
        return self.url

    @property
    def executor(self) -> ThreadPoolExecutor:
        """Its own threads, begun when they are first needed."""
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="piapi_async sink")
            return self._executor

    def prepare(self) -> None:
        """Write a small file and remove it, before anything is paid for; raises `DownloadError`."""
        trial = self.path_of(f".trial.{secrets.token_hex(4)}{PART}")
        try:
            self._make_folder()
            self._fs.pipe_file(trial, b"trial")
            self._fs.rm_file(trial)
        except Exception as error:
            text = f"{self.url} cannot be written to: {_text(error)}."
            raise DownloadError(text, path=self.url) from error

    def begin(self) -> int:
        """Make the folder, where there are folders; return the number of no disk."""
        try:
            self._make_folder()
        except Exception as error:
            raise DownloadError(f"{self.url} cannot be made: {_text(error)}.", path=self.url) from error
        return NO_DISK

    def _make_folder(self) -> None:
        """Make the folder, once.  Never a bucket: its name may be a typing error."""
        if self._made or self.url.partition("://")[0].lower() not in _HAVE_FOLDERS:
            return
        self._fs.makedirs(self._root, exist_ok=True)
        self._made = True

    def free(self) -> int:
        """Return what nobody counts."""
        return PLENTY

    def create(self, stem: str, suffix: Callable[[], str]) -> Part:
        """Return a part, for which nothing is opened before it has bytes."""
        return _SinkPart(self, self._fs, stem, suffix)

    def saved(self, name: str) -> str | None:
        """Return the URL of a file that was there when a run began; the folder is listed once."""
        with self._lock:
            if self._earlier is None:
                self._earlier = self._list()
        if self._earlier.get(name):
            return self.url_of(name)
        return None

    def _list(self) -> dict[str, int]:
        try:
            self._fs.invalidate_cache()
            entries = self._fs.ls(self._root, detail=True)
        except Exception:  # noqa: BLE001 - what cannot be listed is saved again
            return {}
        return {str(entry["name"]).rsplit("/", 1)[-1]: int(entry.get("size") or 0) for entry in entries}

    def url_of(self, name: str) -> str:
        """Return the URL of a file here."""
        return f"{self.url}/{name}"

    def path_of(self, name: str) -> str:
        """Return a file's path in fsspec's words."""
        return f"{self._root}/{name}"

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            executor, self._executor, self._earlier = self._executor, None, None
        if executor is not None:
            executor.shutdown(wait=False)


@define(eq=False)
class _SinkPart:
    """A file on its way into a sink; its first bytes are kept until they tell its suffix."""

    sink: Sink
    fs: Any
    stem: str
    suffix: Callable[[], str]
    _head: bytearray = field(factory=bytearray, init=False)
    _file: Any = field(default=None, init=False)
    _path: str = field(default="", init=False)
    _commits: bool = field(default=False, init=False)
    _lock: Any = field(factory=RLock, init=False)  # a cancelled caller's thread may still be at work

    def write(self, data: bytes) -> None:
        with self._lock, _told():
            if self._file is not None:
                self._write(data)
                return
            self._head += data
            if len(self._head) >= HEAD:
                self._open(f"{self.stem}{self.suffix()}")

    def restart(self) -> None:
        self.discard()

    def publish(self, name: str) -> str:
        with self._lock, _told():
            if self._file is None:
                self._open(name)
            self._file.close()
            path = self.sink.path_of(name)
            if self._commits:
                self._file.commit()
            if self._path != path:
                self.fs.mv(self._path, path)
            self._file = None
        return self.sink.url_of(name)

    def discard(self) -> None:
        with self._lock:
            self._abort()

    def _abort(self) -> None:
        file, self._file = self._file, None
        self._head.clear()
        if file is None:
            return

        with contextlib.suppress(Exception):
            _drop(file)
        if not self._commits:
            with contextlib.suppress(Exception):
                self.fs.rm_file(self._path)

    def _open(self, name: str) -> None:
        # First under a hidden name: a file system without commits would empty an older file of the
        # final one.  Object stores hear nothing of an open before the first bytes.
        self._path = self.sink.path_of(f".{name}.{secrets.token_hex(4)}{PART}")
        self._file = self.fs.open(self._path, "wb", block_size=_BLOCK, autocommit=False)
        self._commits = _has_commit(self._file)
        if self._commits:
            _drop(self._file)
            self._path = self.sink.path_of(name)
            self._file = self.fs.open(self._path, "wb", block_size=_BLOCK, autocommit=False)
        elif not getattr(self._file, "autocommit", True):  # a temporary file on another disk
            _drop(self._file)
            self._file = self.fs.open(self._path, "wb", block_size=_BLOCK)

        data = bytes(self._head)
        self._head.clear()
        self._write(data)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]


def _drop(file: Any) -> None:  # noqa: ANN401 - whatever a file system opens
    """Abort what was written to a file; what is still in its buffer must not be sent."""
    from fsspec.spec import AbstractBufferedFile  # noqa: PLC0415 - an extra

    if isinstance(file, AbstractBufferedFile):
        file.closed = True
    else:
        file.close()
    if not getattr(file, "autocommit", True):
        file.discard()


def _has_commit(file: Any) -> bool:  # noqa: ANN401 - whatever a file system opens
    """Return whether a file appears only when it is committed, at once.

    Object stores' do.  The base class has a `commit` that does nothing, fsspec's local one moves a file
    from another disk, and that in memory is there from the beginning.
    """
    from fsspec.spec import AbstractBufferedFile  # noqa: PLC0415 - an extra

    return isinstance(file, AbstractBufferedFile) and type(file).commit is not AbstractBufferedFile.commit


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Raise what a file system raises, of whatever class, as an `OSError`."""
    try:
        yield
    except (PermissionError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise  # which no other try mends
    except Exception as error:
        if _is_refused(error):
            raise PermissionError(_text(error)) from error
        raise SinkError(_text(error)) from error


def _is_refused(error: BaseException | None) -> bool:
    """Return whether the store has refused a call, as its driver or what that has caught says: a 4xx.

    adlfs has a `RuntimeError` caused by an error with a `status_code`, gcsfs an error with a `code`
    (observed).
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for name in ("status_code", "code", "status"):
            status = getattr(error, name, None)
            if isinstance(status, int) and 400 <= status < 600:  # noqa: PLR2004 - HTTP's
                return status < 500 and status not in _PASSING  # noqa: PLR2004 - the same
        error = error.__cause__
    return False


def _text(error: Exception) -> str:
    return shorten(str(error)) or type(error).__name__


def _not_allowed(target: str, why: str) -> ValueError:
    return ValueError(f"download: {without_password(target)!r} is not allowed; {why}")
