"""What a shell completes besides commands and options: names of models and verbs.

click has the rest of it, for bash, zsh and fish (click.palletsprojects.com, "Shell Completion").
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

MODEL_NAMES = Path(__file__).with_name("model_names.txt")
"""The names of all that `run` can create, a line each: completing one builds no request class."""


def complete_models(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return what `run` can create that begins so."""
    return [name for name in MODEL_NAMES.read_text(encoding="utf-8").split() if name.startswith(incomplete)]


def complete_verbs(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return what a line of a batch can create that begins so."""
    from ._commands._submit import VERBS  # noqa: PLC0415 - help needs none of them

    verbs = [name for name in VERBS if name.startswith(incomplete)]
    return verbs + complete_models(context, parameter, incomplete)
