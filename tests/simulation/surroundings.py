"""What surrounds the package in a simulated life: chance, the disk under its databases, whoever reads its log."""

from __future__ import annotations

import fcntl
import importlib
import logging
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import IO, Any, NamedTuple, Protocol

from .world import World

PLENTY = 1 << 40
"""Bytes that are free on a disk that is not full."""

_DISK: Any = importlib.import_module("piapi_async.downloads._disk")


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have whoever makes random numbers without a seed get them from this one."""
    source = Random(f"jitter {seed}")
    inside: Any = Random
    seed_before = Random.seed

    def seed_of(self: Random, a: Any = None, version: int = 2) -> None:
        seed_before(self, source.random() if a is None and self is not source else a, version)

    inside.seed = seed_of
    try:
        yield
    finally:
        inside.seed = seed_before


class _Connection(sqlite3.Connection):
    """A database connection to a disk that may be full."""

    def __init__(self, world: World, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._world = world

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
        if self._world.disk_full and sql.lstrip()[:6].upper() in {
            "INSERT",
            "UPDATE",
            "DELETE",
            "COMMIT",
            "CREATE",
        }:
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *args)


class Opener(Protocol):
    """What a process holds open, which the operating system would close."""

    connections: list[sqlite3.Connection]
    files: list[IO[bytes]]


@contextmanager
def disk_of(world: World, opener: Callable[[], Opener | None]) -> Iterator[None]:
    """Have a disk that may be full; note each database and locked file with `opener()`, the running process."""
    sql: Any = sqlite3
    connect, flock, usage = sqlite3.connect, fcntl.flock, shutil.disk_usage

    def connect_tracked(*args: Any, **options: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*args, **{**options, "factory": partial(_Connection, world)})
        if (process := opener()) is not None:
            process.connections.append(made)
        return made

    def flock_tracked(file: Any, operation: int) -> None:
        if (process := opener()) is not None:
            process.files.append(file)
        flock(file, operation)

    def usage_played(_: Any) -> _Usage:
        return _Usage(PLENTY, 0, 0 if world.disk_full else PLENTY)

    memory = {name: getattr(_DISK, name) for name in new_memory()}
    sql.connect = connect_tracked
    fcntl.flock, shutil.disk_usage = flock_tracked, usage_played  # type: ignore[assignment] # for so long
    try:
        yield
    finally:
        sql.connect = connect
        fcntl.flock, shutil.disk_usage = flock, usage
        remember(memory)


def new_memory() -> dict[str, Any]:
    """Return what a process that has just begun remembers of its disks."""
    return {"_CLEARED": set(), "_PROMISED": Counter(), "_WRITERS": Counter()}


def remember(memory: dict[str, Any]) -> None:
    """Have the package remember of its disks what a process does: it keeps that for the whole real process."""
    for name, value in memory.items():
        setattr(_DISK, name, value)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def log_into(lines: list[str]) -> Iterator[None]:
    """Collect what an operator would read."""
    handler = _Lines(lines)
    logger = logging.getLogger("piapi_async")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
