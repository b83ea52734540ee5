"""What every command shares: its options, its client, its exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import random
import shlex
import signal
import sys
import zlib
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import frozen
from rich.console import Console

from .._families import FAMILIES
from ..client import PiAPI
from ..downloads import prepare_directory
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
from ..midjourney import LEGACY
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

    def words(self) -> list[str]:
        """Give the options as one would type them."""
        words = ["--emulator"] if self.emulator else []
        for option, value in (
            ("--base-url", self.base_url),
            ("--ledger", self.ledger),
            ("--api-key-file", self.api_key_file),
        ):
            words += [option, str(value)] if value else []
        return words


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
    logger = logging.getLogger("piapi_async")
    logger.setLevel(logging.DEBUG if setup.verbose else logging.INFO)
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Talk)] + [_Talk()]
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


class Seconds(click.FloatRange):
    """A length of time that is finite, and not negative."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's shape
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


timeout_option = click.Option(
    ["--timeout"],
    type=Seconds(),
    metavar="SECONDS",
    help="Stop waiting after so long; the task goes on. Default: wait for ever.",
)
family_option = click.Option(
    ["--family"],
    type=click.Choice(list(FAMILIES)),
    default=LEGACY.name,
    help="Which API the tasks are of: legacy (Midjourney's verbs, the default), unified (what `run` makes), …",
)
directory_option = click.Option(
    ["--download", "directory"],
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Save the files of the result here: their links expire.",
)


@contextlib.asynccontextmanager
async def client(setup: Setup, *known: str) -> AsyncGenerator[PiAPI, None]:
    """Give the client that the options ask for; the embedded emulator is told of the ids that are asked about."""
    ledger = Ledger(setup.ledger) if setup.ledger else None
    if not setup.emulator:
        key = read_secret(setup.api_key_file) if setup.api_key_file else os.environ.get("PIAPI_API_KEY")
        if not key:
            raise click.UsageError(
                "No API key: set the environment variable PIAPI_API_KEY or use --api-key-file FILE; "
                "--emulator needs none"
            )
        try:
            piapi = PiAPI(key, base_url=setup.base_url, ledger=ledger)
        except ValueError as error:
            raise click.UsageError(str(error).replace(", or allow_insecure=True", "")) from None
        async with piapi:
            yield piapi
        return
    emulator, port = _embedded(setup.ledger)
    for task_id in known:
        emulator.adopt(task_id)
    poll = PollPolicy().at_speed(EMULATOR_SPEED)
    async with (
        _running(emulator, port) as base_url,
        PiAPI(emulator.api_key, base_url=base_url, poll=poll, ledger=ledger) as piapi,
    ):
        say(f"Using an embedded emulator at {base_url}, {EMULATOR_SPEED:g} times faster than life. Nothing is paid.")
        yield piapi


@contextlib.asynccontextmanager
async def _running(emulator: Emulator, port: int) -> AsyncGenerator[str, None]:
    from ..emulator import StateError  # noqa: PLC0415 - known to be there only now

    try:
        async with emulator.run(port=port) as base_url:
            yield base_url
    except StateError as error:
        raise click.UsageError(str(error)) from None


def read_secret(path: Path) -> str:
    """Give the one line of a key's or secret's file."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise click.UsageError(f"{path} holds no key")
    return text


def _embedded(ledger: Path | None) -> tuple[Emulator, int]:
    """Give the emulator for one command, and its port.

    What a ledger remembers must be there again in the next run, at the same address: so its emulator keeps its tasks in
    a file beside it, and has a port that follows from the ledger's name.
    """
    seed = random.randrange(1 << 31)  # noqa: S311 - it is for pictures
    make = emulator_class()
    if ledger is None:
        return make(speed=EMULATOR_SPEED, adopt_parents=True, seed=seed), 0
    state = ledger.with_name(f"{ledger.name}-emulator.json")
    port = 20_000 + zlib.crc32(str(ledger.resolve()).encode()) % 10_000
    return make(speed=EMULATOR_SPEED, adopt_parents=True, seed=seed, state=state), port


def make_directory(directory: Path) -> None:
    """Make the directory for pictures, before anything is paid for them."""
    try:
        prepare_directory(directory)
    except DownloadError as error:
        raise click.UsageError(f"{error} Nothing was submitted.") from None


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
        say(f"Error: {explain(error)}")
        sys.exit(exit_code(error))
    except OSError as error:
        say(f"Error: {error}")
        sys.exit(1)


def explain(error: BaseException) -> str:
    """Give an error's text; for a wait that took too long, what to do is said already, in the shell's words."""
    if not isinstance(error, WaitTimeout):
        return str(error)
    task, fault = error.task, error.__cause__
    seen = "nothing was seen of it" if task is None else f"it was last seen {task.status}"
    if task is not None and task.progress is not None:
        seen += f" at {task.progress} %"
    return f"The time is up for task {error.ref}; {seen}." + (f" The last look failed: {fault}" if fault else "")


def exit_code(error: PiAPIError) -> int:
    """Give the code a command ends with after `error`."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def resume_command(setup: Setup, task_id: str, family: str, directory: Path | None) -> str:
    """Say how a task is waited for again."""
    if setup.emulator and setup.ledger is None:
        return "there is no way: the embedded emulator ends with this command, and its tasks with it."
    words = ["piapi-async", *setup.words(), "wait", task_id]
    if family != LEGACY.name:
        words += ["--family", family]
    if directory:
        words += ["--download", str(directory)]
    return shlex.join(words)
