"""`piapi-async ledger`: what a ledger holds, what a person knows of its unknown submissions, making it smaller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from .._fleet_options import DatabaseURL
from .._options import shared_options
from ._declared import declared

STATES = ("sending", "accepted", "ended", "unknown")
"""The values of `LedgerState`."""

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


class _FileOrDatabase(click.Path):
    """A ledger's file, or the URL of a fleet's database."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - click's shape
        if isinstance(value, str) and "://" in value:
            return DatabaseURL().convert(value, param, ctx)
        return super().convert(value, param, ctx)


show = declared(
    "show",
    "_ledger:show",
    """Print every submission: for reading on a terminal, else one JSON object per line.""",
    file_argument,
    click.option(
        "--state",
        type=click.Choice(STATES),
        help="Only submissions in this state.",
    ),
)

resolve = declared(
    "resolve",
    "_resolving:resolve",
    """Record the outcome of an unknown submission, of a ledger's FILE or the URL of a fleet's database.

    With --resubmit its task is looked for in the host's history first, if there is an API key; the
    workers of a fleet have done so.
    """,
    click.argument(
        "file", metavar="FILE|URL", type=_FileOrDatabase(exists=True, dir_okay=False, path_type=Path)
    ),
    click.argument("key"),
    click.option("--task-id", metavar="ID", help="It was accepted: the id of its task."),
    click.option("--resubmit", is_flag=True, help="It created no task: the key may be submitted again."),
    shared_options,
)

recover = declared(
    "recover",
    "_resolving:recover",
    """Look for all unknown submissions in the host's task history, and record what is found.""",
    file_argument,
    shared_options,
)

compact = declared(
    "compact",
    "_ledger:compact",
    """Make a ledger smaller: of submissions whose task has ended, leave out what was asked and answered.

    Their keys, digests, task ids, outcomes and notes stay: a compacted key still gives the same task, never
    pays again, and is refused for another request. What its task has made is then known to the host alone.
    Submissions that are open or unknown stay whole. It may run beside a batch, but the file itself gets
    smaller only while no other process has it open: that takes seconds, and room for a copy.
    """,
    file_argument,
    click.option(
        "--older-than",
        type=click.IntRange(0, 36_500),
        default=30,
        show_default=True,
        metavar="DAYS",
        help="Only submissions that were made longer ago than this; 0 takes all.",
    ),
)


ledger = click.Group(
    "ledger",
    commands=[show, resolve, recover, compact],
    help="Show what a ledger holds, resolve submissions whose outcome is unknown, make it smaller.",
)

COMMANDS: Mapping[str, click.Command] = {"ledger": ledger}
