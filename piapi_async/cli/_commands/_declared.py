"""Commands whose work is imported when they are run."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from .._options import stacked

Part = Callable[[Any], Any]
"""An option or an argument: a decorator of click's."""


def declared(
    name: str,
    work: str,
    about: str,
    *parts: Part,
    cls: type[click.Command] = click.Command,
    **settings: Any,  # noqa: ANN401 - click's
) -> click.Command:
    """Return a command; `work` is the function of the command line that it calls, as ``module:function``.

    `about` is its help; the function is called with what the parts read, by their names.
    """

    def command(**given: Any) -> None:  # noqa: ANN401 - whatever click has read
        carry_out(work, **given)

    make = click.command(name, cls=cls, help=about, **settings)
    made: click.Command = make(stacked(*parts)(command))
    return made


def carry_out(work: str, *values: Any, **given: Any) -> None:  # noqa: ANN401 - the function's own
    """Import a function of the command line, ``module:function``, and call it."""
    module, _, function = work.partition(":")
    getattr(import_module(f"piapi_async.cli.{module}"), function)(*values, **given)
