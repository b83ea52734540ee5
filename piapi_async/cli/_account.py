"""`piapi-async models`, `upload`, `account`, `history`: what there is beside the tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from ..models import catalog
from ._options import shared_options, short
from ._output import check_stdout, echo, listing, on_terminal, print_json, print_line, say
from ._requests import AROUND, Recipe, recipes
from ._session import client, read_setup, run

if TYPE_CHECKING:
    from ..account import Account


@click.command()
@click.option("--search", metavar="TEXT", help="Only those whose name, model or description has this.")
def models(search: str | None) -> None:
    """List what `run` and `batch` can make, with its inputs: those that are required first, marked *."""
    wanted = (search or "").lower()
    abouts = {entry.name: short(entry.request.__doc__) for entry in catalog().values()}
    found = [e for e in catalog().values() if wanted in " ".join((e.name, *e.models, abouts[e.name])).lower()]
    if not found:
        say(f"No model has {search!r} in its name or description; a newer one is MODEL:TASK_TYPE.")
    for entry in found:
        recipe, about = recipes()[entry.name], abouts[entry.name]
        if not on_terminal():
            print_json({"name": entry.name, "models": entry.models, "about": about, "inputs": _inputs(recipe)})
            continue
        click.echo(f"{click.style(entry.name, bold=True)}  {about}  ({', '.join(entry.models)})")
        click.echo(click.wrap_text(", ".join(_inputs(recipe)), initial_indent="    ", subsequent_indent="    "))


def _inputs(recipe: Recipe) -> list[str]:
    names = [name for name in recipe.fields if name not in AROUND]
    return [f"{name}*" if name in recipe.required else name for name in names]


def _upload(*, file: Path, name: str | None) -> None:
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


upload = click.Command(
    "upload",
    callback=_upload,
    params=[
        click.Argument(["file"], type=click.Path(exists=True, dir_okay=False, path_type=Path)),
        click.Option(["--name"], help="What to call it there. Default: the file's own name."),
        *shared_options(),
    ],
    help=_upload.__doc__,
    short_help=short(_upload.__doc__),
)


def _account() -> None:
    """Print the account behind the key, and what is active on it."""
    setup = read_setup()
    check_stdout()

    async def main() -> None:
        async with client(setup) as piapi:
            account, active = await piapi.account(), await piapi.active_tasks()
            counts = {provider: attrs.asdict(tasks) for provider, tasks in active.items()}
            print_json({"account": dict(account.raw), "active_tasks": counts})
            if line := _summary(account):
                say(line)

    run(main())


def _summary(account: Account) -> str:
    """Return what is usually looked for: who, which plan, what is left, how much at a time."""
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
    return "" if value is None else f"{value:,}"


def _read_time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    """Return the time that an option says; without a zone it is that of this machine."""
    if value is None:
        return None
    try:
        return datetime.fromisoformat(value).astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is no time; write 2026-07-31, 2026-07-31T12:00 or 2026-07-31T12:00:00Z"
        ) from None


def _history(*, model: str | None, since: datetime | None, until: datetime | None, limit: int | None) -> None:
    """Print the tasks that the account has paid for, one JSON object each, the latest first.

    They are the tasks of the unified API, whoever made them with a key of this account. How soon after its create a
    task is among them is not documented.
    """
    setup = read_setup()
    check_stdout()
    if since is not None and until is not None and since > until:
        raise click.UsageError("--since is later than --until")

    async def main() -> None:
        async with client(setup) as piapi, contextlib.aclosing(piapi.history(model, since, until)) as entries:
            count = 0
            with listing():
                async for entry in entries:
                    print_line(entry.to_dict())
                    count += 1
                    if count == limit:
                        break

    run(main())


history = click.Command(
    "history",
    callback=_history,
    params=[
        click.Option(["--model"], help="Only tasks of this model, as the host calls it."),
        click.Option(
            ["--since"], callback=_read_time, metavar="TIME", help="Made then or later, as 2026-07-31T12:00Z."
        ),
        click.Option(["--until"], callback=_read_time, metavar="TIME", help="Made then or earlier."),
        click.Option(["--limit"], type=click.IntRange(1), metavar="NUMBER", help="No more than so many."),
        *shared_options(),
    ],
    help=_history.__doc__,
    short_help=short(_history.__doc__),
)


account = click.Command(
    "account", callback=_account, params=shared_options(), help=_account.__doc__, short_help=short(_account.__doc__)
)

COMMANDS: Mapping[str, click.Command] = {
    "models": models,
    "upload": upload,
    "account": account,
    "history": history,
}
