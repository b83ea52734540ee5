"""The client of a command: of an API, or of an embedded emulator."""

from __future__ import annotations

import codecs
import contextlib
import os
import random
import urllib.request
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from yarl import URL

from .._protocol.values import is_loopback
from ..account import PIAPI
from ..client import PiAPI
from ..ledger import Ledger
from ..policy import PollPolicy
from ._setup import Setup
from ._stderr import say

if TYPE_CHECKING:
    from ..emulator import Emulator

EMULATOR_SPEED = 20.0
"""How much faster than real time the embedded emulator runs: a task of 45 s takes about two."""

_NO_KEY = "No API key: set the environment variable {} or use --api-key-file FILE; --emulator needs none"
_FIRST_PORT, _PORTS = 20_000, 10_000  # of emulators that a ledger remembers


@contextlib.asynccontextmanager
async def client(setup: Setup, *known: str) -> AsyncGenerator[PiAPI, None]:
    """Yield the client that the options ask for; an embedded emulator is told of the `known` ids."""
    ledger = None
    if setup.ledger:
        ledger = Ledger(setup.ledger)

    if not setup.emulator:
        async with _client_of_api(setup, ledger) as piapi:
            yield piapi
        return

    emulator, port = _embedded(setup.ledger or setup.beside)
    for task_id in known:
        emulator.adopt(task_id)
    poll = PollPolicy().at_speed(EMULATOR_SPEED)

    async with (
        _running(emulator, port) as base_url,
        PiAPI(emulator.api_key, base_url=base_url, family=setup.family, poll=poll, ledger=ledger) as piapi,
    ):
        say(
            f"Using an embedded emulator at {base_url}, {EMULATOR_SPEED:g} times faster than real time. "
            "Nothing is paid."
        )
        yield piapi


# -- of an API ----------------------------------------------------------------------------------


def _client_of_api(setup: Setup, ledger: Ledger | None) -> PiAPI:
    service = PIAPI
    if setup.family is not None and setup.family.service is not None:
        service = setup.family.service
    variable = f"{service.variables}_API_KEY"
    key = os.environ.get(variable)
    if setup.api_key_file:
        key = read_secret(setup.api_key_file)
    if not key:
        raise click.UsageError(_NO_KEY.format(variable))

    url = setup.base_url or os.environ.get(f"{service.variables}_BASE_URL") or service.base_url
    try:
        return PiAPI(
            key,
            base_url=setup.base_url,
            family=setup.family,
            ledger=ledger,
            trust_env=uses_proxy(url),
            allow_insecure=setup.allow_insecure,
        )
    except ValueError as error:
        text = str(error).replace("or allow_insecure=True", "or --allow-insecure")
        raise click.UsageError(text) from None


def uses_proxy(base_url: str) -> bool:
    """Return whether the environment's proxies (HTTP_PROXY, HTTPS_PROXY, NO_PROXY) may be used.

    They may not for plain http to this machine, as the key would leave it in the clear; unless the
    proxy is on this machine too.
    """
    try:
        url = URL(base_url)
    except ValueError:  # the client refuses it, in better words
        return False
    if url.scheme != "http" or not is_loopback(url.host or ""):
        return True

    proxies = urllib.request.getproxies_environment()
    return is_loopback(URL(proxies.get("http", "")).host or "")


_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NO_MARK = (b"", "utf-8")


def read_secret(path: Path) -> str:
    """Return the one line of a file with a key or secret.

    The file may begin with a byte-order mark, as Windows writes it.
    """
    data = path.read_bytes()
    mark, encoding = next((found for found in _MARKS if data.startswith(found[0])), _NO_MARK)
    try:
        text = data.removeprefix(mark).decode(encoding).strip()
    except UnicodeDecodeError:
        name = encoding.upper()
        raise click.UsageError(f"{path} is not {name} text: save the key as plain text") from None

    if "\0" in text:
        raise click.UsageError(f"{path} is UTF-16 without a byte-order mark: save the key as UTF-8")
    if not text:
        raise click.UsageError(f"{path} holds no key")
    return text


# -- of an embedded emulator --------------------------------------------------------------------


def emulator_class() -> type[Emulator]:
    """Return `Emulator`; raise `click.UsageError` that says what must be installed for it."""
    try:
        import PIL  # noqa: F401, PLC0415 - its absence is explained before anything runs

        from ..emulator import Emulator  # noqa: PLC0415 - brings aiohttp.web, which nothing else needs
    except ModuleNotFoundError as error:
        text = f"the emulator needs {error.name}: pip install 'piapi_async[emulator]'"
        raise click.UsageError(text) from None
    return Emulator


def _embedded(ledger: Path | None) -> tuple[Emulator, int]:
    """Return the emulator for one command, and its port.

    The tasks of a ledger must exist again in the next run, at the same address: so their emulator
    keeps its state in a file beside the ledger, and has a port that follows from the ledger's name.
    """
    seed = random.randrange(1 << 31)  # noqa: S311 - it is for pictures
    make = emulator_class()
    if ledger is None:
        return make(speed=EMULATOR_SPEED, adopt_parents=True, seed=seed), 0

    state = ledger.with_name(f"{ledger.name}-emulator.json")
    port = _FIRST_PORT + zlib.crc32(str(ledger.resolve()).encode()) % _PORTS
    return make(speed=EMULATOR_SPEED, adopt_parents=True, seed=seed, state=state), port


@contextlib.asynccontextmanager
async def _running(emulator: Emulator, port: int) -> AsyncGenerator[str, None]:
    from ..emulator import StateError  # noqa: PLC0415 - known to be installed only now

    try:
        async with emulator.run(port=port) as base_url:
            yield base_url
    except StateError as error:
        raise click.UsageError(str(error)) from None
