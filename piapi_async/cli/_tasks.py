"""`piapi-async fetch`, `wait`, `download`, `cancel`: what can be done with tasks that exist."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

import click

from .._families import FAMILIES
from .._protocol.family import Family
from ..client import PiAPI
from ..errors import DownloadError
from ..midjourney import LEGACY
from ..tasks import TaskState
from ._options import shared_options, short, timeout_option
from ._output import Meter, check_stdout, print_task, say
from ._saving import Folder, Saving, saving_options
from ._session import client, explain, read_setup, run
from ._submit import finish, tell_saved

COMMANDS: dict[str, click.Command] = {}

family_option = click.Option(
    ["--family"],
    type=click.Choice(list(FAMILIES)),
    default=LEGACY.name,
    help="Which API the tasks are of: legacy (Midjourney's verbs, the default), unified (what `run` makes), or older.",
)
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
        COMMANDS[function.__name__] = command
        return command

    return register


@_command(_ids, family_option)
def fetch(task_ids: tuple[str, ...], family: str) -> None:
    """Print tasks as they are now, one JSON object each."""
    setup = read_setup()
    check_stdout()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            await _all(_fetch(piapi, task_id, FAMILIES[family]) for task_id in task_ids)

    run(main())


def _known(family: str, *task_ids: str) -> tuple[str, ...]:
    """Give the ids that the embedded emulator takes for tasks of its own: it makes up grids, and nothing else."""
    return task_ids if family == LEGACY.name else ()


async def _fetch(piapi: PiAPI, task_id: str, family: Family[Any]) -> None:
    print_task(await piapi.fetch(task_id, family=family))


@_command(_ids, timeout_option, *saving_options(), family_option)
def wait(task_ids: tuple[str, ...], timeout: float | None, family: str, **values: object) -> None:
    """Wait for tasks and print them as they end."""
    setup, saving = read_setup(), Saving.taken_from(values)
    check_stdout()
    saving.prepare()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            with Meter() as meter:
                handles = [piapi.attach(task_id, family=FAMILIES[family]) for task_id in dict.fromkeys(task_ids)]
                await _all(finish(setup, piapi, handle, meter, timeout=timeout, saving=saving) for handle in handles)

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
    click.Argument(["directory"], type=Folder(), default=Path(), metavar="[DIRECTORY]"),
    *saving_options(folder=False),
    family_option,
)
def download(task_id: str, family: str, **values: object) -> None:
    """Save the pictures of a finished task (here, or in DIRECTORY) and print it."""
    setup, saving = read_setup(), Saving.taken_from(values)
    check_stdout()
    saving.prepare()

    async def main() -> None:
        async with client(setup, *_known(family, task_id)) as piapi:
            task = await piapi.fetch(task_id, family=FAMILIES[family])
            if task.state is not TaskState.DONE:
                raise DownloadError(f"Task {task.task_id} is {task.status}: it has no files to save yet.")
            task = await saving.save(piapi, task)
            tell_saved(task)
            print_task(task)

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
