"""What surrounds the package in a simulated life: chance, the disk under its databases, whoever reads its log."""

from __future__ import annotations

import logging
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from random import Random
from typing import Any

from .world import World


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Have the package's own random numbers come from the seed."""
    source = Random(f"jitter {seed}")
    changed = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("piapi_async") and getattr(module, "Random", None) is random.Random
    ]
    for module in changed:
        module.Random = partial(_random_from, source)  # type: ignore[attr-defined] # each imports it by this name
    try:
        yield
    finally:
        for module in changed:
            module.Random = random.Random  # type: ignore[attr-defined] # as above


def _random_from(source: Random) -> Random:
    return Random(source.random())


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


@contextmanager
def opened_by(world: World, opener: Callable[[], list[sqlite3.Connection] | None]) -> Iterator[None]:
    """Note each database connection with the process that opens it: `opener` returns those of the running one."""
    inside: Any = sqlite3
    connect = sqlite3.connect

    def tracked(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **{**options, "factory": partial(_Connection, world)})
        opened = opener()
        if opened is not None:
            opened.append(connection)
        return connection

    inside.connect = tracked
    try:
        yield
    finally:
        inside.connect = connect


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
