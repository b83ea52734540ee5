"""What `piapi-async batch FILE` was told: its checks, and the words that say it again."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, Literal

import click
from attrs import evolve, frozen

from ...batch._pace import AUTO_MAX
from .._fleet_options import file_of, shown
from .._journal import journal_of
from .._output import check_stdout
from .._report._command import check_page
from .._requests import recipes, unknown_verb
from .._saving import Saving
from .._setup import Setup
from ._results import check_out
from ._tables import check_table


@frozen(kw_only=True)
class BatchOptions:
    """The fields have the names of click's parameters."""

    source: Path
    out: Path | None
    report: Path | None
    database: str | None
    saving: Saving
    concurrency: int | Literal["auto"]
    auto_max: int
    timeout: float | None
    retry_failed: bool
    max_submits: int | None
    max_cost: float | None
    verb: str | None
    ignore_extra: bool
    dry_run: bool
    skip_invalid: bool

    def checked(self, setup: Setup) -> Setup:
        """Return the set-up of this run; raise `click.UsageError` for options that do not go together."""
        if self.database is not None:
            self._check_fleet(self.database, setup)
            setup = evolve(setup, beside=file_of(self.database))
        if self.verb is not None and self.verb not in recipes():
            raise click.UsageError(f"--verb {unknown_verb(self.verb)}")
        if self.retry_failed and setup.ledger is None:
            raise click.UsageError("--retry-failed needs --ledger, which knows what has failed")

        self._check_outputs(setup)
        return setup

    def _check_fleet(self, database: str, setup: Setup) -> None:
        if setup.ledger is not None:
            raise click.UsageError(
                "--database and --ledger exclude each other: the database takes the ledger's place"
            )
        for name in ("timeout", "max_submits", "max_cost", "dry_run", "retry_failed"):
            if getattr(self, name):
                raise click.UsageError(f"{_option(name)} is not for a fleet")
        if not database.startswith("sqlite") and self.saving.directory is not None:
            raise click.UsageError("--download is the workers': piapi-async worker --download DIR")
        logging.getLogger("dbos").setLevel(logging.ERROR)

    def _check_outputs(self, setup: Setup) -> None:
        if self.out is None:
            check_stdout()
        else:
            check_table(self.out)
            for path in {self.out, journal_of(self.out)}:
                check_out(path, self.source, setup.ledger)
        if self.report is not None:
            check_page(self.report, self.source, self.out, setup.ledger)

    def for_runner(self) -> dict[str, Any]:
        """Return the keyword arguments of a `BatchRunner`."""
        return {**self._limits(), "retry_failed": self.retry_failed, **self.saving.for_runner()}

    def for_worker(self) -> dict[str, Any]:
        """Return the keyword arguments of a fleet's worker in this process."""
        saving = self.saving.for_runner()
        options: dict[str, Any] = {"all_files": saving["all_files"], "download": saving["download"]}
        if self.concurrency != "auto":
            options["concurrency"] = self.concurrency
        return options

    def _limits(self) -> dict[str, Any]:
        return {
            "concurrency": self.concurrency,
            "auto_max": self.auto_max,
            "timeout": self.timeout,
            "max_submits": self.max_submits,
            "max_cost": self.max_cost,
        }

    def resume_command(self, setup: Setup) -> str | None:
        """Return the command that goes on with the run.

        None without a ledger or a database, or if the requests come from standard input.
        """
        has_memory = setup.ledger is not None or self.database is not None
        if not has_memory or not self.source.is_file():
            return None

        words = ["piapi-async", *setup.words(), "batch", str(self.source)]
        for name, value in self._given().items():
            if value is True:
                words.append(_option(name))
            elif value is not None and value is not False:
                words += [_option(name), str(value).removesuffix(".0")]
        return shlex.join([*words, *self.saving.words()])

    def _given(self) -> dict[str, Any]:
        """Return the options whose values are not the defaults."""
        defaults = {"concurrency": "auto", "auto_max": AUTO_MAX}
        limits = {name: value for name, value in self._limits().items() if value != defaults.get(name)}
        database = None
        if self.database is not None:
            database = shown(self.database)
        return {
            "out": self.out,
            "report": self.report,
            "verb": self.verb,
            **limits,
            "database": database,
            "skip_invalid": self.skip_invalid,
            "ignore_extra": self.ignore_extra,
            "retry_failed": self.retry_failed,
        }


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
