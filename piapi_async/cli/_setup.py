"""What every command shares: its options, its client, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shlex
import signal
import sys
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen
from rich.console import Console

from ..client import PiAPI
from ..errors import (
    APIError,
    DownloadError,
    PiAPIError,
    SubmissionUnknown,
    TaskCancelled,
    TaskFailed,
    TransportError,
    UnexpectedAnswer,
    WaitTimeout,
)
from ..ledger import Ledger
from ..policy import PollPolicy

if TYPE_CHECKING:
    from ..emulator import Emulator

EMULATOR_SPEED = 20.0
"""How much faster than life the embedded emulator runs: a task of 45 s takes about two."""

# The first class that fits names the exit code; the README documents them.
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (SubmissionUnknown, 6),
    (WaitTimeout, 5),
    (TaskFailed, 4),
    (TaskCancelled, 4),
    (APIError, 3),
    (DownloadError, 8),
    (TransportError, 7),
    (UnexpectedAnswer, 7),
    (PiAPIError, 1),
)
INTERRUPTED = 130

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Talk to the person, on stderr, without markup and without wrapping ids apart."""
    console.print(text, markup=False, soft_wrap=True)


@frozen
class Setup:
    """What every command needs to make its client; the options may stand before or after the verb."""

    emulator: bool = False
    api_key_file: Path | None = None
    base_url: str | None = None
    ledger: Path | None = None
    verbose: bool = False


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Remember an option for `_setup`, whichever of the group and the command it was given to."""
    given: dict[str, object] = context.ensure_object(dict)
    if value and parameter.name:
        given[parameter.name] = value


def read_setup() -> Setup:
    """Give what the shared options of the running command say."""
    setup = Setup(**click.get_current_context().ensure_object(dict))
    if setup.emulator and setup.base_url:
        raise click.UsageError("--emulator and --base-url exclude each other")
    if setup.verbose:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr, format="%(name)s %(levelname)s %(message)s")
    else:
        logger = logging.getLogger("piapi_async")
        logger.setLevel(logging.INFO)
        logger.addHandler(_Talk())
    return setup


class _Talk(logging.Handler):
    """Tells the person what the client has to say while it works: that it tries again, and why."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def shared_options() -> list[click.Parameter]:
    """Give the options that stand before or after any verb."""
    return [
        click.Option(
            ["--emulator"],
            is_flag=True,
            help="Use an embedded emulator: no key, no network, no cost.",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--api-key-file"],
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="Read the API key from this file (default: the environment's PIAPI_API_KEY).",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--base-url"],
            metavar="URL",
            help="The host (default: PIAPI_BASE_URL, then https://api.piapi.ai).",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["--ledger"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="A file that remembers what is submitted and how it ends, so that a crash loses nothing.",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(
            ["-v", "--verbose"], is_flag=True, help="Log to stderr what happens.", expose_value=False, callback=_keep
        ),
    ]


timeout_option = click.Option(
    ["--timeout"],
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Stop waiting after so long; the task goes on. Default: wait for ever.",
)
directory_option = click.Option(
    ["--download", "directory"],
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save the pictures here: their links expire.",
)


@contextlib.asynccontextmanager
async def client(setup: Setup, *known: str) -> AsyncGenerator[PiAPI, None]:
    """Give the client that the options ask for; the embedded emulator is told of the ids that are asked about."""
    ledger = Ledger(setup.ledger) if setup.ledger else None
    if not setup.emulator:
        key = setup.api_key_file.read_text(encoding="utf-8") if setup.api_key_file else None
        try:
            piapi = PiAPI(key, base_url=setup.base_url, ledger=ledger)
        except ValueError as error:
            raise click.UsageError(f"{error} (or use --api-key-file, or --emulator for a try)") from None
        async with piapi:
            yield piapi
        return
    emulator = emulator_class()(speed=EMULATOR_SPEED, adopt_parents=True, seed=random.randrange(1 << 31))  # noqa: S311 - pictures
    for task_id in known:
        emulator.adopt(task_id)
    poll = PollPolicy().at_speed(EMULATOR_SPEED)
    async with (
        emulator.run() as base_url,
        PiAPI(emulator.api_key, base_url=base_url, poll=poll, ledger=ledger) as piapi,
    ):
        say(f"Using an embedded emulator at {base_url}, {EMULATOR_SPEED:g} times faster than life. Nothing is paid.")
        yield piapi


def emulator_class() -> type[Emulator]:
    """Give `Emulator`, or say what must be installed for it."""
    try:
        import PIL  # noqa: F401, PLC0415 - asked for early, so that its absence is explained before anything runs

        from ..emulator import Emulator  # noqa: PLC0415 - brings aiohttp.web, which nothing else here needs
    except ModuleNotFoundError as error:
        raise click.UsageError(f"the emulator needs {error.name}: pip install 'piapi_async[emulator]'") from None
    return Emulator


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its exit code: every error ends as a sentence, SIGTERM counts as Ctrl-C."""

    async def stoppable() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
            loop.add_signal_handler(signal.SIGTERM, lambda: task and task.cancel())
        await main

    try:
        asyncio.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted.")
        sys.exit(INTERRUPTED)
    except PiAPIError as error:
        say(f"Error: {error}")
        sys.exit(exit_code(error))


def exit_code(error: PiAPIError) -> int:
    """Give the code a command ends with after `error`."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def resume_command(setup: Setup, task_id: str, directory: Path | None) -> str:
    """Give the command that waits for a task again."""
    words = ["piapi-async"]
    if setup.emulator:
        words.append("--emulator")
    if setup.base_url:
        words += ["--base-url", setup.base_url]
    if setup.ledger:
        words += ["--ledger", str(setup.ledger)]
    if setup.api_key_file:
        words += ["--api-key-file", str(setup.api_key_file)]
    words += ["wait", task_id]
    if directory:
        words += ["--download", str(directory)]
    return shlex.join(words)
