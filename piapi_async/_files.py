"""Which fields of a result hold files, and of which kind.  Pure.

A file is known by the name of its field and never by what a text looks like: a prompt may hold a URL, too.  The names
are those of the vendor's pages and of answers that clients were seen to read.  What only repeats another field
(`download_url`) or echoes an input (`prompt_img_url`) is no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ._lenient import join
from .tasks import FileKind, TaskFile

_NAMES: Mapping[FileKind, str] = {
    FileKind.IMAGE: (
        "image image_url image_urls images temporary_image_urls discord_image_url permanent_url cover cover_url "
        "thumbnail last_frame image_path image_large_path no_background_image no_background_images mask_url"
    ),
    FileKind.VIDEO: (
        "video video_url video_urls videos video_raw video_raw_url combined_video color_video gaussian_video "
        "radiance_field_video video_path resource"  # a `resource` that nothing names is a work of the older Kling
    ),
    FileKind.AUDIO: "audio audio_url audio_urls song_path vocals instrumental",
    FileKind.MODEL: "model_file model_url model_file_ply gaussian_ply mesh_url",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}

# Where a file is an object, these are its link; the object's own name tells the kind.
_LINKS = frozenset({"url", "href", "uri", "resource", "resource_without_watermark", "resourceWithoutWatermark"})


def find_files(value: object, path: str = "") -> tuple[TaskFile, ...]:
    """Give the files that an object of an answer names, each link once, in the order of the answer."""
    files: dict[str, TaskFile] = {}
    for file in _walk(value, path):
        files.setdefault(file.url, file)
    return tuple(files.values())


def _walk(value: Any, path: str) -> Iterator[TaskFile]:  # noqa: ANN401 - JSON
    """Visit an answer in its order; by a stack of our own, for JSON may be nested deeper than Python calls."""
    ahead: list[tuple[Any, str, FileKind | None]] = [(value, path, None)]
    while ahead:
        value, path, kind = ahead.pop()
        if isinstance(value, dict):
            ahead += reversed([(item, join(path, name), _kind_of(name, kind)) for name, item in value.items()])
        elif isinstance(value, list):
            ahead += reversed([(item, join(path, index), kind) for index, item in enumerate(value)])
        elif kind is not None and isinstance(value, str) and value.strip():
            yield TaskFile(value, path, kind)


def _kind_of(name: str, outer: FileKind | None) -> FileKind | None:
    return outer or _KINDS.get(name) if name in _LINKS else _KINDS.get(name)
