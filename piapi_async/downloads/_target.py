"""What users name as the place for files: a local folder, or the URL of a sink."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from .._calls.threads import in_thread
from ..errors import DownloadError
from ._folder import check_folder, is_url, prepare_directory
from ._place import LocalFolder, Place
from ._sink import Sink

Target = Path | Sink


def check_target(target: str | os.PathLike[str]) -> Target:
    """Return the place to save files in.

    Raises `ValueError` for a name that no folder can have, and for a URL that no sink can be made of.
    """
    if isinstance(target, str) and is_url(target):
        return Sink.at(target)
    return check_folder(target)


def prepare_target(target: Target) -> None:
    """Make sure that files can be saved, before anything is paid for; raises `DownloadError`.  Blocks."""
    try:
        if isinstance(target, Sink):
            target.prepare()
        else:
            prepare_directory(target)
    except DownloadError as error:
        error.args = (f"{error} Nothing was submitted.",)
        raise


async def prepared(target: Target) -> None:
    """Do what `prepare_target` does, in a thread."""
    executor = None
    if isinstance(target, Sink):
        executor = target.executor
    await in_thread(partial(prepare_target, target), executor)


def place_at(target: Target | Place) -> Place:
    """Return the place of a target."""
    if isinstance(target, Path):
        return LocalFolder(target)
    return target
