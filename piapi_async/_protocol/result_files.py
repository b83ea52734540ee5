"""Which fields of a result hold files, of which kind, and which of them to save.  Pure.

A file is known by the name of its field: the names are those of the vendor's pages and of responses
that clients were seen to read.  A field that only repeats another (`download_url`) or echoes an
input (`prompt_img_url`) is not a file.  If no field of a known name has a link, every string that
is nothing but an http(s) link counts as one: better one picture too many than a result that was
paid for and not saved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from attrs import evolve, frozen

from ..tasks import FileKind, FileRole, Task, TaskFile, TaskState
from .reading import IMAGE_FIELDS, join, links_in, pick_images
from .signatures import suffix_of_link

_NAMES: Mapping[FileKind, str] = {
    FileKind.IMAGE: (
        "image image_url image_urls images temporary_image_urls discord_image_url permanent_url "
        "cover cover_url thumbnail thumbnail_url last_frame image_path image_large_path "
        "no_background_image no_background_images mask_url"
    ),
    FileKind.VIDEO: (
        "video video_url video_urls videos combined_video color_video gaussian_video "
        "radiance_field_video video_path "
        "resource"  # a `resource` that nothing names is a work of the older Kling
    ),
    FileKind.AUDIO: "audio audio_url audio_urls song_path vocals instrumental",
    FileKind.MODEL: "model_file model_url model_file_ply gaussian_ply mesh_url",
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
_COVERS = frozenset(
    {
        *("cover", "cover_url", "thumbnail", "thumbnail_url", "last_frame"),
        *("image_path", "image_large_path"),
    }
)

# Where a file is an object, these are its link; the object's own name tells the kind.
_LINKS = frozenset({"url", "href", "uri", "resource"})

# Kling says `resource_without_watermark`, its older protocol `resourceWithoutWatermark`, Luma
# `video_raw`.
_CLEAN = re.compile(r"(?:_?without_?watermark|_no_?watermark|_raw)(_url)?\Z", re.IGNORECASE)
_MARKED = re.compile(r"_?watermark(?:ed)?_?", re.IGNORECASE)

_MIDJOURNEYS = frozenset({"actions", "discord_image_url", "temporary_image_urls"})
"""Fields that Midjourney's results alone have: there one picture stands in several fields."""

_RANKS = {role: rank for rank, role in enumerate(FileRole)}

_LINK = re.compile(r"\s*https?://[^\s/?#]\S*\s*\Z", re.IGNORECASE)
_LONGEST_NAME = 100  # characters; no name that is known has as many
_ECHOES = re.compile(r"prompt|input|webhook|callback|origin_|user_", re.IGNORECASE)

_BY_SUFFIX: Mapping[FileKind, str] = {
    FileKind.IMAGE: "png jpg jpeg webp gif bmp tif tiff jxl jp2 avif heic heif svg psd exr hdr",
    FileKind.VIDEO: "mp4 mov webm mkv avi ts mpg mpeg flv wmv 3gp m4v",
    FileKind.AUDIO: "mp3 wav flac ogg opus aac m4a aiff aif caf mid amr",
    FileKind.MODEL: "glb gltf ply obj stl fbx usdz usdc usda usd dae x3d 3mf blend",
}
_SUFFIX_KINDS = {f".{suffix}": kind for kind, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}


def kind_of_suffix(suffix: str) -> FileKind:
    """Return what a file with a suffix is, `FileKind.FILE` if that does not tell."""
    return _SUFFIX_KINDS.get(suffix, FileKind.FILE)


@frozen(eq=False, repr=False)
class _Place:
    """A value of an answer, and what the names around it say of it."""

    value: Any
    path: str
    kind: FileKind | None = None
    role: FileRole = FileRole.RESULT


def find_files(value: object, path: str = "", *, midjourney: bool = False) -> tuple[TaskFile, ...]:
    """Return the files that a result names, each link once.

    Results stand first, then copies, watermarked ones, and covers; within a role the host's order
    is kept.  `midjourney` says that it is a result of Midjourney's, which other protocols have to be
    told by its fields.
    """
    found = _each_once(_walk(value, path))
    if isinstance(value, dict) and (midjourney or not _MIDJOURNEYS.isdisjoint(value)):
        found = _with_copies(found, value)
    if not any(_LINK.match(file.url) for file in found):
        found = _each_once(_walk_links(value, path)) or found
    return tuple(sorted(found, key=lambda file: _RANKS[file.role]))


def _with_copies(found: list[TaskFile], result: Mapping[str, Any]) -> list[TaskFile]:
    """Return the files of a Midjourney result, whose other fields repeat the pictures of the first."""
    pictures = pick_images(result)
    copies = {link for name in IMAGE_FIELDS for link in links_in(result.get(name))}.difference(pictures)

    files = []
    for file in found:
        if file.url in copies:
            file = evolve(file, role=FileRole.COPY)  # noqa: PLW2901 - the same file
        files.append(file)
    return files


def files_to_save(files: tuple[TaskFile, ...], *, all_files: bool = False) -> tuple[TaskFile, ...]:
    """Return the files that were asked for: the results, or the next best where there are none."""
    if all_files or not files:
        return files
    best = min(files, key=lambda file: _RANKS[file.role]).role
    return tuple(file for file in files if file.role is best)


_QUADRANTS = 4
_GRIDS = ("image_url", "discord_image_url", "permanent_url")


