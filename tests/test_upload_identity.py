"""A link is used again only for the very file that it is a link to, however the other one got into its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.picture_tasks import PNG
from support.serving import serving

pytestmark = pytest.mark.looptime

OTHER = PNG[:-1] + b"!"  # of the same size


def keep_times(source: Path, target: Path) -> None:
    facts = source.stat()
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def copied(path: Path, other: Path) -> None:
    """``cp -p``: written into the same inode."""
    shutil.copy2(other, path)


def synced(path: Path, other: Path) -> None:
    """``rsync -t``, ``mv``, ``tar``: another inode under the old name."""
    fresh = path.with_name("fresh.png")
    shutil.copy2(other, fresh)
    fresh.replace(path)


def edited(path: Path, other: Path) -> None:
    """Written in place, and the mtime set back."""
    facts = path.stat()
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def linked(path: Path, other: Path) -> None:
    """A link that points elsewhere from now on."""
    path.unlink()
    path.symlink_to(other)


@pytest.mark.parametrize("put", [copied, synced, edited, linked])
async def test_another_picture_of_the_same_size_and_mtime_is_uploaded(
    put: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    cat, dog = tmp_path / "cat.png", tmp_path / "dog.png"
    cat.write_bytes(PNG)
    dog.write_bytes(OTHER)
    keep_times(cat, dog)
    async with serving() as (emulator, piapi):
        first = await piapi.upload(cat)
        assert await piapi.upload(cat) == first
        put(cat, dog)
        second = await piapi.upload(cat)

        assert second != first
        assert [upload.content for upload in emulator._host.uploads.files.values()] == [PNG, OTHER]


async def test_a_file_that_changes_while_it_waits_for_its_turn_is_sent_as_it_is_and_its_link_not_kept(
    tmp_path: Path,
) -> None:
    cat = tmp_path / "cat.png"
    cat.write_bytes(PNG)
    async with serving() as (emulator, piapi):
        uploader: Any = piapi._runtime.uploader
        old = await uploader.link(cat)
        [(stamp, _)] = uploader._links.items()
        uploader._links.clear()
        edited(cat, _other(tmp_path))
        await uploader._upload(stamp)  # as after a look that is out of date by now

        assert not uploader._links
        assert await piapi.upload(cat) != old
        assert [upload.content for upload in emulator._host.uploads.files.values()] == [PNG, OTHER, OTHER]


async def test_what_has_become_no_file_or_too_large_is_refused_when_it_is_read(tmp_path: Path) -> None:
    cat = tmp_path / "cat.png"
    cat.write_bytes(PNG)
    async with serving() as (emulator, piapi):
        uploader: Any = piapi._runtime.uploader
        await uploader.link(cat)
        [(stamp, _)] = uploader._links.items()
        with cat.open("r+b") as file:
            file.truncate(2**40)

        with pytest.raises(ValueError, match="10 MiB at most"):
            await uploader._upload(stamp)
        assert emulator.seen.requests["upload"] == 1


def _other(folder: Path) -> Path:
    path = folder / "other.png"
    path.write_bytes(OTHER)
    return path
