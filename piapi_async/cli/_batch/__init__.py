"""`piapi-async batch`: a file of requests, seen through to saved files, whatever happens on the way.

`_source` opens what is read, `_rows` turns its bytes into rows, `_lines` these into requests, `_check` says what is
wrong, `_job` runs them, `_display` shows how it goes, `_results` keeps what came of each.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from ._command import batch

COMMANDS: Mapping[str, click.Command] = {"batch": batch}
