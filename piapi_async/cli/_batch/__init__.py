"""`piapi-async batch`: a file of requests, seen through to saved files, whatever happens on the way.

`_rows` turns the bytes of a file into rows, `_lines` these into requests, `_job` runs them, `_display` shows how it
goes, `_results` keeps what came of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from ._job import batch

COMMANDS: Mapping[str, click.Command] = {"batch": batch}