def with_grid_whole(task: Task[Any]) -> tuple[TaskFile, ...]:
    """Return a task's files, those of a grid with the one picture of all four in their place.

    A task without quadrants, and a grid that the host shows only in quadrants, keep their files.
    """
    for name in ("task_result", "output"):
        result = task.raw.get(name)
        if len(task.images) != _QUADRANTS or not isinstance(result, dict):
            continue

        whole = next((field for field in _GRIDS if _is_another(result.get(field), task.images)), None)
        if whole is not None:
            link = result[whole]
            rest = [file for file in task.files if file.role is not FileRole.RESULT and file.url != link]
            return (TaskFile(link, join(name, whole), FileKind.IMAGE), *rest)
    return task.files


def _is_another(link: object, links: tuple[str, ...]) -> bool:
    return isinstance(link, str) and _LINK.match(link) is not None and link not in links


def _each_once(files: Iterator[TaskFile]) -> list[TaskFile]:
    best: dict[str, TaskFile] = {}
    for file in files:
        known = best.setdefault(file.url, file)
        if _RANKS[file.role] < _RANKS[known.role]:
            best[file.url] = file
    return list(best.values())


def _walk(value: object, path: str) -> Iterator[TaskFile]:
    """Visit a result in its order; the stack is explicit: JSON may be nested deeper than we recurse."""
    ahead = [_Place(value, path)]
    while ahead:
        place = ahead.pop()
        if isinstance(place.value, dict):
            ahead += reversed([_inside(place, name) for name in place.value])
        elif isinstance(place.value, list):
            ahead += reversed(_within(place))
        elif place.kind is not None and isinstance(place.value, str) and place.value.strip():
            yield TaskFile(place.value, place.path, place.kind, place.role)


def _within(outer: _Place) -> list[_Place]:
    """Return the items of a list, which are what the list is."""
    kind, role = outer.kind, outer.role
    return [_Place(item, join(outer.path, at), kind, role) for at, item in enumerate(outer.value)]


def _inside(outer: _Place, name: str) -> _Place:
    """Return what stands under a name of an object."""
    plain, kind = _known_name(name) if len(name) <= _LONGEST_NAME else (name, None)
    if plain in _LINKS:
        kind = outer.kind or kind

    role = outer.role
    if plain in _COVERS:
        role = FileRole.COVER
    elif role is FileRole.RESULT and kind is not None and _is_marked(outer.value, name):
        role = FileRole.WATERMARKED
    return _Place(outer.value[name], join(outer.path, name), kind, role)


@lru_cache(maxsize=1024)
def _known_name(name: str) -> tuple[str, FileKind | None]:
    """Return a name without what it says of a watermark, and the kind of the files that it stands for."""
    plain = _MARKED.sub("", _CLEAN.sub(r"\1", name)) or name
    kind = _KINDS.get(plain)
    if kind is None and plain not in _LINKS:
        kind = _KINDS.get(plain.removesuffix("_url"))
    return plain, kind


def _is_marked(siblings: Mapping[str, Any], name: str) -> bool:
    """Return whether a file has a watermark: its name says so, or a sibling is its clean copy."""
    if _CLEAN.search(name):
        return False
    if _MARKED.search(name):
        return True

    bare = name.removesuffix("_url")
    clean_copies = (
        value for other, value in siblings.items() if _CLEAN.search(other) and _CLEAN.sub("", other) == bare
    )
    return any(map(_has_link, clean_copies))


def _has_link(value: object) -> bool:
    """Return whether a value is a link, or an object or a list that has one."""
    if isinstance(value, dict):
        return any(isinstance(value.get(name), str) and value[name].strip() for name in _LINKS)
    if isinstance(value, list):
        return any(isinstance(item, str) and item.strip() for item in value)
    return isinstance(value, str) and bool(value.strip())


def _walk_links(value: object, path: str) -> Iterator[TaskFile]:
    """Visit every string that is nothing but a link, whatever its name, except echoes of an input."""
    ahead = [(value, path)]
    while ahead:
        value, path = ahead.pop()
        if isinstance(value, dict):
            named = value.items()
            ahead += reversed([(item, join(path, name)) for name, item in named if not _ECHOES.match(name)])
        elif isinstance(value, list):
            ahead += reversed([(item, join(path, index)) for index, item in enumerate(value)])
        elif isinstance(value, str) and _LINK.match(value):
            url = value.strip()
            kind = kind_of_suffix(suffix_of_link(url))
            yield TaskFile(url, path, kind)


# -- tasks that end in words -----------------------------------------------------------------------

_TEXT_MAKERS = re.compile(
    r"(?:.*/)?(?:seed|describe|shorten)\Z"
    r"|.*(?:lyrics|caption|transcri|speech.?to.?text)",
    re.IGNORECASE,
)
_WORDS = ("seed", "text", "prompts", "lyrics", "lyrics_pairs", "caption", "description", "transcript")


def makes_text(name: str) -> bool:
    """Return whether a verb, a task type or a model of this name makes text."""
    return _TEXT_MAKERS.match(name) is not None


def ends_in_words(task: Task[Any], verb: str = "") -> bool:
    """Return whether a task's result is text (describe, seed, lyrics, caption) and needs no file.

    `verb` is that of the request, if it is known: not every host tells it.
    """
    names = [verb, task.task_type]
    model = task.raw.get("model")
    if isinstance(model, str):
        names.append(model)
    if any(makes_text(name) for name in names):
        return True
    if task.task_type or verb:
        return False

    output = task.raw.get("task_result") or task.raw.get("output")
    return isinstance(output, dict) and any(output.get(name) for name in _WORDS)


def needs_files(task: Task[Any], verb: str = "") -> bool:
    """Return whether a task without a file has lost something: it is done, and its result not text."""
    return task.state is TaskState.DONE and not ends_in_words(task, verb)
