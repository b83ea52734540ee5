"""Lists whose reader leaves (``| head``) end in silence, and webhook secrets reach the requests of commands."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.processes import started
from support.threaded_emulator import call_in_thread, threaded_emulator

from piapi_async import Imagine, Ledger
from piapi_async.cli import cli
from piapi_async.ledger._entries import SubmissionKey
from piapi_async.ledger._ledger import writer_of


@pytest.fixture
async def many(tmp_path: Path) -> Path:
    """A ledger whose list is longer than a pipe holds."""
    ledger = Ledger(tmp_path / "l.db")
    for number in range(3):
        request = Imagine("a cat " * 10_000).to_http()
        await writer_of(ledger).claim(
            SubmissionKey.of(request, key=f"k{number}", origin="https://a", family="legacy")
        )
    await ledger.close()
    return tmp_path / "l.db"


@pytest.mark.parametrize(
    ("command", "lines"),
    [(["ledger", "show", "l.db"], 1), pytest.param(["models"], 0, marks=pytest.mark.storm)],
)
def test_a_list_whose_reader_leaves_says_nothing(many: Path, command: list[str], lines: int) -> None:
    reader, writer = os.pipe()
    words = (sys.executable, "-m", "piapi_async", *command)
    with started(*words, cwd=many.parent, stdout=writer) as process:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            for _ in range(lines):
                pipe.readline()
        process.finish()

    assert process.said == ""


@pytest.mark.parametrize(
    ("words", "variable", "secret"),
    [
        (["imagine", "a cat", "--webhook-secret", "mine"], "other", "mine"),
        (["imagine", "a cat"], "hush", "hush"),
        (["run", "flux/txt2img", "prompt=a cat"], "hush", "hush"),
    ],
)
def test_a_submission_takes_its_webhook_secret_from_the_environment(
    words: list[str], variable: str, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = ["--webhook-endpoint", "http://127.0.0.1:9/hook"]
    if words[0] == "run":
        endpoint = ["webhook_endpoint=http://127.0.0.1:9/hook"]
    with threaded_emulator(durations=1000.0) as (emulator, base_url):
        environment = {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": emulator.api_key}
        environment["PIAPI_WEBHOOK_SECRET"] = variable
        result = CliRunner().invoke(cli, [*words, *endpoint, "--no-wait"], env=environment)
        assert result.exit_code == 0, result.stderr
        task = call_in_thread(emulator, partial(emulator.task, result.stdout.strip()))
        assert task is not None
        assert secret in json.dumps(task.given)

        alone = CliRunner().invoke(
            cli,
            [*(word for word in words if word not in {"--webhook-secret", "mine"}), "--no-wait"],
            env=environment,
        )
        assert alone.exit_code == 0, alone.stderr
