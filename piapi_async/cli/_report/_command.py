"""The command `piapi-async report FILE`, and the page at the end of `batch --report FILE`."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from attrs import define, field

from .._journal import journal_of
from .._output import check_stdout, print_json
from .._stderr import say
from ._entries import entry_of
from ._page import Page, SavedFiles, is_ours, write_page


def report(results: Path, out: Path | None) -> None:
    """Make an HTML page of a run: pictures, players, costs, errors; search, filter, choose."""
    target = out or results.with_suffix(".html")
    check_page(target, results)
    check_stdout()

    journal = journal_of(results)
    if not journal.is_file():
        journal = results
    lines = ResultLines(journal, name=results.name)
    write_page_of(lines, target)
    print_json({"report": str(target), "results": lines.count, "left_out": lines.unreadable})


def check_page(target: Path, *others: Path | None) -> None:
    """Raise `click.UsageError` if a page would overwrite something else, or cannot be a file."""
    if any(other is not None and target.resolve() == other.resolve() for other in others):
        raise click.UsageError(f"{target} is the run's own file; the page needs another name")
    if not target.parent.is_dir():
        raise click.UsageError(f"{target}: there is no directory {target.parent}")
    if target.exists() and not (target.is_file() and is_ours(target)):
        raise click.UsageError(
            f"{target} exists and is not such a page: move it away, or choose another name"
        )


def write_page_of(lines: ResultLines, target: Path, ledger: Path | None = None) -> None:
    """Write the page of a file of results; raises `OSError`."""
    here = target.absolute().parent
    words = ["piapi-async", "batch", "chosen.jsonl", "--out", "chosen-results.jsonl"]
    if ledger is not None:
        words += ["--ledger", str(ledger)]

    page = Page(
        title=lines.name,
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=shlex.join([*words, "--download", "pictures/"]),
    )
    locate = SavedFiles(here, (Path(), lines.path.absolute().parent)).locate
    entries = (entry_of(values, number, locate) for number, values in lines)
    write_page(page, target, entries, lambda: lines.unreadable)


def write_at_end(lines: ResultLines, target: Path, ledger: Path | None) -> bool:
    """Write the page of a run that ends; return whether that worked, which is told."""
    try:
        write_page_of(lines, target, ledger)
    except OSError as error:
        say(f"The report {target} could not be written ({error.strerror or error}).")
        return False
    say(f"Report: {target}")
    return True


# -- reading ----------------------------------------------------------------------------------------


@define
class ResultLines:
    """The lines of a file of results, read as a stream; `count` and `unreadable` are known afterwards."""

    path: Path
    name: str = ""
    count: int = field(default=0, init=False)
    unreadable: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.name = self.name or self.path.name

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        self.count = self.unreadable = 0
        with self.path.open(encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                values = _read(line)
                if values is None:
                    self.unreadable += 1
                    continue
                self.count += 1
                yield number, values


def _read(line: str) -> dict[str, Any] | None:
    """Return a line of results, None if it is none."""
    try:
        values = json.loads(line, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not ("task_id" in values or "error" in values):
        return None
    return values


def _no_number(_: str) -> None:
    """Return what a script reads in place of NaN and Infinity, which JSON does not have."""


def _finite(text: str) -> float | None:
    number = float(text)
    if math.isfinite(number):
        return number
    return None
