"""`piapi-async emulator`: a local PiAPI server, with all its settings."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ._running import run
from ._session import emulator_class
from ._stderr import say

if TYPE_CHECKING:
    from ..emulator import Dialect


def emulator(
    host: str,
    port: int,
    dialect: tuple[str, ...],
    faults: Path | None,
    *,
    exposed: bool,
    **options: object,
) -> None:
    """Serve a local PiAPI with real results until Ctrl-C; watch it at /_emulator/."""
    make = emulator_class()
    from ..emulator import StateError, load_faults  # noqa: PLC0415 - known to be installed only now

    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, ())}
    try:
        if faults:
            given["faults"] = load_faults(faults)
        service = make(**given, dialect=_dialect(dialect))
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    async def main() -> None:
        try:
            async with service.run(host, port, exposed=exposed) as base_url:
                for line in _how_to_use(base_url, service.api_key, service.speed):
                    say(line)
                await asyncio.Event().wait()
        except StateError as error:
            raise click.UsageError(str(error)) from None
        except (OSError, ValueError) as error:
            reason = str(error).replace("pass exposed=True", "use --exposed")
            raise click.UsageError(f"cannot listen at {host}:{port}: {reason}") from None

    run(main())


def _how_to_use(base_url: str, key: str, speed: float) -> list[str]:
    """Return what to paste where, so that a program talks to the emulator."""
    poll = shell = powershell = ""
    if speed != 1:
        poll = f", poll=PollPolicy().at_speed({speed:g})"
        shell = f" PIAPI_POLL_SPEED={speed:g}"
        powershell = f"; $env:PIAPI_POLL_SPEED = '{speed:g}'"

    return [
        f"The emulator listens at {base_url}; watch it at {base_url}/_emulator/. To use it, in a shell:",
        f"  export PIAPI_BASE_URL={base_url} PIAPI_API_KEY={shlex.quote(key)}{shell}",
        f"  export LEGNEXT_BASE_URL={base_url} LEGNEXT_API_KEY={shlex.quote(key)}",
        "in PowerShell:",
        f"  $env:PIAPI_BASE_URL = '{base_url}'; $env:PIAPI_API_KEY = '{key}'{powershell}",
        "in Python:",
        f"  PiAPI({key!r}, base_url={base_url!r}{poll})",
    ]


def _dialect(settings: tuple[str, ...]) -> Dialect:
    """Return the dialect that ``NAME=VALUE`` settings describe."""
    from ..emulator import Dialect  # noqa: PLC0415 - known to be installed only now

    default = Dialect()
    known = {name: getattr(default, name) for name in attrs.fields_dict(Dialect) if name != "words"}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in known:
            names = ", ".join(known)
            raise click.UsageError(f"--dialect {setting}: must be NAME=VALUE with NAME one of {names}")
        try:
            values[name] = _like(known[name], text)
        except ValueError:
            raise click.UsageError(f"--dialect {setting}: {name} is {_example(known[name])}") from None

    try:
        return Dialect(**values)
    except ValueError as error:
        raise click.UsageError(f"--dialect: {error.args[0]}") from None


def _example(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    return f"like {default!r}"


def _like(example: object, text: str) -> object:
    if isinstance(example, bool):
        if text not in {"true", "false"}:
            raise ValueError(text)
        return text == "true"
    if isinstance(example, int | float):
        return type(example)(text)
    return text
