"""Names and texts that JSON or a file system cannot carry are refused when a request is made, before it is paid for."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import attrs
import pytest
from support.serving import KEY
from support.tables import for_each
from support.typed_requests import BARE, LEGACY_BARE

from piapi_async import (
    BatchRunner,
    Blend,
    CreateTask,
    Describe,
    Imagine,
    Inpaint,
    Ledger,
    Outpaint,
    Pan,
    PiAPI,
    Reroll,
    Seed,
    Upscale,
    Variation,
    download,
)
from piapi_async.account import Upload
from piapi_async.midjourney import LEGACY
from piapi_async.models import flux
from piapi_async.tasks import TaskId

HALF = "\udcff"
"""What Python makes of a byte that is no UTF-8, as in a file's name, and half of a cut emoji."""

URL = "https://a.b/c.png"

ODD: list[Any] = [
    *(HALF, f"{HALF}.png", f"https://a.b/{HALF}.png", f"data:image/png;base64,{HALF}"),
    *(Path(f"{HALF}.png"), PurePath(f"{HALF}/a.png"), Path("a\0.png")),
    *([HALF], [Path(f"{HALF}.png")], [Path("a\0.png")], [{"a": HALF}]),
    *({"a": HALF}, {HALF: 1}, {"a": Path(f"{HALF}.png")}, {"a": [{"b": Path("a\0.png")}]}),
]

BUILDS = [
    *(build for build, *_ in BARE),
    *(build for build, *_ in LEGACY_BARE),
    *(partial(cls, "p") for cls in (Imagine, Reroll, Seed)),
    *(
        partial(Inpaint, "p", mask="iVBORw0K"),
        partial(Outpaint, "p", zoom_ratio="2"),
        partial(Pan, "p", direction="up"),
    ),
    *(partial(cls, "p", "1") for cls in (Upscale, Variation)),
    *(partial(Describe, URL), partial(Blend, [URL, URL]), partial(CreateTask, "m", "t", {})),
]


def class_of(build: Any) -> Any:
    return build.func if isinstance(build, partial) else build


def with_field(build: Any, field: attrs.Attribute[Any], value: Any) -> Any:
    """Make a request with one value in the place of its own."""
    given = build if isinstance(build, partial) else partial(build)
    cls = class_of(build)
    positional = [other.name for other in attrs.fields(cls) if other.init and not other.kw_only]
    args = list(given.args)
    if field.name in positional[: len(args)]:
        args[positional.index(field.name)] = value
        return cls(*args, **given.keywords)
    return cls(*args, **{**given.keywords, field.name: value})


@for_each("build", BUILDS, ids=lambda build: f"{class_of(build).__module__}.{class_of(build).__name__}")
def test_whatever_a_request_takes_can_be_sent(build: Any) -> None:
    taken = []
    for field in attrs.fields(class_of(build)):
        for value in ODD if field.init else ():
            with contextlib.suppress(ValueError):
                taken.append(with_field(build, field, value))

    for request in taken:
        assert request.to_http().body
        for path in getattr(request, "local_files", list)():
            assert "\0" not in str(path)
            str(path).encode()


@for_each("name", [f"{HALF}.png", "a\0.png"])
def test_a_file_whose_name_cannot_be_sent_is_refused_when_the_request_is_made(name: str) -> None:
    with pytest.raises(ValueError, match="image"):
        flux.ImageToImage("a cat", image=Path(name))
    with pytest.raises(ValueError, match="name"):
        Upload(name, b"x")


async def test_an_upload_of_such_a_name_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    async with PiAPI(KEY, base_url="http://localhost:1") as piapi:
        for upload in (
            partial(piapi.upload, b"x", name=f"{HALF}.png"),
            partial(piapi.upload, file, name="a\0.png"),
            partial(piapi.upload, tmp_path / "a\0.png"),
        ):
            with pytest.raises(ValueError, match=r"name|null"):
                await upload()


async def test_a_directory_or_ledger_that_cannot_be_is_refused_when_it_is_named() -> None:
    with pytest.raises(ValueError, match="path"):
        Ledger("a\0.db")
    async with PiAPI(KEY, base_url="http://localhost:1") as piapi:
        with pytest.raises(ValueError, match="a"):
            BatchRunner(piapi, download="a\0b")
    task = LEGACY.read({"task_id": "t", "status": "finished", "task_result": {"image_url": URL}}, TaskId("t"))
    with pytest.raises(ValueError, match="a"):
        await download(task, "a\0b")
