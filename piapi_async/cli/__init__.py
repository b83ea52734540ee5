"""The `piapi-async` command: the result as JSON on stdout, all talk on stderr.

The commands that make a task are built from the request classes, so a verb added there is a command here.  A command's
module is imported when the command is run: `piapi-async --help` needs no HTTP client.
"""

from __future__ import annotations

from importlib import import_module

import click

from .._version import __version__
from ._exit import exit_codes_help
from ._options import shared_options, short

_SHORT_HELPS = {
    "run": "Make any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs",
    "models": "List what `run` and `batch` can make, with its inputs: those that are required first, marked *",
    "upload": "Put a file where models can read it, for 24 hours, and print its URL",
    "account": "Print the account behind the key, and what is active on it",
    "history": "Print the tasks that the account has paid for, one JSON object each, the latest first",
    "fetch": "Print tasks as they are now, one JSON object each",
    "wait": "Wait for tasks and print them as they end",
    "download": "Save the pictures of a finished task",
    "cancel": "Ask the host to cancel tasks",
    "batch": "Run a file of requests",
    "ledger": "Show what a ledger holds, and resolve submits of which nobody knows what became",
    "emulator": "Serve both protocols, with real results, until Ctrl-C",
    "listen": "Print webhook deliveries as JSON lines, until Ctrl-C",
}
"""What the list of commands says of those that are no verbs of Midjourney's."""

_MODULES = {
    "models": "_account",
    "upload": "_account",
    "history": "_account",
    "fetch": "_tasks",
    "wait": "_tasks",
    "download": "_tasks",
    "cancel": "_tasks",
}
"""Where a command is that is not in the module of its own name."""


_ABOUT = """Tasks on PiAPI, Midjourney's and all others: submitted once, waited for, saved.

The API key comes from the environment (PIAPI_API_KEY) or --api-key-file. Results are JSON on stdout.
"""


class _Commands(click.Group):
    """All commands, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's shape
        """Return the names of all commands, in the order of the list."""
        return sorted((*_verb_helps(), *_SHORT_HELPS))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's shape
        """Return a command, None if there is none of this name."""
        if cmd_name in _SHORT_HELPS:
            module = import_module(f".{_MODULES.get(cmd_name, f'_{cmd_name}')}", __package__)
            command: click.Command = module.COMMANDS[cmd_name]
            return command
        if cmd_name in _verb_helps():
            from ._submit import COMMANDS  # noqa: PLC0415 - brings the HTTP client

            return COMMANDS[cmd_name]
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        helps = {**_verb_helps(), **_SHORT_HELPS}
        width = formatter.width - 6 - max(map(len, helps))
        rows = [(name, _cut(helps[name], width)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _verb_helps() -> dict[str, str]:
    """Return Midjourney's verbs and what each does."""
    from ._verbs import VERBS  # noqa: PLC0415 - the requests, which only some commands need

    return {cls.__name__.lower(): short(cls.__doc__) for cls in VERBS}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=shared_options(),
    help=f"{_ABOUT}\n\n{exit_codes_help()}",
)
@click.version_option(__version__, prog_name="piapi-async")
def cli() -> None:
    """Make, wait for and save tasks; the help text is put together above."""
