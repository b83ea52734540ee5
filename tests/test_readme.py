"""Whatever the README shows is run, but for its two set-up lines, which the gate runs on an empty machine."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.processes import PATIENCE
from support.strict_server import free_port
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.emulator import Emulator

README = Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
COMMANDS = [
    line.partition("#")[0].strip()
    for language, code in BLOCKS
    if language == "console"
    for line in code.splitlines()
    if line.startswith("piapi-async ") and not line.startswith("piapi-async emulator ")  # which does not end
]
SET_UP = [line for line in TEXT.splitlines() if line.startswith("python3 -m venv ")]


@pytest.mark.looptime
@pytest.mark.parametrize("code", [code for code in PYTHON if "def test_" not in code])
async def test_a_python_block_runs_as_it_stands(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = code.replace("8088", str(free_port()))  # other interpreters may run this very test meanwhile
    async with Emulator(adopt_parents=True, picture_size=32).run() as base_url:
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        scope: dict[str, Any] = {}
        exec("async def block():\n" + textwrap.indent(code, "    "), scope)  # noqa: S102 - the README's own
        await scope["block"]()


@pytest.mark.storm
@pytest.mark.parametrize("code", [code for code in PYTHON if "def test_" in code])
def test_a_test_shown_there_passes(code: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_shown=code)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")

    result = pytester.runpytest_subprocess("-q", timeout=PATIENCE)

    result.assert_outcomes(passed=code.count("def test_"))


def test_the_commands_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))  # real seconds pass here
    task_id = "ID"
    with threaded_emulator() as (_, base_url):
        monkeypatch.setenv("PIAPI_BASE_URL", base_url)
        monkeypatch.setenv("PIAPI_API_KEY", "emulator-key")
        lines = [
            {"verb": "reroll", "origin_task_id": "6886fc4d", "prompt": f"cat {number}"} for number in range(5)
        ]
        Path("cats.jsonl").write_text("\n".join(map(json.dumps, lines)))
        for command in COMMANDS:
            result = CliRunner().invoke(cli, shlex.split(command.replace(" ID", f" {task_id}"))[1:])
            assert result.exit_code == 0, (command, result.stderr)
            if "--no-wait" in command:
                task_id = result.stdout.strip()

    assert len(COMMANDS) >= 3


def test_two_lines_set_everything_up() -> None:
    first, second = SET_UP

    assert "--emulator reroll" in first
    assert "pytest" in second
    assert TEXT.index(second) < 2500  # on the first screen or so
