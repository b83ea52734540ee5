"""`piapi-async worker`: one process of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Any

import click

from ._fleet_options import fleet_module, shown
from ._running import run
from ._session import client
from ._setup import read_setup
from ._stderr import say


def worker(*, database: str, directory: Any, **options: Any) -> None:  # noqa: ANN401 - a target, or None
    """Work on the jobs of a fleet until SIGTERM or Ctrl-C, then hand over what is in flight."""
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
