"""The `piapi-async` command: the result as JSON on stdout, all talk on stderr.

The commands that make a task are built from the request classes, so a verb added there is a command here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import attrs
import click

from .. import midjourney
from .._version import __version__
from ..client import TaskHandle
from ..downloads import download as save_pictures
from ..errors import DownloadError, WaitTimeout
from ._emulator import emulator
from ._ledger import ledger
from ._setup import (
    Setup,
    client,
    directory_option,
    read_setup,
    resume_command,
    run,
    say,
    shared_options,
    timeout_option,
)
from ._show import Meter, print_task

if TYPE_CHECKING:
    from .._wire import TaskRequest

VERBS = (
    midjourney.Imagine,
    midjourney.Reroll,
    midjourney.Upscale,
    midjourney.Variation,
    midjourney.Inpaint,
    midjourney.Outpaint,
    midjourney.Pan,
    midjourney.Describe,
    midjourney.Blend,
    midjourney.Seed,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, params=shared_options())
@click.version_option(__version__, prog_name="piapi-async")
def cli() -> None:
    """Midjourney tasks on PiAPI: submitted once, waited for, saved.

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
      8  done, but the pictures were not saved
      130  interrupted
    """  # noqa: D301 - click wants the control character, which keeps the list as it stands


async def _finish(
    setup: Setup, handle: TaskHandle[Any], meter: Meter, timeout: float | None, directory: Path | None
) -> None:
    """Wait for a task and show how it goes, save its pictures, print it."""
    resume = resume_command(setup, handle.task_id, directory)
    try:
        async for task in handle.updates(timeout):
            meter.show(task)
        task = await handle.wait()
        files = await save_pictures(task, directory) if directory is not None and task.images else None
    except (WaitTimeout, asyncio.CancelledError):
        say(f"Task {handle.task_id} goes on. To wait for it: {resume}")
        raise
    except DownloadError:
        say(f"Task {handle.task_id} is done. To save its pictures: {resume}")
        raise
    for path in files or ():
        say(f"saved {path}")
    print_task(task, files)


# -- commands -----------------------------------------------------------------------------------------------------

_HELP = {
    "origin_task_id": "The task to derive from.",
    "prompt": "What to draw.",
    "process_mode": "relax, fast or turbo.",
    "aspect_ratio": "Such as 4:3.",
    "skip_prompt_check": "Let the host not check the prompt first.",
    "bot_id": "A bot of the account's.",
    "index": "1 to 4 on a grid; of a single picture 2x, 4x, subtle, creative (upscale), high_ or low_variation.",
    "mask": "Base64, a data: URI, or @FILE: white where to draw anew.",
    "zoom_ratio": "1, 1.5 or 2.",
    "direction": "up, down, left or right.",
    "dimension": "square, portrait or landscape.",
    "webhook_endpoint": "An http(s) URL the host posts the outcome to.",
    "notify_progress": "Let the host post progress to the webhook too.",
}
_NOT_ON_A_COMMAND_LINE = {"webhook_secret"}  # a process list would show it
_key_option = click.Option(
    ["--key"], help="With --ledger: the same key and request give the same task, however often this is run."
)


def _verb_command(cls: type[Any]) -> click.Command:
    """Build the command of one verb from its request class."""

    def submit(
        *, timeout: float | None, directory: Path | None, no_wait: bool, key: str | None, **values: object
    ) -> None:
        setup = read_setup()
        if key is not None and setup.ledger is None:
            raise click.UsageError("--key needs --ledger FILE, which remembers it")
        if isinstance(mask := values.get("mask"), str):
            values["mask"] = _read_mask(mask)
        try:
            request = cls(**{name: value for name, value in values.items() if value not in (None, ())})
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        run(_submit(setup, request, key, timeout, directory, wait=not no_wait))

    hints = get_type_hints(cls)
    fields = [f for f in attrs.fields(cls) if f.init and f.name not in _NOT_ON_A_COMMAND_LINE]
    parameters = [_parameter(f, hints[f.name]) for f in sorted(fields, key=lambda f: (f.kw_only, f.inherited))]
    no_wait = click.Option(["--no-wait"], is_flag=True, help="Print the task's id and leave; `wait` waits for it.")
    return click.Command(
        cls.__name__.lower(),
        callback=submit,
        params=[*parameters, timeout_option, directory_option, no_wait, _key_option, *shared_options()],
        help=cls.__doc__,
        short_help=_short(cls.__doc__),
    )


def _short(text: str | None) -> str:
    return re.split(r"[.;(]", text or "")[0].strip()


def _parameter(attribute: attrs.Attribute[Any], hint: Any) -> click.Parameter:  # noqa: ANN401 - a type is any object
    option = "--" + attribute.name.replace("_", "-")
    if not attribute.kw_only:
        many = get_origin(hint) is tuple
        name = attribute.name.upper()
        if many:
            return click.Argument([attribute.name], metavar=f"{name}...", nargs=-1, required=True)
        return click.Argument([attribute.name], metavar=name, required=True)
    text = _HELP[attribute.name]
    if bool in get_args(hint):
        return click.Option([f"{option}/--no-{option[2:]}", attribute.name], default=None, help=text)
    kind = click.INT if int in get_args(hint) else click.STRING
    return click.Option([option, attribute.name], type=kind, help=text, required=attribute.default is attrs.NOTHING)


def _read_mask(value: str) -> str | bytes:
    """Give a mask as it was typed, or the file's bytes for @FILE."""
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--mask {value}: {error.strerror}") from None


