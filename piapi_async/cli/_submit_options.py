"""The options of every command that creates a task."""

from __future__ import annotations

import click

from ._options import shared_options, stacked, timeout_option
from ._saving_options import saving_options

submit_options = stacked(
    timeout_option,
    saving_options(),
    click.option("--no-wait", is_flag=True, help="Print the task's id and exit; `wait` waits for it."),
    click.option(
        "--key",
        help="With --ledger: the same key and request give the same task, however often this is run.",
    ),
    shared_options,
)
"""The options of every command that creates a task."""
