"""`piapi-async batch`: a file of requests, and how far a run has got."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .._completion import complete_verbs
from .._fleet_options import database_option
from .._options import OptionType, Seconds, page_file, shared_options
from .._saving_options import saving_options
from ._declared import declared

AUTO_MAX = 90
"""That of `piapi_async.batch._pace`."""


class Concurrency(OptionType[Any]):
    """A whole number above 0, or "auto"."""

    name = "N|auto"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - click's shape
        if value == "auto":
            return value
        return click.IntRange(min=1).convert(value, param, ctx)


class _RunOrStatus(click.Group):
    """Takes ``batch FILE …`` for ``batch run FILE …``, which is the usual command."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(context, args)


status = declared(
    "status",
    "_batch._command:status",
    """Print how far a run has got, from another terminal too: that of a ledger, or of a fleet.""",
    click.argument("ledger", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    database_option(),
)

run_batch = declared(
    "run",
    "_batch._command:run_batch",
    """Submit every line of FILE: `verb`, its fields, optionally `key`; - is standard input.

    FILE is CSV (comma, semicolon or tab, in UTF-8 or UTF-16), JSON lines, a JSON array or, as .txt and
    with --verb, a text on each line: a prompt, or what else the verb takes first. @cat.png is a file
    to upload. Columns that are not fields are carried along to the outcome, under `extra`.

    With --ledger the same command goes on where a run was stopped or killed. Nothing is submitted if
    any line is wrong. The first Ctrl-C lets tasks in flight end, the second stops at once.
    `piapi-async batch status LEDGER` shows the progress from another terminal.

    With --database workers on any number of machines do the work (`piapi-async worker`), and this
    command puts it there, follows it, and writes the outcomes. Ctrl-C leaves the work going, and the
    same command goes on with following. A sqlite:/// database has a worker in this process.
    """,
    click.argument(
        "source",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    ),
    click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Append outcomes to this JSONL file as they come, each item once. As .csv or .parquet it is a table, "
        "made of FILE.jsonl at the end. Default: standard output.",
    ),
    click.option(
        "--report",
        type=page_file,
        metavar="FILE",
        help="At the end write an HTML page of the results, to look at and to choose from.",
    ),
    database_option(),
    saving_options(),
    click.option(
        "--concurrency",
        type=Concurrency(),
        default="auto",
        show_default=True,
        help="The most tasks in flight; auto finds out how many the host runs at a time.",
    ),
    click.option(
        "--auto-max",
        type=click.IntRange(min=1),
        default=AUTO_MAX,
        show_default=True,
        help="The most that auto goes to.",
    ),
    click.option("--timeout", type=Seconds(), metavar="SECONDS", help="For each task's wait."),
    click.option(
        "--retry-failed",
        is_flag=True,
        help="Submit anew what failed or was cancelled in an earlier run. Needs --ledger.",
    ),
    click.option("--max-submits", type=click.IntRange(min=0), help="Create at most this many tasks."),
    click.option(
        "--max-cost",
        type=click.FloatRange(min=0),
        metavar="AMOUNT",
        help="Submit nothing by which the run could cost more, in the host's unit (points).",
    ),
    click.option(
        "--verb",
        metavar="VERB",
        shell_complete=complete_verbs,
        help="The verb of lines that name none, such as imagine.",
    ),
    click.option("--ignore-extra", is_flag=True, help="Drop columns that are not fields of the verb."),
    click.option("--dry-run", is_flag=True, help="Only print how many would be submitted, and at what cost."),
    click.option("--skip-invalid", is_flag=True, help="Skip the lines that are wrong."),
    shared_options,
    short_help="Submit every line of a file",
)


batch = _RunOrStatus(
    "batch",
    commands=[status, run_batch],
    no_args_is_help=True,
    help="""Run a file of requests (`batch FILE`), or look at a run (`batch status LEDGER`).

    See `batch FILE --help` for the options.
    """,
)

COMMANDS: Mapping[str, click.Command] = {"batch": batch}
