"""The commands `piapi-async batch FILE` and `piapi-async batch status LEDGER`."""

from __future__ import annotations

import contextlib
import logging
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import click
from attrs import evolve

from ...batch._pace import AUTO_MAX
from ...ledger import Ledger
from .._exit import ExitCode
from .._fleet_options import file_of, shown
from .._journal import journal_of
from .._output import check_stdout, print_json
from .._report._command import check_page
from .._requests import recipes, unknown_verb
from .._running import run
from .._saving import Saving
from .._setup import Setup, read_setup
from .._stderr import say
from ._check import check, refused
from ._file_format import FileRefusedError
from ._fleet import FleetRun, fleet_status
from ._job import Job
from ._lines import BatchInput
from ._rehearsal import rehearse
from ._reported import reported
from ._results import Keeping, Results, check_out
from ._source import Source
from ._tables import check_table, tabulated


def status(ledger: Path | None, database: str | None) -> None:
    """Print how far a run has got, from another terminal too: that of a ledger, or of a fleet."""

    async def main() -> None:
        if ledger is None:
            if database is None:
                raise click.UsageError("give a LEDGER, or --database URL")
            counts, unknown = await fleet_status(database)
            print_json(counts)
            for key in unknown:
                words = ["piapi-async", "ledger", "resolve", shown(database), key]
                say(f"{key} is unknown: {shlex.join(words)} --task-id ID, or --resubmit")
            return
        opened = Ledger(ledger)
        try:
            print_json(await opened.counts())
        finally:
            await opened.close()

    run(main())


def run_batch(
    *,
    source: Path,
    out: Path | None,
    report: Path | None,
    database: str | None,
    saving: Saving,
    concurrency: int | Literal["auto"],
    auto_max: int,
    timeout: float | None,
    retry_failed: bool,
    max_submits: int | None,
    max_cost: float | None,
    verb: str | None,
    ignore_extra: bool,
    dry_run: bool,
    skip_invalid: bool,
) -> None:
    """Submit every line of FILE: `verb`, its fields, optionally `key`; - is standard input."""
    setup = read_setup()
    if database is not None:
        setup = evolve(setup, beside=file_of(database))
        _check_fleet(
            database,
            setup,
            saving,
            timeout=timeout,
            max_submits=max_submits,
            max_cost=max_cost,
            dry_run=dry_run,
            retry_failed=retry_failed,
        )
    if not setup.verbose:
        logging.getLogger("piapi_async").setLevel(logging.WARNING)  # no line for each of many retries
    if verb is not None and verb not in recipes():
        raise click.UsageError(f"--verb {unknown_verb(verb)}")
    if retry_failed and setup.ledger is None:
        raise click.UsageError("--retry-failed needs --ledger, which knows what has failed")
    _check_outputs(setup, source, out, report)

    runner: dict[str, Any] = {
        "concurrency": concurrency,
        "auto_max": auto_max,
        "timeout": timeout,
        "max_submits": max_submits,
        "max_cost": max_cost,
    }
    flags = {"skip_invalid": skip_invalid, "ignore_extra": ignore_extra, "retry_failed": retry_failed}
    options = {"out": out, "report": report, "verb": verb, **_without_defaults(runner)}
    if database is not None:
        options["database"] = shown(database)
    resume = _resume_command(setup, source, options, flags, saving)

    lines = None
    if out is not None:
        lines = journal_of(out)
    with _opened(source) as opened:
        requests = _input(opened, verb, ignore_extra=ignore_extra)
        limited = max_cost is not None
        setup, requests, good = check(setup, requests, lines, skip_invalid=skip_invalid, limited=limited)
        if dry_run:
            run(rehearse(setup, requests, good, retry_failed=retry_failed))
            return

        saving.prepare()
        keeping = Keeping(saving, retry_failed)
        with (
            Results.at(
                lines, keep=setup.ledger is not None or database is not None, keeping=keeping
            ) as results,
            reported(report, results, out, setup.ledger),
            tabulated(out),
        ):
            if database is not None:
                worker = _worker_options(concurrency, saving)
                _run_fleet(FleetRun(setup, database, requests, good, results, resume, worker))
                return
            job = Job(setup, requests, good, results, resume, saving)
            run(job.main({**runner, "retry_failed": retry_failed, **saving.for_runner()}))


def _check_outputs(setup: Setup, source: Path, out: Path | None, report: Path | None) -> None:
    """Raise `click.UsageError` for what cannot be written to."""
    if out is None:
        check_stdout()
    else:
        check_table(out)
        for path in {out, journal_of(out)}:
            check_out(path, source, setup.ledger)
    if report is not None:
        check_page(report, source, out, setup.ledger)


def _without_defaults(runner: dict[str, Any]) -> dict[str, Any]:
    """Return a runner's options without those that need not be given."""
    defaults = {"concurrency": "auto", "auto_max": AUTO_MAX}
    return {name: value for name, value in runner.items() if value != defaults.get(name)}


def _check_fleet(database: str, setup: Setup, saving: Saving, **unfit: object) -> None:
    """Raise `click.UsageError` for options that a fleet does not have."""
    if setup.ledger is not None:
        raise click.UsageError(
            "--database and --ledger exclude each other: the database takes the ledger's place"
        )
    for name, value in unfit.items():
        if value:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for a fleet")
    if not database.startswith("sqlite") and saving.directory is not None:
        raise click.UsageError("--download is the workers': piapi-async worker --download DIR")
    logging.getLogger("dbos").setLevel(logging.ERROR)


def _run_fleet(fleet_run: FleetRun) -> None:
    try:
        run(fleet_run.main())
    except ValueError as error:  # a key that stands for another request, a file that workers cannot read
        raise click.UsageError(str(error)) from None


def _worker_options(concurrency: int | Literal["auto"], saving: Saving) -> dict[str, Any]:
    """Return the keyword arguments of a worker in this process."""
    options: dict[str, Any] = {"all_files": saving.all_files, "download": saving.for_runner()["download"]}
    if concurrency != "auto":
        options["concurrency"] = concurrency
    return options


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


def _resume_command(
    setup: Setup, source: Path, options: dict[str, Any], flags: dict[str, bool], saving: Saving
) -> str | None:
    """Return the command that goes on with a run.

    None without a ledger or a database, or if the requests come from standard input.
    """
    if (setup.ledger is None and "database" not in options) or not source.is_file():
        return None
    words = ["piapi-async", *setup.words(), "batch", str(source)]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value).removesuffix(".0")]
    for name, given in flags.items():
        if given:
            words.append(f"--{name.replace('_', '-')}")
    return shlex.join([*words, *saving.words()])
