"""The option that says of which API tasks are."""

from __future__ import annotations

import click

FAMILY_NAMES = ("legacy", "unified", "face-swap", "dream-machine", "legacy-kling", "legnext")
"""Those of `FAMILIES`, the default first."""

family_option = click.option(
    "--family",
    type=click.Choice(FAMILY_NAMES),
    default=FAMILY_NAMES[0],
    help="The API of the tasks: legacy (Midjourney's verbs, the default), unified (what `run` "
    "creates), legnext (LegNext's), or one of the older ones.",
)
