"""The options that commands share.  Imports nothing that `--help` does not need."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    OptionType = click.ParamType
else:

    class OptionType(click.ParamType):
        """A type of option: ``OptionType[int]`` converts to an int.  click's own is generic from 8.3 on."""

        def __class_getitem__(cls, _: object) -> type[OptionType]:
            return cls


Decorated = TypeVar("Decorated", bound="Callable[..., Any] | click.Command")


def stacked(*decorators: Callable[[Any], Any]) -> Callable[[Decorated], Decorated]:
    """Return one decorator that stands for several, the first on top."""

    def decorate(decorated: Decorated) -> Decorated:
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        return decorated

    return decorate


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """Remember an option for `given_options`, whether the group or the command has it."""
    given: dict[str, object] = context.ensure_object(dict)
    if value and parameter.name:
        given[parameter.name] = value


def given_options() -> dict[str, Any]:
    """Return the shared options that the running command was given."""
    given: dict[str, Any] = click.get_current_context().ensure_object(dict)
    return given


def _shared(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:  # noqa: ANN401 - click's shape
    return click.option(*names, expose_value=False, callback=_keep, **settings)


shared_options = stacked(
    _shared("--emulator", is_flag=True, help="Use an embedded emulator: no key, no network, no cost."),
    _shared(
        "--api-key-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Read the API key from this file (default: the environment's PIAPI_API_KEY; of LegNext LEGNEXT_API_KEY).",
    ),
    _shared(
        "--base-url",
        metavar="URL",
        help="The API's URL (default: PIAPI_BASE_URL, then https://api.piapi.ai; of LegNext LEGNEXT_BASE_URL, "
        "then https://api.legnext.ai).",
    ),
    _shared(
        "--allow-insecure",
        is_flag=True,
        help="Allow plain http, which shows the API key to the network, as to http://emulator:8080 "
        "in a docker compose file.",
    ),
    _shared(
        "--ledger",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Record submissions and their outcomes in this file, so that a crash loses nothing.",
    ),
    _shared("-v", "--verbose", count=True, help="Log each step of a task to stderr; -vv: each request, too."),
    _shared(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="What is written to stderr: lines for people, or a JSON object each.",
    ),
)
"""The options that may stand before or after any command."""


page_file = click.Path(dir_okay=False, path_type=Path)
"""The type of an option that names the HTML page of a run."""


class Seconds(click.FloatRange):
    """A finite length of time, 0 or more."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's shape
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return seconds


timeout_option = click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Stop waiting after this time; the task goes on. Default: no limit.",
)


def short(text: str | None) -> str:
    """Return the first clause of a help text, for a list of commands."""
    return re.split(r"[.;(]", text or "")[0].strip()
