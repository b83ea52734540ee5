"""`piapi-async ledger`: what a ledger holds, and what a person knows of its unknown submissions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ..ledger import Ledger, LedgerEntry, LedgerState
from ._output import check_stdout, listing, on_terminal, print_line
from ._running import run
from ._stderr import harmless, say

file_argument = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group("ledger")
def ledger() -> None:
    """Show what a ledger holds, and resolve submissions whose outcome is unknown."""


@ledger.command("show")
@file_argument
@click.option(
    "--state",
    type=click.Choice([state.value for state in LedgerState]),
    help="Only submissions in this state.",
)
def show(file: Path, state: str | None) -> None:
    """Print every submission: for reading on a terminal, else one JSON object per line."""
    check_stdout()
    wanted = None
    if state:
        wanted = LedgerState(state)

    async def main() -> None:
        opened = Ledger(file)
        try:
            with listing():
                async for entry in opened.entries(wanted):
                    _print(entry)
        finally:
            await opened.close()

    run(main())


@ledger.command("resolve")
@file_argument
@click.argument("key")
@click.option("--task-id", metavar="ID", help="It was accepted: the id of its task.")
@click.option("--resubmit", is_flag=True, help="It created no task: the key may be submitted again.")
def resolve(file: Path, key: str, task_id: str | None, *, resubmit: bool) -> None:
    """Record the outcome of an unknown submission."""
    if (task_id is None) == (not resubmit):
        raise click.UsageError("give either --task-id ID (it was accepted) or --resubmit (it was not)")

    if task_id is not None and not task_id.strip():
        raise click.UsageError("--task-id is empty")
    outcome = f"task {task_id}"
    if resubmit:
        outcome = "may be submitted again"

    async def main() -> None:
        opened = Ledger(file)
        try:
            await opened.resolve(key, task_id=task_id, resubmit=resubmit)
        finally:
            await opened.close()
        say(f"{key}: {outcome}")

    run(main())


def _print(entry: LedgerEntry) -> None:
    if not on_terminal():
        print_line(_as_json(entry))
        return

    out = Console(highlight=False, emoji=False)
    when = datetime.fromtimestamp(entry.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    head = f"{entry.outcome or entry.state.value:9} {when}  {entry.key}"
    out.print(harmless(head), markup=False, soft_wrap=True)
    if entry.task_id is not None:
        out.print(f"          task {harmless(entry.task_id)}", markup=False, soft_wrap=True)
    request = f"          {harmless(entry.request)}"
    out.print(request, markup=False, no_wrap=True, overflow="ellipsis")


def _as_json(entry: LedgerEntry) -> dict[str, object]:
    return {
        "key": entry.key,
        "state": entry.state.value,
        "outcome": entry.outcome,
        "task_id": entry.task_id,
        "origin": entry.origin,
        "family": entry.family,
        "request": entry.request,
        "at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds"),
    }


COMMANDS: Mapping[str, click.Command] = {"ledger": ledger}
