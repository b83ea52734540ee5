"""The `piapi-async` command: the result as JSON on stdout, all talk on stderr.

The commands that make a task are built from the request classes, so a verb added there is a command here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import click

from .._families import FAMILIES
from .._version import __version__
from ..client import PiAPI
from ..downloads import download as save_pictures
from ..midjourney import LEGACY
from ..tasks import Family
from ._batch import batch
from ._emulator import emulator
from ._ledger import ledger
from ._listen import listen
from ._requests import VERBS
from ._run import account, models, run_command, upload
from ._setup import (
    client,
    directory_option,
    explain,
    family_option,
    make_directory,
    read_setup,
    run,
    say,
    shared_options,
    timeout_option,
)
from ._show import Meter, print_task
from ._verbs import finish, short, verb_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, params=shared_options())
@click.version_option(__version__, prog_name="piapi-async")
def cli() -> None:
    """Tasks on PiAPI, Midjourney's and all others: submitted once, waited for, saved.

    The API key comes from the environment (PIAPI_API_KEY) or --api-key-file. Results are JSON on stdout.

    \b
    Exit codes:
      0  done
      1  something else went wrong
      2  usage
      3  refused by the host
      4  the task failed or was cancelled
      5  timed out; the task goes on
      6  it is not known whether the task was submitted
      7  no connection, or no readable answer
      8  done, but the files were not saved
      9  done, but items are left (batch --max-submits)
      130  interrupted
    """  # noqa: D301 - click wants the control character, which keeps the list as it stands


for _verb in VERBS:
    cli.add_command(verb_command(_verb))
for _tool in (run_command, models, upload, account):
    cli.add_command(_tool)
cli.add_command(batch)
cli.add_command(ledger)
cli.add_command(emulator)
cli.add_command(listen)

_ids = click.Argument(["task_ids"], metavar="TASK_ID...", nargs=-1, required=True)


def _command(*params: click.Parameter) -> Callable[[Callable[..., None]], click.Command]:
    def register(function: Callable[..., None]) -> click.Command:
        command = click.Command(
            function.__name__,
            callback=function,
            params=[*params, *shared_options()],
            help=function.__doc__,
            short_help=short(function.__doc__),
        )
        cli.add_command(command)
        return command

    return register


@_command(_ids, family_option)
def fetch(task_ids: tuple[str, ...], family: str) -> None:
    """Print tasks as they are now, one JSON object each."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            await _all(_fetch(piapi, task_id, FAMILIES[family]) for task_id in task_ids)

    run(main())


def _known(family: str, *task_ids: str) -> tuple[str, ...]:
    """Give the ids that the embedded emulator takes for tasks of its own: it makes up grids, and nothing else."""
    return task_ids if family == LEGACY.name else ()


async def _fetch(piapi: PiAPI, task_id: str, family: Family[Any]) -> None:
    print_task(await piapi.fetch(task_id, family=family))


@_command(_ids, timeout_option, directory_option, family_option)
def wait(task_ids: tuple[str, ...], timeout: float | None, directory: Path | None, family: str) -> None:
    """Wait for tasks and print them as they end."""
    setup = read_setup()
    if directory is not None:
        make_directory(directory)

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            with Meter() as meter:
                await _all(
                    finish(setup, piapi.attach(task_id, family=FAMILIES[family]), meter, timeout, directory)
                    for task_id in dict.fromkeys(task_ids)
                )

    run(main())


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let every job end, then raise the first failure, having told the others."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures[1:]:
        say(f"Error: {explain(failure)}")
    if failures:
        raise failures[0]


@_command(
    click.Argument(["task_id"], metavar="TASK_ID"),
    click.Argument(
        ["directory"], type=click.Path(file_okay=False, path_type=Path), default=Path(), metavar="[DIRECTORY]"
    ),
    family_option,
)
def download(task_id: str, directory: Path, family: str) -> None:
    """Save the pictures of a finished task (here, or in DIRECTORY) and print it."""
    setup = read_setup()
    make_directory(directory)

    async def main() -> None:
        async with client(setup, *_known(family, task_id)) as piapi:
            task = await piapi.fetch(task_id, family=FAMILIES[family])
            files = await save_pictures(task, directory)
            for path in files:
                say(f"saved {path}")
            print_task(task, files)

    run(main())


@_command(_ids, family_option)
def cancel(task_ids: tuple[str, ...], family: str) -> None:
    """Ask the host to cancel tasks; only those that have not started can be."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            await piapi.cancel(*task_ids, family=FAMILIES[family])
            say("The host has accepted the request; `fetch` or `wait` tells the outcome.")

    run(main())
