"""`piapi-async report`: one page of a run's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from .._options import page_file
from ._declared import declared

report = declared(
    "report",
    "_report._command:report",
    """Make an HTML page of a run: pictures, players, costs, errors; search, filter, choose.

    RESULTS is the file of a batch's `--out`. What you choose on the page it saves as lines of
    `upscale` and `reroll`, for the next `batch`. Saved files are shown from where they are, others
    from their links, which expire.
    """,
    click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.option(
        "--out", type=page_file, metavar="FILE", help="The page. Default: RESULTS with the suffix .html."
    ),
)


COMMANDS: Mapping[str, click.Command] = {
    "report": report,
}
