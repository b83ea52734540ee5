"""`piapi-async listen`: webhook deliveries as JSON lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from ._declared import declared

listen = declared(
    "listen",
    "_listen:listen",
    """Print webhook deliveries as JSON lines, until Ctrl-C.""",
    click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
    click.option(
        "--port",
        default=8081,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="The port to listen on; 0 finds a free one.",
    ),
    click.option(
        "--secret-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Read the webhook secret from this file (default: the environment's PIAPI_WEBHOOK_SECRET).",
    ),
)


COMMANDS: Mapping[str, click.Command] = {
    "listen": listen,
}
