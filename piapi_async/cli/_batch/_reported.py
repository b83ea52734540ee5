"""`batch --report`: a page of the results, written when the run ends, however it ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .._journal import journal_of
from .._report._command import ResultLines, write_at_end
from ._at_end import written_at_end
from ._results import Results


@contextlib.contextmanager
def reported(target: Path | None, results: Results, out: Path | None, ledger: Path | None) -> Iterator[None]:
    """Write the page of a run at its end, from the lines behind `out`, else from a copy of them.

    A run that ended well ends with an error if the page could not be written, which is told.
    """
    if target is None:
        yield
        return
    if out is not None:
        lines = ResultLines(journal_of(out), name=out.name)
        with written_at_end(lambda: write_at_end(lines, target, ledger)):
            yield
        return

    with tempfile.TemporaryDirectory(prefix="piapi-report-") as folder:
        lines = ResultLines(Path(folder) / "results.jsonl", name=target.stem)
        with written_at_end(lambda: write_at_end(lines, target, ledger)), _copied(results, lines.path):
            yield


@contextlib.contextmanager
def _copied(results: Results, path: Path) -> Iterator[None]:
    """Have results written to a file, too."""
    with path.open("w", encoding="utf-8") as copy:
        results.copy = copy
        try:
            yield
        finally:
            results.copy = None
