"""`piapi-async run`: a task of any model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from ..unified import CreateTask
from ._output import check_stdout
from ._requests import Recipe, missing_file, recipes, unknown_verb, with_files
from ._running import run
from ._saving import Saving
from ._setup import read_setup
from ._submit import add_webhook_secret, require_key, submit_and_finish

if TYPE_CHECKING:
    from .._protocol.family import TaskRequest

_INPUT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?P<sign>:?=)(?P<text>.*)", re.DOTALL)


def run_command(
    *,
    what: str,
    inputs: tuple[str, ...],
    timeout: float | None,
    no_wait: bool,
    key: str | None,
    saving: Saving,
) -> None:
    """Create any task of the unified API: SYSTEM/TASK_TYPE as `models` lists them, then its inputs."""
    setup = read_setup()
    check_stdout()
    require_key(setup, key)

    try:
        request = _request(what, inputs)
    except (ValueError, TypeError) as error:
        raise click.UsageError(str(error)) from None

    if key is None:  # with a key the task may exist, and need its files no longer
        reason = missing_file(request)
        if reason:
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

    if recipe is None:
        return CreateTask(model, task_type, with_files(given))
    if "webhook_secret" in recipe.fields:
        add_webhook_secret(given)
    return recipe.make(given)


def _read(text: str, recipe: Recipe | None) -> tuple[str, Any]:
    match = _INPUT.fullmatch(text)
    if match is None:
        raise click.UsageError(f"{text!r} is not allowed; give NAME=TEXT or NAME:=JSON")

    name, value = match["name"], match["text"]
    if recipe is not None:
        name = name.replace("-", "_")
    if match["sign"] == ":=":
        return name, _parse_json(name, value)
    if recipe is None:
        return name, value
    return name, recipe.from_text(name, value)


def _parse_json(name: str, text: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"{name}:= {text!r} is not JSON ({error}); NAME=TEXT gives a string") from None
