"""What commands of a fleet share: its database, and the extra that it needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._options import Decorated, OptionType, stacked

if TYPE_CHECKING:
    from types import ModuleType


class DatabaseURL(OptionType[str]):
    """The URL of a fleet's database."""

    name = "URL"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        try:
            url: str = fleet_module("_database").check_url(value)
        except ValueError as error:
            self.fail(str(error).removeprefix("url: "), param, ctx)
        return url


def database_option(*, required: bool = False) -> Callable[[Decorated], Decorated]:
    """Return the option ``--database``; where it is required, the environment may have it."""
    envvar = "PIAPI_DATABASE" if required else None
    return stacked(
        click.option(
            "--database",
            type=DatabaseURL(),
            envvar=envvar,
            show_envvar=required,
            required=required,
            help="The fleet's database: postgresql://... for any number of machines, sqlite:///run.db for one.",
        )
    )


def fleet_module(name: str = "") -> ModuleType:
    """Return a module of `piapi_async.fleet`; raise `click.UsageError` where its engine is not installed."""
    from importlib import import_module  # noqa: PLC0415 - brings the engine, which nothing else needs

    try:
        module = import_module(f"piapi_async.fleet.{name}" if name else "piapi_async.fleet")
    except ModuleNotFoundError as error:
        raise click.UsageError(f"a fleet needs {error.name}: pip install 'piapi_async[fleet]'") from None
    return module


def shown(url: str) -> str:
    """Return a URL without its password, for messages."""
    from .._text import without_password  # noqa: PLC0415 - help needs none of it

    return without_password(url, ":***")


def file_of(url: str) -> Path | None:
    """Return the file of a SQLite database, None for a server's."""
    prefix = "sqlite:///"
    if not url.startswith(prefix):
        return None
    return Path(url.removeprefix(prefix))
