"""Commands are declared apart from their work: help and completion are quick, and say what the classes say."""

from __future__ import annotations

import sys
from typing import get_args, get_type_hints

import attrs
import click
from click.testing import CliRunner
from support.processes import ended
from support.tables import for_each
from support.threaded_emulator import unmeasured

from piapi_async._families import FAMILIES
from piapi_async.batch._pace import AUTO_MAX
from piapi_async.cli import _saving_options, cli
from piapi_async.cli._commands import _batch, _ledger, _submit
from piapi_async.cli._completion import MODEL_NAMES
from piapi_async.cli._family_option import FAMILY_NAMES
from piapi_async.cli._requests import recipes
from piapi_async.cli._saving import Saving
from piapi_async.cli._verbs import VERBS
from piapi_async.ledger import LedgerState

HEAVY = {"aiohttp", "rich", "anyio", "sqlite3", "asyncio", "attr", "orjson", "piapi_async.midjourney"}

ASK = """
import os, sys
from piapi_async.cli import cli

def said(words, complete=""):
    os.environ["_PIAPI_ASYNC_COMPLETE"] = complete
    os.environ |= {"COMP_WORDS": "piapi-async " + words, "COMP_CWORD": str(len((words + "x").split()))}
    try:
        cli([] if complete else [*words.split(), "--help"], prog_name="piapi-async")
    except SystemExit:
        pass

for name in ["", "batch run", "batch status", "ledger show", "ledger compact", *cli.list_commands(None)]:
    said(name)
for words in ["re", "run flux/", "batch --verb im", "run --"]:
    said(words, "bash_complete")
print("HEAVY", sorted(set(sys.argv[1:]) & sys.modules.keys()))
"""


def completed(shell: str, *words: str) -> list[str]:
    """Return what a shell is told for a line, by the environment variables with which it asks."""
    line = " ".join(("piapi-async", *words))
    environment = {
        "_PIAPI_ASYNC_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    result = CliRunner().invoke(cli, [], prog_name="piapi-async", env=environment)
    assert "" == result.stderr
    return result.stdout.split("\n")


@for_each(
    ("shell", "told"),
    [("bash", "plain,flux/txt2img"), ("zsh", "flux/txt2img"), ("fish", "plain,flux/txt2img")],
)
def test_models_are_completed_in_every_shell(shell: str, told: str) -> None:
    lines = completed(shell, "run", "flux/t")

    assert told in lines
    assert not [line for line in lines if "kling" in line or "img2img-lora" in line]


def test_commands_options_and_verbs_are_completed() -> None:
    assert ["plain,report", "plain,reroll", ""] == completed("bash", "re")
    assert "plain,--no-wait" in completed("bash", "run", "flux/txt2img", "--no")
    assert "plain,--emulator" in completed("bash", "--em")
    assert ["plain,imagine", "plain,image-tools/background-remove"] == completed(
        "bash", "batch", "run", "x", "--verb", "im"
    )[:2]
    assert ["plain,compact", ""] == completed("bash", "ledger", "c")


@for_each("shell", ["bash", "zsh", "fish"])
def test_the_line_for_the_start_file_makes_a_script(shell: str) -> None:
    result = CliRunner().invoke(
        cli, [], prog_name="piapi-async", env={"_PIAPI_ASYNC_COMPLETE": f"{shell}_source"}
    )

    assert 0 == result.exit_code
    assert f"_PIAPI_ASYNC_COMPLETE={shell}_complete" in result.stdout
    assert f"{shell}_source" in CliRunner().invoke(cli, ["--help"]).stdout


def test_no_help_and_no_completion_needs_a_client_or_a_request_class() -> None:
    done = ended(sys.executable, "-c", ASK, *HEAVY, env=unmeasured())

    assert 0 == done.code, done.said
    assert "HEAVY []" == done.printed.splitlines()[-1]
    assert "plain,flux/txt2img" in done.printed


def test_names_of_models_are_those_that_run_takes() -> None:
    """If it fails, `model_names.txt` is to have the names that are expected here."""
    assert sorted(name for name in recipes() if name not in VERBS) == MODEL_NAMES.read_text("utf-8").split()


@for_each("name", VERBS)
def test_a_verb_is_called_with_the_fields_of_its_class(name: str) -> None:
    cls = VERBS[name]
    fields = {field.name: field for field in attrs.fields(cls) if field.init}
    first, *_ = fields
    declared = _submit.VERBS[name]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    of_class = {param.name: param for param in command.params if param.name in fields}

    assert fields.keys() == of_class.keys()
    assert first == declared.argument
    assert {name for name, field in fields.items() if field.default is attrs.NOTHING} == {
        name for name, param in of_class.items() if param.required
    }
    hints = get_type_hints(cls)
    for field, param in of_class.items():
        kinds = {hints[field], *get_args(hints[field])}
        assert (bool in kinds) == bool(param.secondary_opts)
        assert (int in kinds) == (param.type is click.INT)
    assert (cls.__doc__ or "").startswith(declared.about)


def test_what_help_says_of_defaults_and_choices_is_true() -> None:
    saving = Saving()

    assert (saving.max_file_bytes, saving.parallel_files) == (
        _saving_options.MAX_BYTES,
        _saving_options.MAX_OPEN_FILES,
    )
    assert AUTO_MAX == _batch.AUTO_MAX
    assert tuple(FAMILIES) == FAMILY_NAMES
    assert tuple(state.value for state in LedgerState) == _ledger.STATES
