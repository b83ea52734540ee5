"""How long tasks took, kept from one run for the next: a hint, whose loss costs nothing but polls.

Each is a function of a connection, run in a transaction of the ledger's thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

import orjson

_READ = "SELECT family, kind, data FROM durations WHERE origin = ? ORDER BY updated DESC LIMIT 500"
_WRITE = "INSERT OR REPLACE INTO durations VALUES (?, ?, ?, ?, ?)"


def read_durations(connection: sqlite3.Connection, origin: str) -> dict[tuple[str, str], list[float]]:
    """Return the last durations at a host, in seconds, by family and kind."""
    found: dict[tuple[str, str], list[float]] = {}
    for family, kind, data in connection.execute(_READ, (origin,)):
        try:
            seconds = orjson.loads(data)
        except orjson.JSONDecodeError:
            continue
        if isinstance(seconds, list):
            found[family, kind] = [float(one) for one in seconds if isinstance(one, (int, float)) and one > 0]
    return found


def write_durations(
    connection: sqlite3.Connection, origin: str, durations: Mapping[tuple[str, str], list[float]]
) -> None:
    """Keep the last durations at a host, by family and kind."""
    now = time.time()
    rows = [
        (origin, family, kind, orjson.dumps(seconds), now) for (family, kind), seconds in durations.items()
    ]
    connection.executemany(_WRITE, rows)
