"""One HTML file of many entries: the template with its style, its script and the data inside it."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from attrs import frozen
from markupsafe import Markup

GENERATOR = "piapi-async report"
"""By which a file is known to be a page of ours."""

_HERE = Path(__file__).parent
_BEGINNING = 1000  # bytes of a page in which its generator stands


@frozen
class Page:
    """What stands around the entries; `command` runs what was chosen."""

    title: str
    made_at: str
    command: str


def write_page(
    page: Page,
    target: Path,
    entries: Iterable[Mapping[str, Any]],
    unreadable: Callable[[], int],
) -> None:
    """Write a page, whole or not at all, as a stream; raises `OSError`.

    `unreadable` is asked after the last entry how many lines were left out.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style, script = _own("page.css"), _own("page.js")
    pieces = environment.get_template("page.html.jinja").generate(
        page=page,
        entries=entries,
        unreadable=unreadable,
        generator=GENERATOR,
        style=Markup(style),  # noqa: S704 - our own file, whose hash the page's policy names
        script=Markup(script),  # noqa: S704 - the same
        policy=_policy(style, script),
    )

    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _own(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return the content security policy: nothing but this style, this script, and media."""
    media = "'self' file: data: blob: https: http:"
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            f"img-src {media}",
            f"media-src {media}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def is_ours(target: Path) -> bool:
    """Return whether a file is an earlier page, which may be replaced."""
    with target.open("rb") as file:
        return f'content="{GENERATOR}"'.encode() in file.read(_BEGINNING)


@frozen
class SavedFiles:
    """Finds saved files for a page: `page` is its folder, `bases` are those that paths may be relative to."""

    page: Path
    bases: tuple[Path, ...]

    def locate(self, saved_as: str) -> str | None:
        """Return the URL of a saved file, relative to the page where it can be; None if there is none."""
        try:
            path = next((base / saved_as for base in self.bases if (base / saved_as).is_file()), None)
        except (OSError, ValueError):  # no file can have that name
            return None
        if path is None:
            return None

        path = path.absolute()
        try:
            relative = os.path.relpath(path, self.page)
        except ValueError:  # on another drive
            return path.as_uri()
        return quote(Path(relative).as_posix(), errors="surrogateescape")
