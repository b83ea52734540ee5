"""`batch --report`: a page of the results, written when the run ends, however it ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .._journal import journal_of
from .._report._command import ResultLines, write_at_end
from ._results import Results


@contextlib.contextmanager
def reported(target: Path | None, results: Results, out: Path | None, ledger: Path | None) -> Iterator[None]:
    """Write the page of a run at its end, from the lines behind `out`, else from a copy of them."""
    if target is None:
        yield
        return
    if out is not None:
        try:
            yield
        finally:
            write_at_end(ResultLines(journal_of(out), name=out.name), target, ledger)
        return

    with tempfile.TemporaryDirectory(prefix="piapi-report-") as folder:
        lines = ResultLines(Path(folder) / "results.jsonl", name=target.stem)
        with lines.path.open("w", encoding="utf-8") as copy:
            results.copy = copy
            try:
                yield
            finally:
                results.copy = None
                copy.close()
                write_at_end(lines, target, ledger)
