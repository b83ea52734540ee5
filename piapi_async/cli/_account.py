"""`piapi-async models`, `upload`, `account`, `history`: what there is besides tasks."""

from __future__ import annotations

import contextlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from .._families import FAMILIES
from ..client import runtime_of
from ..models import Entry, catalog
from ._options import short
from ._output import check_listing, check_stdout, echo, on_terminal, print_json, print_line
from ._requests import AROUND, LEGNEXT, Recipe, recipes
from ._running import run
from ._session import client
from ._setup import read_setup
from ._stderr import say

if TYPE_CHECKING:
    from ..account import Account


def models(search: str | None) -> None:
    """List what `run` and `batch` can create, with its inputs: required ones first, marked *."""
    check_listing()
    wanted = (search or "").lower()
    entries = [*catalog().values(), *_legnexts()]
    abouts = {entry.name: short(entry.request.__doc__) for entry in entries}
    found = [
        entry
        for entry in entries
        if wanted in " ".join((entry.name, *entry.models, abouts[entry.name])).lower()
    ]
    if not found:
        say(f"No model has {search!r} in its name or description; a newer one is MODEL:TASK_TYPE.")

    for entry in found:
        about, inputs = abouts[entry.name], _inputs(recipes()[entry.name])
        if not on_terminal():
            print_line({"name": entry.name, "models": entry.models, "about": about, "inputs": inputs})
            continue
        click.echo(f"{click.style(entry.name, bold=True)}  {about}  ({', '.join(entry.models)})")
        click.echo(click.wrap_text(", ".join(inputs), initial_indent="    ", subsequent_indent="    "))


def _legnexts() -> list[Entry]:
    """Return LegNext's verbs as entries of the catalogue; its model is Midjourney alone."""
    return [Entry(name, cls, ("midjourney",), "") for name, cls in LEGNEXT.items()]


def _inputs(recipe: Recipe) -> list[str]:
    marked = []
    for name in recipe.fields:
        if name in recipe.required:
            marked.append(f"{name}*")
        elif name not in AROUND:
            marked.append(name)
    return marked


def upload(*, file: Path, name: str | None) -> None:
    """Put a file where models can read it, for 24 hours, and print its URL."""
    setup = read_setup()
    check_stdout()

    async def main() -> None:
        async with client(setup) as piapi:
            try:
                echo(await piapi.upload(file, name=name))
            except ValueError as error:
                raise click.UsageError(str(error)) from None

    run(main())


def account(family: str) -> None:
    """Print the account behind the key, and what is active on it."""
    setup = read_setup().to(FAMILIES[family])
    check_stdout()

    async def main() -> None:
        async with client(setup) as piapi:
            found = await piapi.account()
            shown: dict[str, Any] = {"account": dict(found.raw)}
            if "active_tasks" in runtime_of(piapi).home.service.calls:
                active = await piapi.active_tasks()
                shown["active_tasks"] = {provider: attrs.asdict(tasks) for provider, tasks in active.items()}
            print_json(shown)
            summary = _summary(found)
            if summary:
                say(summary)

    run(main())


def _summary(account: Account) -> str:
    """Return one line of what people look for: plan, what is left, tasks at a time; "" if untold."""
    facts = (
        ("plan", account.plan),
        ("credits left", _amount(account.credits.available)),
        ("points left", _amount(account.wallet.available)),
        ("worth in US dollars", _amount(account.equivalent_in_usd)),
        ("tasks at a time", _amount(account.max_concurrent_task_count)),
    )
    told = ", ".join(f"{name} {value}" for name, value in facts if value)
    return told and f"{account.name or account.id}: {told}"


def _amount(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}"


def history(*, model: str | None, since: datetime | None, until: datetime | None, limit: int | None) -> None:
    """Print the tasks that the account has paid for, one JSON object each, the latest first."""
    setup = read_setup()
    check_listing()
    if since is not None and until is not None and since > until:
        raise click.UsageError("--since is later than --until")

    async def main() -> None:
        async with (
            client(setup) as piapi,
            contextlib.aclosing(piapi.history(model, since, until)) as entries,
        ):
            count = 0
            async for entry in entries:
                print_line(entry.to_dict())
                count += 1
                if count == limit:
                    break

    run(main())
