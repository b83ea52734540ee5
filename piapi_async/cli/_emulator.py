"""`piapi-async emulator`: a local PiAPI server, with all its settings."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ._running import run
from ._session import emulator_class
from ._stderr import say

if TYPE_CHECKING:
    from ..emulator import Dialect

_share = click.FloatRange(0, 1)
_seconds = click.FloatRange(min=0)


@click.command("emulator")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--exposed",
    is_flag=True,
    help="Allow a --host that other machines reach: it trusts all of them.",
)
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="The port to listen on; 0 finds a free one.",
)
@click.option("--seed", default=0, show_default=True, help="The same seed and requests give the same run.")
@click.option(
    "--speed",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="How many times faster than real time.",
)
@click.option(
    "--key",
    "api_keys",
    multiple=True,
    help="A key to accept (may be repeated). Default: emulator-key.",
)
@click.option(
    "--adopt-parents/--no-adopt-parents",
    default=True,
    show_default=True,
    help="Accept any parent task id, or only those of its own tasks.",
)
@click.option("--plan", help="Which fields an account sees: free-payg to pro-hya. Default: pro-hya.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Jobs at once. Default: the plan's.")
@click.option("--queue", type=click.IntRange(min=0), help="Tasks staged beyond that. Default: 50.")
@click.option("--duration", "durations", type=_seconds, help="Seconds every task takes. Default: as PiAPI's.")
@click.option("--failure-rate", type=_share, help="The share of tasks that fail.")
@click.option("--retry-rate", type=_share, help="The share of tasks that the server retries internally.")
@click.option("--progress-error", type=_share, help="How far the reported progress is off.")
@click.option("--parent-max-age", type=_seconds, help="Seconds after which a parent is outdated.")
@click.option("--links-expire-after", type=_seconds, help="Seconds after which links to results expire.")
@click.option(
    "--links-live-after",
    type=_seconds,
    help="Seconds after a task's end before links to results work.",
)
@click.option(
    "--signed-links",
    type=click.Choice(["no", "links", "redirects"]),
    help="Links that only work byte for byte, or that redirect to such links.",
)
@click.option(
    "--picture-size",
    type=click.IntRange(16, 2048),
    help="Pixels of a quadrant's side. Default: 1024.",
)
@click.option("--latency", type=_seconds, help="Seconds before any response.")
@click.option(
    "--banned-word",
    "banned_words",
    multiple=True,
    help="Refuse prompts with this word (may be repeated).",
)
@click.option("--public-url", metavar="URL", help="What links begin with, and a host name to accept.")
@click.option(
    "--webhook-host",
    "webhook_hosts",
    multiple=True,
    help="A host to post webhooks to (may be repeated).",
)
@click.option(
    "--dialect",
    multiple=True,
    metavar="NAME=VALUE",
    help="Change a response that the vendor does not document, as multi_fetch=false (may be repeated).",
)
@click.option(
    "--faults",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file of [[fault]] tables.",
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that keeps tasks across restarts.",
)
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


COMMANDS: Mapping[str, click.Command] = {"emulator": emulator}
