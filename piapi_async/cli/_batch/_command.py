"""The commands `piapi-async batch FILE` and `piapi-async batch status LEDGER`."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ...ledger import Ledger
from ...ledger._entries import resolve_command
from .._exit import ExitCode
from .._fleet_options import shown
from .._journal import journal_of
from .._memory import give_back_large_blocks
from .._output import print_json
from .._running import run
from .._setup import Setup, read_setup
from .._stderr import say
from ._check import check, refused
from ._earlier import Keeping
from ._file_format import FileRefusedError
from ._fleet import FleetRun, fleet_status
from ._job import Job
from ._lines import BatchInput
from ._options import BatchOptions
from ._rehearsal import rehearse
from ._reported import reported
from ._results import Results
from ._source import Source
from ._tables import tabulated


def status(ledger: Path | None, database: str | None) -> None:
    """Print how far a run has got, from another terminal too: that of a ledger, or of a fleet."""

    async def main() -> None:
        if ledger is None:
            if database is None:
                raise click.UsageError("give a LEDGER, or --database URL")
            counts, unknown = await fleet_status(database)
            print_json(counts)
            for key in unknown:
                command = resolve_command(shown(database), key)
                say(f"{key} is unknown: {command} --task-id ID, or --resubmit")
            return
        opened = Ledger(ledger)
        try:
            print_json(await opened.counts())
        finally:
            await opened.close()

    run(main())


def run_batch(**given: Any) -> None:  # noqa: ANN401 - whatever click has read
    """Submit every line of FILE: `verb`, its fields, optionally `key`; - is standard input."""
    options = BatchOptions(**given)
    setup = options.checked(read_setup())
    give_back_large_blocks()
    if not setup.verbose:
        logging.getLogger("piapi_async").setLevel(logging.WARNING)  # no line for each of many retries

    with _opened(options.source) as source:
        _run_source(options, setup, source)


def _run_source(options: BatchOptions, setup: Setup, source: Source) -> None:
    resume = options.resume_command(setup)
    lines = _lines_of(options)
    requests = _input(source, options.verb, ignore_extra=options.ignore_extra)
    limited = options.max_cost is not None
    setup, requests, good = check(setup, requests, lines, skip_invalid=options.skip_invalid, limited=limited)
    if options.dry_run:
        run(rehearse(setup, requests, good, retry_failed=options.retry_failed))
        return

    options.saving.prepare()
    try:
        _submit_all(options, setup, requests, good, resume)
    except KeyboardInterrupt:  # the run itself ends in order; this came before it, or after it
        place = "on standard output" if lines is None else f"in {lines}"
        say(
            f"Interrupted while the results were read or written: nothing was submitted meanwhile, and all "
            f"outcomes are {place}."
        )
        sys.exit(ExitCode.INTERRUPTED)


def _submit_all(
    options: BatchOptions, setup: Setup, requests: BatchInput, good: int, resume: str | None
) -> None:
    lines = _lines_of(options)
    keep = setup.ledger is not None or options.database is not None
    keeping = Keeping(options.saving, options.retry_failed)
    with (
        Results.at(lines, keep=keep, keeping=keeping) as results,
        reported(options.report, results, options.out, setup.ledger),
        tabulated(options.out),
        results.settled(lines),
    ):
        if options.database is not None:
            worker = options.for_worker()
            _run_fleet(FleetRun(setup, options.database, requests, good, results, resume, worker))
            return
        job = Job(setup, requests, good, results, resume, options.saving)
        run(job.main(options.for_runner()))


def _lines_of(options: BatchOptions) -> Path | None:
    """Return where the lines of outcomes are, None for standard output."""
    if options.out is None:
        return None
    return journal_of(options.out)


def _run_fleet(fleet_run: FleetRun) -> None:
    try:
        run(fleet_run.main())
    except ValueError as error:  # a key that stands for another request, a file that workers cannot read
        raise click.UsageError(str(error)) from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Source]:
    """Yield the source of a run; a Ctrl-C while it is read or checked exits."""
    opened = None
    try:
        opened = Source.of(path)
        yield opened
    except KeyboardInterrupt:
        say("Interrupted. Nothing was submitted.")
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        if opened is not None:
            opened.close()


def _input(source: Source, verb: str | None, *, ignore_extra: bool) -> BatchInput:
    try:
        return BatchInput(source, verb, ignore_extra)
    except FileRefusedError as error:
        raise refused(source.name, error) from None
