"""The pictures of tasks at the host, and how badly they travel: written from what CDNs do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from attrs import define, field

from .answers import HTML

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .plans import FilePlan
    from .world import Transport

PICTURES = 4
"""How many pictures a task has."""

_HEAD = b"\x89PNG\r\n\x1a\n"
_SIZES = (300, 3000, 40_000, 270_000)
"""Bytes of the four pictures: less than a packet, some, and more than is written to a disk at a time."""


def picture(task_id: str, number: int, version: int = 0) -> bytes:
    """Return the bytes of a picture of a task, whose number and version are seen all over it."""
    pattern = f"{task_id}/{number}/{version};".encode()
    size = _SIZES[number]
    return (_HEAD + pattern * (size // len(pattern) + 1))[:size]


def is_whole(name: str, content: bytes) -> bool:
    """Return whether a file is a picture of the task in its name, from its first byte to its last."""
    task_id, _, number = name.partition(".")[0].rpartition("-")
    if number not in {"1", "2", "3", "4"}:
        return False
    return any(content == picture(task_id, int(number) - 1, version) for version in range(2))


@define(eq=False)
class FileServer:
    """Serves pictures; `known` tells whether a task has any by now."""

    known: Callable[[str], FilePlan | None]
    happened: Any
    forbidden: list[str]
    _fates: dict[str, Iterator[str]] = field(factory=dict)
    _asked: dict[str, int] = field(factory=dict)

    def serve(self, transport: Transport, path: str, headers: Mapping[str, str]) -> None:
        """Answer a request for a picture."""
        task_id, _, name = path.removeprefix("/files/").partition("/")
        plan = self.known(task_id)
        if "x-api-key" in headers or "authorization" in headers:
            self.forbidden.append(f"a key with a request for {path}")
        if plan is None:
            transport.send(_http(404, b"<html>no such file</html>"))
            return

        number = int(name.removesuffix(".png"))
        fates = self._fates.setdefault(path, chain(plan.fates_of(number), repeat(plan.at_last)))
        fate = next(fates)
        self.happened[f"file: {fate}"] += 1
        version = 0
        if plan.changes:
            version = min(1, self._asked.get(path, 0))
        self._asked[path] = self._asked.get(path, 0) + 1
        raw = _good_answer(plan, headers, picture(task_id, number, version), f'"v{version}"')
        _FATES[fate](transport, raw)


def _good_answer(plan: FilePlan, headers: Mapping[str, str], content: bytes, tag: str) -> bytes:
    """Return a picture, or what is missing of it."""
    raw = _http(200, content, f"ETag: {tag}\r\n" if plan.resumes else "")
    asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
    if asked is not None and plan.resumes and (headers.get("if-range") == tag or plan.lies):
        start = max(0, int(asked[1]) - plan.lies)
        span = f"Content-Range: bytes {start}-{len(content) - 1}/{len(content)}\r\nETag: {tag}\r\n"
        raw = _http(206, content[start:], span)
    return raw


def _split(transport: Transport, raw: bytes) -> None:
    third = len(raw) // 3
    transport.send(raw[:third], 0.02)
    transport.send(raw[third:], 20.0)


def _cut(transport: Transport, raw: bytes) -> None:
    transport.send(raw[: len(raw) * 2 // 3], 0.02)
    transport.send_eof(0.1)


def _cut_chunks(transport: Transport, raw: bytes) -> None:
    head, _, body = raw.partition(b"\r\n\r\n")
    head = re.sub(rb"Content-Length: \d+", b"Transfer-Encoding: chunked", head)
    part = body[: len(body) * 2 // 3]
    transport.send(head + b"\r\n\r\n" + f"{len(part):x}\r\n".encode() + part + b"\r\n", 0.02)
    transport.send_eof(0.1)


def _stall(transport: Transport, raw: bytes) -> None:
    transport.send(raw[: len(raw) // 2], 0.02)


def _reset(transport: Transport, raw: bytes) -> None:
    transport.send(raw[: len(raw) // 2], 0.02)
    transport.reset(0.1)


def _says(status: int, body: bytes, more: str = "") -> Callable[[Transport, bytes], None]:
    return lambda transport, _: transport.send(_http(status, body, more, kind="text/html"), 0.02)


_FATES: dict[str, Callable[[Transport, bytes], None]] = {
    "whole": lambda transport, raw: transport.send(raw, 0.02),
    "split": _split,
    "cut off": _cut,
    "chunks cut off": _cut_chunks,
    "shorter than announced": _stall,
    "reset": _reset,
    "503": _says(503, b"<html>busy</html>"),
    "429": _says(429, b"slow down", "Retry-After: 3\r\n"),
    "403": _says(403, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"),
    "404": _says(404, b"<html>not found</html>"),
    "410": _says(410, b""),
    "an HTML page": _says(200, HTML.encode()),
    "nothing": _says(200, b""),
}


def _http(status: int, body: bytes, more: str = "", kind: str = "image/png") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body
