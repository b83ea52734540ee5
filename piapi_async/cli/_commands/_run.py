"""`piapi-async run`: a task of any model."""

from __future__ import annotations

from collections.abc import Mapping

import click

from .._completion import complete_models
from .._submit_options import submit_options
from ._declared import declared

run = declared(
    "run",
    "_run:run_command",
    """Create any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs.

    NAME=TEXT gives an input, NAME:=JSON one that is not a string, NAME=@FILE a file to upload first.
    A model that is newer than this release is MODEL:TASK_TYPE, as in Qubico/flux1-dev:txt2img, and
    takes any inputs; there any string may be a file, so one that begins with @ is NAME=@@TEXT.
    """,
    click.argument("what", metavar="SYSTEM/TASK_TYPE", shell_complete=complete_models),
    click.argument("inputs", metavar="[NAME=VALUE]...", nargs=-1),
    submit_options,
)


COMMANDS: Mapping[str, click.Command] = {
    "run": run,
}
