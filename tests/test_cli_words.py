"""What commands say: help texts, exit codes, hints for common slips, keys as editors save them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from support.tables import for_each
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import SHORT_HELPS, _stderr, cli
from piapi_async.cli import _session as setup
from piapi_async.cli._exit import ExitCode, exit_codes_help
from piapi_async.cli._meter import clock
from piapi_async.cli._options import short
from piapi_async.cli._output import to_json
from piapi_async.cli._saving import Saving
from piapi_async.cli._setup import Setup
from piapi_async.cli._stderr import harmless
from piapi_async.cli._verbs import VERBS
from piapi_async.emulator import Emulator, Status

Host = tuple[Emulator, dict[str, str]]


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with threaded_emulator() as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


def run(*words: str, **environment: str | None) -> Result:
    return CliRunner().invoke(cli, words, env=environment)


def flat(result: Result) -> str:
    return " ".join(result.stderr.split())


# -- help -----------------------------------------------------------------------------------------------------------


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *path, name)


@for_each("path", list(commands(cli)), ids=" ".join)
def test_every_help_text_is_for_any_terminal(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")

    assert result.exit_code == 0
    assert result.stdout.isascii()


def test_the_list_of_commands_says_what_they_say_of_themselves() -> None:
    context = click.Context(cli)
    assert VERBS.keys() < SHORT_HELPS.keys()
    for name, text in SHORT_HELPS.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert short(command.help) == text

    assert cli.get_command(context, "nonsense") is None


def test_the_help_has_all_exit_codes() -> None:
    shown = run("--help").stdout

    assert exit_codes_help().count("\n") == len(ExitCode) + 1
    for code in ExitCode:
        assert re.search(rf"^ +{code.value} +{re.escape(code.meaning)}$", shown, re.MULTILINE)


# -- what people type -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (
            ("imagine", "a cat", "--ar", "3:2"),
            'belong in the prompt, as in "a cat --ar 3:2"; or use --aspect-ratio.',
        ),
        (("imagine", "a cat", "--ar=3:2"), 'as in "a cat --ar 3:2"'),
        (("imagine", "a cat", "-ar", "3:2"), 'as in "a cat --ar 3:2"'),
        (("imagine", "a cat", "\u2014ar 3:2"), 'as in "a cat --ar 3:2"'),
        (("imagine", "a cat", "--tile", "--no-wait"), 'as in "a cat --tile".'),
        (("reroll", "p1", "--stylize", "50"), 'as in "a cat --stylize 50".'),
        (("imagine", "--tile a cat"), 'imagine -- "--tile a cat".'),
        (("imagine", "a", "cute", "cat"), "Put the prompt in quotes: "),
    ],
)
def test_a_prompt_as_discord_wants_it_gets_a_hint(words: tuple[str, ...], hint: str, host: Host) -> None:
    result = run(*words, **host[1])

    assert result.exit_code == 2
    assert hint in flat(result)


@pytest.mark.parametrize(
    "words",
    [("imagine", "a cat", "--nonsense"), ("upscale", "p", "--index", "1", "--ar", "3:2"), ("imagine",)],
)
def test_other_slips_get_no_such_hint(words: tuple[str, ...], host: Host) -> None:
    result = run(*words, **host[1])

    assert result.exit_code == 2
    assert "rompt, as in" not in flat(result)
    assert "quotes" not in flat(result)


def test_a_prompt_that_begins_with_dashes_is_sent_as_it_is(host: Host) -> None:
    result = run("imagine", "--no-wait", "--", "--tile a cat", **host[1])

    assert result.exit_code == 0
    assert host[0].engine.tasks[result.stdout.strip()].prompt == "--tile a cat"


# -- waits ------------------------------------------------------------------------------------------------------------


def test_a_task_that_nobody_has_seen_does_not_go_on(host: Host) -> None:
    host[0].fail("read", Status(500))
    result = run("wait", "nope", "--timeout", "0", **host[1])

    assert result.exit_code == 5
    assert "goes on" not in result.stderr
    assert (
        "No response told of task nope: check the id and --family. To wait for it: piapi-async"
        in result.stderr
    )


def test_a_task_that_the_host_does_not_know_does_not_go_on(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    monkeypatch.setattr("piapi_async._wait.faults.NOT_FOUND_GRACE", 0.05)
    result = run("wait", "nope", **host[1])

    assert result.exit_code == 3
    assert "goes on" not in result.stderr
    assert "To wait" not in result.stderr


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_key_file_may_be_as_an_editor_saves_it(encoding: str, host: Host, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "key").write_bytes(f"{mark}emulator-key\r\n".encode(encoding))
    environment = {"PIAPI_BASE_URL": host[1]["PIAPI_BASE_URL"], "PIAPI_API_KEY": None}

    assert run("account", "--api-key-file", str(tmp_path / "key"), **environment).exit_code == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no key"),
        (b"\xef\xbb\xbf \n", "holds no key"),
        ("key".encode("utf-16-le"), "is UTF-16 without a byte-order mark"),
        (b"caf\xe9", "is not UTF-8 text"),
        (b"\xff\xfek", "is not UTF-16-LE text"),
    ],
)
def test_a_key_file_that_cannot_be_read_says_how_it_is_written(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(content)
    result = run("account", "--api-key-file", str(tmp_path / "key"))

    assert result.exit_code == 2
    assert said in flat(result)


# -- texts ------------------------------------------------------------------------------------------------------------


@for_each("encoding", ["utf-8", "cp1252", "ascii", "utf-16", "nonsense"])
def test_json_is_json_in_any_encoding_and_harmless(encoding: str) -> None:
    value = {"a": "猫 😀 é\x9b\x1b[2J\u202e\ud800", "b": Path("x")}
    text = to_json(value, encoding=encoding)

    assert json.loads(text) == {"a": value["a"], "b": "x"}
    assert harmless(text) == text
    if encoding != "nonsense":
        text.encode(encoding)
    assert ("猫" in text) == (encoding.startswith("utf"))


def test_control_characters_are_shown_and_not_sent() -> None:
    assert harmless("a\tb\nc\r\x1b[2J\x9b1m\x7f\u202e") == "a\tb\nc\\x0d\\x1b[2J\\x9b1m\\x7f\\u202e"


def test_talk_to_nobody_ends_nothing_and_what_matters_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    os.close(reading)
    broken = os.fdopen(writing, "w")
    for stream in (broken, None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert not _stderr.say("anybody there?")
        _stderr.tell("task t1")
    monkeypatch.undo()
    with Path(os.devnull).open("wb") as anywhere:
        os.dup2(anywhere.fileno(), writing)  # so that closing it is no error
    broken.close()

    [kept] = tmp_path.iterdir()
    assert kept.read_text("utf-8") == "task t1\ntask t1\n"
    assert _stderr.say("now there is")


@for_each(("seconds", "shown"), [(0, "0:00:00"), (59.9, "0:00:59"), (3725, "1:02:05"), (-1, "0:00:00")])
def test_a_length_of_time_is_shown_as_on_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_options_are_typed_again_as_they_were_given() -> None:
    setup_words = Setup(base_url="http://e:1", allow_insecure=True, ledger=Path("run.db")).words()
    saving = Saving(directory=Path("my files"), all_files=True, download_timeout=1.5, max_file_bytes=7)

    assert setup_words == ["--base-url", "http://e:1", "--ledger", "run.db", "--allow-insecure"]
    assert saving.words() == [
        *("--download", "my files", "--all-files", "--download-timeout", "1.5", "--max-file-bytes", "7")
    ]
    assert Saving(all_files=True).words() == []


def test_options_of_saving_reach_what_saves(host: Host, tmp_path: Path) -> None:
    task_id = run("imagine", "a cat", "--no-wait", **host[1]).stdout.strip()
    run("wait", task_id, **host[1])
    small = run("download", task_id, str(tmp_path), "--max-file-bytes", "10", **host[1])

    assert small.exit_code == 8
    assert run("download", task_id, str(tmp_path), "--download-timeout", "60", **host[1]).exit_code == 0


def test_a_ledger_is_shown_for_people_on_a_terminal(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(tmp_path / "run.db")
    run("imagine", "a \x1b[31mcat", "--no-wait", "--ledger", file, "--key", "order 17", **host[1])
    monkeypatch.setattr("piapi_async.cli._ledger.on_terminal", lambda: True)
    shown = run("ledger", "show", file).stdout

    assert "order 17" in shown
    assert "\x1b" not in shown
