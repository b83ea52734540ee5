"""`piapi-async ledger`: what a ledger holds, what a person knows of its unknown submissions, making it smaller."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click
from attrs import evolve
from rich.console import Console

from ..ledger import CompactionReport, Ledger, LedgerEntry, LedgerState
from ._exit import ExitCode
from ._fleet_options import fleet_module
from ._output import check_listing, check_stdout, on_terminal, print_json, print_line
from ._running import run
from ._session import client
from ._setup import Setup, read_setup
from ._stderr import harmless, say

if TYPE_CHECKING:
    from ..fleet import Fleet


def show(file: Path, state: str | None) -> None:
    """Print every submission: for reading on a terminal, else one JSON object per line."""
    check_listing()
    wanted = None
    if state:
        wanted = LedgerState(state)

    async def main() -> None:
        opened = Ledger(file)
        try:
            async for entry in opened.entries(wanted):
                _print(entry)
        finally:
            await opened.close()

    run(main())


def resolve(file: Path | str, key: str, task_id: str | None, *, resubmit: bool) -> None:
    """Record the outcome of an unknown submission, of a ledger's FILE or the URL of a fleet's database."""
    if (task_id is None) == (not resubmit):
        raise click.UsageError("give either --task-id ID (it was accepted) or --resubmit (it was not)")

    if task_id is not None and not task_id.strip():
        raise click.UsageError("--task-id is empty")
    outcome = f"task {task_id}"
    if resubmit:
        outcome = "may be submitted again"

    setup = read_setup()

    async def main() -> None:
        if isinstance(file, str):
            async with fleet_module().Fleet(file) as fleet:
                await _resolved(fleet, key, task_id, resubmit=resubmit)
            say(f"{key}: {outcome}")
            return

        if resubmit:
            found = await _look_for(evolve(setup, ledger=file), key)
            if found is not None:
                say(f"{key}: it made task {found}, which was found in the host's history and is recorded now")
                return

        opened = Ledger(file)
        try:
            await opened.resolve(key, task_id=task_id, resubmit=resubmit)
        finally:
            await opened.close()
        say(f"{key}: {outcome}")

    run(main())


async def _look_for(setup: Setup, key: str) -> str | None:
    """Return the task of an unknown key, if the host's history has it; None without an API key, too."""
    try:
        async with client(setup) as piapi:
            ref = (await piapi.recover()).found.get(key)
    except click.UsageError as error:
        say(f"Its task was not looked for: {error.message}")
        return None
    if ref is None:
        return None
    return ref.task_id


def recover(file: Path) -> None:
    """Look for all unknown submissions in the host's task history, and record what is found."""
    setup = evolve(read_setup(), ledger=file)
    check_stdout()

    async def main() -> None:
        async with client(setup) as piapi:
            report = await piapi.recover()

        for key, ref in report.found.items():
            _tell(key, f"task {ref.task_id}", {"task_id": ref.task_id})
        for key in report.unknown:
            ids = [ref.task_id for ref in report.candidates.get(key, ())]
            what = "still unknown"
            if ids:
                what += f": {len(ids)} tasks fit it, too many to tell which is its own: {', '.join(ids)}"
            _tell(key, what, {"task_id": None, "candidates": ids})
        say(f"{len(report.found)} found, {len(report.unknown)} still unknown")
        if report.unknown:
            sys.exit(ExitCode.UNKNOWN)

    run(main())


def compact(file: Path, older_than: int) -> None:
    """Make a ledger smaller: of submissions whose task has ended, leave out what was asked and answered.

    Their keys, digests, task ids, outcomes and notes stay: a compacted key still gives the same task, never
    pays again, and is refused for another request. What its task has made is then known to the host alone.
    Submissions that are open or unknown stay whole. It may run beside a batch, but the file itself gets
    smaller only while no other process has it open: that takes seconds, and room for a copy.
    """
    check_stdout()
    before = datetime.now(UTC) - timedelta(days=older_than)

    async def main() -> None:
        opened = Ledger(file)
        try:
            report = await opened.compact(before)
        finally:
            await opened.close()

        print_json(attrs.asdict(report))
        say(f"{report.entries} entries compacted; {_size_told(report)}")

    run(main())


def _size_told(report: CompactionReport) -> str:
    before, after = (f"{size / 1e6:,.1f} MB" for size in (report.bytes_before, report.bytes_after))
    if report.obstacle:
        return (
            f"the file keeps its {before}, as it could not be written anew ({report.obstacle}); what is recorded "
            "next takes the room, or run this again later"
        )
    return f"the file had {before}, and has {after}"


def _tell(key: str, what: str, facts: dict[str, object]) -> None:
    if on_terminal():
        click.echo(harmless(f"{key}: {what}"))
    else:
        print_line({"key": key, **facts})


_FOUND = {
    "history": "found in the host's history",
    "webhook": "found by its webhook delivery",
    "read": "read, as the response named it",
    "hand": "told by a person",
}
"""How the task of a lost submission was found, in words."""


async def _resolved(fleet: Fleet, key: str, task_id: str | None, *, resubmit: bool) -> None:
    try:
        await fleet.resolve(key, task_id=task_id, resubmit=resubmit)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _print(entry: LedgerEntry) -> None:
    if not on_terminal():
        print_line(_as_json(entry))
        return

    out = Console(highlight=False, emoji=False)
    when = datetime.fromtimestamp(entry.at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    head = f"{entry.outcome or entry.state.value:9} {when}  {entry.key}"
    out.print(harmless(head), markup=False, soft_wrap=True)
    if entry.task_id is not None:
        how = _FOUND.get(entry.found, "")
        if how:
            how = f" ({how})"
        out.print(f"          task {harmless(entry.task_id)}{how}", markup=False, soft_wrap=True)
    request = f"          {harmless(entry.request)}"
    out.print(request, markup=False, no_wrap=True, overflow="ellipsis")


def _as_json(entry: LedgerEntry) -> dict[str, object]:
    return {
        "key": entry.key,
        "note": entry.note,
        "state": entry.state.value,
        "outcome": entry.outcome,
        "task_id": entry.task_id,
        "found": entry.found,
        "origin": entry.origin,
        "family": entry.family,
        "request": entry.request,
        "at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds"),
    }
