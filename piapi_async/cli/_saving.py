"""Which files of a result are saved, and where: what `_saving_options` say."""

from __future__ import annotations

from typing import Any

import click
from attrs import frozen

from ..client import PiAPI, runtime_of
from ..downloads._disk import MAX_OPEN_FILES
from ..downloads._options import MAX_BYTES, DownloadOptions
from ..downloads._saver import Downloads
from ..downloads._target import Target, place_at, prepare_target
from ..errors import DownloadError
from ..tasks import Task, with_files


@frozen(kw_only=True)
class Saving:
    """What `saving_options` say; the fields have the names of click's parameters."""

    directory: Target | None = None
    all_files: bool = False
    grid: bool = False
    download_timeout: float | None = None
    max_file_bytes: int = MAX_BYTES
    parallel_files: int = MAX_OPEN_FILES

    def prepare(self) -> None:
        """Make the folder, before anything is paid for; raise `click.UsageError` if that fails."""
        if self.directory is None:
            return
        try:
            prepare_target(self.directory)
        except DownloadError as error:
            raise click.UsageError(str(error)) from None

    def words(self) -> list[str]:
        """Return the options as words of a command line."""
        if self.directory is None:
            return []

        words = ["--download", str(place_at(self.directory).shown)]
        if self.all_files:
            words.append("--all-files")
        if self.grid:
            words.append("--grid")
        if self.download_timeout is not None:
            words += ["--download-timeout", f"{self.download_timeout:g}"]
        if self.max_file_bytes != MAX_BYTES:
            words += ["--max-file-bytes", str(self.max_file_bytes)]
        if self.parallel_files != MAX_OPEN_FILES:
            words += ["--parallel-files", str(self.parallel_files)]
        return words

    def for_runner(self) -> dict[str, Any]:
        """Return the keyword arguments of a `BatchRunner`."""
        download = None
        if self.directory is not None:
            download = place_at(self.directory).shown
        return {
            "download": download,
            "all_files": self.all_files,
            "grid": self.grid,
            "download_timeout": self.download_timeout,
            "max_file_bytes": self.max_file_bytes,
            "parallel_files": self.parallel_files,
        }

    async def save(
        self, piapi: PiAPI, task: Task[Any], *, verb: str = "", just_ended: bool = False
    ) -> Task[Any]:
        """Return a finished task, its files saved if that was asked for; raise `DownloadError`."""
        if self.directory is None:
            return task

        options = DownloadOptions(
            all_files=self.all_files,
            grid=self.grid,
            timeout=self.download_timeout,
            max_bytes=self.max_file_bytes,
            parallel=self.parallel_files,
        )
        session = runtime_of(piapi).file_session()  # with the client's proxy and TLS
        async with Downloads(self.directory, session, options) as downloads:
            saved = await downloads.save(task, verb=verb, just_ended=just_ended, again=True)
            return with_files(task, saved)
