"""`piapi-async models`, `upload`, `account`: what there is beside the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import click

from ..models import catalog
from ._options import shared_options, short
from ._output import check_stdout, echo, on_terminal, print_json, say
from ._requests import AROUND, Recipe, recipes
from ._session import client, read_setup, run


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
            if account.plan:
                say(f"{account.name or account.id}: plan {account.plan}")

    run(main())


account = click.Command(
    "account", callback=_account, params=shared_options(), help=_account.__doc__, short_help=short(_account.__doc__)
)

COMMANDS: Mapping[str, click.Command] = {"models": models, "upload": upload, "account": account}
