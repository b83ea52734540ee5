"""`piapi-async worker`: one process of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Mapping
from typing import Any

import click

from ._fleet_options import database_option, fleet_module, shown
from ._options import OptionType, Seconds, shared_options
from ._running import run
from ._saving import download_option
from ._session import client
from ._setup import read_setup
from ._stderr import say


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


@click.command("worker")
@database_option(required=True)
@click.option(
    "--concurrency",
    default=30,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of all workers together.",
)
@click.option(
    "--per-worker", type=click.IntRange(min=1), help="The most of them at this one. Default: no limit."
)
@click.option("--rate-limit", type=_Rate(), help="Tasks begun by all workers in so many seconds.")
@download_option
@click.option("--all-files", is_flag=True, help="Save watermarked copies and covers, too.")
@click.option(
    "--lease", default=15.0, show_default=True, type=Seconds(), help="Seconds until a silent one is given up."
)
@shared_options
def worker(*, database: str, directory: Any, **options: Any) -> None:  # noqa: ANN401 - a target, or None
    """Work on the jobs of a fleet until SIGTERM or Ctrl-C, then hand over what is in flight.

    Run it on as many machines as you like, with the same database and an API key of the same account.
    Services put jobs into the database with `piapi_async.fleet.Fleet`, a shell with `batch --database`.
    """
    setup = read_setup()
    if setup.ledger is not None:
        raise click.UsageError(
            "--database and --ledger exclude each other: the database takes the ledger's place"
        )
    logging.getLogger("dbos").setLevel(logging.ERROR)
    make = fleet_module().Worker

    async def main() -> None:
        async with client(setup) as piapi, make(database, piapi, download=directory, **options) as working:
            with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.stop)
            say(f"Worker {working.name} is at work for {shown(database)}; Ctrl-C or SIGTERM hands over.")
            await working.run()
            say("Handed over.")

    try:
        run(main())
    except ValueError as error:
        raise click.UsageError(str(error)) from None


COMMANDS: Mapping[str, click.Command] = {"worker": worker}
