"""`piapi-async ledger show` and `compact`, which need no client."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
from rich.console import Console

from ..ledger import CompactionReport, Ledger, LedgerEntry, LedgerState
from ..ledger import compact as compact_ledger
from ._output import check_listing, check_stdout, on_terminal, print_json, print_line
from ._running import run
from ._stderr import harmless, say


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
            report = await compact_ledger(opened, before)
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


_FOUND = {
    "history": "found in the host's history",
    "webhook": "found by its webhook delivery",
    "read": "read, as the response named it",
    "hand": "told by a person",
}
"""How the task of a lost submission was found, in words."""


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
