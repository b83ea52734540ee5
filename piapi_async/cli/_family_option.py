"""The option that says of which API tasks are."""

from __future__ import annotations

import click

from .._families import FAMILIES
from ..midjourney import LEGACY

family_option = click.option(
    "--family",
    type=click.Choice(list(FAMILIES)),
    default=LEGACY.name,
    help="The API of the tasks: legacy (Midjourney's verbs, the default), unified (what `run` "
    "creates), legnext (LegNext's), or one of the older ones.",
)
