"""The progress of a batch: a bar with figures on a terminal, else a line every few seconds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Self

from attrs import define, field
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...batch import BatchRunner, Outcome
from ...errors import DownloadError, LedgerError, SubmissionUnknown
from .._meter import clock
from .._stderr import console, say
from ._results import Results

PLAIN_EVERY = 5.0  # seconds
_LIVE_EVERY = 0.25


@define
class Display:
    """Shows the progress of a run over `count` items."""

    runner: BatchRunner
    results: Results
    count: int
    _live: Live | None = field(default=None, init=False)
    _ticking: asyncio.Task[None] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        if console.is_terminal:
            self._live = self._begun()
        self._ticking = asyncio.create_task(self._tick())
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._ticking is not None:
            self._ticking.cancel()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to an outcome, if outcomes go there too."""
        if self._live is None or not self.results.on_terminal:
            yield
            return

        self._live.stop()
        yield
        self._live = self._begun()

    def _begun(self) -> Live:
        """Return a new display: restarting the old one would wipe out what was written meanwhile."""
        live = Live(
            get_renderable=self._shown,
            console=console,
            auto_refresh=False,  # a thread of its own would read the event loop's figures
            transient=True,
            redirect_stdout=False,  # which is for outcomes
            redirect_stderr=False,
        )
        live.start()
        return live

    @staticmethod
    def say_serious(outcome: Outcome[Any]) -> None:
        """Print at once the errors that a person will have to look at."""
        if isinstance(outcome.error, (SubmissionUnknown, LedgerError)):
            say(str(outcome.error))
        elif isinstance(outcome.download_error, DownloadError):
            say(str(outcome.download_error))

    @property
    def total(self) -> int:
        """Items that this run has to do."""
        return self.count - self.results.skipped

    async def _tick(self) -> None:
        while self._live is not None:
            self._live.refresh()
            await asyncio.sleep(_LIVE_EVERY)
        while True:
            await asyncio.sleep(PLAIN_EVERY)
            rate, left = self._pace()
            figures = [*self._figures(), ("rate", rate), ("left", left)]
            say(", ".join(f"{name} {value}" for name, value in figures))

    def _shown(self) -> Group:
        totals = self.runner.totals
        rate, left = self._pace()

        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(ratio=1, min_width=5)
        for _ in range(3):
            line.add_column(no_wrap=True, justify="right")
        bar = ProgressBar(total=max(1, self.total), completed=totals.ended)
        line.add_row(bar, f"{totals.ended}/{self.total}", rate, f"{left} left")

        figures = "  ".join(f"{name} {value}" for name, value in self._figures())
        return Group(line, Text(figures))

    def _pace(self) -> tuple[str, str]:
        """Return the rate and the time left."""
        totals = self.runner.totals
        if not totals.rate:
            return "0.00/s", "?"
        left = max(0, self.total - totals.ended)
        return f"{totals.rate:.2f}/s", clock(left / totals.rate)

    def _figures(self) -> list[tuple[str, str]]:
        totals = self.runner.totals
        return [
            ("submitted", str(totals.submitted)),
            ("resumed", str(totals.resumed)),
            ("waiting", str(totals.waiting)),
            ("running", str(totals.running)),
            ("done", f"{totals.done} of {self.total}"),
            ("failed", str(totals.failed)),
            ("unknown", str(totals.unknown)),
        ]
