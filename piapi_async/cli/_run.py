"""`piapi-async run`, `models`, `upload`, `account`: everything beside Midjourney's verbs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from ..models import catalog
from ..unified import CreateTask
from ._requests import AROUND, Recipe, missing_file, recipes, unknown_verb, with_files
from ._setup import client, directory_option, make_directory, read_setup, run, say, shared_options, timeout_option
from ._show import echo
from ._verbs import key_option, no_wait_option, require_key, short, submit_and_finish

if TYPE_CHECKING:
    from .._wire import TaskRequest

_INPUT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?P<sign>:?=)(?P<text>.*)", re.DOTALL)


def _run(
    *,
    what: str,
    inputs: tuple[str, ...],
    timeout: float | None,
    directory: Path | None,
    no_wait: bool,
    key: str | None,
) -> None:
    """Make any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs.

    NAME=TEXT gives an input, NAME:=JSON one that is no text, NAME=@FILE a file that is uploaded first. A model that
    is newer than this release is MODEL:TASK_TYPE, as in Qubico/flux1-dev:txt2img, and takes whatever it is given; there
    any text may be a file, so one that is none and begins with @ is NAME=@@TEXT.
    """
    setup = read_setup()
    require_key(setup, key)
    try:
        request = _request(what, inputs)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    if key is None and (reason := missing_file(request)):  # with a key the task may exist, and need its files no more
        raise click.UsageError(reason)
    if directory is not None:
        make_directory(directory)
    run(submit_and_finish(setup, request, key, timeout, directory, wait=not no_wait))


def _request(what: str, inputs: tuple[str, ...]) -> TaskRequest[Any]:
    recipe = recipes().get(what)
    model, colon, task_type = what.rpartition(":")
    if recipe is None and not colon:
        raise click.UsageError(unknown_verb(what))
    given: dict[str, Any] = {}
    for text in inputs:
        name, value = _read(text, recipe)
        if name in given:
            raise click.UsageError(f"{name}: given twice")
        given[name] = value
    return CreateTask(model, task_type, with_files(given)) if recipe is None else recipe.make(given)


def _read(text: str, recipe: Recipe | None) -> tuple[str, Any]:
    match = _INPUT.fullmatch(text)
    if match is None:
        raise click.UsageError(f"{text!r} is not allowed; give NAME=TEXT or NAME:=JSON")
    name = match["name"] if recipe is None else match["name"].replace("-", "_")
    if match["sign"] == "=":
        return name, match["text"] if recipe is None else recipe.from_text(name, match["text"])
    try:
        return name, json.loads(match["text"])
    except ValueError as error:
        raise click.UsageError(f"{name}:= {match['text']!r} is no JSON ({error}); NAME=TEXT gives a text") from None


run_command = click.Command(
    "run",
    callback=_run,
    params=[
        click.Argument(["what"], metavar="SYSTEM/TASK_TYPE"),
        click.Argument(["inputs"], metavar="[NAME=VALUE]...", nargs=-1),
        *(timeout_option, directory_option, no_wait_option, key_option),
        *shared_options(),
    ],
    help=_run.__doc__,
    short_help=short(_run.__doc__),
)


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
        if not sys.stdout.isatty():
            row = {"name": entry.name, "models": entry.models, "about": about, "inputs": _inputs(recipe)}
            click.echo(json.dumps(row, ensure_ascii=False))
            continue
        click.echo(f"{click.style(entry.name, bold=True)}  {about}  ({', '.join(entry.models)})")
        click.echo(click.wrap_text(", ".join(_inputs(recipe)), initial_indent="    ", subsequent_indent="    "))


def _inputs(recipe: Recipe) -> list[str]:
    names = [name for name in recipe.fields if name not in AROUND]
    return [f"{name}*" if name in recipe.required else name for name in names]


def _upload(*, file: Path, name: str | None) -> None:
    """Put a file where models can read it, for 24 hours, and print its URL."""
    setup = read_setup()

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

    async def main() -> None:
        async with client(setup) as piapi:
            account, active = await piapi.account(), await piapi.active_tasks()
            counts = {provider: attrs.asdict(tasks) for provider, tasks in active.items()}
            data = {"account": dict(account.raw), "active_tasks": counts}
            echo(json.dumps(data, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None))
            if account.plan:
                say(f"{account.name or account.id}: plan {account.plan}")

    run(main())


account = click.Command(
    "account", callback=_account, params=shared_options(), help=_account.__doc__, short_help=short(_account.__doc__)
)
