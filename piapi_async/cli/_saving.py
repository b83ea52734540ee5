"""Which files of a result are saved, and where: the options of every command that saves some."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from attrs import fields, frozen

from ..client import PiAPI, runtime_of
from ..downloads._disk import MAX_OPEN_FILES
from ..downloads._options import MAX_BYTES, DownloadOptions
from ..downloads._saver import Downloads
from ..downloads._target import Target, check_target, place_at, prepare_target
from ..errors import DownloadError
from ..tasks import Task, with_files
from ._options import stacked


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
            raise click.UsageError(f"{error} Nothing was submitted.") from None

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
            return with_files(task, await downloads.save(task, verb=verb, just_ended=just_ended))


class Folder(click.Path):
    """A folder to save in, which need not exist yet, or the URL of a sink."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - click's shape
        try:
            target = check_target(value)
        except ValueError as error:
            self.fail(str(error).removeprefix("download: "), param, ctx)
        if not isinstance(target, Path):
            return target
        return super().convert(value, param, ctx)


download_option = click.option(
    "--download",
    "directory",
    type=Folder(),
    metavar="DIR",
    help="Save the files of the result here: their links expire. A folder, or a URL such as "
    "s3://bucket/run (pip install 'piapi_async[fsspec]').",
)

_how_options = stacked(
    click.option("--all-files", is_flag=True, help="Also save whole grids, watermarked copies and covers."),
    click.option("--grid", is_flag=True, help="Save a grid as one picture, not as four."),
    click.option(
        "--download-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="For one file. Default: no limit while it makes progress.",
    ),
    click.option(
        "--max-file-bytes",
        type=click.IntRange(min=1),
        default=MAX_BYTES,
        metavar="BYTES",
        help=f"Save no larger file. Default: {MAX_BYTES >> 20} MiB.",
    ),
    click.option(
        "--parallel-files",
        type=click.IntRange(min=1),
        default=MAX_OPEN_FILES,
        metavar="N",
        help=f"Save at most N files at a time. Default: {MAX_OPEN_FILES}.",
    ),
)


def saving_options(where: Callable[[Any], Any] = download_option) -> Callable[[Any], Any]:
    """Return the decorator of a command that saves files: it is called with their `Saving`.

    `where` is the parameter called `directory`.
    """
    names = [field.name for field in fields(Saving)]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**values: Any) -> None:  # noqa: ANN401 - whatever click has read
            given = {name: values.pop(name) for name in names}
            function(saving=Saving(**given), **values)

        decorated: Callable[..., None] = stacked(where, _how_options)(command)
        return decorated

    return decorate
