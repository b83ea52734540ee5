"""The options of every command that saves files; imports nothing that help does not need."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from ._options import stacked

MAX_BYTES = 1024 * 1024 * 1024
MAX_OPEN_FILES = 64
"""The defaults of `Saving`, as help tells them."""


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
        from ..downloads._target import check_target  # noqa: PLC0415 - brings what downloads

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


_NAMES = ("directory", "all_files", "grid", "download_timeout", "max_file_bytes", "parallel_files")


def saving_options(where: Callable[[Any], Any] = download_option) -> Callable[[Any], Any]:
    """Return the decorator of a command that saves files: it is called with their `Saving`.

    `where` is the parameter called `directory`.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def command(**values: Any) -> None:  # noqa: ANN401 - whatever click has read
            from ._saving import Saving  # noqa: PLC0415 - brings the client

            given = {name: values.pop(name) for name in _NAMES}
            function(saving=Saving(**given), **values)

        decorated: Callable[..., None] = stacked(where, _how_options)(command)
        return decorated

    return decorate
