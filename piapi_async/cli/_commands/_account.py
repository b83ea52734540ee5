"""`piapi-async models`, `upload`, `account`, `history`: what there is besides tasks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import click

from .._family_option import family_option
from .._options import shared_options
from ._declared import declared


def _read_time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """Return the time that an option names; without a zone it is local."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is not a time; write 2026-07-31, 2026-07-31T12:00 or 2026-07-31T12:00:00Z"
        ) from None


models = declared(
    "models",
    "_account:models",
    """List what `run` and `batch` can create, with its inputs: required ones first, marked *.""",
    click.option("--search", metavar="TEXT", help="Only those whose name, model or description has this."),
)

upload = declared(
    "upload",
    "_account:upload",
    """Put a file where models can read it, for 24 hours, and print its URL.""",
    click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option("--name", help="What to call it there. Default: the file's own name."),
    shared_options,
)

account = declared(
    "account",
    "_account:account",
    """Print the account behind the key, and what is active on it.""",
    family_option,
    shared_options,
)

history = declared(
    "history",
    "_account:history",
    """Print the tasks that the account has paid for, one JSON object each, the latest first.

    These are the tasks of the unified API, created with any key of this account. How soon after its
    creation a task appears here is not documented.
    """,
    click.option("--model", help="Only tasks of this model, as the host calls it."),
    click.option(
        "--since",
        callback=_read_time,
        metavar="TIME",
        help="Created then or later, as 2026-07-31T12:00Z.",
    ),
    click.option("--until", callback=_read_time, metavar="TIME", help="Created then or earlier."),
    click.option("--limit", type=click.IntRange(1), metavar="NUMBER", help="At most this many."),
    shared_options,
)


COMMANDS: Mapping[str, click.Command] = {
    "models": models,
    "upload": upload,
    "account": account,
    "history": history,
}
