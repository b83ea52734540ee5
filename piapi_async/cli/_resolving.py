"""`piapi-async ledger resolve` and `recover`: what became of submissions that are unknown."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import evolve

from .._families import FAMILIES
from ..client import PiAPI, runtime_of
from ..ledger import Ledger
from ._exit import ExitCode
from ._fleet_options import fleet_module
from ._output import check_stdout, on_terminal, print_line
from ._running import run
from ._session import client
from ._setup import Setup, read_setup
from ._stderr import harmless, say

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from ..fleet import Fleet
    from ..tasks import TaskRef


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
    """Return the task of an unknown key, if the host's history has it; None without an API key, too.

    A person has said that there is none, and may do so; but not believing that it was looked for.
    """
    try:
        async with client(setup) as piapi:
            report = await piapi.recover()
            elsewhere = await _of_other_hosts(piapi, {key})
    except click.UsageError as error:
        say(f"Its task was not looked for: {error.message}")
        return None

    for origin, _ in elsewhere:
        say(f"Its task was not looked for: it was submitted to {origin}, and this is about another host")

    ref = report.found.get(key)
    if ref is not None:
        return ref.task_id
    if key in report.unknown and report.trouble:
        say(f"Its task was not looked for: {report.trouble}")
    if key in report.candidates:
        say(f"{key}: {_told(report.candidates[key])}")
    return None


async def _of_other_hosts(piapi: PiAPI, keys: Container[str] | None = None) -> Counter[tuple[str, bool]]:
    """Count the unknown submissions, of these keys if any are given, to hosts that a client does not ask.

    By their hosts, and whether these show a history.
    """
    assert piapi.ledger is not None  # noqa: S101 - the command has one
    asked = runtime_of(piapi).origin
    unknown = [entry for entry in await piapi.ledger.unknown() if keys is None or entry.key in keys]
    elsewhere = [entry for entry in unknown if entry.origin != asked]
    families = [FAMILIES.get(entry.family) for entry in elsewhere]
    return Counter(
        (entry.origin, family is not None and family.trace is not None)
        for entry, family in zip(elsewhere, families, strict=True)
    )


def _told(candidates: Sequence[TaskRef]) -> str:
    ids = ", ".join(ref.task_id for ref in candidates)
    return f"{len(candidates)} tasks fit it, too many to tell which is its own: {ids}"


def recover(file: Path) -> None:
    """Look for all unknown submissions in the host's task history, and record what is found."""
    setup = evolve(read_setup(), ledger=file)
    check_stdout()

    async def main() -> None:
        async with client(setup) as piapi:
            report = await piapi.recover()
            elsewhere = await _of_other_hosts(piapi)

        for key, ref in report.found.items():
            _tell(key, f"task {ref.task_id}", {"task_id": ref.task_id})
        for key in report.unknown:
            candidates = report.candidates.get(key, ())
            what = "still unknown"
            if candidates:
                what += f": {_told(candidates)}"
            _tell(key, what, {"task_id": None, "candidates": [ref.task_id for ref in candidates]})
        say(f"{len(report.found)} found, {len(report.unknown)} still unknown")
        if report.trouble:
            say(f"Not all could be looked for: {report.trouble}")
        for (origin, shows_history), count in elsewhere.items():
            what = "whose tasks only a person can look for: piapi-async ledger resolve"
            if shows_history:
                what = "set PIAPI_BASE_URL to look there"
            say(f"{count} more are unknown that were submitted to {origin}: {what}")
        if report.unknown or elsewhere:
            sys.exit(ExitCode.UNKNOWN)

    run(main())


def _tell(key: str, what: str, facts: dict[str, object]) -> None:
    if on_terminal():
        click.echo(harmless(f"{key}: {what}"))
    else:
        print_line({"key": key, **facts})


async def _resolved(fleet: Fleet, key: str, task_id: str | None, *, resubmit: bool) -> None:
    try:
        await fleet.resolve(key, task_id=task_id, resubmit=resubmit)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
