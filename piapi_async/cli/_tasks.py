"""`piapi-async fetch`, `wait`, `download`, `cancel`: what can be done with tasks that exist."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

from .._families import FAMILIES
from .._protocol.family import Family
from ..client import PiAPI
from ..errors import DownloadError
from ..midjourney import LEGACY
from ..tasks import TaskState
from ._finish import finish, say_saved
from ._meter import Meter
from ._output import check_stdout, print_task
from ._running import explain, run
from ._saving import Saving
from ._session import client
from ._setup import read_setup
from ._stderr import say


def fetch(task_ids: tuple[str, ...], family: str) -> None:
    """Print tasks as they are now, one JSON object each."""
    setup = read_setup().to(FAMILIES[family])
    check_stdout()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            await _all(_fetch(piapi, task_id, FAMILIES[family]) for task_id in task_ids)

    run(main())


def _known(family: str, *task_ids: str) -> tuple[str, ...]:
    """Return the ids that the embedded emulator takes for its own: it makes up grids, nothing else."""
    if family == LEGACY.name:
        return task_ids
    return ()


async def _fetch(piapi: PiAPI, task_id: str, family: Family[Any]) -> None:
    print_task(await piapi.fetch(task_id, family=family))


def wait(task_ids: tuple[str, ...], timeout: float | None, family: str, saving: Saving) -> None:
    """Wait for tasks and print them as they end."""
    setup = read_setup().to(FAMILIES[family])
    check_stdout()
    saving.prepare()

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            with Meter() as meter:
                ids = dict.fromkeys(task_ids)
                handles = [piapi.attach(task_id, family=FAMILIES[family]) for task_id in ids]
                see_through = partial(finish, setup, piapi, meter=meter, timeout=timeout, saving=saving)
                await _all(see_through(handle) for handle in handles)

    run(main())


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run all jobs to their ends, then raise the first failure, having printed the others."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    if not failures:
        return

    first, *others = failures
    for failure in others:
        say(f"Error: {explain(failure)}")
    raise first


def download(task_id: str, family: str, saving: Saving) -> None:
    """Save the pictures of a finished task (here, or in DIRECTORY) and print it."""
    setup = read_setup().to(FAMILIES[family])
    check_stdout()
    saving.prepare()

    async def main() -> None:
        async with client(setup, *_known(family, task_id)) as piapi:
            task = await piapi.fetch(task_id, family=FAMILIES[family])
            if task.state is not TaskState.DONE:
                raise DownloadError(f"Task {task.task_id} is {task.status}: it has no files to save yet.")
            task = await saving.save(piapi, task)
            say_saved(task)
            print_task(task)

    run(main())


def cancel(task_ids: tuple[str, ...], family: str) -> None:
    """Ask the host to cancel tasks; only those that have not started can be."""
    setup = read_setup().to(FAMILIES[family])

    async def main() -> None:
        async with client(setup, *_known(family, *task_ids)) as piapi:
            await piapi.cancel(*task_ids, family=FAMILIES[family])
            say("The host has accepted the request; `fetch` or `wait` shows the outcome.")

    run(main())
