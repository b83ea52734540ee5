"""The options that every command shares.  Imports nothing that `--help` does not need."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click
from attrs import frozen


@frozen
class Setup:
    """What every command needs to make its client; the options may stand before or after the verb."""

    emulator: bool = False
    api_key_file: Path | None = None
    base_url: str | None = None
    allow_insecure: bool = False
    ledger: Path | None = None
    verbose: bool = False

    def words(self) -> list[str]:
        """Return the options as one would type them."""
        words = ["--emulator"] if self.emulator else []
        for option, value in (
            ("--base-url", self.base_url),
            ("--ledger", self.ledger),
            ("--api-key-file", self.api_key_file),
        ):
            if value:
                words += [option, str(value)]
        if self.allow_insecure:
            words.append("--allow-insecure")
        return words


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Remember an option for `given_setup`, whichever of the group and the command it was given to."""
    given: dict[str, object] = context.ensure_object(dict)
    if value and parameter.name:
        given[parameter.name] = value


def given_setup() -> Setup:
    """Return what the shared options of the running command say; raise `click.UsageError` if they cannot be."""
    setup = Setup(**click.get_current_context().ensure_object(dict))
    if setup.emulator and setup.base_url:
        raise click.UsageError("--emulator and --base-url exclude each other")
    if setup.ledger is not None and not setup.ledger.parent.is_dir():
        raise click.UsageError(f"--ledger {setup.ledger}: there is no directory {setup.ledger.parent}")
    return setup


def shared_options() -> list[click.Parameter]:
    """Return the options that stand before or after any verb."""
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
            ["--allow-insecure"],
            is_flag=True,
            help="Let plain http show the API key to the network, as to http://emulator:8080 in a compose file.",
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


def short(text: str | None) -> str:
    """Return the first clause of a help text, for a list of commands."""
    return re.split(r"[.;(]", text or "")[0].strip()
