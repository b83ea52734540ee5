"""The `piapi-async` command: results as JSON on stdout, everything else on stderr.

A command's declaration (`_commands`) is imported when it is named, its work when it is run: so help and
completion need no HTTP client and none of the request classes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from .._version import __version__
from ._exit import exit_codes_help
from ._options import shared_options

if TYPE_CHECKING:
    from collections.abc import Mapping

_ABOUT = """Tasks on PiAPI, Midjourney's and all others: submitted once, waited for, saved.

The API key comes from the environment (PIAPI_API_KEY) or --api-key-file. Results are JSON on stdout.
"""

_COMPLETION = """\b
Tab completes commands, options and models, as in `run flux/`, with this line
in ~/.bashrc (in ~/.zshrc: zsh_source):
  eval "$(_PIAPI_ASYNC_COMPLETE=bash_source piapi-async)"
and in ~/.config/fish/completions/piapi-async.fish:
  _PIAPI_ASYNC_COMPLETE=fish_source piapi-async | source
"""

# Each command's line in the list, which is the beginning of its own help: module -> name -> line.
_COMMANDS: Mapping[str, Mapping[str, str]] = {
    "_submit": {
        "blend": "Mix two to five images into one grid",
        "describe": "Find prompts for an image",
        "imagine": "Draw a grid of four from a prompt",
        "inpaint": "Draw the masked part of an upscaled image anew",
        "outpaint": "Zoom out of an upscaled image",
        "pan": "Extend an upscaled image to one side",
        "reroll": "Draw a grid anew",
        "seed": "Ask for the seed of a finished task",
        "upscale": "Take one image of a grid",
        "variation": "Vary one image of a grid",
    },
    "_run": {
        "run": "Create any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs",
    },
    "_tasks": {
        "fetch": "Print tasks as they are now, one JSON object each",
        "wait": "Wait for tasks and print them as they end",
        "download": "Save the pictures of a finished task",
        "cancel": "Ask the host to cancel tasks",
    },
    "_batch": {
        "batch": "Run a file of requests",
    },
    "_report": {
        "report": "Make an HTML page of a run: pictures, players, costs, errors",
    },
    "_account": {
        "models": "List what `run` and `batch` can create, with its inputs: required ones first, marked *",
        "upload": "Put a file where models can read it, for 24 hours, and print its URL",
        "account": "Print the account behind the key, and what is active on it",
        "history": "Print the tasks that the account has paid for, one JSON object each, the latest first",
    },
    "_ledger": {
        "ledger": "Show what a ledger holds, resolve submissions whose outcome is unknown, make it smaller",
    },
    "_worker": {
        "worker": "Work on the jobs of a fleet until SIGTERM or Ctrl-C, then hand over what is in flight",
    },
    "_emulator": {
        "emulator": "Serve a local PiAPI with real results until Ctrl-C",
    },
    "_listen": {
        "listen": "Print webhook deliveries as JSON lines, until Ctrl-C",
    },
}

SHORT_HELPS = {name: line for commands in _COMMANDS.values() for name, line in commands.items()}
_MODULES = {name: module for module, commands in _COMMANDS.items() for name in commands}


class _Commands(click.Group):
    """All commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        """Return the names of all commands, in the order of the list."""
        return sorted(_MODULES)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's shape
        cmd_name: str,
    ) -> click.Command | None:
        """Return a command, None if there is none of this name."""
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"._commands.{_MODULES[cmd_name]}", __package__)
        command: click.Command = module.COMMANDS[cmd_name]
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands that begin so without importing them; else what click completes."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=SHORT_HELPS[name]) for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        names = self.list_commands(ctx)
        width = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _cut(SHORT_HELPS[name], width)) for name in names])


def _cut(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    return f"{text[: max(0, width - 3)]}..."


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"{_ABOUT}\n\n{exit_codes_help()}\n\n{_COMPLETION}",
)
@shared_options
@click.version_option(__version__, prog_name="piapi-async")
def cli() -> None:
    """Create, wait for and save tasks; the help text is put together above."""
