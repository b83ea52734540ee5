"""`piapi-async ledger`: what a ledger holds, and what a person knows of its unknown submits."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console

from ..ledger import Ledger, LedgerEntry, LedgerState
from ._output import check_stdout, harmless, listing, on_terminal, print_line, say
from ._session import run

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


@click.group()
def ledger() -> None:
    """Show what a ledger holds, and resolve submits of which nobody knows what became."""


@ledger.command()
@_file
@click.option("--state", type=click.Choice([state.value for state in LedgerState]), help="Only these.")
def show(file: Path, state: str | None) -> None:
    """Print every submit: to be read on a terminal, else one JSON object per line."""
    check_stdout()

    async def main() -> None:
        book = Ledger(file)
        try:
            with listing():
                async for entry in book.entries(LedgerState(state) if state else None):
                    _print(entry)
        finally:
            await book.close()

    run(main())


@ledger.command()
@_file
@click.argument("key")
@click.option("--task-id", metavar="ID", help="It was accepted: this is its task.")
@click.option("--resubmit", is_flag=True, help="It made nothing: the key may be submitted again.")
def resolve(file: Path, key: str, task_id: str | None, *, resubmit: bool) -> None:
    """Say what became of an unknown submit."""
    if (task_id is None) == (not resubmit):
        raise click.UsageError("give either --task-id ID (it was accepted) or --resubmit (it made nothing)")

    if task_id is not None and not task_id.strip():
        raise click.UsageError("--task-id: it is empty")

    async def main() -> None:
        book = Ledger(file)
        try:
            await book.resolve(key, task_id=task_id, resubmit=resubmit)
        finally:
            await book.close()
        say(f"{key}: " + ("may be submitted again" if resubmit else f"task {task_id}"))

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
    out.print(f"          {harmless(entry.request)}", markup=False, no_wrap=True, overflow="ellipsis")


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
