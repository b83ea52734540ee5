"""`piapi-async worker`: one process of a fleet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from .._fleet_options import database_option
from .._options import OptionType, Seconds, shared_options
from .._saving_options import download_option
from ._declared import declared


class _Rate(OptionType[tuple[int, float]]):
    """So many tasks in so many seconds."""

    name = "N/SECONDS"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[int, float]:
        number, _, seconds = str(value).partition("/")
        try:
            return int(number), float(seconds or 1)
        except ValueError:
            self.fail(f"{value!r} is not tasks per seconds, such as 10/2", param, ctx)


worker = declared(
    "worker",
    "_worker:worker",
    """Work on the jobs of a fleet until SIGTERM or Ctrl-C, then hand over what is in flight.

    Run it on as many machines as you like, with the same database and an API key of the same account.
    Services put jobs into the database with `piapi_async.fleet.Fleet`, a shell with `batch --database`.
    """,
    database_option(required=True),
    click.option(
        "--concurrency",
        default=30,
        show_default=True,
        type=click.IntRange(min=1),
        help="Of all workers together.",
    ),
    click.option(
        "--per-worker", type=click.IntRange(min=1), help="The most of them at this one. Default: no limit."
    ),
    click.option("--rate-limit", type=_Rate(), help="Tasks begun by all workers in so many seconds."),
    download_option,
    click.option("--all-files", is_flag=True, help="Save watermarked copies and covers, too."),
    click.option(
        "--lease",
        default=15.0,
        show_default=True,
        type=Seconds(),
        help="Seconds until a silent one is given up.",
    ),
    shared_options,
)


COMMANDS: Mapping[str, click.Command] = {
    "worker": worker,
}
