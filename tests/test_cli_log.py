"""What a command says on stderr of what the client does, and in which form."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async.cli import cli
from piapi_async.emulator import Emulator, Status

KEY = "emulator-key"


@pytest.fixture
def host() -> Iterator[tuple[Emulator, dict[str, str]]]:
    with threaded_emulator() as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": KEY, "PIAPI_POLL_SPEED": "20"}


def run(*words: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, words, env=environment)


def test_more_is_said_the_more_often_one_asks(host: tuple[Emulator, dict[str, str]]) -> None:
    _, environment = host
    words = ("imagine", "a cat", "--no-wait")
    plain, verbose, very = (run(*words, *flags, **environment).stderr for flags in ((), ("-v",), ("-vv",)))

    assert re.fullmatch(r"submitted [-0-9a-f]{36}\n", plain)
    assert re.search(r"^\d\d:\d\d:\d\d Imagine was accepted: task [-0-9a-f]{36}$", verbose, re.MULTILINE)
    assert "HTTP" not in verbose
    assert "a cat" not in verbose
    assert re.search(r"Imagine\('a cat'\): HTTP 200 in \d+ ms", very)


def test_json_is_one_object_in_each_line_whatever_is_said(
    host: tuple[Emulator, dict[str, str]], tmp_path: Path
) -> None:
    emulator, environment = host
    emulator.fail("imagine", Status(429))
    words = (
        "--ledger",
        str(tmp_path / "run.db"),
        "imagine",
        "a cat",
        "--key",
        "order 17",
        "--log-format",
        "json",
    )
    result = run(*words, "-v", **environment)
    assert result.exit_code == 0

    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stderr.splitlines()]
    assert {"info"} == {line["level"] for line in lines}
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    by_event = {line["event"]: line for line in lines if "event" in line}
    assert {"SubmissionStarted", "CallRetried", "SubmissionAccepted", "TaskEnded"} <= by_event.keys()

    ended = by_event["TaskEnded"]
    task = json.loads(result.stdout)
    assert task["task_id"] == ended["task_id"]
    assert ("Imagine", "order 17", environment["PIAPI_BASE_URL"]) == (
        ended["request"],
        ended["key"],
        ended["origin"],
    )
    assert "done" == ended["state"]
    assert any(line["message"].startswith("submitted ") for line in lines)  # the command's own words, too

    emulator.fail("imagine", Status(400, body={"message": "no"}))
    [*_, last] = run("imagine", "a cat", "--log-format", "json", **environment).stderr.splitlines()
    assert "error" == json.loads(last)["level"]
