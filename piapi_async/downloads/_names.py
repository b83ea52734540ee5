"""Under which names the files of a task are saved, and which of them are saved already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve

from .._protocol.result_files import files_to_save, kind_of_suffix
from .._protocol.signatures import ANYTHING, SUFFIXES, suffix_of_link
from ..tasks import FileKind, FileRole
from ._place import LocalFolder, Place

if TYPE_CHECKING:
    from ..tasks import Task, TaskFile

_BUNDLES = frozenset({".zip", ".7z", ".gz", ".zst", ".tar"})
_MOVING_OR_NOT = frozenset({FileKind.IMAGE, FileKind.VIDEO})  # as a GIF is either
_LONGEST_STEM = 100  # characters of a task id that go into a file name


def stems(task: Task[Any]) -> list[str]:
    """Return the names of a task's files without their suffixes.

    They are numbered where several files have the same role.
    """
    stem = safe_stem(task.task_id)
    roles = [file.role for file in task.files]
    numbers = dict.fromkeys(FileRole, 0)
    names = []

    for role in roles:
        numbers[role] += 1
        name = stem
        if role is not FileRole.RESULT:
            name = f"{stem}-{role}"
        if roles.count(role) > 1:
            name = f"{name}-{numbers[role]}"
        names.append(name)

    return names


def safe_stem(task_id: str) -> str:
    """Return a file name's stem for any task id.

    An id is the host's text: the stem is no path, not hidden, and of bounded length.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", task_id)[:_LONGEST_STEM]
    if stem and stem == task_id:
        return stem

    # The digest keeps two ids from sharing a name.
    digest = sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{stem}-{digest[:8]}"


def saved_files(
    task: Task[Any], place: Place | Path, *, all_files: bool = False
) -> tuple[TaskFile, ...] | None:
    """Return a task's files as an earlier `download` has saved them.

    None unless every file that is wanted is there.
    """
    if isinstance(place, Path):
        place = LocalFolder(place)
    wanted = files_to_save(task.files, all_files=all_files)
    found = []

    for file, stem in zip(task.files, stems(task), strict=True):
        path: Path | str | None = None
        if file in wanted:
            path = _existing(place, stem, file)
            if path is None:
                return None
        found.append(evolve(file, saved_as=path))

    return tuple(found)


def _existing(place: Place, stem: str, file: TaskFile) -> Path | str | None:
    likely = suffix_of_link(file.url)

    for suffix in dict.fromkeys((likely, *filter(partial(_may_have, file.kind), SUFFIXES))):
        if suffix and (saved := place.saved(f"{stem}{suffix}")):
            return saved
    return None


def _may_have(kind: FileKind, suffix: str) -> bool:
    """Return whether a file of a kind may have been saved with a suffix.

    Beside a picture `<id>.json` or `<id>.mp3` are somebody's own.
    """
    if kind is FileKind.FILE or suffix == ANYTHING:
        return True
    own = kind_of_suffix(suffix)
    if kind is FileKind.MODEL:
        return own is kind or suffix in _BUNDLES
    return own is kind or {own, kind} == _MOVING_OR_NOT


def paths_of(files: Sequence[TaskFile]) -> list[Path | str]:
    """Return where the files are that were saved."""
    return [file.saved_as for file in files if file.saved_as is not None]
