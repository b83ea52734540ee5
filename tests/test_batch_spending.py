"""`piapi-async batch`: what failed is submitted anew when it is asked for; what a run costs and may cost."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.threaded_emulator import threaded_emulator

from piapi_async import PiAPI, PollPolicy
from piapi_async.cli import _session as setup
from piapi_async.cli import cli
from piapi_async.emulator import Emulator, TaskFails

Host = tuple[Emulator, dict[str, str]]


@pytest.fixture(scope="module")
def service() -> Iterator[Host]:
    with threaded_emulator(queue=1000) as (emulator, base_url):
        yield emulator, {"PIAPI_BASE_URL": base_url, "PIAPI_API_KEY": "emulator-key"}


@pytest.fixture
def host(service: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Give an emulator that has seen nothing yet, and run in a directory of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setup, "PiAPI", partial(PiAPI, poll=PollPolicy.every(0.01)))
    service[0].engine.tasks.clear()
    service[0].fault_rules.rules.clear()
    service[0].seen.requests.clear()
    return service


def run(host: Host, *words: str) -> Result:
    return CliRunner().invoke(cli, words, env=host[1], catch_exceptions=False)


def creates(host: Host) -> int:
    seen = host[0].seen.requests
    return seen["reroll"] + seen["task_create"]


def items(count: int, **fields: Any) -> str:
    lines = [{"verb": "reroll", "origin_task_id": f"p{number}", **fields} for number in range(count)]
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return "in.jsonl"


def results() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: int(row["line"]))


def test_what_failed_is_submitted_anew_by_the_command_that_is_printed(host: Host) -> None:
    host[0].fail("reroll", TaskFails("no luck"), times=2)
    first = run(host, "--ledger", "run.db", "batch", items(4), "--out", "out.jsonl")
    failed = {row["key"] for row in results() if row["error"]}
    dry = run(host, "--ledger", "run.db", "batch", "in.jsonl", "--retry-failed", "--dry-run")
    [hint] = [line for line in first.stderr.splitlines() if line.startswith("To submit anew what failed: ")]
    again = run(host, *shlex.split(hint.partition(": piapi-async ")[2]))

    assert (first.exit_code, again.exit_code) == (4, 0), again.output
    assert json.loads(dry.stdout) == {"items": 4, "submit": 0, "resume": 2, "unknown": 0, "retry": 2,
                                      "estimated_cost": [{"amount": 6, "unit": "quota"}],
                                      "of_unknown_cost": 0}  # fmt: skip
    assert len(failed) == 2
    assert [row["error"] for row in results()] == [""] * 4
    assert "2 submitted (2 of them anew)" in again.stderr
    assert creates(host) == 6


def test_without_a_ledger_nothing_is_known_to_have_failed(host: Host) -> None:
    result = run(host, "batch", items(1), "--retry-failed")

    assert result.exit_code == 2
    assert "--retry-failed needs --ledger" in result.stderr


def films(count: int) -> str:
    lines = [
        {"verb": "luma/video_generation", "prompt": f"a cat, number {number}"} for number in range(count)
    ]
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return "in.jsonl"


def test_the_summary_and_a_rehearsal_tell_what_a_run_costs(host: Host) -> None:
    blind = run(host, "--ledger", "run.db", "batch", films(9), "--dry-run")
    first = run(host, "--ledger", "run.db", "batch", films(9), "--out", "out.jsonl", "--max-cost", "5000000")
    dry = run(host, "--ledger", "run.db", "batch", films(9), "--dry-run")

    assert json.loads(blind.stdout) == {"items": 9, "submit": 9, "resume": 0, "unknown": 0}
    assert first.exit_code == 9
    assert "2 submitted, " in first.stderr
    assert "; cost 4,000,000 point\n" in first.stderr
    assert "To go on: piapi-async --ledger run.db batch in.jsonl --out out.jsonl" in first.stderr
    assert " --max-cost 5000000" in first.stderr
    assert json.loads(dry.stdout)["submit"] == 7
    assert json.loads(dry.stdout)["estimated_cost"] == [{"amount": 14_000_000, "unit": "point"}]
    assert json.loads(dry.stdout)["of_unknown_cost"] == 0


def test_a_limit_that_cannot_be_kept_is_refused_before_anything_is_sent(host: Host) -> None:
    result = run(host, "batch", items(3), "--max-cost", "100")

    assert result.exit_code == 2
    assert "--max-cost: the protocol 'legacy' counts a quota" in result.stderr
    assert creates(host) == 0


def test_units_that_cannot_be_added_end_a_run(host: Host) -> None:
    lines = [{"verb": "luma/video_generation", "prompt": "a"}, {"verb": "flux/txt2img", "prompt": "b"}]
    Path("in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines * 3), encoding="utf-8")
    result = run(host, "batch", "in.jsonl", "--concurrency", "1", "--max-cost", "100000000")

    assert result.exit_code == 1
    assert "--max-cost: the tasks of this run cost llm and point, which cannot be added" in result.stderr
    assert creates(host) == 2
    assert len(result.stdout.splitlines()) == 2
