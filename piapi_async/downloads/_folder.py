"""The folder that files are saved in: checked and made before anything is paid for."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .._text import brief
from ..errors import DownloadError
from ._disk import PartFile, clear_once

# `Path` has already made one slash of the two, where the target was one.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?://|[\\/](?=[^\\/]))")


def is_url(target: str) -> bool:
    """Return whether a target is a URL, and not a folder."""
    found = _SCHEME.match(target)
    return found is not None and "://" in found[0]


def check_folder(target: str | os.PathLike[str]) -> Path:
    """Return the folder to save files in.

    Raises `ValueError` for a path that was a URL, and for a name that no folder can have.
    """
    text = os.fspath(target)
    if not isinstance(text, str):
        text = os.fsdecode(text)

    if isinstance(target, os.PathLike) and _SCHEME.match(text):
        raise ValueError(f"download: {brief(text)} is not allowed; give a URL as a str, not as a path")

    try:
        valid = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ValueError(f"download: {brief(text)} is not allowed; no folder can have that name")

    return Path(text)


def prepare_directory(folder: Path) -> None:
    """Make a folder for files, unless it exists, and remove what dead processes have left in it.

    Raises `DownloadError` if it cannot be made or not be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial = PartFile.create(folder, "trial")
        trial.discard()
        clear_once(folder)
    except FileExistsError:
        raise DownloadError(f"{folder} is not a directory.", path=folder) from None
    except (OSError, ValueError) as error:
        text = f"The directory {folder} cannot be used: {error}."
        raise DownloadError(text, path=folder) from error
