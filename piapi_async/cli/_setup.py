"""What the shared options of a command say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from attrs import evolve, frozen

from .._protocol.family import Family
from ..account import PIAPI
from ._log import show_log
from ._options import given_options


@frozen
class Setup:
    """What a command needs to make its client."""

    emulator: bool = False
    api_key_file: Path | None = None
    base_url: str | None = None
    allow_insecure: bool = False
    ledger: Path | None = None
    verbose: int = 0
    log_format: str = "text"
    family: Family[Any] | None = None
    """That of another vendor than PiAPI, to whose host the command speaks."""
    beside: Path | None = None
    """A file whose tasks an embedded emulator must know again in the next run, if there is no ledger."""

    def to(self, family: Family[Any]) -> Setup:
        """Return the setup for tasks of a family."""
        if family.service in (None, PIAPI):
            return self
        return evolve(self, family=family)

    def words(self) -> list[str]:
        """Return the options as words of a command line, but for those about the log."""
        words = []
        if self.emulator:
            words.append("--emulator")

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


def read_setup() -> Setup:
    """Return what the shared options of the running command say, and show what the client logs.

    Raises `click.UsageError` for options that contradict each other.
    """
    setup = Setup(**given_options())
    if setup.emulator and setup.base_url:
        raise click.UsageError("--emulator and --base-url exclude each other")
    if setup.ledger is not None and not setup.ledger.parent.is_dir():
        raise click.UsageError(f"--ledger {setup.ledger}: there is no directory {setup.ledger.parent}")

    show_log(verbosity=setup.verbose, as_json=setup.log_format == "json")
    return setup