async def _submit(
    setup: Setup,
    request: TaskRequest[Any],
    key: str | None,
    timeout: float | None,
    directory: Path | None,
    *,
    wait: bool,
) -> None:
    async with client(setup) as piapi:
        try:
            handle = await piapi.submit(request, key=key)
        except asyncio.CancelledError:
            # What has begun to leave arrives all the same, and its id is worth a moment's wait.
            for task_id in await piapi._submitter.finish():  # noqa: SLF001 - the client has no other caller now
                say(f"Task {task_id} was submitted. To wait for it: {resume_command(setup, task_id, directory)}")
            raise
        if not wait:
            click.echo(handle.task_id)
            return
        say(f"submitted {handle.task_id}")
        with Meter() as meter:
            await _finish(setup, handle, meter, timeout, directory)


for _verb in VERBS:
    cli.add_command(_verb_command(_verb))
cli.add_command(ledger)
cli.add_command(emulator)

_ids = click.Argument(["task_ids"], metavar="TASK_ID...", nargs=-1, required=True)


def _command(*params: click.Parameter) -> Callable[[Callable[..., None]], click.Command]:
    def register(function: Callable[..., None]) -> click.Command:
        command = click.Command(
            function.__name__,
            callback=function,
            params=[*params, *shared_options()],
            help=function.__doc__,
            short_help=_short(function.__doc__),
        )
        cli.add_command(command)
        return command

    return register


@_command(_ids)
def fetch(task_ids: tuple[str, ...]) -> None:
    """Print tasks as they are now, one JSON object each."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, *task_ids) as piapi:
            for task_id in task_ids:
                print_task(await piapi.fetch(task_id))

    run(main())


@_command(_ids, timeout_option, directory_option)
def wait(task_ids: tuple[str, ...], timeout: float | None, directory: Path | None) -> None:
    """Wait for tasks and print them as they end."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, *task_ids) as piapi:
            with Meter() as meter:
                await _all(
                    _finish(setup, piapi.attach(task_id), meter, timeout, directory)
                    for task_id in dict.fromkeys(task_ids)
                )

    run(main())


async def _all(jobs: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Let every job end, then raise the first failure, having told the others."""
    results = await asyncio.gather(*jobs, return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures[1:]:
        say(f"Error: {failure}")
    if failures:
        raise failures[0]


@_command(
    click.Argument(["task_id"], metavar="TASK_ID"),
    click.Argument(
        ["directory"], type=click.Path(file_okay=False, path_type=Path), default=Path(), metavar="[DIRECTORY]"
    ),
)
def download(task_id: str, directory: Path) -> None:
    """Save the pictures of a finished task (here, or in DIRECTORY) and print it."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, task_id) as piapi:
            task = await piapi.fetch(task_id)
            files = await save_pictures(task, directory)
            print_task(task, files)

    run(main())


@_command(_ids)
def cancel(task_ids: tuple[str, ...]) -> None:
    """Ask the host to cancel tasks; only those that have not started can be."""
    setup = read_setup()

    async def main() -> None:
        async with client(setup, *task_ids) as piapi:
            await piapi.cancel(*task_ids)
            say("The host has accepted the request; `fetch` or `wait` tells the outcome.")

    run(main())
