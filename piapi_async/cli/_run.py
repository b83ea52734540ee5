"""`piapi-async run`: a task of any model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..unified import CreateTask
from ._options import shared_options, short, timeout_option
from ._output import check_stdout
from ._requests import Recipe, missing_file, recipes, unknown_verb, with_files
from ._saving import Saving, saving_options
from ._session import read_setup, run
from ._submit import key_option, no_wait_option, require_key, submit_and_finish

if TYPE_CHECKING:
    from .._protocol.family import TaskRequest

_INPUT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?P<sign>:?=)(?P<text>.*)", re.DOTALL)


def _run(
    *,
    what: str,
    inputs: tuple[str, ...],
    timeout: float | None,
    no_wait: bool,
    key: str | None,
    **values: object,
) -> None:
    """Make any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs.

    NAME=TEXT gives an input, NAME:=JSON one that is no text, NAME=@FILE a file that is uploaded first. A model that
    is newer than this release is MODEL:TASK_TYPE, as in Qubico/flux1-dev:txt2img, and takes whatever it is given; there
    any text may be a file, so one that is none and begins with @ is NAME=@@TEXT.
    """
    setup, saving = read_setup(), Saving.taken_from(values)
    check_stdout()
    require_key(setup, key)
    try:
        request = _request(what, inputs)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None
    if key is None and (reason := missing_file(request)):  # with a key the task may exist, and need its files no more
        raise click.UsageError(reason)
    saving.prepare()
    run(submit_and_finish(setup, request, key, timeout, saving, wait=not no_wait))


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
        *(timeout_option, *saving_options(), no_wait_option, key_option),
        *shared_options(),
    ],
    help=_run.__doc__,
    short_help=short(_run.__doc__),
)

COMMANDS: Mapping[str, click.Command] = {"run": run_command}
