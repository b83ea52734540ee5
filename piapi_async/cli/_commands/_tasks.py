"""`piapi-async fetch`, `wait`, `download`, `cancel`: what can be done with tasks that exist."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from .._family_option import family_option
from .._options import shared_options, timeout_option
from .._saving_options import Folder, saving_options
from ._declared import declared

task_ids_argument = click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True)


fetch = declared(
    "fetch",
    "_tasks:fetch",
    """Print tasks as they are now, one JSON object each.""",
    task_ids_argument,
    family_option,
    shared_options,
)

wait = declared(
    "wait",
    "_tasks:wait",
    """Wait for tasks and print them as they end.""",
    task_ids_argument,
    timeout_option,
    saving_options(),
    family_option,
    shared_options,
)

download = declared(
    "download",
    "_tasks:download",
    """Save the pictures of a finished task (here, or in DIRECTORY) and print it.""",
    click.argument("task_id", metavar="TASK_ID"),
    saving_options(click.argument("directory", type=Folder(), default=Path(), metavar="[DIRECTORY]")),
    family_option,
    shared_options,
)

cancel = declared(
    "cancel",
    "_tasks:cancel",
    """Ask the host to cancel tasks; only those that have not started can be.""",
    task_ids_argument,
    family_option,
    shared_options,
)


COMMANDS: Mapping[str, click.Command] = {
    "fetch": fetch,
    "wait": wait,
    "download": download,
    "cancel": cancel,
}
