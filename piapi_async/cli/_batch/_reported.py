"""`batch --report`: a page of the results, written when the run ends, however it ends."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .._report._command import ResultLines, write_at_end
from ._results import Results


@contextlib.contextmanager
def reported(target: Path | None, results: Results, out: Path | None, ledger: Path | None) -> Iterator[None]:
    """Write the page of a run at its end, from the file of its results, else from a copy of them."""
    if target is None:
        yield
        return
    if out is not None:
        try:
            yield
        finally:
            write_at_end(ResultLines(out), target, ledger)
        return

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="piapi-report-") as copy:
        results.copy = copy
        try:
            yield
        finally:
            results.copy = None
            copy.flush()
            write_at_end(ResultLines(Path(copy.name), name=target.stem), target, ledger)
