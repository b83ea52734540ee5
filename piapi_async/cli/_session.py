"""What every command shares at run time: its client, its talk, its way to an exit code."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import os
import random
import shlex
import signal
import sys
import urllib.request
import zlib
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from yarl import URL

from .._protocol.values import is_loopback
from ..client import DEFAULT_BASE_URL, PiAPI
from ..errors import PiAPIError, WaitTimeout
from ..ledger import Ledger
from ..midjourney import LEGACY
from ..policy import PollPolicy
from ._exit import ExitCode, exit_code
from ._options import Setup, given_setup
from ._output import say
from ._saving import Saving

if TYPE_CHECKING:
    from ..emulator import Emulator

EMULATOR_SPEED = 20.0
"""How much faster than life the embedded emulator runs: a task of 45 s takes about two."""

_STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def stopping_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a command to stop; SIGHUP comes when the terminal is closed, but not under nohup."""
    return tuple(kind for kind in _STOPPING if kind.name != "SIGHUP" or signal.getsignal(kind) is not signal.SIG_IGN)


def read_setup() -> Setup:
    """Return what the shared options of the running command say, and begin to tell what the client logs."""
    setup = given_setup()
    logger = logging.getLogger("piapi_async")
    logger.setLevel(logging.DEBUG if setup.verbose else logging.INFO)
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Talk)] + [_Talk()]
    return setup


class _Talk(logging.Handler):
    """Tells the person what the client has to say while it works: that it tries again, and why."""

    def emit(self, record: logging.LogRecord) -> None:
        step = hasattr(record, "task_id")  # in a task's life: a command tells of it in its own way
        if not step or logging.getLogger(record.name).isEnabledFor(logging.DEBUG):
            say(record.getMessage())


@contextlib.asynccontextmanager
async def client(setup: Setup, *known: str) -> AsyncGenerator[PiAPI, None]:
    """Yield the client that the options ask for; the embedded emulator is told of the ids that are asked about."""
    ledger = Ledger(setup.ledger) if setup.ledger else None
    if not setup.emulator:
        async with _client_of_a_host(setup, ledger) as piapi:
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


def _client_of_a_host(setup: Setup, ledger: Ledger | None) -> PiAPI:
    key = read_secret(setup.api_key_file) if setup.api_key_file else os.environ.get("PIAPI_API_KEY")
    if not key:
        raise click.UsageError(
            "No API key: set the environment variable PIAPI_API_KEY or use --api-key-file FILE; --emulator needs none"
        )
    try:
        return PiAPI(
            key,
            base_url=setup.base_url,
            ledger=ledger,
            trust_env=uses_proxy(setup.base_url or os.environ.get("PIAPI_BASE_URL") or DEFAULT_BASE_URL),
            allow_insecure=setup.allow_insecure,
        )
    except ValueError as error:
        raise click.UsageError(str(error).replace("or allow_insecure=True", "or --allow-insecure")) from None


def uses_proxy(base_url: str) -> bool:
    """Return whether the environment's proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) may be used for a host.

    They may, but for plain http to this machine: the key would leave it in the clear, unless the proxy is here too.
    """
    try:
        url = URL(base_url)
    except ValueError:  # the client refuses it, in better words
        return False
    if url.scheme != "http" or not is_loopback(url.host or ""):
        return True
    proxies = urllib.request.getproxies_environment()
    return is_loopback(URL(proxies.get("http", "")).host or "")


_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_secret(path: Path) -> str:
    """Return the one line of a key's or secret's file, which may begin with a byte-order mark as Windows writes it."""
    data = path.read_bytes()
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data.removeprefix(mark).decode(encoding).strip()
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not {encoding.upper()} text: save the key as plain text") from None
    if "\0" in text:
        raise click.UsageError(f"{path} is UTF-16 without a byte-order mark: save the key as UTF-8")
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


def emulator_class() -> type[Emulator]:
    """Give `Emulator`, or say what must be installed for it."""
    try:
        import PIL  # noqa: F401, PLC0415 - asked for early, so that its absence is explained before anything runs

        from ..emulator import Emulator  # noqa: PLC0415 - brings aiohttp.web, which nothing else here needs
    except ModuleNotFoundError as error:
        raise click.UsageError(f"the emulator needs {error.name}: pip install 'piapi_async[emulator]'") from None
    return Emulator


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command to its exit code: every error ends as a sentence, and SIGTERM and SIGHUP count as Ctrl-C."""

    async def stoppable() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        for kind in stopping_signals():
            if kind != signal.SIGINT:  # which asyncio takes care of
                with contextlib.suppress(NotImplementedError):  # Windows' loop has no signal handlers
                    loop.add_signal_handler(kind, lambda: task and task.cancel())
        await main

    try:
        asyncio.run(stoppable())
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted.")
        sys.exit(ExitCode.INTERRUPTED)
    except PiAPIError as error:
        say(f"Error: {explain(error)}")
        sys.exit(exit_code(error))
    except OSError as error:
        say(f"Error: {error}")
        sys.exit(ExitCode.OTHER)


def explain(error: BaseException) -> str:
    """Give an error's text; for a wait that took too long, what to do is said already, in the shell's words."""
    if not isinstance(error, WaitTimeout):
        return str(error)
    task, fault = error.task, error.__cause__
    seen = "nothing was seen of it" if task is None else f"it was last seen {task.status}"
    if task is not None and task.progress is not None:
        seen += f" at {task.progress} %"
    return f"The time is up for task {error.ref}; {seen}." + (f" The last look failed: {fault}" if fault else "")


def resume_command(setup: Setup, task_id: str, family: str, saving: Saving) -> str:
    """Say how a task is waited for again."""
    if setup.emulator and setup.ledger is None:
        return "there is no way: the embedded emulator ends with this command, and its tasks with it."
    words = ["piapi-async", *setup.words(), "wait", task_id]
    if family != LEGACY.name:
        words += ["--family", family]
    return shlex.join([*words, *saving.words()])
