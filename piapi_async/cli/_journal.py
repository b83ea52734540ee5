"""Where the lines of a batch's outcomes are.  Pure.

A table cannot be appended to safely, so its rows are in a journal of JSON lines beside it.
"""

from __future__ import annotations

from pathlib import Path

TABLES = frozenset({".csv", ".parquet"})


def is_table(out: Path) -> bool:
    """Return whether outcomes in a file of this name are a table, and not JSON lines."""
    return out.suffix.lower() in TABLES


def journal_of(out: Path) -> Path:
    """Return where the lines of outcomes are: in the file itself, or beside the table."""
    if is_table(out):
        return out.with_name(f"{out.name}.jsonl")
    return out
