"""The commands `piapi-async batch FILE` and `piapi-async batch status LEDGER`."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from attrs import evolve

from ...client import runtime_of
from ...ledger import Ledger, LedgerState
from .._exit import ExitCode
from .._options import Seconds, Setup, shared_options
from .._output import check_stdout, print_json, say
from .._requests import recipes, unknown_verb
from .._saving import Saving, saving_options
from .._session import client, read_setup, run
from ._check import check, keyed, refused
from ._job import Job
from ._lines import BatchInput
from ._results import Results, check_out
from ._rows import FileRefusedError
from ._source import Source


class _RunOrStatus(click.Group):
    """Takes ``batch FILE …`` for ``batch run FILE …``: running is what one comes for."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(context, args)


@click.group(cls=_RunOrStatus, no_args_is_help=True)
def batch() -> None:
    """Run a file of requests (`batch FILE`), or look at a run (`batch status LEDGER`).

    See `batch FILE --help` for the options.
    """


@batch.command()
@click.argument("ledger", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def status(ledger: Path) -> None:
    """Print how far a run has got, from another terminal too."""

    async def main() -> None:
        book = Ledger(ledger)
        try:
            print_json(await book.counts())
        finally:
            await book.close()

    run(main())


def _run_batch(
    *,
    source: Path,
    out: Path | None,
    concurrency: int,
    timeout: float | None,
    max_submits: int | None,
    verb: str | None,
    dry_run: bool,
    skip_invalid: bool,
    ignore_extra: bool,
    **values: object,
) -> None:
    """Submit every line of FILE: `verb`, its fields, optionally `key`; - is standard input.

    FILE is CSV (comma, semicolon or tab, in UTF-8 or UTF-16), JSON lines, or a JSON array. @cat.png is a file that is
    uploaded. Columns that are no fields are carried along to the outcome, under `extra`.

    With --ledger the same command goes on where a run was stopped or killed. Nothing is submitted if any line is
    wrong. The first Ctrl-C lets what is in flight end, the second stops at once. `piapi-async batch status LEDGER`
    tells from another terminal how far it is.
    """
    setup, saving = read_setup(), Saving.taken_from(values)
    if not setup.verbose:
        logging.getLogger("piapi_async").setLevel(logging.WARNING)  # not a word for each of a thousand tries
    if out is None:
        check_stdout()
    if verb is not None and verb not in recipes():
        raise click.UsageError(f"--verb {unknown_verb(verb)}")
    if out is not None:
        check_out(out, source, setup.ledger)
    opened = None
    try:
        opened = Source.of(source)
        requests, good = check(setup, _input(opened, verb, ignore_extra), out, skip_invalid=skip_invalid)
        if dry_run:
            run(_rehearse(setup, requests, good))
            return
        saving.prepare()
        runner: dict[str, Any] = {"concurrency": concurrency, "timeout": timeout, "max_submits": max_submits}
        flags = {"skip_invalid": skip_invalid, "ignore_extra": ignore_extra}
        resume = _resume_command(setup, source, {"out": out, "verb": verb, **runner}, flags, saving)
        with Results.at(out, keep=setup.ledger is not None, saving=saving) as results:
            run(Job(setup, requests, good, results, resume, saving).main({**runner, **saving.for_runner()}))
    except KeyboardInterrupt:  # while the file was read or checked
        say("Interrupted. Nothing was submitted.")
        sys.exit(ExitCode.INTERRUPTED)
    finally:
        if opened is not None:
            opened.close()


def _input(source: Source, verb: str | None, ignore_extra: bool) -> BatchInput:  # noqa: FBT001 - an option, passed on
    try:
        return BatchInput(source, verb, ignore_extra)
    except FileRefusedError as error:
        raise refused(source.name, error) from None


batch.add_command(
    click.Command(
        "run",
        callback=_run_batch,
        help=_run_batch.__doc__,
        short_help="Submit every line of a file",
        params=[
            click.Argument(
                ["source"],
                metavar="FILE",
                type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
            ),
            click.Option(
                ["--out"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help="Append outcomes to this JSONL file as they come, each item once. Default: standard output.",
            ),
            *saving_options(),
            click.Option(["--concurrency"], default=30, show_default=True, type=click.IntRange(min=1)),
            click.Option(["--timeout"], type=Seconds(), metavar="SECONDS", help="For each task's wait."),
            click.Option(["--max-submits"], type=click.IntRange(min=0), help="Make no more tasks than this."),
            click.Option(["--verb"], metavar="VERB", help="What lines are that name no verb, such as imagine."),
            click.Option(["--ignore-extra"], is_flag=True, help="Leave out columns that are no fields of the verb."),
            click.Option(["--dry-run"], is_flag=True, help="Only say how many would be submitted, and resumed."),
            click.Option(["--skip-invalid"], is_flag=True, help="Go on without the lines that are wrong."),
            *shared_options(),
        ],
    )
)


async def _rehearse(setup: Setup, requests: BatchInput, good: int) -> None:
    """Say what a run would do; makes no ledger."""
    counts = {"items": good, "submit": 0, "resume": 0, "unknown": 0}
    if setup.ledger is not None and not setup.ledger.exists():
        setup = evolve(setup, ledger=None)
    async with client(setup) as piapi:
        ledger = runtime_of(piapi).ledger
        if ledger is not None:
            await ledger.counts()  # which also finds out what has become unknown
        async for _, item in keyed(piapi, requests):
            known = await ledger.find(item.key) if ledger is not None and item.key else None
            if known is None:
                counts["submit"] += 1
            else:
                counts["unknown" if known.state is LedgerState.UNKNOWN else "resume"] += 1
    print_json(counts)


def _resume_command(
    setup: Setup, source: Path, options: dict[str, Any], flags: dict[str, bool], saving: Saving
) -> str | None:
    """Return the command that goes on with a run, None where none can: without a ledger, or from standard input."""
    if setup.ledger is None or not source.is_file():
        return None
    words = ["piapi-async", *setup.words(), "batch", str(source)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    words += [f"--{name.replace('_', '-')}" for name, value in flags.items() if value]
    return shlex.join([*words, *saving.words()])
